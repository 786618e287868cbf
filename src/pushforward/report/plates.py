"""The figures of a comparison: what is drawn for which data, and the captions that say so."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..comparison import PRIMARY, Comparison, Entry
from ..diffusion import Diffusion
from ..model import Likelihood
from . import panels, probes, style, words

SQUARE = (2.3, 2.3)
WIDE = (5.3, 2.6)
DEPTH = 8.0  # nats below the highest density that a map shows
ROWS = 500  # samples for each point of quality against evaluations


class Panel(NamedTuple):
    """One image with a line of text.

    Arguments:
        label: What it shows, e.g. a family.
        image: The address of an inline SVG.
        note: A remark in smaller type.
    """

    label: str
    image: str
    note: str = ""


class Plate(NamedTuple):
    """A numbered figure: panels that share one caption.

    Arguments:
        title: What the figure is.
        caption: What is seen, and how it was made.
        panels: The images.
        layout: "small", "wide" or "full": how much of the page a panel takes.
    """

    title: str
    caption: str
    panels: list[Panel]
    layout: str = "small"


def panel(
    label: str, draw: Callable[[Axes], None], size: tuple[float, float] = SQUARE, note: str = ""
) -> Panel:
    """Draw one panel."""
    return Panel(label, style.drawing(draw, size), note)


def shown(comparison: Comparison) -> list[Entry]:
    """The first run of each family that succeeded, in the order of the leaderboard."""
    first: dict[str, Entry] = {}
    for e in comparison.entries:
        if not e.error and e.generated is not None and e.model is not None:
            first.setdefault(e.family, e)
    return [first[r["family"]] for r in comparison.table if r["family"] in first]


def plates(comparison: Comparison) -> list[Plate]:
    """Every figure that the data and the families have."""
    entries = shown(comparison)
    if not entries:
        return []
    made = [
        intervals(comparison),
        *SAMPLES[probes.kind(comparison.schema.event)](comparison, entries),
    ]
    made += [likelihoods(comparison, entries), trajectories(comparison, entries)]
    made += [evaluations(comparison, entries), training(entries)]
    return [plate for plate in made if plate is not None and plate.panels]


def seeds_note(comparison: Comparison) -> str:
    """Which run is drawn when there are several."""
    several = len({e.seed for e in comparison.entries}) > 1
    return f" Drawn for seed {comparison.entries[0].seed}." if several else ""


def intervals(comparison: Comparison) -> Plate:
    """The leaderboard as a figure: energy distances with their intervals, and the floor."""
    rows = [r for r in comparison.table if r[PRIMARY]]

    def draw(axes: Axes) -> None:
        for i, row in enumerate(rows):
            e, first = row[PRIMARY], row["rank"] == 1
            colour = style.MODEL if first else style.QUIET
            axes.plot([e.low, e.high], [i, i], color=colour, linewidth=1.6)
            face = colour if first else "white"
            axes.plot(e.value, i, "o", color=colour, markerfacecolor=face, markersize=4.5)
        floor = rows[0][PRIMARY].floor
        if np.isfinite(floor):
            axes.axvline(floor, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)))
        low, high = (np.array([getattr(r[PRIMARY], s) for r in rows]) for s in ("low", "high"))
        panels.spread(axes, low, high)
        axes.set_yticks(range(len(rows)), [words.title(r["family"]) for r in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="energy distance")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#ececec", linewidth=0.6)

    size = (7.4, 0.62 + 0.24 * len(rows))
    caption = (
        "Energy distance between samples and test rows, smaller is better: estimate and 95 % "
        "interval. Filled blue marks are the families that the data do not separate from the "
        "first. The dashed line is the floor: the same distance between two sets of real rows. "
        "Where the axis is logarithmic, it is linear near zero."
    )
    return Plate("Leaderboard", caption, [panel("", draw, size)], "full")


def line_samples(comparison: Comparison, entries: list[Entry]) -> list[Plate]:
    """One column: histograms with densities."""
    data = comparison.test[:, 0]
    column = comparison.schema.columns[0]
    where = panels.box(comparison.test)
    bins = panels.edges(data, column.integer, where)
    grid = np.linspace(bins[0], bins[-1], 301)
    exact = None if column.integer else probes.known_density(comparison.dataset, grid[:, None])

    def draw(axes: Axes, e: Entry) -> None:
        panels.histogram(axes, data, e.generated[:, 0], bins)
        if exact is not None:
            panels.curve(axes, grid, exact, exact=True)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # set by the data: a spike is cut off
        own = probes.grid_density(e.model, grid[:, None])
        if own is not None:
            panels.curve(axes, grid, own, exact=False)
        axes.set_xlabel(panels.named(column.name))

    caption = (
        f"Grey bars: {len(data):,} test rows. Blue steps: as many samples. Orange line: the "
        "density that the model itself states, where it has one"
        + ("; dashed black line: the exact density of the data." if exact is not None else ".")
        + seeds_note(comparison)
    )
    made = [
        panel(words.title(e.family), lambda axes, e=e: draw(axes, e), (3.3, 2.0), stated(e))
        for e in entries
    ]
    return [Plate("Samples beside data", caption, made, "medium")]


def stated(e: Entry) -> str:
    """Which kind of density a family states."""
    bound = e.likelihood is Likelihood.LOWER_BOUND
    return "lower bound" if bound else ""


def plane_samples(comparison: Comparison, entries: list[Entry]) -> list[Plate]:
    """Two columns: scatter plots."""
    caption = (
        f"Test rows (grey) and samples of each family (blue), {panels.POINTS:,} points or fewer "
        "each, on the same axes; the share of samples outside them is named."
        + seeds_note(comparison)
    )
    names = comparison.schema.names
    made = clouds(comparison.test, [(e, e.generated) for e in entries], (names[0], names[1]))
    return [Plate("Samples beside data", caption, made)]


def clouds(
    data: np.ndarray, drawn: list[tuple[Entry, np.ndarray]], names: tuple[str, str] | None
) -> list[Panel]:
    """Scatter plots of the data and of every family on the same axes."""
    where = panels.box(data)
    made = [panel("test data", lambda a: panels.scatter(a, data, where, style.DATA, names))]
    for e, x in drawn:
        outside = where.count_outside(x)
        made.append(
            panel(
                words.title(e.family),
                lambda a, x=x: panels.scatter(a, x, where, style.MODEL, names),
                note=f"{words.percent(outside / len(x))} outside" if outside else "",
            )
        )
    return made


def table_samples(comparison: Comparison, entries: list[Entry]) -> list[Plate]:
    """More columns: marginal histograms, and the two main directions of the data."""
    data = flat(comparison.test)
    some = f" The first {panels.COLUMNS} of {data.shape[1]} columns."
    caption = (
        f"Grey bars: {len(data):,} test rows. Blue steps: as many samples."
        + some * (data.shape[1] > panels.COLUMNS)
        + seeds_note(comparison)
    )

    def strip(e: Entry) -> Panel:
        with style.styled():
            figure = Figure(figsize=WIDE, layout="constrained")
            panels.marginals(figure, data, flat(e.generated), comparison.schema.columns)
            return Panel(words.title(e.family), style.address(figure))

    marginals = Plate("Marginals", caption, [strip(e) for e in entries], "wide")
    return [marginals, principal(comparison, entries)]


def flat(x: np.ndarray) -> np.ndarray:
    """Rows of numbers."""
    return x.reshape(len(x), -1)


def principal(comparison: Comparison, entries: list[Entry]) -> Plate:
    """Projections on the two main directions of the standardised training rows."""
    rows = panels.thin(flat(comparison.train), 5000)
    mean, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    _, s, axes = np.linalg.svd((rows - mean) / scale, full_matrices=False)
    share = (s**2 / (s**2).sum())[:2].sum()

    def project(x: np.ndarray) -> np.ndarray:
        return (flat(x) - mean) / scale @ axes[:2].T

    drawn = [(e, project(e.generated)) for e in entries]
    caption = (
        "Test rows (grey) and samples (blue) along the two directions in which the standardised "
        f"training rows vary most; they hold {words.percent(share)} of the variance."
        + seeds_note(comparison)
    )
    made = clouds(project(comparison.test), drawn, None)
    return Plate("Main directions", caption, made)


def image_samples(comparison: Comparison, entries: list[Entry]) -> list[Plate]:
    """Images: squares of real and of generated ones."""
    low, high = float(comparison.train.min()), float(comparison.train.max())
    side = 6 if min(comparison.schema.event[-2:]) <= 16 else 4

    def square(label: str, x: np.ndarray) -> Panel:
        return panel(label, lambda axes: panels.images(axes, x, side, low, high))

    made = [square("test data", comparison.test)]
    made += [square(words.title(e.family), e.generated) for e in entries]
    caption = (
        f"The first {side**2} test images, and the first {side**2} images that each family drew: "
        f"not chosen. Black is {low:g}, white is {high:g}." + seeds_note(comparison)
    )
    return [Plate("Samples beside data", caption, made)]


SAMPLES: dict[str, Callable[[Comparison, list[Entry]], list[Plate]]] = {
    "line": line_samples,
    "plane": plane_samples,
    "table": table_samples,
    "images": image_samples,
}


def likelihoods(comparison: Comparison, entries: list[Entry]) -> Plate | None:
    """Maps of the log-density over the plane, beside the exact one where it is known."""
    if probes.kind(comparison.schema.event) != "plane":
        return None
    where = panels.box(comparison.test)
    points = probes.lattice(where)
    maps = [
        (words.title(e.family), probes.grid_density(e.model, points), stated(e)) for e in entries
    ]
    exact = probes.known_density(comparison.dataset, points)
    maps = [m for m in maps if m[1] is not None]
    if not maps:
        return None
    reference = exact if exact is not None else np.stack([m[1] for m in maps])
    finite = reference[np.isfinite(reference)]
    top = float(finite.max() if exact is not None else np.quantile(finite, 0.999))
    limits = (top - DEPTH, top)
    if exact is not None:
        maps.insert(0, ("exact density", exact, ""))
    made = [
        panel(
            name,
            lambda axes, m=m: panels.density(
                axes, m.reshape(probes.GRID, probes.GRID), where, limits
            ),
            note=n,
        )
        for name, m, n in maps
    ]
    made.append(panel("scale", lambda axes: panels.scale(axes, limits), (2.3, 0.75)))
    caption = (
        f"Log-density in nats at {probes.GRID} \u00d7 {probes.GRID} points, in the units of the "
        f"data. All panels have one colour scale; white is {DEPTH:g} nats or more below its "
        "top. Flows are integrated to a tolerance of 0.01; families without a density are left out."
        + seeds_note(comparison)
    )
    return Plate("Log-density", caption, made)


def trajectories(comparison: Comparison, entries: list[Entry]) -> Plate | None:
    """The ways of points from noise to data, in the plane."""
    if probes.kind(comparison.schema.event) != "plane":
        return None
    where = panels.box(comparison.test, margin=0.25)
    made = []
    for e in entries:
        if isinstance(e.model.model, Diffusion):
            states = probes.ways(e.model, e.model.model)
            name, note = words.title(e.family), f"{len(states) - 1} steps"
            made.append(
                panel(name, lambda a, s=states: panels.trajectories(a, s, where), note=note)
            )
    caption = (
        "Forty points on their way from noise (open circles) to data (black dots) under each "
        "family\u2019s own sampler, in the units of the data. Noise of large scale starts outside "
        "the frame." + seeds_note(comparison)
    )
    return Plate("From noise to data", caption, made)


def evaluations(comparison: Comparison, entries: list[Entry]) -> Plate | None:
    """Quality against the cost of sampling, for families whose steps can be chosen."""
    real = panels.thin(comparison.test, ROWS)
    curves = [
        (e.family, list(probes.quality(e.model, e.model.model, real)))
        for e in entries
        if isinstance(e.model.model, Diffusion)
    ]
    if not curves:
        return None
    floor = probes.distance(real, panels.thin(comparison.train, len(real)))

    def draw(axes: Axes) -> None:
        for i, (family, points) in enumerate(curves):
            axes.plot(
                *np.array(points).T,
                color=style.LINES[i % 8],
                linestyle=style.DASHES[i % 8],
                marker=style.MARKS[i % 8],
                markeredgecolor="white",
                markeredgewidth=0.4,
                label=words.title(family),
            )
        axes.axhline(floor, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)), label="floor")
        panels.logarithmic(axes, "x")
        panels.logarithmic(axes, "y")
        axes.set(xlabel="network evaluations for one sample", ylabel="sliced W\u2082")
        axes.grid(color="#ececec", linewidth=0.6)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    caption = (
        f"Sliced Wasserstein distance W\u2082 between {len(real):,} samples and as many test rows, "
        "columns standardised, against the evaluations of the network that one sample took; each "
        "family\u2019s own sampler with 1 to 64 steps. Dashed: training rows in place of samples. "
        "Curves are single draws; near the floor their order is noise." + seeds_note(comparison)
    )
    return Plate("Quality against cost", caption, [panel("", draw, (7.4, 3.0))], "full")


def training(entries: list[Entry]) -> Plate:
    """Every named term of every loss."""
    made = [
        panel(
            words.title(e.family),
            lambda axes, e=e: panels.losses(axes, e.model.history),
            (3.4, 2.2),
        )
        for e in entries
        if e.model.history
    ]
    caption = (
        "Every term of each loss against the training step, as the mean over a short window; "
        "orange dots are the loss on rows held out of training, on the same noise each time. "
        "Losses of different families are different quantities and cannot be compared."
    )
    return Plate("Training", caption, made, "medium")
