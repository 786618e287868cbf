"""Every metric that ``evaluate`` knows: what it is computed from, and what it means in one line.

A metric is a *view*, which turns a pair of row sets into a pair of arrays, and a *replicate*, which
turns those into a value and its jackknife replicates. Metrics that share both are computed once.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import UsageError
from ..theory import sample_statistics
from . import classifier, kernels, neighbours, wasserstein
from .classifier import FeatureClassifier
from .distances import Array
from .estimate import Better, Replicate, jackknife_replicates


class MetricContext(NamedTuple):
    """What some views need beside the two sets of rows, all in the same units."""

    train: Array | None
    network: FeatureClassifier | None  # fitted to the real rows' labels
    centres: Array  # of cells of the real rows
    seed: int  # of random directions and folds


class MetricRows(NamedTuple):
    x: Array  # the data themselves, or features of them
    classes: np.ndarray | None = None  # what a real row is, or a generated row was asked to be
    p: Array | None = None  # the class probabilities of the network that gave the features

    def take(self, which: np.ndarray) -> "MetricRows":
        return MetricRows(*(None if part is None else part[which] for part in self))  # type: ignore[arg-type]


View = Callable[[MetricRows, MetricRows, MetricContext], tuple[Array, Array]]


def _first_rows(n: int | None) -> View:
    return lambda a, b, context: (a.x[:n], b.x[:n])


_all_rows = _first_rows(None)
_first_5000 = _first_rows(5000)  # for sums over pairs
_first_2000 = _first_rows(2000)  # for nearest neighbours


def _assignable_rows(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    n = 500 if a.x.shape[1] > 1 else None  # on the line all rows
    return a.x[:n], b.x[:n]


def _rows_with_covariance(
    a: MetricRows, b: MetricRows, context: MetricContext
) -> tuple[Array, Array]:
    wasserstein.check_covariance_rows(min(len(a.x), len(b.x)), a.x.shape[1])
    return a.x, b.x


def _two_sample_scores(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    p, q = classifier.out_of_fold_scores(a.x[:2000], b.x[:2000], seed=context.seed)
    rng = np.random.default_rng(context.seed)
    return rng.permutation(p), rng.permutation(q)


def _cell_numbers(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    x, y = (neighbours.nearest_centre(rows.x, context.centres) for rows in (a, b))
    return x.astype(np.float64), y.astype(np.float64)


def _train_distances(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    if context.train is None:
        raise UsageError("nearest_train and copies compare with training rows, and none are given")
    x, y = (neighbours.nearest_distance(rows.x[:2000], context.train) for rows in (a, b))
    return x, y


def _require_classifier(context: MetricContext) -> FeatureClassifier:
    if context.network is None:
        raise UsageError("classifier metrics need the classes of the real rows: give labels=")
    return context.network


def _classifier_features(
    a: MetricRows, b: MetricRows, context: MetricContext
) -> tuple[Array, Array]:
    if a.p is not None:
        raise UsageError("with features=, the Fréchet distance is called frechet: ask for it")
    x, y = (_require_classifier(context).features(rows.x) for rows in (a, b))
    wasserstein.check_covariance_rows(min(len(x), len(y)), x.shape[1])
    return x, y


def _class_probabilities(
    a: MetricRows, b: MetricRows, context: MetricContext
) -> tuple[Array, Array]:
    return _row_probabilities(a, context), _row_probabilities(b, context)


def _row_probabilities(rows: MetricRows, context: MetricContext) -> Array:
    return _require_classifier(context).probabilities(rows.x) if rows.p is None else rows.p


def _label_agreement(a: MetricRows, b: MetricRows, context: MetricContext) -> tuple[Array, Array]:
    network = _require_classifier(context)
    if b.classes is None:
        raise UsageError("label_accuracy needs the class asked of each row: give generated_labels=")
    x, y = (network.classes[_row_probabilities(r, context).argmax(1)] == r.classes for r in (a, b))
    return x.astype(np.float64), y.astype(np.float64)


OF_CLASSIFIER = (_classifier_features, _class_probabilities, _label_agreement)


def floor_pair(
    view: View, real: MetricRows, reference: MetricRows
) -> tuple[MetricRows, MetricRows] | None:
    """The two sets of real rows between which a view's floor is measured, if there are any."""
    if view is _train_distances:  # training rows are at distance zero from themselves
        half = np.arange(len(real.x)) % 2 == 0
        return real.take(half), real.take(~half)
    if view is _label_agreement and reference.classes is None:
        return None
    return real, reference


class Metric(NamedTuple):
    view: View
    replicate: Replicate
    entry: int  # which entry of the replicate's value
    better: Better
    unit: str
    meaning: str


SD = "real standard deviations"
_neighbours = jackknife_replicates(neighbours.prdc)
_separation = jackknife_replicates(classifier.separation_scores)
_memorisation = jackknife_replicates(neighbours.memorisation_scores)
_covered = jackknife_replicates(sample_statistics.covered_mass)
_sliced_w2 = jackknife_replicates(wasserstein.sliced_w2)
_w1, _w2 = jackknife_replicates(wasserstein.w1), jackknife_replicates(wasserstein.w2)
_score = jackknife_replicates(lambda a, b: classifier.classifier_score(b))
_accuracy = jackknife_replicates(lambda a, b: float(b.mean()))
_frechet = jackknife_replicates(wasserstein.gaussian_fit_distance)

