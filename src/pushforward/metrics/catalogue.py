"""Every metric that ``evaluate`` knows: what it is computed from, and what it means in one line.

A metric is a *view*, which turns a pair of row sets into a pair of arrays, and a *replicate*, which
turns those into a value and its jackknife replicates. Metrics that share both are computed once.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import UsageError
from . import classifier, frechet, kernels, modes, neighbours, wasserstein
from .estimate import Better, Replicate, leave_out
from .pairwise import Array


class Context(NamedTuple):
    """What some views need beside the two sets of rows, all in the same units.

    Arguments:
        train: Training rows, or None.
        network: A classifier fitted to the real rows' labels, or None.
        centres: Cells of the real rows.
        seed: Of random directions and folds.
    """

    train: Array | None
    network: classifier.Classifier | None
    centres: Array
    seed: int


class Rows(NamedTuple):
    """Rows, and the class of each: what a real row is, or what a generated row was asked to be."""

    x: Array
    classes: np.ndarray | None = None

    def take(self, which: np.ndarray) -> "Rows":
        """Some of the rows."""
        return Rows(self.x[which], None if self.classes is None else self.classes[which])


View = Callable[[Rows, Rows, Context], tuple[Array, Array]]


class Metric(NamedTuple):
    """One line of the catalogue."""

    view: View
    replicate: Replicate
    entry: int  # which entry of the replicate's value
    better: Better
    unit: str
    meaning: str


def _many(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    """The first 5,000 rows, for sums over pairs."""
    return a.x[:5000], b.x[:5000]


def _plain(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    return a.x, b.x


def _few(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    """The first 2,000 rows, for nearest neighbours."""
    return a.x[:2000], b.x[:2000]


def _fewer(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    """The first 500 rows, for exact assignment; on the line all rows."""
    n = 500 if a.x.shape[1] > 1 else None
    return a.x[:n], b.x[:n]


def _wide(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    frechet.check_size(min(len(a.x), len(b.x)), a.x.shape[1])
    return a.x, b.x


def _scores(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    p, q = classifier.out_of_fold_scores(a.x[:2000], b.x[:2000], seed=context.seed)
    rng = np.random.default_rng(context.seed)
    return rng.permutation(p), rng.permutation(q)


def _cells(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    x, y = (modes.cell_of(rows.x, context.centres).astype(np.float64) for rows in (a, b))
    return x, y


def _to_train(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    if context.train is None:
        raise UsageError("nearest_train and copies compare with training rows: give train=")
    x, y = (neighbours.nearest_distance(rows.x[:2000], context.train) for rows in (a, b))
    return x, y


def _network(context: Context) -> classifier.Classifier:
    if context.network is None:
        raise UsageError("classifier metrics need the classes of the real rows: give labels=")
    return context.network


def _features(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    x, y = (_network(context).features(rows.x) for rows in (a, b))
    frechet.check_size(min(len(x), len(y)), x.shape[1])
    return x, y


def _probabilities(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    x, y = (_network(context).probabilities(rows.x) for rows in (a, b))
    return x, y


def _agreement(a: Rows, b: Rows, context: Context) -> tuple[Array, Array]:
    """Whether the classifier sees the class that was asked for, as zeros and ones."""
    network = _network(context)
    if b.classes is None:
        raise UsageError("label_accuracy needs the class asked of each row: give generated_labels=")
    x, y = (network.predict(rows.x) == rows.classes for rows in (a, b))
    return x.astype(np.float64), y.astype(np.float64)


def floor_pair(view: View, real: Rows, reference: Rows) -> tuple[Rows, Rows] | None:
    """The two sets of real rows between which a view's floor is measured, if there are any."""
    if view is _to_train:  # training rows are at distance zero from themselves
        half = np.arange(len(real.x)) % 2 == 0
        return real.take(half), real.take(~half)
    if view is _agreement and reference.classes is None:
        return None
    return real, reference


_neighbours = leave_out(neighbours.prdc)
_separation = leave_out(classifier.separation)
_memorisation = leave_out(neighbours.memorisation)
_frechet = leave_out(frechet.gaussian_fit_distance)

