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

    Classes in the column ``condition`` are labels: the classifier metrics take them, and the
    others see the rest of the columns. Numbers there stay with the other columns. Without a
    ``condition``, a column that both have is a column like any other.
    """
    ours = reading.read_dataset(real, condition=condition, size=size)
    theirs = reading.read_with_schema(generated, ours.schema)
    fitted = None if train is None else reading.read_with_schema(train, ours.schema)
    sources = (ours, theirs, fitted)
    options: dict[str, Any] = {"metrics": names, "seed": seed, "features": features}
    rows = [None if s is None else s.x for s in sources]
    if ours.y is not None:
        if theirs.y is None:
            raise DataError(f"the generated data lack {condition!r}: sample them from a fit")
        if ours.schema.condition and ours.schema.condition.labels:
            options["labels"] = _encode_conditions(ours).argmax(1)
            options["generated_labels"] = _encode_conditions(theirs).argmax(1)
        elif features is not None:
            what = "features are of images with classes or without a condition, not numbers"
            raise UsageError(what)
        else:
            rows = [None if s is None else _append_condition_columns(s) for s in sources]
    return metrics.evaluate(rows[0], rows[1], train=rows[2], **options)


def _encode_conditions(samples: Dataset) -> np.ndarray:
    return samples.schema.encode(samples.y, len(samples.x))[:, 1:]


def _append_condition_columns(samples: Dataset) -> np.ndarray:
    return np.hstack([samples.x.reshape(len(samples.x), -1), _encode_conditions(samples)])
