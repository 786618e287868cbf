"""The lesson's table of paradigms, measured: what is minimised, what a draw costs, which density.

Every family stands as built, untrained: that a density integrates to one, and how many evaluations
a draw takes, are matters of construction.
"""

import time
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch

from .... import families
from ....model import Event, GenerativeModel, Likelihood
from ....rng import seeded_rng
from ...cases import integrate_density
from ...claims import Claim, Evidence, Number, Verdict, raises_error

FAMILIES = ("vae", "gan", "normalizing_flow", "autoregressive", "cnf", "flow_matching", "ddpm",
            "consistency")  # fmt: skip


class _ParadigmRow(NamedTuple):
    """One line of the table.

    Arguments:
        family: Its key.
        objective: The terms of the loss that it minimises.
        nfe: Evaluations of its network a draw.
        seconds: Of the processor a draw, of a thousand at once.
        density: What kind of number its log-likelihood is.
        mass: The integral of the density over the plane; NaN where there is none.
    """

    family: str
    objective: str
    nfe: int
    seconds: float
    density: str
    mass: float


@seeded_rng(0)
def _build_untrained(name: str) -> GenerativeModel:
    """A family for points in the plane, as it is before training."""
    return families.build(name, Event((2,), size=1000)).eval()


def _density_mass(model: GenerativeModel) -> float:
    """The integral of the density over the plane; a bound is no density, and is not integrated."""
    if model.likelihood not in (Likelihood.EXACT, Likelihood.ODE):
        return float("nan")
    return integrate_density(model, 8.0, 61)


def _generate_paradigm_rows() -> Iterator[_ParadigmRow]:
    x = torch.randn(64, 2)
    for name in FAMILIES:
        model = _build_untrained(name)
        _, loss = next(model.objectives())
        began = time.process_time()
        with torch.no_grad():
            model.sample(1000)
        seconds = (time.process_time() - began) / 1000
        terms, density = " + ".join(loss(x, None)), str(model.likelihood)
        yield _ParadigmRow(name, terms, model.nfe, seconds, density, _density_mass(model))


@cache
def paradigm_rows() -> list[_ParadigmRow]:
    return list(_generate_paradigm_rows())


def _refuses_density(name: str) -> int:
    return raises_error(lambda: _build_untrained(name).log_prob(torch.zeros(1, 2)))


def _measure_paradigm_table() -> Evidence:
    """Costs and masses, of the families whose construction says what they must be."""
    flow, coupled, ordered = (
        _build_untrained(k) for k in ("flow_matching", "normalizing_flow", "autoregressive")
    )
    what = "integral over the plane of the density of"
    return Evidence(
        [Number("flows and diffusions that refuse to give a density",
                _refuses_density("flow_matching"), 1)],
        [
            Number(f"{what} a flow matching's network", _density_mass(flow), 1, 5e-3),
            Number(f"{what} a normalizing flow", _density_mass(coupled), 1, 5e-3),
            Number(f"{what} an autoregressive network", _density_mass(ordered), 1, 5e-3),
            Number("adversarial networks without any", _refuses_density("gan"), 1),
            Number("evaluations a draw, GAN", _build_untrained("gan").nfe, 1),
            Number("evaluations a draw, consistency model", _build_untrained("consistency").nfe, 2,
                   0, "<="),
            Number("evaluations a draw, flow matching", flow.nfe, 10, 0, ">="),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "6.3-paradigms",
        r"Paradigms differ in objective, sampling and density; a diffusion's density is implicit.",
        Verdict.WRONG,
        _measure_paradigm_table,
        "diffusion.Diffusion.log_prob",
        right=r"A diffusion has the density of its probability flow, which integrates to one for "
        r"any network, and with the exact score is that of the data (claim 5.2-density). What a "
        r"draw costs is counted in evaluations of the network.",
        covers="R66 A10c",
    )
]
