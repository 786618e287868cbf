"""Raw data in: read a source, say everything that is wrong with it, describe it by a schema."""

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..formatting import join_names, printable_text
from . import image_folder, vocabulary
from .captions import BYTES, WORDS, fit_caption_encoding, truncate_captions
from .columns import (
    TABLES,
    Column,
    Columns,
    any_per_row,
    as_condition_array,
    is_missing,
    restore_names,
)
from .conditions import ConditionSchema, class_labels, to_python_scalar
from .open import open_source
from .schema import Bound, ColumnSchema, Schema, bounds_issues, is_whole
from .validation import (
    DataIssue,
    constant_issues,
    dataset_issues,
    datum_noun,
    mask_issues,
    number_issues,
    positivity_issues,
)

Bounds = Mapping[str, Sequence[int | Bound]]
FEW_CLASSES = 50  # whole numbers with more values than this are numbers, texts are captions
MANY_CLASSES = 1000
LEVELS = 256
PICTURES = image_folder.ENDINGS


@dataclass(frozen=True)
class Dataset:
    """Data ready for transforms.

    Arguments:
        x: Shape (n, *event), float64, or a type whose numbers float64 holds.
        y: Raw conditions, shape (n,) or (n, k), or None.
        schema: How to give samples back, and to encode ``y``.
    """

    x: np.ndarray
    y: np.ndarray | None
    schema: Schema


def read_dataset(
    source: Any,
    *,
    y: Any = None,
    condition: str | None = None,
    bounds: Bounds | None = None,
    size: tuple[int, ...] | None = None,
    text: str | None = None,
    lean: bool = False,
) -> Dataset:
    """Read data that a model is to be fitted on.

    Arguments:
        source: A built-in name, a .csv, .parquet, .npy or .npz file, a folder of pictures, an array
            or a frame.
        y: A condition for each datum.
        condition: The column to take as the condition instead; of a built-in set, "label".
        bounds: Open intervals that columns cannot leave, closed for whole numbers.
        size: Height and width that the pictures of a folder get.
        text: How captions are read: "words", "bytes", "minilm", or the folder of an encoder. By
            default many different texts that share their words are captions read by words, and
            others classes.
        lean: Keep arrays of any rank above 2, and what is large, in their own type (`Raw.lean`).

    Raises:
        DataError: If the data cannot be used; the message says where and what to do.
        UsageError: If ``condition`` or ``bounds`` names no column, or ``text`` no encoder.
        MissingFile: If the file does not exist.
        Unsafe: If reading the file could run code or exhaust the memory.
    """
    everything = open_resized(source, size)
    data, given = split_condition(everything, y, condition)
    raise_fatal_issues(data, collect_issues(data, given, text))
    schema = infer_schema(
        data, given, bounds or {}, condition_position(everything, condition), text
    )
    for column, cells in zip(schema.columns, data.cells, strict=True):
        raise_fatal_issues(data, list(bounds_issues(column, cells)))
    values = None if given is None else given.values
    return Dataset(data.lean() if lean else data.stack(), values, schema)


def open_resized(source: Any, size: tuple[int, ...] | None) -> Columns:
    """A source as columns, the pictures of a folder in one size.

    Raises:
        UsageError: If there is a size and the source is no folder.
    """
    if size is not None and not is_image_folder(source):
        raise UsageError("size is for the pictures of a folder, and the data are none: omit it")
    return open_source(source, size)


def read_with_schema(source: Any, schema: Schema, *, y: Any = None) -> Dataset:
    """Read data to be scored by a model that was fitted on data like ``schema``.

    The condition comes from ``y``, one for each datum or one for all, or from its column where the
    source has it: by its own name, or by that which writing keeps it by, as subfolders are classes
    of any name.

    Raises:
        DataError: If the data or the conditions are not of the kind that was fitted.
        UsageError: If ``y`` is given but the model was fitted without a condition.
    """
    data = restore_names(open_source(source, schema.size), schema.known)
    if is_image_folder(source) or is_image_file(source):
        data = rescale_levels(data, schema)
    name = None if schema.condition is None else condition_name(data, schema.condition)
    if y is not None:
        y = as_condition_array(y)
        schema.encode(y, data.rows)  # refuses conditions that do not fit
    elif name is not None and name not in schema.names:
        data, given = split_condition(data, None, name)
        raise_fatal_issues(data, [] if given is None else condition_issues(given))
        y = None if given is None else given.values
    return Dataset(schema.arrange(data), y, schema)


