"""One-page figures of a run, and of its latent space.

The first shows the training, the samples and, in the plane, the density; the second the encoded
data and what the latents decode to.
"""

import base64
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from .. import files
from ..data import conditions, reading
from ..data.builtin import datasets
from ..errors import UsageError
from ..formatting import count_noun, display_name, duration_text
from ..inference.fitted_model import FittedModel
from ..inference.latents import decode_quantile_lattice
from ..theory.bounds import ACTIVE
from . import drawing, grids, style

ROWS = 2000
SHOWN = 4  # monitored steps whose images are shown
ENCODED = 4000  # rows that are encoded
SIDE = 12  # images along a side of the lattice of latents
FOLLOWED = 6  # columns that are drawn while a latent moves
FINE = np.linspace(-3, 3, 61)
Part = Figure | SubFigure
Panel = tuple[float, Callable[[Part], None]]  # its width in inches, and what draws it
Draw = Callable[[Axes], None]
Real = np.ndarray | None  # data to draw with the samples


def plot_run(fitted: FittedModel, path: Path, *, data: Any = None, seed: int = 0) -> Path:
    """Loss curves and samples, beside data of the same kind in grey, and the density on a plane."""
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
    facts = [display_name(fitted.family), count_noun(fitted.parameters, "parameter")]
    if fitted.history:
        facts.append(count_noun(fitted.history[-1]["step"], "step"))
    if (seconds := fitted.config.get("seconds")) is not None:
        facts.append(duration_text(seconds))
    return "  \u00b7  ".join(facts)


def _training_panels(fitted: FittedModel) -> list[Panel]:
    history, panels = fitted.history, list[Panel]()
    if history:
        diagnoses = fitted.config.get("diagnoses") or ()
        panels.append((4.0, lambda p: drawing.plot_losses(p.add_subplot(), history, diagnoses)))
    if monitored_steps(history):
        panels.append((4.0, lambda part: _plot_monitor(part, history, fitted.config["watched"])))
    return panels


def _sample_panels(fitted: FittedModel, real: Real, seed: int) -> list[Panel]:
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
    return [line for line in history if "pictures" in line]


def decode_sheet(sheet: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))))


def _plot_monitor(part: Part, history: list[dict[str, Any]], facts: dict[str, Any]) -> None:
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


# the latent space


class _EncodedData(NamedTuple):
    x: np.ndarray  # as numbers, (n, *event)
    y: np.ndarray | None  # conditions
    labels: np.ndarray | None  # classes: the conditions, or those of a built-in data set
    z: np.ndarray  # latents, (n, latent)
    order: np.ndarray  # of latents, from the one whose encoding varies most to the least

    @property
    def active(self) -> int:
        return int((self.z.var(0) > ACTIVE).sum())

    @property
    def condition(self) -> np.ndarray | None:
        return None if self.y is None else self.y[:1]


def plot_latents(fitted: FittedModel, path: Path, data: Any = None, y: Any = None) -> Path:
    """Draw encoded data over the two most active latents, and what the latents decode to.

    Without ``data`` those of the run are encoded, if it knows where they are. Latents are decoded
    under the condition of the first row.
    """
    path = files.check_figure_path(path)
    found = encode_for_plot(fitted, data, y)
    scatter = partial(_plot_latent_scatter, found=found)
    parts: list[Draw] = [scatter, *_decoding_plots(fitted, found)]
    with style.written_figure(path, (3.3 * len(parts), 3.4)) as figure:
        for axes, draw in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts):
            draw(axes)
    return path


def encode_for_plot(fitted: FittedModel, data: Any, y: Any) -> _EncodedData:
    config = fitted.config
    data = config.get("source") if data is None else data
    if data is None:
        raise UsageError("the run was fitted to data in memory: name data to encode")
    if y is None and isinstance(data, str) and config.get("condition"):
        found = reading.read_dataset(data, condition=config["condition"])
    else:
        found = reading.read_with_schema(data, fitted.schema, y=y)
    rows = np.linspace(0, len(found.x) - 1, min(len(found.x), ENCODED)).astype(int)
    known = found.y
    if known is not None:  # one for each row, or one for all
        known = known[rows] if len(known) == len(found.x) else known.repeat(len(rows), axis=0)
    z = fitted.encode(fitted.schema.restore(found.x[rows]), known)
    z = z.reshape(len(z), -1)
    labels = known
    if known is None and isinstance(data, str) and data in datasets.names():
        every = datasets.load(data).y
        labels = None if every is None else every[rows]
    return _EncodedData(found.x[rows], known, labels, z, np.argsort(-z.var(0), kind="stable"))


