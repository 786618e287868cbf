r"""Log-likelihoods in the units of the data, marginal over conditions that are not known.

.. math:: \log p(x) = \log \sum_c p(c)\,p(x \mid c)

is the law that samples without a condition have. The unknown condition of a model (the zero vector)
is another law, which guidance uses.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data import reading
from ..data.condition import thin
from ..errors import NoLikelihood, NumericalError
from ..model import Likelihood
from ..places import accepts, chunks, device_of, rows_at_once, seeded

if TYPE_CHECKING:
    from . import FittedModel

MOST = 64  # numbers that a marginal likelihood sums over


def log_prob(
    fitted: "FittedModel", x: Any, y: Any, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """`FittedModel.log_prob`."""
    if fitted.likelihood is Likelihood.NONE:
        raise NoLikelihood(
            f"{fitted.family} has no likelihood; for densities fit e.g. normalizing_flow"
        )
    accepts(fitted.model.log_prob, options, fitted.family)
    data = reading.read_as(x, fitted.schema, y=y)
    with seeded(seed), torch.no_grad():
        laws = list(conditions(fitted, data.y, len(data.x)))
        parts = [
            marginal(fitted, data.x[i : i + m], [(w, c if c is None else c[i : i + m])
                     for w, c in laws], options)
            for i, m in chunks(len(data.x), rows_at_once(fitted.model.event_shape))
        ]  # fmt: skip
    result = torch.cat(parts).numpy() if parts else np.zeros(0)
    if np.isnan(result).any():
        raise NumericalError(f"{fitted.family} returned a log-likelihood that is not a number")
    return result


def marginal(
    fitted: "FittedModel",
    x: np.ndarray,
    laws: list[tuple[float, Tensor | None]],
    options: dict[str, Any],
) -> Tensor:
    """The log-likelihood of some rows under a mixture of conditions with log-weights."""
    z, log_det = fitted.transform.forward(torch.as_tensor(x))
    z = z.to(device_of(fitted.model), torch.get_default_dtype())
    parts = [w + fitted.model.log_prob(z, c, **options).cpu().double() for w, c in laws]
    return torch.stack(parts).logsumexp(0) + log_det


def conditions(fitted: "FittedModel", y: Any, n: int) -> Iterator[tuple[float, Tensor | None]]:
    """The conditions of ``n`` rows with their log-weights: one if they are known."""
    schema = fitted.schema
    if schema.condition is None:
        yield 0.0, None
    elif y is not None:
        yield 0.0, fitted.vectors(schema.encode(y, n))
    else:
        rows, weights = fitted.seen()
        if not schema.condition.labels:
            rows, weights = thin(rows, weights, MOST)
        for row, weight in zip(rows, weights, strict=True):
            yield float(np.log(weight)), fitted.vectors(row[None]).expand(n, -1)
