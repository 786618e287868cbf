r"""Histogram: constant density in cells of a grid; beyond two dimensions, of each entry alone.

.. math:: p(x) = (1 - \epsilon)\,\frac{n_{b(x)}}{n\,|b|} + \epsilon\,\mathcal N(x \mid \mu, 4 s^2)

in one and two dimensions, and the product of such densities over the entries in more: entries are
then independent, which is the baseline that any joint model should beat. A wide Gaussian covers
empty cells and the world outside, so no log-density is infinite; its weight is the share of data
that are alone in their cell, which estimates the mass of cells not yet seen (Good, 1953). The
number of cells maximises the held-out likelihood. A numeric condition acts through its quartile.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import DataError
from ..model import Event
from ..shapes import Condition, Data, PerDatum
from .gaussian import ClassGroups, ClosedFormModel, FittedTensors


class _QuartileEncoder(nn.Module):
    """Conditions as zeros and ones: classes as they are, numbers by the quartiles they exceed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = FittedTensors("edges")

    def fit(self, c: Tensor) -> None:
        edges = torch.quantile(c[: 10**6], c.new_tensor([0.25, 0.5, 0.75]), dim=0)
        edges[:, ((c == 0) | (c == 1)).all(0)] = math.inf
        self.table.store(edges=edges)

    def forward(self, c: Tensor) -> Tensor:
        edges = self.table["edges"]
        numeric = edges.isfinite().all(0)
        above = (c[:, None] > edges)[:, :, numeric].flatten(1) & (c[:, :1] != 0)
        return torch.cat([c[:, ~numeric], above.to(c)], dim=1)


class Histogram(ClosedFormModel):
    def __init__(self, event_shape: tuple[int, ...], condition: int, cells: int) -> None:
        super().__init__()
        self.event_shape, self.cells = event_shape, cells
        d = math.prod(event_shape)
        self.axes = d if d <= 2 else 1
        self.table = FittedTensors("mass", "background", "low", "high", "mean", "scale")
        self.quartiles, self.groups = _QuartileEncoder(), ClassGroups(condition)

    def prepare(self, x: Data, c: Condition = None) -> None:
        if len(x) < 2:
            raise DataError("a histogram needs at least 2 rows; give more data")
        if c is not None and self.groups.condition:
            self.quartiles.fit(c)
            c = self.quartiles(c)
        flat = x.flatten(1)
        cells = self.cells or self.choose_cell_count(flat)
        fits = [self.fit_counts(flat[i], cells) for i, _ in self.groups.fit(c, len(x))]
        self.table.store(**{name: torch.stack([fit[name] for fit in fits]) for name in fits[0]})

    def choose_cell_count(self, flat: Tensor) -> int:
        order = torch.randperm(len(flat), device=flat.device)
        held_out, rest = flat[order[: len(flat) // 5]], flat[order[len(flat) // 5 :]]
        candidates = [round(2 ** (i / 2)) for i in range(2, 19 if self.axes == 1 else 17)]

        def score(cells: int) -> float:
            return float(self.log_density(held_out, self.fit_counts(rest, cells)).mean())

        return max(candidates, key=score)

    def fit_counts(self, flat: Tensor, cells: int) -> dict[str, Tensor]:
        low, high = flat.amin(0), flat.amax(0)
        slack = 1e-3 * (high - low) + 1e-3
        fit = {"low": low - slack, "high": high + slack, "mean": flat.mean(0)}
        fit["scale"] = 2 * flat.std(0, correction=0) + 1e-3  # a constant entry has scale 0
        index, _ = self.locate_cells(flat, fit, cells)
        counts = flat.new_zeros(index.shape[1], cells**self.axes)
        counts.scatter_add_(1, index.T, torch.ones_like(index.T, dtype=counts.dtype))
        singles = (counts == 1).sum(1).clamp(min=1)
        return fit | {"mass": counts / len(flat), "background": singles / (len(flat) + 1)}

    def locate_cells(self, x: Tensor, fit: dict[str, Tensor], cells: int) -> tuple[Tensor, Tensor]:
        """The cell in each block, ``(n, blocks)``, and whether the sample is inside the grid."""
        place = (x - fit["low"]) / (fit["high"] - fit["low"])
        inside = ((place >= 0) & (place < 1)).unflatten(1, (-1, self.axes)).all(2)
        index = (place * cells).long().clamp(0, cells - 1).unflatten(1, (-1, self.axes))
        return (index * self.strides(cells)).sum(2), inside

    def strides(self, cells: int) -> Tensor:
        return cells ** torch.arange(self.axes, device=self.table["mass"].device)

    def cells_per_axis(self, fit: dict[str, Tensor]) -> int:
        return round(fit["mass"].shape[1] ** (1 / self.axes))

    def log_density(self, flat: Tensor, fit: dict[str, Tensor]) -> PerDatum:
        cells, weight = self.cells_per_axis(fit), fit["background"]
        index, inside = self.locate_cells(flat, fit, cells)
        volume = ((fit["high"] - fit["low"]) / cells).unflatten(0, (-1, self.axes)).prod(1)
        constant = fit["mass"].gather(1, index.T).T / volume * inside
        z = (flat - fit["mean"]) / fit["scale"]
        log_wide = -(z.square() + math.log(2 * math.pi)) / 2 - fit["scale"].log()
        log_wide = log_wide.unflatten(1, (-1, self.axes)).sum(2) + weight.log()
        return torch.logaddexp(torch.log1p(-weight) + constant.log(), log_wide).sum(1)

    def split_groups(self, c: Condition, n: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        known = None if c is None or not self.groups.condition else self.quartiles(c)
        for g, i, _ in self.groups.split(known, n):
            yield {name: values[g] for name, values in self.table.named_buffers()}, i

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        flat, out = x.flatten(1), x.new_empty(len(x))
        for fit, i in self.split_groups(c, len(x)):
            for j in i.split(65536):
                out[j] = self.log_density(flat[j], fit)
        return out

    def sample(self, n: int, c: Condition = None) -> Tensor:
        x = self.noise(n, math.prod(self.event_shape))
        for fit, i in self.split_groups(c, n):
            x[i] = self.sample_group(x[i], fit)
        return x.unflatten(1, self.event_shape)

    def complete(self, n: int, x: Tensor, known: Tensor, c: Condition = None) -> Tensor | None:
        """Exact where entries are independent, which they are but in two dimensions."""
        return torch.where(known, x, self.sample(n, c)) if self.axes == 1 else None

    def sample_group(self, z: Tensor, fit: dict[str, Tensor]) -> Tensor:
        cells = self.cells_per_axis(fit)
        index = torch.multinomial(fit["mass"], len(z), replacement=True).T  # (n, blocks)
        corner = (index[..., None] // self.strides(cells) % cells).flatten(1)
        inside = fit["low"] + (fit["high"] - fit["low"]) * (corner + torch.rand_like(z)) / cells
        wide = (torch.rand(index.shape).to(z) < fit["background"]).repeat_interleave(self.axes, 1)
        return torch.where(wide, fit["mean"] + fit["scale"] * z, inside)


def build(event: Event, *, cells: int = 0) -> Histogram:
    """A histogram for each combination of classes.

    Arguments:
        cells: Cells along each axis, 0 to choose on held-out data.
    """
    return Histogram(event.shape, event.condition, cells)
