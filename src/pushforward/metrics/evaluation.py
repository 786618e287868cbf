"""``evaluate``: choose metrics, standardise, split, measure, and say how sure we are."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, UsageError
from ..options import check_seed
from . import catalogue, classifier, extractors, neighbours, wasserstein
from .catalogue import Metric, MetricContext, MetricRows, get_metric
from .classifier import FeatureClassifier
from .distances import Array, sample_pair
from .estimate import GROUPS, MetricEstimate, jackknife_interval
from .extractors import FeatureExtractor, PixelRange

MIN_ROWS = 2 * GROUPS


def evaluate(
    real: object,
    generated: object,
    *,
    metrics: Sequence[str] | None = None,
    train: object | None = None,
    labels: object | None = None,
    generated_labels: object | None = None,
    features: Any = None,
    seed: int = 0,
    max_n: int = 10_000,
) -> dict[str, MetricEstimate]:
    """Compare generated rows with real rows.

    Columns are first divided by the real rows' standard deviation (images by one number for all
    pixels), so distances are in real standard deviations. The floor needs real rows to stand in for
    a perfect model's: the training rows where they are given, otherwise half of the real rows. All
    sets are cut to the same size, the ``n`` of each estimate, drawn without replacement; assignment
    uses at most 500 of these rows, neighbours and classifier tests at most 2,000.

    With ``features``, the metrics are taken in features of the data in their place, by default the
    Fréchet distance, KID, precision, recall, density, coverage and, if the network tells classes,
    the Inception score's formula. Each estimate then has the network in its name, and in words with
    what was done to the images before.

    Arguments:
        real: Held-out real data, ``(n, *event)``; numbers alone are one column.
        generated: Generated data of the same event shape.
        metrics: Names from ``metric_names()``; by default those that suit the data.
        train: Rows the model was fitted to, for memorisation and the floor.
        labels: Classes of the real rows, for the classifier metrics.
        generated_labels: The classes asked of the generated rows.
        features: "classifier" (one fitted to the labels), "efflite0" (of ImageNet, from the extra
            ``features``), "raw" (the pixels), a ``torch.nn.Module`` of images from 0 to 1, or the
            place of one: a file of TorchScript or ``torch.export``, or "module:attribute".
        seed: Of every random choice.
        max_n: Most rows of each set.

    Raises:
        UsageError: If a metric does not exist or lacks what it needs.
        DataError: If rows are not finite numbers, too few, of different widths or value ranges.
    """
    check_seed(seed)
    seed %= 2**32  # scikit-learn takes no larger one
    for name in metrics or ():
        get_metric(name)
    x, y = sample_pair(real, generated)
    event = np.shape(real)[1:]  # type: ignore[call-overload]
    image = len(event) > 1
    if image:
        extractors.check_same_range(x, y)
    pixels = extractors.fit_pixel_range(x, event, y) if image else None
    scale = _Standardiser(event, x.mean(0), column_scales(x, image), pixels)
    rows = MetricRows(scale.standardise(x), _check_labels(labels, len(x), "real"))
    made = MetricRows(scale.standardise(y), _check_labels(generated_labels, len(y), "generated"))
    t = None if train is None else scale.standardise(sample_pair(real, train)[1])
    samples = _split_samples(rows, made, t, np.random.default_rng(seed), max_n)
    asked = generated_labels is not None
    if features is not None:
        return _evaluate_in_features(features, metrics, samples, t, scale, asked, seed)
    known = {"train": t is not None, "labels": labels is not None}
    chosen = metrics or catalogue.default_metrics(*samples.real.x.shape, **known, asked=asked)
    network = _label_classifier(chosen, samples.real, event, seed)
    return _estimate_metrics(chosen, samples, _view_context(chosen, samples.real, t, network, seed))


class _Standardiser(NamedTuple):
    event: tuple[int, ...]
    mean: Array  # of the real rows
    scale: Array  # of each column, or of all pixels
    pixels: PixelRange | None  # of images

    def standardise(self, x: Array) -> Array:
        return (x - self.mean) / self.scale

    def restore(self, rows: Array) -> Array:
        return rows * self.scale + self.mean


def _evaluate_in_features(
    features: Any,
    metrics: Sequence[str] | None,
    samples: "_MetricSamples",
    train: Array | None,
    scale: _Standardiser,
    asked: bool,
    seed: int,
) -> dict[str, MetricEstimate]:
    own = isinstance(features, str) and features == "classifier"
    network = _label_classifier(["classifier"], samples.real, scale.event, seed) if own else None
    extract = _resolve_extractor(features, network, scale)
    chosen = metrics or catalogue.default_feature_metrics(extract.scored, asked and own)
    _check_feature_metrics(chosen, extract, len(samples.real.x))
    samples = _MetricSamples(*(_extract_rows(part, extract) for part in samples))
    if train is not None and {"nearest_train", "copies"} & set(chosen):
        train = extract.features(train).x
    context = _view_context(chosen, samples.real, train, network, seed)
    return _estimate_metrics(chosen, samples, context, extract)


def column_scales(x: Array, image: bool) -> Array:
    """The standard deviation of each column, or of all pixels; constant columns keep their unit."""
    unit = np.maximum(np.abs(x).max(0), 1e-300)  # squares neither overflow nor vanish
    unit = unit.max(keepdims=True) if image else unit
    scale = (x / unit).std(0)
    scale = unit * (np.sqrt(np.square(scale).mean(keepdims=True)) if image else scale)
    return np.where(scale > 1e-12 * np.abs(x).max(0), scale, 1.0)


def _check_labels(labels: object | None, n: int, name: str) -> np.ndarray | None:
    if labels is None:
        return None
    classes = np.asarray(labels).ravel()
    if len(classes) != n:
        raise DataError(f"{n} {name} rows came with {len(classes)} labels: give one for each row")
    return classes


Measured = tuple[Array, Array, Array, Array, int]  # value, low, high, floor, rows


class _MetricSamples(NamedTuple):
    real: MetricRows
    generated: MetricRows
    reference: MetricRows  # stands for what a perfect model would make


def _split_samples(
    real: MetricRows,
    generated: MetricRows,
    train: Array | None,
    rng: np.random.Generator,
    max_n: int,
) -> _MetricSamples:
    n = len(real.x) // 2 if train is None else min(len(real.x), len(train))
    n = min(n, len(generated.x), max_n)
    if n < MIN_ROWS:
        raise DataError(
            f"{len(real.x)} real and {len(generated.x)} generated rows are too few: give at least "
            f"{MIN_ROWS} generated and {2 * MIN_ROWS} real ones"
        )
    order, other = rng.permutation(len(real.x)), rng.permutation(len(generated.x))
    if train is None:
        reference = real.take(order[n : 2 * n])
    else:
        reference = MetricRows(train[rng.permutation(len(train))[:n]])
    return _MetricSamples(real.take(order[:n]), generated.take(other[:n]), reference)


def _label_classifier(
    chosen: Sequence[str], real: MetricRows, event: tuple[int, ...], seed: int
) -> FeatureClassifier | None:
    if real.classes is None or not any(m.startswith(("classifier", "label")) for m in chosen):
        return None
    return classifier.cached_classifier(real.x.reshape(-1, *event), real.classes, seed=seed)


def _resolve_extractor(
    features: Any, network: FeatureClassifier | None, scale: _Standardiser
) -> FeatureExtractor:
    if network is not None:
        return extractors.classifier_extractor(network)
    if isinstance(features, str) and features == "classifier":
        raise UsageError("features of a classifier need classes: give labels=, or --condition")
    if scale.pixels is None:
        raise UsageError(f"features {str(features)[:60]} are of images, and the data are none")
    found = extractors.feature_extractor(features, scale.pixels)
    return found._replace(features=lambda rows: found.features(scale.restore(rows)))


def _check_feature_metrics(chosen: Sequence[str], extract: FeatureExtractor, n: int) -> None:
    if "label_accuracy" in chosen and extract.name != "classifier":
        raise UsageError("label_accuracy is of a classifier of the labels: features=classifier")
    if "frechet" in chosen and extract.d:
        wasserstein.check_covariance_rows(n, extract.d)


def _extract_rows(rows: MetricRows, extract: FeatureExtractor) -> MetricRows:
    found = extract.features(rows.x)
    return MetricRows(found.x, rows.classes, found.p)


def _view_context(
    chosen: Sequence[str],
    real: MetricRows,
    train: Array | None,
    network: FeatureClassifier | None,
    seed: int,
) -> MetricContext:
    centres = real.x[:1]
    if "mode_coverage" in chosen:
        centres = neighbours.kmeans_centres(real.x, seed=seed)
    return MetricContext(train, network, centres, seed)


def _measure_metric(m: Metric, samples: _MetricSamples, context: MetricContext) -> Measured:
    a, b = m.view(samples.real, samples.generated, context)
    value, left = m.replicate(a, b, GROUPS)
    pair = catalogue.floor_pair(m.view, samples.real, samples.reference)
    floor = m.replicate(*m.view(*pair, context), 0)[0] if pair else np.full_like(value, np.nan)
    return value, *jackknife_interval(value, left), floor, len(b)


def _estimate_metrics(
    chosen: Sequence[str],
    samples: _MetricSamples,
    context: MetricContext,
    extract: FeatureExtractor | None = None,
) -> dict[str, MetricEstimate]:
    shared: dict[object, Measured] = {}
    out = {}
    for name in chosen:
        m = get_metric(name)
        key = m.view, m.replicate
        if key not in shared:
            shared[key] = _measure_metric(m, samples, context)
        value, low, high, floor = (float(v[m.entry]) for v in shared[key][:4])
        if m.unit == "fraction":
            low, high = max(low, 0.0), min(high, 1.0)
        found = MetricEstimate(value, low, high, floor, name, m.unit, m.better, shared[key][4])
        out[name] = _label_estimate(found, m, context, extract)
    return out


def _label_estimate(
    e: MetricEstimate, m: Metric, context: MetricContext, extract: FeatureExtractor | None
) -> MetricEstimate:
    if extract is not None:
        name = catalogue.feature_metric_name(e.name, extract.name)
        unit = "" if e.unit.startswith("real ") else e.unit
        return e._replace(name=name, unit=unit, features=extract.description)
    if context.network is not None and m.view in catalogue.OF_CLASSIFIER:
        return e._replace(features=context.network.description)
    return e
