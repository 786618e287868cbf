r"""Laws of one entry of a datum, given numbers from a network.

A decoder, or an autoregressive network, ends in ``size`` numbers for each entry; a law turns them
into a log-density or log-mass, draws and means. Entries are independent given these numbers, and
every value is that of one entry, in nats: sum them for a datum. The data decide which law fits:
Gaussian for real numbers, Bernoulli for bits, categorical for a few levels, discretised logistic
for many. Another law is another subclass of `EntryLikelihood`.
"""

import abc

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from ..errors import DataError, UsageError

FEW_LEVELS = 32  # up to here a logit for every level; beyond, two numbers an entry
NAMES = ("auto", "gaussian", "gaussian_shared", "bernoulli", "categorical", "logistic")


class EntryLikelihood(nn.Module, abc.ABC):
    """The law of one entry given ``size`` numbers from a network.

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
        """What a network sees of the data: levels are spread over [-1, 1]."""
        return 2 * x / (self.levels - 1) - 1 if self.levels else x

    def check(self, x: Tensor) -> None:
        """Refuse data that the law gives no probability (a cross-entropy would accept them).

        Raises:
            DataError: If an entry is not one of the levels.
        """
        if self.levels and not ((x == x.round()) & (x >= 0) & (x < self.levels)).all():
            raise DataError(
                f"the model takes integers 0 to {self.levels - 1} and the data hold other numbers; "
                "choose a Gaussian law for real numbers"
            )


class GaussianLikelihood(EntryLikelihood):
    r"""Mean and scale from the network, or one scale shared by all entries and data.

    .. math:: \sigma = \sigma_{\min} + \operatorname{softplus}(s)

    The floor bounds the density by :math:`1/(\sqrt{2\pi}\,\sigma_{\min})` an entry: without it, a
    network that memorises its data has an unbounded likelihood.

    Arguments:
        floor: The smallest scale, in standard deviations of the data.
        shared: Learn one scale for all entries and data instead of taking it from the network.
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


class BernoulliLikelihood(EntryLikelihood):
    """Bits, with a logit from the network."""

    size = 1

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        """Log-mass of bits.

        Raises:
            DataError: If a value is outside [0, 1]: there a cross-entropy of logits falls without
                bound, and nothing else would notice.
        """
        if not ((x >= 0) & (x <= 1)).all():
            raise DataError("a Bernoulli law takes bits and some values are outside [0, 1]")
        return -binary_cross_entropy_with_logits(h[..., 0], x, reduction="none")

    def sample(self, h: Tensor) -> Tensor:
        return h[..., 0].sigmoid().bernoulli()

    def mean(self, h: Tensor) -> Tensor:
        return h[..., 0].sigmoid()


class CategoricalLikelihood(EntryLikelihood):
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


class DiscretisedLogistic(EntryLikelihood):
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
        r""":math:`\mathbb E k = \sum_{k \ge 1} P(K \ge k)`; the outer cells pull it inwards."""
        mu, s = self.location_and_scale(h)
        total = torch.zeros_like(mu)
        for k in range(1, self.levels):
            total = total + ((mu - k + 0.5) / s).sigmoid()
        return total


def choose_likelihood(name: str, levels: int, floor: float) -> EntryLikelihood:
    """The law of one entry, by name or, with "auto", by the data.

    Raises:
        UsageError: If there is no such law, or it does not fit data with so many levels.
    """
    if name == "auto":
        few = "categorical" if levels <= FEW_LEVELS else "logistic"
        name = {0: "gaussian", 1: "gaussian", 2: "bernoulli"}.get(levels, few)
    if name not in NAMES:
        raise UsageError(f"no law of an entry is called {name!r}; choose from {', '.join(NAMES)}")
    if name.startswith("gaussian"):
        return GaussianLikelihood(floor, shared=name == "gaussian_shared")
    if levels < 2 or (name == "bernoulli" and levels != 2):
        kind = "bits" if name == "bernoulli" else "integer levels"
        raise UsageError(f"the law {name!r} needs data of {kind}; these have {levels} levels")
    laws = {
        "bernoulli": BernoulliLikelihood,
        "categorical": CategoricalLikelihood,
        "logistic": DiscretisedLogistic,
    }
    return laws[name](levels)
