"""What a family's own diagnosis of its state means, where it is bad news."""

from collections.abc import Iterator
from typing import Any

from ..theory.sample_statistics import is_collapsed

ENOUGH = 0.25  # of the usual steps, below which a model is not judged
IDLE = 0.8  # of the latents
SOLVER = 0.01  # nats by which a coarse solver may flatter a model unnoticed


def _latest_value(history: list[dict[str, Any]], name: str) -> float | None:
    """The newest value of a diagnosis."""
    return next((row[name] for row in reversed(history) if row.get(name) is not None), None)


def _default_steps(config: dict[str, Any]) -> int:
    """The family's own number of steps, 0 where it is not known."""
    known = config.get("usual")  # not in runs from before it was noted
    if known is None and config.get("minutes"):
        known = config.get("recipe", {}).get("steps")
    return known or 0


def trained_fraction(config: dict[str, Any]) -> float:
    """The part of the family's usual steps that a fit took; 1 where it is done or not known."""
    done, stopped = config.get("steps"), str(config.get("ended", "")).startswith("stopped early")
    return (
        min(done / _default_steps(config), 1.0)
        if done and _default_steps(config) and not stopped
        else 1.0
    )


def diagnose_fit(history: list[dict[str, Any]], config: dict[str, Any]) -> Iterator[str]:
    """One sentence for each: little training, mode or posterior collapse, an exploited solver.

    Arguments:
        history: Of a fit; each validation adds what the family found on held-out data.
        config: Of the fit.
    """
    kept, gain = _latest_value(history, "mode_coverage"), _latest_value(history, "solver_error")
    active, idle = _latest_value(history, "active_units"), _latest_value(history, "collapsed_units")
    if kept is not None and is_collapsed(kept):
        yield f"mode collapse: samples reach {kept:.0%} of the mass of held-out data"
    if active is not None and idle is not None and idle >= IDLE * (active + idle):
        yield f"posterior collapse: {idle:.0f} of {active + idle:.0f} latents tell nothing"
    if gain is not None and gain > SOLVER:
        yield (
            f"solver error: the steps of training flatter the likelihood by {gain:.2g} nats; "
            "take more of them (solver_steps=)"
        )
    if trained_fraction(config) < ENOUGH:
        done, budget = config["steps"], "minutes" if config.get("minutes") else "steps"
        yield (
            f"far from trained: {done:,} of the usual {_default_steps(config):,} steps; "
            f"give it more {budget}"
        )
