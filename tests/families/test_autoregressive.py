"""Products of conditionals: total mass over all sequences and over the plane, entropies as floors,
conditionals of what is drawn, and completion against the exact conditional.
"""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.nn.functional import one_hot

from pushforward.errors import DataError, UsageError
from pushforward.families.autoregressive import build
from pushforward.model import Event, Recipe
from pushforward.networks.causal import CausalConvNet
from pushforward.networks.likelihoods import (
    DiscretisedLogistic,
    GaussianLikelihood,
    MixtureLikelihood,
)
from pushforward.networks.masked import entry_orderings, ridge_covariance
from pushforward.theory.exact.targets import lesson_mixture
from pushforward.training.trainer import Trainer, random_batches


def model(event, data=None, spread=0.5, **options):
    """An untrained model in float64 with random weights, so that all conditionals differ."""
    made = build(event, **{"width": 16, "orderings": 1} | options)
    if data is None:
        shape = (64, *event.shape)
        data = torch.randint(event.levels, shape).float() if event.levels else torch.randn(shape)
    made.prepare(data, torch.randn(len(data), event.condition) if event.condition else None)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(spread * torch.randn_like(p))
    return made.double().eval().requires_grad_(False)


def trained(made, x, steps, lr=5e-3, c=None):
    trainer = Trainer(made, Recipe(batch=256, lr=lr, ema=0.98), steps)
    for _ in trainer.run(random_batches(x, 256, c)):
        pass
    return trainer.average.eval().requires_grad_(False)


def every(levels, shape):
    """All data of a few levels."""
    d = math.prod(shape)
    return torch.cartesian_prod(*[torch.arange(float(levels))] * d).view(-1, *shape).double()


@pytest.mark.parametrize("orderings", [1, 3])
@pytest.mark.parametrize(
    ("shape", "levels"),
    [((4,), 3), ((1,), 5), ((2, 2), 3), ((1, 2, 2), 3), ((2,), 40), ((1, 2), 40)],
)
def test_the_masses_of_all_data_sum_to_one(shape, levels, orderings):
    x = every(levels, shape)
    c = torch.randn(1, 2).double().expand(len(x), -1)
    made = model(Event(shape, 2, levels), orderings=orderings)
    assert made.log_prob(x, c).exp().sum().item() == pytest.approx(1, abs=1e-10)
    assert made.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    ("shape", "levels"), [((2, 2), 3), ((2, 2, 2), 3), ((1, 2, 3), 3), ((1, 2), 40)]
)
def test_the_masses_of_all_images_sum_to_one_under_convolutions(shape, levels):
    """Grey and in colour, channels first or last, in one order and averaged over three."""
    x = every(levels, shape)
    c = torch.randn(1, 2).double().expand(len(x), -1)
    for orderings in (1, 3):
        made = model(Event(shape, 2, levels), network="conv", orderings=orderings)
        assert made.log_prob(x, c).exp().sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(("d", "points"), [(1, 4001), (2, 201)])
@pytest.mark.parametrize("orderings", [1, 2])
def test_densities_integrate_to_one(d, points, orderings):
    """By the trapezoidal rule on [-12, 12]^d, which is exact for laws this smooth."""
    made = model(Event((d,)), spread=0.1, orderings=orderings, waves=2)
    axis = torch.linspace(-12, 12, points, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * d).view(-1, d)
    mass = sum(made.log_prob(rows).exp().sum() for rows in grid.split(16_384))
    assert (mass * (axis[1] - axis[0]) ** d).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [0, 3, 40])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (9, 10), (9, 9, 2)])
def test_the_density_is_the_sum_of_the_conditionals_that_drew(shape, levels):
    made, c = model(Event(shape, 2, levels), orderings=2), torch.randn(9, 2).double()
    x, total = torch.zeros(9, math.prod(shape)).double(), torch.zeros(9).double()
    assert isinstance(made.net, CausalConvNet) == (shape[0] == 9)
    for i, h in made.net.decode_steps(x, 1, c):
        x[:, i] = made.law.sample(h)
        total += made.law.log_prob(h, x[:, i])
    data = x.view(9, *shape)
    torch.testing.assert_close(
        made.entry_log_probs(data, 1, c).sum(1), total, rtol=1e-10, atol=1e-10
    )


def test_several_orders_are_averaged_as_densities():
    made, x = model(Event((3,)), orderings=3), torch.randn(6, 3).double()
    each = torch.stack([made.entry_log_probs(x, o).sum(1).exp() for o in range(3)])
    torch.testing.assert_close(made.log_prob(x).exp(), each.mean(0))
    assert (made.log_prob(x) >= each.log().mean(0)).all()


