r"""Fix some columns or pixels and draw the rest: `FittedModel.sample` with ``given``.

A density of dequantised integers has learned :math:`z = k + u`. A given integer k says nothing of
u, so that the draws are shared out among several :math:`u \sim U[0, 1)`, as in training:

.. math:: p(x^U \mid k) \approx \tfrac1m \sum_{i=1}^m p(x^U \mid k + u_i)
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.reading import open_source
from ..data.schema import ColumnSchema, Schema
from ..data.transforms import Chain, Whiten
from ..errors import DataError, NumericalError, UsageError
from ..families import gaussian_mixture
from ..formatting import join_names
from ..model import Event, Imputes, Likelihood, Preprocessing
from ..shapes import Condition
from ..theory import completion
from ..theory.guidance import Guidance
from .preprocessor import ModelPipeline, slice_options

PROPOSALS = 4096  # of importance resampling, and draws that the proposal is fitted to
DRAWS = (20_000, 200_000)  # least and most draws of a model that can be sampled only
REACH = 100  # ranges of a column beyond which no model can say what goes with a value
ENOUGH = 100  # effective sample size below which a user is warned
SHARES = 16  # of at least ten draws, each with its own u, where integers are given


def impute_given(
    pipeline: ModelPipeline, n: int, given: Any, y: Any, seed: int | None, options: dict[str, Any]
) -> np.ndarray:
    schema, model = pipeline.schema, pipeline.model
    if schema.condition is not None and y is None:
        raise UsageError(
            f"the model was fitted with a condition, {schema.condition.expected_form}: name it "
            "(--condition, in Python y) beside given"
        )
    x, known = _parse_given_entries(given, schema, n)
    method = model.complete if isinstance(model, Imputes) else _no_options
    options = pipeline.method_options(method, options, n)
    with pipeline.seeded(seed):
        c = pipeline.tensor(pipeline.preprocessor.condition_vectors(y, n))
        out = np.empty((n, *schema.event))
        negative = Guidance.of(options.get("guidance", 1.0)).negative
        for rows in _group_identical(x, known, c, negative):
            shared = None if c is None else c[rows[:1]]
            view = _UnwhitenedModel(pipeline, shared, slice_options(options, rows))
            out[rows] = _impute_group(view, len(rows), x[rows[0]], known[rows[0]])
    return np.where(known, x, out)


def _no_options() -> None:
    """What takes no options, as importance resampling."""


def _parse_given_entries(given: Any, schema: Schema, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The given entries, and which they are, both ``(n, *event)``."""
    x = np.full((n, *schema.event), np.nan)
    if isinstance(given, Mapping):
        columns = {str(name): np.asarray(value, dtype=object) for name, value in given.items()}
    elif len(schema.shape) > 1 or not hasattr(given, "columns"):
        x[:] = _broadcast_given(given, schema, n)
        columns = {}
    else:
        cells = open_source(given).cells
        columns = {str(k.name): np.where(k.missing, np.nan, k.values) for k in cells}
    if unknown := [name for name in columns if len(schema.shape) > 1 or name not in schema.names]:
        raise DataError(
            f"given: no column is called {join_names(unknown)}; have {schema.names}"[:250]
        )
    for name, value in columns.items():
        try:
            x[:, schema.names.index(name)] = value.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"given: {name} must be a number, or {n} of them") from error
    if np.isnan(x).all():
        raise DataError("given: nothing is given; name at least one column or entry")
    for j, column in enumerate(schema.columns):
        values = x if len(schema.shape) > 1 else x[:, j]
        _check_given(values[~np.isnan(values)], column)
    known = ~np.isnan(x)
    return np.where(known, x, _column_midpoints(schema)), known


def _column_midpoints(schema: Schema) -> np.ndarray:
    """The middle of what was observed in each column: a value that every transform takes."""
    ends = [c.low / 2 + c.high / 2 for c in schema.columns]
    return np.array([np.rint(m) if c.integer else m for m, c in zip(ends, schema.columns)])


def _broadcast_given(given: Any, schema: Schema, n: int) -> np.ndarray:
    try:
        x = np.load(given) if isinstance(given, str) else np.asarray(given)
        return np.broadcast_to(x.astype(np.float64), (n, *schema.event))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"given: expected column=value, or an array of shape {schema.event} or "
            f"({n}, ...) with NaN where entries are to be drawn"
        ) from error


def _check_given(values: np.ndarray, column: ColumnSchema) -> None:
    low, high = (column.low, column.high) if column.integer else column.bounds
    wide = REACH * (column.high - column.low)
    if not np.isfinite(values).all():
        raise DataError(f"given: {column.name} is not finite")
    if column.integer and (values != np.rint(values)).any():
        raise DataError(f"given: {column.name} is a whole number, not {values[0]}")
    beyond = np.less if column.integer else np.less_equal  # bounds of numbers are open
    outside = (low is not None and beyond(values, low)) | (
        high is not None and beyond(-values, -high)
    )
    if np.any(outside):
        worst, shown = values[np.argmax(outside)], "[{}, {}]" if column.integer else "({}, {})"
        raise DataError(f"given: {column.name} is {worst:g}, outside {shown.format(low, high)}")
    far = (values < column.low - wide) | (values > column.high + wide)
    if np.any(far):
        raise DataError(
            f"given: {column.name} is {values[np.argmax(far)]:g}, too far from the data, which "
            f"lie in [{column.low:g}, {column.high:g}]; give a value nearer to them"
        )


