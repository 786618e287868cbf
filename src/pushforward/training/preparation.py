"""What a fit needs before its first step: the recipe, the split, the data on the device."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import options
from ..data import memmap, transforms
from ..data.captions import truncate_captions
from ..data.conditions import condition_frequencies
from ..data.reading import Dataset
from ..data.transforms import Chain
from ..errors import DataError, UsageError
from ..inference.preprocessor import Preprocessor
from ..memory import require_memory
from ..model import Event, GenerativeModel, Recipe
from .minibatches import encode_condition_rows
from .trainer import Batch

OVERVIEW = 2**26  # entries that a model sees before its first step
SURVEYED = 2**17  # conditions of which the law of samples without one is made
AVERAGES = 8  # of weights, each as large as the model


def event_of_dataset(samples: Dataset) -> Event:
    """What a family must know of the data."""
    return Preprocessor(samples.schema, Chain()).event(len(samples.x))


def holdout_split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training, and a tenth (at most 5,000, none of fewer than 40) held out.

    Those held out are in random order: what looks at the first of them sees a sample of the data,
    however a file was sorted.
    """
    order = np.random.default_rng(seed).permutation(n)
    held = min(n // 10, 5000) if n >= 40 else 0
    return np.sort(order[held:]), order[:held]


def resolve_recipe(
    model: GenerativeModel, changes: dict[str, Any], steps: int | None
) -> tuple[Recipe, dict[str, Any]]:
    """The family's recipe with the user's changes, checked.

    Raises:
        UsageError: If one has no sense.
    """
    options.check_options(Recipe, changes | ({} if steps is None else {"steps": steps}), "training")
    recipe = model.recipe._replace(**changes)
    if steps is not None:
        recipe = recipe._replace(steps=steps)
    betas = recipe.betas
    if not (isinstance(betas, tuple | list) and len(betas) == 2 and all(map(is_decay_rate, betas))):
        raise UsageError(f"betas is {betas!r}; give two numbers from 0 to 1, such as 0.9,0.99")
    recipe = recipe._replace(betas=(betas[0], betas[1]))
    recipe = recipe._replace(ema=check_ema(recipe.ema))
    if not recipe.clip:
        raise UsageError("clip is 0, which would stop all learning; for no clipping, pass clip=1e9")
    require_memory(
        8 * recipe.batch * math.prod(model.event_shape), f"batch={recipe.batch}", "lower it"
    )
    return recipe, recipe._asdict()


def is_decay_rate(beta: Any) -> bool:
    """Whether a decay rate is from 0 to 1, 1 excluded."""
    return isinstance(beta, int | float) and not isinstance(beta, bool) and 0 <= beta < 1


def check_ema(ema: Any) -> float | tuple[float, ...]:
    """The decay of an average of weights, or those of several, checked.

    Raises:
        UsageError: If they are not numbers from 0 to 1, or too many.
    """
    given = tuple(ema) if isinstance(ema, tuple | list) else (ema,)
    if not 1 <= len(given) <= AVERAGES or not all(is_decay_rate(v) or v == 1 for v in given):
        raise UsageError(f"ema is {ema}; give a number from 0 to 1, or up to {AVERAGES} of them")
    return given if len(given) > 1 else given[0]


def recipe_from_json(plain: dict[str, Any]) -> Recipe:
    """A recipe that was written as JSON, which knows no tuples."""
    return Recipe(**plain | {"betas": tuple(plain["betas"]), "ema": check_ema(plain["ema"])})


def microbatch_size(recipe: Recipe, devices: int) -> int:
    """How many data a device takes at once, of a batch that is divided.

    Raises:
        UsageError: If it cannot be divided evenly.
    """
    parts = recipe.accumulate * devices
    size, rest = divmod(recipe.batch, parts)
    if rest:
        raise UsageError(
            f"batch={recipe.batch} is not divided evenly into {parts} parts "
            f"(accumulate={recipe.accumulate}, devices={devices}); "
            f"give batch={max(size, 1) * parts}"
        )
    return size


def select_rows(c: Tensor | None, rows: np.ndarray) -> Tensor | None:
    """Some rows of the conditions."""
    return None if c is None else c[rows]


def tensors_on_device(
    samples: Dataset, transform: transforms.Chain, where: torch.device
) -> tuple[Tensor, Tensor | None]:
    """All data on the device: transformed once, or raw when the transform draws noise."""
    if transform.stochastic:
        x = torch.tensor(samples.x)
    else:
        x = transform_rows(transform, samples.x)
        if not x.isfinite().all():
            raise DataError("a column varies too little or too much to be standardised; rescale it")
    length = samples.schema.condition_length
    require_memory(
        8 * len(samples.x) * length, "the conditions", "tell less of them, as text=words does"
    )
    c = encode_condition_rows(samples, np.arange(len(samples.x)))
    return x.to(where), None if c is None else c.to(where)


def transform_rows(transform: transforms.Chain, x: np.ndarray) -> Tensor:
    """Data as a model sees them, in the precision of models; of many, a part at a time."""
    if x.size <= memmap.MANY:
        return transform.forward(torch.tensor(x, dtype=torch.float64))[0].to(
            torch.get_default_dtype()
        )
    z = torch.empty(x.shape)
    for i in memmap.row_slices(x.shape):
        z[i] = transform.forward(torch.tensor(x[i], dtype=torch.float64))[0]
    return z


def rows_on_device(
    samples: Dataset,
    transform: transforms.Chain,
    rows: np.ndarray,
    where: torch.device,
    told: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Some rows as a model sees them, and their conditions, of all of them where these are told."""
    c = encode_condition_rows(samples, rows) if told is None else told[rows]
    z = transform_rows(transform, samples.x[rows]).to(where)
    return z, None if c is None else c.to(where)


def preparation_rows(samples: Dataset, rows: np.ndarray) -> np.ndarray:
    """The rows that a model sees before its first step: all, unless they would fill the memory."""
    most = max(OVERVIEW // math.prod(samples.x.shape[1:]), 1)
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).permutation(rows)[:most])


def dequantise_stream(data: Iterator[Batch], transform: transforms.Chain) -> Iterator[Batch]:
    """Transform every batch when it comes: dequantised, no particular noise is learned."""
    for x, c in data:
        yield transform.forward(x.double())[0].to(torch.get_default_dtype()), c


def tally_conditions(samples: Dataset, rows: np.ndarray) -> dict[str, list[Any] | None]:
    """The conditions to train on and their frequencies: the law of samples without ``y``."""
    if samples.y is None:
        return {"conditions": None, "frequencies": None}
    condition = samples.schema.condition
    if len(rows) > SURVEYED:
        rows = np.random.default_rng(0).choice(rows, SURVEYED, replace=False)
    if condition is not None and condition.captioned:  # text takes less room than its numbers
        given = np.array(truncate_captions(samples.y[rows].ravel().tolist()), object)
        seen, weights = condition_frequencies(given)
    else:
        seen, weights = condition_frequencies(samples.schema.encode(samples.y[rows], len(rows)))
    return {"conditions": seen.tolist(), "frequencies": weights.tolist()}


def data_fingerprint(samples: Dataset) -> str:
    """SHA-256 of the data and conditions, so that a resumed run cannot mix two data sets."""
    digest = hashlib.sha256()
    for i in memmap.row_slices(samples.x.shape):
        digest.update(samples.x[i].astype(np.float64).tobytes())
    if samples.y is not None:
        digest.update(repr(samples.y.tolist()).encode())
    return digest.hexdigest()


def tensor_digest(*tensors: Tensor) -> str:
    """SHA-256 of some tensors, such as the weights of a teacher."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
