r"""Divergences from samples: by nearest neighbours, and by a classifier's logit.

The logit of the best classifier is :math:`f^* = \log p - \log q` (lesson 3.2), so that means of a
trained :math:`f` estimate divergences. Every one of these has a bias that no sample size of one's
own removes: read it beside the same estimate between two samples of one distribution.
"""

import math

import numpy as np
import torch

from ...errors import DataError
from ...shapes import PerDatum, Scalar
from ..transport import Array


def neighbour_kl(x: Array, y: Array, k: int = 5) -> float:
    r"""KL(p || q) from samples ``(n, d)`` and ``(m, d)`` by their k-th neighbours, in nats.

    .. math:: \frac dn \sum_i \log\frac{\nu_k(x_i)}{\rho_k(x_i)} + \log\frac m{n - 1}

    with :math:`\rho_k` the distance to the k-th other row of x and :math:`\nu_k` to the k-th of y
    (Wang, Kulkarni and Verdú, 2009; Pérez-Cruz, 2008). The bias of both logarithms
    cancels at points where the densities are flat across a neighbourhood. What is left vanishes
    like :math:`n^{-1/d}` or so, pulls far distributions (whose nearest rows of y are in a tail)
    towards zero, and the estimate may be negative. A larger k has less variance and more bias.
    """
    from scipy.spatial import cKDTree

    if len(x) <= k or len(y) < k:
        raise DataError(f"neighbour {k} needs more than {k} rows on each side: give more rows")
    rho = cKDTree(x).query(x, [k + 1])[0]
    nu = cKDTree(y).query(x, [k])[0]
    if (rho == 0).any() or (nu == 0).any():
        raise DataError(
            "rows coincide, so the distributions have atoms and no density: use frequencies"
        )
    return float(x.shape[1] * np.log(nu / rho).mean() + math.log(len(y) / (len(x) - 1)))


def _quadratic_features(x: Array) -> Array:
    i, j = np.triu_indices(x.shape[1])
    return np.hstack([x, x[:, i] * x[:, j]])


def fit_ratio_logit(x: Array, y: Array, *, folds: int = 2, seed: int = 0) -> tuple[Array, Array]:
    """The log of the density ratio p/q at rows of both, by logistic regression on quadratics.

    Exact in the limit for Gaussians, else the best quadratic. Each row is judged by a fit that has
    not seen it, without which the divergences would be too large.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, label = _quadratic_features(np.concatenate([x, y])), np.repeat([1, 0], [len(x), len(y)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e6, max_iter=1000))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    logit = cross_val_predict(model, rows, label, cv=parts, method="decision_function")
    logit = logit - math.log(len(x) / len(y))
    return logit[: len(x)], logit[len(x) :]


def plug_in_kl(real: PerDatum) -> Scalar:
    r""":math:`\mathbb E_p f`: KL(p || q) at :math:`f^*`, and no bound on either side at another f.

    The reverse divergence is minus the mean over samples.
    """
    return real.mean()


def donsker_varadhan(real: PerDatum, fake: PerDatum) -> Scalar:
    r"""The bound :math:`\mathbb E_p f - \log \mathbb E_q e^f \le \mathrm{KL}(p \| q)` for any f.

    (Donsker and Varadhan, 1983). Its estimate is biased upwards, by half the relative variance of
    the mean of :math:`e^f`, which for far distributions is all of it: at most the log of the number
    of samples can be seen at all.
    """
    return real.mean() - (torch.logsumexp(fake, 0) - math.log(len(fake)))


def variational_kl(real: PerDatum, fake: PerDatum) -> Scalar:
    r"""A lower bound of KL(p || q), unbiased for its f (Nguyen, Wainwright and Jordan, 2010).

    .. math:: \mathbb E_p f + 1 - \mathbb E_q e^f \le \mathrm{KL}(p \| q)
    """
    return real.mean() + 1 - fake.exp().mean()


def variation_bound(real: PerDatum, fake: PerDatum) -> Scalar:
    r""":math:`P_p(f > 0) + P_q(f \le 0) - 1 \le \mathrm{TV}(p, q)`, unbiased for its f."""
    return (real > 0).to(real).mean() + (fake <= 0).to(fake).mean() - 1
