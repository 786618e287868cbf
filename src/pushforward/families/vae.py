r"""Variational autoencoder: latent variables fitted by a lower bound on the likelihood.

.. math:: -\log p(x) \le \underbrace{-\mathbb E_{q(z \mid x)} \log p(x \mid z)}_{\text{distortion}}
    + \beta\,\underbrace{\mathrm{KL}(q(z \mid x) \,\|\, \mathcal N(0, I))}_{\text{rate}}

holds for every :math:`\beta \ge 1` and not below; at :math:`\beta = 1` the gap is the divergence
from :math:`q` to the posterior (Kingma & Welling, 2014; Higgins et al., 2017). Several particles
train the tighter importance-weighted bound instead (Burda et al., 2016). The data decide what
:math:`p(x \mid z)` is (`networks.likelihoods`). All terms are sums over entries, in nats; the
bounds themselves are in `theory.bounds`, and the case that can be solved in `exact.evidence`.
"""

import math
import warnings
from typing import Annotated

import torch
from torch import Tensor
from torch.distributions import Normal

from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Preprocessing, Recipe
from ..networks import autoencoder
from ..networks.likelihoods import LIKELIHOODS, choose_likelihood
from ..networks.mlp import fourier_count
from ..networks.select import VECTOR_NETWORKS, is_convolutional
from ..options import FRACTION, LAYERS, Choice
from ..shapes import Condition, Data, PerDatum, Scalar, standard_normal_log_prob, sum_event
from ..theory.bounds import active_units, importance_bound, kl_to_prior, reparametrise_doubly
from ..theory.completion import impute_by_gibbs

ROWS = 65536  # decoded at once when many latents are drawn for every sample
NUMBERS = 2**24  # that the likelihood needs for them, at most
DIAGNOSED = 128  # held-out data whose bound is tightened to see what it gains


