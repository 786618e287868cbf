"""Samples in 100 steps, over 100 bare forwards of the same network at the same batch."""

from typing import Any

import torch
from race import Plan, Row, Run, absent, main, race, repeat
from steps import SIZES
from torch import Tensor

from pushforward import families
from pushforward.diffusion import Diffusion
from pushforward.model import Event

STEPS, BAR = 100, 1.05


def bare(model: Diffusion, n: int) -> Run:
    """The network alone, on the same points at one time."""
    net, x, t = model.denoiser.net, torch.randn(n, 2), torch.tensor(0.5)

    @torch.inference_mode()
    def forwards() -> None:
        for _ in range(STEPS):
            net(x, t)

    return repeat(forwards)


def ours(model: Diffusion, n: int, sampler: str) -> Run:
    """`sample`, as the fitted model calls it."""

    @torch.inference_mode()
    def draw() -> Tensor:
        return model.sample(n, sampler=sampler, steps=STEPS)

    return repeat(draw)


def peer(name: str, model: Diffusion, n: int) -> Run:
    """A peer's sampler around the same network, its output read as the peer reads it."""
    net = model.denoiser.net
    if name == "torchdiffeq":
        from torchdiffeq import odeint

        times = torch.linspace(0, 1, STEPS + 1)

        def draw() -> Tensor:
            return odeint(lambda t, x: net(x, t), torch.randn(n, 2), times, method="euler")[-1]

    elif name == "flow_matching":
        from flow_matching.solver import ODESolver

        solver = ODESolver(lambda x, t: net(x, t))

        def draw() -> Tensor:
            return solver.sample(torch.randn(n, 2), step_size=1 / STEPS, method="euler")

    elif name == "azula":
        from azula.denoise import KarrasDenoiser
        from azula.noise import RectifiedSchedule
        from azula.sample import DDIMSampler

        sampler = DDIMSampler(KarrasDenoiser(net, RectifiedSchedule()), steps=STEPS, silent=True)

        def draw() -> Tensor:
            return sampler(sampler.init((n, 2)))

    else:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
        scheduler.set_timesteps(STEPS)

        def draw() -> Tensor:
            x = torch.randn(n, 2)
            for k in scheduler.timesteps:
                x = scheduler.step(net(x, k / 1000), k, x).prev_sample
            return x

    return repeat(torch.inference_mode()(draw))


PEERS = {
    "flow_matching": ("euler", ["torchdiffeq", "flow_matching", "azula"]),
    "ddpm": ("ddim", ["diffusers"]),
}


def draw_rows(family: str, n: int, plan: Plan, options: dict[str, Any], size: str) -> list[Row]:
    """Ours and the peers over the bare forwards."""
    sampler, peers = PEERS[family]
    group = f"{n:,} samples, {family} {size}, {STEPS} steps of {sampler}"
    if plan.group not in group:
        return []
    model = families.build(family, Event((2,)), **options).eval()
    runs = {"bare": bare(model, n), "ours": ours(model, n, sampler)}
    missing = absent(*peers)
    runs |= {name: peer(name, model, n) for name in peers if name not in missing}
    timed = race(group, runs, plan)
    rows = [timed.row("ours", "bare", BAR if n >= 10_000 else None)]
    rows += [timed.row(name, "bare") for name in runs if name not in ("bare", "ours")]
    return rows + [Row(group, m, "", note=f"not installed (pip install {m})") for m in missing]


def rows(plan: Plan, quick: bool) -> list[Row]:
    """The small network, and unless it must be quick the large one and the families' own."""
    shapes = {size: net | {"waves": 0} for size, net in SIZES.items()} | {"defaults": {}}
    found, plan = [], plan._replace(blocks=min(plan.blocks, 9))
    for size, options in list(shapes.items())[: 1 if quick else None]:
        for n in (10_000, 256):
            for family in PEERS:
                found += draw_rows(family, n, plan, options, size)
    return found


if __name__ == "__main__":
    main({"draws": rows}, __doc__)
