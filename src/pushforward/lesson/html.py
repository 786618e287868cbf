"""The lesson that was run as one HTML page, with its figures and its numbers beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from .. import __version__, files, formatting
from ..checkpoint import disk
from ..comparison import report
from ..plots import style
from . import formulas
from .claims import Number, Verdict
from .run import Chapter, Plate

SENSES = {"=": "", "<=": "\u2264 ", ">=": "\u2265 "}


def write(chapters: Sequence[Chapter], folder: Path) -> Path:
    """Write ``lesson.html``, ``lesson.json`` and ``figures/`` into a folder; return the page.

    Raises:
        DiskError: If it cannot be written; an old page is then untouched.
    """
    folder = Path(folder)
    with disk(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        for name, plate in chapter.plates.items():
            for kind, data in plate.files.items():
                files.replace(folder / "figures" / f"{name}.{kind}", data)
    numbers = json.dumps([c.facts() for c in chapters], indent=1, default=str)
    files.replace(folder / "lesson.json", numbers.encode())
    return files.replace(folder / "lesson.html", render(chapters).encode())


def render(chapters: Sequence[Chapter]) -> str:
    """The page as text."""
    return template().render(facts(chapters))


def fragment(chapters: Sequence[Chapter]) -> str:
    """The chapters alone, to be put into another page."""
    page = template()
    return "".join(page.blocks["chapters"](page.new_context(facts(chapters))))


def template() -> jinja2.Template:
    """The page to be filled in."""
    return report.template(__package__, "page.html", words=formulas.page, formula=formulas.display)


def facts(chapters: Sequence[Chapter]) -> dict[str, Any]:
    """What the page is filled with."""
    return {
        "chapters": chapters,
        "summary": summary(chapters),
        "total": sum(len(c.outcomes) for c in chapters),
        "broken": [name for c in chapters for name in c.broken],
        "seconds": formatting.duration(sum(c.seconds for c in chapters)),
        "image": image,
        "measured": measured,
        "predicted": predicted,
        "version": __version__,
    }


def summary(chapters: Sequence[Chapter]) -> str:
    """How many claims hold, and how many do not, in words."""
    said = {
        Verdict.HOLDS: "hold as they stand",
        Verdict.ONLY_IF: "hold under a condition that is not said",
        Verdict.WRONG: "are wrong",
        Verdict.UNEXPLAINED: "came out as nobody expected",
    }
    counts = {v: sum(c.count(v) for c in chapters) for v in said}
    return formatting.listing([f"{n} {said[v]}" for v, n in counts.items() if n]) + "."


def image(plate: Plate) -> str:
    """A figure as the address of an inline SVG image, in the face of the page."""
    return style.inline(plate.files["svg"])


def measured(number: Number) -> str:
    """A measured number with as many digits as the tolerance gives a meaning."""
    return shown(float(number.measured), float(number.tolerance))


def predicted(number: Number) -> str:
    """What a statement predicts, with its tolerance."""
    text = SENSES[number.sense] + shown(float(number.predicted), float(number.tolerance))
    return (
        f"{text} \u00b1 {formatting.number(float(number.tolerance))}" if number.tolerance else text
    )


def shown(value: float, tolerance: float) -> str:
    """A number with the digits that a tolerance can tell apart."""
    if float(value).is_integer() and abs(value) < 1e6:
        return formatting.number(value, 0)
    digits = formatting.decimals(-tolerance, tolerance) if tolerance else 6
    return (
        formatting.number(value, min(digits or 0, 6))
        if abs(value) > 1e-4
        else formatting.number(value)
    )
