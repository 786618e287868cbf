r"""Laws of one entry for autoregressive networks: each knows from which parameters to begin.

A mixture begins near the standard normal, around a linear prediction; levels begin with their
frequencies. Training then starts where simple models end.
"""

import abc
import math
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .likelihoods import (
    FEW_LEVELS,
    CategoricalLikelihood,
    DiscretisedLogistic,
    EntryLikelihood,
    GaussianLikelihood,
)

FEW = 4  # entries up to which laws may be of any shape
SPREAD = 0.8  # standard deviation of where the components of a mixture begin, of 1 in all


class AutoregressiveLikelihood(EntryLikelihood):
    """The law of one entry, with parameters to begin at."""

    given: int = 0  # how many of its parameters do not come from a perceptron

    @abc.abstractmethod
    def start(self, rows: Tensor) -> Tensor:
        """First parameters of the columns of ``(n, d)`` rows, ``(d, size - given)``."""


class CategoricalFromCounts(CategoricalLikelihood, AutoregressiveLikelihood):
    """A probability for every level; it begins with the frequencies of each entry's levels."""

    def start(self, rows: Tensor) -> Tensor:
        """First logits ``(d, levels)``, with one count more than seen in every column."""
        counts = one_hot(rows.long(), self.levels).sum(0) + 1 / self.levels
        return (counts / (len(rows) + 1)).log().to(rows)


class MixtureLikelihood(AutoregressiveLikelihood):
    r"""A mixture of laws with a location and a scale.

    .. math:: p(x_i) = \sum_{k=1}^K w_k\,p(x_i \mid \mu_k, s_k)

    Arguments:
        law: The law of a component, of two parameters.
        components: How many.
    """

    def __init__(self, law: EntryLikelihood, components: int) -> None:
        super().__init__(law.levels)
        self.law, self.components, self.size = law, components, components * (1 + law.size)

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(..., K)`` and the parameters of the components ``(..., K, 2)``."""
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

    def start(self, rows: Tensor) -> Tensor:
        """Equal weights, and locations and scales that add up to nearly a standard normal."""
        k = self.components
        spread = SPREAD if k > 1 else 0.0
        at = [spread * NormalDist().inv_cdf((i + 0.5) / k) for i in range(k)]
        raw = math.log(math.expm1(math.sqrt(1 - spread**2)))
        h = torch.tensor([0.0] * k + [v for mu in at for v in (mu, raw)])
        return h.to(rows).expand(rows.shape[1], -1)


class LinearResidualLikelihood(AutoregressiveLikelihood):
    r"""A law of :math:`(x - \hat x)/s`, with :math:`\hat x` and :math:`\log s` before its own
    parameters, as `LinearAutoregression` gives them.

    Arguments:
        law: The law of what the linear prediction leaves.
    """

    given = 2

    def __init__(self, law: AutoregressiveLikelihood) -> None:
        super().__init__()
        self.law, self.size = law, 2 + law.size

    def start(self, rows: Tensor) -> Tensor:
        """The first law of the residuals."""
        return self.law.start(rows)

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
    """The law of one entry: of a real number, of a few levels, of many.

    Arguments:
        levels: Entries are integers 0, ..., levels - 1; 0 for real numbers.
        components: How many components a mixture has, 0 to choose.
        d: How many entries a datum has.
        linear: Whether a linear prediction comes before the parameters.
    """
    if not levels:
        law = MixtureLikelihood(GaussianLikelihood(), components or (48 if d <= FEW else 8))
        return LinearResidualLikelihood(law) if linear else law
    if levels <= FEW_LEVELS:
        return CategoricalFromCounts(levels)
    return MixtureLikelihood(DiscretisedLogistic(levels), components or 8)
