"""The lesson run: claims checked, derivations and experiments done, figures drawn."""

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ..devices import seeded_rng
from ..plots import style
from . import PROBLEMS, SECTIONS, problem, require_section_key, section
from .claims import Number, Outcome, Verdict, check_claim
from .problems import ProblemPart

FORMATS = ("svg", "pdf", "png")


class FigureFiles(NamedTuple):
    """A figure as files, by their ending, with its caption."""

    caption: str
    files: dict[str, bytes]


class DerivationLine(NamedTuple):
    """A line of a derivation, with the numbers that check it."""

    why: str
    formula: str
    numbers: list[Number]


class Answer(NamedTuple):
    """A question of a practice problem, answered."""

    question: str
    lines: list[DerivationLine]
    discussion: list[str]
    numbers: list[Number]

    @property
    def every(self) -> list[Number]:
        """The numbers of its derivation and those of its experiment."""
        return [n for line in self.lines for n in line.numbers] + self.numbers


class ChapterResult(NamedTuple):
    """A section or a practice problem that was run."""

    key: str
    title: str
    outcomes: list[Outcome]
    solved: list[Answer]
    plates: dict[str, FigureFiles]
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
        from .html import render_chapters

        return render_chapters([self])

    def count(self, verdict: Verdict) -> int:
        """How many claims came out so."""
        return sum(o.verdict is verdict for o in self.outcomes)

    def facts(self) -> dict[str, Any]:
        """Everything measured, for machines; times are left out, so that two runs are equal."""
        return {
            "key": self.key,
            "title": self.title,
            "claims": [o.facts() for o in self.outcomes],
            "parts": [answer_to_dict(s) for s in self.solved],
            "figures": {name: plate.caption for name, plate in self.plates.items()},
            "notes": self.notes,
            "broken": self.broken,
        }


def answer_to_dict(solved: Answer) -> dict[str, Any]:
    """A solved question as plain values."""
    lines = [{**i._asdict(), "numbers": [n.facts() for n in i.numbers]} for i in solved.lines]
    return {**solved._asdict(), "lines": lines, "numbers": [n.facts() for n in solved.numbers]}


def select_chapters(keys: Iterable[str]) -> list[str]:
    """The sections and problems named, in the lesson's order; all where none is.

    Raises:
        UsageError: If there is no such section or problem.
    """
    every = [*SECTIONS, *PROBLEMS]
    wanted = [require_section_key(key, every) for key in keys]
    return [key for key in every if key in wanted or not wanted]


def run_chapters(
    keys: Iterable[str] = (),
    *,
    seed: int = 0,
    draw: bool = True,
    update: Callable[[float, str], None] = lambda fraction, text: None,
) -> Iterator[ChapterResult]:
    """Run sections and problems, one after the other.

    Arguments:
        keys: ``"1"`` to ``"6"`` and ``"p1"`` to ``"p5"``; all where none is named.
        seed: Of the random measurements.
        draw: Whether to draw the figures of sections and keep those of experiments.
        update: Told the fraction done, and what is being done.

    Raises:
        UsageError: If there is no such section or problem.
    """
    order = select_chapters(keys)
    for i, key in enumerate(order):

        def tell(name: str, at: float = i / len(order)) -> None:
            update(at, name)

        yield (solve_problem if key in PROBLEMS else run_section)(key, seed, draw, tell)


def run_section(key: str, seed: int, draw: bool, tell: Callable[[str], None]) -> ChapterResult:
    """Run the claims of a section and draw its figures."""
    began, found = time.monotonic(), section(key)
    outcomes: list[Outcome] = []
    plates: dict[str, FigureFiles] = {}
    for claim in found.claims:
        tell(claim.id)
        outcomes.append(check_claim(claim, seed))
    for name, figure in found.figures.items() if draw else ():
        tell(name)
        plates[name] = draw_section_figure(figure, seed)
    return ChapterResult(
        key, found.title, outcomes, [], plates, found.notes, time.monotonic() - began
    )


def solve_problem(key: str, seed: int, draw: bool, tell: Callable[[str], None]) -> ChapterResult:
    """Check the derivations of a practice problem and run its experiments."""
    began, found = time.monotonic(), problem(key)
    solved: list[Answer] = []
    plates: dict[str, FigureFiles] = {}
    for question in found.parts:
        tell(question.question)
        answer, figures = answer_question(question, seed, draw)
        solved.append(answer)
        plates |= figures
    return ChapterResult(key, found.title, [], solved, plates, {}, time.monotonic() - began)


def answer_question(
    question: ProblemPart, seed: int, draw: bool
) -> tuple[Answer, dict[str, FigureFiles]]:
    """A question with its derivation checked and its experiment run, and its figures if wanted."""
    with seeded_rng(seed), style.plot_style():
        lines = [
            DerivationLine(s.why, s.formula, s.identity() if s.identity else [])
            for s in question.steps
        ]
        if question.experiment is None:
            return Answer(question.question, lines, [], []), {}
        result = question.experiment()
        figures = result.figures if draw else {}
        plates = {name: FigureFiles("", encode_formats(figure)) for name, figure in figures.items()}
    return Answer(question.question, lines, result.discussion, result.numbers), plates


def draw_section_figure(figure: Callable[[], Figure], seed: int) -> FigureFiles:
    """A figure of a section, its docstring the caption."""
    with seeded_rng(seed), style.plot_style():
        return FigureFiles(
            " ".join((inspect.getdoc(figure) or "").split()), encode_formats(figure())
        )


def encode_formats(figure: Figure) -> dict[str, bytes]:
    """A figure in every format."""
    return {kind: style.figure_bytes(figure, kind, dpi=200) for kind in FORMATS}
