"""What the numbers of a comparison support, in words. Nothing is said that they do not."""

import math
from collections.abc import Sequence
from typing import Any

from .. import formatting
from ..formatting import capitalise_first, count_noun, display_name, format_number, join_words
from ..metrics.estimate import MetricEstimate
from ..model import Likelihood
from .leaderboard import PRIMARY, Leaderboard

BELOW = 3.0  # standard errors that make a likelihood better than the entropy impossible
REFERENCE = "gaussian"  # what a family has to beat to be worth its cost
COMPARABLE = (Likelihood.EXACT.value, Likelihood.ODE.value)
Rows = Sequence[dict[str, Any]]  # of `Leaderboard.table`


def format_estimate(e: MetricEstimate, value: float | None = None) -> str:
    """An estimate, or a value beside it, with the digits that its 95 % interval supports."""
    return format_number(
        e.value if value is None else value, formatting.supported_decimals(e.low, e.high)
    )


def format_interval(e: MetricEstimate) -> str:
    return f"[{format_estimate(e, e.low)}, {format_estimate(e, e.high)}]"


def family_names(rows: Rows) -> list[str]:
    return [display_name(r["family"]) for r in rows]


def _with_verb(names: Sequence[str], one: str, many: str) -> str:
    return f"{join_words(names)} {one if len(names) == 1 else many}"


def data_entropy(board: Leaderboard) -> float | None:
    value = None if board.dataset is None else board.dataset.entropy
    return value if value is not None and math.isfinite(value) else None


def describe_protocol(board: Leaderboard) -> str:
    shape = board.schema.event
    kind = count_noun(shape[0], "column") if len(shape) == 1 else " \u00d7 ".join(map(str, shape))
    families = {e.family for e in board.entries}
    names = join_words([display_name(family) for family in board.missing])
    missing = f" The comparison was interrupted: {names} were not fitted."
    return (
        f"{count_noun(len(families), 'family', 'families')} fitted to "
        f"{count_noun(len(board.train), 'row')} of {quote_source(board.source)} "
        f"({kind}; budget: {board.budget}) and measured on "
        f"{count_noun(len(board.test), 'other row')} that none of them saw in training."
        f"{missing * bool(board.missing)}"
    )


def quote_source(source: str) -> str:
    return source if source.startswith("the ") else f"\u201c{source}\u201d"


def summarise_findings(board: Leaderboard) -> list[str]:
    rows = board.ranked
    if not rows:
        return ["No family could be fitted, so nothing was measured."]
    found = [describe_leaders(rows), compare_with_reference(rows), describe_floor(rows)]
    if short := board.untrained():
        names = join_words(
            [f"{display_name(f)} ({formatting.format_percent(p)})" for f, p in short.items()]
        )
        found.append(f"Too few of their usual steps fitted into the budget to judge {names}.")
    found += [compare_likelihoods(rows, data_entropy(board)), _describe_fastest(rows)]
    if failed := family_names([r for r in board.table if r["error"]]):
        names = capitalise_first(join_words(failed))
        found.append(f"{names} failed; the reason is under the table.")
    return [sentence for sentence in found if sentence]


def describe_leaders(rows: Rows) -> str:
    first = family_names([r for r in rows if r["rank"] == 1])
    if len(rows) == 1:
        return f"Only {first[0]} was measured, so there is nothing to compare it with."
    if len(first) == len(rows):
        return "These data do not separate the families: all their 95 % intervals overlap."
    names = capitalise_first(join_words(first))
    if len(first) == 1:
        return (
            f"{names} has the smallest energy distance, and its 95 % interval lies below every "
            "other family\u2019s."
        )
    return (
        f"{names} are not separated by these data: their 95 % intervals of the energy distance "
        "overlap, so no one of them is the winner."
    )


