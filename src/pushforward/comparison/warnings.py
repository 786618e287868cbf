"""What a reader must know before trusting a number or using a sample."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from .. import families, metrics
from ..formatting import format_number, format_percent
from ..inference.diagnostics import ENOUGH
from . import findings
from .leaderboard import PRIMARY, FitResult, Leaderboard

NEAR = 0.5  # of the distance that real rows keep from the training rows
Check = Callable[[Leaderboard, FitResult], str]


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
    share = format_percent(1 - cells.value)
    return f"mode collapse: {share} of the cells of the data hold next to no samples."


def _memorisation_warning(board: Leaderboard, e: FitResult) -> str:
    copies, near = e.metrics.get("copies"), e.metrics.get("nearest_train")
    integers = any(c.integer for c in board.schema.columns)
    chance = integers or math.prod(board.schema.event) == 1  # rows may be equal by chance
    advice = "do not share them if the data are private."
    if copies is not None and (copies.low > copies.floor if chance else copies.value > 0):
        share = format_percent(copies.value)
        return f"memorisation: {share} of the samples equal a training row exactly; {advice}"
    if near is not None and np.isfinite(near.high) and near.high < NEAR:
        return (
            f"memorisation: samples lie {format_number(near.value)} times as far from the nearest "
            f"training row as test rows do; {advice}"
        )
    return ""


def _impossible_likelihood_warning(board: Leaderboard, e: FitResult) -> str:
    exact = findings.data_entropy(board)
    if exact is None or e.nll is None or not findings.is_below_entropy(e.nll, exact):
        return ""
    return (
        f"its negative log-likelihood is {format_number(exact - e.nll.value)} nats below the "
        f"entropy of the data, more than {findings.BELOW:g} standard errors: the likelihood "
        "cannot be right."
    )


def _no_gain_warning(board: Leaderboard, e: FitResult) -> str:
    if e.family in families.BASELINES or e.trained < ENOUGH:
        return ""
    references = [b.metrics for b in board.entries if b.family == findings.REFERENCE]
    bars = [found[PRIMARY] for found in references if PRIMARY in found]
    mine = e.metrics.get(PRIMARY)
    if not bars or mine is None or mine.low <= mine.floor or mine.high < bars[0].low:
        return ""
    if mine.low > bars[0].high:
        return "its energy distance is worse than that of a single Gaussian."
    return "its energy distance is not shown to be better than that of a single Gaussian."


def _diagnosis_warning(board: Leaderboard, e: FitResult) -> str:
    """What the family itself found on held-out data; mode collapse is measured on test data."""
    texts = [] if e.model is None else e.model.alarms
    return "; ".join(text for text in texts if not text.startswith("mode collapse"))


CHECKS: tuple[Check, ...] = (
    _mode_collapse_warning,
    _diagnosis_warning,
    _memorisation_warning,
    _impossible_likelihood_warning,
    _no_gain_warning,
)
