"""Arrays, tensors, frames and Arrow tables as plain NumPy columns with their names; tables back.

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
COLUMNS = 16384  # of a table, each with a name and a type
PRECISION = {
    "float16": "f2", "Float16": "f2", "halffloat": "f2",
    "float32": "f4", "Float32": "f4", "float": "f4",
}  # fmt: skip


class Column(NamedTuple):
    name: str | int  # or its position in an array
    dtype: str  # as the column's own library spells it
    values: np.ndarray  # numbers, or Python objects where they are not numbers
    missing: np.ndarray  # which rows hold nothing at all, (n,)


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
    kind: str  # one of `KINDS`: what to give back
    name: str
    shape: tuple[int, ...]  # of one row as the user has it; () for a one-dimensional array
    cells: tuple[Column, ...]  # one entry for an array of higher rank
    dtype: str = ""  # the type of an array
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)  # what can be the condition
    array: np.ndarray | None = None  # the columns of a large array as rows, where at hand

    @property
    def rows(self) -> int:
        return len(self.cells[0].values) if self.cells else 0

    @property
    def names(self) -> list[str]:
        return [str(c.name) for c in self.cells]

    def stack(self) -> np.ndarray:
        if len(self.shape) > 1:
            return self.cells[0].values.astype(np.float64)
        return np.stack([c.values.astype(np.float64) for c in self.cells], axis=1)

    def stack_compact(self) -> np.ndarray:
        """`stack`, or the same numbers in a smaller type; what is large stays on the disk."""
        if len(self.shape) > 1:
            values = self.cells[0].values
            return values if memmap.is_lossless_dtype(values) else self.stack()
        if self.array is not None:
            return self.array
        if sum(c.values.nbytes for c in self.cells) > memmap.LARGE:
            return memmap.stack_columns([c.values for c in self.cells])
        return self.stack()


def any_per_row(mask: np.ndarray) -> np.ndarray:
    return np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))


def restore_names(data: Columns, known: Collection[str]) -> Columns:
    def plain(name: str | int) -> str | int:
        bare = str(name)[1:]
        return bare if f"'{bare}" == name and name not in known and bare in known else name

    return replace(data, cells=tuple(c._replace(name=plain(c.name)) for c in data.cells))


def as_condition_array(y: Any) -> np.ndarray:
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
    kinds = set(map(type, values))
    return len(kinds) > 1 and not kinds.isdisjoint({str, bool}) and not any(map(np.ndim, values))


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither
        return True


def split_condition(data: Columns, y: Any, condition: str | None) -> tuple[Columns, Column | None]:
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
        given = f"{data.rows} rows but conditions of shape {y.shape}"
        raise DataError(f"{data.name}: {given}; give one for each")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    none = [_is_missing(v) for v in y.flat] if y.dtype.kind == "O" else False
    missing = np.broadcast_to(np.asarray(none).reshape(y.shape if none else ()), y.shape)
    return Column(name, str(y.dtype), y, any_per_row(missing))


def condition_position(data: Columns, condition: str | None) -> int:
    if condition is None or data.kind not in TABLES:
        return -1
    return data.names.index(condition) if condition in data.names else len(data.names)


def columns_from_array(
    source: Any,
    name: str = "the array",
    *,
    kind: str = "numpy",
    dtype: str = "",
    extra: Mapping[str, np.ndarray] | None = None,
) -> Columns:
    try:
        x = np.asarray(source)
    except ValueError as error:
        raise DataError(f"{name}: the rows differ in length; give a regular array") from error
    if x.ndim == 0:
        raise DataError(f"{name}: a single value is not a set of data; give an array of n data")
    if x.ndim == 2 and x.shape[1] > COLUMNS:
        raise DataError(f"{name}: has more than {COLUMNS} columns; give each row two axes")
    mask = np.ma.getmaskarray(source) if isinstance(source, np.ma.MaskedArray) else None
    spelled, table = dtype or str(x.dtype), x[:, None] if x.ndim == 1 else x
    array = None
    if x.ndim > 2:
        missing = np.zeros(len(x), bool) if mask is None else any_per_row(mask)
        cells: tuple[Column, ...] = (Column("value", spelled, x, missing),)
    else:
        masks = np.broadcast_to(False, table.shape) if mask is None else mask.reshape(table.shape)
        columns = table.T
        if x.nbytes > memmap.LARGE and memmap.is_lossless_dtype(x):
            columns, array = memmap.transpose_to_columns(table), table
        cells = tuple(Column(str(j), spelled, v, masks[:, j]) for j, v in enumerate(columns))
    return Columns(kind, name, x.shape[1:], cells, spelled, extra or {}, array)


def columns_from_tensor(x: Any) -> Columns:
    dtype = str(x.dtype).removeprefix("torch.")
    if str(x.layout) != "torch.strided" or x.is_quantized:
        raise DataError("the tensor is sparse or quantised; give a dense one")
    x = x.detach().cpu().resolve_conj().resolve_neg()
    x = x.double() if x.is_floating_point() else x
    return columns_from_array(x.numpy(), "the tensor", kind="torch", dtype=dtype)


def columns_from_pandas(frame: Any) -> Columns:
    cells = []
    for j, name in enumerate(frame.columns):
        column = frame.iloc[:, j]
        missing = np.asarray(column.isna(), dtype=bool)
        values = _pandas_numbers(column, missing)
        label = int(name) if isinstance(name, int | np.integer) else str(name)
        cells.append(Column(label, str(column.dtype), values, missing))
    return Columns("pandas", "the frame", (len(cells),), tuple(cells))


def _pandas_numbers(column: Any, missing: np.ndarray) -> np.ndarray:
    kind = getattr(column.dtype, "kind", "O")
    if kind in "mM":
        return np.zeros(len(column), "datetime64[s]")
    if kind not in "biuf":
        return column.to_numpy(dtype=complex if kind == "c" else object)
    if missing.any():
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy(dtype={"b": bool, "i": np.int64, "u": np.uint64}.get(kind, np.float64))


def columns_from_polars(frame: Any) -> Columns:
    decimals = {d: str(d) for d in frame.dtypes}
    dtypes = ["Float64" if "Decimal" in decimals[d] else decimals[d] for d in frame.dtypes]
    table = columns_from_arrow(frame.to_arrow(), "the frame")
    cells = tuple(c._replace(dtype=d) for c, d in zip(table.cells, dtypes, strict=True))
    return Columns("polars", "the frame", table.shape, cells)


def columns_from_arrow(
    table: Any, name: str, *, extra: Mapping[str, np.ndarray] | None = None
) -> Columns:
    cells = tuple(map(_arrow_column, table.columns, table.column_names))
    return Columns("table", name, (len(cells),), cells, extra=extra or {})


def _arrow_column(column: Any, name: str) -> Column:
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_decimal(column.type):
        column = column.cast(pa.float64())
    missing = np.asarray(column.is_null(), dtype=bool)
    if types.is_null(column.type):
        values: np.ndarray = np.full(len(column), np.nan)
    elif types.is_temporal(column.type):
        values = np.zeros(len(column), "datetime64[s]")
    elif types.is_boolean(column.type):
        values = np.asarray(column.fill_null(False), dtype=bool)
    elif types.is_integer(column.type) or types.is_floating(column.type):
        zero = pa.scalar(0, pa.float64()).cast(column.type)
        values = np.asarray(column.fill_null(zero) if missing.any() else column)
    else:
        values = np.empty(len(column), object)
        values[:] = column.to_pylist()
    return Column(name, str(column.type), values, missing)


def build_table(kind: str, columns: Sequence[tuple[str | int, str, np.ndarray]]) -> Any:
    if kind == "pandas":
        import pandas as pd

        # built from Series, since a dictionary would merge the names 1 and "1"
        series = [pd.Series(v, name=n).astype(dtype) for n, dtype, v in columns]
        return pd.concat(series, axis=1)
    if kind == "polars":
        import polars as pl

        kinds = {d: getattr(pl, d.split("(")[0]) for _, d, _ in columns if "Enum" not in d}
        series = [pl.Series(str(n), v) for n, _, v in columns]
        return pl.DataFrame(
            [s.cast(kinds[d]) if d in kinds else s for s, (_, d, _) in zip(series, columns)]
        )
    import pyarrow as pa

    arrays = [pa.array(v).cast(_arrow_type(dtype)) for _, dtype, v in columns]
    return pa.table(arrays, names=[str(n) for n, _, _ in columns])


def _arrow_type(dtype: str) -> Any:
    import pyarrow as pa

    return pa.float64() if dtype.startswith("decimal") else pa.type_for_alias(dtype)
