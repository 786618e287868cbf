"""Writing samples: a file appears whole or not at all, and no cell is a spreadsheet formula.

Images go to a folder as `image_folder` reads it: a subfolder a class, and a table of what else is
known. A class that cannot be the name of a folder everywhere stands in the table instead.
"""

import contextlib
import csv
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DiskError, FolderInUse, UsageError
from ..formatting import join_names, printable_text
from .image_folder import CAPTIONS, FORMULAS, list_images

Extra = Mapping[str, Any]
Write = Callable[[BinaryIO], object]
ABREAST = 16  # images in a row of a sheet
VISIBLE = 600  # pixels that a sheet of small images is enlarged to, at most
DATA = ("x", "file")  # what .npz files and tables call the data themselves
RESERVED = set('<>:"/\\|?*')  # not in the names of files, on one system or another
LONGEST = 255  # bytes of a file's name


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Refuse a path that `write_samples` cannot write to, before the work begins."""
    path = Path(path)
    if path.suffix and path.suffix.lower() not in WRITERS:
        known = f"{join_names(WRITERS)}, or a new folder for images"
        raise UsageError(f"cannot write {printable_text(path.name)!r}; name a file {known}")
    where = f"cannot write {printable_text(path, 120)}"
    if path.is_dir() and (path.suffix or any(path.iterdir())):
        raise FolderInUse(f"{where}: it is a folder already; name another")
    if path.exists() and not (path.suffix or path.is_dir()):
        raise FolderInUse(f"{where}: it is a file already; name another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DiskError(f"{where}: its folder must exist and be writable")
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
            for images, which gets a .png file for each; a .png file for all beside each other,
            several of them enlarged by a whole factor to at most 600 pixels across.
        restored: An array, a tensor, a frame, an Arrow table or a dictionary of columns.
        white: The level that images show as white (`Schema.white`).
        extra: What is known of each row, by name, its condition first; "label" is its class. A
            folder gets a subfolder for each class, and the rest as columns of ``captions.csv``; a
            .npz file gets the first as ``y``, and each by its name. Other files hold the data
            alone, of which tables have the column of their condition.
        names: Where the images belong in a folder, by default their numbers.

    Raises:
        UsageError: If the format cannot hold the data, or ``extra`` is of other data.
        FolderInUse: If there is a folder with something in it already.
        DiskError: If the disk refuses.
    """
    path, known = check_writable(path), extra or {}
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    if not path.suffix:
        x = _as_pixel_array(restored, white)
        known = _check_extra_arrays(known, len(x))
        with _moved_when_whole(temporary, path):
            temporary.mkdir()
            _write_image_folder(temporary, x, known, names)
        return
    suffix = path.suffix.lower()
    options: dict[str, dict[str, Any]] = {".png": {"white": white}, ".npz": {"extra": known}}
    write = WRITERS[suffix](restored, **options.get(suffix, {}))
    with _moved_when_whole(temporary, path), temporary.open("xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _moved_when_whole(temporary: Path, path: Path) -> Iterator[None]:
    try:
        yield
        os.replace(temporary, path)
    except OSError as error:
        reason = printable_text(error.strerror or error, 100)
        raise DiskError(f"cannot write {printable_text(path, 120)}: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # it was moved, or its folder does not exist either
            temporary.unlink()


def _as_pixel_array(restored: Any, white: int) -> np.ndarray:
    """Images as Pillow takes them, ``(n, height, width)`` or ``(n, height, width, 3)``."""
    x = _as_numpy_array(restored)
    x = np.moveaxis(x, 1, -1) if x.ndim == 4 and x.shape[1] == 3 != x.shape[-1] else x
    if x.dtype != np.uint8 or not (x.ndim == 3 or x.ndim == 4 and x.shape[-1] == 3):
        raise UsageError(
            f"data of shape {x.shape[1:]} and type {x.dtype} are no images of 8 bits; write "
            f"{join_names(w for w in WRITERS if w != '.png')}"
        )
    if white < 255:
        x = np.rint(np.minimum(x, white) * (255 / white)).astype(np.uint8)
    return x


def _write_image_folder(
    folder: Path, x: np.ndarray, extra: Extra, names: Sequence[str] | None
) -> None:
    from PIL import Image

    placed = _default_filenames(len(x), extra.get("label")) if names is None else list(names)
    for name, image in zip(placed, x, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    if columns := _table_columns(placed, extra):
        with (folder / CAPTIONS).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", *map(_escape_formula, columns)])
            table.writerows(zip(map(_escape_formula, placed), *columns.values(), strict=True))


def _default_filenames(n: int, labels: Any) -> list[str]:
    numbers = [f"{i:0{len(str(n))}d}.png" for i in range(n)]
    classes = [] if labels is None else [str(label) for label in labels]
    distinct = set(classes)
    unlike = len({c.lower() for c in distinct}) == len(distinct)
    if not classes or not unlike or not all(map(_is_folder_name, distinct)):
        return numbers
    return [f"{c}/{number}" for c, number in zip(classes, numbers)]


def _is_folder_name(text: str) -> bool:
    """Whether a text can be the name of a folder on any system, and is not one that is skipped."""
    plain = text.isprintable() and not RESERVED & set(text) and text == text.strip(" ")
    hidden = text.startswith(".") or text.endswith(".") or text == CAPTIONS
    return bool(text) and plain and not hidden and len(text.encode()) <= LONGEST


def _table_columns(names: Sequence[str], extra: Extra) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for key, values in extra.items():
        cells = np.asarray(values).tolist()
        implied = key == "label" and all(
            "/" in name and name.split("/")[0] == str(cell) for name, cell in zip(names, cells)
        )
        if not implied and np.ndim(values) > 1:
            columns |= {f"{key}{j}": list(c) for j, c in enumerate(zip(*cells))}
        elif not implied:
            columns[key] = [_escape_formula(cell) for cell in cells]
    return columns


def _escape_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell and cell[0] in FORMULAS else cell


def png_names(folder: Path) -> list[str]:
    """Where the images of a folder are in it, as PNG files of the same names.

    Of two that differ in their endings alone, both keep these as well; all do where that would be
    the name of a third.
    """
    paths = [path.relative_to(folder) for path in list_images(folder)]
    bare = [path.with_suffix("").as_posix().lower() for path in paths]
    count = Counter(bare)
    whole = [f"{path.as_posix()}.png" for path in paths]
    names = [
        path.with_suffix(".png").as_posix() if count[one] == 1 else name
        for path, one, name in zip(paths, bare, whole)
    ]
    return names if len({name.lower() for name in names}) == len(names) else whole


def _check_extra_arrays(extra: Extra, n: int) -> dict[str, np.ndarray]:
    known = {str(name): np.asarray(values) for name, values in extra.items()}
    for name, values in known.items():
        if name in DATA:
            raise UsageError(f"what is known of data cannot be called {name!r}: name it otherwise")
        if values.shape[:1] != (n,):
            raise UsageError(f"{name} is of shape {values.shape} for {n} rows: give one for each")
    return known


def _write_csv(restored: Any) -> Write:
    import pyarrow as pa
    from pyarrow import csv

    table = _as_arrow_table(restored)
    for j, column in enumerate(table.columns):
        if pa.types.is_float16(column.type):
            table = table.set_column(j, table.column_names[j], column.cast(pa.float32()))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            text = pa.array([_escape_formula(v) for v in column.to_pylist()], pa.string())
            table = table.set_column(j, table.column_names[j], text)
    table = table.rename_columns([_escape_formula(name) for name in table.column_names])
    return lambda file: csv.write_csv(table, file)


def _write_parquet(restored: Any) -> Write:
    from pyarrow import parquet

    table = _as_arrow_table(restored)
    return lambda file: parquet.write_table(table, file)


def _write_npy(restored: Any) -> Write:
    x = _as_numpy_array(restored)
    return lambda file: np.save(file, x, allow_pickle=False)


def _write_npz(restored: Any, extra: Extra) -> Write:
    x = _as_numpy_array(restored)
    known = {k: _without_objects(v) for k, v in _check_extra_arrays(extra, len(x)).items()}
    first = {"y": next(iter(known.values()))} if known else {}
    arrays: dict[str, Any] = {"x": x} | first | {k: v for k, v in known.items() if k != "y"}
    return lambda file: np.savez(file, **arrays)


def _without_objects(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    plain, kinds = values.tolist(), set(map(type, values.flat))
    return np.array(plain if len(kinds) == 1 else [str(v) for v in plain])


def _write_png(restored: Any, white: int) -> Write:
    from PIL import Image

    x = _as_pixel_array(restored, white)
    if len(x) > 1:  # a single one stays as it is, to be worked on
        times = max(1, VISIBLE // (min(len(x), ABREAST) * x.shape[2]))
        x = x.repeat(times, 1).repeat(times, 2)
    rows = -(-len(x) // ABREAST)
    blank = np.full((rows * min(len(x), ABREAST), *x.shape[1:]), 255, np.uint8)
    blank[: len(x)] = x
    lines = [np.concatenate(list(line), axis=1) for line in np.split(blank, max(rows, 1))]
    return lambda file: Image.fromarray(np.concatenate(lines)).save(file, "PNG")


def _as_arrow_table(restored: Any) -> Any:
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


def _as_numpy_array(restored: Any) -> np.ndarray:
    if hasattr(restored, "detach"):
        restored = restored.detach().cpu()
        restored = restored.float() if str(restored.dtype) == "torch.bfloat16" else restored
    elif not isinstance(restored, np.ndarray):
        raise UsageError("a table with named columns is written to .csv or .parquet")
    return np.asarray(restored)


WRITERS: dict[str, Callable[..., Write]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".png": _write_png,
}
