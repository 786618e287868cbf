"""Two sets of samples from anywhere, compared by the metrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import metrics
from ..data import reading
from ..errors import DataError
from ..metrics.estimate import Estimate


def evaluate_sources(
    real: Any,
    generated: Any,
    names: Sequence[str] | None = None,
    seed: int = 0,
    condition: str | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Estimate]:
    """`metrics.evaluate` on anything that `fit` reads; columns are matched by name.

    Classes in the column ``condition`` are labels: of them the classifier metrics speak, and the
    others see the rest of the columns. Numbers there stay with the other columns. Without a
    ``condition``, a column that both have is a column like any other.
    """
    first = reading.read(real, condition=condition, size=size)
    second = reading.read_as(generated, first.schema)
    if first.y is None:
        return metrics.evaluate(first.x, second.x, metrics=names, seed=seed)
    if second.y is None:
        raise DataError(f"the generated data lack the column {condition!r}: draw them from a fit")
    ours, theirs = (first.schema.encode(s.y, len(s.x))[:, 1:] for s in (first, second))
    if first.schema.condition and first.schema.condition.labels:
        classes = {"labels": ours.argmax(1), "generated_labels": theirs.argmax(1)}
        return metrics.evaluate(first.x, second.x, metrics=names, seed=seed, **classes)
    a, b = (np.hstack([s.x.reshape(len(s.x), -1), c]) for s, c in ((first, ours), (second, theirs)))
    return metrics.evaluate(a, b, metrics=names, seed=seed)
