r"""Log-likelihoods in the units of the data, marginal over conditions that are not known.

.. math:: \log p(x) = \log \sum_c p(c)\,p(x \mid c)

is the law that samples without a condition have. The unknown condition of a model (the zero vector)
is another law, which guidance uses.
"""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data import reading
from ..devices import (
    batch_offsets,
    batch_rows,
    cast_like_model,
    check_method_options,
    model_device,
    seeded_rng,
)
from ..errors import NoLikelihood, NumericalError
from ..model import Likelihood
from ..shapes import append_dims

if TYPE_CHECKING:
    from .fitted_model import FittedModel

MOST = 64  # numbers that a marginal likelihood sums over
FAR = 1e4  # standard deviations beyond which no solver is asked, and a failure is no one's fault
FARTHEST = 1e12  # beyond which the squares of float32 soon overflow


def log_prob(
    fitted: "FittedModel", x: Any, y: Any, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """`FittedModel.log_prob`."""
    values, errors = log_prob_with_error(fitted, x, y, seed, options)
    if errors.any():
        warnings.warn(
            f"the trace was estimated: standard error {rms_error(errors):.2g} nats a datum; probes=0 "
            "makes it exact",
            stacklevel=3,
        )
    return values


def rms_error(errors: np.ndarray) -> float:
    """The root of the mean square of standard errors; unknown (NaN) from a single probe."""
    return float(np.sqrt(np.square(errors).mean())) if len(errors) else 0.0


def log_prob_with_error(
    fitted: "FittedModel", x: Any, y: Any, seed: int, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """`FittedModel.estimated`."""
    if fitted.likelihood is Likelihood.NONE:
        raise NoLikelihood(
            f"{fitted.family} has no likelihood; for densities fit e.g. normalizing_flow"
        )
    check_method_options(fitted.model.log_prob, options, fitted.family, least=0)
    data = reading.read_with_schema(x, fitted.schema, y=y)
    with seeded_rng(seed, model_device(fitted.model)), torch.no_grad():
        laws = list(weighted_conditions(fitted, data.y, len(data.x)))
        parts = [
            marginal_log_prob(fitted, data.x[i : i + m], [(w, c if c is None else c[i : i + m])
                     for w, c in laws], options)
            for i, m in batch_offsets(len(data.x), batch_rows(fitted.model.event_shape))
        ]  # fmt: skip
    if not parts:
        return np.zeros(0), np.zeros(0)
    values, errors = (torch.cat(part).numpy() for part in zip(*(p[:2] for p in parts), strict=True))
    if far := sum(skipped for *_, skipped in parts):
        warnings.warn(
            f"{far} of {len(values)} rows lie farther from the data than any model can tell: "
            "their log-likelihood is given as -inf",
            stacklevel=3,
        )
    if np.isnan(values).any():
        raise NumericalError(f"{fitted.family} returned a log-likelihood that is not a number")
    return values, errors


def marginal_log_prob(
    fitted: "FittedModel",
    x: np.ndarray,
    laws: list[tuple[float, Tensor | None]],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor, int]:
    """The log-likelihood of some rows under a mixture of conditions with log-weights.

    Rows beyond all reach get minus infinity, so that one of them does not cost the others theirs.

    Returns:
        The log-likelihoods; their standard errors, those of the parts weighted by what each gives
        to the sum; and how many rows were beyond reach.
    """
    model = fitted.model
    z, log_det = fitted.transform.forward(torch.as_tensor(x))
    size = z.abs().flatten(1).amax(1)
    out = ~(size <= (FAR if model.kind(**options) is Likelihood.ODE else FARTHEST))
    z = cast_like_model(model, torch.where(append_dims(out, z), 0.0, z))
    parts = [(w, *model.estimated(z, c, **options)) for w, c in laws]
    values = torch.stack([w + value.cpu().double() for w, value, _ in parts])
    errors = torch.stack([error.cpu().double() for _, _, error in parts])
    shares = values.softmax(0).nan_to_num()  # a datum without any density has none
    found = values.logsumexp(0) + log_det
    out |= found.isnan() & (size > FAR)
    error = (shares * errors).square().sum(0).sqrt()
    return torch.where(out, -torch.inf, found), error, int(out.sum())


def weighted_conditions(
    fitted: "FittedModel", y: Any, n: int
) -> Iterator[tuple[float, Tensor | None]]:
    """The conditions of ``n`` rows with their log-weights: one if they are known."""
    schema = fitted.schema
    if schema.condition is None:
        yield 0.0, None
    elif y is not None:
        yield 0.0, cast_like_model(fitted.model, torch.as_tensor(schema.encode(y, n)))
    else:
        rows, weights = fitted.preprocessor.condition_support(
            None if schema.condition.labels else MOST
        )
        for row, weight in zip(rows, weights, strict=True):
            yield (
                float(np.log(weight)),
                cast_like_model(fitted.model, torch.as_tensor(row[None])).expand(n, -1),
            )