def condition_name(data: Columns, known: ConditionSchema) -> str | None:
    """What data call a condition, or None if they do not hold it."""
    if known.column in (*data.extra, *(str(c.name) for c in data.cells)):
        return known.column
    kept = data.extra.get(known.kept_as)
    return known.kept_as if kept is not None and known.takes(kept) else None


def rescale_levels(data: Columns, schema: Schema) -> Columns:
    """Pictures that were written with `Schema.white` as white, in the levels that were fitted."""
    x = data.cells[0].values
    if schema.white == 255 or x.dtype != np.uint8 or x.max(initial=0) <= schema.white:
        return data
    levels = np.rint(x * (schema.white / 255)).astype(np.uint8)
    return replace(data, cells=(data.cells[0]._replace(values=levels),))


def normalise_bounds(bounds: Bounds | None) -> dict[str, tuple[Bound, Bound]] | None:
    """Bounds as pairs of finite numbers, or None where an end is open.

    Raises:
        UsageError: If they are not pairs of numbers.
    """
    if bounds is None:
        return None
    try:
        return {
            str(k): (bound_or_none(low), bound_or_none(high)) for k, (low, high) in bounds.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError('bounds are pairs of numbers by column, {"age": (0, None)}') from error


def is_image_file(source: Any) -> bool:
    """Whether a source is the file of one picture."""
    known = isinstance(source, str | os.PathLike)
    return known and os.fspath(source).lower().endswith(PICTURES)


def is_image_folder(source: Any) -> bool:
    """Whether a source is a folder, which holds pictures."""
    return isinstance(source, str | os.PathLike) and os.path.isdir(source)


def parse_image_size(size: Any) -> tuple[int, int] | None:
    """The height and the width that pictures are to have, from a number for both or a pair.

    Raises:
        UsageError: If it is neither.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int | np.integer) else size
    if (
        not isinstance(pair, Sequence)
        or len(pair) != 2
        or any(isinstance(v, bool) or not isinstance(v, int | np.integer) or v < 1 for v in pair)
    ):
        raise UsageError(
            f"size is {printable_text(size)}; give pixels, 32, or height and width, (32, 48)"
        )
    return int(pair[0]), int(pair[1])


def bound_or_none(value: Any) -> Bound:
    """One end of an interval as a number; an infinite one is none."""
    value = None if value is None else float(value)
    return None if value is not None and np.isinf(value) else value


def find_issues(source: Any, condition: str | None = None) -> list[DataIssue]:
    """Everything that is wrong with the data at once, the fatal first.

    Raises:
        DataError, MissingFile, UsageError, Unsafe: If the source cannot be read at all.
    """
    data, given = split_condition(open_source(source), None, condition)
    found = [*collect_issues(data, given), *positivity_issues(data)]
    return sorted(found, key=lambda p: not p.fatal)


def list_columns(source: Any) -> list[dict[str, str]]:
    """What there is: each column's name and type, and the range of its numbers, as text."""
    listed = []
    for cells in open_source(source).cells:
        values = cells.values
        known = values[~cells.missing] if values.ndim == 1 else values
        numbers = known.dtype.kind in "biuf" and known.size
        between = f", {np.nanmin(known):g} to {np.nanmax(known):g}" if numbers else ""
        listed.append(
            {"column": printable_text(cells.name), "dtype": cells.dtype, "range": between}
        )
    return listed


def collect_issues(data: Columns, given: Column | None, text: str | None = None) -> list[DataIssue]:
    found = list(dataset_issues(data))
    for cells in data.cells:
        wrong = list(number_issues(cells))
        found += wrong or list(constant_issues(cells))
    found += [] if given is None else list(condition_issues(given, text))
    return [p._replace(noun=datum_noun(data.shape)) for p in found]


def raise_fatal_issues(data: Columns, found: list[DataIssue]) -> None:
    """Raise the first fatal problem and say how many more there are."""
    fatal = [p for p in found if p.fatal]
    if fatal:
        s = "" if len(fatal) == 2 else "s"
        more = f" (and {len(fatal) - 1} more problem{s})" if len(fatal) > 1 else ""
        raise DataError(f"{data.name}: {fatal[0]}{more}")


def split_condition(data: Columns, y: Any, condition: str | None) -> tuple[Columns, Column | None]:
    """Separate the condition from the data."""
    if y is not None and condition is not None:
        raise UsageError("give either y or condition, not both")
    if y is not None:
        return data, make_condition_column(data, "y", as_condition_array(y))
    if condition is None:
        return data, None
    if not isinstance(condition, str):
        raise UsageError(
            f"condition is {printable_text(condition)}; give the name of a column as text"
        )
    for cells in data.cells:
        if str(cells.name) == condition and len(data.shape) == 1:
            rest = tuple(c for c in data.cells if str(c.name) != condition)
            return replace(data, cells=rest, shape=(len(rest),), array=None), cells
    if condition in data.extra:
        values = data.extra[condition]  # "label" and "target" stand for the last name of the same
        name = [k for k, v in data.extra.items() if v is values][-1]
        return data, make_condition_column(data, name, np.asarray(values))
    known = [*dict.fromkeys(data.extra), *(c.name for c in data.cells if len(data.shape) == 1)]
    raise UsageError(
        f"{data.name}: no column is called {printable_text(condition)!r}; "
        + (f"choose from {join_names(known, 120)}" if known else "it has none")
    )


def make_condition_column(data: Columns, name: str, y: np.ndarray) -> Column:
    if y.ndim == 0 or len(y) != data.rows or y.ndim > 2 or 0 in y.shape[1:]:
        raise DataError(
            f"{data.name}: {data.rows} data but conditions of shape {y.shape}; give one for each"
        )
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    none = [is_missing(v) for v in y.flat] if y.dtype.kind == "O" else False
    missing = np.broadcast_to(np.asarray(none).reshape(y.shape if none else ()), y.shape)
    return Column(name, str(y.dtype), y, any_per_row(missing))


def condition_issues(given: Column, text: str | None = None) -> list[DataIssue]:
    """What is wrong with a condition, which may be text, read by an encoder or as it looks."""
    if given.values.dtype.kind not in "OUS" or given.values.ndim > 1:
        return list(number_issues(given))
    missing = list(mask_issues(given, "missing", given.missing, "remove or fill them"))
    if not all(isinstance(v, Hashable) for v in given.values.flat):
        remedy = "give one class or number for each datum"
        return [*missing, DataIssue(str(given.name), "objects", len(given.values), (), remedy)]
    count = len({str(v) for v in given.values})
    captioned = text in (WORDS, BYTES) or (text is None and bool(caption_vocabulary(given.values)))
    if not missing and captioned:
        wordless = np.array([not vocabulary.split_words(v) for v in given.values], bool)
        return list(mask_issues(given, "wordless", wordless, "say in words what there is to see"))
    if not missing and not text and count > MANY_CLASSES:
        remedy = "group them, or read them as captions with --text bytes (text='bytes')"
        return [DataIssue(str(given.name), "classes", count, (), remedy)]
    return missing


def condition_position(data: Columns, condition: str | None) -> int:
    """Where a table's samples carry the condition; -1 if they do not."""
    names = [str(c.name) for c in data.cells]
    if condition is None or data.kind not in TABLES:
        return -1
    return names.index(condition) if condition in names else len(names)


def infer_schema(
    data: Columns, given: Column | None, bounds: Bounds, place: int = -1, text: str | None = None
) -> Schema:
    """The schema of data without problems."""
    names = [str(c.name) for c in data.cells]
    for name, ends in bounds.items():
        if name not in names:
            raise UsageError(
                f"bounds for {printable_text(name)!r}, but the columns are {join_names(names)}"
            )
        low, high = ends if len(ends) == 2 else (0.0, 0.0)
        if not (-np.inf if low is None else low) < (np.inf if high is None else high):
            raise UsageError(
                f"the bounds of {printable_text(name)!r} must be (low, high) with low < high"
            )
    columns = tuple(infer_column(c, bounds.get(str(c.name), (None, None))) for c in data.cells)
    levels, low = infer_levels(columns, pooled=data.kind not in TABLES)
    condition = None
    if text is not None and given is None:
        raise UsageError(
            f"text={printable_text(text)} says how captions are read, and there is no condition"
        )
    if given is not None:
        found = infer_condition(given) if text is None else infer_captions(given, text)
        condition = replace(found, dtype=given.dtype, place=place)
    return Schema(data.kind, data.dtype, data.shape, columns, levels, low, condition)


def infer_column(cells: Column, bounds: Sequence[int | Bound]) -> ColumnSchema:
    lower, upper = (None if b is None or np.isinf(b) else float(b) for b in bounds)
    low, high = float(cells.values.min()), float(cells.values.max())
    return ColumnSchema(cells.name, cells.dtype, is_whole(cells.values), low, high, (lower, upper))


def infer_levels(columns: tuple[ColumnSchema, ...], *, pooled: bool) -> tuple[int, int]:
    """How many values all entries can take, and the smallest; 0 where they share no range.

    The entries of an array are of one kind; the columns of a table must begin at the same value.
    """
    low, high = min(c.low for c in columns), max(c.high for c in columns)
    shared = pooled or len({c.low for c in columns}) == 1
    if not all(c.integer for c in columns) or not shared or high - low >= LEVELS:
        return 0, 0
    return int(high - low) + 1, int(low)


def infer_condition(given: Column) -> ConditionSchema:
    """Text, truth values and few whole numbers are classes; the rest are captions or numbers."""
    values, column = given.values, str(given.name)
    if values.ndim == 1 and values.dtype.kind in "OUS" and (words := caption_vocabulary(values)):
        return ConditionSchema(column, words=words)
    if values.ndim == 1 and (values.dtype.kind in "OUSb" or is_whole(values)):
        distinct = set(zip(map(type, kept := [to_python_scalar(v) for v in values.tolist()]), kept))
        if values.dtype.kind in "OUSb" or len(distinct) <= FEW_CLASSES:
            return ConditionSchema(column, class_labels([v for _, v in distinct], column))
    numbers = values.reshape(len(values), -1).astype(np.float64)
    scale = numbers.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    return ConditionSchema(column, (), tuple(numbers.mean(axis=0).tolist()), tuple(scale.tolist()))


def infer_captions(given: Column, encoder: str) -> ConditionSchema:
    """Captions as an encoder reads them.

    Raises:
        UsageError: If they are no text, or there is no such encoder.
    """
    values, column = given.values, str(given.name)
    if values.ndim > 1 or not all(isinstance(v, str) for v in values.tolist()):
        raise UsageError(
            f"text={printable_text(encoder)} is for captions, and the condition {printable_text(column)!r} holds others"
        )
    words, text = fit_caption_encoding(truncate_captions(values.tolist()), encoder)
    return ConditionSchema(column, words=words, text=text)


def caption_vocabulary(values: np.ndarray) -> tuple[str, ...]:
    """The words of captions: of many different texts that share their words; else none."""
    distinct = {v for v in values.tolist() if isinstance(v, str)}
    if len(distinct) <= FEW_CLASSES:
        return ()
    words = vocabulary.build_vocabulary(truncate_captions(values.tolist()))
    return words if len(words) < len(distinct) else ()


def split_label_column(source: Any, labels: str | None) -> tuple[Any, np.ndarray | None]:
    """Data without a column of zeros and ones, and that column as truth values.

    Raises:
        UsageError: If there is no such column, or it holds other values.
        DataError: If a label is missing.
    """
    if labels is None:
        return source, None
    data, cells = split_condition(open_source(source), None, labels)
    raise_fatal_issues(data, [] if cells is None else condition_issues(cells))
    if cells is None or not set(cells.values.ravel().tolist()) <= {0, 1}:
        raise UsageError(f"{labels}: labels are 0 for ordinary data and 1 for anomalies")
    return data, cells.values.astype(bool)
