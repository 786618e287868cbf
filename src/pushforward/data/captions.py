r"""Captions as numbers: their words, the bytes that spell them, or what a frozen encoder says.

A caption's condition is a vector, and behind it tokens for networks that attend to them
(`networks.blocks`). There are three ways to make them:

- words: a vector of zeros and ones, of which words of the training captions it holds; no tokens.
  The first layer of a network that reads it is a table of word vectors, learned with the rest,
  whose rows are added: the order of the words is not seen, and unseen combinations of known words
  have a meaning.
- bytes: the same vector, and every word in its place, spelled, in pieces of `PIECE` bytes. The
  networks of families that take a time learn to read these (`networks.text_encoder`).
- a frozen encoder (`text_encoders`): the mean of its tokens' states as the vector, and the states.
  Both are centred and scaled by what they are on the training captions, which are much alike.
"""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..formatting import join_names, printable_text
from . import text_encoders

WORDS, BYTES = SPELLED = "words", "bytes"
PIECE = 8  # bytes; longer words are cut into several pieces
MOST = 32  # tokens of a caption that are encoded, the first
VOCABULARY = 4096  # words that are distinguished: the most frequent
MEASURED = 4096  # captions that say how a frozen encoder's numbers are spread
LONGEST = 2000  # characters of a caption that are read

WORD = re.compile(
    r"\w+(?:['\u2019-]\w+)*"
    "|[\u2190-\u2bff\U0001f000-\U0001faff]"  # arrows, signs and emoji are a word each
)


@dataclass(frozen=True)
class CaptionEncoding:
    encoder: str  # "bytes", or the name or the folder of a frozen encoder (`text_encoders`)
    tokens: int  # that a caption has at most
    width: int  # numbers of a token, of which a frozen encoder's first says that it is there
    mean: tuple[float, ...] = ()  # of a frozen encoder's vector on the training captions
    scale: float = 1.0  # the root mean square of the vector about it
    token_mean: tuple[float, ...] = ()
    token_scale: float = 1.0
    seal: str = ""  # SHA-256 of the encoder's weights


def fit_caption_encoding(
    texts: Sequence[str], encoder: str
) -> tuple[tuple[str, ...], CaptionEncoding | None]:
    texts = truncate_captions(texts)
    if encoder not in SPELLED:
        return (), _fit_frozen_encoding(list(dict.fromkeys(texts)), encoder)
    words = build_vocabulary(texts)
    if not words:
        raise DataError("the captions hold no words: no letter, digit or emoji")
    if encoder == WORDS:
        return words, None
    longest = max(len(_byte_pieces(text)) for text in texts)
    return words, CaptionEncoding(BYTES, min(longest, MOST), PIECE)


