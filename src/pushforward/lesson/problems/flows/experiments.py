"""Both models trained on eight modes: what training cost, what sampling costs, what comes out."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ....metrics import kernels, neighbours, wasserstein
from ....plots.style import DATA, INK, MODEL
from ....rng import seeded_rng
from ....theory import transport
from ....theory.exact.targets import Gaussian
from ...claims import Number
from ...panels import create_panels
from ...sections.recent import comparison, figures
from ...sections.recent.comparison import TARGET
from .. import ExperimentResult

BEST = {"flow": "flow matching, Heun", "chain": "diffusion, DPM-Solver++(2M)"}
NAMES = {"flow": "flow matching", "chain": "diffusion"}


def _draw_density_contours(axes: Axes) -> None:
    """The exact density, a line a factor of ten."""
    side = torch.linspace(-2.2, 2.2, 121, dtype=torch.float64)
    log_p = TARGET.log_prob(torch.cartesian_prod(side, side)).view(121, 121).mT / np.log(10)
    axes.contour(side, side, log_p, levels=[-3, -2, -1], colors=INK, linewidths=0.4,
                 linestyles="solid")  # fmt: skip
    axes.set(aspect="equal", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    axes.set_axis_off()


def _draw_model_samples() -> Figure:
    """Samples (dots) over the exact density (contours, a factor of ten each).

    From left: data, flow matching by Heun's steps, diffusion by DPM-Solver++(2M), both with the
    trained field and 32 evaluations.
    """
    figure, row = create_panels(3, 2.3)
    real = comparison.reference_samples()[0]
    drawn = {NAMES[m]: comparison.sample_with_setup(BEST[m], 32, learned=True)[0] for m in BEST}
    clouds = {"data": (real, DATA)} | {k: (x, MODEL) for k, x in drawn.items()}
    for axes, (title, (x, colour)) in zip(row, clouds.items()):
        axes.plot(*x[:1500].T, ".", color=colour, markersize=1.2, alpha=0.6)
        _draw_density_contours(axes)
        axes.set_title(title)
    return figure


def run_training_comparison() -> ExperimentResult:
    """How far each field is from the exact one, and the divergence of its flow's density."""
    error = {m: comparison.excess_loss(m) for m in BEST}
    kl = {m: comparison.data_model_kl(m) for m in BEST}
    steps, batch = comparison.RECIPE.steps, comparison.RECIPE.batch
    return ExperimentResult(
        [
            f"Both models are the same perceptron, trained on {steps:,} batches of {batch} points "
            "from eight modes of unit variance, with the same learning rate. They differ in two "
            "arguments: the path and what is predicted.",
            f"The excess of the loss over its floor is {error['flow']:.4f} an entry for the "
            f"velocity and {error['chain']:.4f} for the noise. The two are in different units. "
            "What can be compared is the divergence of the data from the density of either flow: "
            f"{kl['flow'][0]:.3f} ± {kl['flow'][1]:.3f} nats for flow matching and "
            f"{kl['chain'][0]:.3f} ± {kl['chain'][1]:.3f} nats for diffusion.",
        ],
        [
            Number("excess loss of flow matching, an entry", error["flow"], 0.05, 0, "<="),
            Number("excess loss of diffusion, an entry", error["chain"], 0.05, 0, "<="),
            *(Number(f"divergence from {NAMES[m]} (nats)", kl[m][0], 0.15, 5 * kl[m][1], "<=")
              for m in BEST),
            *(Number(f"the same is not negative, {NAMES[m]}", kl[m][0], 0, 5 * kl[m][1], ">=")
              for m in BEST),
        ],
        {"problem5_samples": _draw_model_samples()},
    )  # fmt: skip


Rows = dict[str, dict[int, float]]


def _distance_table(curve: figures.Curve, ways: Iterable[str], learned: bool) -> Rows:
    """Distances by way of sampling and by evaluations as asked for."""
    return {
        way: {n: d for n, (_, d) in zip(comparison.EVALUATIONS, curve(way, learned=learned))}
        for way in ways
    }


def _format_distances(found: Rows) -> str:
    rows = (f"{way}: {', '.join(f'{d:.3f}' for d in row.values())}" for way, row in found.items())
    return "; ".join(rows)


class _SpeedTables(NamedTuple):
    """Distances to the data with either field, and to the exact ends of the same noise."""

    exact: Rows
    learned: Rows
    sampler: Rows
    total: Rows


EULER, DDIM, EVEN = "flow matching, Euler", "diffusion, DDIM", "diffusion, DDIM, equal times"


def run_speed_comparison() -> ExperimentResult:
    """Distance by evaluations, with the exact field and the trained one."""
    curve, ways = comparison.sliced_w2_curve, comparison.WAYS
    errors, flows = comparison.endpoint_errors, comparison.DETERMINISTIC
    tables = _SpeedTables(
        *(_distance_table(curve, ways, learned) for learned in (False, True)),
        *(_distance_table(errors, flows, learned) for learned in (False, True)),
    )
    floor = comparison.sliced_w2_floor()
    drawn = {
        "problem5_evaluations": figures.draw_quality_curves(),
        "problem5_errors": figures.draw_error_curves(),
    }
    return ExperimentResult(_describe_speed(tables, floor), _speed_numbers(tables, floor), drawn)


