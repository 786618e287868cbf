"""Views: what a metric sees of two sets of rows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import UsageError
from . import classifier, frechet, modes, neighbours
from .classifier import FeatureClassifier
from .distances import Array


class MetricContext(NamedTuple):
    """What some views need beside the two sets of rows, all in the same units.

    Arguments:
        train: Training rows, or None.
        network: A classifier fitted to the real rows' labels, or None.
        centres: Cells of the real rows.
        seed: Of random directions and folds.
    """

    train: Array | None
    network: FeatureClassifier | None
    centres: Array
    seed: int


class MetricRows(NamedTuple):
    """Rows, and what else is known of each.

    Arguments:
        x: The data themselves, or features of them.
        classes: What a real row is, or what a generated row was asked to be.
        p: What the network that gave the features holds each class to be likely.
    """

    x: Array
    classes: np.ndarray | None = None
    p: Array | None = None

    def take(self, which: np.ndarray) -> "MetricRows":
        """Some of the rows."""
        return MetricRows(*(None if part is None else part[which] for part in self))  # type: ignore[arg-type]


View = Callable[[MetricRows, MetricRows, MetricContext], tuple[Array, Array]]


def first_5000(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """The first 5,000 rows, for sums over pairs."""
    return a.x[:5000], b.x[:5000]


def all_rows(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """All rows."""
    return a.x, b.x


def first_2000(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """The first 2,000 rows, for nearest neighbours."""
    return a.x[:2000], b.x[:2000]


def first_500(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """The first 500 rows, for exact assignment; on the line all rows."""
    n = 500 if a.x.shape[1] > 1 else None
    return a.x[:n], b.x[:n]


def rows_with_covariance(
    a: MetricRows, b: MetricRows, context: MetricContext
) -> tuple[Array, Array]:
    """All rows, if there are enough of them for a covariance."""
    frechet.check_covariance_rows(min(len(a.x), len(b.x)), a.x.shape[1])
    return a.x, b.x


def two_sample_scores(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """How generated the first 2,000 rows look to a classifier that was not fitted on them."""
    p, q = classifier.out_of_fold_scores(a.x[:2000], b.x[:2000], seed=context.seed)
    rng = np.random.default_rng(context.seed)
    return rng.permutation(p), rng.permutation(q)


def cell_numbers(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """The number of each row's cell."""
    x, y = (modes.nearest_centre(rows.x, context.centres).astype(np.float64) for rows in (a, b))
    return x, y


def train_distances(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """How far the first 2,000 rows are from the nearest training row."""
    if context.train is None:
        raise UsageError("nearest_train and copies compare with training rows, and none are given")
    x, y = (neighbours.nearest_distance(rows.x[:2000], context.train) for rows in (a, b))
    return x, y


def require_classifier(context: MetricContext) -> FeatureClassifier:
    if context.network is None:
        raise UsageError("classifier metrics need the classes of the real rows: give labels=")
    return context.network


def classifier_features(
    a: MetricRows, b: MetricRows, context: MetricContext
) -> tuple[Array, Array]:
    """The penultimate layer of the classifier of the real labels."""
    if a.p is not None:
        raise UsageError("with features=, the Fréchet distance is called frechet: ask for it")
    x, y = (require_classifier(context).features(rows.x) for rows in (a, b))
    frechet.check_covariance_rows(min(len(x), len(y)), x.shape[1])
    return x, y


def class_probabilities(
    a: MetricRows, b: MetricRows, context: MetricContext
) -> tuple[Array, Array]:
    """What the classifier of the real labels thinks of each row."""
    x, y = (row_probabilities(rows, context) for rows in (a, b))
    return x, y


def row_probabilities(rows: MetricRows, context: MetricContext) -> Array:
    return require_classifier(context).probabilities(rows.x) if rows.p is None else rows.p


def label_agreement(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    """Whether the classifier sees the class that was asked for, as zeros and ones."""
    network = require_classifier(context)
    if b.classes is None:
        raise UsageError("label_accuracy needs the class asked of each row: give generated_labels=")
    x, y = (network.classes[row_probabilities(r, context).argmax(1)] == r.classes for r in (a, b))
    return x.astype(np.float64), y.astype(np.float64)


OF_CLASSIFIER = (classifier_features, class_probabilities, label_agreement)


def floor_pair(
    view: View, real: MetricRows, reference: MetricRows
) -> tuple[MetricRows, MetricRows] | None:
    """The two sets of real rows between which a view's floor is measured, if there are any."""
    if view is train_distances:  # training rows are at distance zero from themselves
        half = np.arange(len(real.x)) % 2 == 0
        return real.take(half), real.take(~half)
    if view is label_agreement and reference.classes is None:
        return None
    return real, reference
