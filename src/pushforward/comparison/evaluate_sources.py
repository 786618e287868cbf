"""Two sets of samples from anywhere, compared by the metrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import metrics
from ..data import reading
from ..data.reading import Dataset
from ..errors import DataError, UsageError
from ..metrics.estimate import MetricEstimate


def evaluate_sources(
    real: Any,
    generated: Any,
    names: Sequence[str] | None = None,
    seed: int = 0,
    condition: str | None = None,
    *,
    features: Any = None,
    train: Any = None,
    size: tuple[int, int] | None = None,
) -> dict[str, MetricEstimate]:
    """`metrics.evaluate` on anything that `fit` reads; columns are matched by name.

    Classes in the column ``condition`` are labels: of them the classifier metrics speak, and the
    others see the rest of the columns. Numbers there stay with the other columns. Without a
    ``condition``, a column that both have is a column like any other.
    """
    first = reading.read_dataset(real, condition=condition, size=size)
    second = reading.read_with_schema(generated, first.schema)
    third = None if train is None else reading.read_with_schema(train, first.schema)
    options = {"metrics": names, "seed": seed, "features": features}
    rows = (first.x, second.x, None if third is None else third.x)
    if first.y is None:
        return evaluate_rows(*rows, **options)
    if second.y is None:
        raise DataError(f"the generated data lack the column {condition!r}: draw them from a fit")
    ours, theirs = (first.schema.encode(s.y, len(s.x))[:, 1:] for s in (first, second))
    if first.schema.condition and first.schema.condition.labels:
        options |= {"labels": ours.argmax(1), "generated_labels": theirs.argmax(1)}
        return evaluate_rows(*rows, **options)
    if features is not None:
        raise UsageError(
            "features are of pictures with classes or without a condition, not numbers"
        )
    return evaluate_rows(
        *(None if s is None else append_condition_columns(s) for s in (first, second, third)),
        **options,
    )


def evaluate_rows(
    real: Any, generated: Any, train: Any, **options: Any
) -> dict[str, MetricEstimate]:
    """`metrics.evaluate`, with the training rows in third place."""
    return metrics.evaluate(real, generated, train=train, **options)


def append_condition_columns(samples: Dataset) -> np.ndarray:
    """Rows with their conditions, which are numbers, as further columns."""
    c = samples.schema.encode(samples.y, len(samples.x))[:, 1:]
    return np.hstack([samples.x.reshape(len(samples.x), -1), c])
