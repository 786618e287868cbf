"""Pictures into a folder as `folders` reads it: a subfolder a class, and a table of what is known.

A class that cannot be the name of a folder everywhere stands in the table instead.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from .image_folder import CAPTIONS, FORMULAS, list_images

Extra = Mapping[str, Any]
DATA = ("x", "file")  # what .npz files and tables call the data themselves
RESERVED = set('<>:"/\\|?*')  # not in the names of files, on one system or another
LONGEST = 255  # bytes of a file's name


def write_image_folder(
    folder: Path, x: np.ndarray, extra: Extra, names: Sequence[str] | None
) -> None:
    """Write pictures, and the table where there is more to say than the subfolders do.

    Arguments:
        folder: An empty one.
        x: Pictures as Pillow takes them.
        extra: What is known of each by name, "label" being its class.
        names: Where each belongs in the folder; by default their numbers, a subfolder a class.
    """
    from PIL import Image

    placed = default_filenames(len(x), extra.get("label")) if names is None else list(names)
    for name, picture in zip(placed, x, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    if columns := table_columns(placed, extra):
        with (folder / CAPTIONS).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", *map(escape_formula, columns)])
            table.writerows(zip(map(escape_formula, placed), *columns.values(), strict=True))


def default_filenames(n: int, labels: Any) -> list[str]:
    """Names of so many pictures, below folders of their classes where these can be folders."""
    numbers = [f"{i:0{len(str(n))}d}.png" for i in range(n)]
    classes = [] if labels is None else [str(label) for label in labels]
    distinct = set(classes)
    if not all(map(is_folder_name, distinct)) or len({c.lower() for c in distinct}) < len(distinct):
        return numbers
    return [f"{c}/{number}" for c, number in zip(classes, numbers)] if classes else numbers


def is_folder_name(text: str) -> bool:
    """Whether a text can be the name of a folder on any system, and is not one that is skipped."""
    plain = text.isprintable() and not RESERVED & set(text) and text == text.strip(" ")
    hidden = text.startswith(".") or text.endswith(".") or text == CAPTIONS
    return bool(text) and plain and not hidden and len(text.encode()) <= LONGEST


def table_columns(names: Sequence[str], extra: Extra) -> dict[str, list[Any]]:
    """The columns of the table: what is known beside the classes that the subfolders tell."""
    columns: dict[str, list[Any]] = {}
    for key, values in extra.items():
        cells = np.asarray(values).tolist()
        told = key == "label" and all(
            "/" in name and name.split("/")[0] == str(cell) for name, cell in zip(names, cells)
        )
        if not told and np.ndim(values) > 1:
            columns |= {f"{key}{j}": list(c) for j, c in enumerate(zip(*cells))}
        elif not told:
            columns[key] = [escape_formula(cell) for cell in cells]
    return columns


def escape_formula(cell: Any) -> Any:
    """A cell that a spreadsheet shows instead of running it."""
    return f"'{cell}" if isinstance(cell, str) and cell and cell[0] in FORMULAS else cell


def png_names(folder: Path) -> list[str]:
    """Where the pictures of a folder are in it, as PNG files of the same names.

    Of two that differ in their endings alone, both keep these as well; all do where that would be
    the name of a third.
    """
    paths = [path.relative_to(folder) for path in list_images(folder)]
    bare = [path.with_suffix("").as_posix().lower() for path in paths]
    count = Counter(bare)
    whole = [f"{path.as_posix()}.png" for path in paths]
    names = [
        path.with_suffix(".png").as_posix() if count[one] == 1 else name
        for path, one, name in zip(paths, bare, whole)
    ]
    return names if len({name.lower() for name in names}) == len(names) else whole


def check_extra_arrays(extra: Extra, n: int) -> dict[str, np.ndarray]:
    """What is known of so many data, as arrays.

    Raises:
        UsageError: If it is of another number of data, or called as these are.
    """
    known = {str(name): np.asarray(values) for name, values in extra.items()}
    for name, values in known.items():
        if name in DATA:
            raise UsageError(f"what is known of data cannot be called {name!r}: name it otherwise")
        if values.shape[:1] != (n,):
            raise UsageError(f"{name} is of shape {values.shape} for {n} data: give one for each")
    return known
