"""Classifier metrics against Bayes' error, entropy and constructed labels."""

import math

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from pushforward.errors import DataError, UsageError
from pushforward.metrics import classifier


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_shifted_normals_are_told_apart_as_well_as_bayes_can(rng, shift):
    """Accuracy Phi(shift/2), AUROC Phi(shift/sqrt 2); standard error 0.008 and 2 % of regret."""
    x, y = rng.standard_normal(2000), rng.standard_normal(2000) + shift
    accuracy, auroc = classifier.c2st(x, y)
    assert ndtr(shift / 2) - 0.06 < accuracy < ndtr(shift / 2) + 0.04
    assert ndtr(shift / math.sqrt(2)) - 0.06 < auroc < ndtr(shift / math.sqrt(2)) + 0.04


def test_equal_means_and_covariances_do_not_hide_a_ring(rng):
    """Eight modes against the Gaussian of their moments: moments cannot tell, the trees can."""
    angle = rng.integers(0, 8, 1000) * math.pi / 4
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.standard_normal((1000, 2))
    blob = rng.multivariate_normal(ring.mean(0), np.cov(ring.T), 1000)
    assert classifier.c2st(ring, blob)[0] > 0.9


def test_separation_of_given_scores(rng):
    p, q = rng.random((30, 1)), rng.random((50, 1)) ** 0.5
    truth = roc_auc_score(np.repeat([0, 1], [30, 50]), np.concatenate([p, q]).ravel())
    accuracy, auroc = classifier.separation_scores(p, q)
    assert auroc == pytest.approx(truth, rel=1e-12)
    assert accuracy == pytest.approx(((p < 0.5).mean() + (q > 0.5).mean()) / 2, rel=1e-12)
    assert classifier.separation_scores(np.full((9, 1), 0.5), np.full((7, 1), 0.5)).tolist() == [
        0.5,
        0.5,
    ]


def test_the_score_runs_from_one_to_the_number_of_classes():
    """1 for no information, K for sure and even classes, exp H(w) for sure classes of weights w."""
    w = np.array([0.5, 0.25, 0.25])
    sure = np.eye(3)[np.repeat(range(3), [2, 1, 1])]
    assert classifier.classifier_score(np.tile(w, (10, 1))) == pytest.approx(1, rel=1e-12)
    assert classifier.classifier_score(np.eye(8)) == pytest.approx(8, rel=1e-12)
    truth = math.exp(-np.sum(w * np.log(w)))
    assert classifier.classifier_score(sure) == pytest.approx(truth, rel=1e-12)
    with pytest.raises(UsageError, match="softmax"):
        classifier.classifier_score(np.ones((3, 3)))


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"]])
def test_the_network_learns_labels_and_its_own_forward_pass_agrees_with_them(rng, classes):
    code = rng.integers(0, len(classes), 400)
    x = 4 * np.eye(3)[code] + 0.5 * rng.standard_normal((400, 3))
    network = classifier.fit_classifier(x, np.array(classes)[code])
    assert (network.predict(x) == np.array(classes)[code]).mean() > 0.98
    assert network.features(x).shape == (400, 64)
    np.testing.assert_allclose(network.probabilities(x).sum(1), 1, rtol=1e-12)
    again = classifier.fit_classifier(x, np.array(classes)[code])
    np.testing.assert_array_equal(network.features(x), again.features(x))


def test_labels_must_match_the_rows():
    with pytest.raises(DataError, match="one for each row"):
        classifier.fit_classifier(np.zeros((5, 2)), np.arange(4))
    with pytest.raises(DataError, match="two classes"):
        classifier.fit_classifier(np.zeros((5, 2)), np.zeros(5))
    with pytest.raises(DataError, match="10 rows"):
        classifier.c2st(np.zeros((5, 2)), np.ones((50, 2)))
