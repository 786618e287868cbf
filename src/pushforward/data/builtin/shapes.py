r"""Captioned images of shapes: every factor is known, and can be read back without learning.

An image shows one shape on a plain background. Its factors are drawn independently; place and
size vary a little within what their words mean. With the distance :math:`d` of a pixel's centre to
the outline, in pixels and negative inside, the shape covers :math:`\min(1, \max(0, 1/2 - d))` of
the pixel.
"""

from typing import Any, NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 90, 200), "yellow": (240, 190, 20),
}  # fmt: skip
SIZES = {"small": 0.08, "large": 0.115}  # the radius of a disc of the same area; 1 is a side
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
BACKGROUNDS = {"white": (245, 245, 245), "grey": (128, 128, 128), "black": (15, 15, 15)}
FACTORS = {
    "shape": SHAPES, "colour": tuple(COLOURS), "size": tuple(SIZES),
    "row": ROWS, "column": COLUMNS, "background": tuple(BACKGROUNDS),
}  # fmt: skip
SPACING = 0.23  # between neighbouring places
JITTER = 0.025  # of the centre, either way
FEW = 64  # images drawn at once
STRETCH = 0.06  # of the radius, either way


class ShapeFactors(NamedTuple):
    """What images show, every field of shape ``(n,)``."""

    shape: np.ndarray  # this and the next five: indices into the words of `FACTORS`
    colour: np.ndarray
    size: np.ndarray
    row: np.ndarray
    column: np.ndarray
    background: np.ndarray
    x: np.ndarray  # the centre, in sides of the image, from its top left corner
    y: np.ndarray
    radius: np.ndarray  # of the disc of the same area

    def factor_words(self, factor: str) -> np.ndarray:
        return np.array(FACTORS[factor])[getattr(self, factor)]

    def captions(self) -> np.ndarray:
        """``a small red circle at the top left on grey``."""
        read = [self.factor_words(name) for name in ("size", "colour", "shape", "background")]
        places = [
            _describe_position(r, c)
            for r, c in zip(self.factor_words("row"), self.factor_words("column"))
        ]
        return np.array([
            f"a {size} {colour} {shape} {where} on {ground}"
            for size, colour, shape, ground, where in zip(*read, places)
        ])  # fmt: skip


def _describe_position(row: str, column: str) -> str:
    if row == "middle" and column == "centre":
        return "in the centre"
    return f"at the {' '.join(w for w in (row, column) if w not in ('middle', 'centre'))}"


def draw_factors(n: int, seed: int = 0, **fixed: str) -> ShapeFactors:
    rng = np.random.default_rng(seed)
    chosen: dict[str, Any] = {}
    for name, words in FACTORS.items():
        drawn = rng.integers(0, len(words), n)
        chosen[name] = np.full(n, words.index(fixed[name])) if name in fixed else drawn
    x, y = (
        0.5 + SPACING * (chosen[name] - 1) + rng.uniform(-JITTER, JITTER, n)
        for name in ("column", "row")
    )
    stretch = rng.uniform(1 - STRETCH, 1 + STRETCH, n)
    radius = np.array(list(SIZES.values()))[chosen["size"]] * stretch
    return ShapeFactors(**chosen, x=x, y=y, radius=radius)


def pixel_coverage(scene: ShapeFactors, side: int) -> np.ndarray:
    at = (np.arange(side) + 0.5) / side
    u = at[None, None, :] - scene.x[:, None, None]
    v = at[None, :, None] - scene.y[:, None, None]
    r = scene.radius[:, None, None]
    half, apothem = r * np.sqrt(np.pi) / 2, r * np.sqrt(np.pi / np.sqrt(27))
    slant = np.sqrt(3) / 2
    outlines = (
        np.hypot(u, v) - r,
        np.maximum(abs(u), abs(v)) - half,
        np.maximum(v, abs(u) * slant - v / 2) - apothem,
    )
    distance = np.choose(scene.shape[:, None, None], outlines)
    return np.clip(0.5 - distance * side, 0, 1)


def render_shapes(scene: ShapeFactors, side: int = 32) -> np.ndarray:
    """The images, ``(n, side, side, 3)``, 8 bits a channel; a few at a time stay in the cache."""
    x = np.empty((len(scene.x), side, side, 3), np.uint8)
    for i in range(0, len(x), FEW):
        few = ShapeFactors(*(part[i : i + FEW] for part in scene))
        x[i : i + FEW] = _render_shape_batch(few, side)
    return x


def _render_shape_batch(scene: ShapeFactors, side: int) -> np.ndarray:
    colour, ground = (_colour_array(p)[i] for p, i in
                      ((COLOURS, scene.colour), (BACKGROUNDS, scene.background)))  # fmt: skip
    share = pixel_coverage(scene, side)[..., None]
    mixed = share * colour[:, None, None] + (1 - share) * ground[:, None, None]
    return np.rint(mixed).astype(np.uint8)


def _colour_array(colours: dict[str, tuple[int, int, int]]) -> np.ndarray:
    return np.array(list(colours.values()), np.float64)


def _nearest_colour(colours: np.ndarray, known: dict[str, tuple[int, int, int]]) -> np.ndarray:
    return ((colours[:, None] - _colour_array(known)) ** 2).sum(-1).argmin(1)


def recognise_shapes(images: np.ndarray) -> tuple[ShapeFactors, np.ndarray]:
    """What images ``(n, side, side, 3)`` show; nothing is learned.

    The background is that of the border; the colour is that of the pixels farthest from it; area
    and centre of what is covered give size and place; the shape is the one whose rendering is
    closest, and how close is the root mean square difference ``(n,)``, in levels from 0 to 255.
    """
    x = np.asarray(images, np.float64)
    n, side = len(x), x.shape[1]
    rim = np.concatenate([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], axis=1)
    background = _nearest_colour(np.median(rim, axis=1), BACKGROUNDS)
    ground = _colour_array(BACKGROUNDS)[background]
    away = ((x - ground[:, None, None]) ** 2).sum(-1)
    core = away >= np.quantile(away.reshape(n, -1), 0.99, axis=1)[:, None, None]
    colour = _nearest_colour((x * core[..., None]).sum((1, 2)) / core.sum((1, 2))[:, None], COLOURS)
    line = _colour_array(COLOURS)[colour] - ground
    share = ((x - ground[:, None, None]) * line[:, None, None]).sum(-1)
    share = np.clip(share / (line**2).sum(-1)[:, None, None], 0, 1)
    share = np.where(share > 0.15, share, 0.0)
    area, at = share.sum((1, 2)), (np.arange(side) + 0.5) / side
    mass = np.maximum(area, 1e-9)
    cx, cy = share.sum(1) @ at / mass, share.sum(2) @ at / mass
    radius = np.sqrt(area / np.pi) / side
    size = abs(radius[:, None] - np.array(list(SIZES.values()))).argmin(1)
    column, row = (np.clip(np.rint((c - 0.5) / SPACING) + 1, 0, 2).astype(int) for c in (cx, cy))
    rest = (colour, size, row, column, background, cx, cy, radius)
    drawn = [ShapeFactors(np.full(n, k), *rest) for k in range(len(SHAPES))]
    errors = [((share - pixel_coverage(s, side)) ** 2).sum((1, 2)) for s in drawn]
    shape = np.stack(errors).argmin(0)
    found = ShapeFactors(shape, *rest)
    return found, np.sqrt(((x - render_shapes(found, side)) ** 2).mean((1, 2, 3)))
