"""``evaluate``: its choices, its refusals, and that a perfect model scores the floor."""

import math

import numpy as np
import pytest

from pushforward import metrics
from pushforward.errors import DataError, UsageError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_perfect_generator_scores_its_floor(rng):
    """Every interval of a sample from the true distribution reaches the floor, give or take the
    floor's own scatter, which is as wide."""
    found = metrics.evaluate(*rng.standard_normal((2, 600, 2)))
    assert {"energy", "mmd", "sliced_w2", "w1", "c2st", "precision", "frechet"} <= set(found)
    for name, e in found.items():
        assert abs(e.value - e.floor) <= 2 * (e.high - e.low) + 0.02, name
        assert e.low <= e.value <= e.high
        assert (e.name, e.better, e.n) == (name, metrics.better_direction(name), min(e.n, 300))


def test_a_bad_generator_is_worse_than_its_floor_in_every_metric(rng):
    """Narrow and shifted samples: the interval excludes the floor, on the bad side."""
    x, y = rng.standard_normal((2, 1000, 2))
    found = metrics.evaluate(x, 0.3 * y + 3)
    for name in ("energy", "mmd", "sliced_w2", "w1", "c2st", "frechet"):
        assert found[name].low > found[name].floor, name
    for name in ("precision", "recall", "coverage", "mode_coverage"):
        assert found[name].high < found[name].floor, name


def test_distances_do_not_depend_on_units(rng):
    x, y = rng.standard_normal((2, 200, 3))
    scale, shift = np.array([1e-6, 1.0, 1e6]), np.array([1.0, -5.0, 1e7])
    plain = metrics.evaluate(x, y, metrics=["energy", "mmd", "w1", "recall"])
    moved = metrics.evaluate(
        x * scale + shift, y * scale + shift, metrics=["energy", "mmd", "w1", "recall"]
    )
    for name, e in plain.items():
        assert moved[name].value == pytest.approx(e.value, rel=1e-5, abs=1e-7), name


def test_the_same_seed_gives_the_same_numbers_and_leaves_global_generators_alone(rng):
    x, y = rng.standard_normal((2, 100, 2))
    state = np.random.get_state()[1].copy()
    assert metrics.evaluate(x, y, seed=3) == metrics.evaluate(x, y, seed=3)
    assert metrics.evaluate(x, y, seed=3)["energy"] != metrics.evaluate(x, y, seed=4)["energy"]
    assert (np.random.get_state()[1] == state).all()


def test_training_rows_set_the_floor_and_reveal_copies(rng):
    train, test, fresh = rng.standard_normal((3, 300, 2))
    honest = metrics.evaluate(test, fresh, train=train)
    parrot = metrics.evaluate(test, train, train=train)
    assert honest["energy"].n == 300
    assert honest["copies"].value == 0
    assert parrot["copies"].value == 1
    assert parrot["copies"].floor == 0
    assert parrot["nearest_train"].value == 0
    assert honest["nearest_train"].floor == pytest.approx(1, abs=0.3)


def test_labels_add_what_a_classifier_sees(rng):
    y = rng.integers(0, 4, 800)
    x = 3 * np.eye(4)[y] + 0.3 * rng.standard_normal((800, 4))
    real, made, wrong = x[:400], x[400:], (y[400:] + 1) % 4
    known = {"labels": y[:400], "generated_labels": y[400:]}
    found = metrics.evaluate(real, made, **known)
    assert found["label_accuracy"].value > 0.97
    assert found["classifier_score"].value == pytest.approx(4, abs=0.2)
    assert abs(found["classifier_frechet"].value) < 3 * found["classifier_frechet"].floor
    known["generated_labels"] = wrong
    assert metrics.evaluate(real, made, **known)["label_accuracy"].value < 0.03


def test_images_are_flattened_and_scaled_by_one_number(rng):
    """A pixel that is nearly constant must not outweigh the image."""
    x, y = rng.random((2, 100, 4, 4))
    x[:, 0, 0], y[:, 0, 0] = 0.5 + 1e-9 * x[:, 0, 0], 0.51
    assert metrics.evaluate(x, y, metrics=["w1"])["w1"].value < 10


@pytest.mark.parametrize(
    ("ours", "theirs"), [((0, 255), (0, 1)), ((0, 1), (-1, 1)), ((0, 255), (-1, 1))]
)
def test_images_in_different_ranges_are_refused(rng, ours, theirs):
    def images(low, high):
        x = rng.uniform(low, high, (50, 4, 4))
        return np.round(x) if high == 255 else x

    with pytest.raises(DataError, match="one range"):
        metrics.evaluate(images(*ours), images(*theirs))
    metrics.evaluate(images(*ours), images(*ours), metrics=["energy"])


def test_numbers_alone_are_one_column(rng):
    found = metrics.evaluate(rng.standard_normal(100), rng.standard_normal(100))
    assert "w2" in found and "sliced_w2" not in found


def test_constant_columns_keep_their_unit(rng):
    x, y = rng.standard_normal((2, 100, 2))
    x[:, 1], y[:, 1] = 7.0, 8.0
    w1 = metrics.evaluate(x, y, metrics=["w1"])["w1"]
    assert w1.value >= 1
    assert math.isfinite(w1.floor) and w1.floor < w1.value


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"metrics": ["fid"]}, UsageError, "choose from energy"),
        ({"metrics": ["copies"]}, UsageError, "training rows"),
        ({"metrics": ["classifier_score"]}, UsageError, "labels="),
        ({"metrics": ["label_accuracy"], "labels": np.arange(50) % 2}, UsageError, "asked"),
        ({"labels": np.arange(3)}, DataError, "one for each row"),
        ({"generated": np.zeros((50, 3))}, DataError, "same columns"),
        ({"generated": np.zeros((5, 2))}, DataError, "too few"),
        ({"generated": np.zeros((0, 2))}, DataError, "empty"),
        ({"generated": np.full((50, 2), np.nan)}, DataError, "row 0"),
        ({"generated": [["a", "b"]] * 50}, DataError, "not numbers"),
        ({"train": np.full((50, 2), np.inf)}, DataError, "finite"),
        ({"metrics": ["frechet"], "real": np.zeros((50, 30)), "generated": np.zeros((50, 30))},
         DataError, "more than 30 rows"),
    ],
)  # fmt: skip
def test_refusals_are_one_line_with_the_remedy(rng, arguments, error, words):
    known = {"real": rng.standard_normal((50, 2)), "generated": rng.standard_normal((50, 2))}
    with pytest.raises(error, match=words) as caught:
        metrics.evaluate(**(known | arguments))
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def test_every_metric_has_a_meaning_of_one_line():
    for name in metrics.metric_names():
        assert 20 < len(metrics.metric_meaning(name)) < 120 and "\n" not in metrics.metric_meaning(
            name
        )
        assert metrics.better_direction(name) in ("lower", "higher")


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d"), [(10_000, 2), (1_000, 64)])
def test_the_defaults_take_at_most_ten_seconds(rng, n, d):
    """Processor time, so that a busy machine does not decide."""
    import time

    x, y = rng.standard_normal((2, n, d))
    start = time.process_time()
    metrics.evaluate(x, y)
    assert time.process_time() - start < 10
