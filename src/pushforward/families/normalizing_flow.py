r"""Normalizing flow: splines or affine maps, coupling or autoregressive, with an exact density.

.. math:: \log p(x \mid c) = \log \mathcal N(f_c(x)) + \log |\det J_{f_c}(x)|

Each transformation is a monotone function of every entry whose parameters depend on the condition
and on other entries: on half of them (coupling) or on those before it (autoregressive). It is a
rational-quadratic spline on :math:`[-B, B]` and the identity outside, so that the density has
Gaussian tails and integrates to one (Durkan et al., 2019), or :math:`e^a x + b` as in RealNVP (Dinh
et al., 2017), MAF (Papamakarios et al., 2017) and its inverse, IAF (Kingma et al., 2016). The
transformations are zuko's.
"""

import math
from functools import partial
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from zuko.distributions import DiagNormal
from zuko.flows import MAF, MaskedAutoregressiveTransform
from zuko.lazy import Flow, UnconditionalDistribution
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..networks.image_flow import MultiScaleTransform, Univariate
from ..networks.layout import image_layout, is_image
from ..options import LAYERS, Choice
from ..shapes import Condition, Data, PerDatum, Scalar


class NormalizingFlow(GenerativeModel):
    likelihood = Likelihood.EXACT

    def __init__(self, flow: Flow, event: Event, recipe: Recipe, passes: int = 1) -> None:
        super().__init__()
        self.flow, self.event_shape, self.condition = flow, event.shape, event.condition
        self.recipe, self.passes = recipe, passes

    @property
    def nfe(self) -> int:
        return self.passes

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        return {"nll": -self.log_prob(x, self.drop_condition(c)).mean()}

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        return self.flow(self.context(c, x)).log_prob(x.flatten(1))

    def encode(self, x: Data, c: Condition = None) -> Data:
        return self.flow(self.context(c, x)).transform(x.flatten(1)).view_as(x)

    def decode(self, z: Data, c: Condition = None) -> Data:
        return self.flow(self.context(c, z)).transform.inv(z.flatten(1)).view_as(z)

    def sample(self, n: int, c: Condition = None) -> Tensor:
        like = next(self.parameters())
        return self.decode(like.new_empty(n, *self.event_shape).normal_(), c)

    def context(self, c: Condition, x: Data) -> Tensor | None:
        if not self.condition:
            return None
        return x.new_zeros(len(x), self.condition) if c is None else c.to(x)


class _FlowKind(NamedTuple):
    affine: bool  # affine maps instead of splines
    passes: int | None  # of the network, to invert one transformation; None for one per entry
    inverted: bool = False  # transformations run from noise to data, as in IAF


KINDS = {
    "coupling": _FlowKind(affine=False, passes=2),
    "autoregressive": _FlowKind(affine=False, passes=None),
    "realnvp": _FlowKind(affine=True, passes=2),
    "maf": _FlowKind(affine=True, passes=None),
    "iaf": _FlowKind(affine=True, passes=None, inverted=True),
    "multiscale": _FlowKind(affine=False, passes=2),
}


def build(
    event: Event,
    *,
    kind: Annotated[str, Choice(KINDS)] = "coupling",
    transforms: int = 0,
    bins: int = 0,
    width: int = 0,
    depth: Annotated[int, LAYERS] = 2,
    bound: float = 0.0,
) -> NormalizingFlow:
    """A normalizing flow: by default a neural spline flow.

    Arguments:
        kind: Splines: "coupling" samples as fast as it scores; "autoregressive" fits a little
            better and needs one pass per entry to sample. Affine maps: "realnvp" is a coupling;
            "maf" scores in one pass and samples in one per entry, "iaf" the other way round.
            "multiscale": spline couplings over convolutions, for images.
        transforms: Layers (multiscale: with each kind of mask at each scale), 0 to choose.
        bins: Pieces of each spline, 0 to choose.
        width: Units in each hidden layer of the networks that place the knots, 0 to choose.
        depth: Hidden layers of those networks.
        bound: Where the splines end, in standard deviations of the data, 0 to choose.
    """
    d = math.prod(event.shape)
    _check_flow_kind(kind, event.shape)
    flow_kind, recipe = KINDS[kind], _normalizing_flow_recipe(d, event.size, event.levels)
    # few layers of many bins where there is little to condition on, more layers where there is much
    layers, pieces, units, box = {1: (1, 32, 64, 6.0), 2: (2, 32, 128, 6.0)}.get(d, (4, 8, 64, 8.0))
    if d > 2 and event.levels:  # all are near, and each level is a narrow step of the density
        pieces, units, box = 16, 128, 3.0
    univariate, shapes = _spline_univariate(bins or pieces, bound or box)
    if kind == "multiscale":
        flow = _build_image_flow(event, (univariate, shapes), width or 32, transforms or 2)
        return NormalizingFlow(flow, event, recipe)
    if flow_kind.affine:
        (univariate, shapes), layers = AFFINE, 8
        if d <= 2:  # unbounded maps: they diverge at the rate of splines
            recipe = recipe._replace(lr=2e-3)
    flow = MAF(
        d,
        event.condition,
        transforms=transforms or layers,
        randperm=d > 2,
        passes=flow_kind.passes,
        univariate=univariate,
        shapes=shapes,
        hidden_features=[width or units] * depth,
        activation=nn.SiLU,
    )
    _initialise_identity(flow)
    passes = flow_kind.passes or d
    if flow_kind.inverted:
        flow, passes = Flow([t.inv for t in flow.transform.transforms], flow.base), 1
    return NormalizingFlow(flow, event, recipe, passes)


def _normalizing_flow_recipe(d: int, size: int, levels: int) -> Recipe:
    """For ``size`` samples of length d; on few of narrow levels it soon overfits."""
    if d <= 2:
        return Recipe(steps=3000, batch=512, lr=1e-2, ema=0.99)
    if 0 < size < 5000 and levels:
        return Recipe(steps=600, batch=128, lr=2e-3, ema=0.99, decay=1.0)
    return Recipe(steps=2000, batch=512, lr=2e-3, ema=0.99)


@torch.no_grad()
def _initialise_identity(flow: Flow) -> None:
    """Let the last layer of every network give zeros, for which a spline is the identity."""
    for transform in flow.transform.transforms:
        if isinstance(transform, MaskedAutoregressiveTransform):
            last = transform.hyper[-1]
            last.weight.zero_(), last.bias.zero_()


AFFINE: Univariate = (MonotonicAffineTransform, [(), ()])


def _spline_univariate(bins: int, bound: float) -> Univariate:
    return partial(MonotonicRQSTransform, bound=bound), [(bins,), (bins,), (bins - 1,)]


def _build_image_flow(event: Event, univariate: Univariate, width: int, couplings: int) -> Flow:
    layout = image_layout(event.shape)
    images = MultiScaleTransform(layout, event.condition, univariate, width, couplings)
    zeros = torch.zeros(math.prod(event.shape))
    return Flow([images], UnconditionalDistribution(DiagNormal, zeros, zeros + 1, buffer=True))


def _check_flow_kind(kind: str, shape: tuple[int, ...]) -> None:
    if kind == "multiscale" and not is_image(shape):
        raise UsageError(f"kind='multiscale' is for images, and the data have shape {shape}")
    if KINDS[kind].affine and math.prod(shape) == 1:
        raise UsageError(
            f"kind={kind!r} composes affine maps, which on a line leave a single Gaussian; "
            "choose coupling"
        )
