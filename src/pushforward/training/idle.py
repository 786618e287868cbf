"""Options that would change nothing about a fit are refused, or said to do nothing."""

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from ..data import reading
from ..errors import UsageError
from ..files import as_folder
from ..model import GenerativeModel, Recipe
from .processes import ProcessGroup

BUDGETS = ("steps", "minutes")  # a closed form keeps within any


def check_idle_options(
    model: GenerativeModel,
    options: dict[str, Any],
    extra: dict[str, Any],
    ranks: ProcessGroup,
    conditional: bool,
) -> None:
    """Refuse options that need what this fit has not.

    Raises:
        UsageError: If conditions are to be hidden and there are none, or several processes are to
            share what takes no steps.
    """
    if "unconditional" in options and not conditional:
        raise UsageError(
            "unconditional says how often the condition is hidden, and there is none: leave it out"
        )
    if model.players():
        return
    if ranks.count > 1:
        raise UsageError("devices share steps, and this family takes none: leave devices out")
    idle = [name for name in options if name in Recipe._fields and name not in BUDGETS]
    idle += ["precision"] * (extra["precision"] != "float32")
    if idle:
        warnings.warn(
            f"{', '.join(idle)}: without effect, since this family is fitted in closed form",
            stacklevel=2,
        )


def resolve_cache_folder(cache: str | Path | None, x: Any) -> Path | None:
    """The folder in which decoded pictures may be kept, if there is one.

    Raises:
        UsageError: If it is no path, or the data are no folder of pictures.
    """
    if cache is None:
        return None
    if x is not None and not reading.is_image_folder(x):  # None: a resumed run knows
        raise UsageError("cache keeps the decoded pictures of a folder, and the data are none")
    return as_folder(cache)


def check_acceleration(model: nn.Module, config: dict[str, Any]) -> None:
    """Refuse ways to train faster or in less memory that no network of the model has.

    Raises:
        UsageError: If there is nothing to compile, to compute again, or to order otherwise.
    """
    modules = list(model.modules())
    found = {
        "channels_last": ("convolutions", any(isinstance(m, nn.Conv2d) for m in modules)),
        "recompute": ("blocks", any("forward" in vars(m) for m in modules)),
        "compile": ("networks", any(m._compiled_call_impl is not None for m in modules)),
    }
    for name, (what, there) in found.items():
        if config.get(name) and not there:
            raise UsageError(f"{name} is for {what}, and this model has none: leave {name} out")
