r"""Variational autoencoder: latent variables fitted by a lower bound on the likelihood.

.. math:: \log p(x) \ge \underbrace{\mathbb E_{q(z \mid x)} \log p(x \mid z)}_{-\text{distortion}}
    - \beta\,\underbrace{\mathrm{KL}(q(z \mid x) \,\|\, \mathcal N(0, I))}_{\text{rate}}

holds for every :math:`\beta \ge 1`; at :math:`\beta = 1` the gap is the divergence from
:math:`q` to the posterior (Kingma & Welling, 2014; Higgins et al., 2017). The data decide what
:math:`p(x \mid z)` is: Gaussian for real numbers, Bernoulli for bits, categorical for a few levels
and a discretised logistic for many. All terms are sums over entries, in nats.
"""

import abc
import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from ..errors import DataError, UsageError
from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..networks.mlp import Perceptron, waves_for
from ..shapes import Condition, Data, PerDatum, Scalar, standard_normal, sum_event

FEW_LEVELS = 32  # up to here a logit for every level; beyond, two numbers an entry


class Decoder(nn.Module, abc.ABC):
    r"""The law of one entry of :math:`x` given ``size`` numbers that depend on :math:`z`.

    Arguments:
        levels: Entries are integers 0, ..., levels - 1; 0 for real numbers.
    """

    size: int

    def __init__(self, levels: int = 0) -> None:
        super().__init__()
        self.levels = levels

    @abc.abstractmethod
    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        """Log-density or log-mass of each entry, given ``h`` of shape ``(*x.shape, size)``."""

    @abc.abstractmethod
    def sample(self, h: Tensor) -> Tensor:
        """Draw every entry."""

    @abc.abstractmethod
    def mean(self, h: Tensor) -> Tensor:
        """The expectation of every entry."""

    def centre(self, x: Tensor) -> Tensor:
        """What the encoder sees: levels are spread over [-1, 1]."""
        return 2 * x / (self.levels - 1) - 1 if self.levels else x

    def check(self, x: Tensor) -> None:
        """Refuse data that the law gives no probability (a cross-entropy would accept them).

        Raises:
            DataError: If an entry is not one of the levels.
        """
        if self.levels and not ((x == x.round()) & (x >= 0) & (x < self.levels)).all():
            raise DataError(
                f"this VAE models integers 0 to {self.levels - 1} and the data hold other numbers; "
                "choose decoder='gaussian' for real numbers"
            )


class Gaussian(Decoder):
    r"""Mean and scale from the decoder, or one scale shared by all entries and data.

    .. math:: \sigma = \sigma_{\min} + \operatorname{softplus}(s)

    The floor bounds the density by :math:`1/(\sqrt{2\pi}\,\sigma_{\min})` an entry: without it, a
    network that memorises its data has an unbounded likelihood.

    Arguments:
        floor: The smallest scale, in standard deviations of the data.
        shared: Learn one scale instead of one for every entry and latent.
    """

    def __init__(self, floor: float = 0.003, shared: bool = False) -> None:
        super().__init__()
        self.size, self.floor = 1 if shared else 2, floor
        self.shared = nn.Parameter(torch.zeros(())) if shared else None

    def normal(self, h: Tensor) -> Normal:
        raw = self.shared if self.shared is not None else h[..., 1]
        return Normal(h[..., 0], self.floor + softplus(raw), validate_args=False)

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        return self.normal(h).log_prob(x)

    def sample(self, h: Tensor) -> Tensor:
        return self.normal(h).sample()

    def mean(self, h: Tensor) -> Tensor:
        return h[..., 0]


class Bernoulli(Decoder):
    """Bits, with a logit from the decoder."""

    size = 1

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        return -binary_cross_entropy_with_logits(h[..., 0], x, reduction="none")

    def sample(self, h: Tensor) -> Tensor:
        return h[..., 0].sigmoid().bernoulli()

    def mean(self, h: Tensor) -> Tensor:
        return h[..., 0].sigmoid()


class Categorical(Decoder):
    """A few levels, with a logit for each: any shape of law, but ``levels`` numbers an entry."""

    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.size = levels

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        return -cross_entropy(h.flatten(0, -2), x.flatten().long(), reduction="none").view_as(x)

    def sample(self, h: Tensor) -> Tensor:
        gumbel = -torch.empty_like(h).exponential_().log()
        return (h + gumbel).argmax(-1).to(h)

    def mean(self, h: Tensor) -> Tensor:
        return h.softmax(-1) @ torch.arange(self.levels).to(h)


