r"""Telling anomalies by a density: how well it can be done, and where it cannot (lesson 1.1)."""

import math
from typing import NamedTuple

from torch import Tensor


def quadrature_auroc(score: Tensor, ordinary: Tensor, anomalous: Tensor) -> Tensor:
    r"""The area under the ROC curve of a score, for two distributions on the same nodes.

    .. math:: P(s(x') > s(x)) + \tfrac12 P(s(x') = s(x)), \qquad
        x \sim \text{ordinary},\ x' \sim \text{anomalous}

    No score has more than the likelihood ratio (Neyman & Pearson, 1933). Where anomalies are
    uniform, that is :math:`1/p(x)`, up to a factor. On a grid with spacing h the error is
    :math:`O(h^2)` for smooth distributions.

    Arguments:
        score: At the nodes, ``(k,)``; larger is stranger.
        ordinary: The masses of the ordinary distribution at the nodes; they are normalised.
        anomalous: The masses of the other distribution.
    """
    values, place = score.unique(return_inverse=True)  # equal scores are one node
    p, q = (
        m.new_zeros(len(values)).index_add(0, place, m / m.sum()) for m in (ordinary, anomalous)
    )
    below = p.cumsum(0) - p / 2
    return (q * below).sum()


class _SurpriseMoments(NamedTuple):
    """The distribution of log p(x) over draws of p itself, in nats."""

    mode: float  # its largest value, at the mode of p
    mean: float  # minus the entropy
    deviation: float


def gaussian_surprise(d: int) -> _SurpriseMoments:
    r"""Of the standard normal distribution in d dimensions, whose squared norm is chi-squared.

    .. math:: \max \log p = -\tfrac d2 \log 2\pi, \qquad
        \mathbb E \log p = -\tfrac d2 (1 + \log 2\pi), \qquad \operatorname{sd} = \sqrt{d/2}

    The mode lies :math:`\sqrt{d/2}` deviations above what draws have: in many dimensions the most
    probable point is an anomaly.
    """
    mode = -d / 2 * math.log(2 * math.pi)
    return _SurpriseMoments(mode, mode - d / 2, math.sqrt(d / 2))