@pytest.mark.parametrize("levels", [2, 40, 256])
def test_a_mixture_of_discretised_logistics_sums_to_one_and_draws_its_law(levels):
    """Frequencies of 20,000 draws within 5 standard errors of the masses, and the mean alike."""
    law, n = MixtureLikelihood(DiscretisedLogistic(levels), 3), 20_000
    h, k = torch.randn(1, law.size).double(), torch.arange(float(levels)).double()
    p = law.log_prob(h.expand(levels, -1), k).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    drawn = one_hot(law.sample(h.expand(n, -1)).long(), levels).double().mean(0)
    assert ((drawn - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-3).all()


def test_the_first_law_of_a_mixture_is_nearly_standard_normal():
    """Relative entropy below 0.01 nats, by quadrature, so that training starts at the Gaussian."""
    law, x = MixtureLikelihood(GaussianLikelihood(), 32), torch.linspace(-10, 10, 4001).double()
    h = law.initial_parameters(torch.zeros(1, 1).double()).expand(len(x), -1)
    normal = -(x**2 + math.log(2 * math.pi)) / 2
    assert float((normal.exp() * (normal - law.log_prob(h, x))).sum() * 0.005) < 0.01


@pytest.mark.parametrize(
    ("shape", "network"), [((2,), "auto"), ((1, 2), "auto"), ((1, 2), "conv"), ((2, 1, 1), "conv")]
)
def test_the_smallest_loss_is_the_entropy_of_a_discrete_law(shape, network):
    """All nine data in proportion, in one batch: the loss falls to the entropy, never below it."""
    weights = torch.tensor([20, 1, 5, 2, 30, 1, 9, 12, 20])
    x = every(3, shape).float().repeat_interleave(weights, 0)
    p = weights / weights.sum()
    entropy = -(p * p.log()).sum().item()
    made = build(Event(shape, 0, 3), network=network, width=16, dropout=0.0)
    made.prepare(x)
    best = trained(made, x, 300).log_prob(x).mean().item()
    assert entropy - 1e-6 <= -best <= entropy + 5e-3


def test_a_line_gets_a_mixture_and_its_density_does_not_beat_the_entropy():
    """The lesson's mixture, fresh data: one Gaussian leaves a gap of half a nat."""
    law = lesson_mixture()
    x, fresh = law.sample(10_000).float(), law.sample(10_000).float()
    made = build(Event((1,)))
    made.prepare(x)
    found = law.log_prob(fresh) - trained(made, x, 300).log_prob(fresh)
    error = float(found.std() / 100)
    assert -4 * error < float(found.mean()) < 0.02


def test_conditional_samples_follow_each_class():
    """Classes at -1 and 1 with scale .5, after 200 steps: moments within 0.1."""
    k = torch.randint(2, (4000,))
    x, c = 0.5 * torch.randn(4000, 2) + 2.0 * k[:, None] - 1, torch.ones(4000, 3)
    c[:, 1:] = one_hot(k, 2)
    made = build(Event((2,), 3), width=32)
    made.prepare(x, c)
    made = trained(made, x, 200, c=c)
    for j in (0, 1):
        drawn = made.sample(4000, c[k == j][:1].expand(4000, -1))
        assert (drawn.mean(0) - (2 * j - 1)).abs().max() < 0.1
        assert (drawn.std(0) - 0.5).abs().max() < 0.1


def test_an_unknown_condition_is_learned_too():
    """Hidden in training every other time: without the class, the density is of both classes."""
    k = torch.randint(2, (4000,))
    x, c = 0.3 * torch.randn(4000, 1) + 2.0 * k[:, None] - 1, torch.ones(4000, 3)
    c[:, 1:] = one_hot(k, 2)
    made = build(Event((1,), 3), width=32)
    made.prepare(x, c)
    made.unconditional = 0.5
    drawn = trained(made, x, 300, c=c).sample(4000)
    assert (drawn < 0).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert drawn.abs().mean().item() == pytest.approx(1, abs=0.06)


def gaussian(orderings=1, order="given"):
    """A model that is exactly a normal, and that normal."""
    made = build(Event((3,)), order=order, orderings=orderings, components=1, width=8).double()
    x = (torch.randn(400, 3) @ torch.randn(3, 3)).double()
    made.prepare(x)
    made.law.law.law.floor = 0.0
    with torch.no_grad():
        made.net.net.out.weight.zero_()
    return made.eval(), MultivariateNormal(x.mean(0), ridge_covariance(x - x.mean(0)))


def test_completion_draws_from_the_normals_conditional():
    """Mean and covariance of 20,000 draws within 5 standard errors; what is known stays."""
    made, normal = gaussian()
    x, known, n = (
        torch.tensor([0.75, 9.0, 9.0]).double(),
        torch.tensor([True, False, False]),
        20_000,
    )
    drawn = made.complete(n, x, known)
    s, mu = normal.covariance_matrix, normal.mean
    gain = s[1:, :1] / s[0, 0]
    mean, cov = mu[1:] + gain[:, 0] * (0.75 - mu[0]), s[1:, 1:] - gain @ s[:1, 1:]
    assert (drawn[:, 0] == 0.75).all()
    assert ((drawn[:, 1:].mean(0) - mean).abs() < 5 * (cov.diagonal() / n).sqrt()).all()
    spread = cov.diagonal()[:, None] * cov.diagonal()
    assert ((drawn[:, 1:].T.cov() - cov).abs() < 5 * ((spread + cov**2) / n).sqrt()).all()


@pytest.mark.parametrize(
    ("orders", "known"),
    [
        ([[0, 1, 2], [1, 0, 2]], [True, True, False]),  # first in both: exact
        ([[0, 1, 2], [2, 0, 1]], [False, True, True]),  # first in neither: weighted
        ([[0, 1, 2]], [False, True, False]),
    ],
)
def test_completion_follows_the_ratio_of_masses(orders, known):
    """Frequencies of 20,000 draws of a discrete law against its exact conditional.

    Within 5 standard errors, of draws and of the weights that choose them.
    """
    made, n = model(Event((3,), 0, 3), orderings=len(orders), spread=0.7), 20_000
    made.net.orders.copy_(torch.tensor(orders))
    x, known = torch.tensor([2.0, 1.0, 0.0]).double(), torch.tensor(known)
    all_data = every(3, (3,))
    p = made.log_prob(all_data).exp() * (all_data == x)[:, known].all(1)
    p = p / p.sum()
    drawn = made.complete(n, x, known)
    assert (drawn == x)[:, known].all()
    share = (drawn[:, None] == all_data).all(2).double().mean(0)
    assert ((share - p).abs() <= 5 * (2 * p * (1 - p) / n).sqrt()).all()


def test_completion_is_exact_in_an_order_that_allows_it_and_warns_where_weights_fail():
    made, _ = gaussian(orderings=2)
    x = torch.randn(3).double()
    drawn = made.complete(5, x, torch.tensor([False, False, True]))
    assert (drawn[:, 2] == x[2]).all()
    assert torch.equal(made.complete(2, x, torch.ones(3, dtype=torch.bool)), x.expand(2, 3))
    with pytest.warns(UserWarning, match="order="):
        made.complete(5, 50 * torch.ones(3).double(), torch.tensor([False, True, False]))
    chosen, _ = gaussian(order="1,0,2")
    chosen.complete(5, 50 * torch.ones(3).double(), torch.tensor([False, True, False]))


def test_orders_are_permutations_and_images_are_scanned_along_their_sides():
    orders = entry_orderings((2, 3, 4), "given", 10)
    assert all(sorted(order.tolist()) == list(range(24)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 10
    assert orders[0][:4].tolist() == [0, 12, 1, 13]  # both channels of a pixel, then the next
    places = torch.stack(torch.unravel_index(orders[:8, ::2] % 12, (3, 4)), -1)
    assert ((places[:, 1:] - places[:, :-1]).abs().sum(-1) == 1).sum(1).tolist() == [9] * 4 + [
        8
    ] * 4
    last = entry_orderings(
        (3, 4, 2), "given", 2
    )  # channels last: as they lie, then from the other corner
    assert torch.equal(last[0], torch.arange(24)) and last[1][:3].tolist() == [22, 23, 20]
    assert entry_orderings((3,), "reversed", 2).tolist() == [[2, 1, 0], [0, 1, 2]]


@pytest.mark.parametrize("order", ["0,1", "0,1,1", "a,b,c", "rows", "1,2,3"])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(UsageError, match="numbers 0 to 2"):
        build(Event((3,)), order=order)


@pytest.mark.parametrize("options", [{"order": "reversed"}, {"orderings": 5}])
def test_convolutions_refuse_orders_that_do_not_go_along_the_rows(options):
    with pytest.raises(UsageError, match="along the rows"):
        build(Event((9, 9), 0, 3), **options)
    with pytest.raises(UsageError, match="no images"):
        build(Event((9,), 0, 3), network="conv")


def test_levels_out_of_range_are_refused():
    made = model(Event((2,), 0, 3))
    for wrong in (3.0, 0.5, -1.0):
        with pytest.raises(DataError, match="integers 0 to 2"):
            made.log_prob(torch.full((1, 2), wrong).double())
