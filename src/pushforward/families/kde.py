r"""Kernel density estimate: a Gaussian around every sample, one bandwidth chosen by leave-one-out.

.. math:: p(x \mid u) = \frac{\sum_i \mathcal N(u \mid u_i, h^2 I)\,\mathcal N(x \mid x_i, h^2 I)}
    {\sum_i \mathcal N(u \mid u_i, h^2 I)}

for numeric conditions :math:`u` (Rosenblatt, 1969); every combination of classes has its own points
and bandwidth. The bandwidth maximises the likelihood of each sample under the others (Habbema et
al., 1974), and is at least 0.003 standard deviations: repeated data would drive it to 0.
"""

import math

import torch
from torch import Tensor

from ..errors import DataError
from ..model import Event
from ..shapes import Condition, Data, PerDatum
from .gaussian import ClassGroups, ClosedFormModel, FittedTensors

BLOCK = 2**18  # pairs of points handled at once: 1 MiB, which stays in the cache
SMALLEST = 0.003  # bandwidth, in standard deviations of the data
QUERIES = 1000  # data whose leave-one-out likelihood chooses the bandwidth


class KDE(ClosedFormModel):
    def __init__(
        self, event_shape: tuple[int, ...], condition: int, bandwidth: float, points: int
    ) -> None:
        super().__init__()
        self.event_shape, self.bandwidth, self.points = event_shape, bandwidth, points
        self.d = math.prod(event_shape)
        self.table = FittedTensors("points", "group", "bandwidth")
        self.groups = ClassGroups(condition)

    def prepare(self, x: Data, c: Condition = None) -> None:
        if len(x) < 2:
            raise DataError("a kernel density estimate needs at least 2 rows; give more data")
        rows, group, bandwidths = [], [], []
        for g, (i, u) in enumerate(self.groups.fit(c, len(x))):
            i, u = i.to(x.device), u.to(x.device)
            keep = torch.randperm(len(i), device=x.device)[: self.points]
            rows.append(torch.cat([x[i[keep]].flatten(1), u[keep].to(x)], dim=1))
            group.append(torch.full((len(keep),), float(g)))
            bandwidths.append(self.bandwidth or _choose_bandwidth(rows[-1], self.d))
        self.table.store(
            points=torch.cat(rows), group=torch.cat(group), bandwidth=torch.tensor(bandwidths)
        )

    def group_tensors(self, g: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.table["points"][self.table["group"] == g]
        return rows[:, : self.d], rows[:, self.d :], self.table["bandwidth"][g]

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        flat, out = x.flatten(1), x.new_empty(len(x))
        for g, i, u in self.groups.split(c, len(x)):
            points, numbers, h = self.group_tensors(g)
            size = max(1, BLOCK // len(points))
            for block in range(0, len(i), size):
                j = slice(block, block + size)
                log_w = _kernel_log_weights(numbers, None if u is None else u[j], h)
                log_kernel = -_squared_distance_matrix(flat[i[j]], points) / (2 * h**2)
                log_volume = self.d * (h.log() + math.log(2 * math.pi) / 2)
                out[i[j]] = _fast_logsumexp(log_w + log_kernel) - log_volume
        return out

    def sample(self, n: int, c: Condition = None) -> Tensor:
        x = self.noise(n, self.d)
        for g, i, u in self.groups.split(c, n):
            points, numbers, h = self.group_tensors(g)
            if u is None or not u.shape[1]:
                k = torch.randint(len(points), (len(i),), device=x.device)
            else:  # Gumbel's trick in blocks: multinomial would need all weights at once
                parts = u.split(max(1, BLOCK // len(points)))
                k = torch.cat([_sample_indices(_kernel_log_weights(numbers, v, h)) for v in parts])
            x[i] = points[k] + h * x[i]
        return x.unflatten(1, self.event_shape)

    def complete(self, n: int, x: Tensor, known: Tensor, c: Condition = None) -> Tensor:
        """Exact: a row is chosen by its distance in the known entries; the rest is a kernel's."""
        flat, fixed, out = x.flatten(), known.flatten(), self.noise(n, self.d)
        for g, i, u in self.groups.split(c, n):
            points, numbers, h = self.group_tensors(g)
            near = -_squared_distance_matrix(flat[None, fixed], points[:, fixed]) / (2 * h**2)
            chosen = []
            for j in torch.arange(len(i), device=i.device).split(max(1, BLOCK // len(points))):
                log_w = _kernel_log_weights(numbers, None if u is None else u[j], h) + near
                chosen.append(_sample_indices(log_w.expand(len(j), -1)))
            out[i] = torch.where(fixed, flat, points[torch.cat(chosen)] + h * out[i])
        return out.unflatten(1, self.event_shape)


def _kernel_log_weights(numbers: Tensor, u: Tensor | None, h: Tensor) -> Tensor:
    """The logarithm of each point's weight, ``(n, points)`` or ``(1, points)``; they sum to one."""
    if u is None or not u.shape[1]:
        return numbers.new_full((1, len(numbers)), -math.log(len(numbers)))
    return (-_squared_distance_matrix(u, numbers) / (2 * h**2)).log_softmax(1)


def _sample_indices(log_w: Tensor) -> Tensor:
    return (log_w - torch.empty_like(log_w).exponential_().log()).argmax(1)


def _fast_logsumexp(a: Tensor) -> Tensor:
    """Ten times faster than PyTorch's: terms below e^-80 of the largest are raised to it.

    They do not show in the sum, and their exponentials would be denormal numbers, which are slow.
    """
    top = a.amax(1, keepdim=True)
    return (a - top).clamp(min=-80).exp().sum(1).log() + top[:, 0]


def _squared_distance_matrix(x: Tensor, y: Tensor) -> Tensor:
    """All squared distances; by differences in few dimensions, where bandwidths are small."""
    if x.shape[1] > 4:  # exact to 1e-6 a dimension, of no account for bandwidths there
        return torch.cdist(x, y).square_()
    out = x.new_zeros(len(x), len(y))
    for a, b in zip(x.T, y.T.contiguous(), strict=True):
        out += (a[:, None] - b).square_()
    return out


def _choose_bandwidth(rows: Tensor, d: int) -> float:
    """By the leave-one-out likelihood of the first d columns given the numbers in the others."""
    some = rows[:QUERIES]
    numbers = _squared_distance_matrix(some[:, d:], rows[:, d:])
    numbers.fill_diagonal_(math.inf)  # leave one out
    pairs = _squared_distance_matrix(some[:, :d], rows[:, :d]) + numbers

    def likelihood(log_h: float) -> float:
        scale = -2 * math.exp(log_h) ** 2
        given = _fast_logsumexp(numbers / scale).mean() if rows.shape[1] > d else 0.0
        return float(_fast_logsumexp(pairs / scale).mean() - given) - d * log_h

    grid = torch.linspace(math.log(SMALLEST), math.log(3), 11).tolist()
    best, step = max(grid, key=likelihood), (grid[1] - grid[0]) / 4
    fine = max((best + k * step for k in range(-3, 4)), key=likelihood)
    return max(SMALLEST, math.exp(fine))


def build(event: Event, *, bandwidth: float = 0.0, points: int = 20_000) -> KDE:
    """A kernel density estimate for each combination of classes.

    Arguments:
        bandwidth: In standard deviations of the data, 0 to choose it by leave-one-out.
        points: The most data to keep in a group; a random subset of more.
    """
    return KDE(event.shape, event.condition, bandwidth, points)
