r"""Variational autoencoder: latent variables fitted by a lower bound on the likelihood.

.. math:: -\log p(x) \le \underbrace{-\mathbb E_{q(z \mid x)} \log p(x \mid z)}_{\text{distortion}}
    + \beta\,\underbrace{\mathrm{KL}(q(z \mid x) \,\|\, \mathcal N(0, I))}_{\text{rate}}

holds for every :math:`\beta \ge 1` and not below; at :math:`\beta = 1` the gap is the divergence
from :math:`q` to the posterior (Kingma & Welling, 2014; Higgins et al., 2017). Several particles
train the tighter importance-weighted bound instead (Burda et al., 2016). The data decide what
:math:`p(x \mid z)` is (`networks.likelihoods`). All terms are sums over entries, in nats; the bounds
themselves are in `theory.bounds`, and the case that can be solved in `exact.linear_vae`.
"""

import math
import warnings
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Preprocessing, Recipe
from ..networks import likelihoods
from ..networks.convolutional import ConvDecoder, ConvEncoder
from ..networks.likelihoods import EntryLikelihood
from ..networks.mlp import Perceptron, fourier_count
from ..networks.select import is_convolutional
from ..options import FRACTION, LAYERS
from ..shapes import Condition, Data, PerDatum, Scalar, standard_normal_log_prob, sum_event
from ..theory.bounds import active_units, importance_bound, kl_to_prior, reparametrise_doubly

ROWS = 65536  # decoded at once when many latents are drawn for every datum
NUMBERS = 2**24  # that the law needs for them, at most
DIAGNOSED = 128  # held-out data whose bound is tightened to see what it gains


