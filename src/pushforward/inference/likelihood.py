r"""Log-likelihoods in the units of the data, marginal over conditions that are not known.

.. math:: \log p(x) = \log \sum_c p(c)\,p(x \mid c)

is the distribution of samples without a condition. The unknown condition of a model (the zero
vector) is another one, which guidance uses.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import NoLikelihood, NumericalError
from ..model import Likelihood
from ..options import check_options
from ..shapes import append_dims
from .preprocessor import Batch, ModelPipeline

MOST = 64  # numbers that a marginal likelihood sums over
FAR = 1e4  # standard deviations beyond which no solver is asked, and a failure is no one's fault
FARTHEST = 1e12  # beyond which the squares of float32 soon overflow


def likelihood_kind(pipeline: ModelPipeline, options: dict[str, Any]) -> Likelihood:
    kind = pipeline.model.kind(**options)
    dequantised = pipeline.preprocessor.transform.stochastic and kind is not Likelihood.NONE
    return Likelihood.LOWER_BOUND if dequantised else kind


def log_prob(
    pipeline: ModelPipeline, x: Any, y: Any, seed: int, options: dict[str, Any] | None = None
) -> np.ndarray:
    values, errors = log_prob_with_error(pipeline, x, y, seed, options or {})
    if errors.any():
        warnings.warn(
            f"the trace was estimated: standard error {rms_error(errors):.2g} nats a row; probes=0 "
            "makes it exact",
            stacklevel=3,
        )
    return values


def rms_error(errors: np.ndarray) -> float:
    """The root of the mean square of standard errors; unknown (NaN) from a single probe."""
    return float(np.sqrt(np.square(errors).mean())) if len(errors) else 0.0


def log_prob_with_error(
    pipeline: ModelPipeline, x: Any, y: Any, seed: int, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    if likelihood_kind(pipeline, {}) is Likelihood.NONE:
        raise NoLikelihood(
            f"{pipeline.family} has no likelihood; for densities fit e.g. normalizing_flow"
        )
    check_options(pipeline.model.log_prob, options, pipeline.family, least=0)
    data = pipeline.preprocessor.read(x, y)
    with pipeline.seeded(seed):
        known = None if data.y is None else pipeline.conditions(data.y, len(data.x))
        support = _unknown_conditions(pipeline) if data.y is None else None
        batches = pipeline.batches(len(data.x), data.x, known, options)
        parts = [_marginal_log_prob(pipeline, batch, support) for batch in batches]
    values, errors, skipped = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    if skipped.any():
        warnings.warn(
            f"{skipped.sum()} of {len(values)} rows lie farther from the data than any model can "
            "tell: their log-likelihood is given as -inf",
            stacklevel=3,
        )
    if np.isnan(values).any():
        raise NumericalError(f"{pipeline.family} returned a log-likelihood that is not a number")
    return values, errors


WeightedConditions = list[tuple[float, Tensor]]  # log-weights, and vectors (1, condition)


def _unknown_conditions(pipeline: ModelPipeline) -> WeightedConditions | None:
    if (condition := pipeline.schema.condition) is None:
        return None
    rows, weights = pipeline.preprocessor.condition_support(None if condition.labels else MOST)
    return [(float(np.log(w)), pipeline.tensor(c[None])) for c, w in zip(rows, weights)]


def _marginal_log_prob(
    pipeline: ModelPipeline, batch: Batch, support: WeightedConditions | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The log-likelihoods of some rows under a mixture of conditions, or under their own.

    With them come their standard errors, those of the parts weighted by what each gives to the sum,
    and which rows were beyond all reach: these get minus infinity, at no cost to the others.
    """
    model = pipeline.model
    z, log_det = pipeline.preprocessor.to_model(batch.x)
    size = z.abs().flatten(1).amax(1)
    out = ~(size <= (FAR if model.kind(**batch.options) is Likelihood.ODE else FARTHEST))
    z = pipeline.tensor(torch.where(append_dims(out, z), 0.0, z))
    mixture = [(0.0, batch.c)]
    if support is not None:
        mixture = [(w, c.expand(batch.size, -1)) for w, c in support]
    parts = [(w, *model.estimated(z, c, **batch.options)) for w, c in mixture]
    values = torch.stack([w + value.cpu().double() for w, value, _ in parts])
    errors = torch.stack([error.cpu().double() for _, _, error in parts])
    shares = values.softmax(0).nan_to_num()  # a row without any density has none
    found = values.logsumexp(0) + log_det
    out |= found.isnan() & (size > FAR)
    error = (shares * errors).square().sum(0).sqrt()
    return torch.where(out, -torch.inf, found), error, out
