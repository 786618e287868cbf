"""Draws of a fitted model in the units of the data, with the conditions they were drawn for."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..devices import (
    batch_offsets,
    batch_rows,
    cast_like_model,
    check_method_options,
    model_device,
    seeded_rng,
)
from ..errors import NumericalError, UsageError
from ..memory import require_memory
from . import guiding, imputation

if TYPE_CHECKING:
    from .fitted_model import FittedModel

Drawn = tuple[np.ndarray, np.ndarray | None, Any]  # the data, their condition vectors, captions


def draw_samples(
    fitted: "FittedModel", n: int, y: Any, given: Any, seed: int | None, options: dict[str, Any]
) -> Drawn:
    """``n`` data as float64 with shape ``(n, *event)``, their condition vectors and captions."""
    number = isinstance(n, int | float | np.number) and not isinstance(n, bool)
    if not number or not 0 <= n < math.inf or n % 1:
        raise UsageError(f"n is {n}; ask for a whole number of samples")
    numbers = math.prod(fitted.model.event_shape) + fitted.schema.condition_length
    require_memory(32 * n * numbers, f"n={n}", "draw them in parts")
    n = int(n)
    if given is not None:
        x = imputation.impute_given(fitted, n, given, y, seed, options)
        return (
            x,
            fitted.preprocessor.condition_vectors(y, n),
            fitted.preprocessor.caption_rows(y, n),
        )
    with seeded_rng(seed, model_device(fitted.model)), torch.inference_mode():
        options = guiding.pack_guidance(fitted, fitted.model.sample, options, n)
        check_method_options(fitted.model.sample, options, fitted.family)
        y = fitted.preprocessor.captions_or_draw(y, n)
        rows = fitted.preprocessor.condition_vectors(y, n)
        return (
            sample_unconstrained(fitted, n, rows, options),
            rows,
            fitted.preprocessor.caption_rows(y, n),
        )


def sample_unconstrained(
    fitted: "FittedModel", n: int, rows: np.ndarray | None, options: dict[str, Any]
) -> np.ndarray:
    """``n`` data of which nothing is given but conditions."""
    model = fitted.model
    c = None if rows is None else cast_like_model(model, torch.as_tensor(rows))
    z = []
    for i, m in batch_offsets(n, batch_rows(model.event_shape)):
        some = slice(i, i + m)
        z.append(
            model.sample(m, None if c is None else c[some], **guiding.slice_options(options, some))
        )
    x = torch.cat(z).cpu().double() if z else torch.zeros(0, *model.event_shape)
    if not x.isfinite().all():
        raise NumericalError(
            f"{fitted.family} drew values that are not finite; use more sampler steps"
        )
    return fitted.transform.inverse(x.double()).numpy()