class VAE(GenerativeModel):
    r"""A Gaussian posterior :math:`q(z \mid x, c)` and a distribution :math:`p(x \mid z, c)`.

    The data are ``whitened``: entries are independent given z, so that z need not explain linear
    correlations; of nearly Gaussian data it then has little to say. Other options are `build`'s.
    """

    likelihood = Likelihood.LOWER_BOUND
    preprocessing = Preprocessing.WHITEN

    def __init__(
        self,
        networks: autoencoder.AutoencoderNetworks,
        event_shape: tuple[int, ...],
        *,
        latent: int,
        beta: float = 1.0,
        anneal: float = 0.0,
        particles: int = 1,
        whitened: bool = True,
    ) -> None:
        super().__init__()
        if particles > 1 and beta != 1:  # the powers of importance weights bound nothing
            raise UsageError(f"particles={particles} needs beta=1, not {beta:g}, to be a bound")
        self.encoder, self.decoder, self.law, self.prior = networks
        self.event_shape, self.latent, self.particles = event_shape, latent, particles
        self.beta, self.anneal = beta, anneal
        if self.law.levels:
            self.preprocessing = Preprocessing.LEVELS
        elif not whitened:
            self.preprocessing = Preprocessing.STANDARDISE

    def prepare(self, x: Data, c: Condition = None) -> None:
        self.law.check_levels(x)
        if self.beta < 1:
            what = f"with beta = {self.beta:g} < 1 the objective bounds nothing"
            warnings.warn(f"{what}; distortion + rate and log_prob still do", stacklevel=2)

    def posterior(self, x: Data, c: Condition = None) -> Normal:
        """q(z | x, c), of latents whose prior is a standard normal.

        Log-scales are clamped to [-8, 4]: beyond 88 a scale overflows in float32 and the rate with
        it, far below its logarithm is infinite. The floor, 0.0003, is a tenth of the smallest scale
        that data have by default; the ceiling, 55, costs 1,486 nats an entry.
        """
        mu, log_sigma = self.encoder(self.law.to_network_input(x), c).chunk(2, dim=1)
        m, log_s = self.prior_parameters(c)
        sigma = (log_sigma - log_s).clamp(-8, 4).exp()
        return Normal((mu - m) * (-log_s).exp(), sigma, validate_args=False)

    def prior_parameters(self, c: Condition) -> tuple[Tensor, Tensor]:
        r"""The distribution :math:`p(u \mid c) = \mathcal N(m_c, s_c^2)` of what the networks see.

        A prior that follows the condition (Sohn et al., 2015) lets each class have its own place
        among the latents, so that its samples need not overlay all others'. Nothing else has to
        know: :math:`z = (u - m_c)/s_c` is standard normal, and the rate the same. Returned are
        :math:`m_c` and :math:`\log s_c`, zeros where nothing is known.
        """
        if self.prior is None or c is None:
            return torch.zeros(()), torch.zeros(())
        m, log_s = self.prior(c).chunk(2, dim=1)
        return m, log_s.clamp(-4, 4)

    def likelihood_parameters(self, z: Tensor, c: Condition = None) -> Tensor:
        m, log_s = self.prior_parameters(c)
        u = m + log_s.exp() * z
        return self.decoder(u, c).unflatten(1, (*self.event_shape, self.law.size))

    def encode(self, x: Data, c: Condition = None) -> Tensor:
        return self.posterior(x, c).mean

    def decode(self, z: Tensor, c: Condition = None) -> Tensor:
        return self.law.mean(self.likelihood_parameters(z, c))

    def reconstruct(self, x: Data, c: Condition = None) -> Data:
        return self.decode(self.encode(x, c), c)

    def sample(self, n: int, c: Condition = None, *, grain: bool = True) -> Tensor:
        r"""Draw latents and decode them.

        ``grain`` draws every entry from :math:`p(x \mid z)`, the distribution that is scored;
        without it entries are means: images without observation noise, as papers show them.
        """
        h = self.likelihood_parameters(self.noise(n, self.latent), c)
        return (self.law.sample if grain else self.law.mean)(h)

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        r"""The terms of the bound, and what the weight of the rate adds to it.

        Whatever the weight :math:`\beta_t`, distortion + rate, or "iwae", is minus a bound on the
        log-likelihood in nats; "reweighting" is the difference from what is minimised, so that a
        history can be read without knowing the weight.
        """
        bound, c = self.elbo if self.particles == 1 else self.iwae, self.drop_condition(c)
        return bound(self.posterior(x, c), x, c)

    def elbo(self, q: Normal, x: Data, c: Condition) -> dict[str, Scalar]:
        r"""Distortion + rate + :math:`(\beta_t - 1)` rate, with one latent a sample."""
        z = q.mean + q.scale * self.noise(*q.mean.shape)
        return self.elbo_terms(q, self.likelihood_parameters(z, c), x)

    def elbo_terms(self, q: Normal, h: Tensor, x: Data) -> dict[str, Scalar]:
        distortion = -sum_event(self.law.log_prob(h, x)).mean()
        terms = {"distortion": distortion, "rate": kl_to_prior(q).mean()}
        if self.anneal or self.beta != 1:
            terms["reweighting"] = (self.rate_weight() - 1) * terms["rate"]
        return terms

    def iwae(self, q: Normal, x: Data, c: Condition) -> dict[str, Scalar]:
        r"""Doubly reparametrised; weights warm up as :math:`p(x|z)(p(z) / q(z|x))^{\beta_t}`."""
        z = q.mean + q.scale * self.noise(self.particles, *q.mean.shape)
        constant = Normal(q.mean.detach(), q.scale.detach(), validate_args=False)
        log_p, log_ratio = self.log_ratios(constant, z, x, c)
        beta = self.rate_weight()
        log_w = log_p + beta * log_ratio
        reparametrise_doubly(z, log_w, beta)
        minimised = -importance_bound(log_w).mean()
        if not self.anneal:
            return {"iwae": minimised}
        iwae = -importance_bound((log_p + log_ratio).detach()).mean()
        return {"iwae": iwae, "reweighting": minimised - iwae}

    def rate_weight(self) -> float:
        r""":math:`\beta_t`, which grows linearly to :math:`\beta` early in training."""
        grown = self.progress / self.anneal if self.training and self.anneal else 1.0
        return self.beta * min(1.0, grown)

    def log_prob(self, x: Data, c: Condition = None, *, particles: int = 64) -> PerDatum:
        r"""The importance-weighted bound on :math:`\log p(x)` in nats; it rises to it with K.

        .. math:: \log \frac1K \sum_{i=1}^K \frac{p(x \mid z_i)\,p(z_i)}{q(z_i \mid x)}, \qquad
            z_i \sim q(z \mid x)

        in expectation (Burda et al., 2016) for K ``particles``; one gives the ELBO. It is a bound
        whatever ``beta`` the model was trained with.
        """
        if particles < 1:
            raise UsageError(f"particles is {particles}; draw at least one latent a sample")
        self.law.check_levels(x)
        return importance_bound(self.log_weights(self.posterior(x, c), x, c, particles))

    def log_weights(self, q: Normal, x: Data, c: Condition, particles: int) -> Tensor:
        r""":math:`\log p(x, z) - \log q(z \mid x)` for draws from q, ``(particles, n)``."""
        rows = min(ROWS, NUMBERS // (math.prod(self.event_shape) * self.law.size))
        block = max(1, rows // max(len(x), 1))
        draws = [q.sample((min(block, particles - i),)) for i in range(0, particles, block)]
        return torch.cat([torch.stack(self.log_ratios(q, z, x, c)).sum(0) for z in draws])

    def log_ratios(self, q: Normal, z: Tensor, x: Data, c: Condition) -> tuple[Tensor, Tensor]:
        r""":math:`\log p(x \mid z)` and :math:`\log p(z)/q(z)` of latents ``(k, n, latent)``."""
        k, flat = len(z), z.flatten(0, 1)
        h = self.likelihood_parameters(flat, None if c is None else c.repeat(k, 1))
        log_p = sum_event(self.law.log_prob(h, x.repeat(k, *[1] * (x.ndim - 1))))
        log_prior = standard_normal_log_prob(flat).view(k, -1)
        return log_p.view(k, -1), log_prior - q.log_prob(z).sum(-1)

    @torch.no_grad()
    def complete(
        self, n: int, x: Tensor, known: Tensor, c: Condition = None, *, sweeps: int = 200
    ) -> Tensor | None:
        """Metropolis within Gibbs (`theory.completion`), a chain for each sample."""
        # vectors of real numbers are narrow given z: importance resampling draws them better
        if self.preprocessing is not Preprocessing.LEVELS and len(self.event_shape) == 1:
            return None
        return impute_by_gibbs(
            lambda rows: self.posterior(rows, c),
            lambda q, z, rows: torch.stack(self.log_ratios(q, z, rows, c)).sum(0),
            lambda z: self.law.sample(self.likelihood_parameters(z, c)),
            torch.where(known, x, self.sample(n, c)),
            known,
            sweeps=sweeps,
        )

    @torch.no_grad()
    def diagnosis(self, x: Data, c: Condition = None) -> dict[str, float]:
        r"""How the latents are used, from held-out data.

        "active_units" tell of the data (`active_units`), "collapsed_units" have a posterior next to
        the prior; "held_out_rate" is the mean rate in nats, and "iwae_gain" the nats by which 32
        particles tighten the ELBO, a lower bound on the divergence of q from the posterior.
        """
        q, some = self.posterior(x, c), slice(DIAGNOSED)
        few = Normal(q.mean[some], q.scale[some], validate_args=False)
        log_w = self.log_weights(few, x[some], None if c is None else c[some], 32)
        used = int(active_units(q.mean).sum())
        return {
            "active_units": float(used),
            "collapsed_units": float(self.latent - used),
            "held_out_rate": float(kl_to_prior(q).mean()),
            "iwae_gain": float((importance_bound(log_w) - log_w.mean(0)).mean()),
        }


def build(
    event: Event,
    *,
    network: Annotated[str, VECTOR_NETWORKS] = "auto",
    latent: int = 0,
    width: int = 0,
    depth: Annotated[int, LAYERS] = 0,
    beta: float = 1.0,
    decoder: Annotated[str, Choice(LIKELIHOODS)] = "auto",
    floor: float = 0.003,
    waves: int | None = None,
    anneal: Annotated[float | None, FRACTION] = None,
    particles: int = 1,
    whiten: bool = True,
) -> VAE:
    """A VAE of two perceptrons, or of two convolutional networks.

    Arguments:
        network: "mlp", "conv", or "auto": convolutions for images of more than 8 x 8 pixels.
        latent: The length of z, 0 to choose it from the data.
        width: Units in each hidden layer, or channels of the largest scale; 0 to choose.
        depth: Hidden layers, or scales; 0 to choose from the data.
        beta: The weight of the rate; below 1 the objective is no bound, though scores still are.
        decoder: The distribution of an entry: "auto" (chosen by the data), "gaussian",
            "gaussian_shared" (one learned scale), "bernoulli", "categorical" or "logistic"
            (discretised).
        floor: The smallest scale of a Gaussian, in standard deviations of the data.
        waves: Random Fourier features of the input, data or z; by default 64 in up to 4 dimensions.
        anneal: The fraction of training over which the rate's weight grows to ``beta``; by default
            a third with Fourier features: at full weight from the start, it merges modes for good.
        particles: Latents drawn for each sample in training; more than one train the
            importance-weighted bound, at that many times the cost of the decoder.
        whiten: Remove the linear correlations of a table first; False leaves them to the latents.
    """
    entry = choose_likelihood(decoder, event.levels, floor)
    latent, waves = latent or min(math.prod(event.shape), 16), fourier_count(event.shape, waves)
    if is_convolutional(event, network):
        waves, recipe = 0, Recipe(steps=4000, batch=64, lr=1e-3)
        sizes = {"width": width or 16, "scales": depth or 3}
        nets = autoencoder.build_conv_autoencoder(event, entry, latent=latent, **sizes)
    else:
        recipe = Recipe(steps=4000, batch=512, lr=2e-3)
        if waves:
            recipe = Recipe(steps=6000, batch=512, lr=3e-3, ema=0.99)
        hidden = [width or (128 if waves else 256)] * (depth or (3 if waves else 2))
        sizes = {"latent": latent, "waves": waves}
        nets = autoencoder.build_mlp_autoencoder(event, entry, hidden=hidden, **sizes)
    anneal = (1 / 3 if waves else 0.0) if anneal is None else anneal
    shape = event.shape
    model = VAE(
        nets, shape, latent=latent, beta=beta, anneal=anneal, particles=particles, whitened=whiten
    )
    model.recipe = recipe
    return model
