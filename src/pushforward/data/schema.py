"""What raw data look like, so that samples can be given back in their likeness.

A schema remembers the kind of container, the shape of one row, each column's name, type and
range, and how a condition ``y`` becomes the vector ``c`` whose first entry is 1. It is plain
JSON on disk, of which every key must be known, present and of its declared type.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from ..errors import DataError, NumericalError, UsageError
from ..formatting import join_names, printable_text
from .columns import KINDS, TABLES, Bound, Column, Columns, ColumnSchema, build_table, restore_names
from .conditions import ConditionSchema
from .validation import datum_noun, is_whole, value_issues

if TYPE_CHECKING:
    from ..model import Event

FEW_LEVELS = 32  # images with fewer levels from 0 on would look black
LEVELS = 256


@dataclass(frozen=True)
class Schema:
    """The likeness of raw data."""

    kind: str  # "numpy", "torch", "pandas", "polars", or "table" for CSV, Parquet and Arrow
    dtype: str  # the type of an array, "" for tables
    shape: tuple[int, ...]  # of one row as the user has it; () for a one-dimensional array
    columns: tuple[ColumnSchema, ...]  # one entry for an array of higher rank
    levels: int = 0  # how many values all entries can take: integers in one range, at most 256
    low: int = 0  # the smallest of these values
    condition: ConditionSchema | None = None

    @property
    def event(self) -> tuple[int, ...]:
        return self.shape or (1,)

    @property
    def size(self) -> tuple[int, ...] | None:
        """What the images of a folder have to become: height, width, and 1 or 3 for colours."""
        if len(self.shape) == 2:
            return *self.shape, 1
        return self.shape if len(self.shape) == 3 and self.shape[-1] == 3 else None

    @property
    def white(self) -> int:
        """The level that an image shows as white: the highest where there are few."""
        top = self.low + self.levels - 1
        return top if self.low >= 0 and 0 < top < FEW_LEVELS else 255

    @property
    def noun(self) -> str:
        return datum_noun(self.shape)

    def event_of(self, size: int) -> "Event":
        from ..model import Event  # with torch, which reading does without

        tokens, spelled = (0, 0), False
        if self.condition is not None:
            tokens, spelled = self.condition.tokens, self.condition.spelled
        return Event(self.event, self.condition_length, self.levels, size, tokens, spelled)

    @property
    def names(self) -> list[str]:
        return [str(c.name) for c in self.columns]

    @property
    def condition_length(self) -> int:
        return 0 if self.condition is None else 1 + self.condition.length

    @property
    def known_names(self) -> set[str]:
        return {*self.names, str(self.condition and self.condition.column)}

    def encode(self, y: Any, n: int | None = None) -> np.ndarray:
        """Turn raw conditions into vectors, ``(n, condition_length)``, whose first entry is 1.

        Arguments:
            y: One condition for each row, or one for all; None gives zeros: nothing is known.
            n: The number of rows; needed for None, and to repeat a single condition.

        Raises:
            DataError: If a class is unknown, or the number of conditions is not n.
            UsageError: If the model was fitted without conditions.
        """
        if y is None:
            return np.zeros((n or 0, self.condition_length))
        if self.condition is None:
            raise UsageError("the model was fitted without a condition; fit it with one")
        rows = self.condition.encode(y)
        if n is not None and len(rows) == 1:
            rows = np.repeat(rows, n, axis=0)
        if n is not None and len(rows) != n:
            raise DataError(f"{len(rows)} conditions for {n} rows; give one for each, or one")
        return np.concatenate([np.ones((len(rows), 1), rows.dtype), rows], axis=1)

    def restore(self, x: np.ndarray, c: np.ndarray | None = None, captions: Any = None) -> Any:
        """Give numbers of shape ``(n, *event)`` back as the kind of data that was fitted.

        Arguments:
            x: The numbers; a NumericalError if they are not finite.
            c: The condition vectors; a table whose column they came from gets it back.
            captions: What they encode, which cannot be read from vectors.
        """
        if x.shape[1:] != self.event:
            raise DataError(f"data of shape {x.shape[1:]} where the schema says {self.event}")
        if not np.isfinite(x).all():
            raise NumericalError("some samples are not finite; train longer or at a lower rate")
        if len(self.shape) > 1:
            return self._restore_array(self.columns[0].clip_and_round(x))
        values = [c.clip_and_round(x[:, j]) for j, c in enumerate(self.columns)]
        if self.kind in TABLES:
            columns = [(k.name, k.dtype, v) for k, v in zip(self.columns, values, strict=True)]
            condition = self.condition
            if condition is not None and c is not None and condition.place >= 0:
                column = condition.restore(c, captions)
                columns.insert(condition.place, (condition.column or "", condition.dtype, column))
            return build_table(self.kind, columns)
        return self._restore_array(np.stack(values, axis=1))

    def condition_columns(
        self, c: np.ndarray | None, captions: Any = None
    ) -> dict[str, np.ndarray]:
        condition = self.condition
        if condition is None or c is None:
            return {}
        return {condition.storage_name: condition.restore(c, captions)}

    def _restore_array(self, x: np.ndarray) -> Any:
        x = x.reshape(len(x), *self.shape)
        if self.kind == "numpy":
            return x.astype(self.dtype)
        import torch

        return torch.from_numpy(x).to(getattr(torch, self.dtype))

    def align_columns(self, data: Columns) -> np.ndarray:
        if self.kind in TABLES and data.kind in TABLES:
            cells = self._match_columns(data)
        else:
            given, shape = data.shape or (1,), self.event
            if given != shape:
                raise DataError(
                    f"{data.name}: one row has shape {given}; the model was fitted on {shape}"
                )
            cells = data.cells
        if not data.rows:
            raise DataError(f"{data.name}: has no {self.noun}s")
        for column, cell in zip(self.columns, cells, strict=True):
            for issue in value_issues(column, cell):
                raise DataError(f"{data.name}: {issue._replace(noun=self.noun)}")
        return Columns(data.kind, data.name, self.event, tuple(cells)).stack()

    def _match_columns(self, data: Columns) -> tuple[Column, ...]:
        have = {str(c.name): c for c in restore_names(data, self.known_names).cells}
        if self.condition is not None and self.condition.column not in self.names:
            have.pop(str(self.condition.column), None)
        lacking = [n for n in self.names if n not in have]
        unknown = [n for n in have if n not in self.names]
        if lacking or unknown:
            what = f"lacks the columns {join_names(lacking)}" if lacking else ""
            more = f"has the unknown columns {join_names(unknown)}" if unknown else ""
            raise DataError(f"{data.name}: {what}{' and ' if what and more else ''}{more}")
        if len(data.cells) > len(set(data.names)):
            raise DataError(f"{data.name}: some columns share a name; rename all but one")
        return tuple(have[n] for n in self.names)

    def to_json(self) -> dict[str, Any]:
        return to_plain_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "Schema":
        """The inverse of `to_json`; DataError if a key or the kind of a value is wrong."""
        if isinstance(data, dict) and isinstance(known := data.get("condition"), dict):
            data = data | {"condition": {"text": None} | known}  # runs from before there was text
        schema = parse_typed_json(cls, data, "schema")
        if schema.kind not in KINDS or not schema.columns or min(schema.event) < 1:
            raise DataError("schema: describes no data that can be restored")
        if len(schema.columns) != (1 if len(schema.shape) > 1 else schema.event[0]):
            raise DataError("schema: the columns do not match the shape")
        return schema


def describe_columns(data: Columns, bounds: Mapping[str, Sequence[int | Bound]]) -> Schema:
    names = data.names
    for name, ends in bounds.items():
        shown = printable_text(name)
        if name not in names:
            raise UsageError(f"bounds for {shown!r}, but the columns are {join_names(names)}")
        low, high = ends if len(ends) == 2 else (0.0, 0.0)
        if not (-np.inf if low is None else low) < (np.inf if high is None else high):
            raise UsageError(f"the bounds of {shown!r} must be (low, high) with low < high")
    columns = tuple(_describe_column(c, bounds.get(str(c.name), (None, None))) for c in data.cells)
    levels, low = _infer_levels(columns, pooled=data.kind not in TABLES)
    return Schema(data.kind, data.dtype, data.shape, columns, levels, low)


def _describe_column(cells: Column, bounds: Sequence[int | Bound]) -> ColumnSchema:
    lower, upper = (None if b is None or np.isinf(b) else float(b) for b in bounds)
    low, high = float(cells.values.min()), float(cells.values.max())
    return ColumnSchema(cells.name, cells.dtype, is_whole(cells.values), low, high, (lower, upper))


def _infer_levels(columns: tuple[ColumnSchema, ...], *, pooled: bool) -> tuple[int, int]:
    """How many values all entries can take, and the smallest; 0 where they share no range.

    The entries of an array are of one kind; the columns of a table must begin at the same value.
    """
    low, high = min(c.low for c in columns), max(c.high for c in columns)
    shared = pooled or len({c.low for c in columns}) == 1
    if not all(c.integer for c in columns) or not shared or high - low >= LEVELS:
        return 0, 0
    return int(high - low) + 1, int(low)


def to_plain_json(value: Any) -> Any:
    """A dataclass as JSON holds it: tuples become lists, floats are written exactly."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {k: to_plain_json(v) for k, v in value.items()}
    return [to_plain_json(v) for v in value] if isinstance(value, list | tuple) else value


