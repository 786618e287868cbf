"""The lesson's six sections, each one file: its claims, its figures, and notes on the rest."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from ..claims import Claim


class Section(NamedTuple):
    """A section of the lesson.

    Arguments:
        title: As the lesson has it.
        claims: In the lesson's order.
        figures: By the name of their files; each is drawn in the library's style, seeded, and its
            docstring is its caption.
        notes: Findings of the audit that no run can settle, by number, each with what was done.
    """

    title: str
    claims: list[Claim]
    figures: dict[str, Callable[[], Figure]]
    notes: dict[str, str]
