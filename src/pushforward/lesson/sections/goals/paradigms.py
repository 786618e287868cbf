"""Claims on lesson 1.2 and 1.3: what the families can do, asked of the library's code."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .... import families
from ....diffusion import Diffusion
from ....errors import NoLikelihood
from ....families.normalizing_flow import NormalizingFlow
from ....model import Event, GenerativeModel, Likelihood
from ....rng import seeded_rng
from ...cases import integrate_density
from ...claims import Claim, Evidence, Number, Verdict

KINDS = {
    Likelihood.EXACT: "exact",
    Likelihood.ODE: "exact, by an ODE",
    Likelihood.LOWER_BOUND: "a lower bound",
    Likelihood.NONE: "none",
}
ROWS = {  # of the lesson's table
    "vae": "VAE",
    "gan": "GAN",
    "normalizing_flow": "normalizing flow",
    "ddpm": "diffusion model",
}


class _FamilyCapability(NamedTuple):
    """What a family can do.

    Arguments:
        name: Its key.
        density: Of which kind `log_prob` is.
        evaluations: Of the network, for one draw with the defaults.
        players: Who learns; nobody in closed form.
        diffusion: Whether it is a regression on a Gaussian path.
    """

    name: str
    density: Likelihood
    evaluations: int
    players: int
    diffusion: bool


def _build_ready(name: str, d: int = 2, **options: object) -> GenerativeModel:
    """A family's model of d numbers, ready to sample: closed-form fits see normal data."""
    with seeded_rng(0):
        model = families.build(name, Event((d,), size=500), **options).eval()
        if not model.players():
            model.prepare(torch.randn(500, d))
    return model


def _count_layer_calls(model: GenerativeModel) -> int:
    """How often a draw calls the layer that it calls most; 1 in closed form."""
    calls: Counter[nn.Module] = Counter()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_hook(lambda m, *_: calls.update([m])) for m in layers]
    with seeded_rng(0), torch.no_grad():
        model.sample(1)
    for hook in hooks:
        hook.remove()
    return max(calls.values(), default=1)


@cache
def family_capabilities() -> list[_FamilyCapability]:
    """Of every family, in alphabetical order."""
    found = []
    for name in families.names():
        model = _build_ready(name)
        found.append(
            _FamilyCapability(
                name, model.likelihood, _count_layer_calls(model), len(model.players()),
                isinstance(model, Diffusion),
            )
        )  # fmt: skip
    return found


def _gives_density(model: GenerativeModel) -> bool:
    try:
        return bool(model.log_prob(torch.zeros(2, 2)).isfinite().all())
    except NoLikelihood:
        return False


def _measure_capability_table() -> Evidence:
    every = families.names()
    kept = sum(
        _gives_density(model) == (model.likelihood is not Likelihood.NONE)
        for model in map(_build_ready, every)
    )
    return Evidence(
        [Number("families of the library outside the four rows", float(len(set(every) - set(ROWS))),
                0.0, 0.0)],
        [
            Number("families that score data exactly if the table drawn here says so", float(kept),
                   float(len(every)), 0.0),
            Number("mass of a normalizing flow's exact density",
                   integrate_density(_build_ready("normalizing_flow"), 9.0, 181), 1.0, 1e-3),
        ],
    )  # fmt: skip


def _count_passes(model: NormalizingFlow, method: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Evaluations of a flow's first network in a call of one of its methods."""
    calls: list[None] = []
    transform = model.flow.transform.transforms[0]
    network = getattr(transform, "hyper", None) or transform.inv.hyper
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    with torch.no_grad():
        method(x)
    hook.remove()
    return float(len(calls))


def _build_flow(d: int, kind: str) -> NormalizingFlow:
    model = _build_ready("normalizing_flow", d, kind=kind)
    assert isinstance(model, NormalizingFlow)
    return model


def _measure_flow_speeds() -> Evidence:
    d, x = 6, torch.randn(3, 6)
    coupling, maf, iaf = (_build_flow(d, kind) for kind in ("realnvp", "maf", "iaf"))
    with torch.no_grad():
        there_and_back = maf.encode(maf.decode(x))
    return Evidence(
        [Number("evaluations of a MAF layer for a draw in six dimensions, and those of a coupling",
                _count_passes(maf, maf.decode, x),
                _count_passes(coupling, coupling.decode, x), 0.0)],
        [
            Number("evaluations of a MAF layer for a draw, and d",
                   _count_passes(maf, maf.decode, x), d, 0),
            Number("for a density", _count_passes(maf, maf.log_prob, x), 1.0, 0.0),
            Number("of an IAF layer for a draw", _count_passes(iaf, iaf.decode, x), 1.0, 0.0),
            Number("for a density, and d + 1: the inverse, and its derivative",
                   _count_passes(iaf, iaf.log_prob, x), d + 1, 0.0),
            Number("of a coupling for a draw, at most 2 whatever d",
                   _count_passes(coupling, coupling.decode, x), 2.0, 0.0, "<="),
            Number("largest error of drawing and encoding again",
                   float((there_and_back - x).abs().max()), 0.0, 1e-4),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "1.3-table",
        "Four rows hold the training paradigms: VAE, GAN, normalizing flow, diffusion.",
        Verdict.WRONG,
        _measure_capability_table,
        "families.normalizing_flow.NormalizingFlow.log_prob",
        right="Autoregressive models (named in 1.2), score matching, continuous flows, flow "
        "matching and consistency models are missing; the figure of capabilities lists every "
        "family of the library, from its code. A GAN's density is not tractable, and does not "
        "exist where z has fewer entries than x.",
        covers="A10e R7",
    ),
    Claim(
        "1.3-flows",
        "Sampling from a normalizing flow is fast.",
        Verdict.ONLY_IF,
        _measure_flow_speeds,
        "families.normalizing_flow.NormalizingFlow.decode",
        right="A coupling layer is fast both ways. A masked autoregressive flow scores in one pass "
        "and samples in one per entry, its inverse (IAF) the other way round; a continuous flow "
        "needs a solver both ways.",
        covers="A10b",
    ),
]