def _plot_latent_scatter(axes: Axes, found: _EncodedData) -> None:
    axes.set_title(f"{found.active} of {count_noun(found.z.shape[1], 'latent')} active")
    if found.z.shape[1] == 1:
        bins = np.linspace(-4, 4, 61)
        drawing.plot_histogram(axes, None, found.z[:, 0], bins)
        drawing.plot_density_curve(axes, bins, -(bins**2 + np.log(2 * np.pi)) / 2, exact=True)
        axes.set_xlabel("latent 0")
        return
    pair = found.z[:, found.order[:2]]
    reach = max(3.2, float(np.quantile(np.abs(pair), 0.998)))
    where = drawing.AxesLimits(np.full(2, -reach), np.full(2, reach))
    classes = _class_groups(found.labels, len(pair))
    for look, rows in classes:
        axes.scatter(pair[rows, 0], pair[rows, 1], alpha=0.6, linewidths=0, rasterized=True, **look)
    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=style.INK, linewidth=0.6))
    names = [f"latent {k}" for k in found.order[:2]]
    drawing.frame_axes(axes, where, (names[0], names[1]))
    if len(classes) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=2, handletextpad=0)


def _class_groups(labels: np.ndarray | None, n: int) -> list[tuple[dict[str, Any], np.ndarray]]:
    classes = [] if labels is None or labels.ndim > 1 else list(np.unique(labels))
    if not 1 < len(classes) <= 10:
        return [({"color": style.MODEL, "s": 4}, np.ones(n, bool))]
    found = []
    for i, name in enumerate(classes):
        round_, colour = divmod(i, len(style.LINES))
        label = style.clean_label(conditions.to_python_scalar(name), 12)
        look = {"color": style.LINES[colour], "marker": style.MARKS[round_], "s": 4, "label": label}
        found.append((look, labels == name))
    return found


def _decoding_plots(fitted: FittedModel, found: _EncodedData) -> Sequence[Draw]:
    kind = grids.plot_kind(fitted.schema.event)
    if kind == "images":
        square = partial(_plot_image_lattice, fitted=fitted, found=found)
        rows = partial(_plot_image_traversals, fitted=fitted, found=found)
        return {1: [rows], 2: [square]}.get(len(found.order), [square, rows])
    if kind == "plane":
        return [partial(_plot_latent_net, fitted=fitted, found=found)]
    curves = partial(_plot_latent_curves, fitted=fitted, found=found)
    return [partial(curves, unit=k) for k in found.order[:2].tolist()]


def _plot_decoded_images(axes: Axes, fitted: FittedModel, x: np.ndarray) -> None:
    column = fitted.schema.columns[0]
    drawing.plot_image_grid(axes, x.reshape(-1, *x.shape[2:]), SIDE, column.low, column.high)


def _plot_image_lattice(axes: Axes, fitted: FittedModel, found: _EncodedData) -> None:
    units = found.order[:2].tolist()
    x = decode_quantile_lattice(fitted.pipeline, found.condition, units=units, side=SIDE)
    _plot_decoded_images(axes, fitted, x)
    axes.set_title(f"decoded quantiles of latents {units[0]} \u2192 and {units[1]} \u2191")


def _plot_image_traversals(axes: Axes, fitted: FittedModel, found: _EncodedData) -> None:
    units, values = found.order[:SIDE].tolist(), np.linspace(-3, 3, SIDE)
    x = fitted.traverse(y=found.condition, units=units, values=values)
    _plot_decoded_images(axes, fitted, x)
    height = (axes.images[0].get_size()[0] + 1) / SIDE  # of an image with the line under it
    axes.set_ylim(len(units) * height - 1.5, -0.5)
    for row, unit in enumerate(units):
        axes.text(-1.5, (row + 0.5) * height - 1, str(unit), ha="right", va="center", fontsize=6)
    axes.set_title("each row: one latent from \u22123 to 3")


def _plot_latent_net(axes: Axes, fitted: FittedModel, found: _EncodedData) -> None:
    """The decoded latent plane as a net over the data; equal mass lies between its lines."""
    names = fitted.schema.names
    where = drawing.data_limits(found.x, tail=0.01)
    drawing.plot_scatter(axes, found.x, where, style.DATA, (names[0], names[1]))
    if found.z.shape[1] == 1:
        lines = fitted.traverse(y=found.condition, values=FINE)
    else:
        units = found.order[:2]
        x = decode_quantile_lattice(fitted.pipeline, found.condition, units=units, side=2 * SIDE)
        lines = np.concatenate([x, x.swapaxes(0, 1)])
    for line in lines:
        axes.plot(*line.T, color=style.MODEL, linewidth=0.5)
    axes.set_title("decoded quantiles of two latents" if len(lines) > 1 else "decoded latent")


def _plot_latent_curves(axes: Axes, fitted: FittedModel, found: _EncodedData, unit: int) -> None:
    x = fitted.traverse(y=found.condition, units=[unit], values=FINE)[0].reshape(len(FINE), -1)
    rows = found.x.reshape(len(found.x), -1)
    scale, names = rows.std(0), fitted.schema.names
    moved = (x - rows.mean(0)) / np.where(scale > 0, scale, 1.0)
    for i, j in enumerate(np.argsort(-np.ptp(moved, axis=0), kind="stable")[:FOLLOWED]):
        name = names[j] if len(names) > 1 else f"entry {j}"
        axes.plot(FINE, moved[:, j], label=style.clean_label(name), **style.line_look(i))
    axes.set(xlabel=f"latent {unit}", ylabel="decoded, in standard deviations")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.2)
