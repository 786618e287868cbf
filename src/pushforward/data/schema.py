"""What raw data look like, so that samples can be given back in their likeness.

A schema remembers the kind of container, the shape of one datum, each column's name, type and
range, and how a condition ``y`` becomes the vector ``c`` whose first entry is 1. It is plain
JSON on disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError, NumericalError, UsageError
from ..formatting import join_names
from .columns import KINDS, TABLES, Column, Columns, any_per_row, restore_names
from .conditions import ConditionSchema
from .frames import build_table
from .json_records import parse_typed_json, to_plain_json
from .memmap import map_rows
from .open import open_source
from .validation import EXACT, DataIssue, datum_noun, mask_issues, number_issues

Bound = float | None
FEW_LEVELS = 32  # pictures with fewer levels from 0 on would look black
PRECISION = {
    "float16": "f2", "Float16": "f2", "halffloat": "f2",
    "float32": "f4", "Float32": "f4", "float": "f4",
}  # fmt: skip


@dataclass(frozen=True)
class ColumnSchema:
    """One column, or all entries of an array of higher rank.

    Arguments:
        name: Its name, or its position.
        dtype: Its type as its own library spells it.
        integer: Whether all its values are whole.
        low: The smallest value observed.
        high: The largest value observed.
        bounds: The open interval that the user declared, closed for integers.
    """

    name: str | int
    dtype: str
    integer: bool
    low: float
    high: float
    bounds: tuple[Bound, Bound] = (None, None)

    def settle(self, values: np.ndarray) -> np.ndarray:
        """Whole numbers within the observed range, or numbers within the bounds and the type."""
        if self.integer:
            return np.clip(np.rint(values), self.low, self.high)
        precision = np.dtype(PRECISION.get(self.dtype, "f8")).type
        low, high = np.finfo(precision).min, np.finfo(precision).max
        if self.bounds[0] is not None:
            low = np.nextafter(precision(self.bounds[0]), high)
        if self.bounds[1] is not None:
            high = np.nextafter(precision(self.bounds[1]), low)
        return np.clip(values, low, high).astype(precision).clip(low, high)


@dataclass(frozen=True)
class Schema:
    """The likeness of raw data.

    Arguments:
        kind: "numpy", "torch", "pandas", "polars", or "table" for CSV, Parquet and Arrow.
        dtype: The type of an array, "" for tables.
        shape: The shape of one datum as the user has it; () for a one-dimensional array.
        columns: Each column, or one entry for an array of higher rank.
        levels: The number of values that an entry can take when all are integers within one
            range of at most 256 values, otherwise 0.
        low: The smallest of these values.
        condition: How ``y`` is encoded, or None.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[ColumnSchema, ...]
    levels: int = 0
    low: int = 0
    condition: ConditionSchema | None = None

    @property
    def event(self) -> tuple[int, ...]:
        """The shape of one datum as a model sees it."""
        return self.shape or (1,)

    @property
    def size(self) -> tuple[int, ...] | None:
        """What the pictures of a folder have to become: height, width, and 1 or 3 for colours."""
        if len(self.shape) == 2:
            return *self.shape, 1
        return self.shape if len(self.shape) == 3 and self.shape[-1] == 3 else None

    @property
    def white(self) -> int:
        """The level that a picture shows as white: the highest where there are few."""
        top = self.low + self.levels - 1
        return top if self.low >= 0 and 0 < top < FEW_LEVELS else 255

    @property
    def noun(self) -> str:
        """What messages call a datum."""
        return datum_noun(self.shape)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [str(c.name) for c in self.columns]

    @property
    def condition_length(self) -> int:
        """The length of the condition vector, 0 for none."""
        return 0 if self.condition is None else 1 + self.condition.length

    @property
    def known(self) -> set[str]:
        """The names of the columns and of the condition."""
        return {*self.names, str(self.condition and self.condition.column)}

    def encode(self, y: Any, n: int | None = None) -> np.ndarray:
        """Turn raw conditions into vectors; None gives zeros, which say that nothing is known.

        Arguments:
            y: One condition for each datum, or a single one for all.
            n: The number of data; needed for None, and to repeat a single condition.

        Returns:
            Shape (n, condition_length); the first entry is 1.

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
            raise DataError(f"{len(rows)} conditions for {n} data; give one for each, or one")
        return np.concatenate([np.ones((len(rows), 1), rows.dtype), rows], axis=1)

    def restore(self, x: np.ndarray, c: np.ndarray | None = None, said: Any = None) -> Any:
        """Give numbers of shape ``(n, *event)`` back as the kind of data that was fitted.

        Arguments:
            x: The numbers.
            c: The condition vectors; a table whose column they came from gets it back.
            said: The captions that they encode, which vectors may not tell.

        Raises:
            NumericalError: If they are not finite.
        """
        if x.shape[1:] != self.event:
            raise DataError(f"data of shape {x.shape[1:]} where the schema says {self.event}")
        if not np.isfinite(x).all():
            raise NumericalError("some samples are not finite; train longer or at a lower rate")
        if len(self.shape) > 1:
            return self._array(self.columns[0].settle(x))
        settled = [c.settle(x[:, j]) for j, c in enumerate(self.columns)]
        if self.kind in TABLES:
            columns = [(k.name, k.dtype, v) for k, v in zip(self.columns, settled, strict=True)]
            if c is not None and (known := self.condition) is not None and known.place >= 0:
                column = known.decode(c) if said is None else np.asarray(said, object)
                columns.insert(known.place, (known.column or "", known.dtype, column))
            return build_table(self.kind, columns)
        return self._array(np.stack(settled, axis=1))

    def beside(self, c: np.ndarray | None, said: Any = None) -> dict[str, np.ndarray]:
        """The conditions of data as `write` takes them: their values by the name that it keeps.

        Arguments:
            c: The condition vectors, or None where nothing is known.
            said: The captions that they encode.
        """
        if (known := self.condition) is None or c is None:
            return {}
        return {known.kept_as: known.decode(c) if said is None else np.asarray(said, object)}

    def _array(self, x: np.ndarray) -> Any:
        x = x.reshape(len(x), *self.shape)
        if self.kind == "numpy":
            return x.astype(self.dtype)
        import torch

        return torch.from_numpy(x).to(getattr(torch, self.dtype))

    def validate(self, x: Any) -> np.ndarray:
        """Data to be scored as numbers of shape ``(n, *event)``, the columns in the schema's order.

        Raises:
            DataError: If they are not of the kind that was fitted.
        """
        return self.arrange(open_source(x))

    def arrange(self, data: Columns) -> np.ndarray:
        """`validate` for a source that has been read already."""
        if self.kind in TABLES and data.kind in TABLES:
            cells = self._by_name(data)
        else:
            given, shape = data.shape or (1,), self.event
            if given != shape:
                raise DataError(
                    f"{data.name}: one datum has shape {given}; the model was fitted on {shape}"
                )
            cells = data.cells
        if not data.rows:
            raise DataError(f"{data.name}: has no {self.noun}s")
        for column, cell in zip(self.columns, cells, strict=True):
            for problem in value_issues(column, cell):
                raise DataError(f"{data.name}: {problem._replace(noun=self.noun)}")
        return Columns(data.kind, data.name, self.event, tuple(cells)).stack()

    def _by_name(self, data: Columns) -> tuple[Column, ...]:
        have = {str(c.name): c for c in restore_names(data, self.known).cells}
        if self.condition is not None and self.condition.column not in self.names:
            have.pop(str(self.condition.column), None)
        lacking = [n for n in self.names if n not in have]
        unknown = [n for n in have if n not in self.names]
        if lacking or unknown:
            what = f"lacks the columns {join_names(lacking)}" if lacking else ""
            more = f"has the unknown columns {join_names(unknown)}" if unknown else ""
            raise DataError(f"{data.name}: {what}{' and ' if what and more else ''}{more}")
        if len(data.cells) > len(set(map(lambda c: str(c.name), data.cells))):
            raise DataError(f"{data.name}: some columns share a name; rename all but one")
        return tuple(have[n] for n in self.names)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text."""
        return to_plain_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "Schema":
        """The inverse of `to_json`.

        Raises:
            DataError: If a key is unknown or missing, or a value is not of its kind.
        """
        if isinstance(data, dict) and isinstance(known := data.get("condition"), dict):
            data = data | {"condition": {"text": None} | known}  # runs from before there was text
        schema = parse_typed_json(cls, data, "schema")
        if schema.kind not in KINDS or not schema.columns or min(schema.event) < 1:
            raise DataError("schema: describes no data that can be restored")
        if len(schema.columns) != (1 if len(schema.shape) > 1 else schema.event[0]):
            raise DataError("schema: the columns do not match the shape")
        return schema


def is_whole(values: np.ndarray) -> bool:
    """Whether all values are whole numbers small enough to be meant as such."""
    if values.dtype.kind != "f":
        return True
    return not map_rows(
        values, lambda v: any_per_row((v != np.rint(v)) | (np.abs(v) >= np.float64(EXACT)))
    ).any()


def value_issues(column: ColumnSchema, cells: Column) -> Iterator[DataIssue]:
    """Why values cannot belong to a column, if so."""
    found = list(number_issues(cells))
    yield from found
    if found:
        return
    if column.integer and cells.values.dtype.kind == "f":
        values = cells.values
        yield from mask_issues(cells, "fraction", values != np.rint(values), "round or remove them")
    yield from bounds_issues(column, cells)


def bounds_issues(column: ColumnSchema, cells: Column) -> Iterator[DataIssue]:
    """Values beyond the declared bounds; a bound itself is allowed for integers only."""
    low, high = column.bounds
    outside = np.zeros(cells.values.shape, bool)
    if low is not None:
        outside |= cells.values < low if column.integer else cells.values <= low
    if high is not None:
        outside |= cells.values > high if column.integer else cells.values >= high
    yield from mask_issues(cells, "bounds", outside, "widen the bounds, or remove them")
