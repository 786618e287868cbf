"""Images changed by a model: inpainting, interpolation, noise added and taken away (SDEdit)."""

import contextlib
import os
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from ..data import reading
from ..data.schema import Schema
from ..errors import DataError, UsageError
from ..model import Edits, Likelihood, missing_capability
from ..networks.layout import image_layout, is_image
from ..shapes import Condition
from ..theory.completion import slerp
from ..theory.guidance import GUIDANCE
from .latents import require_latents
from .preprocessor import ModelPipeline
from .sampling import draw_samples

FREE = 16  # samples of which nothing is given, at most, to compare the diversity with
LACK = "cannot add noise and take it away; ddpm, edm, ncsn, flow_matching and latent_diffusion can"
WHITE = 128  # the level from which a pixel of a mask is white


class Inpainting(NamedTuple):
    """Images of which a part was inpainted, and how much they vary there.

    Diversity is the mean distance between two of them in the part, root mean square in the units of
    the data; NaN for a single one.
    """

    pictures: Any  # in the schema of what was fitted
    diversity: float
    unconditional: float  # between samples of which nothing is given, as many but at most 16


def inpaint_image(
    pipeline: ModelPipeline, x: Any, mask: Any, n: int, y: Any, seed: Any, options: dict[str, Any]
) -> Inpainting:
    schema = pipeline.schema
    unknown = mask_array(mask, schema)
    given = np.where(unknown, np.nan, _clip_to_range(_single_row(x, schema), schema))
    made = draw_samples(pipeline, n, y, given, seed, options).x
    guided = {k: v for k, v in options.items() if k in GUIDANCE}
    each = any(np.ndim(v) for v in (y, guided.get("negative")) if v is not None)
    free = draw_samples(pipeline, n if each else min(n, FREE), y, None, seed, guided).x
    images = schema.restore(made, None if y is None else schema.encode(y, n))
    return Inpainting(images, _diversity(made, unknown), _diversity(free, unknown))


def _diversity(x: np.ndarray, part: np.ndarray) -> float:
    r"""The mean over pairs of :math:`\sqrt{\tfrac1d\sum_{j \in \mathrm{part}} (x_j - x'_j)^2}`."""
    rows = x[:, part]
    return float(pdist(rows).mean() / np.sqrt(rows.shape[1])) if len(x) > 1 else float("nan")


def _single_row(x: Any, schema: Schema) -> np.ndarray:
    rows = reading.read_with_schema(_add_batch_axis(x, schema), schema).x
    if len(rows) > 1:
        raise DataError(f"there are {len(rows)} images: give one")
    return rows[0]


def _add_batch_axis(x: Any, schema: Schema) -> Any:
    if isinstance(x, str | os.PathLike) and os.fspath(x).lower().endswith(".npy"):
        with contextlib.suppress(OSError, ValueError, EOFError):  # the reader says what is wrong
            x = np.load(x, mmap_mode="r", allow_pickle=False)
    return x[None] if schema.shape and getattr(x, "ndim", None) == len(schema.shape) else x


def _clip_to_range(x: np.ndarray, schema: Schema) -> np.ndarray:
    """Images of whole numbers within the range that was fitted, which is all a model knows."""
    column = schema.columns[0]
    if len(schema.shape) < 2 or not column.integer:
        return x
    kept = x.clip(column.low, column.high)
    if (kept != x).any():
        warnings.warn(
            f"values outside of {column.low:g} to {column.high:g}, the range that was fitted, are "
            "taken to its ends",
            stacklevel=2,
        )
    return kept


def mask_array(mask: Any, schema: Schema) -> np.ndarray:
    """Which entries are to be inpainted, ``(*event,)``: those that are white in a mask, or true.

    A mask is an image file, a .npy file, or an array, of the height and width of the data or of
    their shape; white begins at 128 where numbers are not just 0 and 1.
    """
    if not is_image(schema.event):
        raise UsageError("a mask is for images, and the model was fitted to none: use given")
    layout = image_layout(schema.event)
    sides = (layout.height, layout.width)
    marks = _as_boolean_mask(mask)
    if marks.shape == schema.event:
        whole = marks
    elif marks.shape == sides:  # the same for all channels
        whole = np.broadcast_to(np.expand_dims(marks, layout.axis - 1), schema.event)
    else:
        raise DataError(
            f"the mask is of size {' x '.join(map(str, marks.shape))} and the images are of "
            f"{' x '.join(map(str, sides))} pixels; give a mask of their size"
        )
    if whole.all() or not whole.any():
        remedy = "nothing is kept: use sample" if whole.all() else "nothing is inpainted"
        raise DataError(f"the mask is all {'white' if whole.all() else 'black'}, so that {remedy}")
    return whole


