"""Dataclasses as JSON and back: every key must be known, present and of its declared type."""

import math
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import DataError
from ..formatting import printable_text


def to_plain_json(value: Any) -> Any:
    """A dataclass as JSON holds it: tuples become lists, floats are written exactly."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {k: to_plain_json(v) for k, v in value.items()}
    return [to_plain_json(v) for v in value] if isinstance(value, list | tuple) else value


def parse_typed_json(hint: Any, data: Any, where: str) -> Any:
    """Build what a type annotation asks for from parsed JSON.

    Arguments:
        hint: A dataclass, a tuple, a union or one of str, bool, int, float, None.
        data: What ``json.loads`` gave.
        where: How a message calls the place, such as "schema.columns".

    Raises:
        DataError: If the data are not of that type.
    """
    if is_dataclass(hint):
        return _parse_dataclass(hint, data, where)
    if get_origin(hint) in (Union, UnionType):
        return _parse_union(get_args(hint), data, where)
    if get_origin(hint) is tuple:
        return _parse_tuple(get_args(hint), data, where)
    if hint is float and type(data) in (int, float) and math.isfinite(data):
        return float(data)
    if hint is not float and type(data) is hint:
        return data
    raise DataError(
        f"{where}: expected {getattr(hint, '__name__', hint)}, got {printable_text(data, 40)!r}"
    )


def _parse_dataclass(hint: Any, data: Any, where: str) -> Any:
    names = [f.name for f in fields(hint)]
    if not isinstance(data, dict):
        raise DataError(f"{where}: expected an object with {printable_text(', '.join(names), 150)}")
    for key in [*data, *names]:
        if (key in names) != (key in data):
            raise DataError(
                f"{where}: {'lacks' if key in names else 'unknown'} key {printable_text(key)!r}"
            )
    hints = get_type_hints(hint)
    return hint(**{n: parse_typed_json(hints[n], data[n], f"{where}.{n}") for n in names})


def _parse_union(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and NoneType in options:
        return None
    rest = [o for o in options if o is not NoneType]
    exact = [o for o in rest if o is type(data)]
    return parse_typed_json((exact or rest)[0], data, where)


def _parse_tuple(items: tuple[Any, ...], data: Any, where: str) -> Any:
    if not isinstance(data, list):
        raise DataError(f"{where}: expected a list, got {printable_text(data, 40)!r}")
    if items[-1] is Ellipsis:
        items = items[:1] * len(data)
    if len(items) != len(data):
        raise DataError(f"{where}: expected {len(items)} entries, got {len(data)}")
    return tuple(
        parse_typed_json(i, d, f"{where}[{j}]") for j, (i, d) in enumerate(zip(items, data))
    )
