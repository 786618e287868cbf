"""Exact log-density of 500 points along a trained flow, at equal accuracy.

Ours and flow_matching's exact mode integrate the same velocity field. Each may use any of its
methods: from the cheapest setting up, the first is taken whose root mean square error against a
float64 reference is at most 1e-4 nats, and then those two settings race.
"""

import copy
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from race import Plan, Row, absent, main, race, repeat
from torch import Tensor

from pushforward import families
from pushforward.diffusion import Diffusion
from pushforward.model import Event
from pushforward.theory import ode
from pushforward.theory.exact.targets import gaussian_ring8
from pushforward.training.trainer import Trainer, random_batches

POINTS, ACCURACY, BAR = 500, 1e-4, 0.5
TOLERANCES = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
STEPS = (7, 10, 14, 20, 28, 40, 56, 80, 113)
Score = Callable[[Tensor], Tensor]


def data(d: int) -> Tensor:
    """Eight Gaussians in the plane, or the digits' 64 pixels with noise over the levels."""
    if d == 2:
        x = gaussian_ring8().sample(10_000)
    else:
        from sklearn.datasets import load_digits

        pixels = torch.as_tensor(load_digits().data, dtype=torch.get_default_dtype())
        x = pixels + torch.rand_like(pixels)
    return (x - x.mean(0)) / x.std()


def trained(d: int, steps: int) -> tuple[Diffusion, Tensor]:
    """A 3x64 flow after some training, so that its field is as curved as those of users."""
    torch.manual_seed(0)
    x = data(d)
    model = families.build("flow_matching", Event((d,)), width=64, depth=3)
    trainer = Trainer(model, model.recipe._replace(batch=256), steps)
    for _ in trainer.run(random_batches(x, 256)):
        pass
    return trainer.average.eval().requires_grad_(False), x[:POINTS]


def reference(model: Diffusion, x: Tensor) -> Tensor:
    """The same network in float64 with a tight tolerance."""
    exact = copy.deepcopy(model).double().denoiser
    return exact.log_prob(x.double(), rtol=1e-7, atol=1e-7)


def ours(model: Diffusion) -> Iterator[tuple[str, Score]]:
    """Our settings: the adaptive default and looser, and fixed steps."""
    for tolerance in TOLERANCES:
        options = {"rtol": tolerance, "atol": tolerance}
        yield f"adaptive {tolerance:g}", partial(model.denoiser.log_prob, **options)
    for steps in STEPS:
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        yield f"rk4 x {steps}", partial(model.denoiser.log_prob, integrator=ode.rk4, times=times)


def theirs(model: Diffusion) -> Iterator[tuple[str, Score]]:
    """flow_matching's: data at time 1, and any method of torchdiffeq."""
    from flow_matching.solver import ODESolver

    # their path runs from noise to data
    solver = ODESolver(lambda x, t: -model.denoiser.velocity(x, 1 - t))
    score = partial(
        solver.compute_likelihood, log_p0=model.denoiser.base_log_prob, exact_divergence=True
    )
    for tolerance in TOLERANCES:
        options = {"method": "dopri5", "step_size": None, "atol": tolerance, "rtol": tolerance}
        yield f"dopri5 {tolerance:g}", lambda x, o=options: score(x.clone(), **o)[1]
    for steps in STEPS:
        options = {"method": "rk4", "step_size": 1 / steps}
        yield f"rk4 x {steps}", lambda x, o=options: score(x.clone(), **o)[1]


def cheapest(settings: Iterator[tuple[str, Score]], x: Tensor, truth: Tensor) -> tuple[str, Score]:
    """The fastest accurate setting: down each ladder until it is accurate or no longer faster."""
    best = (float("inf"), "", lambda x: x)
    for _, ladder in itertools.groupby(settings, lambda s: s[0].split()[0]):
        for name, score in ladder:
            start = time.process_time()
            error = float((score(x).detach() - truth).square().mean().sqrt())
            spent = time.process_time() - start
            if error <= ACCURACY:
                best = min(best, (spent, f"{name}, error {error:.0e}", score), key=lambda b: b[0])
            if error <= ACCURACY or spent > best[0]:
                break
    if not best[1]:
        raise SystemExit(f"no setting reaches {ACCURACY} nats")
    return best[1:]


def density_rows(d: int, plan: Plan, steps: int) -> list[Row]:
    """One dimension's race, and the default call beside it."""
    group = f"log-density of {POINTS} points, d = {d}, error at most {ACCURACY:g} nats"
    if plan.group not in group:
        return []
    model, x = trained(d, steps)
    truth = reference(model, x)
    error = float((model.log_prob(x) - truth).square().mean().sqrt())
    name, score = cheapest(ours(model), x, truth)
    net = model.denoiser.net
    runs = {
        "100 forwards": repeat(lambda: [net(x, torch.tensor(0.5)) for _ in range(100)]),
        "ours": repeat(lambda: score(x)),
        "ours by default": repeat(lambda: model.log_prob(x)),
    }
    missing = absent("flow_matching", "torchdiffeq")
    if not missing:
        peer_name, peer_score = cheapest(theirs(model), x, truth)
        runs["flow_matching"] = repeat(lambda: peer_score(x))
    timed = race(group, runs, plan)
    rows = [
        timed.row("ours", "100 forwards", note=name),
        timed.row("ours by default", "100 forwards", note=f"error {error:.0e}"),
    ]
    if missing:
        note = f"not installed (pip install {' '.join(missing)})"
        return [*rows, Row(group, "flow_matching", "", note=note)]
    return [
        *rows,
        timed.row("flow_matching", "100 forwards", note=peer_name),
        timed.row("ours", "flow_matching", BAR),
    ]


def rows(plan: Plan, quick: bool) -> list[Row]:
    """The plane and, unless it must be quick, 64 dimensions."""
    plan = plan._replace(blocks=min(plan.blocks, 7))
    found = density_rows(2, plan, 500 if quick else 2000)
    return found if quick else found + density_rows(64, plan, 2000)


if __name__ == "__main__":
    main({"densities": rows}, __doc__)
