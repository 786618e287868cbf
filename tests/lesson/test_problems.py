"""Problems 1 and 2: every step that can be checked is right, and every number as predicted."""

import pytest
import torch

from pushforward import lesson
from pushforward.lesson.problems import elbo
from pushforward.lesson.sections.vae import fits, heads

STEPS = {
    f"{key}.{i}.{j}": step.identity
    for key in ("p1", "p2")
    for i, part in enumerate(lesson.problem(key).parts)
    for j, step in enumerate(part.steps)
    if step.identity is not None
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_a_derivation_is_an_identity(name):
    torch.manual_seed(0)
    numbers = STEPS[name]()
    assert numbers and all(number.agrees for number in numbers), numbers


def test_a_wrong_step_leaves_something():
    """The evidence forgotten in Bayes' rule; the rate with a wrong sign."""
    wrong = elbo.symbolic_identity(lambda s: s["posterior"] - s["likelihood"] - s["prior"])
    assert not all(number.agrees for number in wrong())
    wrong = elbo.symbolic_identity(lambda s: s["mean"](s["prior"] - s["q"]) - s["kl_prior"])
    assert not all(number.agrees for number in wrong())


def test_the_experiment_of_problem_1_finds_what_theory_predicts():
    found = lesson.problem("p1").parts[-1].experiment()
    assert all(number.agrees for number in found.numbers), found.numbers


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_the_experiments_of_problem_2_find_what_theory_predicts(part):
    torch.manual_seed(0)
    found = lesson.problem("p2").parts[part].experiment()
    assert all(number.agrees for number in found.numbers), found.numbers


def test_the_data_of_the_sweep_have_the_spectrum_asked_for():
    x = fits.spectrum_data().double()
    torch.testing.assert_close(
        torch.linalg.eigvalsh(x.mT @ x / len(x)).flip(0), fits.SPECTRUM, rtol=1e-6, atol=1e-6
    )


def test_a_fixed_scale_is_that_scale_and_not_learned():
    likelihood, x = fits.fixed_scale_gaussian(0.4), torch.zeros(3, 1)
    expected = torch.distributions.Normal(0.0, 0.4).log_prob(x)
    torch.testing.assert_close(likelihood.log_prob(torch.zeros(3, 1, 1), x), expected)
    assert not [p for p in likelihood.parameters() if p.requires_grad]


def test_collapse_is_unstable_where_the_data_are_bits():
    """Bits have the variance p(1 - p): two that agree always are worth twice the noise."""
    bit = (torch.arange(1000) % 3 == 0).float()[:, None]
    assert heads.collapse_eigenvalue(bit.repeat(1, 2)) == pytest.approx(2.0, rel=1e-6)
    assert heads.collapse_eigenvalue(0.5 + 0.25 * bit.repeat(1, 2)) < 1
