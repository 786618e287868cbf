"""Writing samples: a file appears whole or not at all, and no cell is a spreadsheet formula."""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DiskError, FolderInUse, UsageError
from ..formatting import join_names, printable_text
from .image_writer import Extra, check_extra_arrays, escape_formula, write_image_folder

ABREAST = 16  # pictures in a row of a sheet
VISIBLE = 600  # pixels that a sheet of small pictures is enlarged to, at most


def check_writable(path: str | os.PathLike[str]) -> Path:
    """A path that `write_samples` can write to, checked before the work that is to be written begins.

    Raises:
        UsageError: If the extension is not one of .csv, .parquet, .npy, .npz, .png, or none.
        FolderInUse: If it is a folder that holds something, or would be one in place of a file.
        DiskError: If its folder does not exist, or cannot be written to.
    """
    path = Path(path)
    if path.suffix and path.suffix.lower() not in WRITERS:
        known = f"{join_names(WRITERS)}, or a new folder for pictures"
        raise UsageError(f"cannot write {printable_text(path.name)!r}; name a file {known}")
    if path.is_dir() and (path.suffix or any(path.iterdir())):
        raise FolderInUse(
            f"cannot write {printable_text(path, 120)}: it is a folder already; name another"
        )
    if path.exists() and not (path.suffix or path.is_dir()):
        raise FolderInUse(
            f"cannot write {printable_text(path, 120)}: it is a file already; name another"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DiskError(
            f"cannot write {printable_text(path, 120)}: its folder must exist and be writable"
        )
    return path


def write_samples(
    path: str | os.PathLike[str],
    restored: Any,
    *,
    white: int = 255,
    extra: Extra | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Write what `Schema.restore` gave; the extension chooses the format.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Arguments:
        path: A .csv or .parquet file for tables, a .npy or .npz file for arrays, or a new folder
            for pictures, which gets a .png file for each; a .png file for all beside each other,
            several of them enlarged by a whole factor to at most 600 pixels across.
        restored: An array, a tensor, a frame, an Arrow table or a dictionary of columns.
        white: The level that pictures show as white (`Schema.white`).
        extra: What is known of each datum, by name, its condition first; "label" is its class. A
            folder gets a subfolder for each class, and the rest as columns of ``captions.csv``; a
            .npz file gets the first as ``y``, and each by its name. Other files hold the data
            alone, of which tables have the column of their condition.
        names: Where the pictures belong in a folder, by default their numbers.

    Raises:
        UsageError: If the format cannot hold the data, or ``extra`` is of other data.
        FolderInUse: If there is a folder with something in it already.
        DiskError: If the disk refuses.
    """
    path, known = check_writable(path), extra or {}
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    if not path.suffix:
        x = as_pixel_array(restored, white)
        return write_images(path, temporary, x, check_extra_arrays(known, len(x)), names)
    told: dict[str, Writer] = {
        ".png": partial(_write_png, white=white),
        ".npz": partial(_write_npz, extra=known),
    }
    ready = (WRITERS | told)[path.suffix.lower()](restored)
    try:
        with temporary.open("xb") as file:
            ready(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = printable_text(error.strerror or error, 100)
        raise DiskError(f"cannot write {printable_text(path, 120)}: {reason}") from error
    finally:
        discard_file(temporary)


def write_images(
    path: Path, temporary: Path, x: np.ndarray, extra: Extra, names: Sequence[str] | None
) -> None:
    try:
        temporary.mkdir()
        write_image_folder(temporary, x, extra, names)
        os.replace(temporary, path)
    except OSError as error:
        reason = printable_text(error.strerror or error, 100)
        raise DiskError(f"cannot write {printable_text(path, 120)}: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_pixel_array(restored: Any, white: int) -> np.ndarray:
    """Pictures as Pillow takes them, ``(n, height, width)`` or with 3 colours behind."""
    x = as_numpy_array(restored)
    x = np.moveaxis(x, 1, -1) if x.ndim == 4 and x.shape[1] == 3 != x.shape[-1] else x
    if x.dtype != np.uint8 or not (x.ndim == 3 or x.ndim == 4 and x.shape[-1] == 3):
        raise UsageError(
            f"data of shape {x.shape[1:]} and type {x.dtype} are no pictures of 8 bits; write "
            f"{join_names(w for w in WRITERS if w != '.png')}"
        )
    if white < 255:
        x = np.rint(np.minimum(x, white) * (255 / white)).astype(np.uint8)
    return x


def discard_file(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # its folder does not exist either
        return


Write = Callable[[BinaryIO], object]
Writer = Callable[[Any], Write]


def _write_csv(restored: Any) -> Write:
    import pyarrow as pa
    from pyarrow import csv

    table = as_arrow_table(restored)
    for j, column in enumerate(table.columns):
        if pa.types.is_float16(column.type):
            table = table.set_column(j, table.column_names[j], column.cast(pa.float32()))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            text = pa.array([escape_formula(v) for v in column.to_pylist()], pa.string())
            table = table.set_column(j, table.column_names[j], text)
    table = table.rename_columns([escape_formula(name) for name in table.column_names])
    return lambda file: csv.write_csv(table, file)


def _write_parquet(restored: Any) -> Write:
    from pyarrow import parquet

    table = as_arrow_table(restored)
    return lambda file: parquet.write_table(table, file)


def _write_npy(restored: Any) -> Write:
    x = as_numpy_array(restored)
    return lambda file: np.save(file, x, allow_pickle=False)


def _write_npz(restored: Any, extra: Extra) -> Write:
    """The data as ``x``, what is known of them first as ``y``, and all of it by name."""
    x = as_numpy_array(restored)
    known = {
        name: without_objects(values) for name, values in check_extra_arrays(extra, len(x)).items()
    }
    first = {"y": next(iter(known.values()))} if known else {}
    arrays: dict[str, Any] = {"x": x} | first | {k: v for k, v in known.items() if k != "y"}
    return lambda file: np.savez(file, **arrays)


def without_objects(values: np.ndarray) -> np.ndarray:
    """Objects as numbers, if all are of one kind, or else as text."""
    if values.dtype != object:
        return values
    plain, kinds = values.tolist(), set(map(type, values.flat))
    return np.array(plain if len(kinds) == 1 else [str(v) for v in plain])


def _write_png(restored: Any, white: int) -> Write:
    """Pictures beside each other, up to `ABREAST` in a row, small ones enlarged."""
    from PIL import Image

    x = as_pixel_array(restored, white)
    if len(x) > 1:  # a single one stays as it is, to be worked on
        times = max(1, VISIBLE // (min(len(x), ABREAST) * x.shape[2]))
        x = x.repeat(times, 1).repeat(times, 2)
    rows = -(-len(x) // ABREAST)
    blank = np.full((rows * min(len(x), ABREAST), *x.shape[1:]), 255, np.uint8)
    blank[: len(x)] = x
    lines = [np.concatenate(list(line), axis=1) for line in np.split(blank, max(rows, 1))]
    return lambda file: Image.fromarray(np.concatenate(lines)).save(file, "PNG")


def as_arrow_table(restored: Any) -> Any:
    """Columns of any kind as an Arrow table; an array's are called x0, x1, ...

    Raises:
        UsageError: If the data have more than two axes.
    """
    import pyarrow as pa

    if isinstance(restored, pa.Table):
        return restored
    if isinstance(restored, dict):
        return pa.table(restored)
    if hasattr(restored, "to_arrow"):  # polars
        return restored.to_arrow()
    if hasattr(restored, "iloc"):  # pandas
        return pa.table({str(k): pa.array(restored[k]) for k in restored.columns})
    x = np.asarray(restored)
    if x.ndim > 2:
        raise UsageError(f"data of shape {x.shape[1:]} are no table; write .npy or .npz")
    columns = x.reshape(len(x), -1).T
    return pa.table({f"x{j}": np.ascontiguousarray(c) for j, c in enumerate(columns)})


def as_numpy_array(restored: Any) -> np.ndarray:
    if hasattr(restored, "detach"):
        restored = restored.detach().cpu()
        restored = restored.float() if str(restored.dtype) == "torch.bfloat16" else restored
    if not isinstance(restored, np.ndarray) and not hasattr(restored, "detach"):
        raise UsageError("a table with named columns is written to .csv or .parquet")
    return np.asarray(restored)


WRITERS: dict[str, Writer] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".npz": partial(_write_npz, extra={}),
    ".png": partial(_write_png, white=255),
}
