"""The lesson run: claims checked, derivations and experiments done, figures drawn."""

import inspect
import time
from collections.abc import Callable, Iterable, Iterator

from matplotlib.figure import Figure

from ..plots import style
from ..rng import seeded_rng
from . import PROBLEMS, SECTIONS, html, problem, require_section_key, section
from .claims import check_claim
from .problems import ProblemPart
from .results import Answer, ChapterResult, DerivationLine, FigureFiles

FORMATS = ("svg", "pdf", "png")


class _NotebookChapter(ChapterResult):
    """A chapter that a notebook shows as the page does."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return html.render_chapters([self])


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
) -> Iterator[_NotebookChapter]:
    """Run sections and problems, one after the other.

    Arguments:
        keys: ``"1"`` to ``"6"`` and ``"p1"`` to ``"p5"``; all where none is named.
        seed: Of the random measurements.
        draw: Whether to draw the figures of sections and keep those of experiments.
        update: Called with the fraction done, and what is being done.

    Raises:
        UsageError: If there is no such section or problem.
    """
    order = select_chapters(keys)
    for i, key in enumerate(order):

        def report(name: str, done: float = i / len(order)) -> None:
            update(done, name)

        yield (_solve_problem if key in PROBLEMS else _run_section)(key, seed, draw, report)


def _run_section(
    key: str, seed: int, draw: bool, report: Callable[[str], None]
) -> _NotebookChapter:
    start, found = time.monotonic(), section(key)
    outcomes, figures = [], {}
    for claim in found.claims:
        report(claim.id)
        outcomes.append(check_claim(claim, seed))
    for name, figure in found.figures.items() if draw else ():
        report(name)
        figures[name] = _draw_section_figure(figure, seed)
    seconds = time.monotonic() - start
    return _NotebookChapter(key, found.title, outcomes, [], figures, found.notes, seconds)


def _solve_problem(
    key: str, seed: int, draw: bool, report: Callable[[str], None]
) -> _NotebookChapter:
    start, found = time.monotonic(), problem(key)
    answers: list[Answer] = []
    figures: dict[str, FigureFiles] = {}
    for question in found.parts:
        report(question.question)
        answer, drawn = _answer_question(question, seed, draw)
        answers.append(answer)
        figures |= drawn
    return _NotebookChapter(key, found.title, [], answers, figures, {}, time.monotonic() - start)


def _answer_question(
    part: ProblemPart, seed: int, draw: bool
) -> tuple[Answer, dict[str, FigureFiles]]:
    """A question with its derivation checked and its experiment run, and its figures if wanted."""
    with seeded_rng(seed), style.plot_style():
        lines = [
            DerivationLine(s.why, s.formula, s.identity() if s.identity else []) for s in part.steps
        ]
        if part.experiment is None:
            return Answer(part.question, lines, [], []), {}
        result = part.experiment()
        figures = result.figures if draw else {}
        files = {name: FigureFiles("", encode_formats(f)) for name, f in figures.items()}
    return Answer(part.question, lines, result.discussion, result.numbers), files


def _draw_section_figure(figure: Callable[[], Figure], seed: int) -> FigureFiles:
    """A figure of a section, its docstring the caption."""
    caption = " ".join((inspect.getdoc(figure) or "").split())
    with seeded_rng(seed), style.plot_style():
        return FigureFiles(caption, encode_formats(figure()))


def encode_formats(figure: Figure) -> dict[str, bytes]:
    return {kind: style.figure_bytes(figure, kind, dpi=200) for kind in FORMATS}
