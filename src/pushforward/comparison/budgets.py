"""Budgets of time, or of steps, shared among the fits of a comparison."""

import time
from collections.abc import Sequence

from ..devices import seeded_rng
from ..errors import UsageError
from ..options import check_duration

REPORT = 20.0  # seconds kept for the report
GUESS = 4.0  # seconds to evaluate one fit, before the first has been timed


def check_budgets(
    minutes: float | None, total: float | None, steps: int | None, seeds: Sequence[int]
) -> None:
    """Refuse budgets that contradict each other or make no sense, and seeds that are none."""
    if sum(b is not None for b in (minutes, total, steps)) > 1:
        raise UsageError("give one budget: minutes, total_minutes or steps")
    check_duration("minutes", minutes)
    check_duration("total_minutes", total)
    check_duration("steps", steps)
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds are {list(seeds)[:9]}; give one or more, all different")
    for seed in seeds:
        with seeded_rng(seed):
            pass


def describe_budget(
    minutes: float | None, total: float | None, steps: int | None, seeds: Sequence[int]
) -> str:
    """The budget in words."""
    if total is not None:
        budget = f"{total:g} minutes of wall time in all, in equal shares"
    elif minutes is not None:
        budget = f"{minutes:g} minutes of wall time a family and seed"
    else:
        budget = f"{steps} steps" if steps else "each family's own number of steps"
    return f"{budget}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"


class BudgetClock:
    """Shares a total budget: what is left, less the time to measure, over the fits to come."""

    def __init__(self, total: float | None, minutes: float | None) -> None:
        self.started, self.total, self.minutes = time.monotonic(), total, minutes
        self.measuring: list[float] = []

    def share(self, fits: int) -> float | None:
        """Minutes for the next fit of ``fits``."""
        if self.total is None or not fits:
            return self.minutes
        left = 60 * self.total - REPORT - (time.monotonic() - self.started)
        each = sum(self.measuring) / len(self.measuring) if self.measuring else GUESS
        # at least half of a share goes into training, even if the measuring then runs over
        return max(left / fits - each, left / fits / 2, 1.0) / 60
