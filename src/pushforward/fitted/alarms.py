"""What a family's own diagnosis of its state means, where it is bad news."""

from collections.abc import Iterator
from typing import Any

from ..theory.coverage import is_collapsed

SOLVER = 0.01  # nats by which a coarse solver may flatter a model unnoticed


def last(history: list[dict[str, Any]], name: str) -> float | None:
    """The newest value of a diagnosis."""
    return next((row[name] for row in reversed(history) if row.get(name) is not None), None)


def alarms(history: list[dict[str, Any]]) -> Iterator[str]:
    """One sentence for each that rings: mode collapse, posterior collapse, an exploited solver.

    Arguments:
        history: Of a fit; each validation adds what the family found on held-out data.
    """
    kept, gain = last(history, "mode_coverage"), last(history, "solver_error")
    active, idle = last(history, "active_units"), last(history, "collapsed_units")
    if kept is not None and is_collapsed(kept):
        yield f"mode collapse: samples reach {kept:.0%} of the mass of held-out data"
    if active == 0 and idle:
        yield f"posterior collapse: none of the {idle:.0f} latents tells of the data"
    if gain is not None and gain > SOLVER:
        yield (
            f"solver error: the steps of training flatter the likelihood by {gain:.2g} nats; "
            "take more of them (solver_steps=)"
        )
