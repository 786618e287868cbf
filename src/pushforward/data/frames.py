"""Frames of pandas and polars and tables of Arrow as columns, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .columns import Column, Columns


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
