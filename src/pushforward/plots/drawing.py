"""Plots on one axes, for every kind of data."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from ..data.schema import ColumnSchema
from ..networks.layout import image_layout
from . import style

COLUMNS = 8  # marginals drawn of a wide table
NO_LOSS = ("step", "seconds", "left", "distance", "pictures", "watching")  # of a history
POINTS = 1500  # dots that a panel of two inches can show
MOST_INTEGERS = 40  # up to so many values a histogram has one bar each


class AxesLimits(NamedTuple):
    low: np.ndarray
    high: np.ndarray

    def count_outside(self, x: np.ndarray) -> int:
        return int(((x < self.low) | (x > self.high)).any(1).sum())


def data_limits(x: np.ndarray, tail: float = 0.002, margin: float = 0.12) -> AxesLimits:
    """Where the data are, outliers aside: of rows of any shape, column by column."""
    low, high = np.quantile(x.reshape(len(x), -1), [tail, 1 - tail], axis=0)
    wide = np.where(high > low, high - low, 1.0)
    return AxesLimits(low - margin * wide, high + margin * wide)


def evenly_spaced_rows(x: np.ndarray, most: int = POINTS) -> np.ndarray:
    return x if len(x) <= most else x[np.linspace(0, len(x) - 1, most).astype(int)]


def frame_axes(axes: Axes, where: AxesLimits, names: tuple[str, str] | None = None) -> None:
    axes.set(xlim=(where.low[0], where.high[0]), ylim=(where.low[1], where.high[1]))
    axes.set_box_aspect(1)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    if names:
        axes.set(xlabel=axis_name(names[0]), ylabel=axis_name(names[1]))


def axis_name(column: str | int) -> str:
    return "" if isinstance(column, int) or column.isdigit() else style.clean_label(column)


def plot_scatter(
    axes: Axes, x: np.ndarray, where: AxesLimits, colour: str, names: Any = None
) -> None:
    x = evenly_spaced_rows(x)
    size = 3.2 if len(x) > 400 else 9
    axes.scatter(x[:, 0], x[:, 1], s=size, c=colour, alpha=0.5, linewidths=0, rasterized=True)
    frame_axes(axes, where, names)


def plot_density_map(
    axes: Axes, log_p: np.ndarray, where: AxesLimits, limits: tuple[float, float]
) -> None:
    side = math.isqrt(len(log_p))
    axes.imshow(
        log_p.reshape(side, side),
        origin="lower",
        extent=(where.low[0], where.high[0], where.low[1], where.high[1]),
        vmin=limits[0],
        vmax=limits[1],
        cmap=style.DENSITY,
        aspect="auto",
        interpolation="bilinear",
    )
    frame_axes(axes, where)


def plot_colour_scale(axes: Axes, limits: tuple[float, float]) -> None:
    ramp = np.linspace(*limits, 256)[None]
    axes.imshow(ramp, extent=(*limits, 0, 1), aspect="auto", cmap=style.DENSITY)
    axes.set(yticks=[], xlabel="log-density, nats")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def histogram_edges(data: np.ndarray, integer: bool, where: AxesLimits | None = None) -> np.ndarray:
    low, high = data.min(), data.max()
    if integer and high - low < MOST_INTEGERS:
        return np.arange(low - 0.5, high + 1)
    if where is not None:
        low, high = where.low[0], where.high[0]
    bins = int(np.clip(np.sqrt(len(data)) * 1.2, 8, 60))
    return np.linspace(low, high if high > low else low + 1, bins + 1)


def plot_histogram(axes: Axes, data: np.ndarray | None, x: np.ndarray, bins: np.ndarray) -> None:
    """Heights are per unit of the axis over *all* rows: mass outside is seen as missing."""
    widths = np.diff(bins)
    if data is not None:
        heights = np.histogram(data, bins)[0] / len(data) / widths
        axes.stairs(heights, bins, fill=True, color=style.FILL, linewidth=0)
    heights = np.histogram(x, bins)[0] / max(len(x), 1) / widths
    axes.stairs(heights, bins, color=style.MODEL, linewidth=1.1)
    axes.set(xlim=(bins[0], bins[-1]), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def plot_marginals(
    figure: Figure | SubFigure,
    data: np.ndarray | None,
    x: np.ndarray,
    columns: Sequence[ColumnSchema],
) -> None:
    d = min(x.shape[1], COLUMNS)
    several = len(columns) > 1  # an array of higher rank has one column for all entries
    grid = figure.subplots(-(-d // 4), min(d, 4), squeeze=False)
    for axes in grid.flat[d:]:
        axes.set_axis_off()
    for j, axes in enumerate(grid.flat[:d]):
        column, name = (columns[j], columns[j].name) if several else (columns[0], f"entry {j + 1}")
        real = None if data is None else data[:, j]
        base = x[:, j] if real is None else real
        bins = histogram_edges(base, column.integer, data_limits(base))
        plot_histogram(axes, real, x[:, j], bins)
        axes.set_title(style.clean_label(name, 18), fontsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(2))


def plot_density_curve(axes: Axes, grid: np.ndarray, log_p: np.ndarray, exact: bool) -> None:
    colour, dashes = (style.INK, (0, (3, 1.5))) if exact else (style.SECOND, "-")
    axes.plot(grid, np.exp(log_p), color=colour, linestyle=dashes, linewidth=1.0)


def image_mosaic(x: np.ndarray, side: int, low: float, high: float) -> np.ndarray:
    """From ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)``; black at low, white at high."""
    x = x[..., None] if x.ndim == 3 else np.moveaxis(x, image_layout(x.shape[1:]).axis, -1)
    x = x[..., :3] if x.shape[-1] >= 3 else x[..., :1]
    x = np.clip((x[: side**2] - low) / (high - low or 1.0), 0, 1)
    h, w, c = x.shape[1:]
    sheet = np.ones((side * (h + 1) - 1, side * (w + 1) - 1, c))  # a line of white between
    for k, image in enumerate(x):
        i, j = divmod(k, side)
        sheet[i * (h + 1) : i * (h + 1) + h, j * (w + 1) : j * (w + 1) + w] = image
    return sheet[..., 0] if c == 1 else sheet


def plot_image_grid(axes: Axes, x: np.ndarray, side: int, low: float, high: float) -> None:
    sheet = image_mosaic(x, side, low, high)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def plot_losses(axes: Axes, history: list[dict[str, Any]], diagnoses: Sequence[str] = ()) -> None:
    latest = {k: row[k] for row in history for k in diagnoses if k in row}
    names = list(dict.fromkeys(k for row in history for k in row))
    names = [k for k in names if k not in latest and k not in NO_LOSS]
    for i, name in enumerate(names):
        rows = [r for r in history if name in r]
        look = style.line_look(i)
        if name == "validation":
            look = {"color": style.SECOND, "linestyle": "none", "marker": "o", "markersize": 2.2}
        label = style.clean_label(name.replace("_", " "), 22)
        steps, values = [r["step"] for r in rows], [r[name] for r in rows]
        axes.plot(steps, values, linewidth=0.9, label=label, **look)
    ends = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in list(latest.items())[:3]]
    axes.set(xlabel="; ".join(["step", *ends]), ylim=_robust_limits(history, names))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)


def _robust_limits(history: list[dict[str, Any]], names: list[str]) -> tuple[float, float] | None:
    late = history[len(history) // 20 :]
    values = [r[k] for r in late for k in names if k in r and np.isfinite(r[k])]
    if not values:
        return None
    low, high = np.quantile(values, [0.002, 0.998])
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return float(low - margin), float(high + margin)


def plot_trajectories(axes: Axes, states: np.ndarray, where: AxesLimits) -> None:
    axes.plot(*np.moveaxis(states, -1, 0), color=style.MODEL, linewidth=0.6, alpha=0.55)
    noise: dict[str, Any] = {"facecolors": "white", "edgecolors": style.QUIET, "linewidths": 0.6}
    for (x, y), look in ((states[0].T, noise), (states[-1].T, {"c": style.INK, "zorder": 3})):
        axes.scatter(x, y, s=7, **{"linewidths": 0} | look)
    frame_axes(axes, where)


def _set_log_axis(axes: Axes, which: str) -> None:
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    narrow = low > 0 and high / low < 30
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(style.format_log_tick))
    axis.set_minor_formatter(FuncFormatter(lambda value, position: ""))


def plot_intervals(
    axes: Axes, estimates: Sequence[tuple[float, float, float, float]], filled: Sequence[bool]
) -> None:
    """Estimates are (value, low, high, floor), from above; the first floor is a dashed line."""
    for i, ((value, low, high, _), full) in enumerate(zip(estimates, filled)):
        colour = style.MODEL if full else style.QUIET
        axes.plot([low, high], [i, i], color=colour, linewidth=1.6)
        face = colour if full else "white"
        axes.plot(value, i, "o", color=colour, markerfacecolor=face, markersize=4.5)
    floor = estimates[0][3]
    if np.isfinite(floor):
        axes.axvline(floor, color=style.INK, linewidth=0.8, linestyle=style.FLOOR)
    _set_symlog_axis(axes, np.array([e[1] for e in estimates]), np.array([e[2] for e in estimates]))
    axes.set_ylim(len(estimates) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=style.RULE, linewidth=0.6)


def plot_nfe_curves(axes: Axes, curves: dict[str, list[tuple[int, float]]], floor: float) -> None:
    for i, (name, points) in enumerate(curves.items()):
        mark = {"marker": style.MARKS[i % len(style.MARKS)], "markeredgecolor": "white"}
        look: dict[str, Any] = style.line_look(i) | mark | {"markeredgewidth": 0.4}
        axes.plot(*np.array(points).T, label=name, **look)
    axes.axhline(floor, color=style.INK, linewidth=0.8, linestyle=style.FLOOR, label="floor")
    _set_log_axis(axes, "x")
    _set_log_axis(axes, "y")
    axes.set(xlabel="network evaluations for one sample", ylabel="sliced W\u2082")
    axes.grid(color=style.RULE, linewidth=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _set_symlog_axis(axes: Axes, low: np.ndarray, high: np.ndarray) -> None:
    """An axis that is linear within the half-width of the shortest interval, the noise."""
    noise = max((high - low).min() / 2, 1e-3 * high.max(), 1e-12)
    if high.max() <= 30 * noise:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=4))
        return
    linear = 10.0 ** np.ceil(np.log10(noise))
    left = min(low.min(), 0.0)
    axes.set_xscale("symlog", linthresh=linear)
    decades = linear * 10.0 ** np.arange(0, np.ceil(np.log10(high.max() / linear)) + 1)
    ticks = [*(-decades[-decades >= left])[::-1], 0, *decades[decades <= 1.3 * high.max()]]
    axes.set_xticks(ticks, [style.format_log_tick(t) for t in ticks])
    axes.set_xlim(left - 0.3 * linear, 1.3 * high.max())
