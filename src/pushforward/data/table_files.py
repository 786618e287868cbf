"""Data files, read with suspicion.

Nothing in a file is ever run: no pickle is read, sizes are computed from headers before memory is
asked for, and what another library thinks of a broken file reaches the user as one line.
"""

import lzma
import re
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingFile, Unsafe, UsageError
from ..formatting import join_names, printable_text
from . import memmap
from .columns import COLUMNS, Column, Columns, columns_from_array, columns_from_arrow

LIMIT = 4 * 2**30  # bytes of one array
ZIP_LIMIT = 2 * 2**30  # bytes of a whole archive
HONEST = 100  # how much smaller a large table gets in Parquet
ZIP_RATIO = 100  # how much smaller an honest large archive gets
# RuntimeError: an encrypted member; KeyError: a version of the format from the future
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError,
          OSError)  # fmt: skip
HEADER = (ValueError, KeyError, SyntaxError, TypeError, tokenize.TokenError, RecursionError,
          MemoryError)  # fmt: skip


def read_data_file(path: Path) -> Columns:
    name, suffix = printable_text(path.name or path.absolute()), path.suffix.lower()
    try:
        if not path.exists():
            raise MissingFile(f"{printable_text(path, 150)}: no such file")
        if path.is_dir():
            raise DataError(f"{name}: is a folder; give a .csv, .parquet, .npy or .npz file")
        if not path.is_file():
            raise DataError(f"{name}: is not a regular file")
        if suffix not in READERS:
            known = join_names(READERS)
            raise UsageError(f"{name}: cannot read {printable_text(suffix)!r}; give {known}")
        if path.stat().st_size == 0:
            raise DataError(f"{name}: is empty")
        return READERS[suffix](path, name)
    except (DataError, MissingFile, Unsafe):
        raise
    except OSError as error:
        reason = error.strerror or "it is broken"
        raise DataError(f"{name}: cannot be read: {printable_text(reason, 100)}") from error


def read_csv(path: Path, name: str) -> Columns:
    from pyarrow import ArrowException, csv

    _check_file_size(path.stat().st_size, LIMIT, name)
    delimiter = _sniff_delimiter(path, name)
    try:
        table = csv.read_csv(
            path,
            csv.ReadOptions(use_threads=False, block_size=2**23),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(strings_can_be_null=True),
        )
    except (ArrowException, ValueError) as error:
        ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(error))
        if ragged:
            line, expected, got = ragged.groups()
            raise DataError(
                f"{name}: line {line} has {got} cells where the header has {expected}; mend it"
            ) from error
        raise DataError(f"{name}: is not a table in CSV: {printable_text(error, 120)}") from error
    _check_arrow_table(table, name)
    return columns_from_arrow(table, name)


