r"""From data to the model's space and back, with the log-determinant.

.. math:: \log p_X(x) = \log p_Z(f(x)) + \log\left|\det \frac{\partial f}{\partial x}\right|

A chain first maps each column by itself, as its schema asks (integers are dequantised, bounds are
sent to infinity), and then all of them to the scale that a family wants (`model.Preprocessing`).

All work in float64, because one rounding in float32 would already show in a density. ``forward``
gives ``(z, log_det)``, one value per row in nats. Parameters have shape ``(d,)`` for vectors of
length d, and ``(1,)`` for arrays of higher rank, whose entries share them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, UsageError
from ..formatting import printable_text
from ..model import Preprocessing
from ..shapes import Data, PerDatum, sum_event
from . import memmap
from .schema import Schema, parse_typed_json, to_plain_json

Numbers = tuple[float, ...]


@runtime_checkable
class Transform(Protocol):
    kind: ClassVar[str]  # its name in JSON
    stochastic: ClassVar[bool] = False  # whether `forward` draws random numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        """To the model's space, and the log-determinant in nats."""

    def inverse(self, z: Data) -> Data:
        """Back to the units of the data."""


@final
@dataclass(frozen=True)
class Dequantise(Transform):
    r"""Spread each integer over a unit interval: :math:`z = k + u,\ u \sim U[0, 1)`.

    A density of z bounds the mass of k from below:
    :math:`\log P(k) \ge \mathbb E_u \log p(k + u)` (Theis et al., 2016). The inverse is the floor,
    within the range observed. Exact for integers below 2^48; other columns pass unchanged.
    """

    kind: ClassVar[str] = "dequantise"
    stochastic: ClassVar[bool] = True
    integer: tuple[bool, ...]
    low: Numbers
    high: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        x = x.double()
        # away from the ends, where later roundings would change the floor
        margin = (x.abs() * 2.0**-48).clamp(2.0**-48, 0.5)
        z = x + torch.lerp(margin, 1 - margin, torch.rand_like(x))
        return torch.where(x.new_tensor(self.integer) > 0, z, x), x.new_zeros(len(x))

    def inverse(self, z: Data) -> Data:
        z = z.double()
        k = z.floor().clamp(z.new_tensor(self.low), z.new_tensor(self.high))
        return torch.where(z.new_tensor(self.integer) > 0, k, z)


@final
@dataclass(frozen=True)
class Unconstrain(Transform):
    r"""Send an interval to the real line.

    .. math:: z = \log(x - a) - \log(b - x), \qquad z = \log(x - a), \qquad z = -\log(b - x)

    for two bounds, a lower and an upper one; columns without bounds pass unchanged.
    """

    kind: ClassVar[str] = "bounded"
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
    there = torch.tensor([v is not None for v in values], device=like.device)
    return like.new_tensor([0.0 if v is None else v for v in values]), there


@final
@dataclass(frozen=True)
class IntegerLevels(Transform):
    """Integers low, ..., low + levels - 1 as 0, ..., levels - 1, for models of discrete data.

    An integer outside has no mass: its log-determinant is minus infinity.
    """

    kind: ClassVar[str] = "levels"
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
class Standardise(Transform):
    r"""Zero mean, unit variance, by column or for all entries: :math:`z = (x - \mu) / \sigma`."""

    kind: ClassVar[str] = "standardise"
    mean: Numbers
    scale: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        x = x.double()
        scale = x.new_tensor(self.scale)
        log_det = -scale.log().expand(x.shape[1:]).sum()
        return (x - x.new_tensor(self.mean)) / scale, log_det.expand(len(x))

    def inverse(self, z: Data) -> Data:
        z = z.double()
        return z * z.new_tensor(self.scale) + z.new_tensor(self.mean)


