"""The lesson that was run as one HTML page, with its figures and its numbers beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from .. import __version__, files, formatting
from ..checkpoint import disk_errors
from ..comparison import report
from ..plots import style
from . import formulas
from .claims import Number, Verdict
from .results import ChapterResult, FigureFiles

SENSES = {"=": "", "<=": "\u2264 ", ">=": "\u2265 "}


def write_lesson(chapters: Sequence[ChapterResult], folder: Path) -> Path:
    """Write ``lesson.html``, ``lesson.json`` and ``figures/`` into a folder; return the page.

    Raises:
        DiskError: If it cannot be written; an old page is then untouched.
    """
    folder = Path(folder)
    with disk_errors(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        for name, figure in chapter.figures.items():
            for kind, data in figure.files.items():
                files.atomic_write(folder / "figures" / f"{name}.{kind}", data)
    numbers = json.dumps([c.to_dict() for c in chapters], indent=1, default=str)
    files.atomic_write(folder / "lesson.json", numbers.encode())
    return files.atomic_write(folder / "lesson.html", render_lesson(chapters).encode())


def render_lesson(chapters: Sequence[ChapterResult]) -> str:
    return _lesson_template().render(_lesson_context(chapters))


def render_chapters(chapters: Sequence[ChapterResult]) -> str:
    """The chapters alone, to be put into another page."""
    page = _lesson_template()
    return "".join(page.blocks["chapters"](page.new_context(_lesson_context(chapters))))


def _lesson_template() -> jinja2.Template:
    return report.load_template(
        __package__, "page.html", words=formulas.text_to_html, formula=formulas.display_formula
    )


def _lesson_context(chapters: Sequence[ChapterResult]) -> dict[str, Any]:
    return {
        "chapters": chapters,
        "summary": _summarise_verdicts(chapters),
        "total": sum(len(c.outcomes) for c in chapters),
        "broken": [name for c in chapters for name in c.broken],
        "seconds": formatting.duration_text(sum(c.seconds for c in chapters)),
        "image": _figure_uri,
        "measured": format_measured,
        "predicted": format_predicted,
        "version": __version__,
    }


def _summarise_verdicts(chapters: Sequence[ChapterResult]) -> str:
    phrases = {
        Verdict.HOLDS: "hold as they stand",
        Verdict.ONLY_IF: "hold under a condition that is not said",
        Verdict.WRONG: "are wrong",
        Verdict.UNEXPLAINED: "came out as nobody expected",
    }
    counts = {v: sum(c.count_verdicts(v) for c in chapters) for v in phrases}
    return formatting.join_words([f"{n} {phrases[v]}" for v, n in counts.items() if n]) + "."


def _figure_uri(figure: FigureFiles) -> str:
    return style.svg_data_uri(figure.files["svg"])


def format_measured(number: Number) -> str:
    """A measured number with as many digits as the tolerance gives a meaning."""
    return format_to_tolerance(float(number.measured), float(number.tolerance))


def format_predicted(number: Number) -> str:
    text = SENSES[number.sense] + format_to_tolerance(
        float(number.predicted), float(number.tolerance)
    )
    return (
        f"{text} \u00b1 {formatting.format_number(float(number.tolerance))}"
        if number.tolerance
        else text
    )


def format_to_tolerance(value: float, tolerance: float) -> str:
    """A number with the digits that a tolerance can tell apart."""
    if float(value).is_integer() and abs(value) < 1e6:
        return formatting.format_number(value, 0)
    digits = formatting.supported_decimals(-tolerance, tolerance) if tolerance else 6
    return (
        formatting.format_number(value, min(digits or 0, 6))
        if abs(value) > 1e-4
        else formatting.format_number(value)
    )