def _sniff_delimiter(path: Path, name: str) -> str:
    with path.open("rb") as file:
        head = file.read(2**20)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{name}: is encoded in UTF-16; save it as UTF-8")
    if b"\0" in head:
        raise DataError(f"{name}: is not text; save it as CSV in UTF-8")
    lines = [line for line in head.splitlines() if line.strip()]
    if len(lines) < 2 and len(head) < 2**20:
        raise DataError(f"{name}: has a header but no rows")
    if len(lines) < 2:
        raise DataError(f"{name}: the first line is longer than a megabyte; give a CSV file")
    try:
        header = lines[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is not encoded in UTF-8; save it as UTF-8") from error
    delimiter = max(",;\t", key=header.count)
    if header.count(delimiter) >= COLUMNS:
        raise DataError(f"{name}: has more than {COLUMNS} columns; save it as .npy")
    _check_csv_header(header.split(delimiter), name)
    return delimiter


def _check_csv_header(header: list[str], name: str) -> None:
    """A first line of numbers is data, unless it counts the columns as other tools do."""
    try:
        numbers = [float(cell.strip('"')) for cell in header]
    except ValueError:
        return
    if numbers not in (list(range(len(header))), list(range(1, len(header) + 1))):
        raise DataError(f"{name}: the first line holds numbers; add a line of column names")


def _check_arrow_table(table: Any, name: str) -> None:
    from pyarrow import types

    if not table.num_rows:
        raise DataError(f"{name}: has a header but no rows")
    for column, field in zip(table.columns, table.schema, strict=True):
        if types.is_binary(column.type):
            raise DataError(
                f"{name}: column '{printable_text(field.name)}' is not encoded in UTF-8; "
                "save it as UTF-8"
            )


def _read_parquet(path: Path, name: str) -> Columns:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            meta = file.metadata
            if meta.num_columns > COLUMNS:
                raise DataError(f"{name}: has more than {COLUMNS} columns; save it as .npy")
            stored = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            wanted = max(stored, 8 * meta.num_rows * meta.num_columns)
            _check_file_size(wanted, max(LIMIT, HONEST * path.stat().st_size), name)
            if wanted > memmap.LARGE:
                return _read_row_groups(file, name)
            table = file.read()
    except (ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: is not a Parquet file, or is broken") from error
    if not table.num_rows:
        raise DataError(f"{name}: has no rows")
    return columns_from_arrow(table, name)


def _read_row_groups(file: Any, name: str) -> Columns:
    columns: list[Column] = []
    start = 0
    for i in range(file.metadata.num_row_groups):
        cells = columns_from_arrow(file.read_row_group(i), name).cells
        columns = columns or [_allocate_column(c, file.metadata.num_rows) for c in cells]
        end = start + len(cells[0].values)
        for column, part in zip(columns, cells, strict=True):
            column.values[start:end], column.missing[start:end] = part.values, part.missing
        start = end
    return Columns("table", name, (len(columns),), tuple(columns))


def _allocate_column(cells: Column, rows: int) -> Column:
    make = memmap.empty_or_memmap if cells.values.dtype.kind in "biufM" else np.empty
    return cells._replace(values=make((rows,), cells.values.dtype), missing=np.empty(rows, bool))


def _read_npy(path: Path, name: str) -> Columns:
    with path.open("rb") as file:
        size = path.stat().st_size
        if size <= memmap.LARGE:
            return columns_from_array(_read_npy_array(file, size, name), name)
        _check_npy_header(file, size, name)
    return columns_from_array(memmap.load_memmap(path), name)


def _read_npz(path: Path, name: str) -> Columns:
    """An archive of NumPy arrays: the data are the array ``x``, or the only one beside ``y``."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_npz_members(archive, name)
    except BROKEN as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: is not an archive of NumPy arrays, or is broken") from error
    if not arrays:
        raise DataError(f"{name}: holds no arrays")
    found = ["x"] if "x" in arrays else [k for k in arrays if k != "y"] or ["y"]
    if len(found) > 1:
        raise DataError(f"{name}: holds the arrays {join_names(arrays)}; name the data x")
    return columns_from_array(arrays.pop(found[0]), name, extra=arrays)


def _read_npz_members(archive: zipfile.ZipFile, name: str) -> dict[str, np.ndarray]:
    entries = archive.infolist()
    total = sum(e.file_size for e in entries)
    _check_file_size(total, ZIP_LIMIT, name)
    stored = sum(e.compress_size for e in entries)
    if total > 2**26 and total > ZIP_RATIO * stored:
        raise Unsafe(f"{name}: is refused: {stored} bytes would unpack to {total}")
    arrays = {}
    for entry in entries:
        with archive.open(entry) as member:
            key, label = entry.filename.removesuffix(".npy"), printable_text(entry.filename)
            arrays[key] = _read_npy_array(member, entry.file_size, f"{name}: {label}")
    return arrays


def _read_npy_array(file: Any, size: int, name: str) -> np.ndarray:
    _check_npy_header(file, size, name)
    file.seek(0)
    try:
        return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{name}: is broken; save it again with numpy.save") from error


def _check_npy_header(file: Any, size: int, name: str) -> None:
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0,
                   (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip
        shape, _, dtype = readers[version](file)
    except HEADER as error:
        file.seek(0)
        if file.read(1) in b"\x80(c":  # how a pickle begins
            raise Unsafe(f"{name}: is refused: it may be a pickle; save it again") from error
        raise DataError(f"{name}: is not a NumPy array; save it with numpy.save") from error
    if dtype.hasobject:
        raise Unsafe(f"{name}: is refused: it holds Python objects; save it as numbers")
    wanted = dtype.itemsize * int(np.prod([int(s) for s in shape], dtype=object))
    _check_file_size(wanted, max(LIMIT, size), name)
    if min(shape, default=0) < 0 or wanted > size - file.tell():
        raise DataError(f"{name}: is cut short: its header promises {wanted} bytes")


def _check_file_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        raise Unsafe(f"{name}: is refused: it would take {size} bytes, more than {limit}")


READERS = {".csv": read_csv, ".parquet": _read_parquet, ".npy": _read_npy, ".npz": _read_npz}
