"""Couplings of a batch: POT's costs and plans, and noise that tells nothing of the condition."""

import numpy as np
import ot
import pytest
import torch

from pushforward.theory import couplings, transport


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 4, 4)])
def test_exact_coupling_permutes_the_noise_to_the_least_total_cost(shape):
    x, eps = torch.randn(2, 64, *shape)
    kept, moved = couplings.exact_coupling(x, eps)
    assert torch.equal(kept, x)
    a, b, c = (z.flatten(1).double().numpy() for z in (x, eps, moved))
    assert sorted(map(tuple, b)) == sorted(map(tuple, c))
    cost = ((a[:, None] - b) ** 2).sum(-1)
    assert ((a - c) ** 2).sum(1).mean() == pytest.approx(ot.emd2([], [], cost), rel=1e-5)  # float32


def test_coupled_pairs_are_cyclically_monotone():
    """sum x_i . eps_i cannot grow by exchanging the noise of two rows."""
    x, eps = couplings.exact_coupling(torch.randn(50, 3), torch.randn(50, 3))
    inner = x.double() @ eps.double().T
    gain = inner + inner.T - inner.diagonal()[:, None] - inner.diagonal()
    assert gain.max() <= 1e-5


def test_sinkhorn_coupling_draws_partners_by_the_plan():
    """Where the entropic plan of POT has its mean, the draws of many batches have theirs."""
    x, eps = torch.randn(40, 2), torch.randn(40, 2)
    cost = couplings.price(x, eps, None).double()
    epsilon = couplings.TEMPERATURE * float(cost.mean())
    plan = ot.sinkhorn([], [], cost.numpy(), epsilon, method="sinkhorn_log", stopThr=1e-12)
    mean = torch.from_numpy(plan / plan.sum(1, keepdims=True)).float() @ eps
    drawn = torch.stack([couplings.sinkhorn_coupling(x, eps)[1] for _ in range(200)])
    error = drawn.std(0) / 200**0.5
    # entropy of the plan leaves at least a little spread; 80 numbers, 4.5 standard errors
    assert ((drawn.mean(0) - mean).abs() < 4.5 * error + 0.02).all()


LABELS = torch.arange(512) % 3
CLASSES = torch.cat([torch.ones(512, 1), torch.eye(3)[LABELS]], dim=1)


@pytest.mark.parametrize("coupling", [couplings.exact_coupling, couplings.sinkhorn_coupling])
def test_noise_given_the_class_is_noise(coupling):
    """torchcfm#117: coupled without the condition, class means of the noise follow the data's."""
    x = torch.randn(512, 2) * 0.3 + 2 * torch.eye(3)[LABELS][:, :2]
    for c, told in ((None, True), (CLASSES, False)):
        means = torch.stack([coupling(x, torch.randn(512, 2), c)[1] for _ in range(16)])
        means = torch.stack([means[:, k == LABELS].mean((0, 1)) for k in range(3)])
        bar = 5 / np.sqrt(16 * 512 / 3)  # five standard errors of a mean of independent noise
        assert bool((means.abs() > bar).any()) == told, c


def test_coupling_within_classes_has_the_least_cost_of_each():
    x, eps = torch.randn(512, 2), torch.randn(512, 2)
    _, moved = couplings.exact_coupling(x, eps, CLASSES)
    for k in range(3):
        a, b, c = (z[k == LABELS].double().numpy() for z in (x, eps, moved))
        assert sorted(map(tuple, b)) == sorted(map(tuple, c))
        cost = ((a[:, None] - b) ** 2).sum(-1)
        assert ((a - c) ** 2).sum(1).mean() == pytest.approx(ot.emd2([], [], cost), rel=1e-5)


def test_noise_hardly_tells_a_number():
    """The slope of coupled noise on a numeric condition: 0.9 without it, below 0.1 with it."""
    slopes = {True: [], False: []}
    for _ in range(20):
        y = torch.randn(256)
        x, c = (y[:, None] + 0.3 * torch.randn(256, 1)), torch.stack([torch.ones(256), y], dim=1)
        for known in slopes:
            _, eps = couplings.exact_coupling(x, torch.randn(256, 1), c if known else None)
            slopes[known].append(float((eps[:, 0] * y).mean()))
    assert np.mean(slopes[False]) > 0.8 and abs(np.mean(slopes[True])) < 0.1
    x, eps = torch.randn(256, 1), torch.randn(256, 1)
    far = (x - eps).square().mean()
    c = torch.stack([torch.ones(256), torch.randn(256)], dim=1)
    assert (x - couplings.exact_coupling(x, eps, c)[1]).square().mean() < 0.7 * far


def test_cooled_potentials_are_those_of_the_logarithmic_sweeps():
    cost = torch.rand(30, 40, dtype=torch.float64)
    f, g = transport.cooled(cost, [0.4, 0.2, 0.1], sweeps=200)
    plan = ((f[:, None] + g - cost) / 0.1).exp()
    torch.testing.assert_close(plan / plan.sum(), transport.sinkhorn_plan(cost, 0.1))
