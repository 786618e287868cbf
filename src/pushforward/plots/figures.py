"""The one-page figure of a run: its training, its samples and, in the plane, its density."""

import base64
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from .. import files
from ..data import reading
from ..formatting import count_noun, display_name, duration_text
from ..inference.fitted_model import FittedModel
from . import drawing, grids, style

ROWS = 2000
SHOWN = 4  # monitored steps whose images are shown
Part = Figure | SubFigure
Panel = tuple[float, Callable[[Part], None]]  # its width in inches, and what draws it
Real = np.ndarray | None  # data to draw with the samples


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
    panels = [*_training_panels(fitted), *_sample_panels(fitted, real, seed)]
    widths = [width for width, _ in panels]
    with style.written_figure(path, (sum(widths), 3.2)) as figure:
        figure.suptitle(_run_heading(fitted), fontsize=8.5)
        parts = figure.subfigures(1, len(panels), width_ratios=widths, squeeze=False)[0]
        for part, (_, draw) in zip(parts, panels):
            draw(part)
    return path


def _run_heading(fitted: FittedModel) -> str:
    """The run in one line."""
    facts = [display_name(fitted.family), count_noun(fitted.parameters, "parameter")]
    if fitted.history:
        facts.append(count_noun(fitted.history[-1]["step"], "step"))
    if (seconds := fitted.config.get("seconds")) is not None:
        facts.append(duration_text(seconds))
    return "  \u00b7  ".join(facts)


def _training_panels(fitted: FittedModel) -> list[Panel]:
    """The losses, and what was monitored."""
    history, panels = fitted.history, list[Panel]()
    if history:
        diagnoses = fitted.config.get("diagnoses") or ()
        panels.append((4.0, lambda p: drawing.plot_losses(p.add_subplot(), history, diagnoses)))
    if monitored_steps(history):
        facts = fitted.config["watched"]
        panels.append((4.0, lambda part: _plot_monitor(part, history, facts)))
    return panels


def _sample_panels(fitted: FittedModel, real: Real, seed: int) -> list[Panel]:
    """Samples with the data, as data of that kind are drawn, and a density over the plane."""
    kind = grids.plot_kind(fitted.schema.event)
    x = fitted.draw(64 if kind == "images" else ROWS, seed=seed)
    if kind == "table":
        rows, columns = x.reshape(len(x), -1), fitted.schema.columns
        data = None if real is None else real.reshape(len(real), -1)
        draw = partial(drawing.plot_marginals, data=data, x=rows, columns=columns)
        return [(5.6, draw)]
    if kind == "images":
        draw = partial(_plot_run_images, fitted=fitted)
        panels = [] if real is None else [(3.2, partial(draw, x=real[:64], title="data"))]
        return [*panels, (3.2, partial(draw, x=x, title="samples"))]
    if kind == "line":
        return [(3.2, partial(_plot_run_histogram, fitted=fitted, x=x, real=real))]
    where = drawing.data_limits(*((x, 0.01) if real is None else (real, 0.002)))
    draw = partial(_plot_run_scatter, x=x, real=real, where=where, names=fitted.schema.names)
    density = grids.grid_log_density(fitted, grids.grid_points(where))
    top = None if density is None else grids.peak_log_density([density])
    if density is None or top is None:
        return [(3.2, draw)]
    return [(3.2, draw), (3.2, partial(_plot_run_density, log_p=density, where=where, top=top))]


def _panel_title(title: str, real: Real) -> str:
    return title if real is None else f"{title}, data in grey"


def _plot_run_histogram(part: Part, fitted: FittedModel, x: np.ndarray, real: Real) -> None:
    """Samples of one column as a histogram, with the density that the model states."""
    axes, column = part.add_subplot(), fitted.schema.columns[0]
    limits = drawing.data_limits(x if real is None else real)
    bins = drawing.histogram_edges(x[:, 0], column.integer, limits)
    drawing.plot_histogram(axes, None if real is None else real[:, 0], x[:, 0], bins)
    grid = np.linspace(bins[0], bins[-1], 301)
    title = f"{len(x):,} samples"
    if (own := grids.grid_log_density(fitted, grid[:, None])) is not None:
        drawing.plot_density_curve(axes, grid, own, exact=False)
        title += " and the model\u2019s density"
    axes.set_xlabel(drawing.axis_name(column.name))
    axes.set_title(_panel_title(title, real))


def _plot_run_scatter(
    part: Part, x: np.ndarray, real: Real, where: drawing.AxesLimits, names: list[str]
) -> None:
    """Samples of two columns as points, over those of the data."""
    axes = part.add_subplot()
    if real is not None:
        drawing.plot_scatter(axes, real, where, style.QUIET)
    drawing.plot_scatter(axes, x, where, style.MODEL, (names[0], names[1]))
    axes.set_title(_panel_title(f"{min(len(x), drawing.POINTS):,} samples", real))


def _plot_run_images(part: Part, fitted: FittedModel, x: np.ndarray, title: str) -> None:
    axes, column = part.add_subplot(), fitted.schema.columns[0]
    drawing.plot_image_grid(axes, x, 8, column.low, column.high)
    axes.set_title(f"{len(x)} {title}")


def _plot_run_density(part: Part, log_p: np.ndarray, where: drawing.AxesLimits, top: float) -> None:
    axes = part.add_subplot()
    drawing.plot_density_map(axes, log_p, where, (top - grids.DEPTH, top))
    axes.set_title(f"log-density, white {grids.DEPTH:g} nats below the top")


def monitored_steps(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a history that hold samples."""
    return [line for line in history if "pictures" in line]


def decode_sheet(sheet: str) -> np.ndarray:
    """The samples in a line of the history, side by side in one image."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))))


def _plot_monitor(part: Part, history: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """The distance over the steps with its floor, and the samples of some steps below."""
    lines = monitored_steps(history)
    shown = np.unique(np.linspace(0, len(lines) - 1, SHOWN).round().astype(int))
    grid = part.add_gridspec(2, len(shown), height_ratios=(1.3, 1))
    axes = part.add_subplot(grid[0, :])
    steps = [line["step"] for line in lines]
    axes.plot(steps, [line["distance"] for line in lines], "o-", color=style.MODEL, markersize=3)
    axes.axhline(facts["floor"], color=style.INK, linewidth=0.8, linestyle=style.FLOOR)
    axes.set(xlabel="step", ylim=(min(0.0, facts["floor"]), None))
    axes.set_title(f"{facts['metric']} to {facts['rows']:,} held out, floor dashed")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for j, i in enumerate(shown):
        below = part.add_subplot(grid[1, j])
        sheet = decode_sheet(lines[i]["pictures"])
        below.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        below.set_title(f"step {steps[i]:,}")
        below.set_axis_off()
