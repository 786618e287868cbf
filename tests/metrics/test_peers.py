"""Scores of features beside torchmetrics and prdc, on the same features, to 1e-6 of the value."""

import numpy as np
import pytest
import torch
from torch import nn

from pushforward import metrics
from pushforward.metrics import neighbours

N = 90


class Features(nn.Module):
    """Twelve random features of images in colour from 0 to 1."""

    num_features = 12

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(3)
        self.w = torch.randn(3 * 36, 12, generator=g, dtype=torch.float64) / 5

    def forward(self, x):
        return torch.tanh(x.double().flatten(1) @ self.w + 0.1)


class OfBytes(Features):
    """The same of 8-bit images, as torchmetrics hands them over."""

    def forward(self, x):
        return super().forward(x.double() / 255)


@pytest.fixture(scope="module")
def sets():
    """Real, generated and training images, ``(3, 90, 3, 6, 6)``, 8 bits."""
    rng = np.random.default_rng(0)
    x = rng.random((3, N, 3, 6, 6)) ** np.array([1, 1.3, 1])[:, None, None, None, None]
    return np.round(255 * x).astype(np.uint8)


@pytest.fixture(scope="module")
def found(sets):
    x, y, t = sets.astype(float)
    names = ["frechet", "kid", "precision", "recall", "density", "coverage"]
    with pytest.warns(UserWarning, match="compare it only with its floor"):
        return metrics.evaluate(x, y, train=t, features=Features(), metrics=names)


def filled(measure, sets):
    measure.update(torch.as_tensor(sets[0]), real=True)
    measure.update(torch.as_tensor(sets[1]), real=False)
    return measure.compute()


def test_the_frechet_distance_is_that_of_torchmetrics(sets, found):
    image = pytest.importorskip("torchmetrics.image.fid")
    theirs = filled(image.FrechetInceptionDistance(feature=OfBytes()), sets)
    assert found["frechet"].value == pytest.approx(float(theirs), rel=1e-6)


def test_kid_is_that_of_torchmetrics(sets, found):
    image = pytest.importorskip("torchmetrics.image.kid")
    measure = image.KernelInceptionDistance(feature=OfBytes(), subsets=1, subset_size=N)
    assert found["kid"].value == pytest.approx(float(filled(measure, sets)[0]), rel=1e-6)


def test_the_inception_score_is_that_of_torchmetrics(sets):
    image = pytest.importorskip("torchmetrics.image.inception")
    measure = image.InceptionScore(feature=OfBytes(), splits=1)
    measure.update(torch.as_tensor(sets[1]))
    logits = OfBytes()(torch.as_tensor(sets[1]))
    ours = metrics.classifier_score(logits.softmax(1).numpy())
    assert ours == pytest.approx(float(measure.compute()[0]), rel=1e-6)


def test_precision_recall_density_and_coverage_are_those_of_prdc(sets, found):
    prdc = pytest.importorskip("prdc")
    x, y = (Features()(torch.as_tensor(s / 255)).numpy() for s in sets[:2])
    theirs = prdc.compute_prdc(x, y, nearest_k=neighbours.K)
    for name, value in theirs.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    assert 0 < found["precision"].value < 1  # so that the agreement says something


def test_precision_recall_density_and_coverage_by_their_definitions(sets):
    """Naeem et al. (2020), all distances in one cube, at every number of neighbours."""
    x, y = (Features()(torch.as_tensor(s / 255)).numpy() for s in sets[:2])
    xx, xy, yy = (np.linalg.norm(a[:, None] - b, axis=-1) for a, b in ((x, x), (x, y), (y, y)))
    for k in (1, 3, 5):
        r_x, r_y = (np.sort(d, 1)[:, k] for d in (xx, yy))
        truth = [
            (xy <= r_x[:, None]).any(0).mean(),
            (xy <= r_y).any(1).mean(),
            (xy <= r_x[:, None]).sum(0).mean() / k,
            (xy.min(1) <= r_x).mean(),
        ]
        np.testing.assert_allclose(neighbours.prdc(x, y, k=k), truth, rtol=1e-12)
