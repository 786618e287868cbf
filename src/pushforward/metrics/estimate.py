r"""A metric with its uncertainty and its floor.

The interval is a delete-a-group jackknife. Cut both samples into the same :math:`g` groups and
leave one group out of both at a time. The pairs of groups are :math:`g` independent units, so

.. math:: \operatorname{Var} \hat\theta \le \mathbb E \sum_{a=1}^g (\hat\theta_{-a} - \bar\theta)^2

holds for *every* symmetric statistic at the size that is left (Efron and Stein, 1981), and the
interval is :math:`\hat\theta` plus or minus the :math:`t_{g-1}` quantile times the root.

The naive bootstrap is not used: it draws rows twice, and a repeated row has a neighbour at distance
zero. That biases every metric that compares rows of one set (energy, MMD, nearest neighbours,
Wasserstein), and it fails for degenerate U-statistics, which is what they are when the model is
perfect (Arcones and Giné, 1992). Leaving out repeats nothing.

An interval covers the mean of the estimate *at this sample size*, bias included. That is why the
floor, the same metric between two sets of real rows, is computed at the same size.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from .distances import Array, sample_set

Better = Literal["lower", "higher"]
GROUPS = 10

Statistic = Callable[[Array, Array], Array | float]
Replicate = Callable[[Array, Array, int], tuple[Array, Array]]  # the int: how many groups


class MetricEstimate(NamedTuple):
    """A metric of generated rows against real rows.

    Arguments:
        value: The metric.
        low: Lower end of a 95 % interval.
        high: Upper end.
        floor: The same metric between two sets of real rows, at the same size: what a perfect model
            would score. NaN where there is none.
        name: The metric's name.
        unit: Its unit.
        better: Whether "lower" or "higher" is better.
        n: Rows on each side.
        features: What the metric sees of a row, in words; nothing where it sees the row itself.
    """

    value: float
    low: float
    high: float
    floor: float
    name: str = ""
    unit: str = ""
    better: Better = "lower"
    n: int = 0
    features: str = ""

    def __str__(self) -> str:
        interval = f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
        return interval if np.isnan(self.floor) else f"{interval}, floor {self.floor:.4g}"


def jackknife_replicates(statistic: Statistic) -> Replicate:
    def without(parts: list[Array], a: int) -> Array:
        return np.concatenate(parts[:a] + parts[a + 1 :])

    def replicate(x: Array, y: Array, groups: int) -> tuple[Array, Array]:
        value = np.atleast_1d(statistic(x, y))
        xs, ys = np.array_split(x, groups or 1), np.array_split(y, groups or 1)
        left = [statistic(without(xs, a), without(ys, a)) for a in range(groups)]
        return value, np.array(left, dtype=np.float64).reshape(groups, len(value))

    return replicate


def jackknife_interval(value: Array, replicates: Array) -> tuple[Array, Array]:
    """The 95 % jackknife interval of each entry of ``value``, from replicates ``(groups, k)``."""
    from scipy.special import stdtrit

    spread = np.sqrt(np.square(replicates - replicates.mean(0)).sum(0))
    half = stdtrit(len(replicates) - 1, 0.975) * spread
    return value - half, value + half


def _bootstrap_mean_interval(x: Array, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean of independent rows.

    Here the plain bootstrap is right (Efron, 1979): a mean compares no row with another.
    """
    rng = np.random.default_rng(seed)
    means = [x[rng.integers(0, len(x), len(x))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")  # some may be infinite
    return float(low), float(high)


def nll(log_prob: np.ndarray, *, entropy: float = math.nan, seed: int = 0) -> MetricEstimate:
    r"""Mean negative log-likelihood of held-out rows, in nats, with a bootstrap interval.

    Arguments:
        log_prob: One value a row, in nats.
        entropy: The entropy of the distribution, where it is known: no density can do better.
        seed: Of the bootstrap.

    Raises:
        DataError: If a value is not a number, or plus infinity. A row that the model holds to be
            impossible, at minus infinity, makes the mean infinite.
    """
    x = -np.asarray(log_prob, dtype=np.float64).ravel()
    sample_set(x[x < math.inf] if (x == math.inf).any() else x, "log_prob")
    low, high = _bootstrap_mean_interval(x, seed=seed)
    return MetricEstimate(float(x.mean()), low, high, entropy, "nll", "nats", "lower", len(x))


def bits_per_dim(
    log_prob: np.ndarray, d: int, *, entropy: float = math.nan, seed: int = 0
) -> MetricEstimate:
    r"""Negative log-likelihood in bits per entry, :math:`-\log p(x) / (d \ln 2)`.

    The arguments are those of `nll`, for rows of ``d`` entries. The value is of log-mass for
    discrete rows, or of log-density in whichever unit is stated beside the number.
    """
    nats = nll(log_prob, entropy=entropy, seed=seed)
    value, low, high, floor = (v / (d * math.log(2)) for v in nats[:4])
    return MetricEstimate(value, low, high, floor, "bits_per_dim", "bits/dim", "lower", nats.n)
