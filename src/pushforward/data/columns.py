"""Where data come from: anything a user may pass, as plain NumPy columns with their names.

A table, and an array with at most two axes, becomes one `Column` for each column. An array with
more axes, an image say, becomes a single `Column` whose values keep their axes. Libraries that are
not loaded are never imported: a frame is recognised by the module of its class.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, MissingFile

TABLES = ("pandas", "polars", "table")
KINDS = ("numpy", "torch", *TABLES)
COLUMNS = 16384  # of a table, each with a name and a type


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
class Columns:
    """A source as columns.

    Arguments:
        kind: One of `KINDS`: what to give back.
        name: How messages call the source.
        shape: The shape of one datum as the user has it; () for a one-dimensional array.
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
        """The number of data."""
        return len(self.cells[0].values) if self.cells else 0

    def stack(self) -> np.ndarray:
        """The numbers as float64 with shape ``(n, *event)``."""
        if len(self.shape) > 1:
            return self.cells[0].values.astype(np.float64)
        return np.stack([c.values.astype(np.float64) for c in self.cells], axis=1)

    def lean(self) -> np.ndarray:
        """`stack` in a type that takes less memory and stands for the same numbers, if it can be.

        What is large stays on the disk.
        """
        from . import memmap

        if len(self.shape) > 1:
            return (
                self.cells[0].values
                if memmap.is_lossless_dtype(self.cells[0].values)
                else self.stack()
            )
        if self.array is not None:
            return self.array
        if sum(c.values.nbytes for c in self.cells) > memmap.LARGE:
            return memmap.stack_columns([c.values for c in self.cells])
        return self.stack()


def printable_text(text: Any, limit: int = 60) -> str:
    """A name from outside as a message may print it: one line, printable, not too long."""
    line = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."


def join_names(names: Any, limit: int = 100) -> str:
    """Names separated by commas, cut where a message would grow too long."""
    return printable_text(", ".join(printable_text(n, 30) for n in names), limit)


def open_source(source: Any, size: tuple[int, ...] | None = None) -> Columns:
    """Read any source: a built-in name, a path, an array, a tensor or a frame.

    Arguments:
        source: Holds data.
        size: Of the pictures of a folder (`folders.read`).

    Raises:
        DataError: If it is nothing that holds data.
    """
    if isinstance(source, Columns):
        return source
    if isinstance(source, str | os.PathLike):
        return open_path(os.fspath(source), size)
    origin = {base.__module__.split(".")[0] for base in type(source).__mro__}
    kind = type(source).__name__
    if "torch" in origin:
        return columns_from_tensor(source)
    if "pandas" in origin and kind == "DataFrame":
        return columns_from_pandas(source)
    if "polars" in origin and kind == "DataFrame":
        return columns_from_polars(source)
    if "pyarrow" in origin and kind == "Table":
        return columns_from_arrow(source, "the table")
    if isinstance(source, np.ndarray | list | tuple):
        return columns_from_array(source)
    raise DataError(
        f"{printable_text(kind)} is not data; give a file, an array, a tensor or a pandas or polars DataFrame"
    )


def open_path(text: str, size: tuple[int, ...] | None = None) -> Columns:
    """A built-in data set by its name, or a file or a folder of pictures by its path."""
    from . import image_folder, table_files
    from .builtin import datasets

    if text in datasets.names():
        return columns_from_dataset(datasets.load(text))
    path = Path(text)
    if not path.suffix and not os.path.lexists(text):
        raise MissingFile(
            f"{printable_text(text)}: no such file, and no built-in data set of that name; "
            f"built in are {join_names(datasets.names(), 150)}"
        )
    if path.suffix.lower() in image_folder.ENDINGS and path.is_file():
        return image_folder.read_image_file(path, size)
    return (
        image_folder.read_image_folder(path, size)
        if os.path.isdir(path)
        else table_files.read_data_file(path)
    )


def columns_from_dataset(data: Any) -> Columns:
    """A built-in data set; its labels go by "label", "target" and their own name."""
    extra = {} if data.y is None else dict.fromkeys(("label", "target", data.label), data.y)
    extra |= data.extra
    if data.columns is None:
        return columns_from_array(data.x, data.name, extra=extra)
    from pyarrow import table

    columns = dict(zip(data.columns, data.x.T, strict=True))
    return columns_from_arrow(table(columns), data.name, extra=extra)


