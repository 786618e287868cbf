"""Flow matching and diffusion on eight modes in the plane: one network, one budget, two paths.

Beside every trained field stands the exact one, so that the error of training and that of the
sampler are separate.
"""

from collections import deque
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....diffusion import Diffusion
from ....model import Recipe
from ....networks.mlp import TimeMLP
from ....rng import seeded_rng
from ....theory import ddpm_schedule, predictions, samplers, transport
from ....theory.denoisers import Denoiser, Sampler
from ....theory.exact import dynamics
from ....theory.exact.targets import ExactDenoiser, gaussian_ring
from ....theory.paths import LinearPath
from ....training.trainer import Trainer, random_batches
from .quality import sample_and_count

TARGET = gaussian_ring(8, radius=4 / 8.25**0.5, scale=0.5 / 8.25**0.5)  # of unit variance
CHAIN = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000))
EVALUATIONS = (4, 8, 16, 32, 64)
RECIPE = Recipe(steps=1500, batch=512, lr=3e-3, clip=10.0)
ROWS = 3000


class _SamplerSetup(NamedTuple):
    """A model with a sampler.

    Arguments:
        model: "flow" or "chain".
        sampler: Its sampler.
        cost: Evaluations a step.
        grid: The times of so many steps; by default those of the path.
    """

    model: str
    sampler: Sampler
    cost: int = 1
    grid: Callable[[int], Tensor] | None = None


def _equal_time_grid(steps: int) -> Tensor:
    """Equal steps in time along the chain, in place of equal steps of the angle."""
    return torch.linspace(CHAIN.t_max, 0, steps + 1, dtype=torch.float64)


WAYS = {
    "flow matching, Euler": _SamplerSetup("flow", samplers.euler),
    "flow matching, Heun": _SamplerSetup("flow", samplers.heun, cost=2),
    "diffusion, DDIM, equal times": _SamplerSetup("chain", samplers.ddim, grid=_equal_time_grid),
    "diffusion, DDIM": _SamplerSetup("chain", samplers.ddim),
    "diffusion, DPM-Solver++(2M)": _SamplerSetup("chain", samplers.dpmpp_2m),
    "diffusion, DDPM": _SamplerSetup("chain", partial(samplers.ddpm, variance=1.0)),
}
DETERMINISTIC = tuple(way for way in WAYS if way != "diffusion, DDPM")


@cache
@seeded_rng(0)
def _train_denoiser(model: str) -> Denoiser:
    r"""The same network on the same data for as many steps, on either path.

    The chain's loss is L_simple. Its network gives v, from which the noise follows: at the noisy
    end :math:`\hat x = (x_t - \sigma\hat\epsilon)/\alpha` would multiply errors by 160.
    """
    net = TimeMLP((2,), width=96, depth=3, waves=32)
    fitted = {
        "flow": lambda: Diffusion(
            net, (2,), path=LinearPath(), prediction=predictions.velocity_prediction
        ),
        "chain": lambda: Diffusion(
            net,
            (2,),
            path=CHAIN,
            prediction=predictions.v_prediction,
            weight=predictions.noise_error_weight(predictions.v_prediction),
            times=CHAIN.chain()[:-1],
        ),
    }[model]()
    trainer = Trainer(fitted, RECIPE, steps=RECIPE.steps)
    deque(trainer.run(random_batches(TARGET.sample(50_000), RECIPE.batch)), maxlen=0)
    return trainer.average.eval().denoiser.requires_grad_(False)  # type: ignore[return-value]


def exact_denoiser(model: str) -> Denoiser:
    """The field without error on the same path."""
    return ExactDenoiser(TARGET, {"flow": LinearPath(), "chain": CHAIN}[model])


@cache
@seeded_rng(7)
def reference_samples() -> tuple[np.ndarray, np.ndarray]:
    """Two exact samples: one to compare with, one to say how near samples can be."""
    real, other = (TARGET.sample(ROWS).double().numpy() for _ in range(2))
    return real, other


def sliced_w2_floor() -> float:
    return transport.sliced_w2_distance(*reference_samples())


@cache
@seeded_rng(3)
def sample_with_setup(way: str, nfe: int, *, learned: bool) -> tuple[np.ndarray, int]:
    """Samples, and the evaluations that they took."""
    model, sampler, cost, grid = WAYS[way]
    denoiser = _train_denoiser(model) if learned else exact_denoiser(model)
    return sample_and_count(denoiser, sampler, (grid or denoiser.path.grid)(nfe // cost), ROWS)


@cache
def sliced_w2_curve(way: str, *, learned: bool) -> list[tuple[int, float]]:
    """Evaluations and the sliced W2 of what they draw."""
    real, found = reference_samples()[0], []
    for nfe in EVALUATIONS:
        x, calls = sample_with_setup(way, nfe, learned=learned)
        found.append((calls, transport.sliced_w2_distance(real, x)))
    return found


@cache
def _exact_flow_ends(model: str) -> np.ndarray:
    """Where the exact flow carries the noise that `sample_with_setup` starts from."""
    denoiser = exact_denoiser(model)
    return sample_and_count(denoiser, samplers.heun, denoiser.path.grid(128), ROWS)[0]


def endpoint_errors(way: str, *, learned: bool) -> list[tuple[int, float]]:
    """Evaluations, and the mean distance of samples from where the exact flow carries their noise.

    With the exact field it is the sampler's error alone; with a trained one it falls to the error
    of training. For ways of sampling that draw no fresh noise.
    """
    found = []
    for nfe in EVALUATIONS:
        x, calls = sample_with_setup(way, nfe, learned=learned)
        distance = np.linalg.norm(x - _exact_flow_ends(WAYS[way].model), axis=1)
        found.append((calls, float(distance.mean())))
    return found


@seeded_rng(5)
def excess_loss(model: str, n: int = 20_000) -> float:
    r"""The excess of the training loss over its floor, an entry: :math:`E|v-u|^2/2` of the target.

    The target is the velocity for the flow and the noise for the chain.
    """
    path = exact_denoiser(model).path
    x, t = TARGET.sample(n), path.t_min + (1 - 2 * path.t_min) * torch.rand(n)
    x_t = path.interpolate(x, torch.randn_like(x), t)

    def target(denoiser: Denoiser) -> Callable[[Tensor, Tensor], Tensor]:
        return denoiser.velocity if model == "flow" else lambda x, t: denoiser(x, t).eps

    learned, right = target(_train_denoiser(model)), target(exact_denoiser(model))
    return float(dynamics.velocity_error(learned, right, x_t, t)) / 2


@seeded_rng(6)
def data_model_kl(model: str, n: int = 500) -> tuple[float, float]:
    """KL(data | model) in nats from exact samples and the model's own flow, and its error."""
    x = TARGET.sample(n)
    log_q = _train_denoiser(model).log_density(x, rtol=1e-3, atol=1e-3).value
    gap = TARGET.log_prob(x.double()) - log_q
    return float(gap.mean()), float(gap.std() / n**0.5)
