r"""Score matching: regression on :math:`\nabla\log p` of which nobody knows the target.

.. math::
    J_{ESM} = \tfrac12\,\mathbb E_p\,\|s(x) - \nabla\log p(x)\|^2
    = \underbrace{\mathbb E_p[\operatorname{tr}\nabla s + \tfrac12\|s\|^2]}_{J_{ISM}}
    + \tfrac12\,\mathbb E_p\|\nabla\log p\|^2

by Stein's identity :math:`\mathbb E_p[s\cdot\nabla\log p + \nabla\cdot s] = 0`: the implicit loss
needs data alone. Directions estimate the trace, and noise replaces it: the denoising loss is the
explicit one of the *blurred* distribution and a constant. Losses are halves of squared errors
summed over the entries of a datum, one value per datum, and can be differentiated.
"""

from collections.abc import Callable

from torch import Tensor

from ..shapes import Data, PerDatum, sum_event
from .densities import exact_divergence, hutchinson_divergence

Score = Callable[[Data], Data]


def explicit_score_matching(score: Score, truth: Score, x: Data) -> PerDatum:
    r""":math:`\tfrac12\|s(x) - \nabla\log p(x)\|^2`, where the score of the data is known."""
    return sum_event((score(x) - truth(x)).square()) / 2


def implicit_score_matching(score: Score, x: Data) -> PerDatum:
    r""":math:`\operatorname{tr}\nabla s + \tfrac12\|s\|^2`, d backward passes (Hyvärinen, 2005)."""
    s, trace = exact_divergence(lambda x, _: score(x), x, x.new_zeros(()), create_graph=True)
    return trace + sum_event(s.square()) / 2


def sliced_score_matching(score: Score, x: Data, directions: Tensor) -> PerDatum:
    r""":math:`v^\top\nabla s(x)\,v + \tfrac12(v^\top s(x))^2`, the mean over v (Song et al., 2019).

    Directions are ``(count, batch, *event)``; where :math:`\mathbb E\,vv^\top = I` the mean is that
    of `implicit_score_matching`.
    """
    s, traces = hutchinson_divergence(
        lambda x, _: score(x), x, x.new_zeros(()), directions, create_graph=True
    )
    along = (directions * s).flatten(2).sum(2).mT
    return (traces + along.square() / 2).mean(1)


def reduced_sliced_matching(score: Score, x: Data, directions: Tensor) -> PerDatum:
    r""":math:`v^\top\nabla s(x)\,v + \tfrac12\|s(x)\|^2`: sliced matching with less variance."""
    s, traces = hutchinson_divergence(
        lambda x, _: score(x), x, x.new_zeros(()), directions, create_graph=True
    )
    return traces.mean(1) + sum_event(s.square()) / 2


def denoising_score_matching(score: Score, x: Data, eps: Data, sigma: float) -> PerDatum:
    r""":math:`\tfrac12\|s(x + \sigma\varepsilon) + \varepsilon/\sigma\|^2` (Vincent, 2011).

    Its optimum is the score of the data blurred by :math:`\sigma`, not that of the data.
    """
    return sum_event((score(x + sigma * eps) + eps / sigma).square()) / 2