def _group_identical(
    x: np.ndarray, known: np.ndarray, *conditions: Tensor | None
) -> Iterator[np.ndarray]:
    parts = [np.where(known, x, 0).reshape(len(x), -1), known.reshape(len(x), -1)]
    keys = np.concatenate([*parts, *(c.cpu().numpy() for c in conditions if c is not None)], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    for k in range(group.max() + 1 if len(group) else 0):
        yield np.flatnonzero(group == k)


def _impute_group(view: "_UnwhitenedModel", n: int, x: np.ndarray, known: np.ndarray) -> np.ndarray:
    mask, pipeline = torch.as_tensor(known).to(view.pipeline.device), view.pipeline
    integer = np.array([column.integer for column in pipeline.schema.columns])
    several = pipeline.preprocessor.transform.stochastic and (known & integer).any()
    many = min(SHARES, max(1, n // 10)) if several else 1
    counts = [n // many + (i < n % many) for i in range(many)]
    shares = list(zip(counts, view.to_model(x, mask, many)))
    made = [] if view.whitenings else [view.impute_by_model(m, z, mask) for m, z in shares]
    parts = [part for part in made if part is not None]
    if len(parts) < len(shares):
        draw = view.resample_by_importance if view.has_density else view.select_nearest
        parts = draw(n, shares, mask)
    out = torch.cat(parts)
    if not out.isfinite().all():
        raise NumericalError(f"{pipeline.family} drew values that are not finite; train longer")
    return view.entrywise.inverse(out.cpu().double()).numpy()


Shares = list[tuple[int, Tensor]]  # how many to draw, and the row whose known entries count


class _UnwhitenedModel:
    """A model in a space whose entries are those of the data, each transformed alone.

    A whitening mixes entries, so that what is given is no entry of the model's own space. All draws
    have one condition c, ``(1, condition)``, or None; the options are those of ``complete``.
    """

    def __init__(self, pipeline: ModelPipeline, c: Condition, options: dict[str, Any]) -> None:
        self.pipeline, self.c, self.options = pipeline, c, options
        self.model, self.family = pipeline.model, pipeline.family
        parts = pipeline.preprocessor.transform.parts
        self.whitenings = tuple(p for p in parts if isinstance(p, Whiten))
        self.entrywise = Chain(tuple(p for p in parts if not isinstance(p, Whiten)))
        self.whitening = Chain(self.whitenings)
        levels = self.model.preprocessing is Preprocessing.LEVELS
        self.has_density = self.model.likelihood is not Likelihood.NONE and not levels

    def to_model(self, x: np.ndarray, known: Tensor, many: int) -> Tensor:
        """One row in this space, so many times, each with its own dequantisation."""
        rows = torch.as_tensor(x).expand(many, *x.shape)
        return torch.where(known, self.entrywise.forward(rows)[0].to(known.device), 0.0)

    def impute_by_model(self, n: int, x: Tensor, known: Tensor) -> Tensor | None:
        if not isinstance(self.model, Imputes):
            return None
        z, made = self.pipeline.tensor(x), []
        for part in self.pipeline.batches(n, None, self.c, self.options):
            made.append(self.model.complete(part.size, z, known, part.c, **part.options))
        parts = [part for part in made if part is not None]
        return torch.cat(parts) if len(parts) == len(made) > 0 else None

    def sample(self, n: int) -> Tensor:
        parts = self.pipeline.batches(n, None, self.c)
        z = torch.cat([self.model.sample(part.size, part.c) for part in parts])
        return self.whitening.inverse(z.double())

    def log_prob(self, z: Tensor) -> Tensor:
        """Their log-density, up to a constant."""
        rows = self.pipeline.tensor(self.whitening.forward(z)[0])
        parts = self.pipeline.batches(len(z), rows, self.c)
        return torch.cat([self.model.log_prob(part.x, part.c) for part in parts])

    def resample_by_importance(self, n: int, shares: Shares, known: Tensor) -> list[Tensor]:
        """Importance resampling from the conditional of a Gaussian mixture fitted to draws."""
        draws, cast = self.sample(PROPOSALS), self.pipeline.tensor
        mean, scale = draws.mean(0), draws.std(0).clamp(min=1e-12)
        proposal = gaussian_mixture.build(Event(self.model.event_shape), components=8)
        proposal = proposal.to(cast(draws[:0]))
        proposal.prepare(cast((draws - mean) / scale))
        parts: list[Tensor] = []
        size, many = 0.0, max(PROPOSALS // len(shares), 4 * -(-n // len(shares)))
        for m, x in shares:
            unit = proposal.complete(many, cast((x - mean) / scale), known)
            made, counted = completion.importance_resample(
                unit, lambda u: self.log_prob(u * scale + mean), proposal.log_prob, m
            )
            parts, size = [*parts, made * scale + mean], size + counted
        if size < ENOUGH:
            warnings.warn(
                f"{self.family} draws the rest by importance resampling, and of "
                f"{many * len(shares)} proposals only {size:.0f} count: take the draws as rough",
                stacklevel=2,
            )
        return parts

    def select_nearest(self, n: int, shares: Shares, known: Tensor) -> list[Tensor]:
        many = min(max(DRAWS[0], 50 * n), DRAWS[1])
        draws, least = self.sample(many), min(float(n), many / 20)
        found = [completion.kernel_resample(draws, x, known, m, least) for m, x in shares]
        width, size = max(f[1] for f in found), min(f[2] for f in found)
        warnings.warn(
            f"{self.family} has no density: these are draws whose given entries lie within about "
            f"{width:.2g} standard deviations ({size:.0f} of {many} count)",
            stacklevel=2,
        )
        return [f[0] for f in found]
