r"""Denoising diffusion (Ho et al., 2020): learn to undo a 1000-step chain that adds noise.

The chain is :math:`q(x_k \mid x_{k-1}) = \mathcal N(\sqrt{1-\beta_k}\,x_{k-1}, \beta_k I)`, the
model :math:`p_\theta(x_{k-1} \mid x_k) = \mathcal N(\mu_\theta(x_k), \beta_k I)` with
:math:`\mu_\theta = \tilde\mu(x_k, \hat x(x_k))`. Training minimises L_simple, which reweighs the
terms of the variational bound; `DDPM.bound` is the bound itself, and `DDPM.log_prob` by default the
density of the probability flow of the same network.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..diffusion import Diffusion
from ..errors import UsageError
from ..model import Event, Likelihood, Recipe
from ..networks.mlp import TimeMLP, waves_for
from ..shapes import Condition, Data, PerDatum, standard_normal, sum_event
from ..theory import paths, predictions, samplers
from ..theory.paths import Path
from ..theory.predictions import Prediction

SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "linear": paths.linear_betas,
    "cosine": paths.cosine_betas,
}
PREDICTIONS = {"v": predictions.v, "noise": predictions.noise, "data": predictions.data}


def of_noise(prediction: Prediction) -> Callable[[Path, Tensor], Tensor]:
    r"""The weight that turns a prediction's squared error into the noise's, as in L_simple.

    With :math:`y = a_t x + b_t\varepsilon`, an error e of y is an error
    :math:`\alpha_t e / (\alpha_t b_t - \sigma_t a_t)` of :math:`\hat\varepsilon`.
    """

    def weight(path: Path, t: Tensor) -> Tensor:
        (alpha, sigma), (a, b) = path(t), prediction(path, t)
        return (alpha / (alpha * b - sigma * a)).square()

    return weight


class DDPM(Diffusion):
    """A diffusion over the table of a Markov chain, which also has a variational bound."""

    # a tight clip would weigh down batches of large targets, and so bias the mean
    recipe = Recipe(steps=4500, batch=1024, lr=2e-3, clip=10.0)
    path: paths.DDPM

    def kind(self, *, bound: bool = False, **options: Any) -> Likelihood:
        return Likelihood.LOWER_BOUND if bound else self.likelihood

    def log_prob(
        self,
        x: Data,
        c: Condition = None,
        *,
        probes: int | None = None,
        bound: bool = False,
        terms: int | None = None,
    ) -> PerDatum:
        """Density of the probability flow in nats, or the variational bound if ``bound``."""
        if bound:
            return self.bound(x, c, terms=terms)
        return super().log_prob(x, c, probes=probes)

    def bound(self, x: Data, c: Condition = None, *, terms: int | None = None) -> PerDatum:
        r"""An unbiased estimate of the variational lower bound (Ho et al., 2020, eq. 5), in nats.

        .. math:: \log p(x_0) \ge -\mathrm{KL}(q(x_T|x_0)\,\|\,\mathcal N(0, I))
            - \sum_{k=2}^T \mathrm{KL}(q(x_{k-1}|x_k, x_0)\,\|\,p(x_{k-1}|x_k)) + \log p(x_0|x_1)

        Arguments:
            x: Data.
            c: Conditions.
            terms: How many of the T terms to evaluate for each datum, in strata; all when None.
        """
        chosen = self.path.steps if terms is None else min(terms, self.path.steps)
        edges = torch.linspace(0, self.path.steps, chosen + 1, device=x.device)
        total = x.new_zeros(len(x))
        for low, high in zip(edges[:-1], edges[1:]):
            k = (low + (high - low) * torch.rand_like(total)).long().clamp(max=self.path.steps - 1)
            total = total + (high - low) * self.term(x, k + 1, c)
        return -total - self.terminal(x)

    def terminal(self, x: Data) -> PerDatum:
        r""":math:`\mathrm{KL}(q(x_T|x_0)\,\|\,\mathcal N(0, I))` per datum, in nats."""
        alpha_bar = math.exp(-float(self.path.total[-1]))
        d = x[0].numel()
        return (alpha_bar * sum_event(x.square()) - d * (alpha_bar + math.log1p(-alpha_bar))) / 2

    def term(self, x: Data, k: Tensor, c: Condition) -> PerDatum:
        r"""The bound's term at each datum's k: a KL for :math:`k \ge 2`, else :math:`-\log p`."""
        x_t = self.path.interpolate(x, torch.randn_like(x), t := (k / self.path.steps).to(x))
        estimate = self.denoiser(x_t, t, c).x
        beta = self.path.beta(k).to(x)
        mean, variance = self.path.posterior(x, x_t, k)
        guess, _ = self.path.posterior(estimate, x_t, k)
        ratio = variance.to(x).reshape(len(x)) / beta
        error = sum_event((mean - guess).square())
        kl = (error / beta + x[0].numel() * (ratio - 1 - ratio.log())) / 2
        scale = beta.sqrt().reshape(-1, *[1] * (x.ndim - 1))
        first = -standard_normal((x - guess) / scale) + x[0].numel() * beta.log() / 2
        return torch.where(k == 1, first, kl)


def build(
    event: Event,
    *,
    width: int = 128,
    depth: int = 3,
    waves: int | None = None,
    chain: int = 1000,
    schedule: str = "linear",
    prediction: str = "v",
    sampler: str = "dpmpp_2m",
    steps: int = 50,
) -> DDPM:
    """Build the model.

    Arguments:
        event: What the data look like.
        width: Units in each hidden layer.
        depth: Hidden layers.
        waves: Random waves of the data as inputs; by default 64 in up to 4 dimensions.
        chain: Length T of the chain.
        schedule: The table of beta, "linear" or "cosine".
        prediction: What the network gives: "v", which is well scaled at all times, "noise" or
            "data"; the loss is L_simple in any case.
        sampler: The default sampler; "ddpm" is ancestral sampling.
        steps: Its default number of steps.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"schedule is {schedule!r}; choose from {', '.join(SCHEDULES)}")
    if prediction not in PREDICTIONS:
        raise UsageError(f"prediction is {prediction!r}; choose from {', '.join(PREDICTIONS)}")
    path = paths.DDPM(SCHEDULES[schedule](chain))
    return DDPM(
        TimeMLP(
            event.shape,
            event.condition,
            width=width,
            depth=depth,
            waves=waves_for(event.shape, waves),
        ),
        event.shape,
        path=path,
        prediction=PREDICTIONS[prediction],
        weight=of_noise(PREDICTIONS[prediction]),
        times=path.chain()[:-1],
        sampler=samplers.by_name(sampler),
        steps=steps,
    )
