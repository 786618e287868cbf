"""The array shapes used in signatures, checked by jaxtyping while the tests run."""

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING or not find_spec("jaxtyping"):  # a development tool, not a dependency
    Data = Tensor
    Times = Tensor
    PerDatum = Tensor
    Scalar = Tensor
    Condition = Tensor | None
else:
    from jaxtyping import Float

    Data = Float[Tensor, "batch *event"]
    Times = Float[Tensor, "batch"] | Float[Tensor, ""]
    PerDatum = Float[Tensor, "batch"]
    Scalar = Float[Tensor, ""]
    Condition = Float[Tensor, "batch condition"] | None


def append_dims(t: Tensor, x: Tensor) -> Tensor:
    """Append singleton axes to ``t`` until it broadcasts against ``x`` (a scalar needs none)."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


def sum_event(x: Data) -> PerDatum:
    return x.flatten(1).sum(1)


def standard_normal_log_prob(x: Data) -> PerDatum:
    r""":math:`\log \mathcal N(x \mid 0, I)` in nats."""
    return -sum_event(x.square() + math.log(2 * math.pi)) / 2
