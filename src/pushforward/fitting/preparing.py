"""What a fit needs before its first step: the recipe, the split, the data on the device."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import options
from ..data import transforms
from ..data.condition import law
from ..data.reading import Samples
from ..data.text import shortened
from ..errors import DataError, UsageError
from ..fitted import event_as
from ..memory import demand
from ..model import Event, GenerativeModel, Recipe


def event_of(samples: Samples) -> Event:
    """What a family must know of the data."""
    return event_as(samples.schema, len(samples.x))


def split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training, and a tenth (at most 5,000, none of fewer than 40) held out.

    Those held out are in random order: what looks at the first of them sees a sample of the data,
    however a file was sorted.
    """
    order = np.random.default_rng(seed).permutation(n)
    held = min(n // 10, 5000) if n >= 40 else 0
    return np.sort(order[held:]), order[:held]


def recipe_of(
    model: GenerativeModel, changes: dict[str, Any], steps: int | None
) -> tuple[Recipe, dict[str, Any]]:
    """The family's recipe with the user's changes, checked.

    Raises:
        UsageError: If one has no sense.
    """
    options.check(Recipe, changes | ({} if steps is None else {"steps": steps}), "training")
    recipe = model.recipe._replace(**changes)
    if steps is not None:
        recipe = recipe._replace(steps=steps)
    betas = recipe.betas
    if not (isinstance(betas, tuple | list) and len(betas) == 2 and all(map(rate, betas))):
        raise UsageError(f"betas is {betas!r}; give two numbers from 0 to 1, such as 0.9,0.99")
    recipe = recipe._replace(betas=(betas[0], betas[1]))
    if recipe.ema > 1:
        raise UsageError(f"ema is {recipe.ema}; it must be from 0 to 1")
    if not recipe.clip:
        raise UsageError("clip is 0, which would stop all learning; for no clipping, pass clip=1e9")
    demand(8 * recipe.batch * math.prod(model.event_shape), f"batch={recipe.batch}", "lower it")
    return recipe, recipe._asdict()


def rate(beta: Any) -> bool:
    """Whether a decay rate is from 0 to 1, 1 excluded."""
    return isinstance(beta, int | float) and not isinstance(beta, bool) and 0 <= beta < 1


def recipe_from(plain: dict[str, Any]) -> Recipe:
    """A recipe that was written as JSON, which knows no tuples."""
    return Recipe(**plain | {"betas": tuple(plain["betas"])})


def pick(c: Tensor | None, rows: np.ndarray) -> Tensor | None:
    """Some rows of the conditions."""
    return None if c is None else c[rows]


def device_data(
    samples: Samples, transform: transforms.Chain, where: torch.device
) -> tuple[Tensor, Tensor | None]:
    """All data on the device: transformed once, or raw when the transform draws noise."""
    x = torch.as_tensor(samples.x)
    if not transform.stochastic:
        x = transform.forward(x)[0].to(torch.get_default_dtype())
        if not x.isfinite().all():
            raise DataError("a column varies too little or too much to be standardised; rescale it")
    c = None
    if samples.schema.condition_length:
        length = samples.schema.condition_length
        demand(
            8 * len(samples.x) * length, "the conditions", "tell less of them, as text=words does"
        )
        encoded = samples.schema.encode(samples.y, len(samples.x))
        c = torch.as_tensor(encoded, dtype=torch.get_default_dtype()).to(where)
    return x.to(where), c


def noisy(
    data: Iterator[tuple[Tensor, Tensor | None]], transform: transforms.Chain
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Dequantise every batch afresh, so that no particular noise is learned."""
    for x, c in data:
        yield transform.forward(x)[0].to(torch.get_default_dtype()), c


def seen_conditions(samples: Samples, rows: np.ndarray) -> dict[str, list[Any] | None]:
    """The conditions to train on and their frequencies: the law of samples without ``y``."""
    if samples.y is None:
        return {"conditions": None, "frequencies": None}
    condition = samples.schema.condition
    if condition is not None and condition.captioned:  # text takes less room than its numbers
        given = np.array(shortened(samples.y[rows].ravel().tolist()), object)
        seen, weights = law(given)
    else:
        seen, weights = law(samples.schema.encode(samples.y[rows], len(rows)))
    return {"conditions": seen.tolist(), "frequencies": weights.tolist()}


def fingerprint(samples: Samples) -> str:
    """SHA-256 of the data and conditions, so that a resumed run cannot mix two data sets."""
    digest = hashlib.sha256(np.ascontiguousarray(samples.x).tobytes())
    if samples.y is not None:
        digest.update(repr(samples.y.tolist()).encode())
    return digest.hexdigest()


def digest(*tensors: Tensor) -> str:
    """SHA-256 of some tensors, such as the weights of a teacher."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
