"""Words of a command line as values."""

import contextlib
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingFile, UsageError
from ..options import option_types


def _parse_value(text: str) -> Any:
    """A value as a person types it: a number or several, true, false, none, or a word."""
    low = text.strip().lower()
    if low in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(low)
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    if "," in text:
        with contextlib.suppress(ValueError):
            return tuple(float(part) for part in text.split(","))
    return text


def without_none(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def parse_set_options(
    pairs: list[str] | None, call: Callable[..., Any], target: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """What ``target`` takes as a word stays one, though it may look like numbers."""
    taken = inspect.signature(call).parameters
    hints = option_types(target) if target else {}
    options: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set takes KEY=VALUE, not {pair[:60]!r}")
        if name in options:
            raise UsageError(f"--set gives {name} twice")
        if name in taken and taken[name].kind is not inspect.Parameter.VAR_KEYWORD:
            raise UsageError(f"--set {name} is no option of the family; is there a --{name}?")
        types, typed = hints.get(name, ()), _parse_value(value)
        options[name] = value if str in types and type(typed) not in types else typed
    return options


def read_conditions(words: list[str] | None, file: Path | None) -> list[str]:
    if file is None:
        return words or []
    if words:
        raise UsageError("give --condition or --conditions FILE, not both")
    if not file.is_file():
        raise MissingFile(f"{file}: there is no such file of conditions")
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not a text in UTF-8") from error
    if not any(lines):
        raise UsageError(f"{file} holds no conditions; write one on each line")
    return [line for line in lines if line]


def assign_conditions(n: int | None, words: list[str]) -> tuple[int, list[str]]:
    if len(words) < 2:
        return 1000 if n is None else n, words
    n = len(words) if n is None else n
    if n % len(words):
        raise UsageError(f"-n {n} is no multiple of the {len(words)} conditions: remove -n")
    return n, [word for word in words for _ in range(n // len(words))]


def parse_interval(text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(map(float, text.split(",")))
    except ValueError as error:
        raise UsageError(f"--guidance-interval takes LOW,HIGH, not {text!r}"[:100]) from error


def parse_given(words: list[str] | None) -> dict[str, str] | str | None:
    if words and len(words) == 1 and words[0].endswith(".npy"):
        return words[0]
    pairs = [word.rpartition("=") for word in words or []]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UsageError(f"--given takes COLUMN=VALUE or FILE.npy, not {(name + value)[:60]!r}")
    _check_unique("--given", [name for name, _, _ in pairs])
    return {name: value for name, _, value in pairs} or None


def _check_unique(option: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{option} gives {name[:60]} twice")


def parse_bounds(pairs: list[str] | None) -> dict[str, tuple[float | None, float | None]] | None:
    """Bounds from ``column=low:high`` words; either side may be left out."""
    bounds = {}
    _check_unique("--bounds", [pair.rpartition("=")[0] for pair in pairs or []])
    for pair in pairs or []:
        name, _, value = pair.rpartition("=")
        low, colon, high = value.partition(":")
        try:
            bounds[name] = (_parse_bound(low), _parse_bound(high))
        except ValueError:
            colon = ""
        if not colon or not name:
            raise UsageError(f"--bounds takes COLUMN=LOW:HIGH, not {pair[:60]!r}")
    return bounds or None


def parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if found is None:
        raise UsageError(f"--size takes pixels, 32 or 32x48, not {text[:60]!r}")
    return int(found[1]), int(found[2] or found[1])


def _parse_bound(text: str) -> float | None:
    value = float(text) if text.strip() else None
    return None if value is not None and math.isinf(value) else value
