"""`diffusers` (optional): its folders under our samplers, and our runs as its folders."""

from importlib import import_module
from typing import Any

_PUBLIC = {"load": "pipeline", "Pipeline": "pipeline", "export": "export_pipeline"}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
