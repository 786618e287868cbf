"""Data to latents and back, and data to other data: the maps that some models offer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import reading
from ..data.schema import Schema
from ..data.transforms import Chain
from ..devices import (
    batch_offsets,
    batch_rows,
    cast_like_model,
    check_method_options,
    model_device,
    seeded_rng,
)
from ..errors import DataError, NumericalError, PushforwardError, UsageError
from ..model import GenerativeModel
from ..progress import track_progress
from . import guiding

if TYPE_CHECKING:
    from .fitted_model import FittedModel


Method = Callable[..., Any]


class SourceSpace(NamedTuple):
    """How the data that a transport starts from are read and transformed."""

    schema: Schema
    transform: Chain

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text."""
        return {"schema": self.schema.to_json(), "transform": self.transform.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SourceSpace":
        """The inverse of `to_json`, which may hold more."""
        return cls(Schema.from_json(data["schema"]), Chain.from_json(data["transform"]))


def require_method(model: GenerativeModel, name: str, lack: str) -> Method:
    """A method that not every family has.

    Raises:
        UsageError: If this one does not; ``lack`` says so after its name.
    """
    method = getattr(model, name, None)
    if not callable(method):
        family = type(model).__module__.rsplit(".", 1)[-1]
        raise UsageError(f"{family} {lack}")
    return method


def encoder_decoder(model: GenerativeModel) -> tuple[Method, Method]:
    """Data to latents, and latents to data.

    Raises:
        UsageError: If the family has no latents.
    """
    return (
        require_method(model, "encode", "has no latents to encode data in"),
        require_method(model, "decode", "has no latents to decode"),
    )


def encode_data(
    fitted: "FittedModel", x: Any, y: Any, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """`FittedModel.encode`."""
    method = require_method(fitted.model, "encode", "has no latents to encode data in")
    data = reading.read_with_schema(x, fitted.schema, y=y)
    with seeded_rng(seed, model_device(fitted.model)), torch.no_grad():
        return encode_rows(fitted, method, data, options).numpy()


def encode_rows(
    fitted: "FittedModel", method: Method, data: reading.Dataset, options: dict[str, Any]
) -> Tensor:
    """The latents of data."""
    z, c = (
        to_model_space(fitted, data.x, fitted.transform),
        required_conditions(fitted, data.y, len(data.x)),
    )
    return map_batches(fitted, method, z, c, options)


def decode_data(fitted: "FittedModel", z: Any, y: Any, seed: int, options: dict[str, Any]) -> Any:
    """`FittedModel.decode`."""
    method = require_method(fitted.model, "decode", "has no latents to decode")
    with seeded_rng(seed, model_device(fitted.model)), torch.no_grad():
        return decode_rows(fitted, method, read_latents(z), y, options)


def decode_rows(
    fitted: "FittedModel", method: Method, z: Tensor, y: Any, options: dict[str, Any]
) -> Any:
    """The data that latents stand for."""
    rows = cast_like_model(fitted.model, z)
    c = required_conditions(fitted, y, len(rows))
    try:
        x = map_batches(fitted, method, rows, c, options)
    except PushforwardError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        shape = tuple(rows.shape[1:])
        raise DataError(f"latents of shape {shape} are not those of this model") from error
    return to_data_space(
        fitted.schema, fitted.transform, x, c, fitted.preprocessor.caption_rows(y, len(x))
    )


def reconstruct_data(
    fitted: "FittedModel", x: Any, y: Any, seed: int, options: dict[str, Any]
) -> Any:
    """`FittedModel.reconstruct`."""
    there, back = encoder_decoder(fitted.model)
    data = reading.read_with_schema(x, fitted.schema, y=y)
    with seeded_rng(seed, model_device(fitted.model)), torch.no_grad():
        return decode_rows(fitted, back, encode_rows(fitted, there, data, options), data.y, options)


def rms_difference(schema: Schema, x: Any, made: Any) -> float:
    """Root mean square difference between two sets of data of a schema, in their units."""
    return float(
        np.sqrt(
            np.square(
                reading.read_with_schema(x, schema).x
                - schema.align_columns(reading.open_source(made))
            ).mean()
        )
    )


def conditions_in(fitted: "FittedModel", x: Any) -> Any:
    """The conditions that data come with, each in its kind, or None."""
    return None if fitted.schema.condition is None else reading.read_with_schema(x, fitted.schema).y


def translate_data(
    fitted: "FittedModel", x: Any, y: Any, reverse: bool, seed: int, options: dict[str, Any]
) -> Any:
    """`FittedModel.translate`."""
    lack = "cannot translate data; fit flow_matching with source=DATA"
    method = require_method(fitted.model, "translate", lack)
    if not fitted.config.get("origin"):
        raise UsageError("the model was fitted without a source: fit it with source=DATA")
    ends = [
        SourceSpace.from_json(fitted.config["origin"]),
        SourceSpace(fitted.schema, fitted.transform),
    ]
    start, end = reversed(ends) if reverse else ends
    given = reading.read_with_schema(x, start.schema, y=y if reverse else None)
    y = given.y if y is None else y
    with seeded_rng(seed, model_device(fitted.model)), torch.no_grad():
        z, c = (
            to_model_space(fitted, given.x, start.transform),
            required_conditions(fitted, y, len(given.x)),
        )
        moved = map_batches(fitted, method, z, c, options | {"reverse": reverse})
        said = None if reverse else fitted.preprocessor.caption_rows(y, len(moved))
        return to_data_space(end.schema, end.transform, moved, None if reverse else c, said)


def read_latents(z: Any) -> Tensor:
    """Latents from a file or an array, ``(n, ...)``."""
    if isinstance(z, str):
        z = reading.open_source(z).stack()
    rows = torch.as_tensor(np.asarray(z, dtype=np.float64))
    if rows.ndim < 2 or not rows.isfinite().all():
        raise DataError("latents are finite numbers with one row a datum")
    return rows


def required_conditions(fitted: "FittedModel", y: Any, n: int) -> Tensor | None:
    """The condition vectors of ``n`` data whose conditions must be known, or None.

    Raises:
        DataError: If the model needs them and they are not given.
    """
    if fitted.schema.condition is None:
        fitted.preprocessor.condition_vectors(y, n)  # refuses one
        return None
    if y is None:
        raise DataError(
            f"the model was fitted with a condition, {fitted.schema.condition.expected_form}: name it "
            "(--condition, in Python y), or give data that come with it"
        )
    return cast_like_model(fitted.model, torch.as_tensor(fitted.schema.encode(y, n)))


def to_model_space(fitted: "FittedModel", x: np.ndarray, transform: Chain) -> Tensor:
    """Numbers in the units of the data as the model sees them."""
    z, _ = transform.forward(torch.as_tensor(x))
    return cast_like_model(fitted.model, z)


def to_data_space(
    schema: Schema, transform: Chain, z: Tensor, c: Tensor | None, said: Any = None
) -> Any:
    """What the model gives as data of a schema, with their condition vectors or captions."""
    if not z.isfinite().all():
        raise NumericalError("the model gave values that are not finite; train longer")
    rows = None if c is None else c.cpu().double().numpy()
    return schema.restore(transform.inverse(z.cpu().double()).numpy(), rows, said)


def map_batches(
    fitted: "FittedModel",
    method: Callable[..., Tensor],
    x: Tensor,
    c: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    """A method of the model on every row, some rows at a time."""
    size, options = (
        batch_rows(fitted.model.event_shape),
        guiding.encode_negative(fitted, options, len(x)),
    )
    check_method_options(method, options, fitted.family)

    def some(rows: slice) -> Tensor:
        known = [] if c is None else [c[rows]]
        return method(x[rows], *known, **guiding.slice_options(options, rows)).cpu()

    parts = track_progress(batch_offsets(len(x), size), -(-len(x) // size))
    return torch.cat([some(slice(i, i + m)) for i, m in parts])
