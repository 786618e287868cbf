"""The families. The directory is the registry: ``build("vae", event)`` calls that of ``vae.py``.

Each module defines ``build(event: Event, **options) -> GenerativeModel`` with keyword-only options
that have defaults, and begins with a one-line docstring, which the command line shows.
"""

import inspect
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from ..errors import PushforwardError, UsageError
from ..model import Event, GenerativeModel
from ..networks.allocation_guard import AllocationGuard
from ..options import check_options, option_defaults

BASELINES = ("gaussian", "gaussian_mixture", "kde", "histogram")


def names() -> list[str]:
    """All families in alphabetical order."""
    return sorted(m.name for m in iter_modules(__path__))


def family_key(name: str) -> str:
    """The registry key of a family as a user spells it (``wgan-gp`` is ``wgan_gp``).

    Raises:
        UsageError: If there is no such family.
    """
    known = name.replace("-", "_").lower() if isinstance(name, str) else None
    if known is None or known not in names():
        raise UsageError(f"no family is called {name!r}; choose from {', '.join(names())}")
    return known


def family_builder(name: str) -> Callable[..., GenerativeModel]:
    """The function of a family's module that makes a model."""
    return import_module(f"{__name__}.{family_key(name)}").build


def family_options(name: str) -> dict[str, Any]:
    """The options that a family's ``build`` takes, with their defaults."""
    return option_defaults(family_builder(name))


def family_summary(name: str) -> str:
    """What a family is, in one line: the first line of its module."""
    text = import_module(f"{__name__}.{family_key(name)}").__doc__ or ""
    return text.strip().splitlines()[0]


def option_descriptions(name: str) -> dict[str, str]:
    """What each option of a family means, from the docstring of its ``build``."""
    text = inspect.getdoc(family_builder(name)) or ""
    arguments = text.partition("Arguments:")[2].partition("Raises:")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", arguments, flags=re.M)
    return {key: " ".join(value.split()) for key, value in found}


def build(name: str, event: Event, **chosen: Any) -> GenerativeModel:
    """Build a family's model for data of the given kind.

    Raises:
        UsageError: If the family does not exist or does not take an option.
    """
    check_options(family_builder(name), chosen, name, least=0)
    given = ", ".join(f"{k}={v}" for k, v in chosen.items())
    try:
        with AllocationGuard(f"{name} with {given}"[:100], "lower it"):
            return family_builder(name)(event, **chosen)
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if not chosen or isinstance(error, PushforwardError):
            raise
        why = str(error).splitlines()[0][:120]
        raise UsageError(f"{name} cannot be built with {given[:100]}: {why}") from error


class _Registry(ModuleType):
    """Lets ``pf.families()`` list the families, although the package has the same name."""

    def __call__(self) -> list[str]:
        return names()


sys.modules[__name__].__class__ = _Registry
