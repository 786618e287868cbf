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
    cost = couplings.pairing_cost(x, eps, None).double()
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
    f, g = transport.anneal_potentials(cost, [0.4, 0.2, 0.1], sweeps=200)
    plan = ((f[:, None] + g - cost) / 0.1).exp()
    torch.testing.assert_close(plan / plan.sum(), transport.sinkhorn_plan(cost, 0.1))


def test_outlines_are_those_of_the_negative_and_of_any_brightness():
    x = torch.randn(5, 3, 7, 6, dtype=torch.float64)
    found = couplings.image_outlines(x)
    steep, hue = found[:, :1], found[:, 1:]
    torch.testing.assert_close(couplings.image_outlines(4 - x)[:, :1], steep)
    torch.testing.assert_close(
        couplings.image_outlines(x + torch.randn(5, 1, 1, 1).double()), found
    )
    torch.testing.assert_close(hue.sum(1), torch.zeros(5, 7, 6).double())
    slope = torch.arange(6.0).expand(1, 1, 7, 6) * 3 + torch.arange(7.0)[:, None] * 4
    assert (couplings.image_outlines(slope)[0, 0, :-1, :-1] == 5).all()  # the gradient is (3, 4)


def spots(at, ground, spot):
    """Pictures of one bright or dark pixel each."""
    x = torch.full((len(at), 1, 6, 6), ground)
    x.flatten(1)[torch.arange(len(at)), at] = spot
    return x


def test_outlines_join_what_pixels_keep_apart():
    """A dark spot on white, a bright one on black: at least cost pixels put them elsewhere."""
    at, other = torch.randperm(36), torch.randperm(36)
    light, dark = spots(at, 1.0, -1.0), spots(other, -1.0, 1.0)
    for coupling, same in ((couplings.exact_coupling, 0), (couplings.outline_coupling, 36)):
        _, joined = coupling(light, dark)
        assert int((joined.flatten(1).argmax(1) == at).sum()) == same
    last = couplings.outline_coupling(
        light.movedim(1, 3), dark.movedim(1, 3), first=lambda x: x.movedim(3, 1)
    )[1]
    assert torch.equal(last.flatten(1).argmax(1), at)


def test_pools_give_each_pair_once_and_the_same_again_from_their_state():
    def couple(n):
        x = torch.randn(n, 2)
        return x, -x, x[:, :1]

    state = torch.zeros(2, dtype=torch.int64)
    pool, taken, states = couplings.CouplingPool(couple, 100), [], []
    for _ in range(7):
        states.append(state.clone())
        taken.append(pool.take(30, state))
    for x, eps, c in taken:
        assert torch.equal(x, -eps) and torch.equal(c, x[:, :1]) and len(x) == 30
    rows = torch.cat([x for x, _, _ in taken])
    assert len(rows.unique(dim=0)) == len(rows)
    assert len({int(s[0]) for s in (*states[1:], state)}) == 3  # a pool of 100 lasts 3 batches
    again = couplings.CouplingPool(couple, 100)
    before = torch.get_rng_state()
    assert torch.equal(again.take(30, states[5].clone())[0], taken[5][0])
    assert torch.equal(torch.get_rng_state(), before)  # pools that are known draw nothing
    assert len(again.take(300, states[5].clone())[0]) == 300


def test_more_rows_at_once_are_nearer():
    """The cost of the optimal coupling of two samples of one law falls with their number."""
    costs = []
    for n in (16, 256):
        x = torch.randn(1024, 3)
        a, b = couplings.couple_in_chunks(couplings.exact_coupling, x, torch.randn(1024, 3), size=n)
        costs.append(float((a - b).square().sum(1).mean()))
    assert costs[1] < costs[0] / 2  # n^(-2/3) gives 1/6, up to constants
