"""What the numbers of a comparison support, in words. Nothing is said that they do not."""

import math
from collections.abc import Sequence
from typing import Any

from ..formatting import capital, decimals, duration, listing, number, percent, plural, title
from ..metrics.estimate import Estimate
from ..model import Likelihood
from .leaderboard import PRIMARY, Comparison

BELOW = 3.0  # standard errors that make a likelihood better than the entropy impossible
REFERENCE = "gaussian"  # what a family has to beat to be worth its cost
COMPARABLE = (Likelihood.EXACT.value, Likelihood.ODE.value)


def interval(e: Estimate) -> str:
    """A 95 % interval with the digits that it supports."""
    d = decimals(e.low, e.high)
    return f"[{number(e.low, d)}, {number(e.high, d)}]"


def entropy(comparison: Comparison) -> float | None:
    """The exact entropy of the data in nats, where it is known."""
    known = comparison.dataset
    value = None if known is None else known.entropy
    return value if value is not None and math.isfinite(value) else None


def dimensions(comparison: Comparison) -> int:
    """Entries of one datum."""
    return math.prod(comparison.schema.event)


def bits(nats: float, d: int) -> float:
    """Nats a datum in bits per dimension."""
    return nats / (d * math.log(2))


def measured(comparison: Comparison) -> str:
    """One sentence: what was done to get these numbers."""
    shape = comparison.schema.event
    kind = plural(shape[0], "column") if len(shape) == 1 else " \u00d7 ".join(map(str, shape))
    names = {e.family for e in comparison.entries}
    return (
        f"{plural(len(names), 'family', 'families')} fitted to "
        f"{plural(len(comparison.train), 'row')} of {quoted(comparison.source)} "
        f"({kind}; budget: {comparison.budget}) and measured on "
        f"{plural(len(comparison.test), 'other row')} that none of them saw in training."
        + unfinished(comparison.missing)
    )


def unfinished(missing: Sequence[str]) -> str:
    """What an interruption has left out."""
    if not missing:
        return ""
    names = listing([title(name) for name in missing])
    return f" The comparison was interrupted: {names} were not fitted."


def quoted(source: str) -> str:
    """The source in quotation marks unless it is a phrase of ours."""
    return source if source.startswith("the ") else f"\u201c{source}\u201d"


def summary(comparison: Comparison) -> list[str]:
    """The findings, one sentence each."""
    rows = [r for r in comparison.table if r[PRIMARY]]
    if not rows:
        return ["No family could be fitted, so nothing was measured."]
    told = [leaders(rows), against_reference(rows), reaches_floor(rows)]
    if short := comparison.untrained():
        names = listing([f"{title(f)} ({percent(p)})" for f, p in short.items()])
        told.append(f"Too few of their usual steps fitted into the budget to judge {names}.")
    told += [likelihoods(rows, entropy(comparison)), quickest(rows)]
    if failed := [title(r["family"]) for r in comparison.table if r["error"]]:
        told.append(f"{capital(listing(failed))} failed; the reason is under the table.")
    return [t for t in told if t]


def leaders(rows: list[dict[str, Any]]) -> str:
    """Who is first, and whether that is more than noise."""
    first = [title(r["family"]) for r in rows if r["rank"] == 1]
    if len(rows) == 1:
        return f"Only {first[0]} was measured, so there is nothing to compare it with."
    if len(first) == 1:
        return (
            f"{capital(first[0])} has the smallest energy distance, and its 95 % interval lies "
            "below every other family\u2019s."
        )
    if len(first) == len(rows):
        return "These data do not separate the families: all their 95 % intervals overlap."
    return (
        f"{capital(listing(first))} are not separated by these data: their 95 % intervals "
        "of the energy distance overlap, so no one of them is the winner."
    )


