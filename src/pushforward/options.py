"""Options of a function, checked against its annotations before it is called.

A range stands at the option it is for: ``anneal: Annotated[float, FRACTION]``. Without one, a count
is at least 1 where its default is, and no number is negative where its default is not.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from .errors import UsageError

T = TypeVar("T")
LARGEST = 10**6  # no count in this library is larger
NOT_OPTIONS = ("self", "n", "x", "z", "c", "event")
SEVERAL = "several numbers, such as 0.2,0.8"  # of all other kinds that are no functions
PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


class Range(NamedTuple):
    """The numbers that an option may be, both ends included; an end of None is the default's."""

    low: float | None = None
    high: float | None = None


class Spelled(NamedTuple):
    """The names of the options that users write for one value."""

    names: tuple[str, ...]


FRACTION = Range(0, 1)
LAYERS = Range(high=1000)  # a module for each takes memory before any number is stored


def option_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The options that a function takes, with their defaults."""
    return {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.default is not p.empty and p.name not in NOT_OPTIONS
    }


@cache
def option_types(function: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """The types that each option may have."""
    hints = get_type_hints(getattr(function, "__func__", function))
    return {
        name: get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for name, hint in hints.items()
    }


@cache
def option_notes(function: Callable[..., Any], kind: type[T]) -> dict[str, T]:
    """What annotations say beside the type, of a kind: each `Range`, or how it is `Spelled`."""
    hints = get_type_hints(getattr(function, "__func__", function), include_extras=True)
    return {
        name: note
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for note in hint.__metadata__
        if isinstance(note, kind)
    }


def option_names(function: Callable[..., Any]) -> list[str]:
    """The options of a function as users write them."""
    spelled = option_notes(function, Spelled)
    known = option_defaults(function)
    return [option for k in known for option in spelled.get(k, Spelled((k,))).names]


def takes_any_option(function: Callable[..., Any]) -> bool:
    """Whether a function hands on options that it does not name."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def check_options(
    function: Callable[..., Any], given: dict[str, Any], owner: str, *, least: int = 1
) -> None:
    """Refuse an option that does not exist or has no sense, instead of failing later.

    A count is at least 1 where its default is, and no other number is negative where its default
    is not.

    Arguments:
        function: What will be called with the options; further ones are let through if it takes
            any.
        given: The options.
        owner: What the message calls the function.
        least: The smallest count where the default is None.

    Raises:
        UsageError: If an option does not exist or has no sense.
    """
    known = option_defaults(function)
    for name, value in given.items():
        if name in known:
            types = option_types(function)[name]
            limits = option_notes(function, Range).get(name, Range())
            check_option_value(name, value, known[name], types, limits, least=least)
        elif name in ("condition", "label", "labels"):
            raise UsageError(f"{owner} has no option {name!r}: the condition is called y")
        elif not takes_any_option(function):
            takes = ", ".join(option_names(function)) or "none"
            raise UsageError(f"{owner} cannot honour the option {name!r}; it takes {takes}")


def check_option_value(
    name: str,
    value: Any,
    default: Any,
    types: tuple[Any, ...],
    limits: Range = Range(),  # noqa: B008 immutable
    *,
    least: int = 1,
) -> None:
    """Check one option against its annotation and its default.

    Raises:
        UsageError: If it has no sense.
    """
    if value is default or (value is None and NoneType in types):
        return
    if type(value) in (list, tuple) and any(hasattr(t, "__origin__") for t in types):
        return  # whoever takes a sequence checks it
    plain = [t for t in types if t in PLAIN]
    if any(isinstance(value, t) for t in types if isinstance(t, type) and t not in PLAIN):
        return
    if not matches_type(value, plain) and not (callable(value) and len(plain) < len(types)):
        wanted = " or ".join(PLAIN[t] for t in plain) or SEVERAL
        raise UsageError(f"{name} is {str(value)[:40]!r}; it must be {wanted}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        check_option_range(name, value, default, limits, least)


def check_duration(name: str, value: Any) -> None:
    """Check an amount of time, which may be None.

    Raises:
        UsageError: If it is not a positive number.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < math.inf):
        raise UsageError(f"{name} is {str(value)[:40]}; it must be positive")


def check_seed(value: Any) -> None:
    """Check what makes random numbers repeatable.

    Raises:
        UsageError: If it is no whole number of 63 bits.
    """
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not (whole and not hasattr(value, "__len__") and 0 <= value < 2**63):
        raise UsageError(f"seed is {str(value)[:40]}; it is a whole number from 0 to 2^63 - 1")


def matches_type(value: Any, plain: list[Any]) -> bool:
    """Whether a value is of one of these types; a whole number is also a number."""
    if isinstance(value, bool):
        return bool in plain
    return isinstance(value, tuple(plain)) or (isinstance(value, int) and float in plain)


def check_option_range(
    name: str, value: int | float, default: Any, limits: Range, least: int
) -> None:
    """Check that a number is in its range."""
    count = isinstance(value, int) and not isinstance(default, float)
    low: int | float = -math.inf if default is not None and default < 0 else 0
    if count and (default is None or default >= 0):
        low = least if default is None else min(1, default)
    low = low if limits.low is None else limits.low
    high = (LARGEST if count else 1e12) if limits.high is None else limits.high
    if not low <= value <= high or not math.isfinite(value):
        raise UsageError(f"{name} is {value}; it must be from {low} to {high:,.0f}")


def choose_option(option: str, value: str, choices: Mapping[str, T]) -> T:
    """What an option's value stands for.

    Raises:
        UsageError: If it is none of the choices.
    """
    if value not in choices:
        raise UsageError(f"{option} is {value!r}; choose from {', '.join(choices)}")
    return choices[value]
