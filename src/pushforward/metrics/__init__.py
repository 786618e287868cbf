r"""Metrics: functions of two sample sets, each with an interval and a real-versus-real floor.

``evaluate`` chooses, standardises, splits and reports. The functions underneath take arrays and
return plain numbers in the data's own units; they are in the module of their group.
"""

from ..theory.sample_statistics import is_collapsed
from .catalogue import better_direction, metric_meaning, metric_names
from .classifier import c2st, classifier_score, fit_classifier
from .codecs import codec_bits
from .estimate import MetricEstimate, bits_per_dim, nll
from .evaluation import evaluate
from .kernels import energy_distance, kid, mmd
from .neighbours import (
    coverage,
    density,
    exact_duplicates,
    known_modes,
    mode_coverage,
    nearest_distance,
    precision,
    recall,
)
from .wasserstein import frechet_distance, sliced_w2, w1, w2

__all__ = [
    "MetricEstimate",
    "better_direction",
    "bits_per_dim",
    "c2st",
    "classifier_score",
    "codec_bits",
    "coverage",
    "density",
    "energy_distance",
    "evaluate",
    "exact_duplicates",
    "fit_classifier",
    "frechet_distance",
    "is_collapsed",
    "kid",
    "known_modes",
    "metric_meaning",
    "mmd",
    "mode_coverage",
    "metric_names",
    "nearest_distance",
    "nll",
    "precision",
    "recall",
    "sliced_w2",
    "w1",
    "w2",
]
