"""Draws of a fitted model in the units of the data, with the conditions they were drawn for."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.columns import as_vector
from ..devices import accepts, chunks, device_of, rows_at_once, seeded
from ..errors import NumericalError, UsageError
from ..memory import demand
from . import guiding, imputation

if TYPE_CHECKING:
    from .fitted_model import FittedModel

Drawn = tuple[np.ndarray, np.ndarray | None, Any]  # the data, their condition vectors, captions


def draw(
    fitted: "FittedModel", n: int, y: Any, given: Any, seed: int | None, options: dict[str, Any]
) -> Drawn:
    """``n`` data as float64 with shape ``(n, *event)``, their condition vectors and captions."""
    number = isinstance(n, int | float | np.number) and not isinstance(n, bool)
    if not number or not 0 <= n < math.inf or n % 1:
        raise UsageError(f"n is {n}; ask for a whole number of samples")
    numbers = math.prod(fitted.model.event_shape) + fitted.schema.condition_length
    demand(32 * n * numbers, f"n={n}", "draw them in parts")
    n = int(n)
    if given is not None:
        x = imputation.complete(fitted, n, given, y, seed, options)
        return x, fitted.conditions(y, n), captions(fitted, y, n)
    with seeded(seed, device_of(fitted.model)), torch.inference_mode():
        options = guiding.told(fitted, options, n)
        accepts(fitted.model.sample, options, fitted.family)
        y = fitted.said(y, n)
        rows = fitted.conditions(y, n)
        return free(fitted, n, rows, options), rows, captions(fitted, y, n)


def captions(fitted: "FittedModel", y: Any, n: int) -> np.ndarray | None:
    """The caption of each datum, where conditions are captions."""
    if not fitted.captioned or y is None:
        return None
    return np.broadcast_to(np.atleast_1d(as_vector(y)).astype(object), n)


def free(
    fitted: "FittedModel", n: int, rows: np.ndarray | None, options: dict[str, Any]
) -> np.ndarray:
    """``n`` data of which nothing is given but conditions."""
    model, c = fitted.model, None if rows is None else fitted.vectors(rows)
    z = []
    for i, m in chunks(n, rows_at_once(model.event_shape)):
        some = slice(i, i + m)
        z.append(model.sample(m, None if c is None else c[some], **guiding.part(options, some)))
    x = torch.cat(z).cpu().double() if z else torch.zeros(0, *model.event_shape)
    if not x.isfinite().all():
        raise NumericalError(
            f"{fitted.family} drew values that are not finite; use more sampler steps"
        )
    return fitted.transform.inverse(x.double()).numpy()
