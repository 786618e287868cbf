"""Figures of section 6: trajectories, the consistency map, quality by evaluations, paradigms."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator
from torch import Tensor
from torch.distributions import Normal

from ....plots import drawing
from ....plots.style import DASHES, DENSITY, INK, LINES, MARKS, QUIET, format_log_tick
from ....rng import seeded_rng
from ....theory import ode, paths
from ....theory.exact import dynamics
from ....theory.exact.targets import ExactDenoiser, lesson_mixture
from ...panels import create_panels
from . import comparison, paradigms

TARGET, LINEAR = lesson_mixture(), paths.LinearPath()
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)  # the lesson's: noise at 0, data at 1


def _noise_quantiles(n: int) -> Tensor:
    """Noise at equal steps of probability."""
    p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return Normal(0.0, 1.0).icdf(p)[:, None]


def _draw_density_background(axes: Axes, title: str) -> None:
    """The density of x_t at every time, darker where it is higher."""
    x = torch.linspace(-4.2, 4.2, 241, dtype=torch.float64)[:, None]
    maps = [TARGET.diffuse(*LINEAR(1 - t)).log_prob(x).exp() for t in TIMES]
    values = torch.stack(maps, dim=1).sqrt().numpy()
    axes.imshow(values, origin="lower", extent=(0, 1, -4.2, 4.2), aspect="auto", cmap=DENSITY,
                alpha=0.55, interpolation="bilinear")  # fmt: skip
    axes.set(title=title, xlabel="t", xticks=[0, 0.5, 1], xlim=(0, 1), ylim=(-4.2, 4.2))


@seeded_rng(2)
def _draw_flow_trajectories() -> Figure:
    """Noise (t = 0) becomes the lesson's mixture (t = 1); shaded, the density of x_t.

    Left, independent pairs move straight and cross. Middle, the flow that regression on them
    finds: curves that never cross. Right, the straight flow of the pairs that optimal transport
    matches, which one Euler step follows; a CNF penalised for its kinetic energy learns it.
    """
    figure, trio = create_panels(3, 2.5, sharey=True)
    z, t = _noise_quantiles(24), TIMES[:, None]
    pairs = (1 - t) * z.mT + t * TARGET.sample(24).double().mT
    field = ExactDenoiser(TARGET, LINEAR).velocity
    states = [z, *ode.rk4(lambda x, s: -field(x, 1 - s), z, TIMES[:-1])]
    end = dynamics.quantile_map(TARGET, LINEAR, z, TIMES[-1], TIMES[0])
    flow = torch.cat([*states, end], dim=1).mT
    matched = (1 - t) * z.mT + t * end.mT
    titles = ("pairs", "flow of flow matching", "flow of matched pairs")
    for axes, title, lines in zip(trio, titles, (pairs, flow, matched)):
        _draw_density_background(axes, title)
        axes.plot(TIMES, lines, color=INK, linewidth=0.6)
    trio[0].set_ylabel("x")
    return figure


def _draw_consistency_map() -> Figure:
    """The exact consistency function of the lesson's mixture on the linear path.

    Left, curves of the flow from data (t = 0) to noise (t = 1): f is constant along each, and the
    dots are its value. Right, f at four times: the map of quantiles, the identity at t = 0 and
    steeper between the modes the more noise there is.
    """
    figure, (left, right) = create_panels(2, 2.6)
    times = torch.linspace(0, 1, 61, dtype=torch.float64)
    zero, x = times[0], TARGET.diffuse(*LINEAR(times[0]))
    ends = dynamics.quantile_map(x, LINEAR, _noise_quantiles(15), times[-1], zero)
    curves = torch.cat(
        [dynamics.quantile_map(TARGET, LINEAR, _noise_quantiles(15), times[-1], s) for s in times],
        dim=1,
    )
    left.plot(times, curves.mT, color=QUIET, linewidth=0.7)
    left.plot(np.zeros(15), ends[:, 0], "o", color=LINES[0], clip_on=False, zorder=3)
    left.set(xlabel="t", ylabel="$x_t$", xlim=(0, 1), title="f maps each curve to its end")
    left.yaxis.label.set_parse_math(True)
    grid = torch.linspace(-3.6, 3.6, 401, dtype=torch.float64)[:, None]
    for t, colour, dash in zip((0.0, 0.4, 0.7, 1.0), LINES, DASHES):
        f = dynamics.quantile_map(TARGET, LINEAR, grid, torch.tensor(t).double(), zero)
        right.plot(grid, f, color=colour, linestyle=dash, label=f"t = {t:g}")
    right.set(xlabel="x", ylabel="f(x, t)", xlim=(-3.6, 3.6), ylim=(-4.5, 4.8))
    right.legend(loc="upper left")
    return figure


Curve = Callable[..., list[tuple[int, float]]]


def _draw_both_fields(curve: Curve, ways: Iterable[str], floor: float, label: str) -> Figure:
    """A distance by evaluations, left with the exact field and right with the trained one."""
    figure, pair = create_panels(2, 3.1, sharey=True)
    for axes, learned in zip(pair, (False, True)):
        drawing.plot_nfe_curves(axes, {way: curve(way, learned=learned) for way in ways}, floor)
        axes.get_legend().remove()  # type: ignore[union-attr]
        axes.set(title="trained field" if learned else "exact field", ylabel="")
        axes.set_xticks(comparison.EVALUATIONS)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    pair[0].set_ylabel(label)
    lines = dict(zip(*reversed(pair[0].get_legend_handles_labels())))
    if not np.isfinite(floor):
        lines.pop("floor")
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=3)
    return figure


def draw_quality_curves() -> Figure:
    """Sliced W2 of 3,000 samples from eight modes of unit variance, by evaluations of the field.

    Left with the exact field, where the distance is the sampler's error alone; right with the same
    network trained for as many steps on either path, where what remains at many evaluations is the
    error of training. Dashed, the distance of two exact samples.
    """
    return _draw_both_fields(
        comparison.sliced_w2_curve, comparison.WAYS, comparison.sliced_w2_floor(), "sliced W2"
    )


def draw_error_curves() -> Figure:
    """Mean distance of 3,000 samples from where the exact flow carries their noise.

    Left with the exact field it is the error of the sampler, which falls with the method's order;
    right with trained fields it stops falling at the error of training.
    """
    return _draw_both_fields(
        comparison.endpoint_errors,
        comparison.DETERMINISTIC,
        float("nan"),
        "distance from the exact end",
    )


def _draw_paradigm_chart() -> Figure:
    """What a draw from a point in the plane costs by family, and what its density is.

    Evaluations of the network a draw, on a logarithmic scale, with the processor time of one of a
    thousand draws in microseconds; filled marks have a density that integrates to one, open marks
    only a bound or none. An autoregressive draw is counted as one, though its entries come in turn.
    """
    found = paradigms.paradigm_rows()
    figure, (axes,) = create_panels(1, 2.5)
    kinds = list(dict.fromkeys(row.density for row in found))
    for y, row in enumerate(reversed(found)):
        i = kinds.index(row.density)
        face = "white" if row.mass != row.mass else LINES[i]
        axes.plot(row.nfe, y, MARKS[i], color=LINES[i], markerfacecolor=face, markersize=5)
        axes.annotate(f"{row.objective}; {row.density}; {row.seconds * 1e6:.3g} µs", (row.nfe, y),
                      (6, 0), textcoords="offset points", va="center", fontsize=6.5)  # fmt: skip
    axes.set(xscale="log", xlim=(0.7, 8000), xlabel="evaluations of the network a draw")
    axes.set(yticks=range(len(found)), yticklabels=[row.family for row in reversed(found)])
    axes.xaxis.set_major_locator(FixedLocator([1, 10, 100, 1000]))
    axes.xaxis.set_major_formatter(FuncFormatter(format_log_tick))
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "flow_trajectories": _draw_flow_trajectories,
    "consistency_map": _draw_consistency_map,
    "quality_by_evaluations": draw_quality_curves,
    "errors_by_evaluations": draw_error_curves,
    "paradigms": _draw_paradigm_chart,
}
