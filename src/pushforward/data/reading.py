"""Read a source of data for a model: open, take the condition out, validate, describe.

A source is a built-in name, a path, an array, a tensor or a frame. Libraries that are not loaded
are never imported: a frame is recognised by the module of its class.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingFile, UsageError
from ..formatting import join_names, printable_text
from . import columns, conditions, image_folder, table_files, validation
from .builtin import datasets
from .columns import Bound, Column, Columns, as_condition_array, restore_names
from .schema import Schema, describe_columns
from .validation import DataIssue

Bounds = Mapping[str, Sequence[int | Bound]]


@dataclass(frozen=True)
class Dataset:
    x: np.ndarray  # (n, *event), float64, or a type whose numbers float64 holds
    y: np.ndarray | None  # raw conditions, (n,) or (n, k)
    schema: Schema  # how to give samples back, and to encode ``y``


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
    """Read data to fit a model on: a built-in name, a file, a folder, an array or a frame.

    Arguments:
        y: A condition for each row.
        condition: The column to take as the condition instead; of a built-in set, "label".
        bounds: Open intervals that columns cannot leave, closed for whole numbers.
        size: Height and width that the images of a folder get.
        text: How captions are read: "words", "bytes", "minilm", or the folder of an encoder. By
            default many different texts that share their words are captions read by words, and
            others classes.
        lean: Keep arrays of any rank above 2, and what is large, in their own type
            (`Columns.stack_compact`).
    """
    opened = open_resized(source, size)
    data, given = columns.split_condition(opened, y, condition)
    validation.raise_fatal_issues(data, _collect_issues(data, given, text))
    schema = describe_columns(data, bounds or {})
    for column, values in zip(schema.columns, data.cells, strict=True):
        validation.raise_fatal_issues(data, list(validation.bounds_issues(column, values)))
    if given is not None:
        place = columns.condition_position(opened, condition)
        schema = replace(schema, condition=conditions.describe_condition(given, text, place))
    elif text is not None:
        reason = "says how captions are read, and there is no condition"
        raise UsageError(f"text={printable_text(text)} {reason}")
    x = data.stack_compact() if lean else data.stack()
    return Dataset(x, None if given is None else given.values, schema)


def read_with_schema(source: Any, schema: Schema, *, y: Any = None) -> Dataset:
    """Read data to be scored by a model that was fitted on data like ``schema``.

    The condition comes from ``y``, one for each row or one for all, or from its column where the
    source has it: by its own name, or by that which writing keeps it by, as subfolders are classes
    of any name.
    """
    data = restore_names(open_source(source, schema.size), schema.known_names)
    if is_image_folder(source) or is_image_file(source):
        data = _rescale_levels(data, schema)
    name = None if schema.condition is None else schema.condition.column_in(data)
    if y is not None:
        y = as_condition_array(y)
        schema.encode(y, data.rows)  # refuses conditions that do not fit
    elif name is not None and name not in schema.names:
        data, y = _split_valid_column(data, name)
    return Dataset(schema.align_columns(data), y, schema)


def open_source(source: Any, size: tuple[int, ...] | None = None) -> Columns:
    if isinstance(source, Columns):
        return source
    if isinstance(source, str | os.PathLike):
        return _open_path(os.fspath(source), size)
    origin = {base.__module__.split(".")[0] for base in type(source).__mro__}
    kind = type(source).__name__
    if "torch" in origin:
        return columns.columns_from_tensor(source)
    if "pandas" in origin and kind == "DataFrame":
        return columns.columns_from_pandas(source)
    if "polars" in origin and kind == "DataFrame":
        return columns.columns_from_polars(source)
    if "pyarrow" in origin and kind == "Table":
        return columns.columns_from_arrow(source, "the table")
    if isinstance(source, np.ndarray | list | tuple):
        return columns.columns_from_array(source)
    raise DataError(
        f"{printable_text(kind)} is not data; give a file, an array, a tensor or a pandas or "
        "polars DataFrame"
    )


def _open_path(text: str, size: tuple[int, ...] | None = None) -> Columns:
    if text in datasets.names():
        return _columns_from_dataset(datasets.load(text))
    path = Path(text)
    if not path.suffix and not os.path.lexists(text):
        raise MissingFile(
            f"{printable_text(text)}: no such file, and no built-in data set of that name; "
            f"built in are {join_names(datasets.names(), 150)}"
        )
    if is_image_file(path) and path.is_file():
        return image_folder.read_image_file(path, size)
    if is_image_folder(path):
        return image_folder.read_image_folder(path, size)
    return table_files.read_data_file(path)


def open_resized(source: Any, size: tuple[int, ...] | None) -> Columns:
    if size is not None and not is_image_folder(source):
        raise UsageError("size is for the images of a folder, and the data are none: omit it")
    return open_source(source, size)


def _columns_from_dataset(data: datasets.BuiltinDataset) -> Columns:
    names = ("label", "target", str(data.label))
    extra = {} if data.y is None else dict.fromkeys(names, data.y)
    extra |= data.extra
    if data.columns is None:
        return columns.columns_from_array(data.x, data.name, extra=extra)
    from pyarrow import table

    named = dict(zip(data.columns, data.x.T, strict=True))
    return columns.columns_from_arrow(table(named), data.name, extra=extra)


def is_image_file(source: Any) -> bool:
    path = isinstance(source, str | os.PathLike)
    return path and os.fspath(source).lower().endswith(image_folder.ENDINGS)


def is_image_folder(source: Any) -> bool:
    return isinstance(source, str | os.PathLike) and os.path.isdir(source)


def parse_image_size(size: Any) -> tuple[int, int] | None:
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


def normalise_bounds(bounds: Bounds | None) -> dict[str, tuple[Bound, Bound]] | None:
    if bounds is None:
        return None
    try:
        pairs = [(str(name), low, high) for name, (low, high) in bounds.items()]
        return {name: (_bound_or_none(low), _bound_or_none(high)) for name, low, high in pairs}
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError('bounds are pairs of numbers by column, {"age": (0, None)}') from error


def _bound_or_none(value: Any) -> Bound:
    value = None if value is None else float(value)
    return None if value is not None and np.isinf(value) else value


def _rescale_levels(data: Columns, schema: Schema) -> Columns:
    x = data.cells[0].values
    if schema.white == 255 or x.dtype != np.uint8 or x.max(initial=0) <= schema.white:
        return data
    levels = np.rint(x * (schema.white / 255)).astype(np.uint8)
    return replace(data, cells=(data.cells[0]._replace(values=levels),))


def _collect_issues(
    data: Columns, given: Column | None, text: str | None = None
) -> list[DataIssue]:
    found = validation.data_issues(data)
    found += [] if given is None else conditions.condition_issues(given, text)
    return [issue._replace(noun=validation.datum_noun(data.shape)) for issue in found]


def find_issues(source: Any, condition: str | None = None) -> list[DataIssue]:
    """Everything that is wrong with the data at once, the fatal first."""
    data, given = columns.split_condition(open_source(source), None, condition)
    found = [*_collect_issues(data, given), *validation.positivity_issues(data)]
    return sorted(found, key=lambda issue: not issue.fatal)


def list_columns(data: Columns) -> list[dict[str, str]]:
    listed = []
    for cells in data.cells:
        known = cells.values[~cells.missing] if cells.values.ndim == 1 else cells.values
        numbers = known.dtype.kind in "biuf" and known.size
        limits = f", {np.nanmin(known):g} to {np.nanmax(known):g}" if numbers else ""
        name = printable_text(cells.name)
        listed.append({"column": name, "dtype": cells.dtype, "range": limits})
    return listed


def _split_valid_column(data: Columns, name: str) -> tuple[Columns, np.ndarray | None]:
    data, given = columns.split_condition(data, None, name)
    if given is None:
        return data, None
    validation.raise_fatal_issues(data, conditions.condition_issues(given))
    return data, given.values


def split_label_column(source: Any, labels: str | None) -> tuple[Any, np.ndarray | None]:
    if labels is None:
        return source, None
    data, values = _split_valid_column(open_source(source), labels)
    if values is None or not set(values.ravel().tolist()) <= {0, 1}:
        raise UsageError(f"{labels}: labels are 0 for ordinary data and 1 for anomalies")
    return data, values.astype(bool)
