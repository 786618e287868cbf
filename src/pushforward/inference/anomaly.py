r"""Anomaly scores from a fitted density: larger is stranger.

The density alone misleads in many dimensions: at the mode of :math:`\mathcal N(0, I_{100})` the
log-density is 7 standard deviations above that of a typical sample, and flows give smooth images a
higher density than the images they were trained on (Nalisnick et al., 2019). Three scores:

- *density*, :math:`-\log p(x)`: right against alternatives spread evenly, in few dimensions.
- *typicality*, :math:`|-\log p(x) - H|` with H the mean of :math:`-\log p` over samples of
  the model: what is too likely is strange too.
- *ratio*, :math:`\log g(x) - \log p(x)` with a Gaussian g of the model's own mean and covariance:
  what the model has learnt beyond them decides (Ren et al., 2019).
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from ..families import gaussian
from ..model import Event
from .likelihood import log_prob
from .preprocessor import ModelPipeline
from .sampling import draw_samples

DRAWS = 2000  # of the model, where it serves as its own reference
Scorer = Callable[[Any, Any], np.ndarray]  # scores of data, given their conditions or None


class AnomalyFlags(NamedTuple):
    score: np.ndarray  # of each row
    flagged: np.ndarray  # whether it is above the threshold
    threshold: float  # the score that the stated part of the reference exceeds


class Reference(NamedTuple):
    """Without data, samples of the model stand in: the rate is right as far as the model is."""

    rate: float = 0.01  # the part of ordinary data that may be flagged by mistake
    x: Any = None  # ordinary data that the model was not fitted to
    y: Any = None  # their conditions


def _density_score(pipeline: ModelPipeline, y: Any, seed: int) -> Scorer:
    r""":math:`-\log p(x)` in nats."""
    return lambda x, y: -log_prob(pipeline, x, y, seed)


def _typicality_score(pipeline: ModelPipeline, y: Any, seed: int) -> Scorer:
    r""":math:`|-\log p(x) - H|` in nats, H estimated from samples of the model."""
    plain = _density_score(pipeline, y, seed)
    entropy = plain(*_model_samples(pipeline, y, seed)).mean()
    return lambda x, y: np.abs(plain(x, y) - entropy)


def _likelihood_ratio_score(pipeline: ModelPipeline, y: Any, seed: int) -> Scorer:
    r""":math:`\log g(x) - \log p(x)` in nats, g a Gaussian fitted to samples of the model."""
    z = pipeline.tensor(pipeline.preprocessor.to_model(_model_samples(pipeline, y, seed)[0])[0])
    normal = gaussian.build(Event(pipeline.schema.event)).to(z)
    normal.prepare(z)
    plain = replace(pipeline, model=normal)

    def measure(x: Any, y: Any) -> np.ndarray:
        log_p = log_prob(pipeline, x, y, seed)
        impossible = np.isneginf(log_p)  # whatever g says
        return np.where(impossible, 0.0, log_prob(plain, x, y, seed)) - log_p

    return measure


SCORES: dict[str, Callable[[ModelPipeline, Any, int], Scorer]] = {
    "density": _density_score,
    "typicality": _typicality_score,
    "ratio": _likelihood_ratio_score,
}


def _anomaly_scorer(pipeline: ModelPipeline, y: Any, method: str, seed: int) -> Scorer:
    if not isinstance(method, str) or method not in SCORES:
        raise UsageError(f"no anomaly score is called {method!r}; choose from {', '.join(SCORES)}")
    return SCORES[method](pipeline, y, seed)


def score_anomalies(pipeline: ModelPipeline, x: Any, y: Any, method: str, seed: int) -> np.ndarray:
    data = pipeline.preprocessor.read(x, y)
    return _anomaly_scorer(pipeline, data.y, method, seed)(data.x, data.y)


def flag_anomalies(
    pipeline: ModelPipeline, x: Any, y: Any, reference: Reference, method: str, seed: int
) -> AnomalyFlags:
    r"""Flag what scores higher than all but the part ``rate`` of the reference.

    The reference is scored as the data are: given the conditions if theirs are known, by ``y`` or
    by their column, and otherwise by the marginal likelihood. Of n reference scores the threshold
    is the k-th largest with :math:`k = \mathrm{rate}\,(n + 1)`, so that a new one exceeds it so
    often.
    """
    rate = reference.rate
    if not isinstance(rate, int | float | np.number) or not 0 < rate < 1:
        raise UsageError(f"the rate of flags is {rate}; it lies between 0 and 1, for instance 0.01")
    data = pipeline.preprocessor.read(x, y)
    scores = _anomaly_scorer(pipeline, data.y, method, seed)
    usual = scores(*_reference_data(pipeline, data.y, reference, seed + 1))
    found = scores(data.x, data.y)
    if rate < (least := 1 / (len(usual) + 1)):
        warnings.warn(
            f"{len(usual)} reference rows set no rate of flags below {least:.2g}, and {rate:g} is "
            "asked for: give a larger reference",
            stacklevel=3,
        )
    usual = np.nan_to_num(usual)  # an infinite score, of what is impossible, exceeds any threshold
    threshold = float(np.quantile(usual, 1 - rate, method="weibull"))
    return AnomalyFlags(found, found > threshold, threshold)


def _reference_data(
    pipeline: ModelPipeline, y: Any, reference: Reference, seed: int
) -> tuple[np.ndarray, Any]:
    if reference.x is None:
        return _model_samples(pipeline, y, seed)
    known = pipeline.preprocessor.read(reference.x, reference.y)
    if y is not None and known.y is None:
        raise UsageError(
            "the data are scored given their condition, and that of the reference is not known: "
            "name it with reference_y, or give the reference with its column"
        )
    return known.x, None if y is None else known.y


def _model_samples(pipeline: ModelPipeline, y: Any, seed: int) -> tuple[np.ndarray, Any]:
    many = 1 if y is None else len(pipeline.schema.encode(y))
    if many > 1:
        y = np.asarray(y)[np.arange(DRAWS) % many]
    return draw_samples(pipeline, DRAWS, y, seed=seed).x, y


def roc_auc(scores: np.ndarray, anomalous: np.ndarray) -> float:
    r""":math:`P(s(x') > s(x)) + \tfrac12 P(s(x') = s(x))` for an anomaly x' and an ordinary x."""
    from scipy.stats import rankdata

    ranks, k = rankdata(scores), int(anomalous.sum())
    if not 0 < k < len(scores):
        raise UsageError("labels must name both anomalies and ordinary data")
    return float((ranks[anomalous].sum() - k * (k + 1) / 2) / (k * (len(scores) - k)))