def _as_boolean_mask(mask: Any) -> np.ndarray:
    if isinstance(mask, str | os.PathLike):
        data = reading.open_source(mask).stack()
        data = data[0] if reading.is_image_file(mask) else data
        mask = data.mean(-1) if data.ndim == 3 and data.shape[-1] == 3 else data
    try:
        values = np.asarray(mask).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("a mask is an image, or an array of numbers or truth values") from error
    if not np.isfinite(values).all() or np.iscomplexobj(mask):
        raise DataError("the mask holds values that are not finite; give zeros and ones")
    return values >= (WHITE if values.max(initial=0) > 1 else 0.5)


def interpolate_latents(
    pipeline: ModelPipeline, a: Any, b: Any, n: int, y: Any, seed: int, options: dict[str, Any]
) -> Any:
    model = require_latents(pipeline.model)
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 2:
        raise UsageError(f"n is {n}; a way between two has at least its 2 ends")
    y = y if isinstance(y, tuple | list) and len(y) == 2 else (y, y)
    read, schema = pipeline.preprocessor.read, pipeline.schema
    ends = [read(_add_batch_axis(x, schema), of) for x, of in zip((a, b), y, strict=True)]
    if len(ends[0].x) != len(ends[1].x):
        raise DataError(f"{len(ends[0].x)} rows at one end and {len(ends[1].x)} at the other")
    with pipeline.seeded(seed):
        weights = np.linspace(0, 1, n)
        way = slerp if _has_gaussian_latents(pipeline) else torch.lerp
        c = [pipeline.conditions(end.y, len(end.x)) for end in ends]
        _check_same_caption(pipeline.schema, *c)
        z = [pipeline.map_batches(model.encode, *pipeline.to_model(e), options) for e in ends]
        z_mixed = pipeline.tensor(_interpolate_pairs(z, weights, way))
        known = [v for v in c if v is not None]
        c_mixed = _interpolate_pairs(known, weights, torch.lerp) if known else None
        made = pipeline.map_batches(model.decode, z_mixed, c_mixed, options)
        return pipeline.preprocessor.to_user(made, c_mixed)


def _check_same_caption(schema: Schema, a: Condition, b: Condition) -> None:
    spelled = schema.condition is not None and schema.condition.spelled
    if spelled and a is not None and b is not None and not torch.equal(a, b):
        raise UsageError(
            "the captions of the two ends differ, and captions that are read by their bytes cannot "
            "be mixed: give one for both, or fit with text='words' (--text words)"
        )


def _has_gaussian_latents(pipeline: ModelPipeline) -> bool:
    """Whether latents of data are normal, so that great circles keep to where data are.

    So they are where the map to data is invertible, which a density tells. A VAE's are posterior
    means, shorter than samples of the prior: its decoder knows what lies between.
    """
    return pipeline.model.likelihood in (Likelihood.EXACT, Likelihood.ODE)


def _interpolate_pairs(ends: list[Tensor], weights: np.ndarray, way: Any) -> Tensor:
    """Points on the ways from rows to rows, the way of the first pair before the second's."""
    return torch.stack([way(*ends, float(w)) for w in weights], dim=1).flatten(0, 1)


def sdedit(
    pipeline: ModelPipeline,
    x: Any,
    y: Any,
    strength: int | float,
    seed: int,
    options: dict[str, Any],
) -> Any:
    model, pre = pipeline.model, pipeline.preprocessor
    if not isinstance(model, Edits):
        raise missing_capability(model, LACK)
    if pipeline.source is not None:
        raise UsageError("the model starts from other data, not from noise: use translate")
    number = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= 1:
        raise UsageError(f"strength is {str(strength)[:40]}; it must be from 0 to 1")
    data = pre.read(x, y)
    with pipeline.seeded(seed):
        data = replace(data, x=_clip_to_range(data.x, pipeline.schema))
        z, c = pipeline.to_model(data)
        moved = pipeline.map_batches(model.edit, z, c, options | {"strength": float(strength)})
        captions = pre.caption_rows(data.y, len(z))
        if torch.equal(moved, z.cpu()):  # nothing was done: not even the rounding of a transform
            rows = None if c is None else c.cpu().double().numpy()
            return pipeline.schema.restore(data.x, rows, captions)
        return pre.to_user(moved, c, captions)
