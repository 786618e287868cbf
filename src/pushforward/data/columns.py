"""Any source of data as plain NumPy columns with their names; one of them can be the condition.

A table, and an array with at most two axes, becomes one `Column` for each column. An array with
more axes, an image say, becomes a single `Column` whose values keep their axes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, UsageError
from ..formatting import join_names, printable_text
from . import memmap

Bound = float | None
TABLES = ("pandas", "polars", "table")
KINDS = ("numpy", "torch", *TABLES)
PRECISION = {
    "float16": "f2", "Float16": "f2", "halffloat": "f2",
    "float32": "f4", "Float32": "f4", "float": "f4",
}  # fmt: skip


class Column(NamedTuple):
    """One column of a table, or a whole array of higher rank.

    Arguments:
        name: The column's name, or its position in an array.
        dtype: The type as the column's own library spells it.
        values: Numbers, or Python objects where they are not numbers.
        missing: Which rows hold nothing at all, shape (n,).
    """

    name: str | int
    dtype: str
    values: np.ndarray
    missing: np.ndarray


@dataclass(frozen=True)
class ColumnSchema:
    """One column, or all entries of an array of higher rank.

    Arguments:
        name: Its name, or its position.
        dtype: Its type as its own library spells it.
        integer: Whether all its values are whole.
        low: The smallest value observed.
        high: The largest value observed.
        bounds: The open interval that the user declared, closed for integers.
    """

    name: str | int
    dtype: str
    integer: bool
    low: float
    high: float
    bounds: tuple[Bound, Bound] = (None, None)

    def clip_and_round(self, values: np.ndarray) -> np.ndarray:
        """Whole numbers within the observed range, or numbers within the bounds and the type."""
        if self.integer:
            return np.clip(np.rint(values), self.low, self.high)
        precision = np.dtype(PRECISION.get(self.dtype, "f8")).type
        low, high = np.finfo(precision).min, np.finfo(precision).max
        if self.bounds[0] is not None:
            low = np.nextafter(precision(self.bounds[0]), high)
        if self.bounds[1] is not None:
            high = np.nextafter(precision(self.bounds[1]), low)
        return np.clip(values, low, high).astype(precision).clip(low, high)


@dataclass(frozen=True)
class Columns:
    """A source as columns.

    Arguments:
        kind: One of `KINDS`: what to give back.
        name: How messages call the source.
        shape: The shape of one row as the user has it; () for a one-dimensional array.
        cells: The columns, or one entry for an array of higher rank.
        dtype: The type of an array, "" for tables.
        extra: Arrays beside the data that can serve as the condition, by name.
        array: The columns of a large array as rows, where they are at hand.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    cells: tuple[Column, ...]
    dtype: str = ""
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    array: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(self.cells[0].values) if self.cells else 0

    @property
    def names(self) -> list[str]:
        return [str(c.name) for c in self.cells]

    def stack(self) -> np.ndarray:
        """The numbers as float64 with shape ``(n, *event)``."""
        if len(self.shape) > 1:
            return self.cells[0].values.astype(np.float64)
        return np.stack([c.values.astype(np.float64) for c in self.cells], axis=1)

    def stack_compact(self) -> np.ndarray:
        """`stack` in a type that takes less memory and stands for the same numbers, if it can be.

        What is large stays on the disk.
        """
        if len(self.shape) > 1:
            values = self.cells[0].values
            return values if memmap.is_lossless_dtype(values) else self.stack()
        if self.array is not None:
            return self.array
        if sum(c.values.nbytes for c in self.cells) > memmap.LARGE:
            return memmap.stack_columns([c.values for c in self.cells])
        return self.stack()


def any_per_row(mask: np.ndarray) -> np.ndarray:
    """Rows of which any entry is marked."""
    return np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))


def restore_names(data: Columns, known: Collection[str]) -> Columns:
    """A table whose columns have lost the apostrophe that makes a name inert in a CSV file."""

    def plain(name: str | int) -> str | int:
        bare = str(name)[1:]
        return bare if f"'{bare}" == name and name not in known and bare in known else name

    return replace(data, cells=tuple(c._replace(name=plain(c.name)) for c in data.cells))


def as_condition_array(y: Any) -> np.ndarray:
    """Conditions of any kind as an array: tensors, series and frames included."""
    if hasattr(y, "detach"):
        y = y.detach().cpu()
        y = y.double() if y.is_floating_point() else y
    if hasattr(y, "to_pylist"):  # an Arrow column
        y = y.to_pylist()
    if isinstance(y, np.ma.MaskedArray):
        missing, y = np.ma.getmaskarray(y), y.data
        if missing.any():
            y = y.astype(object)
            y[missing] = None
    if isinstance(y, list | tuple) and (_has_mixed_types(y) or any(isinstance(v, str) for v in y)):
        return np.fromiter(y, object, len(y))  # an array makes mixed ones alike, texts as long
    try:
        return np.asarray(y)
    except (TypeError, ValueError) as error:
        raise DataError("the conditions differ in length; give one for each row") from error


def _has_mixed_types(values: Sequence[Any]) -> bool:
    """Whether text or truth values stand beside values of another type."""
    kinds = set(map(type, values))
    return len(kinds) > 1 and not kinds.isdisjoint({str, bool}) and not any(map(np.ndim, values))


def _is_missing(value: Any) -> bool:
    """Whether a Python object stands for nothing: None, NaN, or a library's own."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither
        return True


def split_condition(data: Columns, y: Any, condition: str | None) -> tuple[Columns, Column | None]:
    """Data without their condition, and the condition: ``y``, or the column of that name.

    Raises:
        UsageError: If both are given, or there is no such column.
        DataError: If there is not one condition for each row.
    """
    if y is not None and condition is not None:
        raise UsageError("give either y or condition, not both")
    if y is not None:
        return data, _make_condition_column(data, "y", as_condition_array(y))
    if condition is None:
        return data, None
    if not isinstance(condition, str):
        name = printable_text(condition)
        raise UsageError(f"condition is {name}; give the name of a column as text")
    for cells in data.cells:
        if str(cells.name) == condition and len(data.shape) == 1:
            rest = tuple(c for c in data.cells if str(c.name) != condition)
            return replace(data, cells=rest, shape=(len(rest),), array=None), cells
    if condition in data.extra:
        values = data.extra[condition]  # "label" and "target" stand for the last name of the same
        name = [k for k, v in data.extra.items() if v is values][-1]
        return data, _make_condition_column(data, name, np.asarray(values))
    known = [*dict.fromkeys(data.extra), *(c.name for c in data.cells if len(data.shape) == 1)]
    raise UsageError(
        f"{data.name}: no column is called {printable_text(condition)!r}; "
        + (f"choose from {join_names(known, 120)}" if known else "it has none")
    )


def _make_condition_column(data: Columns, name: str, y: np.ndarray) -> Column:
    if y.ndim == 0 or len(y) != data.rows or y.ndim > 2 or 0 in y.shape[1:]:
        raise DataError(
            f"{data.name}: {data.rows} rows but conditions of shape {y.shape}; give one for each"
        )
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    none = [_is_missing(v) for v in y.flat] if y.dtype.kind == "O" else False
    missing = np.broadcast_to(np.asarray(none).reshape(y.shape if none else ()), y.shape)
    return Column(name, str(y.dtype), y, any_per_row(missing))


def condition_position(data: Columns, condition: str | None) -> int:
    """Where a table's samples carry the condition; -1 if they do not."""
    if condition is None or data.kind not in TABLES:
        return -1
    return data.names.index(condition) if condition in data.names else len(data.names)
