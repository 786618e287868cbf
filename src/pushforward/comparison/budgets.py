"""Budgets of time, or of steps, shared among the fits of a comparison."""

import time
from typing import NamedTuple

from ..errors import UsageError
from ..options import check_duration
from ..rng import seeded_rng

REPORT = 20.0  # seconds kept for the report
GUESS = 4.0  # seconds to evaluate one fit, before the first has been timed


class ComparisonBudget(NamedTuple):
    """What each fit of a comparison may take: one of three, or none; `compare` documents them."""

    minutes: float | None
    total_minutes: float | None
    steps: int | None
    seeds: tuple[int, ...]

    def check(self) -> None:
        """Refuse budgets that contradict each other or make no sense, and seeds that are none."""
        limits = self._asdict()
        del limits["seeds"]
        if sum(b is not None for b in limits.values()) > 1:
            raise UsageError("give one budget: minutes, total_minutes or steps")
        for name, limit in limits.items():
            check_duration(name, limit)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds are {[*self.seeds][:9]}; give one or more, all different")
        for seed in self.seeds:
            with seeded_rng(seed):
                pass

    def __str__(self) -> str:
        if self.total_minutes is not None:
            limit = f"{self.total_minutes:g} minutes of wall time in all, in equal shares"
        elif self.minutes is not None:
            limit = f"{self.minutes:g} minutes of wall time a family and seed"
        else:
            limit = f"{self.steps} steps" if self.steps else "each family's own number of steps"
        return f"{limit}, {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"


class BudgetClock:
    """Shares a total budget: what is left, less the time to measure, over the fits to come."""

    def __init__(self, budget: ComparisonBudget) -> None:
        self.started, self.budget = time.monotonic(), budget
        self.measuring: list[float] = []

    def share(self, fits: int) -> float | None:
        """Minutes for the next fit of ``fits``."""
        if self.budget.total_minutes is None or not fits:
            return self.budget.minutes
        left = 60 * self.budget.total_minutes - REPORT - (time.monotonic() - self.started)
        each = sum(self.measuring) / len(self.measuring) if self.measuring else GUESS
        # at least half of a share goes into training, even if the measuring then runs over
        return max(left / fits - each, left / fits / 2, 1.0) / 60
