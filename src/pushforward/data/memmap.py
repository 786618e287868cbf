"""Arrays too large for memory: files without a name, passes over rows, a cache folder."""

import contextlib
import contextvars
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DiskError
from ..formatting import printable_text

MANY = 2**24  # entries beyond which statistics are taken in passes over rows
LARGE = 2**28  # bytes beyond which an array stays on the disk
PASS = 2**21  # entries of one piece of a pass
EXACT = ("uint8", "int8", "int16", "int32", "float16", "float32", "float64", "bool")

folder: contextvars.ContextVar[Path | None] = contextvars.ContextVar("folder", default=None)


@contextlib.contextmanager
def use_cache_folder(place: Path | None) -> Iterator[None]:
    token = folder.set(place)
    try:
        yield
    finally:
        folder.reset(token)


def row_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, PASS // max(int(np.prod(shape[1:])), 1))
    return (slice(i, min(i + step, shape[0])) for i in range(0, shape[0], step))


def map_rows(x: np.ndarray, test: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    found = [test(x[i]) for i in row_slices(x.shape)]
    return np.concatenate(found) if found else np.zeros(0, bool)


def is_lossless_dtype(x: np.ndarray) -> bool:
    return x.dtype.isnative and x.dtype.name in EXACT


def empty_or_memmap(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array: in memory, or in a file without a name that ends with the process."""
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if size <= LARGE:
        return np.empty(shape, dtype)
    _require_disk_space(Path(tempfile.gettempdir()), size)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _require_disk_space(place: Path, size: int) -> None:
    free = shutil.disk_usage(place).free
    if size > free:
        raise DiskError(
            f"{printable_text(place)}: the data need {size:,} bytes of this disk and {free:,} are "
            "free; name another place by the variable TMPDIR, or by cache"
        )


def load_memmap(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def transpose_to_columns(x: np.ndarray) -> np.ndarray:
    columns = empty_or_memmap(x.shape[::-1], x.dtype)
    for i in row_slices(x.shape):
        columns[:, i] = x[i].T
    return columns


def stack_columns(columns: list[np.ndarray]) -> np.ndarray:
    """The inverse of `transpose_to_columns`, in a type that holds all columns."""
    common = np.result_type(*columns)
    dtype = common if common.name in EXACT else np.float64
    x = empty_or_memmap((len(columns[0]), len(columns)), dtype)
    for i in row_slices(x.shape):
        x[i] = np.stack([column[i] for column in columns], axis=1)
    return x


def _is_intact_npy(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        x = load_memmap(path)
    except (OSError, ValueError, EOFError):
        return False
    return x.shape == shape and x.dtype == np.uint8


def cache_array(
    name: str, shape: tuple[int, ...], write: Callable[[np.ndarray], None]
) -> np.ndarray:
    """Bytes kept in the folder of `use_cache_folder`, if any: the same name, the same values."""
    place = folder.get()
    if place is None or int(np.prod(shape, dtype=object)) <= LARGE:
        x = empty_or_memmap(shape, np.uint8)
        write(x)
        return x
    path, draft = place / f"{name}.npy", None
    if not _is_intact_npy(path, shape):
        try:
            place.mkdir(parents=True, exist_ok=True)
            _require_disk_space(place, int(np.prod(shape, dtype=object)))
            with tempfile.NamedTemporaryFile(dir=place, suffix=".part", delete=False) as file:
                draft = Path(file.name)
            x = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
            write(x)
            x.flush()
            draft.replace(path)  # whole, or not there
        except OSError as error:
            if isinstance(error, DiskError):
                raise
            raise DiskError(f"cannot write {path}: {error.strerror or error}") from error
        finally:
            if draft is not None:
                draft.unlink(missing_ok=True)
    return load_memmap(path)
