r"""Autoregressive: each entry's law given the entries before it, with an exact density or mass.

.. math:: p(x \mid c) = \prod_{t=1}^d p(x_{\pi_t} \mid x_{\pi_1}, \dots, x_{\pi_{t-1}}, c)

is the chain rule: any law of one entry in each factor gives a normalised law of the whole, so that
training minimises the negative log-likelihood itself. Numbers get mixtures of Gaussians around a
linear prediction; integers get a probability for every level, or a mixture of discretised logistics
where levels are many. A masked perceptron (MADE; Germain et al., 2015; Uria et al., 2016) or, for
images of integers, a causal transformer gives all parameters in one pass. One network can learn
several orders; the model is then the average of their densities,

.. math:: p(x \mid c) = \frac1m \sum_{o=1}^m p_o(x \mid c),

itself a normalised density, whose log-likelihood is at least the average of theirs.
"""

import abc
import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..networks.causal import CausalTransformer
from ..networks.laws import Categorical, DiscretisedLogistic, Gaussian, Law
from ..networks.masked import (
    AutoregressiveNetwork,
    ColumnWaves,
    Features,
    Levels,
    LinearAutoregression,
    MaskedPerceptron,
)
from ..shapes import Condition, Data, PerDatum, Scalar
from ..theory.completion import resample

FEW_LEVELS = 32  # up to here a probability for every level
FEW = 4  # entries up to which laws may be of any shape
PARTICLES = 2048  # draws to weight, where the known entries come first in no order
SPREAD = 0.8  # standard deviation of where the components of a mixture begin, of 1 in all
Sizes = tuple[int, int, float]


class Entry(Law):
    """The law of one entry, with parameters to begin at."""

    given: int = 0  # how many of its parameters do not come from a perceptron

    @abc.abstractmethod
    def start(self, rows: Tensor) -> Tensor:
        """First parameters of the columns of ``(n, d)`` rows, ``(d, size - given)``."""


class Counted(Categorical, Entry):
    """A probability for every level; it begins with the frequencies of each entry's levels."""

    def start(self, rows: Tensor) -> Tensor:
        """First logits ``(d, levels)``, with one count more than seen in every column."""
        counts = one_hot(rows.long(), self.levels).sum(0) + 1 / self.levels
        return (counts / (len(rows) + 1)).log().to(rows)


class MixtureOf(Entry):
    r"""A mixture of laws with a location and a scale.

    .. math:: p(x_i) = \sum_{k=1}^K w_k\,p(x_i \mid \mu_k, s_k)

    Arguments:
        law: The law of a component, of two parameters.
        components: How many.
    """

    def __init__(self, law: Law, components: int) -> None:
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


class Residual(Entry):
    r"""A law of :math:`(x - \hat x)/s`, with :math:`\hat x` and :math:`\log s` before its own
    parameters, as `LinearAutoregression` gives them.

    Arguments:
        law: The law of what the linear prediction leaves.
    """

    given = 2

    def __init__(self, law: Entry) -> None:
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