class VAE(GenerativeModel):
    r"""A Gaussian posterior :math:`q(z \mid x, c)` and a law :math:`p(x \mid z, c)`.

    Arguments:
        encoder: Maps data and a condition to ``(n, 2 * latent)``: means and log-scales.
        decoder: Maps ``(n, latent)`` and a condition to ``(n, d * law.size)``.
        law: The law of one entry.
        event_shape: The shape of one datum.
        beta: The weight of the rate; only for ``beta >= 1`` is the objective a bound.
        anneal: The part of training over which the weight of the rate grows to ``beta``.
        particles: Latents drawn for each datum in training; more than one train `importance_bound`.
        whitened: Take data without linear correlations. Entries are independent given z, so that z
            need not explain these; of nearly Gaussian data it then has little to tell.
        prior: Maps a condition to ``(n, 2 * latent)``: where its latents lie (`placed`).
        recipe: How this model likes to be trained.

    Raises:
        UsageError: If several particles are asked for with a ``beta`` other than 1: the powers of
            importance weights bound nothing.
    """

    likelihood = Likelihood.LOWER_BOUND
    preprocessing = Preprocessing.WHITEN

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        law: EntryLikelihood,
        event_shape: tuple[int, ...],
        *,
        latent: int,
        beta: float = 1.0,
        anneal: Annotated[float, FRACTION] = 0.0,
        particles: int = 1,
        whitened: bool = True,
        prior: nn.Module | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__()
        if particles > 1 and beta != 1:
            raise UsageError(f"particles={particles} needs beta=1, not {beta:g}, to be a bound")
        if not 0 <= anneal <= 1:
            raise UsageError(f"anneal is {anneal:g}; it is a part of training, from 0 to 1")
        self.encoder, self.decoder, self.law, self.prior = encoder, decoder, law, prior
        self.event_shape, self.latent, self.particles = event_shape, latent, particles
        self.beta, self.anneal, self.recipe = beta, anneal, recipe or self.recipe
        if law.levels:
            self.preprocessing = Preprocessing.LEVELS
        elif not whitened:
            self.preprocessing = Preprocessing.STANDARDISE

    def prepare(self, x: Data, c: Condition = None) -> None:
        self.law.check(x)
        if self.beta < 1:
            warnings.warn(
                f"with beta = {self.beta:g} < 1 the objective bounds nothing; distortion + rate "
                "and log_prob still do",
                stacklevel=2,
            )

    def posterior(self, x: Data, c: Condition = None) -> Normal:
        """q(z | x, c), of latents whose prior is a standard normal.

        Log-scales are clamped to [-8, 4]: beyond 88 a scale overflows in float32 and the rate with
        it, far below its logarithm is infinite. The floor, 0.0003, is a tenth of the smallest scale
        that data have by default; the ceiling, 55, costs 1,486 nats an entry.
        """
        mu, log_sigma = self.encoder(self.law.centre(x), c).chunk(2, dim=1)
        m, log_s = self.placed(c)
        sigma = (log_sigma - log_s).clamp(-8, 4).exp()
        return Normal((mu - m) * (-log_s).exp(), sigma, validate_args=False)

    def placed(self, c: Condition) -> tuple[Tensor, Tensor]:
        r"""The law :math:`p(u \mid c) = \mathcal N(m_c, s_c^2)` of what the networks see.

        A prior that follows the condition (Sohn et al., 2015) lets each class have its own place
        among the latents, so that its pictures need not overlay all others'. Nothing else has to
        know: :math:`z = (u - m_c)/s_c` is standard normal, and the rate the same.

        Returns:
            Its mean and the logarithm of its scale; zeros where nothing is known.
        """
        if self.prior is None or c is None:
            return torch.zeros(()), torch.zeros(())
        m, log_s = self.prior(c).chunk(2, dim=1)
        return m, log_s.clamp(-4, 4)

    def parameters_of(self, z: Tensor, c: Condition = None) -> Tensor:
        """What the law needs for every entry, ``(n, *event, size)``."""
        m, log_s = self.placed(c)
        u = m + log_s.exp() * z
        return self.decoder(u, c).unflatten(1, (*self.event_shape, self.law.size))

    def encode(self, x: Data, c: Condition = None) -> Tensor:
        """The posterior means, ``(n, latent)``; nothing is drawn."""
        return self.posterior(x, c).mean

    def decode(self, z: Tensor, c: Condition = None) -> Tensor:
        """The expected data, ``(n, *event)``; nothing is drawn."""
        return self.law.mean(self.parameters_of(z, c))

    def reconstruct(self, x: Data, c: Condition = None) -> Data:
        """The expected data at the posterior means."""
        return self.decode(self.encode(x, c), c)

    def sample(self, n: int, c: Condition = None, *, grain: bool = True) -> Tensor:
        r"""Draw latents and decode them.

        Arguments:
            n: How many.
            c: The condition of each.
            grain: Draw every entry from :math:`p(x \mid z)`, the law that is scored, or take its
                mean: pictures without grain, as papers show them.
        """
        h = self.parameters_of(self.noise(n, self.latent), c)
        return (self.law.sample if grain else self.law.mean)(h)

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        r"""The terms of the bound, and what the weight of the rate adds to it.

        Whatever the weight :math:`\beta_t`, distortion + rate, or "iwae", is minus a bound on the
        log-likelihood in nats; "reweighting" is the difference from what is minimised, so that a
        history can be read without knowing the weight.
        """
        bound, c = self.single if self.particles == 1 else self.weighted, self.hidden(c)
        return bound(self.posterior(x, c), x, c)

    def single(self, q: Normal, x: Data, c: Condition) -> dict[str, Scalar]:
        r"""Distortion + rate + :math:`(\beta_t - 1)` rate, with one latent a datum."""
        z = q.mean + q.scale * self.noise(*q.mean.shape)
        return self.terms(q, self.parameters_of(z, c), x)

    def terms(self, q: Normal, h: Tensor, x: Data) -> dict[str, Scalar]:
        """The terms of a loss, from what the law needs at one latent a datum."""
        distortion = -sum_event(self.law.log_prob(h, x)).mean()
        terms = {"distortion": distortion, "rate": kl_to_prior(q).mean()}
        if self.anneal or self.beta != 1:
            terms["reweighting"] = (self.rate_weight() - 1) * terms["rate"]
        return terms

    def weighted(self, q: Normal, x: Data, c: Condition) -> dict[str, Scalar]:
        r"""Minus the importance-weighted bound, with the doubly reparametrised gradient.

        In the warm-up the weights are :math:`p(x \mid z)\,(p(z) / q(z \mid x))^{\beta_t}`.
        """
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

        in expectation (Burda et al., 2016); one particle gives the ELBO. It is a bound whatever
        ``beta`` the model was trained with.

        Arguments:
            x: Data.
            c: Conditions.
            particles: K.
        """
        if particles < 1:
            raise UsageError(f"particles is {particles}; draw at least one latent a datum")
        self.law.check(x)
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
        h = self.parameters_of(flat, None if c is None else c.repeat(k, 1))
        log_p = sum_event(self.law.log_prob(h, x.repeat(k, *[1] * (x.ndim - 1))))
        log_prior = standard_normal_log_prob(flat).view(k, -1)
        return log_p.view(k, -1), log_prior - q.log_prob(z).sum(-1)

    @torch.no_grad()
    def complete(
        self, n: int, x: Tensor, known: Tensor, c: Condition = None, *, sweeps: int = 200
    ) -> Tensor | None:
        r"""Metropolis within Gibbs (Mattei & Frellsen, 2018), a chain for each datum.

        .. math:: z' \sim q(z \mid x) \text{ accepted with } \min\Big(1,
            \frac{p(x, z')\,q(z \mid x)}{p(x, z)\,q(z' \mid x)}\Big), \qquad
            x^U \sim p(x^U \mid z)

        leaves :math:`p(z, x^U \mid x^K)` as it is. In the first quarter all proposals are taken
        (Rezende et al., 2014), so that the chains come to where the data are. Of vectors of real
        numbers, whose laws given z are narrow, importance resampling draws better: None.

        Arguments:
            n: How many.
            x: A datum, ``(*event,)``.
            known: Which of its entries are known, ``(*event,)``.
            c: Conditions.
            sweeps: Of each chain.
        """
        if self.preprocessing is not Preprocessing.LEVELS and len(self.event_shape) == 1:
            return None
        rows = torch.where(known, x, self.sample(n, c))
        z = self.posterior(rows, c).sample()
        for sweep in range(sweeps):
            q = self.posterior(rows, c)
            both = torch.stack([z, q.sample()])
            old, new = torch.stack(self.log_ratios(q, both, rows, c)).sum(0)
            taken = (torch.rand_like(new).log() < new - old) | (sweep < sweeps // 4)
            z = torch.where(taken[:, None], both[1], z)
            rows = torch.where(known, x, self.law.sample(self.parameters_of(z, c)))
        return rows

    @torch.no_grad()
    def diagnosis(self, x: Data, c: Condition = None) -> dict[str, float]:
        r"""How the latents are used, from held-out data.

        Returns:
            "active_units": latents that tell of the data (`bounds.active`); "collapsed_units": the
            others, whose posterior is next to the prior. "held_out_rate": the mean rate in nats,
            zero where all have collapsed. "iwae_gain": the nats by which 32 particles tighten the
            ELBO, a lower bound on the divergence of q from the posterior.
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


