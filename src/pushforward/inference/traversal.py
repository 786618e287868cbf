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
from ..devices import at_home, device_of, seeded
from ..errors import UsageError
from . import latents

if TYPE_CHECKING:
    from .fitted_model import FittedModel

REACH = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def traverse(
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
    with seeded(seed, device_of(fitted.model)), torch.no_grad():
        start, c = beginning(fitted, x, y)
        chosen = range(start.numel()) if units is None else known_units(units, start.numel())
        z = start.flatten().repeat(len(chosen), len(values), 1)
        for row, unit in enumerate(chosen):
            z[row, :, unit] = torch.as_tensor(np.asarray(values, dtype=float))
        made = decoded(fitted, z.view(-1, *start.shape), c)
    return made.reshape(len(chosen), len(values), *made.shape[1:])


def lattice(
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
    with seeded(0, device_of(fitted.model)), torch.no_grad():
        start, c = beginning(fitted, None, y)
        first, second = known_units(units, start.numel())
        points = torch.as_tensor(ndtri((np.arange(side) + 0.5) / side))
        z = start.flatten().repeat(side, side, 1)
        z[..., first], z[..., second] = points, -points[:, None]
        made = decoded(fitted, z.view(-1, *start.shape), c)
    return made.reshape(side, side, *made.shape[1:])


def beginning(fitted: "FittedModel", x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
    """The latent of the first datum, or the middle of the prior, and the condition's vector."""
    encode = latents.ability(fitted.model, "encode", "has no latents to encode data in")
    given = fitted.schema.restore(fitted.draw(1, y, seed=0)) if x is None else x
    data = reading.read_as(given, fitted.schema, y=y)
    c = latents.known(fitted, data.y, len(data.x))
    one = latents.inward(fitted, data.x[:1], fitted.transform)
    first = latents.through(fitted, encode, one, None if c is None else c[:1], {})[0].double()
    return (first * 0 if x is None else first), None if c is None else c[:1]


def known_units(units: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """Latents that exist.

    Raises:
        UsageError: If one of them does not.
    """
    for unit in units:
        if not 0 <= unit < count:
            raise UsageError(f"there is no latent {unit}; they are numbered 0 to {count - 1}")
    return [int(unit) for unit in units]


def decoded(fitted: "FittedModel", z: Tensor, c: Tensor | None) -> np.ndarray:
    """Latents as numbers in the units of the data, all under one condition."""
    method = latents.ability(fitted.model, "decode", "has no latents to decode")
    rows = at_home(fitted.model, z)
    known = None if c is None else c.expand(len(rows), -1)
    return fitted.transform.inverse(latents.through(fitted, method, rows, known, {})).numpy()