def _describe_speed(tables: _SpeedTables, floor: float) -> list[str]:
    exact, learned, sampler, total = tables
    heun, solver, asked = *BEST.values(), ", ".join(map(str, comparison.EVALUATIONS))
    return [
        "Speed is counted in evaluations of the network: a step of Heun takes two, so that "
        "equal numbers of steps would compare unequal work.",
        "With the exact field, where every error is the sampler's, the sliced W2 after "
        f"{asked} evaluations is, by way of sampling, {_format_distances(exact)}. Two exact "
        f"samples are {floor:.3f} apart.",
        f"After 16 evaluations Euler's steps of flow matching are at {exact[EULER][16]:.3f} and "
        f"DDIM's at {exact[DDIM][16]:.3f} where they divide the angle of the path evenly, but at "
        f"{exact[EVEN][16]:.3f} where they divide the times of the chain. So it is the grid that "
        "makes a diffusion slow, not what it learns: Euler's step on the linear path is DDIM's. "
        f"DPM-Solver++(2M) on the first grid is at {exact[solver][16]:.3f}, and ancestral "
        f"sampling, which draws fresh noise, at {exact['diffusion, DDPM'][16]:.3f}.",
        f"With the trained field they are {_format_distances(learned)}.",
        "Two sets of samples cannot resolve errors far below the distance of two exact ones. "
        "The same noise can: the mean distance of a sample from where the exact flow carries "
        f"its noise is, with the exact field, {_format_distances(sampler)}; with the trained "
        f"field {_format_distances(total)}. The first is the sampler's error, and falls. The "
        f"second stops at the error of training, {total[heun][64]:.3f} for flow matching and "
        f"{total[solver][64]:.3f} for diffusion, of which the sampler's is "
        f"{sampler[heun][64]:.3f} and {sampler[solver][64]:.3f}.",
    ]


def _speed_numbers(tables: _SpeedTables, floor: float) -> list[Number]:
    exact, learned, sampler, total = tables
    heun, solver = BEST.values()
    return [
        Number("exact field, 16 evaluations: Euler over DDIM at equal angles",
               exact[EULER][16] / exact[DDIM][16], 1, 0.1),
        Number("exact field, 16 evaluations: Euler over DDIM at equal times",
               exact[EULER][16] / exact[EVEN][16], 1, 0, "<="),
        Number("exact field, 64 evaluations: Heun, against twice the floor", exact[heun][64],
               2 * floor, 0, "<="),
        Number("trained field, 64 evaluations: flow matching", learned[heun][64], 0.15, 0, "<="),
        Number("trained field, 64 evaluations: diffusion", learned[solver][64], 0.15, 0, "<="),
        Number("error of Euler's 32 steps over that of 64, order one",
               sampler[EULER][32] / sampler[EULER][64], 2, 0.5),
        *(Number(f"trained over exact field after 64 evaluations, {way}",
                 total[way][64] / sampler[way][64], 1, 0, ">=") for way in (heun, solver)),
    ]  # fmt: skip


MEASURES: dict[str, Callable[..., float]] = {
    "sliced W2": transport.sliced_w2_distance,
    "MMD (squared)": kernels.mmd,
    "energy distance": kernels.energy_distance,
    "precision": neighbours.precision,
    "recall": neighbours.recall,
    "Fréchet distance of coordinates": wasserstein.frechet_distance,
}


@seeded_rng(8)
def run_quality_comparison() -> ExperimentResult:
    """Several measures of both models, of another exact sample, and of one Gaussian."""
    real, other = comparison.reference_samples()
    blob = Gaussian(TARGET.mean, TARGET.covariance).sample(comparison.ROWS).double().numpy()
    clouds = {NAMES[m]: comparison.sample_with_setup(BEST[m], 32, learned=True)[0] for m in BEST}
    clouds |= {"another exact sample": other, "one Gaussian": blob}
    half = slice(1500)
    found = {
        name: {k: float(f(real[half], x[half])) for k, f in MEASURES.items()}
        for name, x in clouds.items()
    }
    lines = [f"{m}: {', '.join(f'{k} {v:.4f}' for k, v in r.items())}" for m, r in found.items()]
    w2 = {name: row["sliced W2"] for name, row in found.items()}
    fid = {name: row["Fréchet distance of coordinates"] for name, row in found.items()}
    models = tuple(NAMES.values())
    return ExperimentResult(
        [
            "FID and the Inception score are made of a network for photographs; points have none. "
            "On the coordinates themselves the Fréchet distance sees mean and covariance only.",
            "With 1,500 points and 32 evaluations: " + "; ".join(lines) + ".",
            f"One Gaussian with the moments of the data has a Fréchet distance of "
            f"{fid['one Gaussian']:.4f}, another exact sample {fid['another exact sample']:.4f}: "
            f"by that measure it is perfect. Its sliced W2 is {w2['one Gaussian']:.3f}, "
            f"{w2['one Gaussian'] / w2['another exact sample']:.1f} times that of an exact sample. "
            f"Flow matching has {w2[models[0]]:.3f} and diffusion {w2[models[1]]:.3f}.",
        ],
        [
            Number("Fréchet distance of one Gaussian: as small as that of exact samples",
                   fid["one Gaussian"], 20 * 7 / 1500, 0, "<="),
            Number("sliced W2 of one Gaussian over that of exact samples",
                   w2["one Gaussian"] / w2["another exact sample"], 3, 0, ">="),
            *(Number(f"sliced W2 of {m}, against that of one Gaussian", w2[m], w2["one Gaussian"],
                     0, "<=") for m in models),
            *(Number(f"energy distance of {m}, against that of one Gaussian",
                     found[m]["energy distance"], found["one Gaussian"]["energy distance"], 0,
                     "<=") for m in models),
        ],
        {},
    )  # fmt: skip
