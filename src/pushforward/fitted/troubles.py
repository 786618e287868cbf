"""What families diagnose of themselves in training, where it is an alarm."""

import math
from collections.abc import Iterator
from typing import Any

from ..theory.coverage import is_collapsed

SOLVER = 0.01  # nats by which a solver's error must not change a density
UNUSED = 0.8  # of the latents: more of them without information are posterior collapse


def troubles(history: list[dict[str, Any]]) -> list[str]:
    """One line for each alarm that the last diagnosis of a run raises."""
    said: dict[str, Any] = {}
    for row in history:
        said |= row
    return [*modes(said), *latents(said), *solver(said)]


def modes(said: dict[str, Any]) -> Iterator[str]:
    """Mode collapse of a generator on held-out data."""
    kept = said.get("mode_coverage", 1.0)
    if is_collapsed(kept):
        yield f"mode collapse: samples reach only {100 * kept:.0f} % of the held-out data"


def latents(said: dict[str, Any]) -> Iterator[str]:
    """Posterior collapse: most latents say nothing of the data."""
    idle, used = said.get("collapsed_units", 0), said.get("active_units", 0)
    if idle and idle >= UNUSED * (idle + used):
        yield (
            f"posterior collapse: {idle:.0f} of {idle + used:.0f} latents say nothing of the data; "
            "lower beta, or take fewer latents"
        )


def solver(said: dict[str, Any]) -> Iterator[str]:
    """A flow that has learned to gain by the errors of its solver."""
    error = abs(said.get("solver_error", 0.0))
    if error > SOLVER or math.isnan(error):
        yield (
            f"the solver of training errs by {error:.2g} nats; more solver_steps, or larger "
            "kinetic and jacobian, are more honest"
        )
