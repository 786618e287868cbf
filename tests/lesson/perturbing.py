"""Make a function of the library wrong, to see that a claim notices."""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator

import numpy as np
import torch


def spoiled(value):
    """A result that is plausible and wrong: numbers are scaled and shifted, truths are reversed."""
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, int | np.integer):
        return value + 3
    if isinstance(value, float | np.floating | np.ndarray):
        return value * 1.37 + 0.21
    if isinstance(value, torch.Tensor):
        if value.dtype is torch.bool:
            return ~value
        return value + 3 if not value.is_floating_point() else value * 1.37 + 0.21
    if isinstance(value, dict):
        return {k: spoiled(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(spoiled(v) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(spoiled(v) for v in value)
    if isinstance(value, Iterator):
        return (spoiled(v) for v in value)
    if dataclasses.is_dataclass(value):
        wrong = {f.name: spoiled(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **wrong)
    raise TypeError(f"no way to spoil a {type(value).__name__}; name another function")


@contextlib.contextmanager
def perturbed(function: str) -> Iterator[None]:
    """Within, the function, method or property of that dotted name in the package is wrong."""
    names = ["pushforward", *function.split(".")]
    depth = next(i for i in range(len(names), 0, -1) if importable(".".join(names[:i])))
    owner = importlib.import_module(".".join(names[:depth]))
    *holders, last = names[depth:]
    for name in holders:
        owner = getattr(owner, name)
    static = owner.__dict__[last]
    truth = static.fget if isinstance(static, property) else getattr(owner, last)

    def wrong(*args, **kwargs):
        return spoiled(truth(*args, **kwargs))

    setattr(owner, last, property(wrong) if isinstance(static, property) else wrong)
    try:
        yield
    finally:
        setattr(owner, last, static)


def importable(name: str) -> bool:
    """Whether that is a module."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(name) is not None
    return False
