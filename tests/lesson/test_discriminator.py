"""Practice problem 3: every step that is an identity is one, and the experiment does as it says."""

import pytest

from pushforward.lesson.problems.discriminator import PROBLEM
from pushforward.rng import seeded_rng

CHECKED = [s for part in PROBLEM.parts for s in part.steps if s.identity]


@pytest.mark.parametrize("step", CHECKED, ids=lambda s: s.identity.__name__)
def test_identities_of_the_derivation_hold(step):
    assert all(n.agrees for n in step.identity())


def test_a_trained_discriminator_comes_near_the_best_one():
    (run,) = [part.experiment for part in PROBLEM.parts if part.experiment]
    with seeded_rng(0):
        found = run()
    assert all(n.agrees for n in found.numbers)
    assert list(found.figures) == ["trained_discriminator"]
