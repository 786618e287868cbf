"""The report of a comparison: one HTML file that needs no network and runs no script."""

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from .. import __version__, families, files, formatting, metrics
from ..checkpoint import disk_errors
from ..metrics import codecs
from ..metrics.estimate import MetricEstimate
from . import figures, findings, warnings
from .leaderboard import PRIMARY, Comparison


class TableCell(NamedTuple):
    """One entry of a table: the number, and its uncertainty in smaller type."""

    text: str
    more: str = ""


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write ``report.html`` into a folder.

    Raises:
        DiskError: If it cannot be written; an old report is then untouched.
    """
    folder = Path(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return files.atomic_write(folder / "report.html", render_report(comparison).encode())


def render_report(comparison: Comparison) -> str:
    """The report as text."""
    return load_template(__package__, "template.html").render(
        title=f"Generative models of {findings.quote_source(comparison.source)}",
        measured=findings.describe_protocol(comparison),
        summary=findings.summarise_findings(comparison),
        warnings=[
            (formatting.display_name(f), t) for f, t in warnings.comparison_warnings(comparison)
        ],
        board=leaderboard_table(comparison),
        failed=[
            (formatting.display_name(r["family"]), r["error"])
            for r in comparison.table
            if r["error"]
        ],
        entropy=findings.data_entropy(comparison),
        codecs=codecs.format_codec_bits(comparison.codecs) if comparison.codecs else "",
        others=list(metric_rows(comparison)),
        names=[formatting.display_name(r["family"]) for r in comparison.table if r[PRIMARY]],
        columns=summarise_columns(comparison),
        classes=summarise_classes(comparison),
        plates=figures.report_figures(comparison),
        seconds=formatting.duration_text(comparison.seconds),
        version=__version__,
        number=formatting.format_number,
    )


def load_template(package: str, name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """A page of a package to be filled in; whatever is put into it is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    return environment.from_string(
        resources.files(package).joinpath(name).read_text(encoding="utf-8")
    )


def leaderboard_table(comparison: Comparison) -> dict[str, Any]:
    """The leaderboard: its heads and its rows of cells."""
    exact, d = findings.data_entropy(comparison), findings.data_dimension(comparison)
    heads = ["Rank", "Family", "Energy distance", "Floor", "NLL, nats", "Kind"]
    heads += ["Bits per dim"] * (d > 1) + ["Gap, nats"] * (exact is not None)
    heads += ["Training time", "Time per 1,000", "NFE", "Parameters"]
    rows = [r for r in comparison.table if r[PRIMARY]]
    ties = [r["rank"] for r in rows]
    digits = max_decimals([r[PRIMARY] for r in rows])
    return {"heads": heads, "rows": [leaderboard_row(r, ties, exact, d, digits) for r in rows]}


def max_decimals(estimates: list[MetricEstimate]) -> int | None:
    """Digits after the point that the shortest of some intervals supports."""
    found = [formatting.supported_decimals(e.low, e.high) for e in estimates]
    return max((d for d in found if d is not None), default=None)


def leaderboard_row(
    row: dict[str, Any], ties: list[int], exact: float | None, d: int, digits: int | None
) -> dict[str, Any]:
    """One family's cells."""
    e, nll = row[PRIMARY], row["nll"]
    cells = [
        TableCell(
            formatting.format_number(e.value, formatting.supported_decimals(e.low, e.high)),
            findings.format_interval(e),
        )
    ]
    cells.append(TableCell(formatting.format_number(e.floor, digits)))
    cells += likelihood_cells(nll, row["likelihood"], exact, d)
    cells += [
        TableCell(formatting.duration_text(row["seconds"])),
        TableCell(formatting.duration_text(row["seconds_per_1000"])),
        TableCell(formatting.format_number(row["nfe"], 0)),
        TableCell(formatting.format_number(row["parameters"], 0)),
    ]
    shared = ties.count(row["rank"]) > 1
    return {
        "rank": f"{row['rank']}{'=' if shared else ''}",
        "first": row["rank"] == 1,
        "key": row["family"],
        "family": formatting.display_name(row["family"]),
        "baseline": row["family"] in families.BASELINES,
        "cells": cells,
    }


def likelihood_cells(
    nll: MetricEstimate | None, kind: str, exact: float | None, d: int
) -> list[TableCell]:
    """The likelihood's cells: value, kind, bits per dimension, gap to the entropy."""
    bound = "\u2264 " if kind == "lower bound" else ""
    blank = TableCell("\u2013")
    if nll is None:
        return [blank, TableCell(kind), *[blank] * (d > 1), *[blank] * (exact is not None)]
    digits = formatting.supported_decimals(nll.low, nll.high)
    cells = [
        TableCell(
            bound + formatting.format_number(nll.value, digits), findings.format_interval(nll)
        ),
        TableCell(kind),
    ]
    if d > 1:
        low, high, value = (findings.to_bits_per_dim(v, d) for v in (nll.low, nll.high, nll.value))
        cells.append(
            TableCell(
                bound + formatting.format_number(value, formatting.supported_decimals(low, high))
            )
        )
    if exact is not None:
        cells.append(TableCell(bound + formatting.format_number(nll.value - exact, digits)))
    return cells


def metric_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Every other metric: its meaning, its direction, its floor, and a cell for each family."""
    rows = [r for r in comparison.table if r[PRIMARY]]
    names = dict.fromkeys(k for r in rows for k, v in r.items() if isinstance(v, MetricEstimate))
    for name in names:
        if name in (PRIMARY, "nll"):
            continue
        found = [r.get(name) for r in rows]
        some = next(e for e in found if e is not None)
        digits = max_decimals([e for e in found if e is not None])
        yield {
            "name": formatting.display_name(name),
            "meaning": metrics.metric_meaning(name),
            "better": some.better,
            "unit": some.unit,
            "floor": formatting.format_number(some.floor, digits),
            "cells": [estimate_cell(e) for e in found],
        }


def estimate_cell(e: MetricEstimate | None) -> TableCell:
    """A metric with half of its interval."""
    if e is None:
        return TableCell("\u2013")
    digits = formatting.supported_decimals(e.low, e.high)
    half = max(e.high - e.value, e.value - e.low)
    margin = f"\u00b1 {formatting.format_number(half, digits)}" if np.isfinite(half) else ""
    return TableCell(formatting.format_number(e.value, digits), margin)


def summarise_columns(comparison: Comparison) -> str:
    """The columns by name, the first few of many; empty for arrays without names."""
    names = comparison.schema.names
    if len(names) < 2 or all(n.isdigit() for n in names):
        return ""
    rest = len(names) - 24
    return ", ".join(names[:24]) + (f" and {rest:,} more" if rest > 0 else "")


def summarise_classes(comparison: Comparison) -> str:
    """The classes on which samples were conditioned, the first few of many."""
    condition = comparison.schema.condition
    if condition is None:
        return ""
    if condition.text is not None:
        return f"captions, read by {condition.text.encoder}"
    if not condition.labels:
        return formatting.count_noun(condition.length, "word" if condition.words else "number")
    rest = len(condition.labels) - 24
    named = ", ".join(map(str, condition.labels[:24]))
    return named + (f" and {rest:,} more" if rest > 0 else "")
