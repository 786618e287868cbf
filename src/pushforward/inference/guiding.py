"""The options that say how draws are guided, packed into the one value that models take."""

from typing import TYPE_CHECKING, Any

import torch

from ..devices import cast_like_model
from ..errors import DataError, UsageError
from ..options import check_options, option_names, takes_any_option
from ..theory.guidance import Guidance

if TYPE_CHECKING:
    from collections.abc import Callable

    from .fitted_model import FittedModel

GUIDING = ("guidance", "guidance_interval", "negative")


def make_guidance(
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    negative: torch.Tensor | None = None,
) -> Guidance:
    """The three options as one value."""
    return Guidance(guidance, guidance_interval, negative)


def pack_guidance(
    fitted: "FittedModel", method: "Callable[..., Any]", options: dict[str, Any], n: int
) -> dict[str, Any]:
    """Options of a method whose three of guidance are one, ``guidance``, if it takes them.

    Raises:
        UsageError: If an option has no sense, or the model was fitted without a condition and
            there is a negative one.
        DataError: If there are as many negative conditions as there are no samples.
    """
    options = encode_negative(fitted, options, n)
    loose = {name: options[name] for name in GUIDING if name in options}
    if not loose or not (takes_any_option(method) or loose.keys() <= {*option_names(method)}):
        return options
    check_options(make_guidance, loose, fitted.family)
    rest = {name: value for name, value in options.items() if name not in loose}
    return rest | {"guidance": make_guidance(**loose)}


def encode_negative(fitted: "FittedModel", options: dict[str, Any], n: int) -> dict[str, Any]:
    """Options with a negative condition as vectors, one for each of ``n`` samples."""
    if (y := options.get("negative")) is None:
        return options
    if fitted.schema.condition is None:
        raise UsageError("the model was fitted without a condition: leave negative out")
    rows = cast_like_model(fitted.model, torch.as_tensor(fitted.schema.encode(y)))
    if len(rows) not in (1, n):
        raise DataError(f"{len(rows)} negative conditions for {n} data; give one, or one for each")
    return options | {"negative": rows.expand(n, -1)}


def repeat_first(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Options for n samples that have those of the first."""
    return {k: v.repeat(n) if isinstance(v, Guidance) else v for k, v in options.items()}


def slice_options(options: dict[str, Any], rows: Any) -> dict[str, Any]:
    """Options for some of the samples: of what there is for each, those of these."""
    return {k: v.rows(rows) if isinstance(v, Guidance) else v for k, v in options.items()}
