"""The closed-form families against scikit-learn, SciPy and quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from pushforward.errors import UsageError
from pushforward.families import BASELINES, build
from pushforward.model import Event


def two_blobs(n):
    """Two Gaussians, standardised roughly, and which of them each datum is from."""
    k = torch.randint(2, (n,))
    x = torch.randn(n, 2) * torch.tensor([0.5, 0.3]) + torch.tensor([[-1.0, 0.0], [1.0, 0.5]])[k]
    return x, k


def one_hot(k, classes=2):
    return torch.cat([torch.ones(len(k), 1), torch.nn.functional.one_hot(k, classes).float()], 1)


def fitted(name, x, c=None, **options):
    model = build(name, Event(tuple(x.shape[1:]), 0 if c is None else c.shape[1]), **options).eval()
    model.prepare(x, c)
    return model


def square(half, n, d):
    """A grid of midpoints on [-half, half]^d and the volume of a cell."""
    axis = (torch.arange(n) + 0.5) / n * 2 * half - half
    return torch.cartesian_prod(*[axis] * d).view(-1, d), (2 * half / n) ** d


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("name", BASELINES)
def test_density_integrates_to_one(name, d):
    """On [-6, 6]^d, beyond which less than 1e-4 lies; histogram cells are 20 grid steps or more."""
    x = two_blobs(100)[0][:, :d]
    grid, cell = square(6, 1000, d)
    mass = fitted(name, x).log_prob(grid).exp().sum() * cell
    assert mass.item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("n", [5, 50])  # fewer data than dimensions, and more
def test_gaussian_is_the_mean_and_the_shrunk_covariance(n):
    """A constant column too: shrinkage keeps the covariance invertible."""
    x = torch.cat([torch.randn(n, 6) @ torch.randn(6, 6), torch.zeros(n, 1)], 1).double()
    expected = multivariate_normal(x.mean(0), ledoit_wolf(x.numpy())[0] + 1e-6 * np.eye(7))
    torch.testing.assert_close(
        fitted("gaussian", x.float()).log_prob(x.float()),
        torch.as_tensor(expected.logpdf(x.numpy())).float(),
        rtol=1e-3,  # float32
        atol=1e-3,
    )


def test_gaussian_given_a_number_is_the_conditional_of_the_joint_gaussian():
    """u ~ N(0, 1), x = (2u, -u) + noise of std 0.5: E[x|u] = (2u, -u), Var = 0.25."""
    n = 20_000
    u = torch.randn(n, 1)
    x = torch.cat([2 * u, -u], 1) + 0.5 * torch.randn(n, 2)
    model = fitted("gaussian", x, torch.cat([torch.ones(n, 1), u], 1))
    at = torch.tensor([[1.0, 1.5]]).expand(n, 2)
    drawn = model.sample(n, at)
    se = 0.5 / math.sqrt(n)  # the fit's error and the draws' error; bar of 8
    torch.testing.assert_close(drawn.mean(0), torch.tensor([3.0, -1.5]), rtol=0, atol=16 * se)
    torch.testing.assert_close(drawn.std(0), torch.full((2,), 0.5), rtol=0, atol=0.03)
    expected = multivariate_normal([3.0, -1.5], 0.25 * np.eye(2)).logpdf(drawn[:50].numpy())
    torch.testing.assert_close(
        model.log_prob(drawn[:50], at[:50]), torch.as_tensor(expected).float(), rtol=0, atol=0.1
    )


def test_mixture_with_a_given_number_of_components_is_scikit_learns():
    """The same optimum: both blobs are far apart, so EM from k-means has one answer."""
    x = torch.cat([torch.randn(300, 2) * 0.2 + 2, torch.randn(200, 2) * 0.3 - 2])
    theirs = GaussianMixture(2, random_state=0, tol=1e-6).fit(x.double().numpy())
    ours = fitted("gaussian_mixture", x, components=2).log_prob(x)
    expected = torch.as_tensor(theirs.score_samples(x.double().numpy())).float()
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-2)  # EM's own tolerance is 1e-3


def test_mixture_finds_how_many_blobs_there_are():
    centres = torch.tensor([[-2.0, -2], [-2, 2], [2, -2], [2, 2]])
    x = centres[torch.randint(4, (2000,))] + 0.2 * torch.randn(2000, 2)
    assert len(fitted("gaussian_mixture", x).table.weight) == 4


def test_mixture_given_a_number_is_the_quotient_of_joint_and_marginal():
    """p(x | u) = p(x, u) / p(u) with both densities from SciPy."""
    n = 2000
    k, u = torch.randint(2, (n,)), torch.randn(n, 1)
    x = (u + 1) * (2.0 * k[:, None] - 1) + 0.3 * torch.randn(n, 1)
    c = torch.cat([torch.ones(n, 1), u], 1)
    model = fitted("gaussian_mixture", x, c, components=3)
    own = model.table.group == 1
    w, m, s = (getattr(model.table, a)[own].double() for a in ("weight", "mean", "covariance"))
    rows = torch.cat([x, u], 1)[:40].double().numpy()
    joint = sum(a * multivariate_normal(b, v).pdf(rows) for a, b, v in zip(w, m, s))
    given = sum(
        a * multivariate_normal(b[1:], v[1:, 1:]).pdf(rows[:, 1:]) for a, b, v in zip(w, m, s)
    )
    expected = torch.as_tensor(np.log(joint / given)).float()
    torch.testing.assert_close(model.log_prob(x[:40], c[:40]), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("d", [1, 2, 6])
def test_kernel_density_is_scikit_learns(d):
    x, y, h = torch.randn(300, d), torch.randn(70, d), 0.3
    theirs = KernelDensity(bandwidth=h).fit(x.double().numpy()).score_samples(y.double().numpy())
    ours = fitted("kde", x, bandwidth=h).log_prob(y)
    torch.testing.assert_close(ours, torch.as_tensor(theirs).float(), rtol=1e-4, atol=1e-3)


def test_bandwidth_beats_its_neighbours_on_new_data():
    """The leave-one-out choice is within 0.02 nats of the best of a fine grid on fresh data."""
    x, y = two_blobs(1000)[0], two_blobs(4000)[0]
    chosen = fitted("kde", x).log_prob(y).mean()
    best = max(
        fitted("kde", x, bandwidth=h).log_prob(y).mean() for h in (0.05, 0.1, 0.15, 0.2, 0.3)
    )
    assert chosen > best - 0.02


def test_bandwidth_stays_positive_for_repeated_data():
    model = fitted("kde", torch.randint(3, (200, 1)).float())
    assert model.table.bandwidth >= 0.003 - 1e-9
    assert model.log_prob(torch.tensor([[0.0], [0.5]])).isfinite().all()


def test_kernel_density_given_a_number_is_the_weighted_sum():
    x, u, h = torch.randn(40, 1), torch.randn(40, 1), 0.4
    model = fitted("kde", x, torch.cat([torch.ones(40, 1), u], 1), bandwidth=h)
    w = np.exp(-((0.7 - u.numpy()[:, 0]) ** 2) / (2 * h**2))
    kernel = np.exp(-((0.2 - x.numpy()[:, 0]) ** 2) / (2 * h**2)) / (h * math.sqrt(2 * math.pi))
    expected = math.log((w * kernel).sum() / w.sum())
    value = model.log_prob(torch.tensor([[0.2]]), torch.tensor([[1.0, 0.7]]))
    assert value.item() == pytest.approx(expected, abs=1e-4)


def test_histogram_is_numpys_where_every_cell_is_full():
    """The Gaussian background has weight 1 / (n + 1) when no datum is alone in its cell."""
    x = torch.rand(20_000, 1) * 2
    model = fitted("histogram", x, cells=8)
    low, high = model.table.low.item(), model.table.high.item()
    density, _ = np.histogram(x.numpy(), 8, (low, high), density=True)
    middle = low + (torch.arange(8) + 0.5) * (high - low) / 8
    torch.testing.assert_close(
        model.log_prob(middle[:, None]).exp(),
        torch.as_tensor(density).float(),
        rtol=1e-3,
        atol=1e-3,
    )


def test_histogram_of_many_entries_is_the_product_of_single_ones():
    x = torch.randn(500, 3)
    joint = fitted("histogram", x, cells=10).log_prob(x)
    single = sum(fitted("histogram", x[:, [j]], cells=10).log_prob(x[:, [j]]) for j in range(3))
    torch.testing.assert_close(joint, single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_samples_have_the_density_that_is_claimed(name):
    """The mean of log p over samples equals the integral of p log p, to 5 standard errors."""
    model, n = fitted(name, two_blobs(300)[0]), 10_000
    grid, cell = square(5, 500, 2)
    log_p = model.log_prob(grid)
    expected = (log_p.exp() * log_p).sum() * cell
    drawn = model.log_prob(model.sample(n))
    bar = 5 * drawn.std() / math.sqrt(n) + 0.01  # the quadrature's own error
    assert (drawn.mean() - expected).abs() < bar


@pytest.mark.parametrize("name", BASELINES)
def test_conditional_samples_follow_each_class_and_zeros_mean_unknown(name):
    """Class means at -1 and 1 with std 0.5; the zero vector gives the mixture, mean 0."""
    x, k = two_blobs(1000)
    model, n = fitted(name, x, one_hot(k)), 2000
    for j, mean in enumerate((-1.0, 1.0)):
        drawn = model.sample(n, one_hot(torch.full((n,), j)))
        own = x[k == j]
        torch.testing.assert_close(drawn.mean(0), own.mean(0), rtol=0, atol=0.1)  # 9 errors
        torch.testing.assert_close(drawn.std(0), own.std(0), rtol=0.15, atol=0)
        assert drawn[:, 0].mean().item() == pytest.approx(mean, abs=0.15)
    unknown = torch.zeros(n, 3)
    torch.testing.assert_close(model.sample(n, unknown).mean(0), x.mean(0), rtol=0, atol=0.12)
    torch.testing.assert_close(model.log_prob(x[:50], unknown[:50]), model.log_prob(x[:50]))
    right, wrong = model.log_prob(x, one_hot(k)).mean(), model.log_prob(x, one_hot(1 - k)).mean()
    assert right > wrong + 1


@pytest.mark.parametrize("name", BASELINES)
def test_classes_of_few_data_are_counted(name):
    """Three of five classes have four data each: they are drawn from all data, which is said."""
    label = torch.tensor([0] * 40 + [1] * 40 + [2, 3, 4] * 4)
    c = torch.cat([torch.ones(92, 1), torch.eye(5)[label]], dim=1)
    with pytest.warns(UserWarning, match="3 of 5 classes have fewer than 5 data"):
        build(name, Event((2,), 6)).prepare(torch.randn(92, 2), c)


@pytest.mark.parametrize("name", BASELINES)
def test_numeric_conditions_move_the_samples(name):
    """x = u + noise: the mean of x given u = 1.2 is above that given u = -1.2 by about 2.4."""
    n = 1000
    u = torch.randn(n, 1)
    model = fitted(name, u + 0.3 * torch.randn(n, 1), torch.cat([torch.ones(n, 1), u], 1))
    high, low = (model.sample(n, torch.tensor([[1.0, v]]).expand(n, 2)).mean() for v in (1.2, -1.2))
    assert (high - low).item() == pytest.approx(2.4, abs=0.3)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
@pytest.mark.parametrize("name", BASELINES)
def test_a_saved_state_gives_the_same_density_in_a_fresh_model(name, shape):
    k = torch.randint(2, (200,))
    x, c = torch.randn(200, *shape) + k.view(-1, *[1] * len(shape)), one_hot(k)
    model = fitted(name, x, c)
    fresh = build(name, Event(shape, 3))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x, c), model.log_prob(x, c))
    assert fresh.sample(7, c[:7]).shape == (7, *shape)


@pytest.mark.parametrize("name", BASELINES)
def test_scores_do_not_depend_on_the_other_rows(name):
    x, k = two_blobs(100)
    model, c = fitted(name, x, one_hot(k)), one_hot(k)
    alone = torch.cat([model.log_prob(x[[i]], c[[i]]) for i in range(20)])
    torch.testing.assert_close(model.log_prob(x, c)[:20], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_is_left_to_train(name):
    model = fitted(name, torch.randn(30, 2))
    assert model.players() == {} and not list(model.parameters())


def test_more_components_than_rows_can_carry_are_refused():
    """Five rows a component are the fewest: twelve of sixty, and no hours for the thirteenth."""
    x = torch.randn(60, 2)
    build("gaussian_mixture", Event((2,)), components=12).prepare(x)
    with pytest.raises(UsageError, match="components=13 is too many for 60 rows"):
        build("gaussian_mixture", Event((2,)), components=13).prepare(x)
