"""The report of a comparison: one HTML file that needs no network and runs no script."""

import math
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from .. import __version__, families, files, metrics
from ..checkpoint import disk_errors
from ..formatting import count_noun, display_name, duration_text, format_number, supported_decimals
from ..metrics import codecs
from ..metrics.estimate import MetricEstimate
from ..model import Likelihood
from . import figures, findings
from .leaderboard import PRIMARY, Leaderboard

LISTED = 24  # columns or classes that are named


class _TableCell(NamedTuple):
    text: str
    more: str = ""


BLANK = _TableCell("\u2013")
BOUNDS = ("value", "low", "high")  # of an estimate


def write_report(board: Leaderboard, folder: Path) -> Path:
    """Write ``report.html`` into a folder; if that fails an old report is untouched."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return files.atomic_write(folder / "report.html", render_report(board).encode())


def render_report(board: Leaderboard) -> str:
    return load_template(__package__, "template.html").render(
        title=f"Generative models of {findings.quote_source(board.source)}",
        measured=findings.describe_protocol(board),
        summary=findings.summarise_findings(board),
        warnings=[(display_name(f), text) for f, text in findings.comparison_warnings(board)],
        board=leaderboard_table(board),
        failed=[(display_name(r["family"]), r["error"]) for r in board.table if r["error"]],
        entropy=findings.data_entropy(board),
        codecs=codecs.format_codec_bits(board.codecs) if board.codecs else "",
        others=list(_metric_rows(board)),
        names=findings.family_names(board.ranked),
        columns=_summarise_columns(board),
        classes=_summarise_classes(board),
        figures=figures.report_figures(board),
        seconds=duration_text(board.seconds),
        version=__version__,
        number=format_number,
    )


def load_template(package: str, name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    page = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(page)


def leaderboard_table(board: Leaderboard) -> dict[str, Any]:
    exact, d = findings.data_entropy(board), math.prod(board.schema.event)
    heads = ["Rank", "Family", "Energy distance", "Floor", "NLL, nats", "Kind"]
    heads += ["Bits per dim"] * (d > 1) + ["Gap, nats"] * (exact is not None)
    heads += ["Training time", "Time per 1,000", "NFE", "Parameters"]
    rows = board.ranked
    ranks, digits = [r["rank"] for r in rows], _max_decimals([r[PRIMARY] for r in rows])
    found = []
    for row in rows:
        e = row[PRIMARY]
        cells = [
            _TableCell(findings.format_estimate(e), findings.format_interval(e)),
            _TableCell(format_number(e.floor, digits)),
            *likelihood_cells(row["nll"], row["likelihood"], exact, d),
            _TableCell(duration_text(row["seconds"])),
            _TableCell(duration_text(row["seconds_per_1000"])),
            _TableCell(format_number(row["nfe"], 0)),
            _TableCell(format_number(row["parameters"], 0)),
        ]
        rank, family = row["rank"], row["family"]
        found.append(
            {"rank": f"{rank}{'=' if ranks.count(rank) > 1 else ''}", "first": rank == 1}
            | {"key": family, "family": display_name(family), "cells": cells}
            | {"baseline": family in families.BASELINES}
        )
    return {"heads": heads, "rows": found}


def _max_decimals(estimates: Sequence[MetricEstimate]) -> int | None:
    found = [supported_decimals(e.low, e.high) for e in estimates]
    return max((d for d in found if d is not None), default=None)


def likelihood_cells(
    nll: MetricEstimate | None, kind: str, exact: float | None, d: int
) -> list[_TableCell]:
    bound = "\u2264 " if kind == Likelihood.LOWER_BOUND.value else ""
    if nll is None:
        return [BLANK, _TableCell(kind), *[BLANK] * (d > 1), *[BLANK] * (exact is not None)]
    value = bound + findings.format_estimate(nll)
    cells = [_TableCell(value, findings.format_interval(nll)), _TableCell(kind)]
    if d > 1:
        bits = nll._replace(**{k: getattr(nll, k) / (d * math.log(2)) for k in BOUNDS})
        cells.append(_TableCell(bound + findings.format_estimate(bits)))
    if exact is not None:
        cells.append(_TableCell(bound + findings.format_estimate(nll, nll.value - exact)))
    return cells


def _metric_rows(board: Leaderboard) -> Iterator[dict[str, Any]]:
    rows = board.ranked
    names = dict.fromkeys(k for r in rows for k, v in r.items() if isinstance(v, MetricEstimate))
    for name in names:
        if name in (PRIMARY, "nll"):
            continue
        cells = [r.get(name) for r in rows]
        known = [e for e in cells if e is not None]
        yield {
            "name": display_name(name),
            "meaning": metrics.metric_meaning(name),
            "better": known[0].better,
            "unit": known[0].unit,
            "floor": format_number(known[0].floor, _max_decimals(known)),
            "cells": [BLANK if e is None else _estimate_cell(e) for e in cells],
        }


def _estimate_cell(e: MetricEstimate) -> _TableCell:
    half = max(e.high - e.value, e.value - e.low)
    margin = f"\u00b1 {findings.format_estimate(e, half)}" if np.isfinite(half) else ""
    return _TableCell(findings.format_estimate(e), margin)


def _summarise_columns(board: Leaderboard) -> str:
    names = board.schema.names
    return "" if len(names) < 2 or all(n.isdigit() for n in names) else _list_some(names)


def _summarise_classes(board: Leaderboard) -> str:
    condition = board.schema.condition
    if condition is None:
        return ""
    if condition.text is not None:
        return f"captions, read by {condition.text.encoder}"
    if condition.labels:
        return _list_some([*map(str, condition.labels)])
    return count_noun(condition.length, "word" if condition.words else "number")


def _list_some(names: Sequence[str]) -> str:
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest:,} more" if rest > 0 else "")
