"""What a comparison measured, as plain data: its results and the table that ranks them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..data.builtin import datasets
from ..data.schema import Schema
from ..errors import PushforwardError
from ..inference.diagnostics import ENOUGH, trained_fraction
from ..inference.fitted_model import FittedModel
from ..metrics import codecs
from ..metrics.estimate import MetricEstimate
from ..model import Likelihood

PRIMARY = "energy"
MEANS = ("seconds", "seconds_per_1000", "nfe", "parameters")  # of a row, over the seeds


@dataclass
class FitResult:
    """One family fitted with one seed: what it cost, its samples, what was measured."""

    family: str
    seed: int
    seconds: float = 0.0
    seconds_measuring: float = 0.0
    parameters: int = 0
    nfe: int = 0
    seconds_per_1000: float = math.nan
    likelihood: Likelihood = Likelihood.NONE
    nll: MetricEstimate | None = None  # nats per test row
    metrics: dict[str, MetricEstimate] = field(default_factory=dict)
    error: str = ""
    model: FittedModel = None  # type: ignore[assignment]  # absent only beside an error
    generated: np.ndarray = None  # type: ignore[assignment]
    code: int = 0  # the exit code of the error

    @property
    def trained(self) -> float:
        """The fraction of the family's usual steps that the budget allowed."""
        return 1.0 if self.model is None else trained_fraction(self.model.config)


