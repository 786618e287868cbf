"""What is noted of a fit in progress, and how noisy it is."""

from typing import Any

import numpy as np
from torch import Tensor


class RunningMeans:
    """The means of a loss's terms since the last line of the history; nothing waits for a GPU."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count the terms of one step."""
        self.count += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def taken(self) -> dict[str, float]:
        """The means; counting begins anew."""
        found = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return found


def validation_noise(history: list[dict[str, Any]]) -> float:
    """The deviation of held-out losses since the best one, whatever their trend.

    Second differences of independent noise have six times its variance and none of a straight
    line; the median of their sizes is 0.6745 deviations.
    """
    known = [line["validation"] for line in history if "validation" in line]
    since = np.array(known[int(np.argmin(known)) :] if known else [])
    if len(since) < 4:
        return 0.0
    return float(np.median(np.abs(np.diff(since, 2))) / (0.6745 * 6**0.5))