@final
@dataclass(frozen=True)
class Whiten(Transform):
    r"""Zero mean and unit covariance: :math:`z = V \Lambda^{-1/2} V^\top D^{-1} (x - \mu)`.

    :math:`D` holds the standard deviations (``scale``) and :math:`V \Lambda V^\top` is the
    correlation matrix: ``vectors`` are the rows of :math:`V`, ``roots`` those of the eigenvalues,
    which are raised to at least 1e-6, so that columns may depend on each other. Of all whitenings
    this one moves standardised data least (Kessy et al., 2018): uncorrelated columns stay.
    """

    kind: ClassVar[str] = "whiten"
    mean: Numbers
    scale: Numbers
    vectors: tuple[Numbers, ...]
    roots: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        x = x.double()
        scale, roots = x.new_tensor(self.scale), x.new_tensor(self.roots)
        y = (x - x.new_tensor(self.mean)) / scale
        return self._scale(y, 1 / roots), -(scale.log().sum() + roots.log().sum()).expand(len(x))

    def inverse(self, z: Data) -> Data:
        z = z.double()
        y = self._scale(z, z.new_tensor(self.roots))
        return y * z.new_tensor(self.scale) + z.new_tensor(self.mean)

    def _scale(self, y: Data, factors: Tensor) -> Data:
        rotation = y.new_tensor(self.vectors)
        return y @ rotation * factors @ rotation.T


def fit_standardisation(x: Data) -> Standardise:
    """Fit `Standardise`: per column for vectors, shared by all entries of larger arrays."""
    mean, scale = _column_moments(_as_columns(x))
    return Standardise(tuple(mean.tolist()), tuple(scale.tolist()))


def _as_columns(x: Data) -> Tensor:
    return x.double() if x.ndim == 2 else x.double().reshape(-1, 1)


def _column_moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    unit = _positive_or_one(columns.abs().amax(0))
    mean = (columns / unit).mean(0) * unit
    spread = columns - mean
    largest = _positive_or_one(spread.abs().amax(0))
    return mean, _positive_or_one((spread / largest).square().mean(0).sqrt() * largest)


def _positive_or_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1.0)


def _fit_affine_streaming(parts: Iterable[Data], whiten: bool) -> Standardise | Whiten:
    """`fit_standardisation`, or `fit_whitening`, of data that come in parts (Chan et al., 1983)."""
    n, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        columns = _as_columns(part)
        m, centre = len(columns), columns.mean(0)
        spread, gap = columns - centre, centre - mean
        own = spread.T @ spread if whiten else spread.square().sum(0)
        between = gap[:, None] * gap if whiten else gap.square()
        scatter = scatter + own + between * (n * m / (n + m))
        n, mean = n + m, mean + gap * (m / (n + m))
    variance = (scatter.diagonal() if whiten else scatter) / n
    scale = _positive_or_one(variance).sqrt()
    if not whiten:
        return Standardise(tuple(mean.tolist()), tuple(scale.tolist()))
    return _whiten_from_correlations(mean, scale, scatter / n / (scale[:, None] * scale))


def fit_whitening(x: Data) -> Whiten:
    mean, scale = _column_moments(x.double())
    y = (x.double() - mean) / scale
    return _whiten_from_correlations(mean, scale, y.T @ y / len(y))


def _whiten_from_correlations(mean: Tensor, scale: Tensor, correlations: Tensor) -> Whiten:
    values, vectors = torch.linalg.eigh(correlations)
    roots = values.clamp(min=1e-6).sqrt()  # whose inverse still fits float32
    rows = tuple(map(tuple, vectors.tolist()))
    return Whiten(tuple(mean.tolist()), tuple(scale.tolist()), rows, tuple(roots.tolist()))


@final
@dataclass(frozen=True)
class Chain:
    """Transforms one after the other, from the data towards the model; log-determinants add."""

    parts: tuple[Transform, ...] = ()

    @property
    def stochastic(self) -> bool:
        return any(p.stochastic for p in self.parts)

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        z, total = x.double(), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for part in self.parts:
            z, log_det = part.forward(z)
            total = total + log_det
        return z, total

    def inverse(self, z: Data) -> Data:
        for part in reversed(self.parts):
            z = part.inverse(z)
        return z.double()

    def to_json(self) -> list[dict[str, Any]]:
        return [{"kind": p.kind} | to_plain_json(p) for p in self.parts]

    @classmethod
    def from_json(cls, data: Any) -> "Chain":
        """The inverse of `to_json`; DataError if it describes no chain of transforms."""
        if not isinstance(data, list):
            raise DataError("transforms: expected a list")
        return cls(tuple(_transform_from_json(d) for d in data))


