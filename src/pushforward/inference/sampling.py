"""Samples of a model in the units of the data, with the conditions they were drawn for."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import UsageError
from ..memory import require_memory
from ..rng import seeded_rng
from . import imputation
from .preprocessor import ModelPipeline


class _DrawnSamples(NamedTuple):
    """Samples as numbers, ``(n, *event)``, their condition vectors and their captions, if any."""

    x: np.ndarray
    c: np.ndarray | None
    captions: Any


def draw_samples(
    pipeline: ModelPipeline,
    n: int,
    y: Any = None,
    given: Any = None,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> _DrawnSamples:
    n, options = _check_count(pipeline, n), options or {}
    model, pre = pipeline.model, pipeline.preprocessor
    if given is not None:
        x = imputation.impute_given(pipeline, n, given, y, seed, options)
        return _DrawnSamples(x, pre.condition_vectors(y, n), pre.caption_rows(y, n))
    with seeded_rng(seed, pipeline.device), torch.inference_mode():
        options = pipeline.method_options(model.sample, options, n)
        y = pre.captions_or_draw(y, n)
        rows = pre.condition_vectors(y, n)
        parts = [torch.zeros(0, *model.event_shape, dtype=torch.float64)]
        for part in pipeline.batches(n, None, pipeline.tensor(rows), options):
            parts.append(model.sample(part.size, part.c, **part.options).cpu().double())
        x = pre.to_numbers(torch.cat(parts), pipeline.family, "use more sampler steps")
    return _DrawnSamples(x, rows, pre.caption_rows(y, n))


def _check_count(pipeline: ModelPipeline, n: Any) -> int:
    number = isinstance(n, int | float | np.number) and not isinstance(n, bool)
    if not number or not 0 <= n < math.inf or n % 1:
        raise UsageError(f"n is {n}; ask for a whole number of samples")
    numbers = math.prod(pipeline.model.event_shape) + pipeline.schema.condition_length
    require_memory(32 * n * numbers, f"n={n}", "draw them in parts")
    return int(n)
