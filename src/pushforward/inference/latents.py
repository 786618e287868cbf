r"""Data to latents and back, data to other data, and moving through a latent space.

The prior of every latent is :math:`\mathcal N(0, 1)`, so a traversal from -3 to 3 passes nearly all
of its mass, and the quantiles of evenly spaced probabilities are lattice points of equal mass.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from ..data import reading
from ..data.schema import Schema
from ..errors import DataError, PushforwardError, UsageError
from ..model import Encodes, GenerativeModel, Transports, missing_capability
from ..shapes import Condition
from . import sampling
from .preprocessor import ModelPipeline

REACH = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def require_latents(
    model: GenerativeModel, lack: str = "has no latents to encode data in"
) -> Encodes:
    if not isinstance(model, Encodes):
        raise missing_capability(model, lack)
    return model


def encode_data(
    pipeline: ModelPipeline, x: Any, y: Any, seed: int, options: dict[str, Any]
) -> np.ndarray:
    encode = require_latents(pipeline.model).encode
    data = pipeline.preprocessor.read(x, y)
    with pipeline.seeded(seed):
        return pipeline.map_batches(encode, *pipeline.to_model(data), options).numpy()


def decode_data(pipeline: ModelPipeline, z: Any, y: Any, seed: int, options: dict[str, Any]) -> Any:
    require_latents(pipeline.model, "has no latents to decode")
    with pipeline.seeded(seed):
        return _decode_rows(pipeline, _read_latents(z), y, options)


def _decode_rows(pipeline: ModelPipeline, z: Tensor, y: Any, options: dict[str, Any]) -> Any:
    rows, c = pipeline.tensor(z), pipeline.conditions(y, len(z))
    try:
        x = pipeline.map_batches(require_latents(pipeline.model).decode, rows, c, options)
    except PushforwardError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        shape = tuple(rows.shape[1:])
        raise DataError(f"latents of shape {shape} are not those of this model") from error
    return pipeline.preprocessor.to_user(x, c, pipeline.preprocessor.caption_rows(y, len(x)))


def reconstruct_data(
    pipeline: ModelPipeline, x: Any, y: Any, seed: int, options: dict[str, Any]
) -> Any:
    encode = require_latents(pipeline.model).encode
    data = pipeline.preprocessor.read(x, y)
    with pipeline.seeded(seed):
        z = pipeline.map_batches(encode, *pipeline.to_model(data), options)
        return _decode_rows(pipeline, z, data.y, options)


def rms_difference(schema: Schema, x: Any, made: Any) -> float:
    x, made = reading.read_with_schema(x, schema).x, schema.align_columns(reading.open_source(made))
    return float(np.sqrt(np.square(x - made).mean()))


def translate_data(
    pipeline: ModelPipeline, x: Any, y: Any, reverse: bool, seed: int, options: dict[str, Any]
) -> Any:
    model, target = pipeline.model, pipeline.preprocessor
    if not isinstance(model, Transports):
        raise missing_capability(model, "cannot translate data; fit flow_matching with source=DATA")
    if pipeline.source is None:
        raise UsageError("the model was fitted without a source: fit it with source=DATA")
    start = target if reverse else pipeline.source
    data = start.read(x, y if reverse else None)
    y = data.y if y is None else y
    with pipeline.seeded(seed):
        z = start.to_model(data.x)[0]
        c = pipeline.conditions(y, len(z))
        options = options | {"reverse": reverse}
        moved = pipeline.map_batches(model.translate, pipeline.tensor(z), c, options)
        if reverse:
            return pipeline.source.to_user(moved)
        return target.to_user(moved, c, target.caption_rows(y, len(moved)))


def _read_latents(z: Any) -> Tensor:
    if isinstance(z, str):
        z = reading.open_source(z).stack()
    rows = torch.as_tensor(np.asarray(z, dtype=np.float64))
    if rows.ndim < 2 or not rows.isfinite().all():
        raise DataError("latents are finite numbers, one row for each row of data")
    return rows


def traverse_latents(
    pipeline: ModelPipeline,
    x: Any = None,
    y: Any = None,
    *,
    units: Sequence[int] | np.ndarray | None = None,
    values: Sequence[float] | np.ndarray = REACH,
    seed: int = 0,
) -> np.ndarray:
    with pipeline.seeded(seed):
        start, c = _start_latent(pipeline, x, y)
        chosen = range(start.numel()) if units is None else _check_units(units, start.numel())
        z = start.flatten().repeat(len(chosen), len(values), 1)
        for row, unit in enumerate(chosen):
            z[row, :, unit] = torch.as_tensor(np.asarray(values, dtype=float))
        return _decode_grid(pipeline, z, start, c)


def decode_quantile_lattice(
    pipeline: ModelPipeline,
    y: Any = None,
    *,
    units: Sequence[int] | np.ndarray = (0, 1),
    side: int = 12,
) -> np.ndarray:
    r"""Data decoded at the quantiles :math:`\Phi^{-1}((i + 1/2) / m)` of two latents, m the side.

    The first grows to the right and the second upwards; the others are 0. ``(m, m, *event)``, in
    the units of the data, the rows from the top down.
    """
    with pipeline.seeded(0):
        start, c = _start_latent(pipeline, None, y)
        first, second = _check_units(units, start.numel())
        points = torch.as_tensor(ndtri((np.arange(side) + 0.5) / side))
        z = start.flatten().repeat(side, side, 1)
        z[..., first], z[..., second] = points, -points[:, None]
        return _decode_grid(pipeline, z, start, c)


def _start_latent(pipeline: ModelPipeline, x: Any, y: Any) -> tuple[Tensor, Condition]:
    encode, schema = require_latents(pipeline.model).encode, pipeline.schema
    given = schema.restore(sampling.draw_samples(pipeline, 1, y, seed=0).x) if x is None else x
    data = pipeline.preprocessor.read(given, y)
    c = pipeline.conditions(data.y, len(data.x))
    c = None if c is None else c[:1]
    z = pipeline.tensor(pipeline.preprocessor.to_model(data.x[:1])[0])
    first = pipeline.map_batches(encode, z, c, {})[0].double()
    return (first * 0 if x is None else first), c


def _check_units(units: Sequence[int] | np.ndarray, count: int) -> list[int]:
    for unit in units:
        if not 0 <= unit < count:
            raise UsageError(f"there is no latent {unit}; they are numbered 0 to {count - 1}")
    return [int(unit) for unit in units]


def _decode_grid(pipeline: ModelPipeline, z: Tensor, like: Tensor, c: Condition) -> np.ndarray:
    rows = pipeline.tensor(z.view(-1, *like.shape))
    made = pipeline.map_batches(require_latents(pipeline.model).decode, rows, c, {})
    x = pipeline.preprocessor.transform.inverse(made).numpy()
    return x.reshape(*z.shape[:2], *x.shape[1:])
