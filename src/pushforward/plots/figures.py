"""The one-page figure of a run: its training, its samples and, in the plane, its density."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .. import files, formatting
from ..data import reading
from ..inference.fitted_model import FittedModel
from . import drawing, grids, style
from .monitor import looks, watched

ROWS = 2000
DEPTH = 8.0  # nats below the highest density that a map shows
Part = Figure | SubFigure


def plot_run(fitted: FittedModel, path: Path, *, data: Any = None, seed: int = 0) -> Path:
    """Draw loss curves and samples of a fitted model, and its density over the plane.

    Arguments:
        fitted: A fitted model.
        path: Where to; ``.png``, ``.svg`` or ``.pdf``.
        data: Data to draw in grey with the samples, of the kind the model was fitted on.
        seed: Of the samples.

    Raises:
        UsageError: If the format is none of these.
        DataError: If the data are not of the kind that was fitted.
        DiskError: If the file cannot be written.
    """
    path = files.figure(path)
    real = None if data is None else reading.read_as(data, fitted.schema).x
    parts = page(fitted, real, seed)
    with style.styled():
        engine = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
        figure = Figure(figsize=(sum(w for w, _ in parts), 3.2), layout=engine)
        figure.suptitle(heading(fitted), fontsize=8.5)
        ratios = [w for w, _ in parts]
        for part, (_, draw) in zip(
            figure.subfigures(1, len(parts), width_ratios=ratios, squeeze=False)[0], parts
        ):
            draw(part)
        return files.replace(path, style.encode(figure, path.suffix.lower()[1:], dpi=200))


def heading(fitted: FittedModel) -> str:
    """The run in one line."""
    facts = [formatting.title(fitted.family), formatting.plural(fitted.parameters, "parameter")]
    if fitted.history:
        facts.append(formatting.plural(fitted.history[-1]["step"], "step"))
    if (seconds := fitted.config.get("seconds")) is not None:
        facts.append(formatting.duration(seconds))
    return "  \u00b7  ".join(facts)


def page(
    fitted: FittedModel, real: np.ndarray | None, seed: int
) -> list[tuple[float, Callable[[Part], None]]]:
    """The parts of the page from left to right: their widths in inches, and what draws them."""
    kind = grids.kind(fitted.schema.event)
    x = fitted.draw(64 if kind == "images" else ROWS, seed=seed)
    parts: list[tuple[float, Callable[[Part], None]]] = []
    if fitted.history:
        said = fitted.config.get("diagnoses") or ()
        parts.append((4.0, lambda part: drawing.losses(part.add_subplot(), fitted.history, said)))
    if looks(fitted.history):
        facts = fitted.config["watched"]
        parts.append((4.0, lambda part: watched(part, fitted.history, facts)))
    if kind == "table":
        columns = fitted.schema.columns
        flat = x.reshape(len(x), -1)
        base = None if real is None else real.reshape(len(real), -1)
        return [*parts, (5.6, lambda part: drawing.marginals(part, base, flat, columns))]
    if kind == "images" and real is not None:
        parts.append((3.2, lambda part: images(part, fitted, real[:64], None, "data")))
    draw = {"line": line, "plane": plane, "images": images}[kind]
    parts.append((3.2, lambda part: draw(part, fitted, x, real)))
    where = around(x, real)
    density = grids.grid_density(fitted, grids.lattice(where)) if kind == "plane" else None
    top = None if density is None else grids.top([density])
    if density is not None and top is not None:
        parts.append((3.2, lambda part: log_density(part, density, where, top)))
    return parts


def around(x: np.ndarray, real: np.ndarray | None) -> drawing.Box:
    """The part of the plane to draw: where the data are, or else the samples."""
    rows = x if real is None else real
    return drawing.box(rows.reshape(len(rows), -1), tail=0.01 if real is None else 0.002)


def beside(title: str, real: np.ndarray | None) -> str:
    """The title of a panel that may hold data as well."""
    return title if real is None else f"{title}, data in grey"


def line(part: Part, fitted: FittedModel, x: np.ndarray, real: np.ndarray | None) -> None:
    """Samples of one column as a histogram, with the density that the model states."""
    axes, column = part.add_subplot(), fitted.schema.columns[0]
    bins = drawing.edges(x[:, 0], column.integer, drawing.box(x if real is None else real))
    drawing.histogram(axes, None if real is None else real[:, 0], x[:, 0], bins)
    grid = np.linspace(bins[0], bins[-1], 301)
    own = grids.grid_density(fitted, grid[:, None])
    if own is not None:
        drawing.curve(axes, grid, own, exact=False)
    axes.set_xlabel(drawing.named(column.name))
    title = f"{len(x):,} samples" + " and the model\u2019s density" * (own is not None)
    axes.set_title(beside(title, real))


def plane(part: Part, fitted: FittedModel, x: np.ndarray, real: np.ndarray | None) -> None:
    """Samples of two columns as points, over those of the data."""
    axes, names = part.add_subplot(), fitted.schema.names
    if real is not None:
        drawing.scatter(axes, real, around(x, real), style.QUIET)
    drawing.scatter(axes, x, around(x, real), style.MODEL, (names[0], names[1]))
    axes.set_title(beside(f"{min(len(x), drawing.POINTS):,} samples", real))


def images(
    part: Part, fitted: FittedModel, x: np.ndarray, real: np.ndarray | None, what: str = "samples"
) -> None:
    """Samples as images."""
    axes, column = part.add_subplot(), fitted.schema.columns[0]
    drawing.images(axes, x, 8, column.low, column.high)
    axes.set_title(f"{len(x)} {what}")


def log_density(part: Part, values: np.ndarray, where: drawing.Box, top: float) -> None:
    """The log-density over the plane."""
    axes = part.add_subplot()
    drawing.density(axes, values, where, (top - DEPTH, top))
    axes.set_title(f"log-density, white {DEPTH:g} nats below the top")