def against_reference(rows: list[dict[str, Any]]) -> str:
    """Who beats the single Gaussian."""
    found = [r for r in rows if r["family"] == REFERENCE]
    others = [r for r in rows if r["family"] != REFERENCE]
    if not found or not others:
        return ""
    bar = found[0][PRIMARY]
    better = [title(r["family"]) for r in others if r[PRIMARY].high < bar.low]
    worse = [title(r["family"]) for r in others if r[PRIMARY].low > bar.high]
    if len(better) == len(others) > 1:
        return "All the others beat the single Gaussian."
    told = [f"{listing(better)} {'beats' if len(better) == 1 else 'beat'} the single Gaussian"]
    if not better:
        told = ["no family beats the single Gaussian by more than the noise"]
    if worse:
        told.append(f"{listing(worse)} {'is' if len(worse) == 1 else 'are'} worse than it")
    unclear = [title(r["family"]) for r in others if title(r["family"]) not in better + worse]
    if better and unclear:
        told.append(
            f"{listing(unclear)} {'is' if len(unclear) == 1 else 'are'} not separated from it"
        )
    return capital("; ".join(told)) + "."


def reaches_floor(rows: list[dict[str, Any]]) -> str:
    """Who cannot be told from real data by this distance."""
    floor = rows[0][PRIMARY].floor
    if not math.isfinite(floor):
        return ""
    # the estimate is unbiased: a floor below zero is zero and noise
    reached = [title(r["family"]) for r in rows if r[PRIMARY].low <= max(r[PRIMARY].floor, 0)]
    value = f" ({number(floor, decimals(rows[0][PRIMARY].low, rows[0][PRIMARY].high))})"
    value *= floor > 0
    if not reached:
        return f"No family reaches the floor, the distance between two sets of real rows{value}."
    verb = "reaches" if len(reached) == 1 else "reach"
    return (
        f"{capital(listing(reached))} {verb} the floor{value}: by this distance, on so many rows, "
        "the samples cannot be told from real ones."
    )


def likelihoods(rows: list[dict[str, Any]], exact: float | None) -> str:
    """Who gives test data the most probability, among numbers that can be compared."""
    fair = [r for r in rows if r["nll"] and r["likelihood"] in COMPARABLE]
    if not fair:
        return bounds([r for r in rows if r["nll"]])
    best = min(fair, key=lambda r: r["nll"].value)
    tied = [title(r["family"]) for r in fair if r["nll"].low <= best["nll"].high]
    value = number(best["nll"].value, decimals(best["nll"].low, best["nll"].high))
    gap = ""
    if exact is not None:
        gap = ", " + beside(best["nll"], exact)
    if len(tied) > 1:
        return (
            f"By likelihood {listing(tied)} are not separated; the smallest is {value} nats a test "
            f"row ({title(best['family'])}{gap})."
        )
    others = " among families that have a density" if len(fair) < len(rows) else ""
    return (
        f"{capital(title(best['family']))} gives test rows the highest likelihood{others}: "
        f"{value} nats a row{gap}."
    )


def bounds(rows: list[dict[str, Any]]) -> str:
    """What lower bounds of the likelihood guarantee."""
    if not rows:
        return ""
    best = min(rows, key=lambda r: r["nll"].value)
    tied = sum(r["nll"].low <= best["nll"].high for r in rows) > 1
    value = number(best["nll"].value, decimals(best["nll"].low, best["nll"].high))
    noise = ", though not by more than the noise" * tied
    return (
        f"All likelihoods here are lower bounds; that of {title(best['family'])} is the "
        f"best{noise}: at most {value} nats a test row."
    )


def beside(e: Estimate, exact: float) -> str:
    """A likelihood beside the entropy."""
    if e.low <= exact <= e.high:
        return "which agrees with the entropy of the data"
    side = "above" if e.value >= exact else "below"
    return f"{number(abs(e.value - exact))} {side} the entropy of the data"


def quickest(rows: list[dict[str, Any]]) -> str:
    """Which of the leaders samples fastest, when one does by a factor of two."""
    first = sorted((r for r in rows if r["rank"] == 1), key=lambda r: r["seconds_per_1000"])
    if len(first) < 2 or not first[1]["seconds_per_1000"] > 2 * first[0]["seconds_per_1000"]:
        return ""
    return (
        f"Of the families in the first rank, {title(first[0]['family'])} samples fastest: 1,000 "
        f"rows in {duration(first[0]['seconds_per_1000'])}."
    )


def below_entropy(e: Estimate, exact: float) -> bool:
    """Whether a mean negative log-likelihood is impossibly good."""
    error = (e.high - e.low) / (2 * 1.96)
    return e.value < exact - BELOW * error
