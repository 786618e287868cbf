"""The report of a comparison: one HTML file that needs no network and runs no script."""

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from .. import __version__, families, files, formatting, metrics
from ..checkpoint import disk
from ..metrics import codecs
from ..metrics.estimate import Estimate
from . import figures, findings, warnings
from .leaderboard import PRIMARY, Comparison


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
    return files.replace(folder / "report.html", render(comparison).encode())


def render(comparison: Comparison) -> str:
    """The report as text."""
    return template(__package__, "template.html").render(
        title=f"Generative models of {findings.quoted(comparison.source)}",
        measured=findings.measured(comparison),
        summary=findings.summary(comparison),
        warnings=[(formatting.title(f), t) for f, t in warnings.found(comparison)],
        board=board(comparison),
        failed=[
            (formatting.title(r["family"]), r["error"]) for r in comparison.table if r["error"]
        ],
        entropy=findings.entropy(comparison),
        codecs=codecs.told(comparison.codecs) if comparison.codecs else "",
        others=list(others(comparison)),
        names=[formatting.title(r["family"]) for r in comparison.table if r[PRIMARY]],
        columns=columns(comparison),
        classes=classes(comparison),
        plates=figures.plates(comparison),
        seconds=formatting.duration(comparison.seconds),
        version=__version__,
        number=formatting.number,
    )


def template(package: str, name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """A page of a package to be filled in; whatever is put into it is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    return environment.from_string(
        resources.files(package).joinpath(name).read_text(encoding="utf-8")
    )


def board(comparison: Comparison) -> dict[str, Any]:
    """The leaderboard: its heads and its rows of cells."""
    exact, d = findings.entropy(comparison), findings.dimensions(comparison)
    heads = ["Rank", "Family", "Energy distance", "Floor", "NLL, nats", "Kind"]
    heads += ["Bits per dim"] * (d > 1) + ["Gap, nats"] * (exact is not None)
    heads += ["Training time", "Time per 1,000", "NFE", "Parameters"]
    rows = [r for r in comparison.table if r[PRIMARY]]
    ties = [r["rank"] for r in rows]
    digits = finest([r[PRIMARY] for r in rows])
    return {"heads": heads, "rows": [line(r, ties, exact, d, digits) for r in rows]}


def finest(estimates: list[Estimate]) -> int | None:
    """Digits after the point that the shortest of some intervals supports."""
    found = [formatting.decimals(e.low, e.high) for e in estimates]
    return max((d for d in found if d is not None), default=None)


def line(
    row: dict[str, Any], ties: list[int], exact: float | None, d: int, digits: int | None
) -> dict[str, Any]:
    """One family's cells."""
    e, nll = row[PRIMARY], row["nll"]
    cells = [
        Cell(formatting.number(e.value, formatting.decimals(e.low, e.high)), findings.interval(e))
    ]
    cells.append(Cell(formatting.number(e.floor, digits)))
    cells += likelihood(nll, row["likelihood"], exact, d)
    cells += [
        Cell(formatting.duration(row["seconds"])),
        Cell(formatting.duration(row["seconds_per_1000"])),
        Cell(formatting.number(row["nfe"], 0)),
        Cell(formatting.number(row["parameters"], 0)),
    ]
    shared = ties.count(row["rank"]) > 1
    return {
        "rank": f"{row['rank']}{'=' if shared else ''}",
        "first": row["rank"] == 1,
        "key": row["family"],
        "family": formatting.title(row["family"]),
        "baseline": row["family"] in families.BASELINES,
        "cells": cells,
    }


def likelihood(nll: Estimate | None, kind: str, exact: float | None, d: int) -> list[Cell]:
    """The likelihood's cells: value, kind, bits per dimension, gap to the entropy."""
    bound = "\u2264 " if kind == "lower bound" else ""
    blank = Cell("\u2013")
    if nll is None:
        return [blank, Cell(kind), *[blank] * (d > 1), *[blank] * (exact is not None)]
    digits = formatting.decimals(nll.low, nll.high)
    cells = [Cell(bound + formatting.number(nll.value, digits), findings.interval(nll)), Cell(kind)]
    if d > 1:
        low, high, value = (findings.bits(v, d) for v in (nll.low, nll.high, nll.value))
        cells.append(Cell(bound + formatting.number(value, formatting.decimals(low, high))))
    if exact is not None:
        cells.append(Cell(bound + formatting.number(nll.value - exact, digits)))
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
            "name": formatting.title(name),
            "meaning": metrics.meaning(name),
            "better": some.better,
            "unit": some.unit,
            "floor": formatting.number(some.floor, digits),
            "cells": [estimate(e) for e in found],
        }


def estimate(e: Estimate | None) -> Cell:
    """A metric with half of its interval."""
    if e is None:
        return Cell("\u2013")
    digits = formatting.decimals(e.low, e.high)
    half = max(e.high - e.value, e.value - e.low)
    margin = f"\u00b1 {formatting.number(half, digits)}" if np.isfinite(half) else ""
    return Cell(formatting.number(e.value, digits), margin)


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
        return formatting.plural(condition.length, "word" if condition.words else "number")
    rest = len(condition.labels) - 24
    named = ", ".join(map(str, condition.labels[:24]))
    return named + (f" and {rest:,} more" if rest > 0 else "")
