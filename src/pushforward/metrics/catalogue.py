"""Every metric that ``evaluate`` knows: what it is computed from, and what it means in one line.

A metric is a *view*, which turns a pair of row sets into a pair of arrays, and a *replicate*, which
turns those into a value and its jackknife replicates. Metrics that share both are computed once.
"""

from typing import NamedTuple

from ..errors import UsageError
from . import classifier, frechet, inputs, kernels, modes, neighbours, wasserstein
from .estimate import Better, Replicate, jackknife_replicates


class Metric(NamedTuple):
    """One line of the catalogue."""

    view: inputs.View
    replicate: Replicate
    entry: int  # which entry of the replicate's value
    better: Better
    unit: str
    meaning: str


_neighbours = jackknife_replicates(neighbours.prdc)
_separation = jackknife_replicates(classifier.separation_scores)
_memorisation = jackknife_replicates(neighbours.memorisation_scores)
_frechet = jackknife_replicates(frechet.gaussian_fit_distance)

METRICS: dict[str, Metric] = {
    "energy": Metric(
        inputs.first_5000,
        kernels.energy_replicates,
        0,
        "lower",
        "real standard deviations",
        "energy distance: 0 if and only if the laws agree; unbiased, so it can fall below 0",
    ),
    "mmd": Metric(
        inputs.first_5000,
        kernels.mmd_replicates,
        0,
        "lower",
        "",
        "squared kernel distance over five widths: 0 if and only if the laws agree; unbiased",
    ),
    "kid": Metric(
        inputs.first_5000,
        kernels.kid_replicates,
        0,
        "lower",
        "",
        "kernel distance of moments up to the third of the standardised rows; unbiased",
    ),
    "sliced_w2": Metric(
        inputs.all_rows,
        jackknife_replicates(wasserstein.sliced_w2),
        0,
        "lower",
        "real standard deviations",
        "how far mass must move along an average direction, root mean square",
    ),
    "w1": Metric(
        inputs.first_500,
        jackknife_replicates(wasserstein.w1),
        0,
        "lower",
        "real standard deviations",
        "how far mass must move on average, at best (exact on up to 500 rows; all rows in 1-D)",
    ),
    "w2": Metric(
        inputs.first_500,
        jackknife_replicates(wasserstein.w2),
        0,
        "lower",
        "real standard deviations",
        "how far mass must move, root mean square (exact on up to 500 rows; all rows in 1-D)",
    ),
    "frechet": Metric(
        inputs.rows_with_covariance,
        _frechet,
        0,
        "lower",
        "real variances",
        "Fréchet distance of the standardised rows: sees means and covariances alone",
    ),
    "c2st": Metric(
        inputs.two_sample_scores,
        _separation,
        0,
        "lower",
        "fraction",
        "accuracy of boosted trees that tell real from generated: 0.5 is perfect, 1 plain to see",
    ),
    "c2st_auroc": Metric(
        inputs.two_sample_scores,
        _separation,
        1,
        "lower",
        "fraction",
        "how often a generated row looks more generated than a real one: 0.5 is perfect",
    ),
    "precision": Metric(
        inputs.first_2000,
        _neighbours,
        0,
        "higher",
        "fraction",
        "generated rows that lie among real rows: are samples plausible?",
    ),
    "recall": Metric(
        inputs.first_2000,
        _neighbours,
        1,
        "higher",
        "fraction",
        "real rows that lie among generated rows: is anything missing?",
    ),
    "density": Metric(
        inputs.first_2000,
        _neighbours,
        2,
        "higher",
        "",
        "how many real rows surround a generated row: about 1 for the true law",
    ),
    "coverage": Metric(
        inputs.first_2000,
        _neighbours,
        3,
        "higher",
        "fraction",
        "real rows with a generated row nearby: is anything missing? bears outliers well",
    ),
    "mode_coverage": Metric(
        inputs.cell_numbers,
        jackknife_replicates(modes.covered_mass),
        0,
        "higher",
        "fraction",
        "real rows in the k-means cells that generated rows reach: 0.8 or less is mode collapse",
    ),
    "nearest_train": Metric(
        inputs.train_distances,
        _memorisation,
        0,
        "higher",
        "ratio",
        "distance to the nearest training row over that of held-out rows: near 0 is memorisation",
    ),
    "copies": Metric(
        inputs.train_distances,
        _memorisation,
        1,
        "lower",
        "fraction",
        "generated rows that equal a training row exactly",
    ),
    "classifier_frechet": Metric(
        inputs.classifier_features,
        _frechet,
        0,
        "lower",
        "",
        "Fréchet distance in the 64 features of a classifier of the real labels",
    ),
    "classifier_score": Metric(
        inputs.class_probabilities,
        jackknife_replicates(lambda a, b: classifier.classifier_score(b)),
        0,
        "higher",
        "classes",
        "how sure and how varied the classes of generated rows are: 1 to the number of classes",
    ),
    "label_accuracy": Metric(
        inputs.label_agreement,
        jackknife_replicates(lambda a, b: float(b.mean())),
        0,
        "higher",
        "fraction",
        "generated rows in which a classifier sees the class that was asked for",
    ),
}


def metric_names() -> list[str]:
    """All metrics that ``evaluate`` knows."""
    return list(METRICS)


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: If there is none.
    """
    if name not in METRICS:
        raise UsageError(f"no metric is called {name!r}; choose from {', '.join(METRICS)}")
    return METRICS[name]


def metric_meaning(name: str) -> str:
    """What a metric's number means, in one line."""
    return get_metric(name).meaning


def better_direction(name: str) -> Better:
    """Whether "lower" or "higher" values of a metric are better."""
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
    """The metrics that are taken in features by default.

    Arguments:
        scored: Whether the network tells classes.
        asked: Whether its classes are those that generated rows were asked to be.
    """
    chosen = ["frechet", "kid", "precision", "recall", "density", "coverage"]
    return chosen + ["classifier_score"] * scored + ["label_accuracy"] * asked


def feature_metric_name(name: str, extractor: str) -> str:
    """A metric's name where it is taken in features: FD-EffLite0, never FID."""
    return f"{SHORT.get(name, name)}-{extractor}"
