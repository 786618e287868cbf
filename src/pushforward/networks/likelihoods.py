r"""The distribution of one entry of a sample, given numbers from a network.

A decoder, or an autoregressive network, ends in ``size`` numbers for each entry; a likelihood turns
them into a log-density or log-mass, draws and means. Entries are independent given these numbers,
and every value is that of one entry, in nats: sum them for a sample. The data decide which fits:
Gaussian for real numbers, Bernoulli for bits, categorical for a few levels, discretised logistic
for many.

Those of autoregressive networks also know from which parameters to begin: a mixture near the
standard normal, around a linear prediction; levels with their frequencies. Training then starts
where simple models end.
"""

import abc
import math
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot, softplus

from ..errors import DataError, UsageError
from ..options import choose_option

FEW_LEVELS = 32  # up to here a logit for every level; beyond, two numbers an entry
LIKELIHOODS = ("auto", "gaussian", "gaussian_shared", "bernoulli", "categorical", "logistic")


class EntryLikelihood(nn.Module, abc.ABC):
    """The distribution of an entry given ``size`` numbers; with 0 ``levels``, of a real number."""

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

    def to_network_input(self, x: Tensor) -> Tensor:
        """What a network sees of the data: levels are spread over [-1, 1]."""
        return 2 * x / (self.levels - 1) - 1 if self.levels else x

    def check_levels(self, x: Tensor) -> None:
        """Refuse data that have no probability (a cross-entropy would accept them)."""
        if self.levels and not ((x == x.round()) & (x >= 0) & (x < self.levels)).all():
            raise DataError(
                f"the model takes integers 0 to {self.levels - 1} and the data hold other numbers; "
                "choose a Gaussian for real numbers"
            )


class GaussianLikelihood(EntryLikelihood):
    r"""Mean and scale from the network, or one scale ``shared`` by all entries and data.

    .. math:: \sigma = \sigma_{\min} + \operatorname{softplus}(s)

    The ``floor``, in standard deviations of the data, bounds the density by
    :math:`1/(\sqrt{2\pi}\,\sigma_{\min})` an entry: without it, a network that memorises its data
    has an unbounded likelihood.
    """

    def __init__(self, floor: float = 0.003, shared: bool = False) -> None:
        super().__init__()
        self.size, self.floor = 1 if shared else 2, floor
        self.shared = nn.Parameter(torch.zeros(())) if shared else None

    def normal(self, h: Tensor) -> Normal:
        scale = self.floor + softplus(h[..., 1] if self.shared is None else self.shared)
        return Normal(h[..., 0], scale, validate_args=False)

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        return self.normal(h).log_prob(x)

    def sample(self, h: Tensor) -> Tensor:
        return self.normal(h).sample()

    def mean(self, h: Tensor) -> Tensor:
        return h[..., 0]


class BernoulliLikelihood(EntryLikelihood):
    size = 1

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        # outside [0, 1] a cross-entropy of logits falls without bound, and nothing would notice
        if not ((x >= 0) & (x <= 1)).all():
            raise DataError(
                "a Bernoulli distribution takes bits and some values are outside [0, 1]"
            )
        return -binary_cross_entropy_with_logits(h[..., 0], x, reduction="none")

    def sample(self, h: Tensor) -> Tensor:
        return h[..., 0].sigmoid().bernoulli()

    def mean(self, h: Tensor) -> Tensor:
        return h[..., 0].sigmoid()


class CategoricalLikelihood(EntryLikelihood):
    """A few levels, with a logit for each: any distribution, but ``levels`` numbers an entry."""

    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.size = levels

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        return -cross_entropy(h.flatten(0, -2), x.flatten().long(), reduction="none").view_as(x)

    def sample(self, h: Tensor) -> Tensor:
        return (h - torch.empty_like(h).exponential_().log()).argmax(-1).to(h)

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
        """In units of levels; the scale is at least 1/20 of a cell, where it is a point."""
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
    """The distribution of one entry, by its name in `LIKELIHOODS` or, with "auto", by the data."""
    choose_option("decoder", name, dict.fromkeys(LIKELIHOODS))
    if name == "auto":
        few = "categorical" if levels <= FEW_LEVELS else "logistic"
        name = {0: "gaussian", 1: "gaussian", 2: "bernoulli"}.get(levels, few)
    if name.startswith("gaussian"):
        return GaussianLikelihood(floor, shared=name == "gaussian_shared")
    if levels < 2 or (name == "bernoulli" and levels != 2):
        kind = "bits" if name == "bernoulli" else "integer levels"
        raise UsageError(f"decoder={name!r} needs data of {kind}; these have {levels} levels")
    of_levels: dict[str, Callable[[int], EntryLikelihood]] = {
        "bernoulli": BernoulliLikelihood,
        "categorical": CategoricalLikelihood,
        "logistic": DiscretisedLogistic,
    }
    return of_levels[name](levels)


