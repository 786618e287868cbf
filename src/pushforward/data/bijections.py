r"""The maps that transforms are made of: affine ones, and those of a single column.

All work in float64, because one rounding in float32 would already show in a density. ``forward``
gives ``(z, log_det)``; ``log_det`` has one value per row in nats. Parameters have shape ``(d,)``
for vectors of length d, and ``(1,)`` for arrays of higher rank, whose entries share them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..shapes import Data, PerDatum, sum_event

Numbers = tuple[float, ...]
FLOOR = 1e-6  # smallest eigenvalue of a correlation matrix; its inverse root still fits float32


def _float64_tensor(values: Numbers, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)


@final
@dataclass(frozen=True)
class Dequantise:
    r"""Spread each integer over a unit interval: :math:`z = k + u,\ u \sim U[0, 1)`.

    A density of z bounds the mass of k from below:
    :math:`\log P(k) \ge \mathbb E_u \log p(k + u)` (Theis et al., 2016). The inverse is the floor,
    within the range observed. Exact for integers below 2^48.

    Arguments:
        integer: Which columns hold integers; the others pass unchanged.
        low: The smallest integer of each.
        high: The largest.
    """

    kind: ClassVar[str] = "dequantise"
    stochastic: ClassVar[bool] = True
    integer: tuple[bool, ...]
    low: Numbers
    high: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        x = x.double()
        # keep away from the ends, where later roundings would change the floor
        margin = (x.abs() * 2.0**-48).clamp(2.0**-48, 0.5)
        z = x + torch.lerp(margin, 1 - margin, torch.rand_like(x))
        return torch.where(self._mask(x), z, x), x.new_zeros(len(x))

    def inverse(self, z: Data) -> Data:
        z = z.double()
        k = z.floor().clamp(_float64_tensor(self.low, z), _float64_tensor(self.high, z))
        return torch.where(self._mask(z), k, z)

    def _mask(self, like: Tensor) -> Tensor:
        return torch.tensor(self.integer, device=like.device)


@final
@dataclass(frozen=True)
class Unconstrain:
    r"""Send an interval to the real line.

    .. math:: z = \log(x - a) - \log(b - x), \qquad z = \log(x - a), \qquad z = -\log(b - x)

    for two bounds, a lower and an upper one; columns without bounds pass unchanged.

    Arguments:
        low: The lower bound of each column, or None.
        high: The upper bound of each column, or None.
    """

    kind: ClassVar[str] = "bounded"
    stochastic: ClassVar[bool] = False
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        x = x.double()
        (low, below), (high, above) = _bound_tensors(self.low, x), _bound_tensors(self.high, x)
        up = torch.where(below, x - low, 1.0).log()
        down = torch.where(above, high - x, 1.0).log()
        width = torch.where(below & above, high - low, 1.0).log()
        z = torch.where(below | above, up - down, x)
        return z, sum_event(width - up - down)

    def inverse(self, z: Data) -> Data:
        z = z.double()
        (low, below), (high, above) = _bound_tensors(self.low, z), _bound_tensors(self.high, z)
        two, width = below & above, high - low
        # measured from the nearer bound, so that small distances keep their digits
        rise = torch.where(two, width * z.sigmoid(), z.clamp(max=700.0).exp())
        fall = torch.where(two, width * (-z).sigmoid(), (-z).clamp(max=700.0).exp())
        x = torch.where(below & ~(two & (z > 0)), low + rise, high - fall)
        x = torch.where(below, x.maximum(torch.nextafter(low, low + 1)), x)
        x = torch.where(above, x.minimum(torch.nextafter(high, high - 1)), x)
        return torch.where(below | above, x, z)


def _bound_tensors(values: tuple[float | None, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds with 0 where there is none, and where there is one."""
    bound = _float64_tensor(tuple(0.0 if v is None else v for v in values), like)
    return bound, torch.tensor([v is not None for v in values], device=like.device)


@final
@dataclass(frozen=True)
class IntegerLevels:
    """Integers low, ..., low + levels - 1 as 0, ..., levels - 1, for models of discrete data.

    An integer outside has no mass: its log-determinant is minus infinity.

    Arguments:
        low: The smallest integer.
        levels: How many there are.
    """

    kind: ClassVar[str] = "levels"
    stochastic: ClassVar[bool] = False
    low: int
    levels: int

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        k = x.double() - self.low
        z = k.clamp(0, self.levels - 1)
        return z, sum_event(torch.where(k == z, 0.0, -torch.inf))

    def inverse(self, z: Data) -> Data:
        return z.double().round().clamp(0, self.levels - 1) + self.low


