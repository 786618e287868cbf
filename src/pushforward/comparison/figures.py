"""The figures of a report, and the captions that say what is seen and how it was made."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..diffusion import Diffusion
from ..formatting import display_name, format_percent
from ..inference.fitted_model import FittedModel
from ..model import Likelihood
from ..plots import drawing, grids, style
from .leaderboard import PRIMARY, Leaderboard

ROWS = 500  # samples for each point of quality against evaluations
SQUARE, SCALE, MEDIUM, WIDE = (2.3, 2.3), (2.3, 0.75), (3.3, 2.0), (5.3, 2.6)  # inches
Draw = Callable[[Axes], None]


class _PlottedRun(NamedTuple):
    name: str
    model: FittedModel
    x: np.ndarray


class _FigurePanel(NamedTuple):
    label: str
    image: str
    note: str = ""  # in smaller type


class _ReportFigure(NamedTuple):
    title: str
    caption: str  # what is seen, and how it was made
    panels: list[_FigurePanel]
    layout: str = "small"  # how much of the page a panel takes; or "medium", "wide", "full"


def report_figures(board: Leaderboard) -> list[_ReportFigure]:
    runs = _runs_to_plot(board)
    if not runs:
        return []
    kind = grids.plot_kind(board.schema.event)
    found = [_leaderboard_figure(board), *SAMPLE_FIGURES[kind](board, runs)]
    if kind == "plane":
        found += [_likelihood_figure(board, runs), _trajectory_figure(board, runs)]
    found += [_nfe_figure(board, runs), _loss_figure(runs)]
    return [figure for figure in found if figure.panels]


def _runs_to_plot(board: Leaderboard) -> list[_PlottedRun]:
    first: dict[str, _PlottedRun] = {}
    for e in board.entries:
        if e.model is not None and e.generated is not None and not e.error:
            first.setdefault(e.family, _PlottedRun(display_name(e.family), e.model, e.generated))
    return [first[r["family"]] for r in board.table if r["family"] in first]


def _render_panel(
    label: str, draw: Draw, size: tuple[float, float] = SQUARE, note: str = ""
) -> _FigurePanel:
    return _FigurePanel(label, style.axes_svg_uri(draw, size), note)


def _seed_note(board: Leaderboard) -> str:
    several = len({e.seed for e in board.entries}) > 1
    return f" Drawn for seed {board.entries[0].seed}." if several else ""


def _likelihood_note(model: FittedModel) -> str:
    return "lower bound" if model.likelihood is Likelihood.LOWER_BOUND else ""


def _flatten_rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _diffusions(runs: Iterable[_PlottedRun]) -> list[tuple[_PlottedRun, Diffusion]]:
    return [(r, r.model.model) for r in runs if isinstance(r.model.model, Diffusion)]


# samples beside data, by the kind of data


def _line_figures(board: Leaderboard, runs: list[_PlottedRun]) -> list[_ReportFigure]:
    data, column = board.test[:, 0], board.schema.columns[0]
    bins = drawing.histogram_edges(data, column.integer, drawing.data_limits(board.test))
    grid = np.linspace(bins[0], bins[-1], 301)
    exact = None if column.integer else grids.known_log_density(board.dataset, grid[:, None])

    def draw(axes: Axes, run: _PlottedRun) -> None:
        drawing.plot_histogram(axes, data, run.x[:, 0], bins)
        if exact is not None:
            drawing.plot_density_curve(axes, grid, exact, exact=True)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # set by the data: a spike is cut off
        own = grids.grid_log_density(run.model, grid[:, None])
        if own is not None:
            drawing.plot_density_curve(axes, grid, own, exact=False)
        axes.set_xlabel(drawing.axis_name(column.name))

    known = "" if exact is None else "; dashed black line: the exact density of the data"
    caption = (
        f"Grey bars: {len(data):,} test rows. Blue steps: as many samples. Orange line: the "
        f"density that the model itself states, where it has one{known}.{_seed_note(board)}"
    )
    panels = [
        _render_panel(r.name, partial(draw, run=r), MEDIUM, _likelihood_note(r.model)) for r in runs
    ]
    return [_ReportFigure("Samples beside data", caption, panels, "medium")]


def _plane_figures(board: Leaderboard, runs: list[_PlottedRun]) -> list[_ReportFigure]:
    caption = (
        f"Test rows (grey) and samples of each family (blue), {drawing.POINTS:,} points or fewer "
        f"each, on the same axes; the share of samples outside them is named.{_seed_note(board)}"
    )
    first, second = board.schema.names
    panels = _scatter_panels(board.test, [(r.name, r.x) for r in runs], (first, second))
    return [_ReportFigure("Samples beside data", caption, panels)]


def _scatter_panels(
    data: np.ndarray, samples: list[tuple[str, np.ndarray]], names: tuple[str, str] | None = None
) -> list[_FigurePanel]:
    where = drawing.data_limits(data)
    dots = partial(drawing.plot_scatter, where=where, names=names)
    panels = [_render_panel("test data", partial(dots, x=data, colour=style.DATA))]
    for name, x in samples:
        outside = where.count_outside(x) / len(x)
        note = f"{format_percent(outside)} outside" if outside else ""
        panels.append(_render_panel(name, partial(dots, x=x, colour=style.MODEL), note=note))
    return panels


def _table_figures(board: Leaderboard, runs: list[_PlottedRun]) -> list[_ReportFigure]:
    data, columns = _flatten_rows(board.test), board.schema.columns
    wide = data.shape[1] > drawing.COLUMNS
    some = f" The first {drawing.COLUMNS} of {data.shape[1]} columns." * wide
    seed = _seed_note(board)
    caption = f"Grey bars: {len(data):,} test rows. Blue steps: as many samples.{some}{seed}"
    panels = []
    for run in runs:
        with style.plot_style():
            figure = Figure(figsize=WIDE, layout="constrained")
            drawing.plot_marginals(figure, data, _flatten_rows(run.x), columns)
            panels.append(_FigurePanel(run.name, style.figure_svg_uri(figure)))
    marginals = _ReportFigure("Marginals", caption, panels, "wide")
    return [marginals, _principal_axes_figure(board, runs)]


def _principal_axes_figure(board: Leaderboard, runs: list[_PlottedRun]) -> _ReportFigure:
    rows = drawing.evenly_spaced_rows(_flatten_rows(board.train), 5000)
    mean, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    _, s, axes = np.linalg.svd((rows - mean) / scale, full_matrices=False)
    share = (s**2 / (s**2).sum())[:2].sum()

    def project(x: np.ndarray) -> np.ndarray:
        return (_flatten_rows(x) - mean) / scale @ axes[:2].T

    caption = (
        "Test rows (grey) and samples (blue) along the two directions in which the standardised "
        f"training rows vary most; they hold {format_percent(share)} of the variance. The share "
        f"of samples outside the axes is named.{_seed_note(board)}"
    )
    panels = _scatter_panels(project(board.test), [(r.name, project(r.x)) for r in runs])
    return _ReportFigure("Main directions", caption, panels)


def _image_figures(board: Leaderboard, runs: list[_PlottedRun]) -> list[_ReportFigure]:
    low, high = float(board.train.min()), float(board.train.max())
    side = 6 if max(board.schema.event) <= 16 else 4
    draw = partial(drawing.plot_image_grid, side=side, low=low, high=high)
    panels = [_render_panel("test data", partial(draw, x=board.test))]
    panels += [_render_panel(r.name, partial(draw, x=r.x)) for r in runs]
    caption = (
        f"The first {side**2} test images, and the first {side**2} images that each family drew: "
        f"not chosen. Black is {low:g}, white is {high:g}.{_seed_note(board)}"
    )
    return [_ReportFigure("Samples beside data", caption, panels)]


SAMPLE_FIGURES: dict[str, Callable[[Leaderboard, list[_PlottedRun]], list[_ReportFigure]]] = {
    "line": _line_figures,
    "plane": _plane_figures,
    "table": _table_figures,
    "images": _image_figures,
}

# the other figures


def _leaderboard_figure(board: Leaderboard) -> _ReportFigure:
    rows = board.ranked

    def draw(axes: Axes) -> None:
        drawing.plot_intervals(axes, [r[PRIMARY][:4] for r in rows], [r["rank"] == 1 for r in rows])
        axes.set_yticks(range(len(rows)), [display_name(r["family"]) for r in rows])
        axes.set_xlabel("energy distance")

    caption = (
        "Energy distance between samples and test rows, smaller is better: estimate and 95 % "
        "interval. Filled blue marks are the families that the data do not separate from the "
        "first. The dashed line is the floor: the same distance between two sets of real rows. "
        "Where the axis is logarithmic, it is linear near zero."
    )
    size = (7.4, 0.62 + 0.24 * len(rows))
    return _ReportFigure("Leaderboard", caption, [_render_panel("", draw, size)], "full")


def _likelihood_figure(board: Leaderboard, runs: list[_PlottedRun]) -> _ReportFigure:
    where = drawing.data_limits(board.test)
    points = grids.grid_points(where)
    exact = grids.known_log_density(board.dataset, points)
    own = [
        (r.name, log_p, _likelihood_note(r.model))
        for r in runs
        if (log_p := grids.grid_log_density(r.model, points)) is not None
    ]
    top = grids.peak_log_density([log_p for _, log_p, _ in own] if exact is None else [exact])
    caption = (
        f"Log-density in nats at {grids.GRID} \u00d7 {grids.GRID} points, in the units of the "
        f"data. All panels have one colour scale; white is {grids.DEPTH:g} nats or more below its "
        f"top. Flows are integrated to a tolerance of {grids.MAP:g}. Families without a density "
        f"are left out.{_seed_note(board)}"
    )
    if top is None or not own:
        return _ReportFigure("Log-density", caption, [])
    maps = own if exact is None else [("exact density", exact, ""), *own]
    limits = (top - grids.DEPTH, top)
    draw = partial(drawing.plot_density_map, where=where, limits=limits)
    panels = [
        _render_panel(name, partial(draw, log_p=log_p), note=note) for name, log_p, note in maps
    ]
    panels.append(_render_panel("scale", partial(drawing.plot_colour_scale, limits=limits), SCALE))
    return _ReportFigure("Log-density", caption, panels)


def _trajectory_figure(board: Leaderboard, runs: list[_PlottedRun]) -> _ReportFigure:
    where = drawing.data_limits(board.test, margin=0.25)
    panels = []
    for run, model in _diffusions(runs):
        states = grids.sampler_trajectories(run.model, model)
        draw = partial(drawing.plot_trajectories, states=states, where=where)
        panels.append(_render_panel(run.name, draw, note=f"{len(states) - 1} steps"))
    caption = (
        "Forty points on their way from noise (open circles) to data (black dots) under each "
        "family\u2019s own sampler, in the units of the data. Noise of large scale starts outside "
        f"the frame.{_seed_note(board)}"
    )
    return _ReportFigure("From noise to data", caption, panels)


def _nfe_figure(board: Leaderboard, runs: list[_PlottedRun]) -> _ReportFigure:
    real = drawing.evenly_spaced_rows(board.test, ROWS)
    curves = {
        run.name: points
        for run, model in _diffusions(runs)
        if (points := list(grids.quality_by_steps(run.model, model, real)))
    }
    floor = grids.standardised_distance(real, drawing.evenly_spaced_rows(board.train, len(real)))
    caption = (
        f"Sliced Wasserstein distance W\u2082 of the table, between {len(real):,} samples and as "
        "many test rows, against the evaluations of the network that one sample took; each "
        "family\u2019s own sampler with 1 to 64 steps, fewer where that is slow. Dashed: training "
        "rows in place of samples. Curves are single draws; near the floor their order is noise."
        f"{_seed_note(board)}"
    )
    draw = partial(drawing.plot_nfe_curves, curves=curves, floor=floor)
    panels = [_render_panel("", draw, (7.4, 3.0))] if curves else []
    return _ReportFigure("Quality against cost", caption, panels, "full")


def _loss_figure(runs: list[_PlottedRun]) -> _ReportFigure:
    panels = []
    for run in runs:
        if history := run.model.history:
            diagnoses = run.model.config.get("diagnoses") or ()
            draw = partial(drawing.plot_losses, history=history, diagnoses=diagnoses)
            panels.append(_render_panel(run.name, draw, (3.4, 2.2)))
    caption = (
        "Every term of each loss against the training step, as the mean over a short window; "
        "orange dots are the loss on rows held out of training, on the same noise each time. "
        "Losses of different families are different quantities and cannot be compared."
    )
    return _ReportFigure("Training", caption, panels, "medium")
