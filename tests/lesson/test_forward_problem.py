"""Problem 4: every step is an identity, and every experiment finds what theory says."""

import pytest

from pushforward import lesson
from pushforward.plots.style import figure_bytes, plot_style

PARTS = lesson.problem("p4").parts
CHECKED = [step for part in PARTS for step in part.steps if step.identity]


@pytest.mark.parametrize("step", CHECKED, ids=lambda step: step.identity.__name__)
def test_a_step_of_the_derivation_is_an_identity(step):
    for number in step.identity():
        assert number.agrees, number


@pytest.mark.parametrize("part", [p for p in PARTS if p.experiment], ids=lambda p: p.question[:20])
def test_an_experiment_finds_what_theory_says(part):
    with plot_style():
        found = part.experiment()
        assert all(figure_bytes(figure) for figure in found.figures.values())
    for number in found.numbers:
        assert number.agrees, number


def test_a_wrong_step_is_noticed(monkeypatch):
    """A recursion with the whole beta in the mean, the commonest slip."""
    from pushforward.theory.exact import diffusion_bound

    right = diffusion_bound.moment_recursion
    monkeypatch.setattr(
        diffusion_bound,
        "moment_recursion",
        lambda betas, mean, variance: right(betas, mean * 1.001, variance),
    )
    noticed = {s.identity.__name__ for s in CHECKED if not all(n.agrees for n in s.identity())}
    assert {
        "check_first_step",
        "check_whole_table",
        "check_riemann_sum",
        "check_wallis_product",
        "check_harmonic_limit",
    } <= noticed
