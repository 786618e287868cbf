"""The figures of a comparison, and the captions that say what is seen and how it was made."""

from functools import partial

from matplotlib.axes import Axes

from .. import formatting
from ..diffusion import Diffusion
from ..plots import drawing, grids
from . import sample_figures
from .figure import PlottedRun, ReportFigure, render_panel, runs_to_plot, seed_note
from .leaderboard import PRIMARY, Comparison

DEPTH = 8.0  # nats below the highest density that a map shows
ROWS = 500  # samples for each point of quality against evaluations


def report_figures(comparison: Comparison) -> list[ReportFigure]:
    """Every figure that the data and the families have."""
    runs = runs_to_plot(comparison)
    if not runs:
        return []
    kind = grids.plot_kind(comparison.schema.event)
    made = [leaderboard_figure(comparison), *sample_figures.KINDS[kind](comparison, runs)]
    if kind == "plane":
        made += [likelihood_figure(comparison, runs), trajectory_figure(comparison, runs)]
    made += [nfe_figure(comparison, runs), loss_figure(runs)]
    return [plate for plate in made if plate.panels]


def leaderboard_figure(comparison: Comparison) -> ReportFigure:
    """Energy distances with their intervals, and the floor."""
    rows = [r for r in comparison.table if r[PRIMARY]]
    estimates = [r[PRIMARY] for r in rows]

    def draw(axes: Axes) -> None:
        first = [r["rank"] == 1 for r in rows]
        drawing.plot_intervals(axes, [e[:4] for e in estimates], first)
        axes.set_yticks(range(len(rows)), [formatting.display_name(r["family"]) for r in rows])
        axes.set_xlabel("energy distance")

    caption = (
        "Energy distance between samples and test rows, smaller is better: estimate and 95 % "
        "interval. Filled blue marks are the families that the data do not separate from the "
        "first. The dashed line is the floor: the same distance between two sets of real rows. "
        "Where the axis is logarithmic, it is linear near zero."
    )
    size = (7.4, 0.62 + 0.24 * len(rows))
    return ReportFigure("Leaderboard", caption, [render_panel("", draw, size)], "full")


def likelihood_figure(comparison: Comparison, runs: list[PlottedRun]) -> ReportFigure:
    """Maps of the log-density over the plane, beside the exact one where it is known."""
    where = drawing.data_limits(comparison.test)
    points = grids.grid_points(where)
    exact = grids.known_log_density(comparison.dataset, points)
    maps = [
        (r.name, grids.grid_log_density(r.model, points), sample_figures.likelihood_note(r.model))
        for r in runs
    ]
    own = [(name, log_p, note) for name, log_p, note in maps if log_p is not None]
    top = grids.peak_log_density([log_p for _, log_p, _ in own] if exact is None else [exact])
    caption = (
        f"Log-density in nats at {grids.GRID} \u00d7 {grids.GRID} points, in the units of the "
        f"data. All panels have one colour scale; white is {DEPTH:g} nats or more below its top. "
        f"Flows are integrated to a tolerance of {grids.MAP:g}. Families without a density are "
        "left out." + seed_note(comparison)
    )
    if top is None or not own:
        return ReportFigure("Log-density", caption, [])
    shown = own if exact is None else [("exact density", exact, ""), *own]
    limits = (top - DEPTH, top)
    draw = partial(drawing.plot_density_map, where=where, limits=limits)
    made = [
        render_panel(name, partial(draw, log_p=log_p), note=note) for name, log_p, note in shown
    ]
    made.append(
        render_panel("scale", partial(drawing.plot_colour_scale, limits=limits), (2.3, 0.75))
    )
    return ReportFigure("Log-density", caption, made)


def trajectory_figure(comparison: Comparison, runs: list[PlottedRun]) -> ReportFigure:
    """The ways of points from noise to data, in the plane."""
    where = drawing.data_limits(comparison.test, margin=0.25)
    made = []
    for run in runs:
        if isinstance(run.model.model, Diffusion):
            states = grids.sampler_trajectories(run.model, run.model.model)
            draw = partial(drawing.plot_trajectories, states=states, where=where)
            made.append(render_panel(run.name, draw, note=f"{len(states) - 1} steps"))
    caption = (
        "Forty points on their way from noise (open circles) to data (black dots) under each "
        "family\u2019s own sampler, in the units of the data. Noise of large scale starts outside "
        "the frame." + seed_note(comparison)
    )
    return ReportFigure("From noise to data", caption, made)


def nfe_figure(comparison: Comparison, runs: list[PlottedRun]) -> ReportFigure:
    """Quality against the cost of sampling, for families whose steps can be chosen."""
    real = drawing.evenly_spaced_rows(comparison.test, ROWS)
    curves = {
        r.name: list(grids.quality_by_steps(r.model, r.model.model, real))
        for r in runs
        if isinstance(r.model.model, Diffusion)
    }
    curves = {name: points for name, points in curves.items() if points}
    floor = grids.standardised_distance(
        real, drawing.evenly_spaced_rows(comparison.train, len(real))
    )
    caption = (
        f"Sliced Wasserstein distance W\u2082 of the table, between {len(real):,} samples and as "
        "many test rows, against the evaluations of the network that one sample took; each "
        "family\u2019s own sampler with 1 to 64 steps, fewer where that is slow. Dashed: training "
        "rows in place of samples. Curves are single draws; near the floor their order is noise."
        + seed_note(comparison)
    )
    draw = partial(drawing.plot_nfe_curves, curves=curves, floor=floor)
    made = [render_panel("", draw, (7.4, 3.0))] if curves else []
    return ReportFigure("Quality against cost", caption, made, "full")


def loss_figure(runs: list[PlottedRun]) -> ReportFigure:
    """Every named term of every loss."""
    made = [
        render_panel(
            r.name,
            partial(
                drawing.plot_losses,
                history=r.model.history,
                diagnoses=r.model.config.get("diagnoses") or (),
            ),
            (3.4, 2.2),
        )
        for r in runs
        if r.model.history
    ]
    caption = (
        "Every term of each loss against the training step, as the mean over a short window; "
        "orange dots are the loss on rows held out of training, on the same noise each time. "
        "Losses of different families are different quantities and cannot be compared."
    )
    return ReportFigure("Training", caption, made, "medium")
