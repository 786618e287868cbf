"""What the numbers of a comparison support, in words. Nothing is said that they do not."""

import math
from collections.abc import Sequence
from typing import Any

from ..formatting import (
    capitalise_first,
    count_noun,
    display_name,
    duration_text,
    format_number,
    format_percent,
    join_words,
    supported_decimals,
)
from ..metrics.estimate import MetricEstimate
from ..model import Likelihood
from .leaderboard import PRIMARY, Comparison

BELOW = 3.0  # standard errors that make a likelihood better than the entropy impossible
REFERENCE = "gaussian"  # what a family has to beat to be worth its cost
COMPARABLE = (Likelihood.EXACT.value, Likelihood.ODE.value)


def format_interval(e: MetricEstimate) -> str:
    """A 95 % interval with the digits that it supports."""
    d = supported_decimals(e.low, e.high)
    return f"[{format_number(e.low, d)}, {format_number(e.high, d)}]"


def data_entropy(comparison: Comparison) -> float | None:
    """The exact entropy of the data in nats, where it is known."""
    known = comparison.dataset
    value = None if known is None else known.entropy
    return value if value is not None and math.isfinite(value) else None


def data_dimension(comparison: Comparison) -> int:
    """Entries of one datum."""
    return math.prod(comparison.schema.event)


def to_bits_per_dim(nats: float, d: int) -> float:
    """Nats a datum in bits per dimension."""
    return nats / (d * math.log(2))


def describe_protocol(comparison: Comparison) -> str:
    """One sentence: what was done to get these numbers."""
    shape = comparison.schema.event
    kind = count_noun(shape[0], "column") if len(shape) == 1 else " \u00d7 ".join(map(str, shape))
    names = {e.family for e in comparison.entries}
    return (
        f"{count_noun(len(names), 'family', 'families')} fitted to "
        f"{count_noun(len(comparison.train), 'row')} of {quote_source(comparison.source)} "
        f"({kind}; budget: {comparison.budget}) and measured on "
        f"{count_noun(len(comparison.test), 'other row')} that none of them saw in training."
        + describe_missing(comparison.missing)
    )


def describe_missing(missing: Sequence[str]) -> str:
    """What an interruption has left out."""
    if not missing:
        return ""
    names = join_words([display_name(name) for name in missing])
    return f" The comparison was interrupted: {names} were not fitted."


def quote_source(source: str) -> str:
    """The source in quotation marks unless it is a phrase of ours."""
    return source if source.startswith("the ") else f"\u201c{source}\u201d"


def summarise_findings(comparison: Comparison) -> list[str]:
    """The findings, one sentence each."""
    rows = [r for r in comparison.table if r[PRIMARY]]
    if not rows:
        return ["No family could be fitted, so nothing was measured."]
    told = [describe_leaders(rows), compare_with_reference(rows), describe_floor(rows)]
    if short := comparison.untrained():
        names = join_words([f"{display_name(f)} ({format_percent(p)})" for f, p in short.items()])
        told.append(f"Too few of their usual steps fitted into the budget to judge {names}.")
    told += [compare_likelihoods(rows, data_entropy(comparison)), describe_fastest(rows)]
    if failed := [display_name(r["family"]) for r in comparison.table if r["error"]]:
        told.append(
            f"{capitalise_first(join_words(failed))} failed; the reason is under the table."
        )
    return [t for t in told if t]


def describe_leaders(rows: list[dict[str, Any]]) -> str:
    """Who is first, and whether that is more than noise."""
    first = [display_name(r["family"]) for r in rows if r["rank"] == 1]
    if len(rows) == 1:
        return f"Only {first[0]} was measured, so there is nothing to compare it with."
    if len(first) == 1:
        return (
            f"{capitalise_first(first[0])} has the smallest energy distance, and its 95 % interval lies "
            "below every other family\u2019s."
        )
    if len(first) == len(rows):
        return "These data do not separate the families: all their 95 % intervals overlap."
    return (
        f"{capitalise_first(join_words(first))} are not separated by these data: their 95 % intervals "
        "of the energy distance overlap, so no one of them is the winner."
    )