class DiscretisedLogistic(Decoder):
    r"""Many ordered levels: a logistic density integrated over unit cells (Kingma et al., 2016).

    .. math:: P(k) = \operatorname{sigmoid}\frac{k + 1/2 - \mu}{s}
        - \operatorname{sigmoid}\frac{k - 1/2 - \mu}{s}

    with the outer cells open, so the masses sum to one. Neighbouring levels share what is learnt,
    and an entry needs two numbers instead of 256.
    """

    size = 2

    def location_and_scale(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """In units of levels; the scale is at least 1/20 of a cell, where the law is a point."""
        half = (self.levels - 1) / 2
        return half * (1 + h[..., 0]), 0.05 + half / 4 * softplus(h[..., 1])

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        mu, s = self.location_and_scale(h)
        upper, lower = (x + 0.5 - mu) / s, (x - 0.5 - mu) / s
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)): nothing cancels
        log_above = torch.where(x < self.levels - 1, -softplus(-upper), upper.new_zeros(()))
        log_below = torch.where(x > 0, -softplus(lower), lower.new_zeros(()))
        inner = (x > 0) & (x < self.levels - 1)
        width = torch.where(inner, torch.log(-torch.expm1(-1 / s)), s.new_zeros(()))
        return log_above + log_below + width

    def sample(self, h: Tensor) -> Tensor:
        mu, s = self.location_and_scale(h)
        u = torch.rand_like(mu).clamp(1e-6, 1 - 1e-6)  # float32 can draw 0, whose logit is infinite
        return (mu + s * u.logit()).round().clamp(0, self.levels - 1)

    def mean(self, h: Tensor) -> Tensor:
        return self.location_and_scale(h)[0].clamp(0, self.levels - 1)


