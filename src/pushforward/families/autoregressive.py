r"""Autoregressive: each entry given those before it, with an exact density or mass.

.. math:: p(x \mid c) = \prod_{t=1}^d p(x_{\pi_t} \mid x_{\pi_1}, \dots, x_{\pi_{t-1}}, c)

is the chain rule: any distribution of one entry in each factor gives a normalised one of the whole,
so that training minimises the negative log-likelihood itself. Numbers get mixtures of Gaussians
around a linear prediction; integers get a probability for every level, or a mixture of discretised
logistics where levels are many. A masked perceptron (MADE; Germain et al., 2015; Uria et al., 2016)
or, for images of integers, a causal transformer gives all parameters in one pass. One network can
learn several orders; the model is then the average of their densities,

.. math:: p(x \mid c) = \frac1m \sum_{o=1}^m p_o(x \mid c),

itself a normalised density, whose log-likelihood is at least the average of theirs.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Preprocessing, Recipe
from ..networks import likelihoods, masked
from ..networks.causal import CausalConvNet, CausalTransformer
from ..networks.layout import image_layout, is_large_image
from ..networks.likelihoods import AutoregressiveLikelihood
from ..networks.masked import AutoregressiveNetwork, EntryFeatures, FourierEntryFeatures
from ..options import LAYERS, Choice
from ..shapes import Condition, Data, PerDatum, Scalar
from ..theory import completion

ORDERINGS = 64  # the most orders that are averaged
ENOUGH = 100  # effective sample size below which a warning says so
Sizes = tuple[int, int, int, float]  # orders, width, depth, dropout
Design = tuple[Callable[..., AutoregressiveNetwork], Sizes, Recipe]


class Autoregressive(GenerativeModel):
    likelihood = Likelihood.EXACT

    def __init__(
        self, net: AutoregressiveNetwork, entry: AutoregressiveLikelihood, event: Event
    ) -> None:
        super().__init__()
        self.net, self.law, self.event_shape = net, entry, event.shape
        if entry.levels:
            self.preprocessing = Preprocessing.LEVELS

    @property
    def nfe(self) -> int:
        """One for each entry, though what was computed for those before it is kept."""
        return math.prod(self.event_shape)

    @property
    def orders(self) -> Tensor:
        """The entries in the order drawn, ``(m, d)``."""
        return self.net.orders

    @torch.no_grad()
    def prepare(self, x: Data, c: Condition = None) -> None:
        self.law.check_levels(x)
        rows = x.flatten(1)
        self.net.initialise(self.law.initial_parameters(rows), rows, c)

    def entry_log_probs(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        """Log-density of every entry given those before it in order o, ``(n, d)``."""
        return self.law.log_prob(self.net(x, o, c), x.flatten(1))

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        self.law.check_levels(x)
        each = [self.entry_log_probs(x, o, c).sum(1) for o in range(len(self.orders))]
        return torch.stack(each).logsumexp(0) - math.log(len(each))

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        o = int(torch.randint(len(self.orders), ())) if len(self.orders) > 1 else 0
        return {"nll": -self.entry_log_probs(x, o, self.drop_condition(c)).sum(1).mean()}

    def validation(self, x: Data, c: Condition = None) -> Scalar:
        return -self.log_prob(x, c).mean()

    def sample(self, n: int, c: Condition = None) -> Tensor:
        x = self.noise(n, math.prod(self.event_shape))
        known = torch.zeros(x.shape[1], dtype=torch.bool)
        chosen = torch.randint(len(self.orders), (n,))
        return self.draw_missing(x, known, chosen, c)[0].unflatten(1, self.event_shape)

    @torch.no_grad()
    def complete(
        self, n: int, x: Tensor, known: Tensor, c: Condition = None, *, particles: int = 2048
    ) -> Tensor:
        r"""Draw ``n`` data given some entries of one: exactly, where these come first in an order.

        Where they come first in every order, the draws are from the model's own conditional; where
        in some, from that of those orders' average, each weighted with its probability of what is
        known. Otherwise all orders draw what is not known around what is, and

        .. math:: w = \prod_{i \text{ known}} p(x_i \mid x_{\text{before } i}, c)

        weights the draws (likelihood weighting; Fung & Chang, 1990): exact as particles grow. There
        are at least ``particles`` weighted draws, and four for each sample.
        """
        mask, rows = known.flatten(), x.reshape(1, -1)
        exact = [o for o, order in enumerate(self.orders) if _is_prefix_mask(mask[order])]
        many = n if exact else max(4 * n, particles)
        c = None if c is None else c[:1].expand(many, -1)
        chosen = torch.randint(len(self.orders), (many,))
        if exact:
            one = None if c is None else c[:1]
            each = [self.entry_log_probs(rows, o, one)[0, mask].sum() for o in exact]
            picked = torch.multinomial(torch.stack(each).softmax(0), n, replacement=True)
            chosen = torch.tensor(exact)[picked.cpu()]
        made, log_w = self.draw_missing(rows.repeat(many, 1), mask, chosen, c)
        if not exact:
            _warn_few_particles(completion.effective_sample_size(log_w), many)
            made = completion.systematic_resample(made, log_w, n)
        return made.unflatten(1, self.event_shape)

    def draw_missing(
        self, x: Tensor, known: Tensor, chosen: Tensor, c: Condition
    ) -> tuple[Tensor, PerDatum]:
        """Rows ``(n, d)``, each drawn in its chosen order, and the log-density of what is known."""
        log_w = torch.zeros_like(x[:, 0])
        for o in chosen.unique().tolist():
            i = (chosen == o).nonzero()[:, 0].to(x.device)
            rows = x[i]
            for column, h in self.net.decode_steps(rows, o, None if c is None else c[i]):
                if known[column]:
                    log_w[i] += self.law.log_prob(h, rows[:, column])
                else:
                    rows[:, column] = self.law.sample(h)
            x[i] = rows
        return x, log_w


def _warn_few_particles(size: float, many: int) -> None:
    if size < ENOUGH:
        warnings.warn(
            f"the given entries come first in none of the orders learned; of {many} weighted draws "
            f"only {size:.0f} count: fit with order= (their columns first) for exact ones",
            stacklevel=3,
        )


def _is_prefix_mask(mask: Tensor) -> bool:
    return not bool((mask[1:] & ~mask[:-1]).any())


def _made_design(event: Event) -> Design:
    d, recipe = math.prod(event.shape), Recipe(batch=min(512, event.size or 512), ema=0.99)
    if d <= likelihoods.FEW:
        return masked.MaskedPerceptron, (1, 128, 3, 0.0), recipe._replace(steps=3000, lr=3e-3)
    # several orders are overfit later; in many dimensions they cost memory
    sizes = (4 if d <= 256 else 1, 128, 2, 0.1)
    return masked.MaskedPerceptron, sizes, recipe._replace(steps=2000, lr=2e-3)


def _transformer_design(event: Event) -> Design:
    recipe = Recipe(steps=800, batch=64, lr=4e-3, ema=0.99, decay=0.1)
    return partial(CausalTransformer, event.shape), (1, 64, 2, 0.15), recipe


def _causal_conv_design(event: Event) -> Design:
    recipe = Recipe(steps=2000, batch=16, lr=4e-3, ema=0.99)
    return partial(CausalConvNet, event.shape), (1, 64, 6, 0.0), recipe


NETWORKS: dict[str, Callable[[Event], Design]] = {
    "mlp": _made_design,
    "transformer": _transformer_design,
    "conv": _causal_conv_design,
}


def build(
    event: Event,
    *,
    network: Annotated[str, Choice(("auto", *NETWORKS))] = "auto",
    order: str = "given",
    orderings: int = 0,
    components: int = 0,
    width: int = 0,
    depth: Annotated[int, LAYERS] = 0,
    waves: int | None = None,
    dropout: float | None = None,
) -> Autoregressive:
    """An autoregressive model; `UsageError` if the data or the order do not suit the network.

    Arguments:
        network: "mlp"; for images "transformer" or "conv"; or "auto": convolutions for images of
            more than 8 x 8 pixels, a transformer for smaller ones of integers.
        order: "given" (images: along the rows), "reversed", or column numbers such as "2,0,1";
            convolutions take the first only.
        orderings: How many orders to learn and average, 0 to choose: several for tables, one where
            ``order`` names one; at most 4 with convolutions.
        components: Components of each entry's mixture, 0 to choose from the data.
        width: Units in each hidden layer, 0 to choose from the data.
        depth: Hidden layers, 0 to choose from the data.
        waves: Frequencies at which an entry is shown, beside its value, to those after it.
        dropout: The share of units hidden in training; by default chosen from the data.
    """
    d = math.prod(event.shape)
    network = _resolve_network_name(event, network)
    scanning = network == "conv"
    if orderings > ORDERINGS:
        raise UsageError(f"orderings is {orderings}; each costs a pass: at most {ORDERINGS}")
    if scanning and (order != "given" or orderings > masked.ALONG_ROWS):
        raise UsageError(
            f"convolutions read images along the rows, from at most {masked.ALONG_ROWS} "
            "corners: leave out order=, or set network=transformer"
        )
    orderings = min(orderings, math.factorial(min(d, ORDERINGS)))  # there are no more
    make, (several, units, layers, hidden), recipe = NETWORKS[network](event)
    linear = not event.levels and not scanning
    entry = likelihoods.choose_autoregressive_likelihood(event.levels, components, d, linear)
    count = orderings or (several if order == "given" else 1)
    net = make(
        _build_entry_features(event.levels, waves, d),
        masked.entry_orderings(event.shape, order, count),
        event.condition,
        entry.size - entry.prediction_parameters,
        width=width or units,
        depth=depth or layers,
        dropout=hidden if dropout is None else dropout,
    )
    if linear:
        net = masked.LinearAutoregression(net, event.condition)
    model = Autoregressive(net, entry, event)
    model.recipe = recipe
    return model


def _resolve_network_name(event: Event, network: str) -> str:
    if network == "auto" and is_large_image(event.shape):
        return "conv"
    if network == "conv":
        image_layout(event.shape)  # which refuses other data
    usual = "transformer" if event.levels and len(event.shape) > 1 else "mlp"
    return usual if network == "auto" else network


def _build_entry_features(levels: int, waves: int | None, d: int) -> EntryFeatures:
    if not levels:
        return FourierEntryFeatures((16 if d <= likelihoods.FEW else 0) if waves is None else waves)
    if levels <= likelihoods.FEW_LEVELS and waves is None:
        return masked.OneHotLevels(levels)
    half = (levels - 1) / 2
    return FourierEntryFeatures(8 if waves is None else waves, low=half, scale=half)
