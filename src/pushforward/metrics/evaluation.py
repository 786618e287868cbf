"""``evaluate``: choose metrics, standardise, split, measure, and say how sure we are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..options import seed as check_seed
from . import classifier, modes
from .catalogue import Metric, defaults, metric
from .estimate import GROUPS, Estimate, interval
from .pairwise import Array, sample_pair
from .views import Context, Rows, floor_pair

MIN_ROWS = 2 * GROUPS


def evaluate(
    real: object,
    generated: object,
    *,
    metrics: Sequence[str] | None = None,
    train: object | None = None,
    labels: object | None = None,
    generated_labels: object | None = None,
    seed: int = 0,
    max_n: int = 10_000,
) -> dict[str, Estimate]:
    """Compare generated rows with real rows.

    Columns are first divided by the real rows' standard deviation (images by one number for all
    pixels), so distances are in real standard deviations. The floor needs real rows to stand in for
    a perfect model's: the training rows where they are given, otherwise half of the real rows. All
    sets are cut to the same size, the ``n`` of each estimate, drawn without replacement; assignment
    uses at most 500 of these rows, neighbours and classifier tests at most 2,000.

    Arguments:
        real: Held-out real data, ``(n, *event)``; numbers alone are one column.
        generated: Generated data of the same event shape.
        metrics: Names from ``names()``; by default those that suit the data.
        train: Rows the model was fitted to, for memorisation and the floor.
        labels: Classes of the real rows, for the classifier metrics.
        generated_labels: The classes asked of the generated rows.
        seed: Of every random choice.
        max_n: Most rows of each set.

    Raises:
        UsageError: If a metric does not exist or lacks what it needs.
        DataError: If rows are not finite numbers, too few, of different widths or value ranges.
    """
    check_seed(seed)
    seed %= 2**32  # scikit-learn takes no larger one
    for name in metrics or ():
        metric(name)
    x, y = sample_pair(real, generated)
    image = np.ndim(real) > 2  # type: ignore[arg-type]
    if image:
        same_range(x, y)
    mean, scale = x.mean(0), column_scales(x, image)
    rows = Rows((x - mean) / scale, _labels(labels, len(x), "real"))
    made = Rows((y - mean) / scale, _labels(generated_labels, len(y), "generated"))
    t = None if train is None else (sample_pair(real, train)[1] - mean) / scale
    trio = _cut(rows, made, t, np.random.default_rng(seed), max_n)
    known = {"train": t is not None, "labels": labels is not None}
    chosen = metrics or defaults(*trio.real.x.shape, **known, asked=generated_labels is not None)
    return _estimates(chosen, trio, _context(chosen, trio.real, t, seed))


def column_scales(x: Array, image: bool) -> Array:
    """The standard deviation of each column, or of all pixels; constant columns keep their unit."""
    unit = np.maximum(np.abs(x).max(0), 1e-300)  # squares neither overflow nor vanish
    if image:
        unit = unit.max(keepdims=True)
    scale = (x / unit).std(0)
    scale = unit * (np.sqrt(np.square(scale).mean(keepdims=True)) if image else scale)
    return np.where(scale > 1e-12 * np.abs(x).max(0), scale, 1.0)


def same_range(real: Array, generated: Array) -> None:
    """Refuse images of which one set has values in another customary range than the other.

    Raises:
        DataError: If one of them is in 0..255, [0, 1] or [-1, 1] and the other in another of these.
    """
    ours, theirs = _range(real), _range(generated)
    if ours and theirs and ours != theirs:
        raise DataError(
            f"real pixels are in {ours} and generated pixels in {theirs}: bring both to one range"
        )


def _range(x: Array) -> str:
    low, high = x.min(), x.max()
    if low >= 0 and 1 < high <= 255 and not (x % 1).any():
        return "0..255"
    if high <= 1 and low >= -1:
        return "[0, 1]" if low >= 0 else "[-1, 1]" if low < -0.1 else ""
    return ""


def _labels(labels: object | None, n: int, name: str) -> np.ndarray | None:
    if labels is None:
        return None
    classes = np.asarray(labels).ravel()
    if len(classes) != n:
        raise DataError(f"{n} {name} rows came with {len(classes)} labels: give one for each row")
    return classes


Measured = tuple[Array, Array, Array, Array, int]  # value, low, high, floor, rows


class Trio(NamedTuple):
    """Three sets of equally many rows; the reference stands for what a perfect model would make."""

    real: Rows
    generated: Rows
    reference: Rows


def _cut(
    real: Rows, generated: Rows, train: Array | None, rng: np.random.Generator, max_n: int
) -> Trio:
    """Draw the three sets, the reference from ``train`` or else from the other half of ``real``.

    Raises:
        DataError: If there are fewer than twenty rows for each.
    """
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
        reference = Rows(train[rng.permutation(len(train))[:n]])
    return Trio(real.take(order[:n]), generated.take(other[:n]), reference)


def _context(chosen: Sequence[str], real: Rows, train: Array | None, seed: int) -> Context:
    """What the chosen metrics' views need; classifier and cells see the first set of rows alone."""
    network = None
    if real.classes is not None and any(m.startswith(("classifier", "label")) for m in chosen):
        network = classifier.fit_classifier(real.x, real.classes, seed=seed)
    centres = modes.cells(real.x, seed=seed) if "mode_coverage" in chosen else real.x[:1]
    return Context(train, network, centres, seed)


def _measure(m: Metric, trio: Trio, context: Context) -> Measured:
    a, b = m.view(trio.real, trio.generated, context)
    value, left = m.replicate(a, b, GROUPS)
    pair = floor_pair(m.view, trio.real, trio.reference)
    floor = m.replicate(*m.view(*pair, context), 0)[0] if pair else np.full_like(value, np.nan)
    return value, *interval(value, left), floor, len(b)


def _estimates(chosen: Sequence[str], trio: Trio, context: Context) -> dict[str, Estimate]:
    """Each metric, with its interval and floor; what metrics share is computed once."""
    shared: dict[object, Measured] = {}
    out = {}
    for name in chosen:
        m = metric(name)
        key = m.view, m.replicate
        if key not in shared:
            shared[key] = _measure(m, trio, context)
        value, low, high, floor = (float(v[m.entry]) for v in shared[key][:4])
        if m.unit == "fraction":
            low, high = max(low, 0.0), min(high, 1.0)
        out[name] = Estimate(value, low, high, floor, name, m.unit, m.better, shared[key][4])
    return out
