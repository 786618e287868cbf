"""Data files: read with suspicion, written whole or not at all.

Nothing in a file is ever run: no pickle is read, sizes are computed from headers before memory is
asked for, and what another library thinks of a broken file reaches the user as one line.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError, DiskError, MissingFile, Unsafe, UsageError
from .sources import Raw, listing, of_array, of_arrow, show

LIMIT = 4 * 2**30  # bytes of one array
ZIP_LIMIT = 2 * 2**30  # bytes of a whole archive
ZIP_RATIO = 100  # how much smaller an honest large archive gets
COLUMNS = 16384


def read(path: Path) -> Raw:
    """Read a .csv, .parquet, .npy or .npz file.

    Raises:
        MissingFile: If there is none.
        UsageError: If the extension is another.
        DataError: If it is not what its extension says, or is broken.
        Unsafe: If reading it could run code or exhaust the memory.
    """
    name, suffix = show(path.name), path.suffix.lower()
    try:
        if not path.exists():
            raise MissingFile(f"{show(path, 150)}: no such file")
        if path.is_dir():
            raise DataError(f"{name}: is a folder; give a .csv, .parquet, .npy or .npz file")
        if not path.is_file():
            raise DataError(f"{name}: is not a regular file")
        if suffix not in READERS:
            raise UsageError(f"{name}: cannot read {show(suffix)!r}; give {listing(READERS)}")
        if path.stat().st_size == 0:
            raise DataError(f"{name}: is empty")
        return READERS[suffix](path, name)
    except (DataError, MissingFile, Unsafe):
        raise
    except OSError as error:
        reason = error.strerror or "it is broken"
        raise DataError(f"{name}: cannot be read: {show(reason, 100)}") from error


def read_csv(path: Path, name: str) -> Raw:
    """A table of text in UTF-8; the header decides between comma, semicolon and tab."""
    from pyarrow import ArrowException, csv

    delimiter = _delimiter(path, name)
    ragged: list[Any] = []

    def refuse(row: Any) -> str:
        ragged.append(row)
        return "error"

    try:
        table = csv.read_csv(
            path,
            csv.ReadOptions(use_threads=False, block_size=2**23),
            csv.ParseOptions(delimiter=delimiter, invalid_row_handler=refuse),
            csv.ConvertOptions(strings_can_be_null=True),
        )
    except (ArrowException, ValueError) as error:
        if ragged:
            row = ragged[0]
            raise DataError(
                f"{name}: line {row.number} has {row.actual_columns} cells where the header has "
                f"{row.expected_columns}; mend the line"
            ) from error
        raise DataError(f"{name}: is not a table in CSV: {show(error, 120)}") from error
    _check_table(table, name)
    return of_arrow(table, name)


def _delimiter(path: Path, name: str) -> str:
    """Look at the start of a CSV file: its encoding, its header, its delimiter."""
    with path.open("rb") as file:
        head = file.read(2**20)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{name}: is encoded in UTF-16; save it as UTF-8")
    if b"\0" in head:
        raise DataError(f"{name}: is not text; save it as CSV in UTF-8")
    lines = head.splitlines()
    try:
        header = lines[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is not encoded in UTF-8; save it as UTF-8") from error
    if len(lines) == 1 and len(head) == 2**20:
        raise DataError(f"{name}: the first line is longer than a megabyte; give a CSV file")
    delimiter = max(",;\t", key=header.count)
    if header.count(delimiter) >= COLUMNS:
        raise DataError(f"{name}: has more than {COLUMNS} columns; save it as .npy")
    _check_header(header.split(delimiter), name)
    return delimiter


def _check_header(header: list[str], name: str) -> None:
    """A first line of numbers is data, unless it counts the columns as other tools do."""
    try:
        numbers = [float(cell.strip('"')) for cell in header]
    except ValueError:
        return
    if numbers not in (list(range(len(header))), list(range(1, len(header) + 1))):
        raise DataError(f"{name}: the first line holds numbers; add a line of column names")


def _check_table(table: Any, name: str) -> None:
    """Refuse what no schema could describe."""
    from pyarrow import types

    if not table.num_rows:
        raise DataError(f"{name}: has a header but no rows")
    for column, field in zip(table.columns, table.schema, strict=True):
        if types.is_binary(column.type):
            raise DataError(
                f"{name}: column '{show(field.name)}' is not encoded in UTF-8; save it as UTF-8"
            )


def read_parquet(path: Path, name: str) -> Raw:
    """A Parquet table, refused if its columns would not fit."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            meta = file.metadata
            if meta.num_columns > COLUMNS:
                raise DataError(f"{name}: has more than {COLUMNS} columns; save it as .npy")
            stored = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            _fits(max(stored, 8 * meta.num_rows * meta.num_columns), LIMIT, name)
            table = file.read()
    except (ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: is not a Parquet file, or is broken") from error
    if not table.num_rows:
        raise DataError(f"{name}: has no rows")
    return of_arrow(table, name)


def read_npy(path: Path, name: str) -> Raw:
    """One NumPy array."""
    with path.open("rb") as file:
        return of_array(_array(file, path.stat().st_size, name), name)


def read_npz(path: Path, name: str) -> Raw:
    """An archive of NumPy arrays: the data are the array ``x``, or the only one beside ``y``."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _members(archive, name)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: is not an archive of NumPy arrays, or is broken") from error
    if not arrays:
        raise DataError(f"{name}: holds no arrays")
    others = [k for k in arrays if k != "y"] or ["y"]
    key = "x" if "x" in arrays else others[0]
    if "x" not in arrays and len(others) > 1:
        raise DataError(f"{name}: holds the arrays {listing(arrays)}; name the data x")
    return of_array(arrays.pop(key), name, extra=arrays)


def _members(archive: zipfile.ZipFile, name: str) -> dict[str, np.ndarray]:
    """All arrays of an archive whose declared sizes are believable."""
    entries = archive.infolist()
    total = sum(e.file_size for e in entries)
    _fits(total, ZIP_LIMIT, name)
    stored = sum(e.compress_size for e in entries)
    if total > 2**26 and total > ZIP_RATIO * stored:
        raise Unsafe(f"{name}: is refused: {stored} bytes would unpack to {total}")
    arrays = {}
    for entry in entries:
        with archive.open(entry) as member:
            label = f"{name}: {show(entry.filename)}"
            arrays[entry.filename.removesuffix(".npy")] = _array(member, entry.file_size, label)
    return arrays


def _array(file: Any, size: int, name: str) -> np.ndarray:
    """Read an array after its header has been believed."""
    try:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = header(file)
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        file.seek(0)
        if file.read(1) in b"\x80(c":  # how a pickle begins
            raise Unsafe(f"{name}: is refused: it may be a pickle; save it again") from error
        raise DataError(f"{name}: is not a NumPy array; save it with numpy.save") from error
    if dtype.hasobject:
        raise Unsafe(f"{name}: is refused: it holds Python objects; save it as numbers")
    wanted = dtype.itemsize * int(np.prod([int(s) for s in shape], dtype=object))
    _fits(wanted, LIMIT, name)
    if min(shape, default=0) < 0 or wanted > size - file.tell():
        raise DataError(f"{name}: is cut short: its header promises {wanted} bytes")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _fits(size: int, limit: int, name: str) -> None:
    if size > limit:
        raise Unsafe(f"{name}: is refused: it would take {size} bytes, more than {limit}")


def write(path: str | os.PathLike[str], restored: Any) -> None:
    """Write what `Schema.restore` gave; the extension chooses the format.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Arguments:
        path: A .csv or .parquet file for tables, or a .npy or .npz file for arrays.
        restored: An array, a tensor, a frame, an Arrow table or a dictionary of columns.

    Raises:
        UsageError: If the format cannot hold the data.
        DiskError: If the disk refuses.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UsageError(f"cannot write {show(path.name)!r}; name a file {listing(WRITERS)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    ready = writer(restored)
    try:
        with temporary.open("xb") as file:
            ready(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = show(error.strerror or error, 100)
        raise DiskError(f"cannot write {show(path, 120)}: {reason}") from error
    finally:
        _discard(temporary)


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # its folder does not exist either
        return


Write = Callable[[BinaryIO], object]


def _write_csv(restored: Any) -> Write:
    import pyarrow as pa
    from pyarrow import csv

    table = as_table(restored)
    for j, column in enumerate(table.columns):
        if pa.types.is_float16(column.type):
            table = table.set_column(j, table.column_names[j], column.cast(pa.float32()))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            text = pa.array([_inert(v) for v in column.to_pylist()], pa.string())
            table = table.set_column(j, table.column_names[j], text)
    return lambda file: csv.write_csv(table, file)


def _inert(text: str | None) -> str | None:
    """A cell that a spreadsheet shows instead of running it."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


def _write_parquet(restored: Any) -> Write:
    from pyarrow import parquet

    table = as_table(restored)
    return lambda file: parquet.write_table(table, file)


def _write_npy(restored: Any) -> Write:
    x = _as_array(restored)
    return lambda file: np.save(file, x, allow_pickle=False)


def _write_npz(restored: Any) -> Write:
    x = _as_array(restored)
    return lambda file: np.savez(file, x=x)


def as_table(restored: Any) -> Any:
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


def _as_array(restored: Any) -> np.ndarray:
    if hasattr(restored, "detach"):
        restored = restored.detach().cpu()
        restored = restored.float() if str(restored.dtype) == "torch.bfloat16" else restored
    if not isinstance(restored, np.ndarray) and not hasattr(restored, "detach"):
        raise UsageError("a table with named columns is written to .csv or .parquet")
    return np.asarray(restored)


READERS = {".csv": read_csv, ".parquet": read_parquet, ".npy": read_npy, ".npz": read_npz}
WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".npy": _write_npy, ".npz": _write_npz}
