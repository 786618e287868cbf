"""Precision, recall, density, coverage and memorisation where the answer is known by design."""

import numpy as np
import pytest

from pushforward.errors import DataError
from pushforward.metrics import neighbours


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def clusters(rng, places, n=800):
    """Rows in equal tight clusters at some of four distant places."""
    centres = 50.0 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    return centres[rng.permutation(np.resize(places, n))] + rng.standard_normal((n, 2))


@pytest.mark.parametrize(
    ("real", "generated", "precision", "recall"),
    [
        ([0, 1], [1, 2], 0.5, 0.5),
        ([0, 1, 2, 3], [2], 1.0, 0.25),
        ([0, 1], [2, 3], 0.0, 0.0),
        ([0], [0, 1, 2, 3], 0.25, 1.0),
    ],
)
def test_precision_and_recall_are_the_overlap_of_supports(rng, real, generated, precision, recall):
    """To 0.06: a few rows of a common cluster fall outside the union of balls."""
    p, r, *_ = neighbours.prdc(clusters(rng, real), clusters(rng, generated))
    assert p == pytest.approx(precision, abs=0.06)
    assert r == pytest.approx(recall, abs=0.06)


def test_all_four_by_their_definitions(rng):
    """Naeem et al. (2020), row by row, with a plain loop."""
    x, y, k = rng.standard_normal((40, 3)), 1.5 * rng.standard_normal((30, 3)), 3

    def far(rows):
        return [np.sort(np.linalg.norm(rows - r, axis=1))[k] for r in rows]

    rx, ry = far(x), far(y)
    inside = [[np.linalg.norm(a - b) <= r for b in y] for a, r in zip(x, rx, strict=True)]
    recalled = [any(np.linalg.norm(a - b) <= r for b, r in zip(y, ry, strict=True)) for a in x]
    truth = [np.any(inside, 0).mean(), np.mean(recalled), np.sum(inside) / (k * 30)]
    truth.append(np.any(inside, 1).mean())
    np.testing.assert_allclose(neighbours.prdc(x, y, k=k), truth, rtol=1e-12)


def test_density_of_the_true_law_is_one(rng):
    """Its mean is one exactly (Naeem et al., 2020); at 2,000 rows it scatters by about 0.02."""
    x, y = rng.standard_normal((2, 2000, 2))
    assert neighbours.density(x, y) == pytest.approx(1, abs=0.1)


def test_coverage_of_the_true_law_is_one_minus_two_to_the_minus_k(rng):
    """A ball to the k-th neighbour misses m = n fresh rows with probability about 2^-k."""
    x, y = rng.standard_normal((2, 2000, 2))
    assert neighbours.coverage(x, y, k=5) == pytest.approx(1 - 2.0**-5, abs=0.02)


def test_the_block_size_changes_nothing(rng):
    x, y = rng.standard_normal((90, 4)) + 50, rng.standard_normal((70, 4)) + 50
    np.testing.assert_allclose(neighbours.prdc(x, y, block=7), neighbours.prdc(x, y), rtol=1e-6)
    np.testing.assert_allclose(
        neighbours.nearest_distance(x, y, block=7), neighbours.nearest_distance(x, y), rtol=1e-6
    )


def test_duplicates_make_balls_that_hold_copies_alone(rng):
    x = np.repeat(rng.standard_normal((5, 3)) + 1e3, 10, axis=0)
    assert neighbours.precision(x, x) == 1
    assert neighbours.precision(x, x + 1e-3) == 0


def test_nearest_distance_finds_the_planted_neighbour(rng):
    train = 100 * rng.standard_normal((300, 4))
    step = rng.standard_normal((300, 4))
    found = neighbours.nearest_distance(train + 1e-3 * step, train)
    np.testing.assert_allclose(found, 1e-3 * np.linalg.norm(step, axis=1), rtol=1e-4)


def test_a_row_is_a_copy_only_if_it_is_equal(rng):
    """Far nearer than single precision resolves, and still not a copy."""
    train = rng.standard_normal((200, 2))
    assert (neighbours.nearest_distance(train, train) == 0).all()
    assert (neighbours.nearest_distance(train * (1 + 1e-12), train) > 0).all()


def test_copies_are_counted_and_pull_the_ratio_down(rng):
    train, test, fresh = rng.standard_normal((3, 500, 3))
    copies = np.concatenate([fresh[:400], train[:100], [-0.0 * train[0]]])
    assert neighbours.exact_duplicates(copies, train) == 100
    assert neighbours.exact_duplicates(np.array([[-0.0]]), np.array([[0.0]])) == 1
    held_out = neighbours.nearest_distance(test, train)
    honest = neighbours.memorisation_scores(held_out, neighbours.nearest_distance(fresh, train))
    copied = neighbours.memorisation_scores(held_out, neighbours.nearest_distance(copies, train))
    parrot = neighbours.memorisation_scores(held_out, neighbours.nearest_distance(train, train))
    assert honest[0] == pytest.approx(1, abs=0.15)  # a ratio of medians of 500 rows
    assert honest[1] == 0
    assert copied[1] == pytest.approx(100 / 501)
    assert parrot.tolist() == [0, 1]


def test_too_few_rows_for_the_neighbours_are_refused(rng):
    with pytest.raises(DataError, match="more than 5 rows"):
        neighbours.prdc(rng.standard_normal((5, 2)), rng.standard_normal((50, 2)))
