r"""From data to the model's space and back, with the log-determinant.

.. math:: \log p_X(x) = \log p_Z(f(x)) + \log\left|\det \frac{\partial f}{\partial x}\right|

A chain first maps each column by itself, as its schema asks (integers are dequantised, bounds are
sent to infinity), and then all of them to the scale that networks are made for. Which of these a
family wants is its `model.Preprocessing`. The maps are in `bijections`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import numpy as np
import torch

from ..errors import DataError, UsageError
from ..formatting import printable_text
from ..model import Preprocessing
from ..shapes import Data, PerDatum
from . import bijections, memmap
from .bijections import Dequantise, IntegerLevels, Standardise, Unconstrain, Whiten
from .json_records import parse_typed_json, to_plain_json
from .schema import Schema


@runtime_checkable
class Transform(Protocol):
    """A frozen dataclass of plain numbers; ``kind`` is its name in JSON."""

    kind: ClassVar[str]
    stochastic: ClassVar[bool]

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        """To the model's space, and the log-determinant in nats."""

    def inverse(self, z: Data) -> Data:
        """Back to the units of the data."""


@final
@dataclass(frozen=True)
class Chain:
    """Transforms one after the other; the log-determinants add.

    Arguments:
        parts: The transforms, from the data towards the model.
    """

    parts: tuple[Transform, ...] = ()

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
        """One object for each transform, its numbers exactly."""
        return [{"kind": p.kind} | to_plain_json(p) for p in self.parts]

    @classmethod
    def from_json(cls, data: Any) -> "Chain":
        """The inverse of `to_json`.

        Raises:
            DataError: If it describes no chain of transforms.
        """
        if not isinstance(data, list):
            raise DataError("transforms: expected a list")
        return cls(tuple(_transform_from_json(d) for d in data))


KINDS = {c.kind: c for c in (Standardise, Whiten, Dequantise, Unconstrain, IntegerLevels)}


def _transform_from_json(data: Any) -> Transform:
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"transforms: no transform is called {printable_text(kind)!r}")
    values = {k: v for k, v in data.items() if k != "kind"}
    transform = parse_typed_json(KINDS[kind], values, f"transforms.{kind}")
    scales = getattr(transform, "scale", ()) + getattr(transform, "roots", ())
    if min(scales, default=1.0) <= 0:
        raise DataError(f"transforms.{kind}: a scale is not positive")
    return transform


def choose_transform(
    schema: Schema,
    x: np.ndarray,
    preprocessing: Preprocessing = Preprocessing.STANDARDISE,
    rows: np.ndarray | None = None,
) -> Chain:
    """The transform that a family wants of data of a schema.

    Correlations are removed only where the rows are many enough to estimate them: at least five
    for each of 2 to 128 columns.

    Arguments:
        schema: Which columns hold integers, and which are bounded.
        x: The data to fit the transform on, shape (n, *event).
        preprocessing: What the family wants.
        rows: The numbers of the rows to use; all by default. Of many, a part is read at a time.

    Raises:
        UsageError: If the family models integers and the data are others.
    """
    if preprocessing is Preprocessing.LEVELS:
        return Chain((_integer_levels(schema),))
    if preprocessing is Preprocessing.CENTRE:
        return _image_range_chain(schema)
    rows = np.arange(len(x)) if rows is None else rows
    whiten = preprocessing is Preprocessing.WHITEN and x.ndim == 2
    whiten = whiten and 2 <= x.shape[1] <= min(128, len(rows) // 5)
    columns = Chain(_column_transforms(schema))
    if x.size > memmap.MANY:
        slices = memmap.row_slices((len(rows), *x.shape[1:]))
        parts = (columns.forward(torch.from_numpy(x[rows[i]]).double())[0] for i in slices)
        return Chain((*columns.parts, bijections.fit_affine_streaming(parts, whiten)))
    z, _ = columns.forward(torch.from_numpy(x[rows]).double())
    fit = bijections.fit_whitening if whiten else bijections.fit_standardisation
    return Chain((*columns.parts, fit(z)))


def _column_transforms(schema: Schema) -> tuple[Transform, ...]:
    """What is done to each column by itself, whatever the others are."""
    columns, parts = schema.columns, list[Transform]()
    if any(c.integer for c in columns):
        low, high = tuple(c.low for c in columns), tuple(c.high for c in columns)
        parts.append(Dequantise(tuple(c.integer for c in columns), low, high))
    if any(c.bounds != (None, None) for c in columns):
        # an integer k becomes [k, k + 1), so its upper bound moves up by one
        upper = tuple(None if c.bounds[1] is None else c.bounds[1] + c.integer for c in columns)
        parts.append(Unconstrain(tuple(c.bounds[0] for c in columns), upper))
    return tuple(parts)


def _integer_levels(schema: Schema) -> IntegerLevels:
    if not schema.levels:
        raise UsageError(
            "this family models whole numbers within one range of at most 256 values; "
            "round the data, or choose another family"
        )
    return IntegerLevels(schema.low, schema.levels)


def _image_range_chain(schema: Schema) -> Chain:
    r"""Send the range of images to [-1, 1], as Ho et al. (2020) and `diffusers` do.

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
