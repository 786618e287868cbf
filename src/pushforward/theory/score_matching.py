r"""Score matching: regression on :math:`\nabla\log p` of which nobody knows the target.

.. math::
    J_{ESM} = \tfrac12\,\mathbb E_p\,\|s(x) - \nabla\log p(x)\|^2
    = \underbrace{\mathbb E_p[\operatorname{tr}\nabla s + \tfrac12\|s\|^2]}_{J_{ISM}}
    + \tfrac12\,\mathbb E_p\|\nabla\log p\|^2

by Stein's identity :math:`\mathbb E_p[s\cdot\nabla\log p + \nabla\cdot s] = 0`: the implicit loss
needs data alone. Directions estimate the trace, and noise replaces it: the denoising loss is the
explicit one of the *blurred* law and a constant. Losses are halves of squared errors summed over
the entries of a datum, one value per datum, and can be differentiated.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..shapes import Data, PerDatum, sum_event
from .densities import exact_divergence, hutchinson_divergence
from .exact.diffusion_bound import expected_noise_error
from .exact.targets import Gaussian, GaussianMixture

Score = Callable[[Data], Data]


def explicit_score_matching(score: Score, truth: Score, x: Data) -> PerDatum:
    r""":math:`\tfrac12\|s(x) - \nabla\log p(x)\|^2`, where the score of the data is known."""
    return sum_event((score(x) - truth(x)).square()) / 2


def implicit_score_matching(score: Score, x: Data) -> PerDatum:
    r""":math:`\operatorname{tr}\nabla s(x) + \tfrac12\|s(x)\|^2` (Hyvärinen, 2005).

    The trace is exact and takes d backward passes.
    """
    s, trace = exact_divergence(lambda x, _: score(x), x, x.new_zeros(()), create_graph=True)
    return trace + sum_event(s.square()) / 2


def sliced_score_matching(score: Score, x: Data, directions: Tensor) -> PerDatum:
    r""":math:`v^\top\nabla s(x)\,v + \tfrac12(v^\top s(x))^2`, the mean over v (Song et al., 2019).

    Its mean is that of `implicit_score_matching` for directions with :math:`\mathbb E\,vv^\top = I`.

    Arguments:
        score: The model.
        x: Data.
        directions: One or more for each datum, ``(count, batch, *event)``.
    """
    s, traces = hutchinson_divergence(
        lambda x, _: score(x), x, x.new_zeros(()), directions, create_graph=True
    )
    along = (directions * s).flatten(2).sum(2).mT
    return (traces + along.square() / 2).mean(1)


def reduced_sliced_matching(score: Score, x: Data, directions: Tensor) -> PerDatum:
    r""":math:`v^\top\nabla s(x)\,v + \tfrac12\|s(x)\|^2`, `sliced_score_matching` with less variance.

    It is `implicit_score_matching` with Hutchinson's estimate of the trace.
    """
    s, traces = hutchinson_divergence(
        lambda x, _: score(x), x, x.new_zeros(()), directions, create_graph=True
    )
    return traces.mean(1) + sum_event(s.square()) / 2


def denoising_score_matching(score: Score, x: Data, eps: Data, sigma: float) -> PerDatum:
    r""":math:`\tfrac12\|s(x + \sigma\varepsilon) + \varepsilon/\sigma\|^2` (Vincent, 2011).

    Its optimum is the score of the data blurred by :math:`\sigma`, not that of the data.
    """
    return sum_event((score(x + sigma * eps) + eps / sigma).square()) / 2


def denoising_floor(law: GaussianMixture, sigma: float) -> float:
    r"""The least mean of `denoising_score_matching`, by quadrature in one or two dimensions.

    .. math:: \tfrac12\big(d/\sigma^2 - \mathbb E\,\|\nabla\log p_\sigma\|^2\big)

    It is the constant between `denoising_score_matching` and `explicit_score_matching` on the blurred law: nobody can tell which
    noise was added. For :math:`\mathcal N(m, v)` it is :math:`\tfrac12(1/\sigma^2 -
    1/(v + \sigma^2))`.
    """
    one = torch.ones(1, dtype=torch.float64)
    return float(expected_noise_error(law, one, sigma * one)) / (2 * sigma**2)


def mixture_fisher_divergence(p: GaussianMixture, q: GaussianMixture) -> float:
    r""":math:`\mathbb E_p\|\nabla\log p - \nabla\log q\|^2` by quadrature, up to 2-D.

    It compares shapes, not masses: where modes are far apart it does not see their weights.
    """
    return 2 * p.expectation(lambda x: explicit_score_matching(q.score, p.score, x))


def rademacher_directions(count: int, x: Data) -> Tensor:
    """Rademacher directions for each datum, ``(count, batch, *event)``: the least variance."""
    return torch.randint(0, 2, (count, *x.shape), device=x.device).to(x) * 2 - 1


def fisher_divergence(p: Gaussian, q: Gaussian) -> float:
    r""":math:`\mathbb E_p\|\nabla\log p - \nabla\log q\|^2` between two Gaussians.

    .. math:: \operatorname{tr}(B\Sigma_p B) + \|\Sigma_q^{-1}(m_p - m_q)\|^2, \qquad
        B = \Sigma_q^{-1} - \Sigma_p^{-1}
    """
    precision = torch.linalg.inv(q.covariance)
    B = precision - torch.linalg.inv(p.covariance)
    offset = precision @ (p.mean - q.mean)
    return float((B @ p.covariance @ B).trace() + offset @ offset)