def columns_from_array(
    source: Any,
    name: str = "the array",
    *,
    kind: str = "numpy",
    dtype: str = "",
    extra: Mapping[str, np.ndarray] | None = None,
) -> Columns:
    """A NumPy array, or nested lists of numbers, with the data along the first axis."""
    from . import memmap

    try:
        x = np.asarray(source)
    except ValueError as error:
        raise DataError(f"{name}: the rows differ in length; give a regular array") from error
    if x.ndim == 0:
        raise DataError(f"{name}: a single value is not a set of data; give an array of n data")
    if x.ndim == 2 and x.shape[1] > COLUMNS:
        raise DataError(f"{name}: has more than {COLUMNS} columns; give each datum two axes")
    mask = np.ma.getmaskarray(source) if isinstance(source, np.ma.MaskedArray) else None
    spelled, table = dtype or str(x.dtype), x[:, None] if x.ndim == 1 else x
    array = None
    if x.ndim > 2:
        cells: tuple[Column, ...] = (Column("value", spelled, x, missing_rows(mask, x)),)
    else:
        masks = np.broadcast_to(False, table.shape) if mask is None else mask.reshape(table.shape)
        columns = table.T
        if x.nbytes > memmap.LARGE and memmap.is_lossless_dtype(x):
            columns, array = memmap.transpose_to_columns(table), table
        cells = tuple(Column(str(j), spelled, v, masks[:, j]) for j, v in enumerate(columns))
    return Columns(kind, name, x.shape[1:], cells, spelled, extra or {}, array)


def missing_rows(mask: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    return np.zeros(len(x), bool) if mask is None else any_per_row(mask)


def any_per_row(mask: np.ndarray) -> np.ndarray:
    """Rows of which any entry is marked."""
    return np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))


def columns_from_tensor(x: Any) -> Columns:
    """A torch tensor, on any device."""
    dtype = str(x.dtype).removeprefix("torch.")
    if str(x.layout) != "torch.strided" or x.is_quantized:
        raise DataError("the tensor is sparse or quantised; give a dense one")
    x = x.detach().cpu().resolve_conj().resolve_neg()
    return columns_from_array(
        (x.double() if x.is_floating_point() else x).numpy(),
        "the tensor",
        kind="torch",
        dtype=dtype,
    )


def columns_from_pandas(frame: Any) -> Columns:
    """A pandas frame; nullable and Arrow-backed types included."""
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
    """A polars frame, by way of Arrow."""
    decimals = {d: str(d) for d in frame.dtypes}
    dtypes = ["Float64" if "Decimal" in decimals[d] else decimals[d] for d in frame.dtypes]
    table = columns_from_arrow(frame.to_arrow(), "the frame")
    cells = tuple(c._replace(dtype=d) for c, d in zip(table.cells, dtypes, strict=True))
    return Columns("polars", "the frame", table.shape, cells)


def columns_from_arrow(
    table: Any, name: str, *, extra: Mapping[str, np.ndarray] | None = None
) -> Columns:
    """An Arrow table, which is also what CSV and Parquet files are read into."""
    cells = tuple(
        arrow_column(column, header)
        for header, column in zip(table.column_names, table.columns, strict=True)
    )
    return Columns("table", name, (len(cells),), cells, extra=extra or {})


def restore_names(data: Columns, known: Collection[str]) -> Columns:
    """A table whose columns have lost the apostrophe that makes a name inert in a CSV file."""

    def plain(name: str | int) -> str | int:
        bare = str(name)[1:]
        return bare if f"'{bare}" == name and name not in known and bare in known else name

    return replace(data, cells=tuple(c._replace(name=plain(c.name)) for c in data.cells))


def arrow_column(column: Any, name: str) -> Column:
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
    """The inverse of reading: a frame or Arrow table of (name, dtype, values) columns."""
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
    if isinstance(y, list | tuple) and (has_mixed_types(y) or any(isinstance(v, str) for v in y)):
        return np.fromiter(y, object, len(y))  # an array makes mixed ones alike, texts as long
    try:
        return np.asarray(y)
    except (TypeError, ValueError) as error:
        raise DataError("the conditions differ in length; give one for each datum") from error


def has_mixed_types(values: Sequence[Any]) -> bool:
    """Whether text or truth values stand beside values of another type."""
    kinds = set(map(type, values))
    return len(kinds) > 1 and not kinds.isdisjoint({str, bool}) and not any(map(np.ndim, values))


def is_missing(value: Any) -> bool:
    """Whether a Python object stands for nothing: None, NaN, or a library's own."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither
        return True
