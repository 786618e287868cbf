"""Draws of a fitted model in the units of the data, with the conditions they were drawn for."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import NumericalError, UsageError
from ..memory import demand
from ..places import accepts, chunks, device_of, rows_at_once, seeded
from . import completing

if TYPE_CHECKING:
    from . import FittedModel

Drawn = tuple[np.ndarray, np.ndarray | None]  # the data, and their condition vectors


def draw(
    fitted: "FittedModel", n: int, y: Any, given: Any, seed: int | None, options: dict[str, Any]
) -> Drawn:
    """``n`` data as float64 with shape ``(n, *event)``, and their condition vectors."""
    number = isinstance(n, int | float | np.number) and not isinstance(n, bool)
    if not number or not 0 <= n < math.inf or n % 1:
        raise UsageError(f"n is {n}; ask for a whole number of samples")
    demand(32 * n * math.prod(fitted.model.event_shape), f"n={n}", "draw them in parts")
    if given is not None:
        x = completing.complete(fitted, n, given, y, seed, options)
        return x, fitted.conditions(y, n)
    accepts(fitted.model.sample, options, fitted.family)
    with seeded(seed, device_of(fitted.model)), torch.inference_mode():
        return free(fitted, int(n), fitted.conditions(y, int(n)), options)


def free(fitted: "FittedModel", n: int, rows: np.ndarray | None, options: dict[str, Any]) -> Drawn:
    """``n`` data of which nothing is given but conditions."""
    model, c = fitted.model, None if rows is None else fitted.vectors(rows)
    z = [
        model.sample(m, None if c is None else c[i : i + m], **options)
        for i, m in chunks(n, rows_at_once(model.event_shape))
    ]
    x = torch.cat(z).cpu().double() if z else torch.zeros(0, *model.event_shape)
    if not x.isfinite().all():
        raise NumericalError(
            f"{fitted.family} drew values that are not finite; use more sampler steps"
        )
    return fitted.transform.inverse(x.double()).numpy(), rows
