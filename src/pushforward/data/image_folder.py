"""Folders of images: any size, grey or in colour, classes by subfolder, the rest by a table.

Images of one size are taken as they are. Of several sizes, the user chooses one: the shorter side
is scaled to it and the middle is cut out. Transparent pixels lie on white.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, Unsafe
from ..formatting import join_names, printable_text
from . import captions, memmap
from .columns import Column, Columns
from .validation import datum_noun

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
GREY = ("1", "L", "LA", "I;16")
DEEP = ("I", "F")  # no 8 bits, and no range that is known
TURNED = (5, 6, 7, 8)  # the orientations of a camera held on its side, as EXIF numbers them
CAPTIONS = "captions.csv"
FORMULAS = "=+-@\t\r"  # what begins a cell that a spreadsheet would run
PIXELS = 2**26  # of one image: a small file may unpack to a huge one
SHOWN = 20  # classes that a summary lists
SEVERAL = 50  # values of a condition that are counted as classes


def read_image_folder(folder: Path, size: tuple[int, ...] | None = None) -> Columns:
    """The images of a folder and its subfolders, one for each class, in the order of their paths.

    ``captions.csv``, with the columns file and caption, describes them in words; further columns
    are further conditions, of which ``label`` goes before the subfolders. ``size`` is height and
    width, and behind them 1 for grey or 3 for colour; by default their own, where they agree.
    """
    name, paths = printable_text(folder.name), list_images(folder)
    modes, sizes = zip(*(_read_image_header(path) for path in paths))
    if size is None and len(set(sizes)) > 1:
        low, high = min(sizes), max(sizes)
        raise DataError(
            f"{name}: sizes differ, from {low[0]} x {low[1]} to {high[0]} x {high[1]}; say which "
            "they are to have: --size 32 (in Python size=32)"
        )
    shape = _image_shape(size, modes, sizes[0])

    def decode(x: np.ndarray) -> None:
        for i, path in enumerate(paths):
            x[i] = decode_image(path, shape)

    x = memmap.cache_array(_image_cache_key(paths, shape), (len(paths), *shape), decode)
    return _columns_from_pixels(x, name, _folder_conditions(folder, paths))


def read_image_file(path: Path, size: tuple[int, ...] | None = None) -> Columns:
    mode, sides = _read_image_header(path)
    x = decode_image(path, _image_shape(size, [mode], sides))
    return _columns_from_pixels(x[None], printable_text(path.name), {})


def _image_shape(
    size: tuple[int, ...] | None, modes: Iterable[str], sides: tuple[int, int]
) -> tuple[int, ...]:
    height, width = (size or sides[::-1])[:2]
    grey = size[2:] == (1,) if size and size[2:] else all(mode in GREY for mode in modes)
    return (height, width) if grey else (height, width, 3)


def _columns_from_pixels(x: np.ndarray, name: str, extra: dict[str, np.ndarray]) -> Columns:
    cells = Column("value", "uint8", x, np.zeros(len(x), bool))
    return Columns("numpy", name, x.shape[1:], (cells,), "uint8", extra)


def _image_cache_key(paths: list[Path], shape: tuple[int, ...]) -> str:
    facts = [(p.resolve(), (s := p.stat()).st_size, s.st_mtime_ns, s.st_ino) for p in paths]
    return "pictures-" + hashlib.sha256(repr((shape, facts)).encode()).hexdigest()[:32]


def list_images(folder: Path) -> list[Path]:
    found = sorted(p for p in _walk_files(folder) if p.suffix.lower() in ENDINGS and p.is_file())
    found = [p for p in found if not any(q.startswith(".") for q in p.relative_to(folder).parts)]
    if len(found) < 2:
        raise DataError(
            f"{printable_text(folder.name)}: holds {len(found)} images; give {join_names(ENDINGS)}"
        )
    return found


def _walk_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files, those in linked folders too; a link to a folder ``above`` leads nowhere."""
    here = folder.resolve()
    for path in folder.iterdir() if here not in above else ():
        yield from _walk_files(path, (*above, here)) if path.is_dir() else (path,)


