"""Built-in data: distributions known in closed form, small real data sets, and images.

A synthetic set can be drawn again with another seed, and knows its density and entropy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import UsageError
from ...formatting import join_names, printable_text
from .densities import TOY_DENSITIES, LogProb
from .images import IMAGE_SETS

SIZE = 50_000
Sample = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class BuiltinDataset:
    """A set of data and what is known of its distribution.

    Arguments:
        name: Its key.
        description: One line.
        x: The data, shape ``(n, *event)``, or ``(n,)`` for numbers on a line.
        y: Labels, shape (n,), or None.
        label: What the labels are.
        columns: The names of the columns, or None.
        sample: ``sample(n, seed)`` draws fresh data, where the distribution is known.
        log_prob: The exact log-density in nats, shape (n,), where it is known.
        entropy: In nats, where it is known.
        modes: The centres of separate modes, shape (k, d).
        mode_scale: The standard deviation of each mode.
        extra: More that is known of each row, by name: captions, factors.
        white: The level that an image shows as white.
    """

    name: str
    description: str
    x: np.ndarray
    y: np.ndarray | None = None
    label: str | None = None
    columns: tuple[str, ...] | None = None
    sample: Sample | None = None
    log_prob: LogProb | None = None
    entropy: float | None = None
    modes: np.ndarray | None = None
    mode_scale: float | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    white: int = 255


def names() -> list[str]:
    """All built-in data sets: the synthetic ones first, images last."""
    return [*TOY_DENSITIES, *REAL, *IMAGE_SETS]


def load(name: str, n: int | None = None, seed: int = 0) -> BuiltinDataset:
    """A built-in data set.

    Arguments:
        name: One of `names`.
        n: How many data: 50,000 by default for a synthetic set, all of a real one.
        seed: Chooses the draw of a synthetic set, or the rows of a part of a real one.

    Raises:
        UsageError: If there is no such set, it holds fewer than n data, or these fit no memory.
        Unavailable: If the package that ships it is not installed.
    """
    _check_dataset_name(name)
    if n is not None and n < 1:
        raise UsageError(f"n = {n}: ask for at least one")
    if name in TOY_DENSITIES:
        return _load_toy_density(name, n or SIZE, seed)
    load_real = _load_builtin_images if name in IMAGE_SETS else _load_sklearn_dataset
    found = load_real(name, n, seed)
    if n is not None and n > len(found.x):
        raise UsageError(f"{name} holds {len(found.x)} data, fewer than {n}")
    return found


def describe(name: str) -> str:
    """What a built-in data set is, in one line; UsageError if there is no such set."""
    if name in TOY_DENSITIES:
        return TOY_DENSITIES[name]().description
    if name in IMAGE_SETS:
        return IMAGE_SETS[name].description
    return REAL[_check_dataset_name(name)][0]


def dataset_columns(data: BuiltinDataset) -> Any:
    if data.columns is None:
        return data.x
    columns = dict(zip(data.columns, data.x.T, strict=True))
    return columns if data.label is None else columns | {data.label: data.y}


def dataset_conditions(data: BuiltinDataset) -> dict[str, np.ndarray]:
    name = "caption" if data.label == "caption" else "label"
    return ({} if data.y is None else {name: data.y}) | dict(data.extra)


def _check_dataset_name(name: str) -> str:
    if name not in names():
        known = join_names(names(), 180)
        raise UsageError(f"no data set is called {printable_text(name)!r}; choose from {known}")
    return name


def _load_toy_density(name: str, n: int, seed: int) -> BuiltinDataset:
    from ...memory import require_memory

    density = TOY_DENSITIES[name]()
    require_memory(8 * n, f"{n} data of {name}", "ask for fewer")

    def sample(n: int, seed: int) -> np.ndarray:
        return density.draw(np.random.default_rng(seed), n)[0]

    x, y = density.draw(np.random.default_rng(seed), n)
    label = None if y is None else "component"
    facts = density._asdict()
    del facts["draw"]
    return BuiltinDataset(name, x=x, y=y, label=label, sample=sample, **facts)


REAL = {
    "digits": ("handwritten digits, 8 x 8 pixels with 17 levels", "digit"),
    "wine": ("chemical analyses of three Italian wines", "cultivar"),
    "breast_cancer": ("shapes of cell nuclei, Wisconsin", "diagnosis"),
    "iris": ("sepals and petals of three kinds of iris", "species"),
    "diabetes": ("ten measurements of diabetes patients, in their own units", "progression"),
}


def _load_sklearn_dataset(name: str, n: int | None, seed: int) -> BuiltinDataset:
    from sklearn import datasets as sets

    options: dict[str, Any] = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(sets, f"load_{name}")(**options)
    x, y = bunch.data, bunch.target
    columns = None if name == "digits" else tuple(map(str, bunch.feature_names))
    if name == "digits":
        x = bunch.images.astype(np.uint8)
    elif name != "diabetes":
        y = bunch.target_names[y]
    if n is not None:
        rows = np.random.default_rng(seed).permutation(len(x))[:n]
        x, y = x[rows], y[rows]
    description, label = REAL[name]
    white = 16 if name == "digits" else 255
    return BuiltinDataset(name, description, x, y, label, columns, white=white)


def _load_builtin_images(name: str, n: int | None, seed: int) -> BuiltinDataset:
    from ...memory import require_memory

    source = IMAGE_SETS[name]
    require_memory((n or 0) * 32 * 32 * 3, f"{n} images of {name}", "ask for fewer")
    x, label, y, extra = source.load(n or source.n, seed)
    return BuiltinDataset(name, source.description, x, y, label, extra=extra)
