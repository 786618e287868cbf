"""The options that say how draws are guided, as models take them, for all data or some."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..devices import cast_like_model
from ..errors import DataError, UsageError

if TYPE_CHECKING:
    from .fitted_model import FittedModel

GUIDING = ("guidance", "guidance_interval", "negative")


def encode_negative(fitted: "FittedModel", options: dict[str, Any], n: int) -> dict[str, Any]:
    """Options with a negative condition as vectors, one for each of ``n`` data.

    Raises:
        UsageError: If the model was fitted without a condition.
        DataError: If there are as many as there are no data.
    """
    if (y := options.get("negative")) is None:
        return options
    if fitted.schema.condition is None:
        raise UsageError("the model was fitted without a condition: leave negative out")
    rows = cast_like_model(fitted.model, torch.as_tensor(fitted.schema.encode(y)))
    if len(rows) not in (1, n):
        raise DataError(f"{len(rows)} negative conditions for {n} data; give one, or one for each")
    return options | {"negative": rows.expand(n, -1)}


def repeat_first(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Options for so many data that have those of the first."""
    return {k: v[:1].expand(n, -1) if isinstance(v, Tensor) else v for k, v in options.items()}


def slice_options(options: dict[str, Any], rows: Any) -> dict[str, Any]:
    """Options for some of the data: of what there is for each datum, those of these."""
    return {k: v[rows] if isinstance(v, Tensor) else v for k, v in options.items()}
