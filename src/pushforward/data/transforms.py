r"""Reversible transforms between data and the model's space, each with its log-determinant.

.. math:: \log p_X(x) = \log p_Z(f(x)) + \log\left|\det \frac{\partial f}{\partial x}\right|

All work in float64, because one rounding in float32 would already show in a density. ``forward``
gives ``(z, log_det)``; ``log_det`` has one value per datum in nats. Parameters have shape ``(d,)``
for vectors of length d, and ``(1,)`` for arrays of higher rank, whose entries share them.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, UsageError
from ..formatting import printable_text
from ..shapes import Data, PerDatum, sum_event
from . import memmap
from .json_records import parse_typed_json
from .schema import Schema
from .whitening import (
    JsonSerialisable,
    Numbers,
    Standardise,
    Whiten,
    fit_affine_streaming,
    fit_standardisation,
    fit_whitening,
    float64_tensor,
)


@final
@dataclass(frozen=True)
class Dequantise(JsonSerialisable):
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
        k = z.floor().clamp(float64_tensor(self.low, z), float64_tensor(self.high, z))
        return torch.where(self._mask(z), k, z)

    def _mask(self, like: Tensor) -> Tensor:
        return torch.tensor(self.integer, device=like.device)


@final
@dataclass(frozen=True)
class Unconstrain(JsonSerialisable):
    r"""Send an interval to the real line.

    .. math:: z = \log(x - a) - \log(b - x), \qquad z = \log(x - a), \qquad z = -\log(b - x)

    for two bounds, a lower and an upper one; columns without bounds pass unchanged.

    Arguments:
        low: The lower bound of each column, or None.
        high: The upper bound of each column, or None.
    """

    kind: ClassVar[str] = "bounded"
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        x = x.double()
        (low, below), (high, above) = bound_tensors(self.low, x), bound_tensors(self.high, x)
        up = torch.where(below, x - low, 1.0).log()
        down = torch.where(above, high - x, 1.0).log()
        width = torch.where(below & above, high - low, 1.0).log()
        z = torch.where(below | above, up - down, x)
        return z, sum_event(width - up - down)

    def inverse(self, z: Data) -> Data:
        z = z.double()
        (low, below), (high, above) = bound_tensors(self.low, z), bound_tensors(self.high, z)
        two, width = below & above, high - low
        # measured from the nearer bound, so that small distances keep their digits
        rise = torch.where(two, width * z.sigmoid(), z.clamp(max=700.0).exp())
        fall = torch.where(two, width * (-z).sigmoid(), (-z).clamp(max=700.0).exp())
        x = torch.where(below & ~(two & (z > 0)), low + rise, high - fall)
        x = torch.where(below, x.maximum(torch.nextafter(low, low + 1)), x)
        x = torch.where(above, x.minimum(torch.nextafter(high, high - 1)), x)
        return torch.where(below | above, x, z)


def bound_tensors(values: tuple[float | None, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds with 0 where there is none, and where there is one."""
    bound = float64_tensor(tuple(0.0 if v is None else v for v in values), like)
    return bound, torch.tensor([v is not None for v in values], device=like.device)


@final
@dataclass(frozen=True)
class IntegerLevels(JsonSerialisable):
    """Integers low, ..., low + levels - 1 as 0, ..., levels - 1, for models of discrete data.

    An integer outside has no mass: its log-determinant is minus infinity.

    Arguments:
        low: The smallest integer.
        levels: How many there are.
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
class Chain:
    """Transforms one after the other; the log-determinants add.

    Arguments:
        parts: The transforms, from the data towards the model.
    """

    parts: tuple[Any, ...] = ()

    @property
    def stochastic(self) -> bool:
        """Whether ``forward`` draws random numbers."""
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
        """One object for each transform."""
        return [p.to_json() for p in self.parts]

    @classmethod
    def from_json(cls, data: Any) -> "Chain":
        """The inverse of `to_json`.

        Raises:
            DataError: If it describes no chain of transforms.
        """
        if not isinstance(data, list):
            raise DataError("transforms: expected a list")
        return cls(tuple(transform_from_json(d) for d in data))


KINDS = {c.kind: c for c in (Standardise, Whiten, Dequantise, Unconstrain, IntegerLevels)}


def transform_from_json(data: Any) -> Any:
    """A single transform from what its ``to_json`` gave.

    Raises:
        DataError: If it describes none.
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"transforms: no transform is called {printable_text(kind)!r}")
    transform = parse_typed_json(
        KINDS[kind], {k: v for k, v in data.items() if k != "kind"}, f"transforms.{kind}"
    )
    scales = getattr(transform, "scale", ()) + getattr(transform, "roots", ())
    if min(scales, default=1.0) <= 0:
        raise DataError(f"transforms.{kind}: a scale is not positive")
    return transform


def fit_transforms(
    schema: Schema,
    x: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    discrete: bool,
    whiten: bool = False,
) -> Chain:
    """The transforms that a model needs for data of a schema.

    Arguments:
        schema: Which columns hold integers, and which are bounded.
        x: The data to fit the transforms on, shape (n, *event).
        rows: The numbers of the rows to take; all by default. Of many, a part is read at a time.
        discrete: Whether the model takes integers 0, ..., levels - 1.
        whiten: Whether to remove correlations of vectors too, where the data are many enough to
            tell them: at least five for each of 2 to 128 columns.

    Raises:
        UsageError: If the model takes integers and the data are others.
    """
    if discrete:
        return Chain((schema_levels(schema),))
    parts: list[Any] = []
    columns = schema.columns
    if any(c.integer for c in columns):
        low, high = tuple(c.low for c in columns), tuple(c.high for c in columns)
        parts.append(Dequantise(tuple(c.integer for c in columns), low, high))
    if any(c.bounds != (None, None) for c in columns):
        # an integer k fills [k, k + 1), so its upper bound moves up by one
        upper = tuple(None if c.bounds[1] is None else c.bounds[1] + c.integer for c in columns)
        parts.append(Unconstrain(tuple(c.bounds[0] for c in columns), upper))
    chain, rows = Chain(tuple(parts)), np.arange(len(x)) if rows is None else rows
    known = x.ndim == 2 and 2 <= x.shape[1] <= min(128, len(rows) // 5)
    if x.size > memmap.MANY:
        part = memmap.row_slices((len(rows), *x.shape[1:]))
        seen = (chain.forward(torch.from_numpy(x[rows[i]]).double())[0] for i in part)
        return Chain((*parts, fit_affine_streaming(seen, whiten and known)))
    z, _ = chain.forward(torch.from_numpy(x[rows]).double())
    last = fit_whitening if whiten and known else fit_standardisation
    return Chain((*parts, last(z)))


def schema_levels(schema: Schema) -> IntegerLevels:
    if not schema.levels:
        raise UsageError(
            "this family models whole numbers within one range of at most 256 values; "
            "round the data, or choose another family"
        )
    return IntegerLevels(schema.low, schema.levels)


def image_range_chain(schema: Schema) -> Chain:
    r"""Send the range of pictures to [-1, 1], as Ho et al. (2020) and `diffusers` do.

    .. math:: z = 2\,\frac{x - a}{b - a} - 1

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