FEW = 4  # entries up to which distributions may be of any shape
SPREAD = 0.8  # standard deviation of where the components of a mixture begin, of 1 in all


class AutoregressiveLikelihood(EntryLikelihood):
    prediction_parameters: int = 0  # how many of its parameters do not come from a perceptron

    @abc.abstractmethod
    def initial_parameters(self, rows: Tensor) -> Tensor:
        """First parameters ``(d, size - prediction_parameters)`` of columns of rows ``(n, d)``."""


class _CategoricalFromCounts(CategoricalLikelihood, AutoregressiveLikelihood):
    """A probability for every level; it begins with the frequencies of each entry's levels."""

    def initial_parameters(self, rows: Tensor) -> Tensor:
        counts = one_hot(rows.long(), self.levels).sum(0) + 1 / self.levels
        return (counts / (len(rows) + 1)).log().to(rows)


class MixtureLikelihood(AutoregressiveLikelihood):
    r"""A mixture of distributions with a location and a scale.

    .. math:: p(x_i) = \sum_{k=1}^K w_k\,p(x_i \mid \mu_k, s_k)
    """

    def __init__(self, component: EntryLikelihood, components: int) -> None:
        super().__init__(component.levels)
        self.law, self.components = component, components
        self.size = components * (1 + component.size)

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        logits, parameters = h.split([self.components, self.components * self.law.size], dim=-1)
        return logits, parameters.unflatten(-1, (self.components, self.law.size))

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        logits, parameters = self.split(h)
        each = self.law.log_prob(parameters, x[..., None].expand_as(logits))
        return (logits.log_softmax(-1) + each).logsumexp(-1)

    def sample(self, h: Tensor) -> Tensor:
        logits, parameters = self.split(h)
        gumbel = -torch.empty_like(logits).exponential_().log()
        k = (logits + gumbel).argmax(-1)[..., None, None].expand(*h.shape[:-1], 1, self.law.size)
        return self.law.sample(parameters.gather(-2, k)[..., 0, :])

    def mean(self, h: Tensor) -> Tensor:
        logits, parameters = self.split(h)
        return (logits.softmax(-1) * self.law.mean(parameters)).sum(-1)

    def initial_parameters(self, rows: Tensor) -> Tensor:
        """Equal weights, and locations and scales that add up to nearly a standard normal."""
        k = self.components
        spread = SPREAD if k > 1 else 0.0
        at = [spread * NormalDist().inv_cdf((i + 0.5) / k) for i in range(k)]
        raw = math.log(math.expm1(math.sqrt(1 - spread**2)))
        h = torch.tensor([0.0] * k + [v for mu in at for v in (mu, raw)])
        return h.to(rows).expand(rows.shape[1], -1)


class LinearResidualLikelihood(AutoregressiveLikelihood):
    r"""That of :math:`(x - \hat x)/s`, with :math:`\hat x` and :math:`\log s` before its own
    parameters, as `LinearAutoregression` gives them.
    """

    prediction_parameters = 2

    def __init__(self, residual: AutoregressiveLikelihood) -> None:
        super().__init__()
        self.law, self.size = residual, 2 + residual.size

    def initial_parameters(self, rows: Tensor) -> Tensor:
        return self.law.initial_parameters(rows)

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        log_s = h[..., 1]
        return self.law.log_prob(h[..., 2:], (x - h[..., 0]) * (-log_s).exp()) - log_s

    def sample(self, h: Tensor) -> Tensor:
        return h[..., 0] + h[..., 1].exp() * self.law.sample(h[..., 2:])

    def mean(self, h: Tensor) -> Tensor:
        return h[..., 0] + h[..., 1].exp() * self.law.mean(h[..., 2:])


def choose_autoregressive_likelihood(
    levels: int, components: int, d: int, linear: bool
) -> AutoregressiveLikelihood:
    """After a linear prediction if ``linear``; 0 components chooses their number."""
    if not levels:
        mixture = MixtureLikelihood(GaussianLikelihood(), components or (48 if d <= FEW else 8))
        return LinearResidualLikelihood(mixture) if linear else mixture
    if levels <= FEW_LEVELS:
        return _CategoricalFromCounts(levels)
    return MixtureLikelihood(DiscretisedLogistic(levels), components or 8)
