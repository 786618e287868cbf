"""Arrays, tensors, frames of pandas and polars and tables of Arrow as columns; tables back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from . import memmap
from .columns import Column, Columns, any_per_row

COLUMNS = 16384  # of a table, each with a name and a type


def columns_from_array(
    source: Any,
    name: str = "the array",
    *,
    kind: str = "numpy",
    dtype: str = "",
    extra: Mapping[str, np.ndarray] | None = None,
) -> Columns:
    """A NumPy array, or nested lists of numbers, with the data along the first axis."""
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
        cells: tuple[Column, ...] = (Column("value", spelled, x, _missing_rows(mask, x)),)
    else:
        masks = np.broadcast_to(False, table.shape) if mask is None else mask.reshape(table.shape)
        columns = table.T
        if x.nbytes > memmap.LARGE and memmap.is_lossless_dtype(x):
            columns, array = memmap.transpose_to_columns(table), table
        cells = tuple(Column(str(j), spelled, v, masks[:, j]) for j, v in enumerate(columns))
    return Columns(kind, name, x.shape[1:], cells, spelled, extra or {}, array)


def _missing_rows(mask: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    return np.zeros(len(x), bool) if mask is None else any_per_row(mask)


def columns_from_tensor(x: Any) -> Columns:
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
        _arrow_column(column, header)
        for header, column in zip(table.column_names, table.columns, strict=True)
    )
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
