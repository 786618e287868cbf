"""How good the defaults are: every family is fitted as a user fits it who passes nothing."""

import time
from functools import cache

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.model_selection import StratifiedKFold

from pushforward.data.builtin import datasets
from pushforward.metrics.neighbours import known_modes
from pushforward.metrics.wasserstein import sliced_w2
from pushforward.model import Likelihood
from pushforward.training.fit import fit

pytestmark = pytest.mark.slow

N = 10_000
PLANE = ["lesson", "8gaussians", "moons", "ring", "grid"]
SEEDS = {"wine": 4, "breast_cancer": 1, "digits": 1}  # of five folds each
LEARNED = ["vae", "gan", "wgan_gp", "normalizing_flow", "ddpm", "flow_matching"]


@cache
def fitted(name, family):
    started = time.monotonic()
    model = fit(name, family, progress=False)
    assert time.monotonic() - started < 60
    return model


@cache
def floor(name):
    """Sliced W2 between two samples of the data, the mean of eight pairs."""
    sample = datasets.load(name).sample
    return np.mean([sliced_w2(sample(N, 2 * k), sample(N, 2 * k + 1)) for k in range(1, 9)])


def gap(name, family, rows):
    """The mean and standard error of log p - log q on fresh data, KL(p || q) in nats."""
    dataset, model = datasets.load(name), fitted(name, family)
    x = dataset.sample(rows, 123)
    difference = dataset.log_prob(x) - model.log_prob(x)
    return difference.mean(), difference.std() / rows**0.5


@pytest.mark.parametrize("name", PLANE)
@pytest.mark.parametrize("family", ["flow_matching", "ddpm"])
def test_samples_are_nearly_as_close_to_data_as_data_are(name, family):
    model, sample = fitted(name, family), datasets.load(name).sample
    # one pair says little: between two samples of the data it varies by half
    pairs = [(sample(N, 90 + k), model.draw(N, seed=k)) for k in range(8)]
    assert np.mean([sliced_w2(*pair) for pair in pairs]) <= 1.5 * floor(name)


@pytest.mark.parametrize("name", ["lesson", "8gaussians", "moons"])
@pytest.mark.parametrize("family", ["flow_matching", "normalizing_flow"])
def test_the_likelihood_is_within_a_twentieth_of_a_nat_of_the_entropy(name, family):
    assert gap(name, family, 2000)[0] <= 0.05


@pytest.mark.parametrize("name", PLANE)
@pytest.mark.parametrize("family", ["flow_matching", "ddpm", "normalizing_flow", "vae"])
def test_no_likelihood_beats_the_entropy(name, family):
    assert fitted(name, family).likelihood is not Likelihood.NONE
    mean, error = gap(name, family, 2000)
    assert mean > -3 * error


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", ["8gaussians", "ring"])
def test_wgan_gp_covers_all_eight_modes(name, seed):
    dataset, started = datasets.load(name), time.monotonic()
    model = fit(name, "wgan_gp", seed=seed, progress=False)
    assert time.monotonic() - started < 60
    assert known_modes(model.draw(N, seed=seed), dataset.modes, dataset.mode_scale).covered == 8


@cache
def distances(name, family):
    """Energy distance of 3,000 draws to each held-out fifth, columns in training deviations."""
    data, found = datasets.load(name), []
    for seed in range(SEEDS[name]):
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        for kept, held in folds.split(data.y, data.y):
            train, test = data.x[kept], data.x[held].reshape(len(held), -1)
            drawn = fit(train, family, seed=seed, progress=False).draw(3000, seed=seed)
            scale = train.std(0).ravel() if train.ndim == 2 else train.std()
            a, b = test / scale, drawn.reshape(len(drawn), -1) / scale
            found.append(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean())
    return np.array(found)


@pytest.mark.parametrize("family", LEARNED)
@pytest.mark.parametrize("name", SEEDS)
def test_real_data_are_drawn_better_than_by_one_gaussian(name, family, request):
    """On the same folds, by two standard errors of the difference: wine has but 178 rows."""
    if name == "wine" and family in ("vae", "normalizing_flow"):
        reason = "142 rows of 13 columns: measured within a standard error of the Gaussian"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=False))
    difference = distances(name, family) - distances(name, "gaussian")
    assert difference.mean() < -2 * difference.std(ddof=1) / len(difference) ** 0.5
