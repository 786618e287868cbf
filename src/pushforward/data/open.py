"""Open anything that holds data: a built-in name, a path, an array, a tensor or a frame.

Libraries that are not loaded are never imported: a frame is recognised by the module of its class.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingFile
from ..formatting import join_names, printable_text
from . import image_folder, table_files
from .arrays import columns_from_array, columns_from_tensor
from .builtin import datasets
from .columns import Columns
from .frames import columns_from_arrow, columns_from_pandas, columns_from_polars


def open_source(source: Any, size: tuple[int, ...] | None = None) -> Columns:
    """Read any source: a built-in name, a path, an array, a tensor or a frame.

    Arguments:
        source: Holds data.
        size: Of the pictures of a folder (`image_folder`).

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