METRICS: dict[str, Metric] = {
    "energy": Metric(
        _many,
        kernels.energy_replicates,
        0,
        "lower",
        "real standard deviations",
        "energy distance: 0 if and only if the laws agree; unbiased, so it can fall below 0",
    ),
    "mmd": Metric(
        _many,
        kernels.mmd_replicates,
        0,
        "lower",
        "",
        "squared kernel distance over five widths: 0 if and only if the laws agree; unbiased",
    ),
    "kid": Metric(
        _many,
        kernels.kid_replicates,
        0,
        "lower",
        "",
        "kernel distance of moments up to the third of the standardised rows; unbiased",
    ),
    "sliced_w2": Metric(
        _plain,
        leave_out(wasserstein.sliced_w2),
        0,
        "lower",
        "real standard deviations",
        "how far mass must move along an average direction, root mean square",
    ),
    "w1": Metric(
        _fewer,
        leave_out(wasserstein.w1),
        0,
        "lower",
        "real standard deviations",
        "how far mass must move on average, at best (exact on up to 500 rows; all rows in 1-D)",
    ),
    "w2": Metric(
        _fewer,
        leave_out(wasserstein.w2),
        0,
        "lower",
        "real standard deviations",
        "how far mass must move, root mean square (exact on up to 500 rows; all rows in 1-D)",
    ),
    "frechet": Metric(
        _wide,
        _frechet,
        0,
        "lower",
        "real variances",
        "Fréchet distance of the standardised rows: sees means and covariances alone",
    ),
    "c2st": Metric(
        _scores,
        _separation,
        0,
        "lower",
        "fraction",
        "accuracy of boosted trees that tell real from generated: 0.5 is perfect, 1 plain to see",
    ),
    "c2st_auroc": Metric(
        _scores,
        _separation,
        1,
        "lower",
        "fraction",
        "how often a generated row looks more generated than a real one: 0.5 is perfect",
    ),
    "precision": Metric(
        _few,
        _neighbours,
        0,
        "higher",
        "fraction",
        "generated rows that lie among real rows: are samples plausible?",
    ),
    "recall": Metric(
        _few,
        _neighbours,
        1,
        "higher",
        "fraction",
        "real rows that lie among generated rows: is anything missing?",
    ),
    "density": Metric(
        _few,
        _neighbours,
        2,
        "higher",
        "",
        "how many real rows surround a generated row: about 1 for the true law",
    ),
    "coverage": Metric(
        _few,
        _neighbours,
        3,
        "higher",
        "fraction",
        "real rows with a generated row nearby: is anything missing? bears outliers well",
    ),
    "mode_coverage": Metric(
        _cells,
        leave_out(modes.kept_cells),
        0,
        "higher",
        "fraction",
        "real rows in the k-means cells that generated rows reach: 0.8 or less is mode collapse",
    ),
    "nearest_train": Metric(
        _to_train,
        _memorisation,
        0,
        "higher",
        "ratio",
        "distance to the nearest training row over that of held-out rows: near 0 is memorisation",
    ),
    "copies": Metric(
        _to_train,
        _memorisation,
        1,
        "lower",
        "fraction",
        "generated rows that equal a training row exactly",
    ),
    "classifier_frechet": Metric(
        _features,
        _frechet,
        0,
        "lower",
        "",
        "Fréchet distance in the 64 features of a classifier of the real labels",
    ),
    "classifier_score": Metric(
        _probabilities,
        leave_out(lambda a, b: classifier.classifier_score(b)),
        0,
        "higher",
        "classes",
        "how sure and how varied the classes of generated rows are: 1 to the number of classes",
    ),
    "label_accuracy": Metric(
        _agreement,
        leave_out(lambda a, b: float(b.mean())),
        0,
        "higher",
        "fraction",
        "generated rows in which a classifier sees the class that was asked for",
    ),
}


def names() -> list[str]:
    """All metrics that ``evaluate`` knows."""
    return list(METRICS)


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: If there is none.
    """
    if name not in METRICS:
        raise UsageError(f"no metric is called {name!r}; choose from {', '.join(METRICS)}")
    return METRICS[name]


def meaning(name: str) -> str:
    """What a metric's number means, in one line."""
    return metric(name).meaning


def better(name: str) -> Better:
    """Whether "lower" or "higher" values of a metric are better."""
    return metric(name).better


def defaults(n: int, d: int, *, train: bool, labels: bool, asked: bool) -> list[str]:
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
