"""What there is to see in a set of pictures: how many, how large, of which classes and captions."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..formatting import printable_text
from . import image_folder, vocabulary
from .columns import Columns
from .validation import datum_noun

SHOWN = 20  # classes that are listed
SEVERAL = 50  # values of a column that are counted as classes


def summarise_images(source: Any, data: Columns) -> dict[str, Any] | None:
    """Facts about pictures, or None where the data are none.

    Arguments:
        source: Where they came from: of a folder, the sizes of its files are told as well.
        data: The same as columns.
    """
    if datum_noun(data.shape) == "row":
        return None
    height, width, channels = image_dimensions(data.shape)
    facts = {"pictures": data.rows, "size": [height, width], "channels": channels}
    if isinstance(source, str | os.PathLike) and os.path.isdir(source):
        found = [
            image_folder.read_image_header(p)[1][::-1]
            for p in image_folder.list_images(Path(source))
        ]
        facts["sizes"] = [list(min(found)), list(max(found))]
    distinct = {id(values): (name, values) for name, values in data.extra.items()}
    told = {name: summarise_condition(name, v) for name, v in distinct.values() if v.ndim == 1}
    return facts | {"conditions": {name: known for name, known in told.items() if known}}


def image_dimensions(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of a picture, whose channels are its last axis or its first."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    first, middle, last = shape
    return (first, middle, last) if last < min(first, middle) else (middle, last, first)


def summarise_condition(name: str, values: np.ndarray) -> dict[str, Any]:
    """The classes among some values with their counts, or what captions are like."""
    said = [str(v) for v in values.tolist() if v is not None]
    count = Counter(said)
    if len(count) <= SEVERAL and name != "caption":
        return {"classes": dict(sorted(count.items()))}
    if values.dtype.kind not in "OUS" or not said:
        return {}
    wordless = sum(not vocabulary.split_words(text) for text in said)
    longest = max(map(len, said))
    return {"captions": len(said), "different": len(count), "longest": longest,
            "without_letters": wordless}  # fmt: skip


def summary_lines(facts: dict[str, Any]) -> list[str]:
    """The same for people."""
    height, width = facts["size"]
    channels = {1: "grey", 3: "in colour"}.get(facts["channels"], f"{facts['channels']} channels")
    text = f"{facts['pictures']} pictures, {height} x {width} pixels (height x width), {channels}"
    low, high = facts.get("sizes", (facts["size"], facts["size"]))
    if low != high or low != facts["size"]:
        between = f"{low[0]} x {low[1]}" + (f" to {high[0]} x {high[1]}" if low != high else "")
        text += f"; scaled and cut in the middle from {between}"
    return [text, *(condition_line(name, told) for name, told in facts["conditions"].items())]


def condition_line(name: str, told: dict[str, Any]) -> str:
    """A line on classes or captions."""
    if "classes" in told:
        counts = [f"{printable_text(key, 40)} ({n})" for key, n in told["classes"].items()]
        more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
        return f"{printable_text(name)}: {len(counts)} classes: {', '.join(counts[:SHOWN])}{more}"
    none = told["without_letters"]
    return (
        f"{printable_text(name)}: {told['captions']} captions, {told['different']} different, the longest of "
        f"{told['longest']} characters, {none or 'none'} without a letter, digit or emoji"
    )
