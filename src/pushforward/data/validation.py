"""What can be wrong with data, found all at once and reported with its rows and its remedy."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..formatting import printable_text
from . import memmap
from .columns import TABLES, Column, Columns, ColumnSchema, any_per_row

FEW_ROWS = 50
EXACT = 2**53  # the largest range in which float64 holds every integer
PHRASES = {
    "missing": "{count} missing value{s}",
    "infinite": "{count} infinite value{s}",
    "text": "{count} value{s} that {are} not a number",
    "complex": "complex numbers",
    "dates": "dates or times",
    "objects": "values that are not numbers",
    "large": "{count} integer{s} beyond 2^53, where numbers stop being exact",
    "constant": "the same value in every {noun}",
    "duplicate": "a name that {count} columns share",
    "unnamed": "no name",
    "rows": "only {count} {noun}{s}",
    "empty": "no columns",
    "bounds": "{count} value{s} outside the bounds",
    "fraction": "{count} value{s} that {are} not whole, unlike the data the model was fitted on",
    "positive": "{count} column{s} of positive numbers, which samples may leave",
    "classes": "{count} different values, too many for classes",
    "wordless": "{count} text{s} without a letter, a digit or an emoji",
}


NOT_NUMBERS = {  # by NumPy's kind of type: which issue that is, and what to do
    "c": ("complex", "split real and imaginary parts"),
    "m": ("dates", "turn them into numbers, or drop it"),
    "M": ("dates", "turn them into numbers, or drop it"),
}


class DataIssue(NamedTuple):
    """Something wrong with the data, or if not ``fatal``, something to know."""

    column: str | None  # None for the data as a whole
    kind: str  # a key of `PHRASES`
    count: int  # type: ignore[assignment]  # of values, rows or columns; hides tuple.count
    rows: tuple[int, ...]  # the first few affected, counted from 1 without the header
    remedy: str
    fatal: bool = True  # whether it keeps a model from being fitted
    noun: str = "row"  # what a row is called

    def __str__(self) -> str:
        column = None if self.column is None else printable_text(self.column)
        where = "the data have" if column is None else f"column '{column}' has"
        s, are = ("", "is") if self.count == 1 else ("s", "are")
        what = PHRASES[self.kind].format(count=self.count, s=s, are=are, noun=self.noun)
        listed = ", ".join(map(str, self.rows)) + (", ..." if self.count > len(self.rows) else "")
        rows = f" ({self.noun}{'s' if self.count > 1 else ''} {listed})" if self.rows else ""
        return f"{where} {what}{rows}; {self.remedy}"


def datum_noun(shape: tuple[int, ...]) -> str:
    return "image" if len(shape) in (2, 3) else "row"


def data_issues(data: Columns) -> list[DataIssue]:
    found = list(_dataset_issues(data))
    for cells in data.cells:
        found += list(number_issues(cells)) or list(_constant_issues(cells))
    return found


def raise_fatal_issues(data: Columns, found: list[DataIssue]) -> None:
    fatal = [issue for issue in found if issue.fatal]
    if fatal:
        s = "" if len(fatal) == 2 else "s"
        more = f" (and {len(fatal) - 1} more problem{s})" if len(fatal) > 1 else ""
        raise DataError(f"{data.name}: {fatal[0]}{more}")


def mask_issues(cells: Column, kind: str, mask: np.ndarray, remedy: str) -> Iterator[DataIssue]:
    rows = np.flatnonzero(any_per_row(mask))
    if len(rows):
        first = tuple(int(r) + 1 for r in rows[:5])
        yield DataIssue(_column_title(cells), kind, len(rows), first, remedy)


def _column_title(cells: Column) -> str | None:
    return None if cells.values.ndim > 1 else str(cells.name)


def _dataset_issues(data: Columns) -> Iterator[DataIssue]:
    if not data.cells or 0 in data.shape:
        yield DataIssue(None, "empty", 0, (), "give at least one column of numbers")
    elif data.rows < FEW_ROWS:
        fatal = data.rows < 2
        remedy = "give at least two" if fatal else f"expect little of fewer than {FEW_ROWS}"
        yield DataIssue(None, "rows", data.rows, (), remedy, fatal)
    for name, count in Counter(str(c.name) for c in data.cells).items():
        if not name.strip():
            yield DataIssue(name, "unnamed", count, (), "name it in the header")
        elif count > 1:
            yield DataIssue(name, "duplicate", count, (), "rename all but one")


def number_issues(cells: Column) -> Iterator[DataIssue]:
    kind, values = cells.values.dtype.kind, cells.values
    if kind in "OUS":
        yield from _text_issues(cells)
        return
    if kind not in "biuf":
        name, remedy = NOT_NUMBERS.get(kind, ("objects", "give an array of numbers"))
        yield DataIssue(_column_title(cells), name, len(values), (), remedy)
        return
    missing = cells.missing | _rows_where(np.isnan, values) if kind == "f" else cells.missing
    yield from mask_issues(cells, "missing", missing, "remove or impute them")
    if kind == "f":
        infinite = _rows_where(np.isinf, values)
        yield from mask_issues(cells, "infinite", infinite, "remove or replace them")
    if kind in "iu" and values.dtype.itemsize == 8:
        low = -EXACT if kind == "i" else 0
        beyond = _rows_where(lambda v: (v > EXACT) | (v < low), values)
        yield from mask_issues(cells, "large", beyond, "subtract an offset, or drop it")


def _text_issues(cells: Column) -> Iterator[DataIssue]:
    if cells.values.ndim > 1:
        yield DataIssue(None, "objects", len(cells.values), (), "give an array of numbers")
        return
    yield from mask_issues(cells, "missing", cells.missing, "remove or impute them")
    mask = np.array([not _parses_as_number(v) for v in cells.values], bool) & ~cells.missing
    name = printable_text(cells.name)
    remedy = f"drop it, encode it, or learn the rest given it: --condition {name!r}"
    if mask.any() and all(_parses_as_number(str(v).replace(",", ".")) for v in cells.values[mask]):
        remedy = "write decimal points instead of commas"
    yield from mask_issues(cells, "text", mask, remedy)
    if not mask.any() and not cells.missing.all():
        yield DataIssue(str(cells.name), "objects", len(mask), (), "convert the column to numbers")


def _constant_issues(cells: Column) -> Iterator[DataIssue]:
    values = cells.values
    numeric = values.dtype.kind in "biuf" and len(values) > 1 and values.size > 0
    if numeric and not cells.missing.any() and values.min() == values.max():
        remedy = "drop it" if values.ndim == 1 else "give data that vary"
        yield DataIssue(_column_title(cells), "constant", len(values), (), remedy)


def positivity_issues(data: Columns) -> Iterator[DataIssue]:
    named = [
        printable_text(c.name) for c in data.cells
        if c.values.ndim == 1 and c.values.dtype.kind == "f" and len(c.values)
        and not c.missing.any() and c.values.min() > 0
    ]  # fmt: skip
    if named and len(data.shape) == 1 and data.kind in TABLES:
        few = " ".join(f"--bounds '{name}=0:'" for name in named[:2])
        more = " ..." if len(named) > 2 else ""
        remedy = f"to keep them positive fit with {few}{more}"
        yield DataIssue(None, "positive", len(named), (), remedy, fatal=False)


def _rows_where(test: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    if values.size <= memmap.PASS:
        return any_per_row(test(values))
    return memmap.map_rows(values, lambda part: any_per_row(test(part)))


def _parses_as_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def is_whole(values: np.ndarray) -> bool:
    if values.dtype.kind != "f":
        return True
    largest = np.float64(EXACT)
    return not _rows_where(lambda v: (v != np.rint(v)) | (np.abs(v) >= largest), values).any()


def value_issues(column: ColumnSchema, cells: Column) -> Iterator[DataIssue]:
    if found := list(number_issues(cells)):
        yield from found
        return
    if column.integer and (values := cells.values).dtype.kind == "f":
        yield from mask_issues(cells, "fraction", values != np.rint(values), "round or remove them")
    yield from bounds_issues(column, cells)


def bounds_issues(column: ColumnSchema, cells: Column) -> Iterator[DataIssue]:
    low, high = column.bounds
    outside = np.zeros(cells.values.shape, bool)
    if low is not None:
        outside |= cells.values < low if column.integer else cells.values <= low
    if high is not None:
        outside |= cells.values > high if column.integer else cells.values >= high
    yield from mask_issues(cells, "bounds", outside, "widen the bounds, or remove them")
