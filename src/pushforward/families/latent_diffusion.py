r"""Latent diffusion (Rombach et al., 2022): an autoencoder, then a flow of its standardised codes.

One run trains two models in turn. First an autoencoder, whose code of an image is a smaller image:

.. math:: L_1 = \mathbb E_q\bigl[-\log p(x \mid z)\bigr]
    + \beta\,\mathrm{KL}(q(z \mid x) \,\|\, \mathcal N(0, I))

with a small :math:`\beta`, and if asked a distance of random features and a critic of patches.
Then the autoencoder stays as it is, and the codes :math:`u = (z - m)/s`, standardised for each
channel, are what a flow or a diffusion learns. To draw a datum, draw a code and decode it.

The density of the second model is the prior of the first, and

.. math:: \log p(x) \ge \mathbb E_q\bigl[\log p(x \mid z) + \log p_{flow}(u) - \textstyle\sum \log s
    - \log q(z \mid x)\bigr]

whatever :math:`\beta` was.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..diffusion import Diffusion
from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Loss, Preprocessing, Recipe
from ..networks import autoencoder, likelihoods
from ..networks.autoencoder import PerceptualAdversarialLoss
from ..networks.select import TIME_NETWORKS, VECTOR_NETWORKS, is_convolutional
from ..options import FRACTION, LAYERS, Choice, check_options
from ..shapes import Condition, Data, PerDatum, Scalar, append_dims, sum_event
from ..theory.bounds import importance_bound, kl_to_prior
from ..theory.densities import choose_probe_count
from ..two_stage import TwoStage
from . import ddpm, edm, flow_matching
from .vae import VAE

ROWS = 1024  # encoded at once
FAR = 1e4  # deviations of a code beyond which no solver is asked, and the bound is -inf
DIAGNOSED = 256  # held-out data that are reconstructed at each validation
PRIORS: dict[str, Callable[..., Diffusion]] = {
    "flow_matching": flow_matching.build,
    "ddpm": ddpm.build,
    "edm": edm.build,
}


class LatentDiffusion(TwoStage):
    """An autoencoder, which gets the first ``stage`` of training, and a diffusion of its codes."""

    likelihood = Likelihood.LOWER_BOUND
    preprocessing = Preprocessing.WHITEN

    def __init__(
        self,
        first: VAE,
        second: Callable[[tuple[int, ...]], Diffusion],
        *,
        stage: float = 0.4,
        sharpening: PerceptualAdversarialLoss | None = None,
    ) -> None:
        super().__init__(stage)
        self.make, self.sharpening, self.adopted = second, sharpening, False
        self.reset_second_stage(first)

    def reset_second_stage(self, first: VAE) -> None:
        self.first, like = first, next(first.parameters())
        self.event_shape, self.preprocessing = first.event_shape, first.preprocessing
        with torch.no_grad():
            shape = first.encode(torch.zeros(1, *self.event_shape).to(like)).shape[1:]
        self.second = self.make(tuple(shape)).to(like)
        self.reset_codes(tuple(shape), like)

    def adopt(self, teacher: GenerativeModel) -> None:
        """Take a fitted autoencoder as the first stage, as it is; all of training is the second."""
        first = teacher.first if isinstance(teacher, LatentDiffusion) else teacher
        if not isinstance(first, VAE):
            what = f"{type(teacher).__name__} is no first stage of a latent diffusion"
            raise UsageError(f"{what}: take a run of vae or latent_diffusion")
        if self.sharpening is not None:
            raise UsageError(
                "a fitted first stage stays as it is: leave out perceptual and adversarial"
            )
        self.reset_second_stage(copy.deepcopy(first).requires_grad_(False))
        self.adopted = True
        self.settled.fill_(True)

    def prepare(self, x: Data, c: Condition = None) -> None:
        self.first.law.check_levels(x)
        if not self.adopted:
            return
        parts = [slice(i, i + ROWS) for i in range(0, len(x), ROWS)]
        draws = [self.first.posterior(x[i], None if c is None else c[i]).sample() for i in parts]
        self.measure_codes(torch.cat(draws))

    @property
    def critic(self) -> nn.Module | None:
        return None if self.sharpening is None else self.sharpening.critic

    def players(self) -> dict[str, nn.Module]:
        if self.adopted:
            return {"diffusion": self.second}
        found: dict[str, nn.Module] = {"autoencoder": self.first, "diffusion": self.second}
        return found if self.critic is None else {**found, "critic": self.critic}

    def objectives(self) -> Iterator[tuple[str, Loss]]:
        if self.in_second_stage:
            self.settled.fill_(True)
            yield "diffusion", self.diffusion_objective
            return
        yield "autoencoder", self.autoencoder_objective
        if self.critic is not None:
            yield "critic", self.critic_objective
        self.rounds += 1

    def autoencoder_objective(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        """The bound in nats, and what sharpens it; the critic is listened to in the second half."""
        q = self.first.posterior(x, c)
        z = q.mean + q.scale * self.noise(*q.mean.shape)
        self.update_code_statistics(z)
        h = self.first.likelihood_parameters(z, c)
        terms = self.first.elbo_terms(q, h, x)
        if self.sharpening is not None:
            made, last = self.first.law.mean(h), self.first.decoder.get_parameter("leave.weight")
            if self.critic is not None and self.progress >= self.stage / 2:
                terms |= self.sharpening.generator_objective(made, terms["distortion"], last)
            terms |= self.sharpening.perceptual_loss(x, made)
        return terms

    def critic_objective(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        with torch.no_grad():
            made = self.first.decode(self.first.posterior(x, c).sample(), c)
        return self.sharpening.critic_objective(x, made)  # type: ignore[union-attr]

    def diffusion_objective(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        with torch.no_grad():
            u = self.standardise(self.first.posterior(x, c).sample())
        return self.second.loss(u.to(self.mean), c)

    def validation(self, x: Data, c: Condition = None) -> Scalar | None:
        if not self.settled:  # the codes still move
            return None
        return torch.stack(list(self.diffusion_objective(x, c).values())).sum()

    @torch.no_grad()
    def diagnosis(self, x: Data, c: Condition = None) -> dict[str, float]:
        x, c = x[:DIAGNOSED], None if c is None else c[:DIAGNOSED]
        q = self.first.posterior(x, c)
        error = (self.first.decode(q.mean, c) - x).square().mean()
        return {"reconstruction_error": float(error), "held_out_rate": float(kl_to_prior(q).mean())}

    def encode(self, x: Data, c: Condition = None) -> Tensor:
        return self.standardise(self.first.encode(x, c))

    def decode(self, z: Tensor, c: Condition = None) -> Tensor:
        return self.first.decode(self.restore_codes(z), c)

    def sample(
        self, n: int, c: Condition = None, *, grain: bool | None = None, **options: Any
    ) -> Tensor:
        """Draw codes, with the options of the second model, and decode them.

        With ``grain`` data come from :math:`p(x | z)`, whose density is scored, and without it they
        are its means, which is the default for images.
        """
        z = self.restore_codes(self.second.sample(n, c, **options))
        h = self.first.likelihood_parameters(z, c)
        grain = len(self.event_shape) == 1 if grain is None else grain
        return self.first.law.sample(h) if grain else self.first.law.mean(h)

    def edit(self, x: Data, c: Condition = None, *, strength: float = 0.5, **options: Any) -> Data:
        """Codes noised to a level and denoised (`Diffusion.edit`), then decoded.

        A strength of 0 gives the reconstruction, and 1 a fresh sample. Options are those of the
        second model: ``sampler``, ``steps``, ``guidance``, ...
        """
        check_options(self.second.edit, options, type(self).__name__)
        return self.decode(self.second.edit(self.encode(x, c), c, strength=strength, **options), c)

    @property
    def nfe(self) -> int:
        return self.second.nfe + 1

    def log_prob(
        self, x: Data, c: Condition = None, *, particles: int = 1, probes: int | None = None
    ) -> PerDatum:
        r"""The importance-weighted bound on :math:`\log p(x)` in nats (Burda et al., 2016).

        .. math:: \log \frac1K \sum_i \frac{p(x \mid z_i)\,p_{flow}(u_i) / \prod s}{q(z_i \mid x)},
            \qquad z_i \sim q(z \mid x), \quad u_i = (z_i - m)/s

        It bounds the density of ``sample(grain=True)``, up to the tolerance of the flow's solver.
        ``particles`` is K; ``probes`` are those of the flow's trace, as of `Diffusion.log_prob`.
        Several particles need the exact one: the exponential of an unbiased estimate is too large
        on average, and nothing would be bounded.
        """
        return self.estimated(x, c, particles=particles, probes=probes)[0]

    def estimated(
        self, x: Data, c: Condition = None, *, particles: int = 1, **options: Any
    ) -> tuple[PerDatum, PerDatum]:
        if particles < 1:
            raise UsageError(f"particles is {particles}; draw at least one code a datum")
        self.first.law.check_levels(x)
        if particles > 1 and choose_probe_count(options.get("probes"), self.second.event_shape):
            raise UsageError(f"particles={particles} needs the exact trace: pass probes=0")
        q, log_w = self.first.posterior(x, c), []
        for _ in range(particles):
            z = q.sample()
            h, u = self.first.likelihood_parameters(z, c), self.standardise(z)
            far = ~(u.abs().flatten(1).amax(1) < FAR)
            near = torch.where(append_dims(far, u), 0.0, u)
            prior, error = self.second.estimated(near, c, **options)
            ratio = prior - sum_event(q.log_prob(z) + self.scale.log())
            value = sum_event(self.first.law.log_prob(h, x)) + ratio
            log_w.append(torch.where(far, -torch.inf, value))
        return importance_bound(torch.stack(log_w)), error


def _build_autoencoder(
    event: Event, network: str, latent: int, width: int, factor: int, beta: float, floor: float
) -> VAE:
    entry = likelihoods.GaussianLikelihood(floor, shared=len(event.shape) > 1)
    if is_convolutional(event, network):
        latent, size = latent or 4, {"width": width or 16, "factor": factor}
        nets = autoencoder.build_spatial_autoencoder(event, entry, latent=latent, **size)
    else:
        latent, hidden = latent or min(math.prod(event.shape), 16), [width or 256] * 2
        # no Fourier features: a code that is smooth in the data has a simple distribution
        bare = event._replace(condition=0)
        nets = autoencoder.build_mlp_autoencoder(bare, entry, latent=latent, hidden=hidden)
    return VAE(nets, event.shape, latent=latent, beta=beta)


def _build_latent_prior(
    event: Event, prior: str, options: dict[str, Any], shape: tuple[int, ...]
) -> Diffusion:
    """By a U-Net for all images, even small: each pixel of a code tells much."""
    usual: dict[str, Any] = {"depth": 3}
    if len(shape) == 3 and options["network"] == "auto":
        usual = {"width": 32, "depth": 2}
        options = options | {"network": "unet"}
    options = options | {name: value for name, value in usual.items() if not options[name]}
    return PRIORS[prior](event._replace(shape=shape, levels=0), **options)


def _latent_diffusion_recipe(event: Event, encoder: str) -> Recipe:
    if is_convolutional(event, encoder):
        return Recipe(steps=8000, batch=64, lr=1e-3, clip=100.0)
    return Recipe(4000 if 0 < event.size < 5000 else 8000, batch=256, lr=2e-3, clip=10.0)


def build(
    event: Event,
    *,
    encoder: Annotated[str, VECTOR_NETWORKS] = "auto",
    latent: int = 0,
    factor: int = 4,
    encoder_width: int = 0,
    beta: float = 0.1,
    floor: float = 0.003,
    perceptual: float = 0.0,
    adversarial: float = 0.0,
    stage: Annotated[float, FRACTION] = 0.4,
    prior: Annotated[str, Choice(PRIORS)] = "flow_matching",
    network: Annotated[str, Choice(TIME_NETWORKS)] = "auto",
    width: int = 0,
    depth: Annotated[int, LAYERS] = 0,
    sampler: str | None = None,
    sampler_steps: int = 50,
    unconditional: Annotated[float, FRACTION] = 0.1,
) -> LatentDiffusion:
    """Build both models.

    Arguments:
        encoder: Networks of the autoencoder: "conv", "mlp", or "auto": "conv" above 8 x 8 pixels.
        latent: Numbers per pixel of a code, or the length of a code that is a vector; 0 to choose.
        factor: How much smaller than the image a code is on each side: 1, 2, 4, 8, ...
        encoder_width: The autoencoder's channels at its largest scale, or units; 0 to choose.
        beta: The weight of the rate in the autoencoder's loss.
        floor: The smallest scale of the decoder's distribution, in standard deviations of the data.
        perceptual: The weight of a distance of random features in that loss, in nats an entry.
        adversarial: The pull of a critic of patches at the decoder, in that of the distortion.
        stage: The part of training that the autoencoder gets, between 0 and 1.
        prior: The model of the codes: "flow_matching", "ddpm" or "edm".
        network: That of the prior: "mlp", "unet", "dit" (a transformer), or "auto": a U-Net of
            codes that are images, an mlp of others.
        width: Its units, first channels, or numbers per token; 0 to choose.
        depth: Its hidden layers, scales, or blocks; 0 to choose.
        sampler: The default sampler; by default the prior's own.
        sampler_steps: Its default number of steps.
        unconditional: Condition dropout probability, for guidance.
    """
    if not 0 < stage < 1:
        raise UsageError(f"stage is {stage:g}; both stages need a part of training")
    first = _build_autoencoder(event, encoder, latent, encoder_width, factor, beta, floor)
    options: dict[str, Any] = {"network": network, "width": width, "depth": depth}
    options |= {"sampler_steps": sampler_steps, "unconditional": unconditional}
    options |= {} if sampler is None else {"sampler": sampler}
    sharpening = None
    if perceptual or adversarial:
        if not is_convolutional(event, encoder):
            raise UsageError(
                "perceptual and adversarial losses are for convolutions (encoder=conv)"
            )
        size = {"width": encoder_width or 16, "scales": autoencoder.scale_count(factor)}
        pulls = {"perceptual": perceptual, "adversarial": adversarial}
        sharpening = PerceptualAdversarialLoss(event.shape, **pulls, **size)  # type: ignore[arg-type]
    second = partial(_build_latent_prior, event, prior, options)
    model = LatentDiffusion(first, second, stage=stage, sharpening=sharpening)
    model.recipe = _latent_diffusion_recipe(event, encoder)
    return model
