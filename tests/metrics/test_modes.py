"""Mode coverage on the ring of eight, where what is missing is known."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from pushforward.errors import UsageError
from pushforward.metrics import is_collapsed, neighbours

RING = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1)
SCALE = 0.01


def ring(rng, kept=8, n=2500):
    return RING[rng.integers(0, kept, n)] + SCALE * rng.standard_normal((n, 2))


def test_perfect_samples_reach_the_ceiling():
    """98.89 % lie within three standard deviations in the plane; KL has mean about 7/(2n)."""
    report = neighbours.known_modes(ring(np.random.default_rng(0), n=20_000), RING, SCALE)
    ceiling = chi2(2).cdf(9)
    assert ceiling == pytest.approx(0.9889, abs=5e-5)
    se = math.sqrt(ceiling * (1 - ceiling) / 20_000)
    assert abs(report.high_quality - ceiling) < 5 * se
    assert report.covered == 8
    assert report.reverse_kl < chi2(7).ppf(1 - 1e-6) / (2 * 20_000)


@pytest.mark.parametrize("kept", [1, 3, 8])
def test_reverse_kl_counts_the_missing_modes(kept):
    """Even frequencies on m of 8 modes are at log(8/m) from uniform."""
    report = neighbours.known_modes(RING[np.arange(840) % kept], RING, SCALE)
    assert report.reverse_kl == pytest.approx(math.log(8 / kept), abs=1e-12)
    assert report.covered == kept
    assert report.kept == kept / 8


def test_samples_far_from_every_mode_are_all_bad():
    report = neighbours.known_modes(np.full((100, 2), 9.0), RING, SCALE)
    assert (report.covered, report.high_quality, report.collapsed) == (0, 0, True)
    assert report.reverse_kl == pytest.approx(math.log(8))


def test_one_stray_row_covers_a_mode_but_does_not_keep_it():
    rng = np.random.default_rng(0)
    report = neighbours.known_modes(np.concatenate([ring(rng, 6), RING[6:]]), RING, SCALE)
    assert report.covered == 8
    assert report.collapsed


@pytest.mark.parametrize("known", [True, False])
def test_the_alarm_rings_at_six_modes_or_fewer_and_not_at_eight(known):
    """Twenty seeds for each number of modes: all of 120 ring, none of 20 at eight."""

    def alarm(kept, seed):
        rng = np.random.default_rng(seed)
        x, y = ring(rng, n=1000), ring(rng, kept, n=1000)
        if known:
            return neighbours.known_modes(y, RING, SCALE).collapsed
        return is_collapsed(neighbours.mode_coverage(x, y))

    assert all(alarm(kept, seed) for kept in range(1, 7) for seed in range(20))
    assert not any(alarm(8, seed) for seed in range(20))


def test_cells_of_one_blob_notice_a_missing_half():
    """A distribution without modes has cells too: half a Gaussian loses about half of them."""
    x, y = np.random.default_rng(0).standard_normal((2, 2000, 2))
    half = y[y[:, 0] > 0]
    assert neighbours.mode_coverage(x, y) == 1
    assert neighbours.mode_coverage(x, half) == pytest.approx(0.5, abs=0.2)
    assert is_collapsed(neighbours.mode_coverage(x, half))


def test_a_scale_must_be_positive_and_cells_need_rows():
    with pytest.raises(UsageError, match="above zero"):
        neighbours.known_modes(RING, RING, 0.0)
    with pytest.raises(UsageError, match="cannot fill"):
        neighbours.kmeans_centres(RING)
