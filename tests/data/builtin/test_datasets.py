"""Built-in distributions: densities against quadrature, entropies against both, and known sets."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import make_moons

from pushforward.data.builtin import datasets
from pushforward.errors import UsageError

PLANE = {  # the square that holds all but 1e-9 of the mass, and cells that resolve it
    "moons": (-1.8, 2.8, 100),
    "8gaussians": (-5.5, 5.5, 80),
    "ring8": (-7.5, 7.5, 80),
    "2spirals": (-4, 4, 160),
    "circles": (-4.8, 4.8, 100),
    "swissroll": (-4.3, 4.3, 90),
    "pinwheel": (-6, 6, 200),
}


def lattice(low, high, side):
    step = (high - low) / side
    axis = low + step * (np.arange(side) + 0.5)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return points, step**2


@pytest.mark.parametrize("name", PLANE)
def test_densities_integrate_to_one_and_to_the_entropy(name):
    """The midpoint rule converges exponentially for densities that vanish at the edge."""
    data = datasets.load(name, 10)
    points, area = lattice(*PLANE[name])
    log_p = data.log_prob(points)
    p = np.exp(log_p) * area
    assert p.sum() == pytest.approx(1, abs=1e-6)
    assert -(p * log_p).sum() == pytest.approx(data.entropy, abs=2e-5)


def test_the_lessons_mixture_integrates_to_one_and_to_its_entropy():
    data, t = datasets.load("lesson", 10), np.linspace(-9, 9, 20001)
    log_p = data.log_prob(t)
    assert np.trapezoid(np.exp(log_p), t) == pytest.approx(1, abs=1e-9)
    assert -np.trapezoid(np.exp(log_p) * log_p, t) == pytest.approx(1.5709637, abs=1e-7)
    exact = 0.3 * stats.norm(-2, 0.5).pdf(t) + 0.7 * stats.norm(2, 0.7).pdf(t)
    np.testing.assert_allclose(np.exp(log_p), exact, rtol=1e-12)


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_modes_far_apart_have_the_entropy_of_a_choice_and_a_normal(name):
    """Integrated around one mode of k: the others are at least 40 standard deviations away."""
    data = datasets.load(name, 10)
    k, s = len(data.modes), data.mode_scale
    points, area = lattice(-7 * s, 7 * s, 100)
    log_p = data.log_prob(points + data.modes[3])
    p = np.exp(log_p) * area
    assert k * p.sum() == pytest.approx(1, abs=1e-8)
    assert -k * (p * log_p).sum() == pytest.approx(data.entropy, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "published"),
    [("moons", 1.0076), ("8gaussians", 2.8319), ("checkerboard", 3.4657), ("lesson", 1.5709637)],
)
def test_entropies_agree_with_the_published_ones(name, published):
    digits = len(str(published).split(".")[1])
    assert round(datasets.load(name, 10).entropy, digits) == published


@pytest.mark.parametrize("name", datasets.TOY_DENSITIES)
def test_samples_follow_their_density(name):
    """The mean of -log p over 40,000 samples is the entropy within 4.5 standard errors."""
    data = datasets.load(name, 10)
    log_p = data.log_prob(data.sample(40_000, 1))
    error = 4.5 * log_p.std() / math.sqrt(len(log_p))
    assert -log_p.mean() == pytest.approx(data.entropy, abs=error + 1e-9)


@pytest.mark.parametrize("name", PLANE)
def test_samples_fill_the_cells_of_their_density(name):
    """Counts in 12 x 12 cells against n p, p by the midpoint rule, below the 1 - 1e-5 quantile."""
    data, (low, high, _), n = datasets.load(name, 10), PLANE[name], 40_000
    points, area = lattice(low, high, 240)
    mass = np.exp(data.log_prob(points)) * area
    expected = n * mass.reshape(12, 20, 12, 20).sum((1, 3))
    edges = np.linspace(low, high, 13)
    counts = np.histogram2d(*data.sample(n, 2).T, bins=[edges, edges])[0]
    used = expected > 5  # where the statistic has its chi-squared distribution
    statistic = ((counts - expected)[used] ** 2 / expected[used]).sum()
    assert statistic < stats.chi2(used.sum()).ppf(1 - 1e-5)


def test_moons_are_those_of_scikit_learn():
    """Same coordinates: sklearn's samples have our entropy within 4.5 standard errors.

    Its angles are equally spaced, which only narrows the spread of the mean.
    """
    data = datasets.load("moons", 10)
    log_p = data.log_prob(make_moons(20_000, noise=0.1, random_state=0)[0])
    assert -log_p.mean() == pytest.approx(
        data.entropy, abs=4.5 * log_p.std() / math.sqrt(len(log_p))
    )


def test_the_checkerboard_is_half_of_its_board():
    data = datasets.load("checkerboard", 10)
    points, area = lattice(-5, 5, 200)
    p = np.exp(data.log_prob(points))
    assert p.sum() * area == pytest.approx(1, abs=1e-12)
    assert set(np.round(p * 32, 12)) == {0.0, 1.0}
    assert (data.log_prob(data.sample(10_000, 3)) == -math.log(32)).all()


@pytest.mark.parametrize("name", datasets.TOY_DENSITIES)
def test_a_seed_repeats_a_draw_and_another_does_not(name):
    data = datasets.load(name, 100)
    np.testing.assert_array_equal(data.x, datasets.load(name, 100, seed=0).x)
    np.testing.assert_array_equal(data.sample(100, 0), data.x)
    assert not np.array_equal(data.sample(100, 1), data.x)
    assert len(datasets.load(name).x) == 50_000


def test_modes_carry_equal_shares():
    """Each of 8 modes takes n / 8 of the samples, within 5 standard errors."""
    data = datasets.load("ring", 2500)
    distance = np.linalg.norm(data.x[:, None] - data.modes, axis=-1)
    shares = np.bincount(distance.argmin(1), minlength=8)
    assert (abs(shares - 2500 / 8) < 5 * math.sqrt(2500 * 7 / 64)).all()
    within = (distance.min(1) < 3 * data.mode_scale).mean()
    ceiling = 1 - math.exp(-4.5)  # a Rayleigh variable below 3: 98.89 %
    assert within == pytest.approx(ceiling, abs=5 * math.sqrt(ceiling * (1 - ceiling) / 2500))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "column"),
    [
        ("digits", (1797, 8, 8), 10, None),
        ("wine", (178, 13), 3, "alcohol"),
        ("breast_cancer", (569, 30), 2, "mean radius"),
        ("iris", (150, 4), 3, "sepal length (cm)"),
        ("diabetes", (442, 10), None, "age"),
    ],
)
def test_real_sets_have_their_published_sizes(name, shape, classes, column):
    data = datasets.load(name)
    assert data.x.shape == shape and len(data.y) == shape[0]
    assert classes is None or len(set(data.y.tolist())) == classes
    assert column is None or data.columns[0] == column


def test_a_part_of_a_real_set_keeps_rows_and_labels_together():
    whole, part = datasets.load("iris"), datasets.load("iris", 40, seed=3)
    rows = {(*x, y) for x, y in zip(map(tuple, whole.x.tolist()), whole.y.tolist())}
    assert all((*x, y) in rows for x, y in zip(map(tuple, part.x.tolist()), part.y.tolist()))


@pytest.mark.parametrize("call", [("irises",), ("iris", 151), ("iris", 0), ("moons", -1)])
def test_sets_that_do_not_exist_are_refused(call):
    with pytest.raises(UsageError):
        datasets.load(*call)


def test_every_set_is_described_in_one_line():
    for name in datasets.names():
        assert 10 < len(datasets.describe(name)) < 80


@pytest.mark.parametrize("name", ["shapes", "moons"])
def test_more_data_than_fit_the_memory_are_refused_before_it_is_gone(name):
    with pytest.raises(UsageError, match="GiB of memory.*ask for fewer"):
        datasets.load(name, 10**15)
