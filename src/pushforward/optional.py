"""Optional packages: where one is installed, or the error that says how to get it."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import Unavailable


def package_folder(name: str, extra: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise Unavailable(f"{name} is not installed; install pushforward[{extra}]")
    return Path(spec.origin).parent


def import_optional(name: str, extra: str) -> Any:
    package_folder(name, extra)
    return import_module(name)
