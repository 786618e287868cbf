r"""Normalizing flow: neural spline transformations, coupling or autoregressive, exact density.

.. math:: \log p(x \mid c) = \log \mathcal N(f_c(x)) + \log |\det J_{f_c}(x)|

Each transformation is a monotone rational-quadratic spline of every entry on :math:`[-B, B]` whose
knots depend on the condition and on other entries, and the identity outside, so that the density
has Gaussian tails and integrates to one (Durkan et al., 2019). The splines are zuko's.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from zuko.flows import MAF, MaskedAutoregressiveTransform
from zuko.lazy import Flow
from zuko.transforms import MonotonicRQSTransform

from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..shapes import Condition, Data, PerDatum, Scalar


class NormalizingFlow(GenerativeModel):
    """A conditional flow of vectors, behind the common interface.

    Arguments:
        flow: Makes a distribution of flattened data from a condition.
        event_shape: The shape of one datum.
        condition: The length of ``c``, 0 for none.
        recipe: How this flow likes to be trained.
    """

    likelihood = Likelihood.EXACT
    whitened = True  # then the identity, where training starts, is the full Gaussian

    def __init__(
        self, flow: Flow, event_shape: tuple[int, ...], condition: int, recipe: Recipe
    ) -> None:
        super().__init__()
        self.flow, self.event_shape, self.condition = flow, event_shape, condition
        self.recipe = recipe

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        return {"nll": -self.log_prob(x, c).mean()}

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        return self.flow(self.context(c, x)).log_prob(x.flatten(1))

    def encode(self, x: Data, c: Condition = None) -> Data:
        """The noise that the flow carries to ``x``: standard normal if the model is right."""
        return self.flow(self.context(c, x)).transform(x.flatten(1)).view_as(x)

    def decode(self, z: Data, c: Condition = None) -> Data:
        """The data that the flow makes of noise; the inverse of ``encode``."""
        return self.flow(self.context(c, z)).transform.inv(z.flatten(1)).view_as(z)

    def sample(self, n: int, c: Condition = None) -> Tensor:
        like = next(self.parameters())
        return self.decode(like.new_empty(n, *self.event_shape).normal_(), c)

    def context(self, c: Condition, x: Data) -> Tensor | None:
        """The condition; an unknown one is the zero vector."""
        if not self.condition:
            return None
        return x.new_zeros(len(x), self.condition) if c is None else c.to(x)


PASSES = {"coupling": 2, "autoregressive": None}


def build(
    event: Event,
    *,
    kind: str = "coupling",
    transforms: int = 0,
    bins: int = 0,
    width: int = 0,
    depth: int = 2,
    bound: float = 0.0,
) -> NormalizingFlow:
    """A neural spline flow.

    Arguments:
        event: The kind of data.
        kind: "coupling" samples as fast as it scores; "autoregressive" fits a little better and
            needs one pass per entry to sample.
        transforms: Layers of splines, 0 to choose from the data.
        bins: Pieces of each spline, 0 to choose from the data.
        width: Units in each hidden layer of the networks that place the knots, 0 to choose from
            the data.
        depth: Hidden layers of those networks.
        bound: Half the width of the box that the splines act on, in standard deviations of the
            data, 0 to choose from the data.

    Raises:
        UsageError: If the kind is not known.
    """
    if kind not in PASSES:
        raise UsageError(f"normalizing_flow has no kind {kind!r}; choose from {', '.join(PASSES)}")
    d = math.prod(event.shape)
    # few layers of many bins where there is little to condition on, more layers where there is much
    layers, pieces, units, box = {1: (1, 32, 64, 6.0), 2: (2, 32, 128, 6.0)}.get(d, (4, 8, 64, 8.0))
    if d > 2 and event.levels:  # all are near, and each level is a narrow step of the density
        pieces, units, box = 16, 128, 3.0
    flow = MAF(
        d,
        event.condition,
        transforms=transforms or layers,
        randperm=d > 2,
        passes=PASSES[kind],
        univariate=partial(MonotonicRQSTransform, bound=bound or box),
        shapes=spline_shapes(bins or pieces),
        hidden_features=[width or units] * depth,
        activation=nn.SiLU,
    )
    start_at_identity(flow)
    return NormalizingFlow(flow, event.shape, event.condition, recipe_for(d, event.size))


def recipe_for(d: int, size: int) -> Recipe:
    """For ``size`` data of length d; few in many dimensions are soon learned by heart."""
    if d <= 2:
        return Recipe(steps=3000, batch=512, lr=1e-2, ema=0.99)
    if 0 < size < 5000:
        return Recipe(steps=600, batch=128, lr=2e-3, ema=0.99, decay=1.0)
    return Recipe(steps=2000, batch=512, lr=2e-3, ema=0.99)


@torch.no_grad()
def start_at_identity(flow: Flow) -> None:
    """Let the last layer of every network give zeros, for which a spline is the identity."""
    for transform in flow.transform.transforms:
        if isinstance(transform, MaskedAutoregressiveTransform):
            last = transform.hyper[-1]
            last.weight.zero_(), last.bias.zero_()


def spline_shapes(bins: int) -> list[tuple[int]]:
    """The free parameters of one spline: widths, heights and inner slopes."""
    return [(bins,), (bins,), (bins - 1,)]