def build_mlp_autoencoder(
    event: Event, latent: int, size: int, hidden: list[int], waves: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of vectors, with the numbers of the law of an entry."""
    d, k = math.prod(event.shape), event.condition
    return (
        Perceptron(d, k, 2 * latent, hidden, waves=waves, sharpest=16.0),
        Perceptron(latent, k, d * size, hidden, waves=waves, sharpest=4.0),
    )


def build_conv_autoencoder(
    event: Event, latent: int, size: int, width: int, scales: int
) -> tuple[nn.Module, nn.Module]:
    """The same of images."""
    shape, k = event.shape, event.condition
    return (
        ConvEncoder(shape, k, 2 * latent, width=width, scales=scales),
        ConvDecoder(shape, k, latent, size, width=width, scales=scales),
    )


class ConditionalPrior(nn.Module):
    """Where the latents of each condition lie; it begins at the origin, as where nothing is known.

    Arguments:
        condition: The length of ``c``.
        latent: The length of z.
    """

    pace = 10.0  # an optimizer moves weights by its rate, and places are a few units apart

    def __init__(self, condition: int, latent: int) -> None:
        super().__init__()
        self.places = nn.Linear(condition, 2 * latent, bias=False)
        nn.init.zeros_(self.places.weight)

    def forward(self, c: Tensor) -> Tensor:
        """Means and logarithms of scales, ``(n, 2 * latent)``."""
        return self.pace * self.places(c)


def build(
    event: Event,
    *,
    network: str = "auto",
    latent: int = 0,
    width: int = 0,
    depth: Annotated[int, LAYERS] = 0,
    beta: float = 1.0,
    decoder: str = "auto",
    floor: float = 0.003,
    waves: int | None = None,
    anneal: Annotated[float | None, FRACTION] = None,
    particles: int = 1,
    whiten: bool = True,
) -> VAE:
    """A VAE of two perceptrons, or of two convolutional networks.

    Arguments:
        event: The kind of data.
        network: "mlp", "conv", or "auto": convolutions for images of more than 8 x 8 pixels.
        latent: The length of z, 0 to choose it from the data.
        width: Units in each hidden layer, or channels of the largest scale; 0 to choose from the
            data.
        depth: Hidden layers, or scales; 0 to choose from the data.
        beta: The weight of the rate; below 1 the objective is no bound, though scores still are.
        decoder: The law of an entry: "auto" (chosen by the data), "gaussian", "gaussian_shared"
            (one learned scale), "bernoulli", "categorical" or "logistic" (discretised).
        floor: The smallest scale of a Gaussian law, in standard deviations of the data.
        waves: Random waves of the data and of z as inputs; by default 64 in up to 4 dimensions.
        anneal: The part of training over which the rate's weight grows to ``beta``; by default a
            third where there are waves: at full weight from the start, it merges modes for good.
        particles: Latents drawn for each datum in training; more than one train the
            importance-weighted bound, at that many times the cost of the decoder.
        whiten: Remove the linear correlations of a table first; False leaves them to the latents.
    """
    chosen = likelihoods.choose_likelihood(decoder, event.levels, floor)
    latent = latent or min(math.prod(event.shape), 16)
    if is_convolutional(event, network):
        waves, recipe = 0, Recipe(steps=4000, batch=64, lr=1e-3)
        nets = build_conv_autoencoder(event, latent, chosen.size, width or 16, depth or 3)
    else:
        waves, recipe = fourier_count(event.shape, waves), Recipe(steps=4000, batch=512, lr=2e-3)
        hidden = [width or (128 if waves else 256)] * (depth or (3 if waves else 2))
        nets = build_mlp_autoencoder(event, latent, chosen.size, hidden, waves)
    if waves:
        recipe = Recipe(steps=6000, batch=512, lr=3e-3, ema=0.99)
    return VAE(
        *nets,
        chosen,
        event.shape,
        latent=latent,
        beta=beta,
        anneal=anneal if anneal is not None else (1 / 3 if waves else 0.0),
        particles=particles,
        whitened=whiten,
        prior=ConditionalPrior(event.condition, latent) if event.condition else None,
        recipe=recipe,
    )