def _read_image_header(path: Path) -> tuple[str, tuple[int, int]]:
    with _open_image(path) as image:
        if image.width * image.height > PIXELS:
            raise _too_many_pixels(path)
        if image.mode in DEEP or (image.mode.startswith("I;") and image.mode not in GREY):
            name = printable_text(path.name)
            raise DataError(f"{name}: has {image.mode} pixels; save it with 8 bits")
        turned = _exif_orientation(image) in TURNED
        return image.mode, image.size[::-1] if turned else image.size


def _too_many_pixels(path: Path) -> Unsafe:
    return Unsafe(f"{printable_text(path.name)}: is refused: it has more than {PIXELS} pixels")


def _exif_orientation(image: Any) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError):  # broken metadata of a good image
        return 1


def _open_image(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(path) from error
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{printable_text(path.name)}: is not an image, or is broken") from error


def decode_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with _open_image(path) as image:
            image = ImageOps.exif_transpose(image) if _exif_orientation(image) > 1 else image
            if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
                ground = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(ground, image.convert("RGBA"))
            if image.mode == "I;16":
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("L" if len(shape) == 2 else "RGB")
            if image.size != (shape[1], shape[0]):
                image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.LANCZOS)
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{printable_text(path.name)}: is broken") from error


def _folder_conditions(folder: Path, paths: list[Path]) -> dict[str, np.ndarray]:
    extra = {}
    if all(p.parent != folder for p in paths):
        labels = np.array([p.relative_to(folder).parts[0] for p in paths], object)
        extra = {"target": labels, "label": labels}
    if (folder / CAPTIONS).is_file():
        columns = _read_captions(folder, paths)
        extra |= {"target": columns["label"], **columns} if "label" in columns else columns
    return extra


def _read_captions(folder: Path, paths: list[Path]) -> dict[str, np.ndarray]:
    header, rows = _read_captions_table(folder / CAPTIONS)
    columns = [name for name in header if name.strip() and name != "file"]
    if not rows or "file" not in header or not columns:
        needed = "the columns file and caption, and a line for each image"
        raise DataError(f"{CAPTIONS}: needs {needed}")
    of_file = {_unescape_formula(row["file"] or ""): row for row in rows}
    if len(of_file) < len(rows):
        raise DataError(f"{CAPTIONS}: names a file twice; keep one line of each")
    names = [p.relative_to(folder).as_posix() for p in paths]
    listed = [of_file.get(name, {}) for name in names]
    found = {key: [_unescape_formula(row.get(key) or "") for row in listed] for key in columns}
    if missing := [n for n, text in zip(names, found.get("caption", names)) if not text.strip()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{CAPTIONS}: has no caption for {printable_text(missing[0])}{more}")
    return {
        key: (_parse_text_cells if key in ("caption", "label") else _parse_typed_cells)(cells)
        for key, cells in found.items()
    }


def _read_captions_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            rows = list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            if "field limit" in str(error):
                raise DataError(
                    f"{CAPTIONS}: a cell in line {reader.line_num + 1} or before it has more than "
                    f"{csv.field_size_limit()} characters; shorten it, or close its quotes"
                ) from error
            raise DataError(f"{CAPTIONS}: is not a table in CSV and UTF-8: {error}") from error
    if wide := [i for i, row in enumerate(rows, 2) if None in row]:
        raise DataError(f"{CAPTIONS}: row {wide[0]} has more cells than the header; quote captions")
    return list(reader.fieldnames or []), rows


def _unescape_formula(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] and cell[1] in FORMULAS else cell


def _parse_text_cells(cells: list[str]) -> np.ndarray:
    """Text, None for nothing: "01" is not 1, as of subfolders."""
    return np.array([cell if cell.strip() else None for cell in cells], object)


def _parse_typed_cells(cells: list[str]) -> np.ndarray:
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
    except ValueError:
        return _parse_text_cells(cells)


def summarise_images(source: Any, data: Columns) -> dict[str, Any] | None:
    if datum_noun(data.shape) == "row":
        return None
    height, width, channels = _image_dimensions(data.shape)
    facts = {"pictures": data.rows, "size": [height, width], "channels": channels}
    if isinstance(source, str | os.PathLike) and os.path.isdir(source):
        paths = list_images(Path(source))
        sizes = [_read_image_header(path)[1][::-1] for path in paths]
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
