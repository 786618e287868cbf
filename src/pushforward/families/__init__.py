"""The families. The directory is the registry: ``build("vae", event)`` calls that of ``vae.py``.

Each module defines ``build(event: Event, **options) -> GenerativeModel`` with keyword-only options
that have defaults, and begins with a one-line docstring, which the command line shows.
"""

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType, NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from ..errors import UsageError
from ..model import Event, GenerativeModel

T = TypeVar("T")
BASELINES = ("gaussian", "gaussian_mixture", "kde", "histogram")


def names() -> list[str]:
    """All families in alphabetical order."""
    return sorted(m.name for m in iter_modules(__path__))


def key(name: str) -> str:
    """The registry key of a family as a user spells it (``wgan-gp`` is ``wgan_gp``).

    Raises:
        UsageError: If there is no such family.
    """
    known = name.replace("-", "_").lower()
    if known not in names():
        raise UsageError(f"no family is called {name!r}; choose from {', '.join(names())}")
    return known


def options(name: str) -> dict[str, Any]:
    """The options that a family's ``build`` takes, with their defaults."""
    signature = inspect.signature(import_module(f"{__name__}.{key(name)}").build)
    return {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def types(name: str) -> dict[str, type]:
    """The type of each option; where None stands for a choice made from the data, the other one."""
    hints = get_type_hints(import_module(f"{__name__}.{key(name)}").build)
    kinds = {
        option: [k for k in get_args(hint) if k is not NoneType] for option, hint in hints.items()
    }
    return {
        option: kinds[option][0] if kinds[option] else hints[option] for option in options(name)
    }


def summary(name: str) -> str:
    """What a family is, in one line: the first line of its module."""
    text = import_module(f"{__name__}.{key(name)}").__doc__ or ""
    return text.strip().splitlines()[0]


def build(name: str, event: Event, **chosen: Any) -> GenerativeModel:
    """Build a family's model for data of the given kind.

    Raises:
        UsageError: If the family does not exist or does not take an option.
    """
    known, kinds = options(name), types(name)
    for option in chosen:
        if option not in known:
            raise UsageError(
                f"{name} has no option {option!r}; it takes {', '.join(known) or 'none'}"
            )
        sensible(option, chosen[option], known[option], kinds[option])
    return import_module(f"{__name__}.{key(name)}").build(event, **chosen)


def sensible(option: str, value: Any, default: Any, kind: type) -> None:
    """Check an option against its default: same type, and not below what makes sense.

    Raises:
        UsageError: If it has no sense.
    """
    if value == default or callable(value):
        return
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{option} is {str(value)[:40]!r}; it must be of type {kind.__name__}")
    if kind in (int, float) and not least(kind, default) <= value < 1e12:
        raise UsageError(f"{option} is {value}; it is too small or too large")


def one_of(option: str, value: str, choices: Mapping[str, T]) -> T:
    """What an option's value stands for.

    Raises:
        UsageError: If it is none of the choices.
    """
    if value not in choices:
        raise UsageError(f"{option} is {value!r}; choose from {', '.join(choices)}")
    return choices[value]


def least(kind: type, default: Any) -> float:
    """The smallest sensible value: 1 of counts, 0 of scales, none where the default is negative."""
    if default is None or default >= 0:
        return float(kind is int and default is not None and default >= 1)
    return -1e12


class _Registry(ModuleType):
    """Lets ``pf.families()`` list the families, although the package has the same name."""

    def __call__(self) -> list[str]:
        return names()


sys.modules[__name__].__class__ = _Registry