METRICS: dict[str, Metric] = {
    "energy": Metric(_first_5000, kernels.energy_replicates, 0, "lower", SD,
        "energy distance: 0 only for equal distributions; unbiased, so it can fall below 0"),
    "mmd": Metric(_first_5000, kernels.mmd_replicates, 0, "lower", "",
        "squared kernel distance over five widths: 0 only for equal distributions; unbiased"),
    "kid": Metric(_first_5000, kernels.kid_replicates, 0, "lower", "",
        "kernel distance of moments up to the third of the standardised rows; unbiased"),
    "sliced_w2": Metric(_all_rows, _sliced_w2, 0, "lower", SD,
        "how far mass must move along an average direction, root mean square"),
    "w1": Metric(_assignable_rows, _w1, 0, "lower", SD,
        "how far mass must move on average, at best (exact on up to 500 rows; all rows in 1-D)"),
    "w2": Metric(_assignable_rows, _w2, 0, "lower", SD,
        "how far mass must move, root mean square (exact on up to 500 rows; all rows in 1-D)"),
    "frechet": Metric(_rows_with_covariance, _frechet, 0, "lower", "real variances",
        "Fréchet distance of the standardised rows: sees means and covariances alone"),
    "c2st": Metric(_two_sample_scores, _separation, 0, "lower", "fraction",
        "accuracy of boosted trees that tell real from generated: 0.5 is perfect, 1 is obvious"),
    "c2st_auroc": Metric(_two_sample_scores, _separation, 1, "lower", "fraction",
        "how often a generated row looks more generated than a real one: 0.5 is perfect"),
    "precision": Metric(_first_2000, _neighbours, 0, "higher", "fraction",
        "generated rows that lie among real rows: are samples plausible?"),
    "recall": Metric(_first_2000, _neighbours, 1, "higher", "fraction",
        "real rows that lie among generated rows: is anything missing?"),
    "density": Metric(_first_2000, _neighbours, 2, "higher", "",
        "how many real rows surround a generated row: about 1 for the true distribution"),
    "coverage": Metric(_first_2000, _neighbours, 3, "higher", "fraction",
        "real rows with a generated row nearby: is anything missing? bears outliers well"),
    "mode_coverage": Metric(_cell_numbers, _covered, 0, "higher", "fraction",
        "real rows in the k-means cells that generated rows reach: 0.8 or less is mode collapse"),
    "nearest_train": Metric(_train_distances, _memorisation, 0, "higher", "ratio",
        "distance to the nearest training row over that of held-out rows: near 0 is memorisation"),
    "copies": Metric(_train_distances, _memorisation, 1, "lower", "fraction",
        "generated rows that equal a training row exactly"),
    "classifier_frechet": Metric(_classifier_features, _frechet, 0, "lower", "",
        "Fréchet distance in the 64 features of a classifier of the real labels"),
    "classifier_score": Metric(_class_probabilities, _score, 0, "higher", "classes",
        "how sure and how varied the classes of generated rows are: 1 to the number of classes"),
    "label_accuracy": Metric(_label_agreement, _accuracy, 0, "higher", "fraction",
        "generated rows in which a classifier sees the class that was asked for"),
}  # fmt: skip


def metric_names() -> list[str]:
    return list(METRICS)


def get_metric(name: str) -> Metric:
    if name not in METRICS:
        raise UsageError(f"no metric is called {name!r}; choose from {', '.join(METRICS)}")
    return METRICS[name]


def metric_meaning(name: str) -> str:
    """What a metric's number means, in one line."""
    return get_metric(name).meaning


def better_direction(name: str) -> Better:
    return get_metric(name).better


def default_metrics(n: int, d: int, *, train: bool, labels: bool, asked: bool) -> list[str]:
    """The metrics that make sense for ``n`` rows of ``d`` entries and what is known of them."""
    chosen = ["energy", "mmd", "sliced_w2", "w1", "c2st"]
    if d == 1:
        chosen[2] = "w2"  # there is one direction to slice along
    chosen += ["precision", "recall", "density", "coverage", "mode_coverage"]
    chosen += ["frechet"] if 1 < d <= min(n / 10, 256) else []
    chosen += ["nearest_train", "copies"] if train else []
    chosen += ["classifier_score"] if labels else []
    chosen += ["classifier_frechet"] if labels and n > 64 else []
    return chosen + (["label_accuracy"] if labels and asked else [])


SHORT = {"frechet": "FD", "kid": "KID", "classifier_score": "IS"}


def default_feature_metrics(scored: bool, asked: bool) -> list[str]:
    """The default in features, of a network that tells classes or the ones that were asked for."""
    chosen = ["frechet", "kid", "precision", "recall", "density", "coverage"]
    return chosen + ["classifier_score"] * scored + ["label_accuracy"] * asked


def feature_metric_name(name: str, extractor: str) -> str:
    """FD-EffLite0, never FID."""
    return f"{SHORT.get(name, name)}-{extractor}"
