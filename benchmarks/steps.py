"""Training steps: the whole of ours over the bare loop of the same networks, and the peers' loops.

"bare" is what nobody can do without: forward, loss, backward and optimizer (fused AdamW, the class
and flags of ours) on inputs that are made once. "ours" is `Run.train`, the loop inside `fit`: the
batch is drawn by index, times and noise are drawn, the loss is recorded, the gradient clipped and
checked, the average follows, the history is kept. Held-out evaluation, 40 times in a whole run, is
left out. Peers train the same network with the same optimizer on batches drawn by index, with
neither clipping nor average, as in their published loops.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from race import Plan, Row, Run, absent, main, race, repeat
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import mse_loss, softplus

from pushforward.theory.exact.targets import gaussian_ring8
from pushforward.training import setup
from pushforward.training.config import Budget, DataSpec, FitRequest, Hardware, Keeping
from pushforward.training.processes import ALONE
from pushforward.training.run import Run as Fit

BATCH, RATE = 256, 1e-5  # so low that the networks hardly change while fixed inputs are timed
SIZES = {"3x64": {"width": 64, "depth": 3}, "4x256": {"width": 256, "depth": 4}}
BAR = 1.15


def data() -> Tensor:
    """10,000 points of eight Gaussians."""
    return gaussian_ring8().sample(10_000)


def fitting(family: str, **options: Any) -> Fit:
    """A fit in progress, as `fit` makes it."""
    spec, budget = DataSpec(data().numpy()), Budget(steps=6000)
    options = {"batch": BATCH, "lr": RATE} | options
    request = FitRequest(family, spec, budget, Hardware("cpu"), Keeping(seed=0), options)
    fit = setup.new_run(request, setup.Placement(torch.device("cpu"), ALONE, time.monotonic()))
    fit.validation.held, fit.trainer.count = None, 6000
    return fit


def ours(fit: Fit) -> Run:
    """That many more steps of the loop inside `fit`."""

    def run(count: int) -> None:
        fit.trainer.steps = fit.trainer.count + count
        fit.history.clear()
        fit.train(lambda fraction, text: None)

    return run


def optimizer(fit: Fit, module: nn.Module) -> torch.optim.Optimizer:
    """The trainer's optimizer for other weights."""
    betas = fit.trainer.recipe.betas
    return torch.optim.AdamW(module.parameters(), RATE, betas, weight_decay=0.0, fused=True)


