"""What a source holds: its columns, or of images how many, how large and of which classes."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..formatting import printable_text
from . import captions, image_folder
from .columns import Columns
from .validation import datum_noun

SHOWN = 20  # classes that are listed
SEVERAL = 50  # values of a column that are counted as classes


def list_columns(data: Columns) -> list[dict[str, str]]:
    """Each column's name and type, and the range of its numbers, as text."""
    listed = []
    for cells in data.cells:
        known = cells.values[~cells.missing] if cells.values.ndim == 1 else cells.values
        numbers = known.dtype.kind in "biuf" and known.size
        limits = f", {np.nanmin(known):g} to {np.nanmax(known):g}" if numbers else ""
        name = printable_text(cells.name)
        listed.append({"column": name, "dtype": cells.dtype, "range": limits})
    return listed


def summarise_images(source: Any, data: Columns) -> dict[str, Any] | None:
    """Facts about images, or None where the data are none.

    Arguments:
        source: Where they came from: of a folder, the sizes of its files are listed as well.
        data: The same as columns.
    """
    if datum_noun(data.shape) == "row":
        return None
    height, width, channels = _image_dimensions(data.shape)
    facts = {"pictures": data.rows, "size": [height, width], "channels": channels}
    if isinstance(source, str | os.PathLike) and os.path.isdir(source):
        paths = image_folder.list_images(Path(source))
        sizes = [image_folder.read_image_header(path)[1][::-1] for path in paths]
        facts["sizes"] = [list(min(sizes)), list(max(sizes))]
    distinct = {id(values): (name, values) for name, values in data.extra.items()}
    found = {name: _summarise_condition(name, v) for name, v in distinct.values() if v.ndim == 1}
    return facts | {"conditions": {name: known for name, known in found.items() if known}}


def _image_dimensions(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of an image, whose channels are its last axis or its first."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    first, middle, last = shape
    return (first, middle, last) if last < min(first, middle) else (middle, last, first)


def _summarise_condition(name: str, values: np.ndarray) -> dict[str, Any]:
    """The classes among some values with their counts, or what captions are like."""
    texts = [str(v) for v in values.tolist() if v is not None]
    count = Counter(texts)
    if len(count) <= SEVERAL and name != "caption":
        return {"classes": dict(sorted(count.items()))}
    if values.dtype.kind not in "OUS" or not texts:
        return {}
    wordless = sum(not captions.split_words(text) for text in texts)
    longest = max(map(len, texts))
    return {"captions": len(texts), "different": len(count), "longest": longest,
            "without_letters": wordless}  # fmt: skip


def summary_lines(facts: dict[str, Any]) -> list[str]:
    height, width = facts["size"]
    channels = {1: "grey", 3: "in colour"}.get(facts["channels"], f"{facts['channels']} channels")
    text = f"{facts['pictures']} images, {height} x {width} pixels (height x width), {channels}"
    low, high = facts.get("sizes", (facts["size"], facts["size"]))
    if low != high or low != facts["size"]:
        between = f"{low[0]} x {low[1]}" + (f" to {high[0]} x {high[1]}" if low != high else "")
        text += f"; scaled and cut in the middle from {between}"
    return [text, *(_condition_line(name, known) for name, known in facts["conditions"].items())]


def _condition_line(name: str, known: dict[str, Any]) -> str:
    if "classes" in known:
        counts = [f"{printable_text(key, 40)} ({n})" for key, n in known["classes"].items()]
        more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
        return f"{printable_text(name)}: {len(counts)} classes: {', '.join(counts[:SHOWN])}{more}"
    return (
        f"{printable_text(name)}: {known['captions']} captions, {known['different']} different, "
        f"the longest of {known['longest']} characters, {known['without_letters'] or 'none'} "
        "without a letter, digit or emoji"
    )
