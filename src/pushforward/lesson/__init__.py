"""The lesson on the mathematics of generative models, run: claims, figures, practice problems."""

from importlib import import_module

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
    if key not in SECTIONS:
        raise UsageError(f"there is no section {key}; choose from {', '.join(SECTIONS)}")
    return import_module(f".sections.{SECTIONS[key]}", __name__).SECTION


def problem(key: str) -> Problem:
    """A practice problem by its key, ``p1`` to ``p5``.

    Raises:
        UsageError: If there is none.
    """
    if key not in PROBLEMS:
        raise UsageError(f"there is no problem {key}; choose from {', '.join(PROBLEMS)}")
    return import_module(f".problems.{PROBLEMS[key]}", __name__).PROBLEM
