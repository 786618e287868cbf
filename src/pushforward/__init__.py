"""Generative models: fit, sample, score and compare every family through one interface.

>>> import pushforward as pf
>>> model = pf.fit("moons", "flow_matching")
>>> model.sample(1000, seed=0)
"""

from importlib import import_module
from typing import Any

from .families import Registry

__version__ = "0.1.0"

_PUBLIC = {  # imported when first used: PyTorch takes two seconds
    "fit": "training.fit",
    "load": "inference.loading",
    "FittedModel": "inference.fitted_model",
    "compare": "comparison.compare",
    "Comparison": "comparison.compare",
    "evaluate": "metrics",
    "Likelihood": "model",
    "Event": "model",
    "Recipe": "model",
}
_MODULES = {"datasets": "data.builtin.datasets"}
families = Registry()  # lists them when called; the folder of that name is loaded by the line above
__all__ = [*_PUBLIC, *_MODULES, "families"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