@dataclass
class Leaderboard:
    """The results of a comparison and the table that ranks them.

    Arguments:
        entries: One for each family and seed.
        train: Training data, ``(n, *event)``, in the units of the data.
        test: Held-out data, on which everything is measured.
        budget: What each family was given, in words.
        source: What the data are, in words.
        dataset: The built-in data set, where its exact density may be known.
        seconds: What the comparison took.
        missing: The families that an interruption has left out.
        codecs: Bits per dimension of lossless codecs on the scored images (`metrics.codec_bits`).
    """

    entries: list[FitResult]
    train: np.ndarray
    test: np.ndarray
    schema: Schema
    budget: str
    source: str
    dataset: datasets.BuiltinDataset | None = None
    seconds: float = 0.0
    missing: tuple[str, ...] = ()
    codecs: dict[str, float] = field(default_factory=dict)

    @property
    def table(self) -> list[dict[str, Any]]:
        """The leaderboard, best first by energy distance; one row a family, seeds averaged."""
        rows = [self.row(name) for name in dict.fromkeys(e.family for e in self.entries)]
        rows.sort(key=lambda r: (r[PRIMARY] is None, r[PRIMARY].value if r[PRIMARY] else 0))
        ranked = [r for r in rows if r[PRIMARY]]
        for row in ranked:
            # a family is behind another only when its whole interval lies above the other's
            row["rank"] = 1 + sum(o[PRIMARY].high < row[PRIMARY].low for o in ranked)
        return rows

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """The rows of the table that were measured."""
        return [row for row in self.table if row[PRIMARY]]

    def row(self, family: str) -> dict[str, Any]:
        """One family's line of the leaderboard."""
        mine = [e for e in self.entries if e.family == family and not e.error]
        error = next((e.error for e in self.entries if e.family == family and e.error), "")
        scored = [e.nll for e in mine if e.nll]
        row: dict[str, Any] = {"family": family, "rank": None, "seeds": len(mine), "error": error}
        row |= {PRIMARY: None, "nll": pool_seeds(scored) if scored else None}
        row["likelihood"] = mine[0].likelihood.value if mine else Likelihood.NONE.value
        for name in dict.fromkeys(name for e in mine for name in e.metrics):
            row[name] = pool_seeds([e.metrics[name] for e in mine if name in e.metrics])
        for name in MEANS:
            row[name] = float(np.mean([getattr(e, name) for e in mine])) if mine else None
        return row

    def best(self) -> list[str]:
        """The families that nothing measured here separates from the first."""
        return [r["family"] for r in self.table if r["rank"] == 1]

    def untrained(self) -> dict[str, float]:
        """Families with too few steps in the budget to judge them, with the fraction they had."""
        parts = {e.family: e.trained for e in self.entries if not e.error}
        return {family: part for family, part in parts.items() if part < ENOUGH}

    def failure(self) -> PushforwardError | None:
        """An error that stands for all of them, if no fit has succeeded."""
        if not self.entries or not all(e.error for e in self.entries):
            return None
        codes = {e.code for e in self.entries}
        failure = PushforwardError(f"every family failed; the first says: {self.entries[0].error}")
        failure.code = codes.pop() if len(codes) == 1 else 75
        return failure

    def text(self) -> str:
        """The leaderboard for a terminal."""
        lines = [
            f"{'':>2} {'family':17}{'energy distance':>24}{'floor':>9}{'nats':>10}  "
            f"{'likelihood':12}{'train s':>8}{'s/1000':>8}{'NFE':>5}{'params':>9}"
        ]
        for r in self.table:
            if r[PRIMARY] is None:
                lines.append(f"{'':>2} {r['family']:17}failed: {r['error'][:90]}")
                continue
            e, nll = r[PRIMARY], r["nll"]
            lines.append(
                f"{r['rank']:>2} {r['family']:17}"
                f"{f'{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]':>24}{e.floor:>9.4f}"
                f"{nll.value if nll else math.nan:>10.3f}  {r['likelihood']:12}"
                f"{r['seconds']:>8.1f}{r['seconds_per_1000']:>8.2f}{r['nfe']:>5.0f}"
                f"{r['parameters']:>9,.0f}"
            )
        ties = self.best()
        tied = f"{', '.join(ties)} are not separated by these data. " if len(ties) > 1 else ""
        lines.append(f"{tied}nats: negative log-likelihood per test row, of the kind named.")
        if self.codecs:
            lines.append(self.bits())
        if short := self.untrained():
            names = ", ".join(f"{name} ({part:.0%})" for name, part in short.items())
            lines.append(f"Far from trained (part of the usual steps), give them more: {names}.")
        return "\n".join(lines)

    def bits(self) -> str:
        """Bits per dimension of every density, beside those of the codecs."""
        nats = math.log(2) * math.prod(self.schema.event)
        scored = sorted((r["nll"].value / nats, r["family"]) for r in self.table if r["nll"])
        densities = [f"{name} {value:.3f}" for value, name in scored]
        return f"bits per dim: {', '.join([*densities, codecs.format_codec_bits(self.codecs)])}."

    def to_json(self) -> dict[str, Any]:
        """Everything measured, for machines."""

        def plain(value: Any) -> Any:
            return value._asdict() if isinstance(value, MetricEstimate) else value

        rows = [{k: plain(v) for k, v in row.items()} for row in self.table]
        sizes = {"train": len(self.train), "test": len(self.test)}
        facts = {"source": self.source, "budget": self.budget, **sizes, "table": rows}
        return facts | ({"codecs": self.codecs} if self.codecs else {})


def pool_seeds(estimates: Sequence[MetricEstimate]) -> MetricEstimate:
    """The mean over seeds; its interval holds the spread between seeds and that within each.

    The spread of k seeds is known from k numbers only: its quantile is that of Student's t with
    k - 1 degrees of freedom, 12.7 for two seeds and 4.3 for three.
    """
    values = np.array([e.value for e in estimates])
    if not np.isfinite(values).all():
        return estimates[int(np.argmax(np.isinf(values)))]
    low, high = (np.mean([getattr(e, side) for e in estimates]) for side in ("low", "high"))
    k, spread = len(values), 0.0
    if k > 1:
        spread = float(stdtrit(k - 1, 0.975)) * values.std(ddof=1) / math.sqrt(k)
    mean = float(values.mean())
    return estimates[0]._replace(
        value=mean,
        low=mean - math.hypot(mean - low, spread),
        high=mean + math.hypot(high - mean, spread),
        floor=float(np.mean([e.floor for e in estimates])),
    )
