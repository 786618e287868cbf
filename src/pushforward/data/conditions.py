"""Conditions: found in a source, described by a schema, as vectors and back.

The vector of a condition is one-hot for classes, standardised for numbers, and for captions what
`captions` makes of them. Its first entry, which `schema.Schema.encode` puts before, is 1.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..formatting import join_names, printable_text
from . import captions
from .captions import CaptionEncoding
from .columns import Column, Columns, as_condition_array
from .validation import DataIssue, is_whole, mask_issues, number_issues

Label = str | bool | int
FEW_CLASSES = 50  # whole numbers with more values than this are numbers, texts are captions
MANY_CLASSES = 1000
SEEN = 1000  # conditions that a model remembers
UNNAMED = (None, "y", "x", "file")


@dataclass(frozen=True)
class ConditionSchema:
    """How ``y`` becomes a vector."""

    column: str | None = None  # that it was taken from
    labels: tuple[Label, ...] = ()  # of classes, one-hot in the vector
    mean: tuple[float, ...] = ()  # of each number, by which it is standardised
    scale: tuple[float, ...] = ()  # the standard deviations
    dtype: str = ""  # the type of the column as its own library spells it
    place: int = -1  # among the columns of a table; -1 if samples do not carry it
    words: tuple[str, ...] = ()  # of captions (`captions.build_vocabulary`)
    text: CaptionEncoding | None = None  # captions beside their words, or in place of them

    @property
    def captioned(self) -> bool:
        return bool(self.words) or self.text is not None

    @property
    def storage_name(self) -> str:
        if self.labels:
            return "caption" if self.column == "caption" else "label"
        usual = "caption" if self.captioned else "y"
        return usual if self.column in UNNAMED else str(self.column)

    @property
    def expected_form(self) -> str:
        if self.labels:
            kind = f"one of {join_names(self.labels, 60)}"
        elif self.captioned:
            kind = "a caption"
        else:
            kind = f"{len(self.mean)} numbers" if len(self.mean) > 1 else "a number"
        return f"{printable_text(self.column or 'y', 40)!r}, {kind}"

    def column_in(self, data: Columns) -> str | None:
        if self.column in (*data.extra, *data.names):
            return self.column
        stored = data.extra.get(self.storage_name)
        return self.storage_name if stored is not None and self.accepts(stored) else None

    def accepts(self, values: np.ndarray) -> bool:
        if self.labels:
            return {str(to_python_scalar(v)) for v in values.flat} <= set(map(str, self.labels))
        return not self.captioned or all(isinstance(v, str) for v in values.flat)

    @property
    def length(self) -> int:
        vector = len(self.labels) or len(self.mean) or captions.vector_length(self.words, self.text)
        return vector + self.tokens[0] * self.tokens[1]

    @property
    def tokens(self) -> tuple[int, int]:
        """How many tokens end the vector, and their width."""
        return (0, 0) if self.text is None else (self.text.tokens, self.text.width)

    @property
    def spelled(self) -> bool:
        return self.text is not None and self.text.encoder == captions.BYTES

    def without_tokens(self) -> "ConditionSchema":
        if self.text is None or self.spelled:
            return replace(self, text=None)
        return replace(self, text=replace(self.text, tokens=0))

    def parse(self, word: str) -> Any:
        if self.labels or self.captioned:
            return word
        try:
            return [float(part) for part in word.split(",")]
        except ValueError as error:
            raise _not_numbers(word) from error

    def encode(self, y: Any) -> np.ndarray:
        """The entries after the first, shape (n, length); a single condition gives one row."""
        if self.captioned:
            texts = np.atleast_1d(as_condition_array(y)).ravel().tolist()
            return captions.encode_captions(texts, self.words, self.text)
        return self._encode_classes(y) if self.labels else self._encode_numbers(y)

    def decode(self, c: np.ndarray) -> np.ndarray:
        if self.labels:
            values = np.empty(len(c), object)
            values[:] = [self.labels[i] for i in c[:, 1:].argmax(1)]
            return np.array(values.tolist()) if len({type(v) for v in self.labels}) == 1 else values
        if self.words:
            return captions.decode_words(c[:, 1 : 1 + len(self.words)], self.words)
        if self.text is not None:
            return np.full(len(c), "", object)  # who asked for a caption keeps it
        values = c[:, 1:] * self.scale + self.mean
        digits = 14 - np.ceil(np.log10(np.abs(values).max(initial=1e-300))).astype(int)
        values = np.round(values, max(int(digits), 0))
        return values[:, 0] if len(self.mean) == 1 else values

    def restore(self, c: np.ndarray, texts: Any = None) -> np.ndarray:
        """`decode`, or the captions themselves where they are known: vectors cannot spell them."""
        return self.decode(c) if texts is None else np.asarray(texts, object)

    def _encode_classes(self, y: Any) -> np.ndarray:
        index = {f"'{label}": i for i, label in enumerate(self.labels)}  # inert in a CSV file
        index |= {str(b).lower(): i for i, b in enumerate(self.labels) if isinstance(b, bool)}
        index |= {str(label): i for i, label in enumerate(self.labels)}  # goes before the others
        keys = [str(to_python_scalar(v)) for v in np.atleast_1d(as_condition_array(y)).ravel()]
        unknown = sorted({k for k in keys if k not in index})
        if unknown:
            raise DataError(
                f"no class is called {printable_text(unknown[0], 40)!r}; "
                f"choose from {join_names(self.labels)}"
            )
        return np.eye(len(self.labels))[[index[k] for k in keys]]

    def _encode_numbers(self, y: Any) -> np.ndarray:
        try:
            values = np.asarray(as_condition_array(y), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise _not_numbers(y) from error
        k = len(self.mean)
        if values.size % k or (values.ndim > 1 and values.shape[-1] != k):
            raise DataError(f"a condition has {k} numbers; got an array of shape {values.shape}")
        if not np.isfinite(values).all():
            raise DataError("the condition holds values that are not finite; remove them")
        return (values.reshape(-1, k) - self.mean) / self.scale


def _not_numbers(y: Any) -> DataError:
    return DataError(f"the condition must be numbers, not {printable_text(y, 40)!r}")


def to_python_scalar(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _class_labels(distinct: list[Any], column: str) -> tuple[Label, ...]:
    """The labels in order; two may not be written alike, nor be equal, such as 1 and True."""
    labels = [v if isinstance(v, str | int) else str(v) for v in distinct]
    if min(len(set(labels)), len(set(map(str, labels)))) < len(labels):
        kinds = join_names(sorted({type(v).__name__ for v in labels}))
        where = printable_text(column)
        raise DataError(f"{where}: holds the same class as {kinds}; make all of one kind")
    return tuple(sorted(labels, key=lambda v: (str(type(v)), v)))


def condition_issues(given: Column, text: str | None = None) -> list[DataIssue]:
    if given.values.dtype.kind not in "OUS" or given.values.ndim > 1:
        return list(number_issues(given))
    missing = list(mask_issues(given, "missing", given.missing, "remove or impute them"))
    if not all(isinstance(v, Hashable) for v in given.values.flat):
        remedy = "give one class or number for each row"
        return [*missing, DataIssue(str(given.name), "objects", len(given.values), (), remedy)]
    count = len({str(v) for v in given.values})
    by_words = _caption_vocabulary(given.values) if text is None else text in captions.SPELLED
    if not missing and by_words:
        wordless = np.array([not captions.split_words(v) for v in given.values], bool)
        return list(mask_issues(given, "wordless", wordless, "describe the image in words"))
    if not missing and not text and count > MANY_CLASSES:
        remedy = "group them, or read them as captions with --text bytes (text='bytes')"
        return [DataIssue(str(given.name), "classes", count, (), remedy)]
    return missing


def describe_condition(given: Column, text: str | None = None, place: int = -1) -> ConditionSchema:
    """How a condition without issues is encoded; UsageError if ``text`` cannot read it."""
    found = _infer_condition(given) if text is None else _infer_captions(given, text)
    return replace(found, dtype=given.dtype, place=place)


def _infer_condition(given: Column) -> ConditionSchema:
    values, column = given.values, str(given.name)
    if values.ndim == 1 and values.dtype.kind in "OUS" and (words := _caption_vocabulary(values)):
        return ConditionSchema(column, words=words)
    if values.ndim == 1 and (values.dtype.kind in "OUSb" or is_whole(values)):
        distinct = set(zip(map(type, kept := [to_python_scalar(v) for v in values.tolist()]), kept))
        if values.dtype.kind in "OUSb" or len(distinct) <= FEW_CLASSES:
            return ConditionSchema(column, _class_labels([v for _, v in distinct], column))
    numbers = values.reshape(len(values), -1).astype(np.float64)
    scale = numbers.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    return ConditionSchema(column, (), tuple(numbers.mean(axis=0).tolist()), tuple(scale.tolist()))


def _infer_captions(given: Column, encoder: str) -> ConditionSchema:
    values, column = given.values, str(given.name)
    if values.ndim > 1 or not all(isinstance(v, str) for v in values.tolist()):
        raise UsageError(
            f"text={printable_text(encoder)} is for captions, and the condition "
            f"{printable_text(column)!r} holds others"
        )
    words, text = captions.fit_caption_encoding(values.tolist(), encoder)
    return ConditionSchema(column, words=words, text=text)


def _caption_vocabulary(values: np.ndarray) -> tuple[str, ...]:
    distinct = {v for v in values.tolist() if isinstance(v, str)}
    if len(distinct) <= FEW_CLASSES:
        return ()
    words = captions.build_vocabulary(values.tolist())
    return words if len(words) < len(distinct) else ()


def condition_frequencies(c: np.ndarray, most: int = SEEN) -> tuple[np.ndarray, np.ndarray]:
    rows, counts = np.unique(c, axis=0 if c.ndim > 1 else None, return_counts=True)
    return subsample_weighted(rows, counts / counts.sum(), most)


def subsample_weighted(
    rows: np.ndarray, weights: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    if len(rows) <= most:
        return rows, weights
    at = np.searchsorted(np.cumsum(weights), (np.arange(most) + 0.5) / most)
    return rows[np.minimum(at, len(rows) - 1)], np.full(most, 1 / most)
