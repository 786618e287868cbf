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
from .monitor import monitored_steps, plot_monitor

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
    path = files.check_figure_path(path)
    real = None if data is None else reading.read_with_schema(data, fitted.schema).x
    parts = run_panels(fitted, real, seed)
    with style.plot_style():
        engine = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
        figure = Figure(figsize=(sum(w for w, _ in parts), 3.2), layout=engine)
        figure.suptitle(run_heading(fitted), fontsize=8.5)
        ratios = [w for w, _ in parts]
        for part, (_, draw) in zip(
            figure.subfigures(1, len(parts), width_ratios=ratios, squeeze=False)[0], parts
        ):
            draw(part)
        return files.atomic_write(
            path, style.figure_bytes(figure, path.suffix.lower()[1:], dpi=200)
        )


def run_heading(fitted: FittedModel) -> str:
    """The run in one line."""
    facts = [
        formatting.display_name(fitted.family),
        formatting.count_noun(fitted.parameters, "parameter"),
    ]
    if fitted.history:
        facts.append(formatting.count_noun(fitted.history[-1]["step"], "step"))
    if (seconds := fitted.config.get("seconds")) is not None:
        facts.append(formatting.duration_text(seconds))
    return "  \u00b7  ".join(facts)


def run_panels(
    fitted: FittedModel, real: np.ndarray | None, seed: int
) -> list[tuple[float, Callable[[Part], None]]]:
    """The parts of the page from left to right: their widths in inches, and what draws them."""
    kind = grids.plot_kind(fitted.schema.event)
    x = fitted.draw(64 if kind == "images" else ROWS, seed=seed)
    parts: list[tuple[float, Callable[[Part], None]]] = []
    if fitted.history:
        said = fitted.config.get("diagnoses") or ()
        parts.append(
            (4.0, lambda part: drawing.plot_losses(part.add_subplot(), fitted.history, said))
        )
    if monitored_steps(fitted.history):
        facts = fitted.config["watched"]
        parts.append((4.0, lambda part: plot_monitor(part, fitted.history, facts)))
    if kind == "table":
        columns = fitted.schema.columns
        flat = x.reshape(len(x), -1)
        base = None if real is None else real.reshape(len(real), -1)
        return [*parts, (5.6, lambda part: drawing.plot_marginals(part, base, flat, columns))]
    if kind == "images" and real is not None:
        parts.append((3.2, lambda part: plot_run_images(part, fitted, real[:64], None, "data")))
    draw = {"line": plot_run_histogram, "plane": plot_run_scatter, "images": plot_run_images}[kind]
    parts.append((3.2, lambda part: draw(part, fitted, x, real)))
    where = plane_limits(x, real)
    density = grids.grid_log_density(fitted, grids.grid_points(where)) if kind == "plane" else None
    top = None if density is None else grids.peak_log_density([density])
    if density is not None and top is not None:
        parts.append((3.2, lambda part: plot_run_density(part, density, where, top)))
    return parts


def plane_limits(x: np.ndarray, real: np.ndarray | None) -> drawing.AxesLimits:
    """The part of the plane to draw: where the data are, or else the samples."""
    rows = x if real is None else real
    return drawing.data_limits(rows.reshape(len(rows), -1), tail=0.01 if real is None else 0.002)


def panel_title(title: str, real: np.ndarray | None) -> str:
    """The title of a panel that may hold data as well."""
    return title if real is None else f"{title}, data in grey"


def plot_run_histogram(
    part: Part, fitted: FittedModel, x: np.ndarray, real: np.ndarray | None
) -> None:
    """Samples of one column as a histogram, with the density that the model states."""
    axes, column = part.add_subplot(), fitted.schema.columns[0]
    bins = drawing.histogram_edges(
        x[:, 0], column.integer, drawing.data_limits(x if real is None else real)
    )
    drawing.plot_histogram(axes, None if real is None else real[:, 0], x[:, 0], bins)
    grid = np.linspace(bins[0], bins[-1], 301)
    own = grids.grid_log_density(fitted, grid[:, None])
    if own is not None:
        drawing.plot_density_curve(axes, grid, own, exact=False)
    axes.set_xlabel(drawing.axis_name(column.name))
    title = f"{len(x):,} samples" + " and the model\u2019s density" * (own is not None)
    axes.set_title(panel_title(title, real))


def plot_run_scatter(
    part: Part, fitted: FittedModel, x: np.ndarray, real: np.ndarray | None
) -> None:
    """Samples of two columns as points, over those of the data."""
    axes, names = part.add_subplot(), fitted.schema.names
    if real is not None:
        drawing.plot_scatter(axes, real, plane_limits(x, real), style.QUIET)
    drawing.plot_scatter(axes, x, plane_limits(x, real), style.MODEL, (names[0], names[1]))
    axes.set_title(panel_title(f"{min(len(x), drawing.POINTS):,} samples", real))


def plot_run_images(
    part: Part, fitted: FittedModel, x: np.ndarray, real: np.ndarray | None, what: str = "samples"
) -> None:
    """Samples as images."""
    axes, column = part.add_subplot(), fitted.schema.columns[0]
    drawing.plot_image_grid(axes, x, 8, column.low, column.high)
    axes.set_title(f"{len(x)} {what}")


def plot_run_density(part: Part, values: np.ndarray, where: drawing.AxesLimits, top: float) -> None:
    """The log-density over the plane."""
    axes = part.add_subplot()
    drawing.plot_density_map(axes, values, where, (top - DEPTH, top))
    axes.set_title(f"log-density, white {DEPTH:g} nats below the top")
