"""Data to latents and back, and data to other data: the maps that some models offer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import reading
from ..data.schema import Schema
from ..data.transforms import Chain
from ..devices import accepts, at_home, chunks, device_of, rows_at_once, seeded
from ..errors import DataError, NumericalError, PushforwardError, UsageError
from ..model import GenerativeModel
from ..progress import follow
from . import guiding
from .sampling import captions

if TYPE_CHECKING:
    from .fitted_model import FittedModel


Method = Callable[..., Any]


class Origin(NamedTuple):
    """How the data that a transport starts from are read and transformed."""

    schema: Schema
    transform: Chain

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text."""
        return {"schema": self.schema.to_json(), "transform": self.transform.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Origin":
        """The inverse of `to_json`, which may hold more."""
        return cls(Schema.from_json(data["schema"]), Chain.from_json(data["transform"]))


def ability(model: GenerativeModel, name: str, lack: str) -> Method:
    """A method that not every family has.

    Raises:
        UsageError: If this one does not; ``lack`` says so after its name.
    """
    method = getattr(model, name, None)
    if not callable(method):
        family = type(model).__module__.rsplit(".", 1)[-1]
        raise UsageError(f"{family} {lack}")
    return method


def both_ways(model: GenerativeModel) -> tuple[Method, Method]:
    """Data to latents, and latents to data.

    Raises:
        UsageError: If the family has no latents.
    """
    return (
        ability(model, "encode", "has no latents to encode data in"),
        ability(model, "decode", "has no latents to decode"),
    )


def encode(fitted: "FittedModel", x: Any, y: Any, seed: int, options: dict[str, Any]) -> np.ndarray:
    """`FittedModel.encode`."""
    method = ability(fitted.model, "encode", "has no latents to encode data in")
    data = reading.read_as(x, fitted.schema, y=y)
    with seeded(seed, device_of(fitted.model)), torch.no_grad():
        return encoded(fitted, method, data, options).numpy()


def encoded(
    fitted: "FittedModel", method: Method, data: reading.Samples, options: dict[str, Any]
) -> Tensor:
    """The latents of data."""
    z, c = inward(fitted, data.x, fitted.transform), known(fitted, data.y, len(data.x))
    return through(fitted, method, z, c, options)


def decode(fitted: "FittedModel", z: Any, y: Any, seed: int, options: dict[str, Any]) -> Any:
    """`FittedModel.decode`."""
    method = ability(fitted.model, "decode", "has no latents to decode")
    with seeded(seed, device_of(fitted.model)), torch.no_grad():
        return decoded(fitted, method, latents(z), y, options)


def decoded(
    fitted: "FittedModel", method: Method, z: Tensor, y: Any, options: dict[str, Any]
) -> Any:
    """The data that latents stand for."""
    rows = at_home(fitted.model, z)
    c = known(fitted, y, len(rows))
    try:
        x = through(fitted, method, rows, c, options)
    except PushforwardError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        shape = tuple(rows.shape[1:])
        raise DataError(f"latents of shape {shape} are not those of this model") from error
    return outward(fitted.schema, fitted.transform, x, c, captions(fitted, y, len(x)))


def reconstruct(fitted: "FittedModel", x: Any, y: Any, seed: int, options: dict[str, Any]) -> Any:
    """`FittedModel.reconstruct`."""
    there, back = both_ways(fitted.model)
    data = reading.read_as(x, fitted.schema, y=y)
    with seeded(seed, device_of(fitted.model)), torch.no_grad():
        return decoded(fitted, back, encoded(fitted, there, data, options), data.y, options)


def difference(schema: Schema, x: Any, made: Any) -> float:
    """Root mean square difference between two sets of data of a schema, in their units."""
    return float(np.sqrt(np.square(reading.read_as(x, schema).x - schema.validate(made)).mean()))


def told(fitted: "FittedModel", x: Any) -> Any:
    """The conditions that data come with, each in its kind, or None."""
    return None if fitted.schema.condition is None else reading.read_as(x, fitted.schema).y


def translate(
    fitted: "FittedModel", x: Any, y: Any, reverse: bool, seed: int, options: dict[str, Any]
) -> Any:
    """`FittedModel.translate`."""
    lack = "cannot translate data; fit flow_matching with source=DATA"
    method = ability(fitted.model, "translate", lack)
    if not fitted.config.get("origin"):
        raise UsageError("the model was fitted without a source: fit it with source=DATA")
    ends = [Origin.from_json(fitted.config["origin"]), Origin(fitted.schema, fitted.transform)]
    start, end = reversed(ends) if reverse else ends
    given = reading.read_as(x, start.schema, y=y if reverse else None)
    y = given.y if y is None else y
    with seeded(seed, device_of(fitted.model)), torch.no_grad():
        z, c = inward(fitted, given.x, start.transform), known(fitted, y, len(given.x))
        moved = through(fitted, method, z, c, options | {"reverse": reverse})
        said = None if reverse else captions(fitted, y, len(moved))
        return outward(end.schema, end.transform, moved, None if reverse else c, said)


def latents(z: Any) -> Tensor:
    """Latents from a file or an array, ``(n, ...)``."""
    if isinstance(z, str):
        z = reading.raw(z).stack()
    rows = torch.as_tensor(np.asarray(z, dtype=np.float64))
    if rows.ndim < 2 or not rows.isfinite().all():
        raise DataError("latents are finite numbers with one row a datum")
    return rows


def known(fitted: "FittedModel", y: Any, n: int) -> Tensor | None:
    """The condition vectors of ``n`` data whose conditions must be known, or None.

    Raises:
        DataError: If the model needs them and they are not given.
    """
    if fitted.schema.condition is None:
        fitted.conditions(y, n)  # refuses one
        return None
    if y is None:
        raise DataError(
            f"the model was fitted with a condition, {fitted.schema.condition.asked}: name it "
            "(--condition, in Python y), or give data that come with it"
        )
    return fitted.vectors(fitted.schema.encode(y, n))


def inward(fitted: "FittedModel", x: np.ndarray, transform: Chain) -> Tensor:
    """Numbers in the units of the data as the model sees them."""
    z, _ = transform.forward(torch.as_tensor(x))
    return at_home(fitted.model, z)


def outward(schema: Schema, transform: Chain, z: Tensor, c: Tensor | None, said: Any = None) -> Any:
    """What the model gives as data of a schema, with their condition vectors or captions."""
    if not z.isfinite().all():
        raise NumericalError("the model gave values that are not finite; train longer")
    rows = None if c is None else c.cpu().double().numpy()
    return schema.restore(transform.inverse(z.cpu().double()).numpy(), rows, said)


def through(
    fitted: "FittedModel",
    method: Callable[..., Tensor],
    x: Tensor,
    c: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    """A method of the model on every row, some rows at a time."""
    size, options = rows_at_once(fitted.model.event_shape), guiding.told(fitted, options, len(x))
    accepts(method, options, fitted.family)

    def some(rows: slice) -> Tensor:
        known = [] if c is None else [c[rows]]
        return method(x[rows], *known, **guiding.part(options, rows)).cpu()

    parts = follow(chunks(len(x), size), -(-len(x) // size))
    return torch.cat([some(slice(i, i + m)) for i, m in parts])