def _fit_frozen_encoding(texts: list[str], name: str) -> CaptionEncoding:
    encoder = text_encoders.load_text_encoder(name)
    some = texts[:: -(-len(texts) // MEASURED)]
    vectors, states = encoder.encode(some)
    rows = np.concatenate(states)
    mean, token_mean = vectors.mean(0), rows.mean(0)
    scale, token_scale = (max(float(z.std(0).mean()), 1e-6) for z in (vectors, rows))
    vector, token = (tuple(mean.tolist()), scale), (tuple(token_mean.tolist()), token_scale)
    tokens = min(max(map(len, states)), MOST)
    return CaptionEncoding(encoder.name, tokens, 1 + rows.shape[1], *vector, *token, encoder.seal)


def vector_length(words: Sequence[str], text: CaptionEncoding | None) -> int:
    return len(words) or len(text.mean if text else ())


def encode_captions(
    texts: Sequence[str], words: Sequence[str], text: CaptionEncoding | None
) -> np.ndarray:
    texts = truncate_captions(texts)
    if text is None or text.encoder == BYTES:
        held = encode_words(texts, words, spelled=text is not None).astype(np.float32)
        if text is None or not text.tokens:
            return held
        return np.concatenate([held, encode_bytes(texts, text.tokens)], axis=1)
    return _encode_frozen(texts, text)


def _encode_frozen(texts: Sequence[str], text: CaptionEncoding) -> np.ndarray:
    encoder = text_encoders.load_text_encoder(text.encoder)
    if encoder.seal != text.seal:
        raise DataError(
            f"the text encoder {printable_text(text.encoder)} is not the one that the model was "
            "fitted with: its weights differ"
        )
    distinct = list(dict.fromkeys(texts))
    vectors, states = encoder.encode(distinct)
    tokens = np.zeros((len(distinct), text.tokens, text.width), np.float32)
    for row, its in zip(tokens, states):
        count = min(len(its), text.tokens)
        row[:count, 0] = 1
        if count:
            row[:count, 1:] = (its[:count] - np.array(text.token_mean)) / text.token_scale
    _warn_truncated(sum(len(its) > text.tokens > 0 for its in states), text.tokens)
    vectors = (vectors - np.array(text.mean)) / text.scale
    rows = np.concatenate([vectors, tokens.reshape(len(tokens), -1)], axis=1).astype(np.float32)
    place = {caption: i for i, caption in enumerate(distinct)}
    return rows[[place[caption] for caption in texts]]


def split_words(text: object) -> list[str]:
    return WORD.findall(str(text).lower())


def build_vocabulary(texts: Iterable[object]) -> tuple[str, ...]:
    """The words of some texts, in the order in which captions tend to use them.

    That is by the mean of their places, each from 0 at the beginning to 1 at the end, so that words
    in this order read much like a caption again.
    """
    count: Counter[str] = Counter()
    places: defaultdict[str, float] = defaultdict(float)
    for text in truncate_captions(list(texts)):
        words = split_words(text)
        for place, word in enumerate(words):
            count[word] += 1
            places[word] += place / max(len(words) - 1, 1)
    kept = [word for word, _ in count.most_common(VOCABULARY)]
    return tuple(sorted(kept, key=lambda word: (places[word] / count[word], word)))


def encode_words(
    texts: Sequence[object], words: Sequence[str], *, spelled: bool = False
) -> np.ndarray:
    """Which of the words each text holds, ``(n, len(words))``.

    A text of rare words alone, of a vocabulary that is full, holds none; one of words that were
    never seen is refused, unless they are ``spelled`` to the network as well.
    """
    index, full = {word: i for i, word in enumerate(words)}, len(words) >= VOCABULARY
    held, unknown = np.zeros((len(texts), len(words)), np.float32), set()
    for i, text in enumerate(texts):
        found = split_words(text)
        if not found:
            shown = printable_text(text, 60)
            raise DataError(f"{shown!r} has no letter, digit or emoji: say it in words")
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
    return np.array([" ".join(np.array(words)[row > 0.5]) for row in held])


def _byte_pieces(text: str) -> list[bytes]:
    spelt = (word.encode() for word in split_words(text))
    return [word[i : i + PIECE] for word in spelt for i in range(0, len(word), PIECE)]


def encode_bytes(texts: Sequence[str], count: int) -> np.ndarray:
    """The first pieces of texts, ``(n, count * PIECE)``: ``(byte + 1) / 256``, 0 where is none."""
    out = np.zeros((len(texts), count, PIECE), np.float32)
    cut = 0
    for row, text in zip(out, texts):
        found = _byte_pieces(text)
        cut += len(found) > count
        for place, piece in zip(row, found):
            place[: len(piece)] = (np.frombuffer(piece, np.uint8) + 1.0) / 256
    _warn_truncated(cut, count)
    return out.reshape(len(texts), -1)


def _warn_truncated(cut: int, count: int) -> None:
    _warn_longer(cut, f"{count} tokens: of the rest, the order is not seen")


def _warn_longer(cut: int, than: str) -> None:
    if cut:
        warnings.warn(f"{cut} caption{'s' if cut > 1 else ''} longer than {than}", stacklevel=3)


def truncate_captions(texts: Sequence[Any]) -> list[str]:
    whole = [str(text) for text in texts]
    cut = sum(len(text) > LONGEST for text in whole)
    _warn_longer(cut, f"{LONGEST} characters: the rest is not read")
    return [text[:LONGEST] for text in whole]