KINDS = {c.kind: c for c in (Standardise, Whiten, Dequantise, Unconstrain, IntegerLevels)}


def _transform_from_json(data: Any) -> Transform:
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"transforms: no transform is called {printable_text(kind)!r}")
    numbers = {k: v for k, v in data.items() if k != "kind"}
    transform = parse_typed_json(KINDS[kind], numbers, f"transforms.{kind}")
    if min(getattr(transform, "scale", ()) + getattr(transform, "roots", ()), default=1.0) <= 0:
        raise DataError(f"transforms.{kind}: a scale is not positive")
    return transform


def choose_transform(
    schema: Schema,
    x: np.ndarray,
    preprocessing: Preprocessing = Preprocessing.STANDARDISE,
    rows: np.ndarray | None = None,
) -> Chain:
    """The transform that a family wants; UsageError if it models integers and the data are others.

    Correlations are removed only where the rows are many enough to estimate them: at least five
    for each of 2 to 128 columns. Of many ``rows`` of ``x``, (n, *event), a part is read at a time.
    """
    if preprocessing is Preprocessing.LEVELS:
        if not schema.levels:
            raise UsageError(
                "this family models whole numbers within one range of at most 256 values; "
                "round the data, or choose another family"
            )
        return Chain((IntegerLevels(schema.low, schema.levels),))
    if preprocessing is Preprocessing.CENTRE:
        return _image_range_chain(schema)
    rows = np.arange(len(x)) if rows is None else rows
    whiten = preprocessing is Preprocessing.WHITEN and x.ndim == 2
    whiten = whiten and 2 <= x.shape[1] <= min(128, len(rows) // 5)
    columns = Chain(_column_transforms(schema))
    if x.size > memmap.MANY:
        slices = memmap.row_slices((len(rows), *x.shape[1:]))
        parts = (columns.forward(torch.from_numpy(x[rows[i]]).double())[0] for i in slices)
        return Chain((*columns.parts, _fit_affine_streaming(parts, whiten)))
    z, _ = columns.forward(torch.from_numpy(x[rows]).double())
    fit = fit_whitening if whiten else fit_standardisation
    return Chain((*columns.parts, fit(z)))


def _column_transforms(schema: Schema) -> tuple[Transform, ...]:
    columns, parts = schema.columns, list[Transform]()
    if any(c.integer for c in columns):
        low, high = tuple(c.low for c in columns), tuple(c.high for c in columns)
        parts.append(Dequantise(tuple(c.integer for c in columns), low, high))
    if any(c.bounds != (None, None) for c in columns):
        # an integer k becomes [k, k + 1), so its upper bound moves up by one
        upper = tuple(None if c.bounds[1] is None else c.bounds[1] + c.integer for c in columns)
        parts.append(Unconstrain(tuple(c.bounds[0] for c in columns), upper))
    return tuple(parts)


def _image_range_chain(schema: Schema) -> Chain:
    r"""Send the range of images to [-1, 1]: :math:`z = 2 (x - a) / (b - a) - 1` (Ho et al., 2020).

    The range is the one observed, or all of 0 to 255 for 8 bits of which half are in use. Integers
    are dequantised around their value, so that rounding gives them back.
    """
    column = schema.columns[0]
    eight = schema.dtype == "uint8" and column.high > 127
    low, high = (0.0, 255.0) if eight else (column.low, column.high)
    middle, half = (low + high) / 2, (high - low) / 2 or 1.0
    if not column.integer:
        return Chain((Standardise((middle,), (half,)),))
    spread = Dequantise((True,), (column.low,), (column.high,))
    return Chain((spread, Standardise((middle + 0.5,), (half,))))