def compare_with_reference(rows: Rows) -> str:
    bars = [r[PRIMARY] for r in rows if r["family"] == REFERENCE]
    others = [r for r in rows if r["family"] != REFERENCE]
    if not bars or not others:
        return ""
    better = family_names([r for r in others if r[PRIMARY].high < bars[0].low])
    worse = family_names([r for r in others if r[PRIMARY].low > bars[0].high])
    if len(better) == len(others) > 1:
        return "All the others beat the single Gaussian."
    found = ["no family beats the single Gaussian by more than the noise"]
    if better:
        found = [f"{_with_verb(better, 'beats', 'beat')} the single Gaussian"]
    if worse:
        found.append(f"{_with_verb(worse, 'is', 'are')} worse than it")
    unclear = [name for name in family_names(others) if name not in better + worse]
    if better and unclear:
        found.append(f"{_with_verb(unclear, 'is', 'are')} not separated from it")
    return capitalise_first("; ".join(found)) + "."


def describe_floor(rows: Rows) -> str:
    best = rows[0][PRIMARY]
    if not math.isfinite(best.floor):
        return ""
    # the estimate is unbiased: a floor below zero is zero and noise
    reached = family_names([r for r in rows if r[PRIMARY].low <= max(r[PRIMARY].floor, 0)])
    value = f" ({format_estimate(best, best.floor)})" if best.floor > 0 else ""
    if not reached:
        return f"No family reaches the floor, the distance between two sets of real rows{value}."
    return (
        f"{capitalise_first(_with_verb(reached, 'reaches', 'reach'))} the floor{value}: by this "
        "distance, on so many rows, the samples cannot be distinguished from real ones."
    )


def compare_likelihoods(rows: Rows, exact: float | None) -> str:
    fair = [r for r in rows if r["nll"] and r["likelihood"] in COMPARABLE]
    if not fair:
        return _compare_bounds([r for r in rows if r["nll"]])
    best = min(fair, key=lambda r: r["nll"].value)
    tied = family_names([r for r in fair if r["nll"].low <= best["nll"].high])
    (name,), value = family_names([best]), format_estimate(best["nll"])
    gap = "" if exact is None else f", {_compare_with_entropy(best['nll'], exact)}"
    if len(tied) > 1:
        return (
            f"By likelihood {join_words(tied)} are not separated; the smallest is {value} nats a "
            f"test row ({name}{gap})."
        )
    others = " among families that have a density" if len(fair) < len(rows) else ""
    return (
        f"{capitalise_first(name)} gives test rows the highest likelihood{others}: "
        f"{value} nats a row{gap}."
    )


def _compare_bounds(rows: Rows) -> str:
    if not rows:
        return ""
    best = min(rows, key=lambda r: r["nll"].value)
    tied = sum(r["nll"].low <= best["nll"].high for r in rows) > 1
    noise = ", though not by more than the noise" * tied
    return (
        f"All likelihoods here are lower bounds; that of {display_name(best['family'])} is the "
        f"best{noise}: at most {format_estimate(best['nll'])} nats a test row."
    )


def _compare_with_entropy(e: MetricEstimate, exact: float) -> str:
    if e.low <= exact <= e.high:
        return "which agrees with the entropy of the data"
    side = "above" if e.value >= exact else "below"
    return f"{format_number(abs(e.value - exact))} {side} the entropy of the data"


def _describe_fastest(rows: Rows) -> str:
    first = sorted((r for r in rows if r["rank"] == 1), key=lambda r: r["seconds_per_1000"])
    if len(first) < 2 or not first[1]["seconds_per_1000"] > 2 * first[0]["seconds_per_1000"]:
        return ""
    return (
        f"Of the families in the first rank, {display_name(first[0]['family'])} samples fastest: "
        f"1,000 rows in {formatting.duration_text(first[0]['seconds_per_1000'])}."
    )


def is_below_entropy(e: MetricEstimate, exact: float) -> bool:
    error = (e.high - e.low) / (2 * 1.96)
    return e.value < exact - BELOW * error
