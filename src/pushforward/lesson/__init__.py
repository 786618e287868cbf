"""The lesson on the mathematics of generative models, run: claims, figures, practice problems."""

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

from ..errors import UsageError
from .problems import Problem
from .sections import Section

SECTIONS = {"1": "goals", "2": "vae", "3": "gan", "4": "wgan", "5": "diffusion", "6": "recent"}
PROBLEMS = {"p1": "elbo", "p2": "vae", "p3": "discriminator", "p4": "forward", "p5": "flows"}


def section(key: str) -> Section:
    """A section by its number.

    Raises:
        UsageError: If there is none.
    """
    name = SECTIONS[require_section_key(key, SECTIONS)]
    return import_module(f".sections.{name}", __name__).SECTION


def problem(key: str) -> Problem:
    """A practice problem by its key, ``p1`` to ``p5``.

    Raises:
        UsageError: If there is none.
    """
    name = PROBLEMS[require_section_key(key, PROBLEMS)]
    return import_module(f".problems.{name}", __name__).PROBLEM


def require_section_key(key: str, keys: Iterable[str]) -> str:
    if key not in keys:
        raise UsageError(f"there is no section {key}; choose from {', '.join(keys)}")
    return key


def __getattr__(name: str) -> ModuleType:
    if name == "code":  # what `snippets` was called
        return import_module(".snippets", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
