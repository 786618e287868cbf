"""Practice problem 5 and the figures of section 6: identities, experiments, drawing."""

import pytest
from matplotlib.figure import Figure

from pushforward import lesson
from pushforward.lesson.sections.recent import SECTION
from pushforward.plots import style

PARTS = lesson.problem("p5").parts
STEPS = [step for part in PARTS for step in part.steps if step.identity is not None]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.identity.__name__)
def test_the_steps_of_the_derivation_are_identities(step):
    for number in step.identity():
        assert number.agrees, number


@pytest.mark.slow
@pytest.mark.parametrize("part", [p for p in PARTS if p.experiment], ids=lambda p: p.question)
def test_the_experiments_find_what_theory_predicts(part):
    with style.plot_style():
        found = part.experiment()
    for number in found.numbers:
        assert number.agrees, number
    assert all(isinstance(figure, Figure) for figure in found.figures.values())
    assert all("nan" not in line for line in found.discussion)


@pytest.mark.slow
@pytest.mark.parametrize("name", SECTION.figures)
def test_the_figures_of_section_6_draw_without_a_screen(name):
    with style.plot_style():
        assert style.figure_bytes(SECTION.figures[name](), "png")[:4] == b"\x89PNG"
