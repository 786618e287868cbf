"""The lesson's five practice problems: derivations whose steps are checked, and experiments."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from ..claims import Number


class DerivationStep(NamedTuple):
    """A line of a derivation.

    Arguments:
        why: What was done, and by which rule; LaTeX between dollars.
        formula: LaTeX of the line.
        identity: Numbers that are zero (or as predicted) if the line is right, where it can be
            checked: SymPy's simplified difference, quadrature, autograd. None where it is a
            definition.
    """

    why: str
    formula: str = ""
    identity: Callable[[], list[Number]] | None = None


class ExperimentResult(NamedTuple):
    """What a run found.

    Arguments:
        discussion: Paragraphs that quote the measured numbers; LaTeX between dollars.
        numbers: Those numbers, with what theory predicts of them.
        figures: By the name of their files, in the library's style.
    """

    discussion: list[str]
    numbers: list[Number]
    figures: dict[str, Figure]


class ProblemPart(NamedTuple):
    """One question of a problem, with its derivation, its experiment, or both."""

    question: str
    steps: list[DerivationStep]
    experiment: Callable[[], ExperimentResult] | None = None


class Problem(NamedTuple):
    title: str
    parts: list[ProblemPart]