def parse_typed_json(hint: Any, data: Any, where: str) -> Any:
    """Build what a type annotation asks for from parsed JSON; a DataError names the place."""
    if is_dataclass(hint):
        return _parse_dataclass(hint, data, where)
    if get_origin(hint) in (Union, UnionType):
        return _parse_union(get_args(hint), data, where)
    if get_origin(hint) is tuple:
        return _parse_tuple(get_args(hint), data, where)
    if hint is float and type(data) in (int, float) and math.isfinite(data):
        return float(data)
    if hint is not float and type(data) is hint:
        return data
    expected = getattr(hint, "__name__", hint)
    raise DataError(f"{where}: expected {expected}, got {printable_text(data, 40)!r}")


def _parse_dataclass(hint: Any, data: Any, where: str) -> Any:
    names = [f.name for f in fields(hint)]
    if not isinstance(data, dict):
        raise DataError(f"{where}: expected an object with {printable_text(', '.join(names), 150)}")
    for key in [*data, *names]:
        if (key in names) != (key in data):
            problem = "lacks" if key in names else "unknown"
            raise DataError(f"{where}: {problem} key {printable_text(key)!r}")
    hints = get_type_hints(hint)
    return hint(**{n: parse_typed_json(hints[n], data[n], f"{where}.{n}") for n in names})


def _parse_union(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and NoneType in options:
        return None
    rest = [o for o in options if o is not NoneType]
    exact = [o for o in rest if o is type(data)]
    return parse_typed_json((exact or rest)[0], data, where)


def _parse_tuple(items: tuple[Any, ...], data: Any, where: str) -> Any:
    if not isinstance(data, list):
        raise DataError(f"{where}: expected a list, got {printable_text(data, 40)!r}")
    if items[-1] is Ellipsis:
        items = items[:1] * len(data)
    if len(items) != len(data):
        raise DataError(f"{where}: expected {len(items)} entries, got {len(data)}")
    return tuple(
        parse_typed_json(i, d, f"{where}[{j}]") for j, (i, d) in enumerate(zip(items, data))
    )
