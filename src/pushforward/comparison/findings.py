"""What the numbers of a comparison support, in words. Nothing is said that they do not.

The findings are sentences about all families; the warnings are what a reader must know of one
before trusting its numbers or using its samples.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import families, formatting, metrics
from ..formatting import capitalise_first, count_noun, display_name, format_number, join_words
from ..inference.diagnostics import ENOUGH
from ..metrics.estimate import MetricEstimate
from ..model import Likelihood
from .leaderboard import PRIMARY, FitResult, Leaderboard

BELOW = 3.0  # standard errors that make a likelihood better than the entropy impossible
NEAR = 0.5  # of the distance that real rows keep from the training rows: a copy, nearly
REFERENCE = "gaussian"  # what a family has to beat to be worth its cost
COMPARABLE = (Likelihood.EXACT.value, Likelihood.ODE.value)
Rows = Sequence[dict[str, Any]]  # of `Leaderboard.table`
Check = Callable[[Leaderboard, FitResult], str]


def format_estimate(e: MetricEstimate, value: float | None = None) -> str:
    """An estimate, or a value beside it, with the digits that its 95 % interval supports."""
    decimals = formatting.supported_decimals(e.low, e.high)
    return format_number(e.value if value is None else value, decimals)


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
    keys = {e.family for e in board.entries}
    names = join_words([display_name(family) for family in board.missing])
    missing = f" The comparison was interrupted: {names} were not fitted."
    return (
        f"{count_noun(len(keys), 'family', 'families')} fitted to "
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


# warnings


def comparison_warnings(board: Leaderboard) -> Iterator[tuple[str, str]]:
    for row in board.table:
        runs = [e for e in board.entries if e.family == row["family"] and not e.error]
        for check in CHECKS:
            if texts := [text for e in runs if (text := check(board, e))]:
                share = f" ({len(texts)} of {len(runs)} seeds)" if len(runs) > 1 else ""
                yield row["family"], f"{texts[0].rstrip('.')}{share}."


def _mode_collapse_warning(board: Leaderboard, e: FitResult) -> str:
    known = board.dataset
    if known is not None and known.modes is not None and e.generated is not None:
        modes = metrics.known_modes(e.generated, known.modes, known.mode_scale or 0.0)
        kept = round(modes.kept * len(known.modes))
        what = f"mode collapse: it keeps {kept} of the {len(known.modes)} modes of the data"
        return f"{what}; the others have less than a tenth of their share." * modes.collapsed
    cells = e.metrics.get("mode_coverage")
    if cells is None or not metrics.is_collapsed(cells.value):
        return ""
    share = formatting.format_percent(1 - cells.value)
    return f"mode collapse: {share} of the cells of the data hold next to no samples."


def _memorisation_warning(board: Leaderboard, e: FitResult) -> str:
    copies, near = e.metrics.get("copies"), e.metrics.get("nearest_train")
    integers = any(c.integer for c in board.schema.columns)
    chance = integers or math.prod(board.schema.event) == 1  # rows may be equal by chance
    advice = "do not share them if the data are private."
    if copies is not None and (copies.low > copies.floor if chance else copies.value > 0):
        share = formatting.format_percent(copies.value)
        return f"memorisation: {share} of the samples equal a training row exactly; {advice}"
    if near is not None and np.isfinite(near.high) and near.high < NEAR:
        return (
            f"memorisation: samples lie {format_number(near.value)} times as far from the nearest "
            f"training row as test rows do; {advice}"
        )
    return ""


def _impossible_likelihood_warning(board: Leaderboard, e: FitResult) -> str:
    exact = data_entropy(board)
    if exact is None or e.nll is None:
        return ""
    error = (e.nll.high - e.nll.low) / (2 * 1.96)
    if not e.nll.value < exact - BELOW * error:
        return ""
    return (
        f"its negative log-likelihood is {format_number(exact - e.nll.value)} nats below the "
        f"entropy of the data, more than {BELOW:g} standard errors: the likelihood "
        "cannot be right."
    )


def _no_gain_warning(board: Leaderboard, e: FitResult) -> str:
    if e.family in families.BASELINES or e.trained < ENOUGH:
        return ""
    references = [b.metrics for b in board.entries if b.family == REFERENCE]
    bars = [found[PRIMARY] for found in references if PRIMARY in found]
    mine = e.metrics.get(PRIMARY)
    if not bars or mine is None or mine.low <= mine.floor or mine.high < bars[0].low:
        return ""
    if mine.low > bars[0].high:
        return "its energy distance is worse than that of a single Gaussian."
    return "its energy distance is not shown to be better than that of a single Gaussian."


def _diagnosis_warning(board: Leaderboard, e: FitResult) -> str:
    texts = [] if e.model is None else e.model.alarms
    return "; ".join(text for text in texts if not text.startswith("mode collapse"))


CHECKS: tuple[Check, ...] = (
    _mode_collapse_warning,
    _diagnosis_warning,
    _memorisation_warning,
    _impossible_likelihood_warning,
    _no_gain_warning,
)
