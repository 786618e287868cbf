r"""Moving through a latent space: traversals and lattices, decoded in the units of the data.

The prior of every latent is :math:`\mathcal N(0, 1)`, so a traversal from -3 to 3 passes nearly all
of its mass, and the quantiles of evenly spaced probabilities are lattice points of equal mass.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from ..data import reading
from ..devices import cast_like_model, model_device, seeded_rng
from ..errors import UsageError
from . import latents

if TYPE_CHECKING:
    from .fitted_model import FittedModel

REACH = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def traverse_latents(
    fitted: "FittedModel",
    x: Any = None,
    y: Any = None,
    *,
    units: Sequence[int] | np.ndarray | None = None,
    values: Sequence[float] | np.ndarray = REACH,
    seed: int = 0,
) -> np.ndarray:
    """Move one latent at a time and decode.

    Arguments:
        fitted: A fitted model.
        x: Data of which the first gives the other latents; None puts them at 0.
        y: The condition, if the model was fitted with one.
        units: Which latents to move; all by default.
        values: Where to.
        seed: Of what is random.

    Returns:
        Shape ``(units, values, *event)``, in the units of the data.

    Raises:
        UsageError: If the family has no latents, or not these.
        DataError: If the condition is needed and not known.
    """
    with seeded_rng(seed, model_device(fitted.model)), torch.no_grad():
        start, c = start_latent(fitted, x, y)
        chosen = range(start.numel()) if units is None else check_units(units, start.numel())
        z = start.flatten().repeat(len(chosen), len(values), 1)
        for row, unit in enumerate(chosen):
            z[row, :, unit] = torch.as_tensor(np.asarray(values, dtype=float))
        made = decode_latents(fitted, z.view(-1, *start.shape), c)
    return made.reshape(len(chosen), len(values), *made.shape[1:])


def decode_quantile_lattice(
    fitted: "FittedModel",
    y: Any = None,
    *,
    units: Sequence[int] | np.ndarray = (0, 1),
    side: int = 12,
) -> np.ndarray:
    r"""Data decoded at the quantiles :math:`\Phi^{-1}((i + 1/2) / m)` of two latents.

    Arguments:
        fitted: A fitted model.
        y: The condition of all, if the model has one.
        units: Two latents, growing to the right and upwards; the others are 0.
        side: m, the points along a side.

    Returns:
        Shape ``(side, side, *event)``, in the units of the data, the rows from the top down.

    Raises:
        UsageError: If the family has no latents, or not these two.
    """
    with seeded_rng(0, model_device(fitted.model)), torch.no_grad():
        start, c = start_latent(fitted, None, y)
        first, second = check_units(units, start.numel())
        points = torch.as_tensor(ndtri((np.arange(side) + 0.5) / side))
        z = start.flatten().repeat(side, side, 1)
        z[..., first], z[..., second] = points, -points[:, None]
        made = decode_latents(fitted, z.view(-1, *start.shape), c)
    return made.reshape(side, side, *made.shape[1:])


def start_latent(fitted: "FittedModel", x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
    """The latent of the first datum, or the middle of the prior, and the condition's vector."""
    encode = latents.require_method(fitted.model, "encode", "has no latents to encode data in")
    given = fitted.schema.restore(fitted.draw(1, y, seed=0)) if x is None else x
    data = reading.read_with_schema(given, fitted.schema, y=y)
    c = latents.required_conditions(fitted, data.y, len(data.x))
    one = latents.to_model_space(fitted, data.x[:1], fitted.transform)
    first = latents.map_batches(fitted, encode, one, None if c is None else c[:1], {})[0].double()
    return (first * 0 if x is None else first), None if c is None else c[:1]


def check_units(units: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """Latents that exist.

    Raises:
        UsageError: If one of them does not.
    """
    for unit in units:
        if not 0 <= unit < count:
            raise UsageError(f"there is no latent {unit}; they are numbered 0 to {count - 1}")
    return [int(unit) for unit in units]


def decode_latents(fitted: "FittedModel", z: Tensor, c: Tensor | None) -> np.ndarray:
    """Latents as numbers in the units of the data, all under one condition."""
    method = latents.require_method(fitted.model, "decode", "has no latents to decode")
    rows = cast_like_model(fitted.model, z)
    known = None if c is None else c.expand(len(rows), -1)
    return fitted.transform.inverse(latents.map_batches(fitted, method, rows, known, {})).numpy()
