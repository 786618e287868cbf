"""Samples beside data: densities, scatter plots, marginals or images, as the data are."""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import formatting
from ..inference.fitted_model import FittedModel
from ..model import Likelihood
from ..plots import drawing, grids, style
from .figure import FigurePanel, PlottedRun, ReportFigure, render_panel, seed_note
from .leaderboard import Comparison

WIDE = (5.3, 2.6)
Names = tuple[str, str] | None


def line_figures(comparison: Comparison, runs: list[PlottedRun]) -> list[ReportFigure]:
    """One column: histograms with densities."""
    data, column = comparison.test[:, 0], comparison.schema.columns[0]
    bins = drawing.histogram_edges(data, column.integer, drawing.data_limits(comparison.test))
    grid = np.linspace(bins[0], bins[-1], 301)
    exact = None if column.integer else grids.known_log_density(comparison.dataset, grid[:, None])

    def draw(axes: Axes, run: PlottedRun) -> None:
        drawing.plot_histogram(axes, data, run.x[:, 0], bins)
        if exact is not None:
            drawing.plot_density_curve(axes, grid, exact, exact=True)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # set by the data: a spike is cut off
        own = grids.grid_log_density(run.model, grid[:, None])
        if own is not None:
            drawing.plot_density_curve(axes, grid, own, exact=False)
        axes.set_xlabel(drawing.axis_name(column.name))

    caption = (
        f"Grey bars: {len(data):,} test rows. Blue steps: as many samples. Orange line: the "
        "density that the model itself states, where it has one"
        + ("; dashed black line: the exact density of the data." if exact is not None else ".")
        + seed_note(comparison)
    )
    made = [
        render_panel(r.name, partial(draw, run=r), (3.3, 2.0), likelihood_note(r.model))
        for r in runs
    ]
    return [ReportFigure("Samples beside data", caption, made, "medium")]


def likelihood_note(model: FittedModel) -> str:
    """What a reader must know of the density that a model states."""
    return "lower bound" if model.likelihood is Likelihood.LOWER_BOUND else ""


def plane_figures(comparison: Comparison, runs: list[PlottedRun]) -> list[ReportFigure]:
    """Two columns: scatter plots."""
    caption = (
        f"Test rows (grey) and samples of each family (blue), {drawing.POINTS:,} points or fewer "
        "each, on the same axes; the share of samples outside them is named."
        + seed_note(comparison)
    )
    first, second = comparison.schema.names
    made = scatter_panels(comparison.test, [(r.name, r.x) for r in runs], (first, second))
    return [ReportFigure("Samples beside data", caption, made)]


def scatter_panels(
    data: np.ndarray, drawn: list[tuple[str, np.ndarray]], names: Names
) -> list[FigurePanel]:
    """Scatter plots of the data and of every family on the same axes."""
    where = drawing.data_limits(data)
    dots = partial(drawing.plot_scatter, where=where, names=names)
    made = [render_panel("test data", partial(dots, x=data, colour=style.DATA))]
    for name, x in drawn:
        outside = where.count_outside(x) / len(x)
        note = f"{formatting.format_percent(outside)} outside" if outside else ""
        made.append(render_panel(name, partial(dots, x=x, colour=style.MODEL), note=note))
    return made


def table_figures(comparison: Comparison, runs: list[PlottedRun]) -> list[ReportFigure]:
    """More columns: marginal histograms, and the two main directions of the data."""
    data = flatten_rows(comparison.test)
    some = f" The first {drawing.COLUMNS} of {data.shape[1]} columns."
    caption = (
        f"Grey bars: {len(data):,} test rows. Blue steps: as many samples."
        + some * (data.shape[1] > drawing.COLUMNS)
        + seed_note(comparison)
    )

    def strip(run: PlottedRun) -> FigurePanel:
        with style.plot_style():
            figure = Figure(figsize=WIDE, layout="constrained")
            drawing.plot_marginals(figure, data, flatten_rows(run.x), comparison.schema.columns)
            return FigurePanel(run.name, style.figure_svg_uri(figure))

    marginals = ReportFigure("Marginals", caption, [strip(r) for r in runs], "wide")
    return [marginals, principal_axes_figure(comparison, runs)]


def flatten_rows(x: np.ndarray) -> np.ndarray:
    """Rows of numbers."""
    return x.reshape(len(x), -1)


def principal_axes_figure(comparison: Comparison, runs: list[PlottedRun]) -> ReportFigure:
    """Projections on the two main directions of the standardised training rows."""
    rows = drawing.evenly_spaced_rows(flatten_rows(comparison.train), 5000)
    mean, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    _, s, axes = np.linalg.svd((rows - mean) / scale, full_matrices=False)
    share = (s**2 / (s**2).sum())[:2].sum()

    def project(x: np.ndarray) -> np.ndarray:
        return (flatten_rows(x) - mean) / scale @ axes[:2].T

    caption = (
        "Test rows (grey) and samples (blue) along the two directions in which the standardised "
        f"training rows vary most; they hold {formatting.format_percent(share)} of the variance. The share of "
        "samples outside the axes is named." + seed_note(comparison)
    )
    made = scatter_panels(project(comparison.test), [(r.name, project(r.x)) for r in runs], None)
    return ReportFigure("Main directions", caption, made)


def image_figures(comparison: Comparison, runs: list[PlottedRun]) -> list[ReportFigure]:
    """Images: squares of real and of generated ones."""
    low, high = float(comparison.train.min()), float(comparison.train.max())
    side = 6 if max(comparison.schema.event) <= 16 else 4
    draw = partial(drawing.plot_image_grid, side=side, low=low, high=high)
    made = [render_panel("test data", partial(draw, x=comparison.test))]
    made += [render_panel(r.name, partial(draw, x=r.x)) for r in runs]
    caption = (
        f"The first {side**2} test images, and the first {side**2} images that each family drew: "
        f"not chosen. Black is {low:g}, white is {high:g}." + seed_note(comparison)
    )
    return [ReportFigure("Samples beside data", caption, made)]


KINDS: dict[str, Callable[[Comparison, list[PlottedRun]], list[ReportFigure]]] = {
    "line": line_figures,
    "plane": plane_figures,
    "table": table_figures,
    "images": image_figures,
}
