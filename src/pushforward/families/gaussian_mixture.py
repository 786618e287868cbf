r"""Gaussian mixture fitted by EM: as many components as held-out data ask for.

.. math:: p(x) = \sum_{k=1}^K w_k\,\mathcal N(x \mid \mu_k, \Sigma_k)

Candidates for :math:`K` double until the likelihood of a held-out fifth has fallen twice; the best
is fitted again to all data (Dempster et al., 1977; scikit-learn's implementation). Above 128
dimensions covariances are diagonal.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import UsageError
from ..model import Event
from .gaussian import Components, GaussianMixtureModel, fit_shrunk_gaussian

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

FULL = 128  # dimensions up to which covariances are full
ROWS = 5  # a component, at least
MOST_ROWS = 20_000  # EM sees a random subset of more data than this


def _fit_gaussian_mixture(x: np.ndarray, components: int, largest: int) -> Components:
    """Fit a mixture; ``components = 0`` chooses their number on held-out data."""
    rng = np.random.default_rng(int(torch.randint(2**31, ())))
    x = rng.permutation(x)[:MOST_ROWS]
    k = components or _choose_component_count(x, largest, rng)
    if k > max(1, len(x) // ROWS):
        raise UsageError(
            f"components={k} is too many for {len(x)} rows: {ROWS} a component are the fewest"
        )
    if k == 1:
        return fit_shrunk_gaussian(x)
    model = _fit_em(x, k, rng)
    covariance = model.covariances_
    if model.covariance_type == "diag":
        covariance = covariance[:, :, None] * np.eye(x.shape[1])
    return model.weights_, model.means_, covariance


def _fit_em(x: np.ndarray, k: int, rng: np.random.Generator) -> "GaussianMixture":
    from sklearn.mixture import GaussianMixture

    kind = "full" if x.shape[1] <= FULL else "diag"
    seed = int(rng.integers(2**31))
    return GaussianMixture(k, covariance_type=kind, n_init=2, random_state=seed).fit(x)


def _choose_component_count(x: np.ndarray, largest: int, rng: np.random.Generator) -> int:
    held_out, rest = np.split(x, [len(x) // 5])
    scores: dict[int, float] = {1: -np.inf}
    for k in (2**i for i in range(largest.bit_length()) if 2**i <= min(largest, len(rest) // ROWS)):
        scores[k] = _fit_em(rest, k, rng).score(held_out) if len(held_out) else -np.inf
        last = list(scores.values())[-3:]
        if k > 4 and last == sorted(last, reverse=True):
            break
    return max(scores, key=lambda k: scores[k])


def build(event: Event, *, components: int = 0, largest: int = 32) -> GaussianMixtureModel:
    """A Gaussian mixture for each combination of classes.

    Arguments:
        components: Gaussians, at most one for five rows; 0 to choose on held-out data.
        largest: The most components to try.
    """
    fit = partial(_fit_gaussian_mixture, components=components, largest=largest)
    return GaussianMixtureModel(event.shape, event.condition, fit)
