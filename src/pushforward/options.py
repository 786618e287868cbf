"""Options of a function, checked against its annotations before it is called.

A range or a choice stands at the option it is for: ``anneal: Annotated[float, FRACTION]``, ``loss:
Annotated[str, Choice(LOSSES)]``. Without a range, a count is at least 1 where its default is, and
no number is negative where its default is not. Options that several functions share are a
`TypedDict` that each unpacks, ``**network: Unpack[TimeNetworkOptions]``; the default of each is its
`Default`.
"""

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, Unpack, cast, get_args, get_origin

from .errors import UsageError

T = TypeVar("T")
LARGEST = 10**6  # no count in this library is larger
CONDITION = ("condition", "label", "labels")  # what users call y, which no function takes by these
SEVERAL = "several numbers, such as 0.2,0.8"  # of all other kinds that are no functions
PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


class Range(NamedTuple):
    """The numbers that an option may be, both ends included; an end of None is the default's."""

    low: float | None = None
    high: float | None = None


class Choice:
    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)


class Spelled(NamedTuple):
    """The names of the options that users write for one value."""

    names: tuple[str, ...]


class Default(NamedTuple):
    value: Any


FRACTION = Range(0, 1)
LAYERS = Range(high=1000)  # a module for each takes memory before any number is stored


class Option(NamedTuple):
    default: Any
    types: tuple[Any, ...]
    limits: Range = Range()
    choices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # that users write, where it is not their own


def _read_option(hint: Any, default: Any = None) -> Option:
    notes = hint.__metadata__ if get_origin(hint) is Annotated else ()
    hint = get_args(hint)[0] if notes else hint
    union = get_origin(hint) in (Union, UnionType)
    option = Option(default, get_args(hint) if union else (hint,))
    for note in notes:
        if isinstance(note, Range):
            option = option._replace(limits=note)
        elif isinstance(note, Choice):
            option = option._replace(choices=note.words)
        elif isinstance(note, Spelled):
            option = option._replace(names=note.names)
        elif isinstance(note, Default):
            option = option._replace(default=note.value)
    return option


def _read_options(function: Callable[..., Any]) -> dict[str, Option]:
    """What has a default and can only be given by name; of a record, all fields with a default."""
    return _read_signature(getattr(function, "__func__", function))  # a method keeps its model


@cache
def _read_signature(function: Callable[..., Any]) -> dict[str, Option]:
    hints, found = typing.get_type_hints(function, include_extras=True), {}
    for p in inspect.signature(function).parameters.values():
        named = p.kind is p.KEYWORD_ONLY or isinstance(function, type)
        if named and p.default is not p.empty:
            found[p.name] = _read_option(hints[p.name], p.default)
        elif p.kind is p.VAR_KEYWORD and get_origin(hints.get(p.name)) is Unpack:
            found = _group_options(get_args(hints[p.name])[0]) | found
    return found


def _group_options(group: type) -> dict[str, Option]:
    hints = typing.get_type_hints(group, include_extras=True)
    return {name: _read_option(hint) for name, hint in hints.items()}


def option_groups(function: Callable[..., Any]) -> list[type]:
    hints = typing.get_type_hints(function, include_extras=True).values()
    return [get_args(hint)[0] for hint in hints if get_origin(hint) is Unpack]


def with_defaults(group: type[T], given: T) -> T:
    defaults = {name: option.default for name, option in _group_options(group).items()}
    return cast(T, defaults | cast(dict[str, Any], given))


def option_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: option.default for name, option in _read_options(function).items()}


def option_types(function: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    return {name: option.types for name, option in _read_options(function).items()}


def option_choices(function: Callable[..., Any]) -> dict[str, tuple[str, ...]]:
    return {name: option.choices for name, option in _read_options(function).items()}


def option_names(function: Callable[..., Any]) -> list[str]:
    known = _read_options(function).items()
    return [written for name, option in known for written in option.names or (name,)]


def takes_any_option(function: Callable[..., Any]) -> bool:
    rest = [p for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD]
    return any(get_origin(p.annotation) is not Unpack for p in rest)


def check_options(
    function: Callable[..., Any], given: dict[str, Any], owner: str, *, least: int = 1
) -> None:
    """``owner`` is what messages call it; ``least`` is for counts whose default is None."""
    known = _read_options(function)
    for name, value in given.items():
        if name in known:
            default, types, limits, choices, _ = known[name]
            check_option_value(name, value, default, types, limits, least=least)
            if choices and isinstance(value, str) and value != default:
                choose_option(name, value, dict.fromkeys(choices))
        elif name in CONDITION:
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
    if value is default or (value is None and NoneType in types):
        return
    if type(value) in (list, tuple) and any(hasattr(t, "__origin__") for t in types):
        return  # whoever takes a sequence checks it
    plain = [t for t in types if t in PLAIN]
    if any(isinstance(value, t) for t in types if isinstance(t, type) and t not in PLAIN):
        return
    if not _matches_type(value, plain) and not (callable(value) and len(plain) < len(types)):
        wanted = " or ".join(PLAIN[t] for t in plain) or SEVERAL
        raise UsageError(f"{name} is {str(value)[:40]!r}; it must be {wanted}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_option_range(name, value, default, limits, least)


def check_duration(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < math.inf):
        raise UsageError(f"{name} is {str(value)[:40]}; it must be positive")


def check_seed(value: Any) -> None:
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not (whole and not hasattr(value, "__len__") and 0 <= value < 2**63):
        raise UsageError(f"seed is {str(value)[:40]}; it is a whole number from 0 to 2^63 - 1")


def _matches_type(value: Any, plain: list[Any]) -> bool:
    """A whole number is also a number."""
    if isinstance(value, bool):
        return bool in plain
    return isinstance(value, tuple(plain)) or (isinstance(value, int) and float in plain)


def _check_option_range(
    name: str, value: int | float, default: Any, limits: Range, least: int
) -> None:
    count = isinstance(value, int) and not isinstance(default, float)
    low: int | float = -math.inf if default is not None and default < 0 else 0
    if count and (default is None or default >= 0):
        low = least if default is None else min(1, default)
    low = low if limits.low is None else limits.low
    high = (LARGEST if count else 1e12) if limits.high is None else limits.high
    if not low <= value <= high or not math.isfinite(value):
        raise UsageError(f"{name} is {value}; it must be from {low} to {high:,.0f}")


def choose_option(option: str, value: str, choices: Mapping[str, T]) -> T:
    if value not in choices:
        raise UsageError(f"{option} is {value!r}; choose from {', '.join(choices)}")
    return choices[value]
