r"""Denoising diffusion (Ho et al., 2020): learn to undo a 1000-step chain that adds noise.

The chain is :math:`q(x_k \mid x_{k-1}) = \mathcal N(\sqrt{1-\beta_k}\,x_{k-1}, \beta_k I)`, the
model :math:`p_\theta(x_{k-1} \mid x_k) = \mathcal N(\mu_\theta(x_k), \Sigma_k)` with
:math:`\mu_\theta = \tilde\mu(x_k, \hat x(x_k))` and :math:`\Sigma_k` between the variance
:math:`\tilde\beta_k` of :math:`q(x_{k-1} \mid x_k, x_0)` and :math:`\beta_k`. Training minimises
L_simple, which reweighs the terms of the variational bound, or the bound itself. `DDPM.bound` is
the bound, and `DDPM.log_prob` by default the density of the probability flow of the same network.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..diffusion import Diffusion, default_width, diffusion_recipe, stratified_indices
from ..errors import UsageError
from ..model import Event, Likelihood, Preprocessing
from ..networks.select import TIME_NETWORKS, TimeNetworkOptions, adapt_recipe, build_time_network
from ..networks.unet import DiffusersUNet
from ..options import FRACTION, LAYERS, Choice
from ..shapes import Condition, Data, PerDatum, Scalar, append_dims, sum_event
from ..theory import ddpm_schedule, predictions, samplers
from ..theory.denoisers import Sampler

SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "linear": ddpm_schedule.linear_betas,
    "cosine": ddpm_schedule.cosine_betas,
}
PREDICTIONS = {
    "v": predictions.v_prediction,
    "noise": predictions.noise_prediction,
    "data": predictions.data_prediction,
}
VARIANCES = {"small": 0.0, "large": 1.0, "learned": 1.0}
WEIGHTS = {
    "simple": lambda prediction, v: predictions.noise_error_weight(prediction),
    "vlb": ddpm_schedule.bound_weight,
}


class DDPM(Diffusion):
    r"""A diffusion over the table of a Markov chain, which also has a variational bound.

    The variance is v of :math:`\Sigma_k = \beta_k^v\tilde\beta_k^{1-v}`: a number, or a module that
    learns it for each entry of :math:`(x_k, k, c)`, as `net` takes them.
    """

    path: ddpm_schedule.DDPMPath

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        path: ddpm_schedule.DDPMPath,
        variance: float | nn.Module = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, event_shape, path=path, times=path.chain()[:-1], **options)
        self.variance = variance

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        r"""The regression, and for a learned variance the bound's mean term, :math:`L_{vlb}/T`.

        Together they are L_hybrid of Nichol & Dhariwal (2021), whose factor 0.001 is 1/T. As there
        the bound moves the variance only: the mean is held.
        """
        terms = super().loss(x, c)
        if isinstance(self.variance, nn.Module):
            k = stratified_indices(len(x), self.path.steps) + 1
            terms["vlb"] = self.bound_term(x, k, self.drop_condition(c)).mean()
        return terms

    def sampler_options(self, run: Sampler, times: Tensor, given: dict[str, Any]) -> dict[str, Any]:
        return {"variance": self.variance} | given if run is samplers.ddpm else given

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
        return self.estimated(x, c, probes=probes, bound=bound, terms=terms)[0]

    def estimated(
        self,
        x: Data,
        c: Condition = None,
        *,
        bound: bool = False,
        terms: int | None = None,
        **options: Any,
    ) -> tuple[PerDatum, PerDatum]:
        if not bound:
            return super().estimated(x, c, **options)
        value = self.bound(x, c, terms=terms)
        return value, torch.zeros_like(value)

    def bound(self, x: Data, c: Condition = None, *, terms: int | None = None) -> PerDatum:
        r"""An unbiased estimate of the variational lower bound (Ho et al., 2020, eq. 5), in nats.

        .. math:: \log p(x_0) \ge -\mathrm{KL}(q(x_T|x_0)\,\|\,\mathcal N(0, I))
            - \sum_{k=2}^T \mathrm{KL}(q(x_{k-1}|x_k, x_0)\,\|\,p(x_{k-1}|x_k)) + \log p(x_0|x_1)

        Of the T terms, so many are evaluated for each sample, in strata; all when None.
        """
        if terms is not None and terms < 1:
            raise UsageError(f"terms is {terms}; evaluate at least one term of the bound")
        chosen = self.path.steps if terms is None else min(terms, self.path.steps)
        edges = torch.linspace(0, self.path.steps, chosen + 1, device=x.device)
        total = x.new_zeros(len(x))
        for low, high in zip(edges[:-1], edges[1:]):
            k = (low + (high - low) * torch.rand_like(total)).long().clamp(max=self.path.steps - 1)
            total = total + (high - low) * self.bound_term(x, k + 1, c)
        return -total - ddpm_schedule.terminal_kl(x, math.exp(-float(self.path.total[-1])))

    def reverse_moments(self, x_t: Data, k: Tensor, c: Condition = None) -> tuple[Data, Tensor]:
        r"""Mean and variance of :math:`p_\theta(x_{k-1} \mid x_k)`, the mean without a graph."""
        t = (k.double() / self.path.steps).to(x_t)
        with torch.no_grad():
            mean, _ = self.path.posterior(self.denoiser(x_t, t, c).x, x_t, k)
        if isinstance(self.variance, nn.Module):
            return mean, self.path.variance(k, self.variance(x_t, t, c).to(x_t))
        return mean, append_dims(self.path.variance(k, self.variance).to(x_t), x_t)

    def bound_term(self, x: Data, k: Tensor, c: Condition = None) -> PerDatum:
        r"""The bound's term at each datum's k: a KL for :math:`k \ge 2`, else :math:`-\log p`."""
        x_t = self.path.interpolate(x, torch.randn_like(x), (k.double() / self.path.steps).to(x))
        guess, variance = self.reverse_moments(x_t, k, c)
        mean, true = self.path.posterior(x, x_t, k)  # at k = 1 this is x, with variance 0
        first = append_dims((k == 1).to(x.device), x)
        constant = torch.where(first, math.log(2 * math.pi), -1 - true.log())
        error = (mean - guess).square() + torch.where(first, 0.0, true)
        return sum_event(error / variance + variance.log() + constant) / 2


def build(
    event: Event,
    *,
    network: Annotated[str, Choice((*TIME_NETWORKS, "diffusers"))] = "auto",
    width: int = 0,
    depth: Annotated[int, LAYERS] = 3,
    waves: int | None = None,
    chain: int = 1000,
    schedule: Annotated[str, Choice(SCHEDULES)] = "linear",
    prediction: Annotated[str, Choice(PREDICTIONS)] = "v",
    weight: Annotated[str, Choice(WEIGHTS)] = "simple",
    variance: Annotated[str, Choice(VARIANCES)] = "large",
    sampler: str = "dpmpp_2m",
    sampler_steps: int = 50,
    unconditional: Annotated[float, FRACTION] = 0.1,
) -> DDPM:
    """Build the model.

    Arguments:
        network: "mlp", "unet", "dit" (a transformer), or "auto": a U-Net for images of more than
            8 x 8 pixels, and otherwise an mlp. "diffusers" is a U-Net that `export` writes as it
            is: it learns images in [-1, 1].
        width: Units of an mlp, first channels of a U-Net, token width of a DiT; 0 to choose.
        depth: Hidden layers of an mlp, scales of a U-Net, blocks of a transformer.
        waves: Random Fourier features of the input of an mlp; by default 64 in up to 4 dimensions.
        chain: Length T of the chain.
        schedule: The table of beta, "linear" or "cosine".
        prediction: What the network gives: "v", well scaled at all times, "noise" or "data"; the
            loss is the same in any case.
        weight: "simple" for L_simple, or "vlb" for the variational bound.
        variance: Of the chain's reverse steps, for the bound and for ancestral sampling: "large"
            is beta, "small" beta-tilde, "learned" in between, with a network of its own.
        sampler: The default sampler; "ddpm" is ancestral sampling.
        sampler_steps: Its default number of steps; T of them are the chain as trained.
        unconditional: Condition dropout probability, for guidance.
    """
    sizes: TimeNetworkOptions = {"width": width, "depth": depth, "waves": waves}
    sizes["network"], units = network, default_width(event.shape)
    make: Callable[[], nn.Module] = partial(build_time_network, event, units=units, **sizes)
    if network == "diffusers":
        scales = {"width": width or 32, "scales": depth, "steps": chain}
        make = partial(DiffusersUNet, event.shape, event.condition, **scales)
    net = make()
    recipe = adapt_recipe(net, diffusion_recipe(event.size))
    if weight == "vlb":  # in nats its gradient is that many times longer
        recipe = recipe._replace(clip=10.0 * chain)
    model = DDPM(
        net,
        event.shape,
        path=ddpm_schedule.DDPMPath(SCHEDULES[schedule](chain)),
        variance=make() if variance == "learned" else VARIANCES[variance],
        prediction=PREDICTIONS[prediction],
        weight=WEIGHTS[weight](PREDICTIONS[prediction], VARIANCES[variance]),
        sampler=samplers.sampler_by_name(sampler),
        steps=sampler_steps,
    )
    model.unconditional, model.recipe = unconditional, recipe
    if network == "diffusers":
        model.preprocessing = Preprocessing.CENTRE
    return model