def stepping(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Run:
    """The bare loop."""

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return repeat(step)


def batch(x: Tensor) -> Tensor:
    return x[torch.randint(len(x), (BATCH,))]


def bare_regression(fit: Fit) -> Run:
    """Regress a network of (x, t) on fixed numbers."""
    net = copy.deepcopy(fit.trainer.model.denoiser.net)
    x, y, t = torch.randn(BATCH, 2), torch.randn(BATCH, 2), torch.rand(BATCH)
    return stepping(optimizer(fit, net), lambda: mse_loss(net(x, t), y))


def peer_of_paths(name: str, fit: Fit) -> Run:
    """A peer's own way to the regression's input and target."""
    net, x = copy.deepcopy(fit.trainer.model.denoiser.net), data()
    if name.startswith("torchcfm"):
        from torchcfm import conditional_flow_matching as cfm

        make = cfm.ExactOptimalTransportConditionalFlowMatcher
        matcher = make() if name.endswith("OT") else cfm.ConditionalFlowMatcher(sigma=0.0)

        def loss() -> Tensor:
            x1 = batch(x)
            t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
            return (net(xt, t) - ut).square().mean()

    elif name == "flow_matching":
        from flow_matching.path import AffineProbPath
        from flow_matching.path.scheduler import CondOTScheduler

        path = AffineProbPath(scheduler=CondOTScheduler())

        def loss() -> Tensor:
            x1 = batch(x)
            s = path.sample(t=torch.rand(BATCH), x_0=torch.randn_like(x1), x_1=x1)
            return (net(s.x_t, s.t) - s.dx_t).square().mean()

    elif name == "azula":
        from azula.denoise import KarrasDenoiser
        from azula.noise import RectifiedSchedule

        denoiser = KarrasDenoiser(net, schedule=RectifiedSchedule())

        def loss() -> Tensor:
            return denoiser.loss(batch(x), torch.rand(BATCH)).mean()

    else:
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler(num_train_timesteps=1000)

        def loss() -> Tensor:
            x0 = batch(x)
            noise, k = torch.randn_like(x0), torch.randint(0, 1000, (BATCH,))
            return mse_loss(net(scheduler.add_noise(x0, noise, k), k / 1000), noise)

    return stepping(optimizer(fit, net), loss)


def bare_vae(fit: Fit) -> Run:
    """Encoder, draw with fixed noise, decoder, and the two terms of the bound."""
    model = copy.deepcopy(fit.trainer.model)
    x, eps = torch.randn(BATCH, 2), torch.randn(BATCH, model.latent)
    encoder, decoder, floor = model.encoder, model.decoder, model.law.floor

    def loss() -> Tensor:
        mu, log_sigma = encoder(x).chunk(2, dim=1)
        sigma = log_sigma.clamp(-8, 4).exp()
        mean, raw = decoder(mu + sigma * eps).unflatten(1, (2, 2)).unbind(2)
        distortion = -Normal(mean, floor + softplus(raw), validate_args=False).log_prob(x).sum(1)
        rate = (mu.square() + sigma.square() - 1).sum(1) / 2 - log_sigma.sum(1)
        return (distortion + rate).mean()

    return stepping(optimizer(fit, model), loss)


def bare_wgan(fit: Fit) -> Run:
    """Five steps of the critic (samples, both values, penalty) and one of the generator."""
    model = copy.deepcopy(fit.trainer.model)
    generator, critic = model.generator, model.critic
    ours, theirs = optimizer(fit, generator), optimizer(fit, critic)
    x, z, middle = torch.randn(BATCH, 2), torch.randn(BATCH, model.latent), torch.randn(BATCH, 2)
    middle.requires_grad_()

    def critic_loss() -> Tensor:
        with torch.no_grad():
            fake = generator(z)
        (slope,) = torch.autograd.grad(critic(middle).sum(), middle, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        return critic(fake).mean() - critic(x).mean() + 0.1 * penalty

    def round_of_game() -> None:
        for _ in range(model.game.critic_steps):
            theirs.zero_grad()
            critic_loss().backward(inputs=list(critic.parameters()))
            theirs.step()
        ours.zero_grad()
        (-critic(generator(z)).mean()).backward(inputs=list(generator.parameters()))
        ours.step()

    return repeat(round_of_game)


def bare_flow(fit: Fit) -> Run:
    """The likelihood of fixed data under the same zuko flow."""
    flow, x = copy.deepcopy(fit.trainer.model.flow), torch.randn(BATCH, 2)
    return stepping(optimizer(fit, flow), lambda: -flow().log_prob(x).mean())


def zuko_loop(fit: Fit) -> Run:
    """zuko's published loop, with the optimizer of ours."""
    flow, x = copy.deepcopy(fit.trainer.model.flow), data()
    return stepping(optimizer(fit, flow), lambda: -flow().log_prob(batch(x)).mean())


BARE = {
    "flow_matching": bare_regression,
    "ddpm": bare_regression,
    "vae": bare_vae,
    "wgan_gp": bare_wgan,
    "normalizing_flow": bare_flow,
}
PEERS = {
    "flow_matching": ["torchcfm", "flow_matching", "azula"],
    "ddpm": ["diffusers"],
}


def step_rows(family: str, plan: Plan, options: dict[str, Any], size: str) -> list[Row]:
    """Ours and the peers over the bare step."""
    group = f"training step, {family} {size}, batch {BATCH}"
    if plan.group not in group:
        return []
    fit = fitting(family, **options)
    runs = {"bare": BARE[family](fit), "ours": ours(fit)}
    missing = absent(*PEERS.get(family, []))
    runs |= {n: peer_of_paths(n, fit) for n in PEERS.get(family, []) if n not in missing}
    if family == "normalizing_flow":
        runs["zuko"] = zuko_loop(fit)
    timed = race(group, runs, plan)
    rows = [timed.row("ours", "bare", BAR)]
    rows += [timed.row(name, "bare") for name in runs if name not in ("bare", "ours")]
    if "zuko" in runs:
        rows.append(timed.row("ours", "zuko", 1.05))
    return rows + [Row(group, n, "", note=f"not installed (pip install {n})") for n in missing]


def coupled_rows(plan: Plan, options: dict[str, Any], size: str) -> list[Row]:
    """Flow matching with optimally coupled batches."""
    group = f"training step, flow_matching coupling=ot {size}, batch {BATCH}"
    if plan.group not in group:
        return []
    fit = fitting("flow_matching", coupling="ot", **options)
    runs = {"bare": bare_regression(fit), "ours": ours(fit)}
    missing = absent("torchcfm")
    if not missing:
        runs["torchcfm OT"] = peer_of_paths("torchcfm OT", fit)
    timed = race(group, runs, plan)
    rows = [timed.row("ours", "bare")]
    if missing:
        return [*rows, Row(group, "torchcfm", "", note="not installed (pip install torchcfm)")]
    return [*rows, timed.row("torchcfm OT", "bare"), timed.row("ours", "torchcfm OT", 0.5)]


def rows(plan: Plan, quick: bool) -> list[Row]:
    """All steps; only the small networks when it must be quick."""
    found = []
    for size, shape in list(SIZES.items())[: 1 if quick else None]:
        for family in BARE:
            plain = {"waves": 0} if BARE[family] is bare_regression else {}
            found += step_rows(family, plan, shape | plain, size)
        found += coupled_rows(plan, shape | {"waves": 0}, size)
    if not quick:
        for family in BARE:
            found += step_rows(family, plan, {}, "defaults")
        found += coupled_rows(plan, {}, "defaults")
    return found


if __name__ == "__main__":
    main({"steps": rows}, __doc__)