@final
@dataclass(frozen=True)
class Standardise:
    r"""Zero mean and unit variance: :math:`z = (x - \mu) / \sigma`.

    Arguments:
        mean: One for each column, or one for all entries.
        scale: The same, positive.
    """

    kind: ClassVar[str] = "standardise"
    stochastic: ClassVar[bool] = False
    mean: Numbers
    scale: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        scale = _float64_tensor(self.scale, x)
        log_det = -scale.log().expand(x.shape[1:]).sum()
        return (x.double() - _float64_tensor(self.mean, x)) / scale, log_det.expand(len(x))

    def inverse(self, z: Data) -> Data:
        return z.double() * _float64_tensor(self.scale, z) + _float64_tensor(self.mean, z)


@final
@dataclass(frozen=True)
class Whiten:
    r"""Zero mean and unit covariance: :math:`z = V \Lambda^{-1/2} V^\top D^{-1} (x - \mu)`.

    :math:`D` holds the standard deviations and :math:`V \Lambda V^\top` is the correlation matrix,
    whose eigenvalues are raised to at least 1e-6: the map stays a bijection for columns that depend
    on each other. Of all whitenings this one moves standardised data least (Kessy et al., 2018):
    it leaves uncorrelated columns alone.

    Arguments:
        mean: The mean of each column.
        scale: The standard deviation of each column.
        vectors: The rows of :math:`V`.
        roots: The square roots of the eigenvalues.
    """

    kind: ClassVar[str] = "whiten"
    stochastic: ClassVar[bool] = False
    mean: Numbers
    scale: Numbers
    vectors: tuple[Numbers, ...]
    roots: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        scale, roots = _float64_tensor(self.scale, x), _float64_tensor(self.roots, x)
        y = (x.double() - _float64_tensor(self.mean, x)) / scale
        return self._scale(y, 1 / roots), -(scale.log().sum() + roots.log().sum()).expand(len(x))

    def inverse(self, z: Data) -> Data:
        y = self._scale(z.double(), _float64_tensor(self.roots, z))
        return y * _float64_tensor(self.scale, z) + _float64_tensor(self.mean, z)

    def _scale(self, y: Data, factors: Tensor) -> Data:
        rotation = torch.tensor(self.vectors, dtype=torch.float64, device=y.device)
        return y @ rotation * factors @ rotation.T


def fit_standardisation(x: Data) -> Standardise:
    """Fit `Standardise`: per column for vectors, shared by all entries of larger arrays."""
    columns = x.double() if x.ndim == 2 else x.double().reshape(-1, 1)
    mean, scale = _column_moments(columns)
    return Standardise(tuple(mean.tolist()), tuple(scale.tolist()))


def _column_moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, without overflow for any finite data."""
    unit = columns.abs().amax(0)
    unit = torch.where(unit > 0, unit, 1.0)
    mean = (columns / unit).mean(0) * unit
    spread = columns - mean
    largest = spread.abs().amax(0)
    largest = torch.where(largest > 0, largest, 1.0)
    scale = (spread / largest).square().mean(0).sqrt() * largest
    return mean, torch.where(scale > 0, scale, 1.0)


def fit_affine_streaming(parts: Iterable[Data], whiten: bool) -> Standardise | Whiten:
    """`fit_standardisation`, or `fit_whitening`, of data that come in parts (Chan et al., 1983)."""
    n, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        columns = part.double() if part.ndim == 2 else part.double().reshape(-1, 1)
        m, centre = len(columns), columns.mean(0)
        spread, gap = columns - centre, centre - mean
        own = spread.T @ spread if whiten else spread.square().sum(0)
        between = gap[:, None] * gap if whiten else gap.square()
        scatter = scatter + own + between * (n * m / (n + m))
        n, mean = n + m, mean + gap * (m / (n + m))
    variance = (scatter.diagonal() if whiten else scatter) / n
    scale = torch.where(variance > 0, variance.sqrt(), 1.0)
    if not whiten:
        return Standardise(tuple(mean.tolist()), tuple(scale.tolist()))
    return _whiten_from_correlations(mean, scale, scatter / n / (scale[:, None] * scale))


def fit_whitening(x: Data) -> Whiten:
    mean, scale = _column_moments(x.double())
    y = (x.double() - mean) / scale
    return _whiten_from_correlations(mean, scale, y.T @ y / len(y))


def _whiten_from_correlations(mean: Tensor, scale: Tensor, correlations: Tensor) -> Whiten:
    values, vectors = torch.linalg.eigh(correlations)
    roots = values.clamp(min=FLOOR).sqrt()
    return Whiten(
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(tuple(row) for row in vectors.tolist()),
        tuple(roots.tolist()),
    )
