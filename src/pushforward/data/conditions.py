"""Conditions: raw ones as vectors and back, and the law of those seen in training."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError
from ..formatting import join_names, printable_text
from . import captions as texts
from . import vocabulary
from .captions import CaptionEncoding
from .columns import as_condition_array

Label = str | bool | int
SEEN = 1000  # conditions that a model remembers
UNNAMED = (None, "y", "x", "file")


@dataclass(frozen=True)
class ConditionSchema:
    """How ``y`` becomes a vector: one-hot classes, captions (`data.captions`), standardised numbers.

    Arguments:
        column: The column that it was taken from, or None.
        labels: The classes; empty for the others.
        mean: The mean of each number; empty for the others.
        scale: The standard deviation of each number.
        dtype: The type of the column as its own library spells it.
        place: Where it stood among the columns of a table; -1 if samples do not carry it.
        words: The words of captions (`vocabulary.build_vocabulary`); empty for the others.
        text: How captions are told beside their words, or in place of them.
    """

    column: str | None = None
    labels: tuple[Label, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    dtype: str = ""
    place: int = -1
    words: tuple[str, ...] = ()
    text: CaptionEncoding | None = None

    @property
    def captioned(self) -> bool:
        """Whether it is text that is read as such."""
        return bool(self.words) or self.text is not None

    @property
    def kept_as(self) -> str:
        """What it is called beside data that are no table: classes are ``label``."""
        if self.labels:
            return "caption" if self.column == "caption" else "label"
        usual = "caption" if self.captioned else "y"
        return usual if self.column in UNNAMED else str(self.column)

    @property
    def asked(self) -> str:
        """What it is, in words, to ask for one."""
        if self.labels:
            kind = f"one of {join_names(self.labels, 60)}"
        else:
            numbers = f"{len(self.mean)} numbers" if len(self.mean) > 1 else "a number"
            kind = "a caption" if self.captioned else numbers
        return f"{printable_text(self.column or 'y', 40)!r}, {kind}"

    def takes(self, values: np.ndarray) -> bool:
        """Whether all values are of its kind: known classes, texts, or numbers."""
        if self.labels:
            return {str(to_python_scalar(v)) for v in values.flat} <= set(map(str, self.labels))
        return not self.captioned or all(isinstance(v, str) for v in values.flat)

    @property
    def length(self) -> int:
        """Entries of the vector beside the first, those of tokens included."""
        vector = len(self.labels) or len(self.mean) or texts.vector_length(self.words, self.text)
        return vector + self.tokens[0] * self.tokens[1]

    @property
    def tokens(self) -> tuple[int, int]:
        """How many tokens end the vector, and their width."""
        return (0, 0) if self.text is None else (self.text.tokens, self.text.width)

    @property
    def spelled(self) -> bool:
        """Whether its tokens are pieces of words as bytes."""
        return self.text is not None and self.text.encoder == texts.BYTES

    def without_tokens(self) -> "ConditionSchema":
        """The same for a model that takes a vector alone."""
        if self.text is None or self.spelled:
            return replace(self, text=None)
        return replace(self, text=replace(self.text, tokens=0))

    def typed(self, word: str) -> Any:
        """A condition that was typed: classes and captions stay text, numbers become numbers.

        Raises:
            DataError: If it must be a number and is not.
        """
        if self.labels or self.captioned:
            return word
        try:
            return [float(part) for part in word.split(",")]
        except ValueError as error:
            raise DataError(
                f"the condition must be numbers, not {printable_text(word, 40)!r}"
            ) from error

    def encode(self, y: Any) -> np.ndarray:
        """The entries after the first, shape (n, length); a single condition gives one row."""
        if self.captioned:
            said = np.atleast_1d(as_condition_array(y)).ravel().tolist()
            return texts.encode_captions(said, self.words, self.text)
        return self._one_hot(y) if self.labels else self._standardise(y)

    def decode(self, c: np.ndarray) -> np.ndarray:
        """The inverse of `encode` for rows with their first entry; the words alone of captions."""
        if self.labels:
            values = np.empty(len(c), object)
            values[:] = [self.labels[i] for i in c[:, 1:].argmax(1)]
            return np.array(values.tolist()) if len({type(v) for v in self.labels}) == 1 else values
        if self.words:
            return vocabulary.decode_words(c[:, 1 : 1 + len(self.words)], self.words)
        if self.text is not None:
            return np.full(len(c), "", object)  # who asked for a caption keeps it
        values = c[:, 1:] * self.scale + self.mean
        digits = 14 - np.ceil(np.log10(np.abs(values).max(initial=1e-300))).astype(int)
        values = np.round(values, max(int(digits), 0))
        return values[:, 0] if len(self.mean) == 1 else values

    def _one_hot(self, y: Any) -> np.ndarray:
        index = {f"'{label}": i for i, label in enumerate(self.labels)}  # inert in a CSV file
        index |= {str(b).lower(): i for i, b in enumerate(self.labels) if isinstance(b, bool)}
        index |= {str(label): i for i, label in enumerate(self.labels)}  # goes before the others
        keys = [str(to_python_scalar(v)) for v in np.atleast_1d(as_condition_array(y)).ravel()]
        unknown = sorted({k for k in keys if k not in index})
        if unknown:
            raise DataError(
                f"no class is called {printable_text(unknown[0], 40)!r}; choose from {join_names(self.labels)}"
            )
        return np.eye(len(self.labels))[[index[k] for k in keys]]

    def _standardise(self, y: Any) -> np.ndarray:
        try:
            values = np.asarray(as_condition_array(y), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the condition must be numbers, not {printable_text(y, 40)!r}"
            ) from error
        k = len(self.mean)
        if values.size % k or (values.ndim > 1 and values.shape[-1] != k):
            raise DataError(f"a condition has {k} numbers; got an array of shape {values.shape}")
        if not np.isfinite(values).all():
            raise DataError("the condition holds values that are not finite; remove them")
        return (values.reshape(-1, k) - self.mean) / self.scale


def to_python_scalar(value: Any) -> Any:
    """A NumPy scalar as Python's own, and a whole number as an integer."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def class_labels(distinct: list[Any], column: str) -> tuple[Label, ...]:
    """The labels of a condition in order.

    Raises:
        DataError: If two of them are written alike, or are equal, such as 1 and True.
    """
    labels = [v if isinstance(v, str | int) else str(v) for v in distinct]
    if min(len(set(labels)), len(set(map(str, labels)))) < len(labels):
        kinds = join_names(sorted({type(v).__name__ for v in labels}))
        raise DataError(
            f"{printable_text(column)}: holds the same class as {kinds}; make all of one kind"
        )
    return tuple(sorted(labels, key=lambda v: (str(type(v)), v)))


def condition_frequencies(c: np.ndarray, most: int = SEEN) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ones of vectors or captions and their frequencies, thinned if they are many."""
    rows, counts = np.unique(c, axis=0 if c.ndim > 1 else None, return_counts=True)
    return subsample_weighted(rows, counts / counts.sum(), most)


def subsample_weighted(
    rows: np.ndarray, weights: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most so many rows, in equal steps of the total weight: quantiles, for a single number."""
    if len(rows) <= most:
        return rows, weights
    at = np.searchsorted(np.cumsum(weights), (np.arange(most) + 0.5) / most)
    return rows[np.minimum(at, len(rows) - 1)], np.full(most, 1 / most)
