r"""Metrics by classifiers: can one tell real from generated, and what do labels say?"""

import hashlib
import warnings
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..errors import DataError, UsageError
from .distances import Array, sample_pair, sample_set


def out_of_fold_scores(
    real: np.ndarray, generated: np.ndarray, *, folds: int = 5, seed: int = 0
) -> tuple[Array, Array]:
    """The probability of being generated that boosted trees give each row they were not fitted on.

    From a stratified cross-validation, ``(n, 1)`` of the real and ``(m, 1)`` of the generated rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    x, y = sample_pair(real, generated)
    if min(len(x), len(y)) < 2 * folds:
        raise DataError(f"a classifier test needs {2 * folds} rows on each side: give more rows")
    label = np.repeat([0, 1], [len(x), len(y)])
    trees = HistGradientBoostingClassifier(
        max_iter=30,
        learning_rate=0.2,
        max_leaf_nodes=8,
        max_bins=63,
        early_stopping=False,
        random_state=seed,
    )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    rows = np.concatenate([x, y])
    p = cross_val_predict(trees, rows, label, cv=parts, method="predict_proba")[:, 1:]
    return p[: len(x)], p[len(x) :]


def separation_scores(real: Array, generated: Array) -> Array:
    """Balanced accuracy at one half, and AUROC, of two sets of scores, ``(2,)``.

    Given the scores, accuracy is a mean over rows; its cross-validated error has the spread of
    independent rows (Bayle et al., 2020), so leaving groups of scores out measures it.
    """
    from scipy.stats import rankdata

    n, m = len(real), len(generated)
    # a score of exactly one half is a coin toss
    hits = [np.mean(np.sign(s - 0.5)) for s in (-real + 1, generated)]
    ranks = rankdata(np.concatenate([real, generated]).ravel())[n:]
    auroc = (ranks.sum() - m * (m + 1) / 2) / (n * m)
    return np.array([0.5 + np.mean(hits) / 2, auroc])


def c2st(
    real: np.ndarray, generated: np.ndarray, *, folds: int = 5, seed: int = 0
) -> tuple[float, float]:
    r"""Classifier two-sample test: cross-validated accuracy and AUROC of telling rows apart.

    One half is perfect, 1 is plain to see (Lopez-Paz and Oquab, 2017). No classifier does better on
    :math:`\mathcal N(0, 1)` against :math:`\mathcal N(\Delta, 1)` than :math:`\Phi(|\Delta|/2)`.
    """
    scores = out_of_fold_scores(real, generated, folds=folds, seed=seed)
    accuracy, auroc = separation_scores(*scores)
    return float(accuracy), float(auroc)


@runtime_checkable
class FeatureClassifier(Protocol):
    """A classifier fitted to labels; its ``width`` features are the layer before the last."""

    @property
    def classes(self) -> np.ndarray: ...  # in the order of the outputs
    @property
    def width(self) -> int: ...
    @property
    def description(self) -> str: ...
    def features(self, x: np.ndarray) -> Array: ...
    def probabilities(self, x: np.ndarray) -> Array: ...
    def predict(self, x: np.ndarray) -> np.ndarray: ...


class _PerceptronClassifier(NamedTuple):
    weights: list[Array]
    biases: list[Array]
    classes: np.ndarray

    @property
    def width(self) -> int:
        return len(self.weights[-1])

    @property
    def description(self) -> str:
        return f"a perceptron of the real labels, {self.width} features of the standardised rows"

    def features(self, x: np.ndarray) -> Array:
        h = sample_set(x)
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = (h @ w + b).clip(0)
        return h

    def probabilities(self, x: np.ndarray) -> Array:
        from scipy.special import softmax

        return softmax(self.features(x) @ self.weights[-1] + self.biases[-1], axis=1)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes[self.probabilities(x).argmax(1)]


def fit_classifier(
    x: np.ndarray, labels: np.ndarray, *, width: int = 64, seed: int = 0
) -> FeatureClassifier:
    """Fit a small network to labelled data, the same one for the same data and seed.

    Images ``(n, *event)`` of more than 8 pixels a side get convolutions, other data a perceptron.
    Both want data whose deviation is about 1.

    Raises:
        DataError: If there is not one label for each row, or only one class.
    """
    rows, labels = sample_set(x), np.asarray(labels).ravel()
    if len(labels) != len(rows):
        raise DataError(f"{len(rows)} rows came with {len(labels)} labels: give one for each row")
    classes, code = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError("all labels are the same: a classifier needs at least two classes")
    event = np.shape(x)[1:]
    from ..networks.layout import is_large_image  # which imports torch

    if is_large_image(event):
        from . import feature_networks

        images = rows.reshape(-1, *event)
        return feature_networks.fit_convolutional(images, code, classes, width=width, seed=seed)
    return _fit_perceptron(rows, code, classes, width, seed)


_KEPT: dict[str, FeatureClassifier] = {}


def cached_classifier(x: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> FeatureClassifier:
    """`fit_classifier`, or the last one where data, labels and seed are those of the last call.

    A comparison judges every family by the same classifier, which takes longer to fit than to use.
    """
    digest = hashlib.sha256(np.ascontiguousarray(x).tobytes())
    digest.update(repr((x.shape, seed, np.asarray(labels).tolist())).encode())
    key = digest.hexdigest()
    if key not in _KEPT:
        found = fit_classifier(x, labels, seed=seed)
        _KEPT.clear()
        _KEPT[key] = found
    return _KEPT[key]


def _fit_perceptron(
    rows: Array, code: np.ndarray, classes: np.ndarray, width: int, seed: int
) -> _PerceptronClassifier:
    from sklearn.neural_network import MLPClassifier

    epochs = int(np.clip(300_000 // len(rows), 10, 200))  # some 1,500 steps of 200 rows
    net = MLPClassifier((128, width), alpha=1e-2, max_iter=epochs, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of steps is the recipe, converged or not
        net.fit(rows, code)
    *weights, w = net.coefs_
    *biases, b = net.intercepts_
    if len(classes) == 2:  # one logit z for two classes is the softmax of (0, z)
        w, b = np.pad(w, ((0, 0), (1, 0))), np.pad(b, (1, 0))
    return _PerceptronClassifier([*weights, w], [*biases, b], classes)


def classifier_score(probabilities: np.ndarray) -> float:
    r"""The Inception score's formula for any classifier (Salimans et al., 2016).

    .. math:: \exp \mathbb E_x\, \mathrm{KL}\big( p(y \mid x) \,\|\, p(y) \big)

    Runs from 1 to the number of classes. It never looks at real rows: eight single points can score
    more than the truth, so read it beside other metrics.

    Raises:
        UsageError: If rows of ``probabilities`` do not sum to one.
    """
    from scipy.special import rel_entr

    p = sample_set(probabilities, "probability")
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise UsageError("rows of probabilities must be positive and sum to one: apply a softmax")
    return float(np.exp(rel_entr(p, p.mean(0)).sum(1).mean()))
