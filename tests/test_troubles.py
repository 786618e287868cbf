"""What families find wrong with themselves is said: after a fit, and in a report."""

import pytest

from pushforward.fitted.troubles import troubles


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"mode_coverage": 0.75}, "mode collapse"),
        ({"mode_coverage": 0.875}, ""),
        ({"active_units": 0.0, "collapsed_units": 4.0}, "posterior collapse: 4 of 4"),
        ({"active_units": 1.0, "collapsed_units": 9.0}, "posterior collapse: 9 of 10"),
        ({"active_units": 2.0, "collapsed_units": 2.0}, ""),
        ({"active_units": 2.0, "collapsed_units": 0.0}, ""),
        ({"solver_error": 0.02}, "0.02 nats"),
        ({"solver_error": -0.3}, "0.3 nats"),
        ({"solver_error": 0.009}, ""),
        ({}, ""),
    ],
)
def test_an_alarm_is_raised_beyond_its_bar(said, word):
    found = troubles([{"step": 1}, {"step": 2, **said}, {"step": 3}])
    assert len(found) == bool(word) and word in "".join(found)


def test_the_last_diagnosis_counts():
    assert not troubles([{"mode_coverage": 0.1}, {"mode_coverage": 0.9}])
    assert troubles([{"mode_coverage": 0.9}, {"mode_coverage": 0.1}])
