"""Arrays and tensors as columns."""

from collections.abc import Mapping
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
