"""The families. The directory is the registry: ``build("vae", event)`` calls that of ``vae.py``.

Each module defines ``build(event: Event, **options) -> GenerativeModel`` with keyword-only options
that have defaults, and begins with a one-line docstring, which the command line shows.
"""

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from .. import options
from ..errors import PushforwardError, UsageError

if TYPE_CHECKING:  # listing families imports none of them, nor PyTorch
    from ..model import Event, GenerativeModel

BASELINES = ("gaussian", "gaussian_mixture", "kde", "histogram")


def names() -> list[str]:
    """All families in alphabetical order."""
    return sorted(m.name for m in iter_modules(__path__))


def family_key(name: str) -> str:
    """The registry key of a family as a user spells it (``wgan-gp`` is ``wgan_gp``)."""
    known = name.replace("-", "_").lower() if isinstance(name, str) else None
    if known is None or known not in names():
        listed = ", ".join(names())
        raise UsageError(f"no family is called {name!r}; choose from {listed}")
    return known


def family_builder(name: str) -> "Callable[..., GenerativeModel]":
    return import_module(f"{__name__}.{family_key(name)}").build


def family_options(name: str) -> dict[str, Any]:
    return options.option_defaults(family_builder(name))


def family_summary(name: str) -> str:
    """What a family is, in one line: the first line of its module."""
    text = import_module(f"{__name__}.{family_key(name)}").__doc__ or ""
    return text.strip().splitlines()[0]


def option_descriptions(name: str) -> dict[str, str]:
    function = family_builder(name)
    described: dict[str, str] = {}
    for owner in (function, *options.option_groups(function)):
        text = inspect.getdoc(owner) or ""
        arguments = text.partition("Arguments:")[2].partition("Raises:")[0]
        found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", arguments, flags=re.M)
        described |= {key: " ".join(value.split()) for key, value in found}
    return described


def family_choices(name: str) -> dict[str, tuple[str, ...]]:
    """The words that each option of a family may be; none where it may be anything."""
    return options.option_choices(family_builder(name))


def build(name: str, event: "Event", **chosen: Any) -> "GenerativeModel":
    """Build a family's model for data of the given kind.

    Raises:
        UsageError: If the family does not exist or does not take an option.
    """
    from ..devices import AllocationGuard

    function = family_builder(name)
    options.check_options(function, chosen, name, least=0)
    given = ", ".join(f"{k}={v}" for k, v in chosen.items())
    try:
        with AllocationGuard(f"{name} with {given}"[:100], "lower it"):
            return function(event, **chosen)
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if not chosen or isinstance(error, PushforwardError):
            raise
        why = str(error).splitlines()[0][:120]
        raise UsageError(f"{name} cannot be built with {given[:100]}: {why}") from error


class Registry:
    """The families as ``pf.families``: a call lists them, and the functions above are there."""

    BASELINES = BASELINES
    names, build, family_key = staticmethod(names), staticmethod(build), staticmethod(family_key)
    family_builder, family_options = staticmethod(family_builder), staticmethod(family_options)
    family_summary, family_choices = staticmethod(family_summary), staticmethod(family_choices)
    option_descriptions = staticmethod(option_descriptions)

    def __call__(self) -> list[str]:
        return names()
