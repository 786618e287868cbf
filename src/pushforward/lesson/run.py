"""The lesson run: claims checked, derivations and experiments done, figures drawn."""

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ..devices import seeded
from ..plots import style
from . import PROBLEMS, SECTIONS, known, problem, section
from .claims import Number, Outcome, Verdict, check
from .problems import Part

FORMATS = ("svg", "pdf", "png")


class Plate(NamedTuple):
    """A figure as files, by their ending, with its caption."""

    caption: str
    files: dict[str, bytes]


class Line(NamedTuple):
    """A line of a derivation, with the numbers that check it."""

    why: str
    formula: str
    numbers: list[Number]


class Solved(NamedTuple):
    """A question of a practice problem, answered."""

    question: str
    lines: list[Line]
    discussion: list[str]
    numbers: list[Number]

    @property
    def every(self) -> list[Number]:
        """The numbers of its derivation and those of its experiment."""
        return [n for line in self.lines for n in line.numbers] + self.numbers


class Chapter(NamedTuple):
    """A section or a practice problem that was run."""

    key: str
    title: str
    outcomes: list[Outcome]
    solved: list[Solved]
    plates: dict[str, Plate]
    notes: dict[str, str]
    seconds: float

    @property
    def heading(self) -> str:
        """What it is called: a section or a problem, with its number."""
        return f"{'Problem' if self.key in PROBLEMS else 'Section'} {self.key.lstrip('p')}"

    @property
    def broken(self) -> list[str]:
        """What came out different from the record: claims, and numbers of problems."""
        numbers = [n for s in self.solved for n in s.every]
        return [o.claim.id for o in self.outcomes if not o.in_order] + [
            n.what for n in numbers if not n.agrees
        ]

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from .html import fragment

        return fragment([self])

    def count(self, verdict: Verdict) -> int:
        """How many claims came out so."""
        return sum(o.verdict is verdict for o in self.outcomes)

    def facts(self) -> dict[str, Any]:
        """Everything measured, for machines; times are left out, so that two runs are equal."""
        return {
            "key": self.key,
            "title": self.title,
            "claims": [o.facts() for o in self.outcomes],
            "parts": [part(s) for s in self.solved],
            "figures": {name: plate.caption for name, plate in self.plates.items()},
            "notes": self.notes,
            "broken": self.broken,
        }


def part(solved: Solved) -> dict[str, Any]:
    """A solved question as plain values."""
    lines = [{**i._asdict(), "numbers": [n.facts() for n in i.numbers]} for i in solved.lines]
    return {**solved._asdict(), "lines": lines, "numbers": [n.facts() for n in solved.numbers]}


def chosen(keys: Iterable[str]) -> list[str]:
    """The sections and problems named, in the lesson's order; all where none is.

    Raises:
        UsageError: If there is no such section or problem.
    """
    every = [*SECTIONS, *PROBLEMS]
    wanted = [known(key, every) for key in keys]
    return [key for key in every if key in wanted or not wanted]


def run(
    keys: Iterable[str] = (),
    *,
    seed: int = 0,
    draw: bool = True,
    update: Callable[[float, str], None] = lambda fraction, text: None,
) -> Iterator[Chapter]:
    """Run sections and problems, one after the other.

    Arguments:
        keys: ``"1"`` to ``"6"`` and ``"p1"`` to ``"p5"``; all where none is named.
        seed: Of the random measurements.
        draw: Whether to draw the figures of sections and keep those of experiments.
        update: Told the fraction done, and what is being done.

    Raises:
        UsageError: If there is no such section or problem.
    """
    order = chosen(keys)
    for i, key in enumerate(order):

        def tell(name: str, at: float = i / len(order)) -> None:
            update(at, name)

        yield (solve if key in PROBLEMS else study)(key, seed, draw, tell)


def study(key: str, seed: int, draw: bool, tell: Callable[[str], None]) -> Chapter:
    """Run the claims of a section and draw its figures."""
    began, found = time.monotonic(), section(key)
    outcomes: list[Outcome] = []
    plates: dict[str, Plate] = {}
    for claim in found.claims:
        tell(claim.id)
        outcomes.append(check(claim, seed))
    for name, figure in found.figures.items() if draw else ():
        tell(name)
        plates[name] = drawn(figure, seed)
    return Chapter(key, found.title, outcomes, [], plates, found.notes, time.monotonic() - began)


def solve(key: str, seed: int, draw: bool, tell: Callable[[str], None]) -> Chapter:
    """Check the derivations of a practice problem and run its experiments."""
    began, found = time.monotonic(), problem(key)
    solved: list[Solved] = []
    plates: dict[str, Plate] = {}
    for question in found.parts:
        tell(question.question)
        answer, figures = answered(question, seed, draw)
        solved.append(answer)
        plates |= figures
    return Chapter(key, found.title, [], solved, plates, {}, time.monotonic() - began)


def answered(question: Part, seed: int, draw: bool) -> tuple[Solved, dict[str, Plate]]:
    """A question with its derivation checked and its experiment run, and its figures if wanted."""
    with seeded(seed), style.styled():
        lines = [Line(s.why, s.formula, s.identity() if s.identity else []) for s in question.steps]
        if question.experiment is None:
            return Solved(question.question, lines, [], []), {}
        result = question.experiment()
        figures = result.figures if draw else {}
        plates = {name: Plate("", encoded(figure)) for name, figure in figures.items()}
    return Solved(question.question, lines, result.discussion, result.numbers), plates


def drawn(figure: Callable[[], Figure], seed: int) -> Plate:
    """A figure of a section, its docstring the caption."""
    with seeded(seed), style.styled():
        return Plate(" ".join((inspect.getdoc(figure) or "").split()), encoded(figure()))


def encoded(figure: Figure) -> dict[str, bytes]:
    """A figure in every format."""
    return {kind: style.encode(figure, kind, dpi=200) for kind in FORMATS}