def compare_with_reference(rows: list[dict[str, Any]]) -> str:
    """Who beats the single Gaussian."""
    found = [r for r in rows if r["family"] == REFERENCE]
    others = [r for r in rows if r["family"] != REFERENCE]
    if not found or not others:
        return ""
    bar = found[0][PRIMARY]
    better = [display_name(r["family"]) for r in others if r[PRIMARY].high < bar.low]
    worse = [display_name(r["family"]) for r in others if r[PRIMARY].low > bar.high]
    if len(better) == len(others) > 1:
        return "All the others beat the single Gaussian."
    told = [f"{join_words(better)} {'beats' if len(better) == 1 else 'beat'} the single Gaussian"]
    if not better:
        told = ["no family beats the single Gaussian by more than the noise"]
    if worse:
        told.append(f"{join_words(worse)} {'is' if len(worse) == 1 else 'are'} worse than it")
    unclear = [
        display_name(r["family"]) for r in others if display_name(r["family"]) not in better + worse
    ]
    if better and unclear:
        told.append(
            f"{join_words(unclear)} {'is' if len(unclear) == 1 else 'are'} not separated from it"
        )
    return capitalise_first("; ".join(told)) + "."


def describe_floor(rows: list[dict[str, Any]]) -> str:
    """Who cannot be told from real data by this distance."""
    floor = rows[0][PRIMARY].floor
    if not math.isfinite(floor):
        return ""
    # the estimate is unbiased: a floor below zero is zero and noise
    reached = [
        display_name(r["family"]) for r in rows if r[PRIMARY].low <= max(r[PRIMARY].floor, 0)
    ]
    value = f" ({format_number(floor, supported_decimals(rows[0][PRIMARY].low, rows[0][PRIMARY].high))})"
    value *= floor > 0
    if not reached:
        return f"No family reaches the floor, the distance between two sets of real rows{value}."
    verb = "reaches" if len(reached) == 1 else "reach"
    return (
        f"{capitalise_first(join_words(reached))} {verb} the floor{value}: by this distance, on so many rows, "
        "the samples cannot be told from real ones."
    )


def compare_likelihoods(rows: list[dict[str, Any]], exact: float | None) -> str:
    """Who gives test data the most probability, among numbers that can be compared."""
    fair = [r for r in rows if r["nll"] and r["likelihood"] in COMPARABLE]
    if not fair:
        return compare_bounds([r for r in rows if r["nll"]])
    best = min(fair, key=lambda r: r["nll"].value)
    tied = [display_name(r["family"]) for r in fair if r["nll"].low <= best["nll"].high]
    value = format_number(best["nll"].value, supported_decimals(best["nll"].low, best["nll"].high))
    gap = ""
    if exact is not None:
        gap = ", " + compare_with_entropy(best["nll"], exact)
    if len(tied) > 1:
        return (
            f"By likelihood {join_words(tied)} are not separated; the smallest is {value} nats a test "
            f"row ({display_name(best['family'])}{gap})."
        )
    others = " among families that have a density" if len(fair) < len(rows) else ""
    return (
        f"{capitalise_first(display_name(best['family']))} gives test rows the highest likelihood{others}: "
        f"{value} nats a row{gap}."
    )


def compare_bounds(rows: list[dict[str, Any]]) -> str:
    """What lower bounds of the likelihood guarantee."""
    if not rows:
        return ""
    best = min(rows, key=lambda r: r["nll"].value)
    tied = sum(r["nll"].low <= best["nll"].high for r in rows) > 1
    value = format_number(best["nll"].value, supported_decimals(best["nll"].low, best["nll"].high))
    noise = ", though not by more than the noise" * tied
    return (
        f"All likelihoods here are lower bounds; that of {display_name(best['family'])} is the "
        f"best{noise}: at most {value} nats a test row."
    )


def compare_with_entropy(e: MetricEstimate, exact: float) -> str:
    """A likelihood beside the entropy."""
    if e.low <= exact <= e.high:
        return "which agrees with the entropy of the data"
    side = "above" if e.value >= exact else "below"
    return f"{format_number(abs(e.value - exact))} {side} the entropy of the data"


def describe_fastest(rows: list[dict[str, Any]]) -> str:
    """Which of the leaders samples fastest, when one does by a factor of two."""
    first = sorted((r for r in rows if r["rank"] == 1), key=lambda r: r["seconds_per_1000"])
    if len(first) < 2 or not first[1]["seconds_per_1000"] > 2 * first[0]["seconds_per_1000"]:
        return ""
    return (
        f"Of the families in the first rank, {display_name(first[0]['family'])} samples fastest: 1,000 "
        f"rows in {duration_text(first[0]['seconds_per_1000'])}."
    )


def is_below_entropy(e: MetricEstimate, exact: float) -> bool:
    """Whether a mean negative log-likelihood is impossibly good."""
    error = (e.high - e.low) / (2 * 1.96)
    return e.value < exact - BELOW * error
