r"""Text as words: which words of the training captions a text holds.

A caption becomes the vector of zeros and ones of the words that it holds. The first layer of a
network that reads it is then a table of word vectors, learned with the rest, whose rows are added:
the order of the words is not seen, and unseen combinations of known words have a meaning.
"""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import DataError
from ..formatting import join_names, printable_text

MOST = 4096  # words that are told apart: the most frequent


WORD = re.compile(
    r"\w+(?:['\u2019-]\w+)*"
    "|[\u2190-\u2bff\U0001f000-\U0001faff]"  # arrows, signs and emoji are a word each
)


def split_words(text: object) -> list[str]:
    """The words of a text in lower case."""
    return WORD.findall(str(text).lower())


def build_vocabulary(texts: Iterable[object]) -> tuple[str, ...]:
    """The words of some texts, in the order in which captions tend to use them.

    That is by the mean of their places, each from 0 at the beginning to 1 at the end, so that words
    in this order read much like a caption again.
    """
    count: Counter[str] = Counter()
    places: defaultdict[str, float] = defaultdict(float)
    for text in texts:
        words = split_words(text)
        for place, word in enumerate(words):
            count[word] += 1
            places[word] += place / max(len(words) - 1, 1)
    kept = [word for word, _ in count.most_common(MOST)]
    return tuple(sorted(kept, key=lambda word: (places[word] / count[word], word)))


def encode_words(
    texts: Sequence[object], words: Sequence[str], *, spelled: bool = False
) -> np.ndarray:
    """Which of the words each text holds, ``(n, len(words))``.

    A text of rare words alone, of a vocabulary that is full, holds none; one of words that were
    never seen is refused, unless they are ``spelled`` to the network as well.

    Raises:
        DataError: If a text holds none of the words.
    """
    index, full = {word: i for i, word in enumerate(words)}, len(words) >= MOST
    held, unknown = np.zeros((len(texts), len(words)), np.float32), set()
    for i, text in enumerate(texts):
        found = split_words(text)
        if not found:
            raise DataError(
                f"{printable_text(text, 60)!r} has no letter, digit or emoji: say it in words"
            )
        known = [index[word] for word in found if word in index]
        unknown |= set(found) - index.keys()
        if not known and not (full or spelled):
            raise DataError(
                f"{printable_text(text, 60)!r} holds no word that was seen in training, such as "
                f"{join_names(sorted(words, key=len)[-12:])}"
            )
        held[i, known] = 1
    if unknown:
        what = "are known by their letters alone" if spelled else "do nothing"
        warnings.warn(
            f"words that were not seen in training {what}: {join_names(sorted(unknown))}",
            stacklevel=2,
        )
    return held


def decode_words(held: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """The words that are held, in the order of the vocabulary."""
    return np.array([" ".join(np.array(words)[row > 0.5]) for row in held])