class Autoregressive(GenerativeModel):
    r"""A product of conditionals, or the average of several such products in different orders.

    Arguments:
        net: An autoregressive network (`networks.masked`).
        law: The law of one entry.
        event_shape: The shape of one datum.
        hidden: How often the condition is hidden in training.
        recipe: How this model likes to be trained.
    """

    likelihood = Likelihood.EXACT

    def __init__(
        self,
        net: AutoregressiveNetwork,
        law: Entry,
        event_shape: tuple[int, ...],
        *,
        hidden: float = 0.1,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__()
        self.net, self.law, self.event_shape, self.hidden = net, law, event_shape, hidden
        self.discrete, self.recipe = law.levels > 0, recipe or self.recipe

    @property
    def orders(self) -> Tensor:
        """The entries in the order drawn, ``(m, d)``."""
        return self.net.orders

    @torch.no_grad()
    def prepare(self, x: Data, c: Condition = None) -> None:
        self.law.check(x)
        rows = x.flatten(1)
        self.net.start(self.law.start(rows), rows, c)

    def columns(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        """Log-density of every entry given those before it in order o, ``(n, d)``."""
        return self.law.log_prob(self.net(x, o, c), x.flatten(1))

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        self.law.check(x)
        each = [self.columns(x, o, c).sum(1) for o in range(len(self.orders))]
        return torch.stack(each).logsumexp(0) - math.log(len(each))

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        """The negative log-likelihood of one of the orders, drawn at random."""
        o = int(torch.randint(len(self.orders), ())) if len(self.orders) > 1 else 0
        if c is not None and self.training:
            c = c * (torch.rand_like(c[:, :1]) >= self.hidden)
        return {"nll": -self.columns(x, o, c).sum(1).mean()}

    def validation(self, x: Data, c: Condition = None) -> Scalar:
        return -self.log_prob(x, c).mean()

    def sample(self, n: int, c: Condition = None) -> Tensor:
        x = self.noise(n, math.prod(self.event_shape))
        known = torch.zeros(x.shape[1], dtype=torch.bool)
        chosen = torch.randint(len(self.orders), (n,))
        return self.fill(x, known, chosen, c).unflatten(1, self.event_shape)

    def complete(self, n: int, x: Tensor, known: Tensor, c: Condition = None) -> Tensor | None:
        """Exact where the known entries come first in some order, ``order=`` or ``orderings=``.

        Those orders are then averaged, each with its probability given what is known. Otherwise,
        levels are drawn in every order and weighted by the probability of the known ones; numbers
        are left to importance resampling.
        """
        mask = known.flatten()
        allowed = [o for o, order in enumerate(self.orders) if comes_first(mask[order])]
        if not allowed:
            return self.weighted(n, x, mask, c) if self.discrete else None
        one = None if c is None else c[:1]
        each = [self.columns(x[None], o, one)[0, mask].sum() for o in allowed]
        k = torch.multinomial(torch.stack(each).softmax(0), n, replacement=True).cpu()
        rows = x.flatten().repeat(n, 1)
        return self.fill(rows, mask, torch.tensor(allowed)[k], c).unflatten(1, self.event_shape)

    def weighted(self, n: int, x: Tensor, mask: Tensor, c: Condition) -> Tensor:
        """Draws in all orders, resampled by the probability of the known entries in each."""
        many = max(4 * n, PARTICLES)
        c = None if c is None else c[:1].expand(many, -1)
        chosen = torch.arange(many) % len(self.orders)
        rows = self.fill(x.flatten().repeat(many, 1), mask, chosen, c)
        data, log_w = rows.unflatten(1, self.event_shape), rows.new_zeros(many)
        for o in range(len(self.orders)):
            i = (chosen == o).to(rows.device)
            log_w[i] = self.columns(data[i], o, None if c is None else c[i])[:, mask].sum(1)
        return resample(data, log_w, n)

    def fill(self, x: Tensor, known: Tensor, chosen: Tensor, c: Condition) -> Tensor:
        """Draw what is not known in rows ``(n, d)``, in place, each in its chosen order."""
        for o in chosen.unique().tolist():
            i = (chosen == o).nonzero()[:, 0].to(x.device)
            rows = x[i]
            for column, h in self.net.steps(rows, o, None if c is None else c[i]):
                if not known[column]:
                    rows[:, column] = self.law.sample(h)
            x[i] = rows
        return x


def comes_first(mask: Tensor) -> bool:
    """Whether no entry is known after one that is not."""
    return not bool((mask[1:] & ~mask[:-1]).any())


def scans(shape: tuple[int, ...], order: str, m: int) -> Tensor:
    """The first m orders: that given, its reverse, and others.

    An image is read along its rows or columns from any corner, all channels of a pixel together;
    after these eight, and for vectors after two, orders are random.

    Raises:
        UsageError: If ``order`` is no order of the entries.
    """
    d = math.prod(shape)
    first = torch.arange(d) if order == "given" else chosen(order, d)
    orders = [first, first.flip(0)]
    if len(shape) > 1 and order == "given":
        places = first.view(-1, *shape[-2:]).permute(1, 2, 0)
        both = [places, places.flip(0, 1), places.flip(1), places.flip(0)]
        orders = [p.flatten() for p in both] + [p.transpose(0, 1).flatten() for p in both]
    while len(orders) < m:
        orders.append(torch.randperm(d))
    return torch.stack(orders[:m])


def chosen(order: str, d: int) -> Tensor:
    """An order as a user writes it: column numbers from 0, with commas, or "reversed"."""
    if order == "reversed":
        return torch.arange(d).flip(0)
    numbers = [int(i) if i.strip().isdigit() else -1 for i in order.split(",")]
    if sorted(numbers) != list(range(d)):
        raise UsageError(
            f"order is {order[:40]!r}; write given, reversed, or the numbers 0 to {d - 1} in the "
            "order wanted, with commas between"
        )
    return torch.tensor(numbers)


def build(
    event: Event,
    *,
    order: str = "given",
    orderings: int = 1,
    components: int = 0,
    width: int = 0,
    depth: int = 0,
    waves: int | None = None,
    dropout: float | None = None,
) -> Autoregressive:
    """An autoregressive model.

    Arguments:
        event: The kind of data.
        order: "given" (images: along the rows), "reversed", or column numbers such as "2,0,1".
        orderings: How many orders to learn and average.
        components: Components of each entry's mixture, 0 to choose from the data.
        width: Units in each hidden layer, 0 to choose from the data.
        depth: Hidden layers, 0 to choose from the data.
        waves: Frequencies at which an entry is shown, beside its value, to those after it.
        dropout: The share of units hidden in training; by default chosen from the data.

    Raises:
        UsageError: If ``order`` is no order of the entries.
    """
    law = law_of(event.levels, components, math.prod(event.shape))
    features = features_of(event.levels, waves, math.prod(event.shape))
    orders, image = scans(event.shape, order, orderings), event.levels and len(event.shape) > 1
    make, usual, recipe = network(event, bool(image))
    net = make(
        features,
        orders,
        event.condition,
        law.size - law.given,
        width=width or usual[0],
        depth=depth or usual[1],
        dropout=usual[2] if dropout is None else dropout,
    )
    if not event.levels:
        net = LinearAutoregression(net, event.condition)
    return Autoregressive(net, law, event.shape, recipe=recipe)


def network(
    event: Event, image: bool
) -> tuple[Callable[..., AutoregressiveNetwork], Sizes, Recipe]:
    """A network for the data, its usual width, depth and dropout, and how to train it."""
    batch = min(512, event.size or 512)
    if image:
        make = partial(CausalTransformer, event.shape)
        recipe = Recipe(steps=800, batch=64, lr=4e-3, ema=0.99, decay=0.1)
        return make, (64, 2, 0.15), recipe
    if math.prod(event.shape) <= FEW:
        recipe = Recipe(steps=3000, batch=batch, lr=3e-3, ema=0.99)
        return MaskedPerceptron, (128, 3, 0.0), recipe
    return MaskedPerceptron, (128, 2, 0.1), Recipe(steps=2000, batch=batch, lr=2e-3, ema=0.99)


def law_of(levels: int, components: int, d: int) -> "Entry":
    """The law of one entry: of a real number, of a few levels, of many."""
    if not levels:
        return Residual(MixtureOf(Gaussian(), components or (48 if d <= FEW else 8)))
    if levels <= FEW_LEVELS:
        return Counted(levels)
    return MixtureOf(DiscretisedLogistic(levels), components or 8)


def features_of(levels: int, waves: int | None, d: int) -> Features:
    """How an entry is shown to those after it."""
    if not levels:
        return ColumnWaves((16 if d <= FEW else 0) if waves is None else waves)
    if levels <= FEW_LEVELS and waves is None:
        return Levels(levels)
    half = (levels - 1) / 2
    return ColumnWaves(8 if waves is None else waves, low=half, scale=half)
