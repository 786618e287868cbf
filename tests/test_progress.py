"""The time that is left, on clocks whose future is known."""

import numpy as np
import pytest

from pushforward.progress import EtaEstimator, clock_time


def said(times, at):
    """What is said when parts ``at`` of all steps are done, and what then happens."""
    clock = iter(times)
    pace, n = EtaEstimator(lambda: next(clock)), len(times)
    lefts = [pace.seconds_left((i + 1) / n) for i in range(n)]
    return [(lefts[int(p * n) - 1], times[-1] - times[int(p * n) - 1]) for p in at]


PLACES = (0.2, 0.5, 0.8)


@pytest.mark.parametrize("start", [0.0, 30.0])
@pytest.mark.parametrize("steps", [400, 20_000])
def test_the_time_left_is_right_within_a_fifth_whatever_happens_on_the_way(start, steps):
    """Steps of 60 s in all with noise, a slow start, 40 validations and rare stalls."""
    rng = np.random.default_rng(steps)
    spans = rng.gamma(2.0, 30 / steps, steps)
    spans[0] += start
    spans[:: steps // 40] += 0.3
    spans[rng.integers(0, steps, 12)] += 0.5
    for left, truth in said(np.cumsum(spans), PLACES):
        assert left == pytest.approx(truth, rel=0.2)


def test_a_machine_that_became_three_times_slower_long_ago_is_followed():
    spans = np.where(np.arange(1000) < 200, 0.02, 0.06)
    (early, late) = said(np.cumsum(spans), (0.45, 0.8))
    assert early[0] == pytest.approx(early[1], rel=0.2)
    assert late[0] == pytest.approx(late[1], rel=1e-6)


def test_a_run_that_goes_on_is_timed_from_where_it_went_on():
    pace, clock = EtaEstimator(lambda: clock[0]), [0.0]
    for fraction in np.linspace(0.6, 0.8, 50):
        left = pace.seconds_left(float(fraction))
        clock[0] += 1.0
    assert left == pytest.approx(49.0)


def test_nothing_is_said_before_anything_is_known():
    assert EtaEstimator(lambda: 0.0).seconds_left(0.0) is None
    assert clock_time(None) == "-:--:--" and clock_time(3725.4) == "1:02:05"
