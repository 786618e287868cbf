"""What can be wrong with data, found all at once and said with its rows and its remedy."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..formatting import printable_text
from .columns import TABLES, Column, Columns, any_per_row
from .memmap import map_rows

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
    "wordless": "{count} text{s} without a letter, a digit or an emoji, which say{verb} nothing",
}


class DataIssue(NamedTuple):
    """Something wrong with the data.

    Arguments:
        column: The column's name, or None for the data as a whole.
        kind: A key of `PHRASES`.
        count: How many values, rows or columns are affected.
        rows: The first few affected rows, counted from 1 without the header.
        remedy: What to do.
        fatal: Whether it keeps a model from being fitted.
        noun: What a datum is called.
    """

    column: str | None
    kind: str
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    rows: tuple[int, ...]
    remedy: str
    fatal: bool = True
    noun: str = "row"

    def __str__(self) -> str:
        """One line without the name of the source."""
        where = (
            "the data have"
            if self.column is None
            else f"column '{printable_text(self.column)}' has"
        )
        s, are, verb = ("", "is", "s") if self.count == 1 else ("s", "are", "")
        words = {"s": s, "are": are, "verb": verb, "noun": self.noun}
        what = PHRASES[self.kind].format(count=self.count, **words)
        listed = ", ".join(map(str, self.rows)) + (", ..." if self.count > len(self.rows) else "")
        rows = f" ({self.noun}{'s' if self.count > 1 else ''} {listed})" if self.rows else ""
        return f"{where} {what}{rows}; {self.remedy}"


def datum_noun(shape: tuple[int, ...]) -> str:
    """What messages call a datum of a shape."""
    return "picture" if len(shape) in (2, 3) else "row"


def mask_issues(cells: Column, kind: str, mask: np.ndarray, remedy: str) -> Iterator[DataIssue]:
    """One problem if any row of a mask is marked."""
    rows = np.flatnonzero(any_per_row(mask))
    if len(rows):
        first = tuple(int(r) + 1 for r in rows[:5])
        yield DataIssue(column_title(cells), kind, len(rows), first, remedy)


def column_title(cells: Column) -> str | None:
    """The name of a column for a message; an array of higher rank has none."""
    return None if cells.values.ndim > 1 else str(cells.name)


def dataset_issues(raw: Columns) -> Iterator[DataIssue]:
    """Problems of the data as a whole, and of the names of its columns."""
    if not raw.cells or 0 in raw.shape:
        yield DataIssue(None, "empty", 0, (), "give at least one column of numbers")
    elif raw.rows < FEW_ROWS:
        fatal = raw.rows < 2
        remedy = "give at least two" if fatal else f"expect little of fewer than {FEW_ROWS}"
        yield DataIssue(None, "rows", raw.rows, (), remedy, fatal)
    for name, count in Counter(str(c.name) for c in raw.cells).items():
        if not name.strip():
            yield DataIssue(name, "unnamed", count, (), "name it in the header")
        elif count > 1:
            yield DataIssue(name, "duplicate", count, (), "rename all but one")


def number_issues(cells: Column) -> Iterator[DataIssue]:
    """Why the values of a column cannot be used as numbers, if so."""
    kind, values = cells.values.dtype.kind, cells.values
    if kind in "OUS":
        yield from text_issues(cells)
    elif kind == "c":
        yield DataIssue(
            column_title(cells), "complex", len(values), (), "split real and imaginary parts"
        )
    elif kind in "mM":
        yield DataIssue(
            column_title(cells), "dates", len(values), (), "turn them into numbers, or drop it"
        )
    elif kind not in "biuf":
        yield DataIssue(column_title(cells), "objects", len(values), (), "give an array of numbers")
    else:
        yield from mask_issues(
            cells, "missing", nan_rows(values) | cells.missing, "remove or fill them"
        )
        if kind == "f":
            infinite = map_rows(values, lambda v: any_per_row(np.isinf(v)))
            yield from mask_issues(cells, "infinite", infinite, "remove or replace them")
        if kind in "iu" and values.dtype.itemsize == 8:
            beyond = map_rows(
                values, lambda v: any_per_row((v > EXACT) | ((v < -EXACT) & (kind == "i")))
            )
            yield from mask_issues(cells, "large", beyond, "subtract an offset, or drop it")


def text_issues(cells: Column) -> Iterator[DataIssue]:
    """Which cells of a column of objects are no numbers."""
    if cells.values.ndim > 1:
        yield DataIssue(
            column_title(cells), "objects", len(cells.values), (), "give an array of numbers"
        )
        return
    yield from mask_issues(cells, "missing", cells.missing, "remove or fill them")
    mask = np.array([not parses_as_number(v) for v in cells.values], bool) & ~cells.missing
    remedy = f"drop it, encode it, or learn the rest given it: --condition {printable_text(cells.name)!r}"
    if mask.any() and all(parses_as_number(str(v).replace(",", ".")) for v in cells.values[mask]):
        remedy = "write decimal points instead of commas"
    yield from mask_issues(cells, "text", mask, remedy)
    if not mask.any() and not cells.missing.all():
        yield DataIssue(
            column_title(cells), "objects", len(mask), (), "convert the column to numbers"
        )


def constant_issues(cells: Column) -> Iterator[DataIssue]:
    """Whether every value of a column of finite numbers is the same."""
    values = cells.values
    numeric = values.dtype.kind in "biuf" and len(values) > 1 and values.size > 0
    if numeric and not cells.missing.any() and values.min() == values.max():
        remedy = "drop it" if values.ndim == 1 else "give data that vary"
        yield DataIssue(column_title(cells), "constant", len(values), (), remedy)


def positivity_issues(raw: Columns) -> Iterator[DataIssue]:
    """Columns of a table that look as if they could not be negative."""
    named = [
        printable_text(c.name) for c in raw.cells
        if c.values.ndim == 1 and c.values.dtype.kind == "f" and len(c.values)
        and not c.missing.any() and c.values.min() > 0
    ]  # fmt: skip
    if named and len(raw.shape) == 1 and raw.kind in TABLES:
        few = " ".join(f"--bounds '{name}=0:'" for name in named[:2])
        more = " ..." if len(named) > 2 else ""
        remedy = f"to keep them positive fit with {few}{more}"
        yield DataIssue(None, "positive", len(named), (), remedy, fatal=False)


def nan_rows(values: np.ndarray) -> np.ndarray:
    """Rows with a value that is not a number."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), bool)
    return map_rows(values, lambda v: any_per_row(np.isnan(v)))


def parses_as_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True