class VAE(GenerativeModel):
    r"""A Gaussian posterior :math:`q(z \mid x, c)` and a law :math:`p(x \mid z, c)`.

    Arguments:
        encoder: Maps data and a condition to ``(n, 2 * latent)``: means and log-scales.
        decoder: Maps ``(n, latent)`` and a condition to ``(n, d * law.size)``.
        law: The law of one entry.
        event_shape: The shape of one datum.
        beta: The weight of the rate; only for ``beta >= 1`` is the objective a bound.
        anneal: The part of training over which the weight of the rate grows to ``beta``.
        recipe: How this model likes to be trained.
    """

    likelihood = Likelihood.LOWER_BOUND
    whitened = True  # entries are independent given z: z need not explain linear correlations

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        law: Decoder,
        event_shape: tuple[int, ...],
        *,
        latent: int,
        beta: float = 1.0,
        anneal: float = 0.0,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.law = encoder, decoder, law
        self.event_shape, self.latent, self.beta, self.anneal = event_shape, latent, beta, anneal
        self.discrete, self.recipe = law.levels > 0, recipe or self.recipe

    def prepare(self, x: Data, c: Condition = None) -> None:
        self.law.check(x)

    def posterior(self, x: Data, c: Condition = None) -> Normal:
        """q(z | x, c); log-scales are clamped to [-8, 4], so that no variance is 0 or infinite."""
        mu, log_sigma = self.encoder(self.law.centre(x), c).chunk(2, dim=1)
        return Normal(mu, log_sigma.clamp(-8, 4).exp(), validate_args=False)

    def parameters_of(self, z: Tensor, c: Condition = None) -> Tensor:
        """What the law needs for every entry, ``(n, *event, size)``."""
        return self.decoder(z, c).unflatten(1, (*self.event_shape, self.law.size))

    def encode(self, x: Data, c: Condition = None) -> Tensor:
        """The posterior means, ``(n, latent)``."""
        return self.posterior(x, c).mean

    def decode(self, z: Tensor, c: Condition = None) -> Tensor:
        """The expected data, ``(n, *event)``."""
        return self.law.mean(self.parameters_of(z, c))

    def sample(self, n: int, c: Condition = None) -> Tensor:
        return self.law.sample(self.parameters_of(self.noise(n, self.latent), c))

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        q = self.posterior(x, c)
        distortion = -sum_event(self.law.log_prob(self.parameters_of(q.rsample(), c), x)).mean()
        return {"distortion": distortion, "rate": self.rate_weight() * rate(q).mean()}

    def rate_weight(self) -> float:
        r""":math:`\beta`, growing linearly over the first part of training."""
        grown = self.progress / self.anneal if self.training and self.anneal else 1.0
        return self.beta * min(1.0, grown)

    def log_prob(self, x: Data, c: Condition = None, *, k: int = 64) -> PerDatum:
        r"""A lower bound on :math:`\log p(x)` in nats; it rises to it with ``k``.

        .. math:: \log \frac1k \sum_{i=1}^k \frac{p(x \mid z_i)\,p(z_i)}{q(z_i \mid x)}, \qquad
            z_i \sim q(z \mid x)

        in expectation (Burda et al., 2016); ``k = 1`` is the ELBO.
        """
        self.law.check(x)
        q, block = self.posterior(x, c), max(1, 65536 // max(len(x), 1))
        counts = [min(block, k - i) for i in range(0, k, block)]
        parts = [self.log_weights(q, x, c, count).logsumexp(0) for count in counts]
        return torch.stack(parts).logsumexp(0) - math.log(k)

    def log_weights(self, q: Normal, x: Data, c: Condition, k: int) -> Tensor:
        r""":math:`\log p(x, z) - \log q(z \mid x)` for ``k`` draws of z, ``(k, n)``."""
        z = q.sample((k,))
        flat, many = z.flatten(0, 1), x.repeat(k, *[1] * (x.ndim - 1))
        h = self.parameters_of(flat, None if c is None else c.repeat(k, 1))
        joint = sum_event(self.law.log_prob(h, many)) + standard_normal(flat)
        return joint.view(k, len(x)) - q.log_prob(z).sum(-1)


def rate(q: Normal) -> PerDatum:
    r""":math:`\mathrm{KL}(q \,\|\, \mathcal N(0, I)) = \tfrac12 \sum_i
    (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2)`.
    """
    return (q.mean.square() + q.variance - 1).sum(1) / 2 - q.scale.log().sum(1)


DECODERS = ("auto", "gaussian", "gaussian_shared", "bernoulli", "categorical", "logistic")


def law(name: str, levels: int, floor: float) -> Decoder:
    """The law of one entry, by name or by the data."""
    if name == "auto":
        few = "categorical" if levels <= FEW_LEVELS else "logistic"
        name = {0: "gaussian", 1: "gaussian", 2: "bernoulli"}.get(levels, few)
    if name not in DECODERS:
        raise UsageError(f"vae has no decoder {name!r}; choose from {', '.join(DECODERS)}")
    if name.startswith("gaussian"):
        return Gaussian(floor, shared=name == "gaussian_shared")
    if levels < 2 or (name == "bernoulli" and levels != 2):
        kind = "bits" if name == "bernoulli" else "integer levels"
        raise UsageError(f"decoder={name!r} needs data of {kind}; these have {levels} levels")
    return {"bernoulli": Bernoulli, "categorical": Categorical, "logistic": DiscretisedLogistic}[
        name
    ](levels)


def build(
    event: Event,
    *,
    latent: int = 0,
    width: int = 0,
    depth: int = 0,
    beta: float = 1.0,
    decoder: str = "auto",
    floor: float = 0.003,
    waves: int | None = None,
    anneal: float | None = None,
) -> VAE:
    """A VAE of two perceptrons.

    Arguments:
        event: The kind of data.
        latent: The length of z, 0 to choose it from the data.
        width: Units in each hidden layer, 0 to choose from the data.
        depth: Hidden layers, 0 to choose from the data.
        beta: The weight of the rate.
        decoder: The law of an entry: "auto", "gaussian", "gaussian_shared" (one learned scale),
            "bernoulli", "categorical" or "logistic" (discretised).
        floor: The smallest scale of a Gaussian law, in standard deviations of the data.
        waves: Random waves of the data and of z as inputs; by default 64 in up to 4 dimensions.
        anneal: The part of training over which the rate's weight grows to ``beta``; by default a
            third where there are waves: at full weight from the start, it merges modes for good.
    """
    chosen, d, k = law(decoder, event.levels, floor), math.prod(event.shape), event.condition
    waves, latent = waves_for(event.shape, waves), latent or min(d, 16)
    hidden = [width or (128 if waves else 256)] * (depth or (3 if waves else 2))
    recipe = Recipe(steps=4000, batch=512, lr=2e-3)
    if waves:
        recipe = Recipe(steps=6000, batch=512, lr=3e-3, ema=0.99)
    return VAE(
        Perceptron(d, k, 2 * latent, hidden, waves=waves, sharpest=16.0),
        Perceptron(latent, k, d * chosen.size, hidden, waves=waves, sharpest=4.0),
        chosen,
        event.shape,
        latent=latent,
        beta=beta,
        anneal=anneal if anneal is not None else (1 / 3 if waves else 0.0),
        recipe=recipe,
    )
