"""The report of a comparison: one HTML file that needs no network and runs no script."""

from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from .. import __version__, families, metrics
from ..checkpoint import disk
from ..comparison.leaderboard import PRIMARY, Comparison
from ..metrics import codecs
from ..metrics.estimate import Estimate
from . import alarms, output, plates, words


class Cell(NamedTuple):
    """One entry of a table: the number, and its uncertainty in smaller type."""

    text: str
    more: str = ""


def write(comparison: Comparison, folder: Path) -> Path:
    """Write ``report.html`` into a folder.

    Raises:
        DiskError: If it cannot be written; an old report is then untouched.
    """
    folder = Path(folder)
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return output.replace(folder / "report.html", render(comparison).encode())


def render(comparison: Comparison) -> str:
    """The report as text."""
    return template(__package__, "template.html").render(
        title=f"Generative models of {words.quoted(comparison.source)}",
        measured=words.measured(comparison),
        summary=words.summary(comparison),
        warnings=[(words.title(f), t) for f, t in alarms.found(comparison)],
        board=board(comparison),
        failed=[(words.title(r["family"]), r["error"]) for r in comparison.table if r["error"]],
        entropy=words.entropy(comparison),
        codecs=codecs.told(comparison.codecs) if comparison.codecs else "",
        others=list(others(comparison)),
        names=[words.title(r["family"]) for r in comparison.table if r[PRIMARY]],
        columns=columns(comparison),
        classes=classes(comparison),
        plates=plates.plates(comparison),
        seconds=words.duration(comparison.seconds),
        version=__version__,
        number=words.number,
    )


def template(package: str, name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """A page of a package to be filled in; whatever is put into it is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))


def board(comparison: Comparison) -> dict[str, Any]:
    """The leaderboard: its heads and its rows of cells."""
    exact, d = words.entropy(comparison), words.dimensions(comparison)
    heads = ["Rank", "Family", "Energy distance", "Floor", "NLL, nats", "Kind"]
    heads += ["Bits per dim"] * (d > 1) + ["Gap, nats"] * (exact is not None)
    heads += ["Training time", "Time per 1,000", "NFE", "Parameters"]
    rows = [r for r in comparison.table if r[PRIMARY]]
    ties = [r["rank"] for r in rows]
    digits = finest([r[PRIMARY] for r in rows])
    return {"heads": heads, "rows": [line(r, ties, exact, d, digits) for r in rows]}


def finest(estimates: list[Estimate]) -> int | None:
    """Digits after the point that the shortest of some intervals supports."""
    found = [words.decimals(e.low, e.high) for e in estimates]
    return max((d for d in found if d is not None), default=None)


def line(
    row: dict[str, Any], ties: list[int], exact: float | None, d: int, digits: int | None
) -> dict[str, Any]:
    """One family's cells."""
    e, nll = row[PRIMARY], row["nll"]
    cells = [Cell(words.number(e.value, words.decimals(e.low, e.high)), words.interval(e))]
    cells.append(Cell(words.number(e.floor, digits)))
    cells += likelihood(nll, row["likelihood"], exact, d)
    cells += [
        Cell(words.duration(row["seconds"])),
        Cell(words.duration(row["seconds_per_1000"])),
        Cell(words.number(row["nfe"], 0)),
        Cell(words.number(row["parameters"], 0)),
    ]
    shared = ties.count(row["rank"]) > 1
    return {
        "rank": f"{row['rank']}{'=' if shared else ''}",
        "first": row["rank"] == 1,
        "key": row["family"],
        "family": words.title(row["family"]),
        "baseline": row["family"] in families.BASELINES,
        "cells": cells,
    }


def likelihood(nll: Estimate | None, kind: str, exact: float | None, d: int) -> list[Cell]:
    """The likelihood's cells: value, kind, bits per dimension, gap to the entropy."""
    bound = "\u2264 " if kind == "lower bound" else ""
    blank = Cell("\u2013")
    if nll is None:
        return [blank, Cell(kind), *[blank] * (d > 1), *[blank] * (exact is not None)]
    digits = words.decimals(nll.low, nll.high)
    cells = [Cell(bound + words.number(nll.value, digits), words.interval(nll)), Cell(kind)]
    if d > 1:
        low, high, value = (words.bits(v, d) for v in (nll.low, nll.high, nll.value))
        cells.append(Cell(bound + words.number(value, words.decimals(low, high))))
    if exact is not None:
        cells.append(Cell(bound + words.number(nll.value - exact, digits)))
    return cells


def others(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Every other metric: its meaning, its direction, its floor, and a cell for each family."""
    rows = [r for r in comparison.table if r[PRIMARY]]
    names = dict.fromkeys(k for r in rows for k, v in r.items() if isinstance(v, Estimate))
    for name in names:
        if name in (PRIMARY, "nll"):
            continue
        found = [r.get(name) for r in rows]
        some = next(e for e in found if e is not None)
        digits = finest([e for e in found if e is not None])
        yield {
            "name": words.title(name),
            "meaning": metrics.meaning(name),
            "better": some.better,
            "unit": some.unit,
            "floor": words.number(some.floor, digits),
            "cells": [estimate(e) for e in found],
        }


def estimate(e: Estimate | None) -> Cell:
    """A metric with half of its interval."""
    if e is None:
        return Cell("\u2013")
    digits = words.decimals(e.low, e.high)
    half = max(e.high - e.value, e.value - e.low)
    margin = f"\u00b1 {words.number(half, digits)}" if np.isfinite(half) else ""
    return Cell(words.number(e.value, digits), margin)


def columns(comparison: Comparison) -> str:
    """The columns by name, the first few of many; empty for arrays without names."""
    names = comparison.schema.names
    if len(names) < 2 or all(n.isdigit() for n in names):
        return ""
    rest = len(names) - 24
    return ", ".join(names[:24]) + (f" and {rest:,} more" if rest > 0 else "")


def classes(comparison: Comparison) -> str:
    """The classes on which samples were conditioned, the first few of many."""
    condition = comparison.schema.condition
    if condition is None:
        return ""
    if condition.text is not None:
        return f"captions, read by {condition.text.encoder}"
    if not condition.labels:
        return words.plural(condition.length, "word" if condition.words else "number")
    rest = len(condition.labels) - 24
    named = ", ".join(map(str, condition.labels[:24]))
    return named + (f" and {rest:,} more" if rest > 0 else "")
