"""Fitting: data and a family in, a trained model out, with checkpoints on the way."""

import contextlib
import time
from pathlib import Path
from typing import Any

from . import checkpoint, families
from .data import reading
from .data.reading import Samples
from .errors import FolderInUse, UsageError
from .fitted import FittedModel
from .places import seeded
from .progress import Update, bar
from .running import Run


def fit(
    x: Any = None,
    family: str = "flow_matching",
    y: Any = None,
    *,
    condition: str | None = None,
    bounds: reading.Bounds | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | Update = True,
    save_seconds: float = 20.0,
    **options: Any,
) -> FittedModel:
    """Fit a family to data.

    Arguments:
        x: An array, a tensor, a data frame, a path, or the name of a built-in data set.
        family: A key of `families.names()`.
        y: A condition for each datum: classes, numbers, or vectors of numbers.
        condition: The column of ``x`` that is the condition, instead of ``y``.
        bounds: Limits of columns, ``{"age": (0, None)}``; samples respect them.
        steps: Rounds of training; the family's own number when no budget is given.
        minutes: Wall time instead, set-up included.
        seed: The same seed, data and steps give the same weights on the same machine.
        device: "auto", "cpu", "cuda", ...
        out: A run folder to write, so that the run can be resumed.
        resume: Continue the run in ``out``.
        progress: Show a bar on a terminal, or a function of the fraction done and a text.
        save_seconds: Wall time between checkpoints.
        options: The family's options and the fields of `Recipe`.

    Raises:
        DataError: If the data cannot be used as they are.
        UsageError: If an option does not exist or has no sense.
        NumericalError: If a loss is not finite; the last good checkpoint is named.
    """
    started, folder = time.monotonic(), None if out is None else Path(out)
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(seed))
        if resume:
            if options or minutes is not None:
                given = ", ".join([*options, *["minutes"] * (minutes is not None)])
                raise UsageError(f"a resumed run keeps its options; leave out {given}")
            run = resumed(x, y, condition, folder, device, steps, stack)
        else:
            run = fresh(
                x, family, y, condition, bounds, options, steps, minutes, seed, device, folder
            )
            if folder is not None:  # only now: whatever was wrong has left no trace
                stack.enter_context(checkpoint.lock(folder))
        run.folder, run.started, run.save_seconds = folder, started - run.seconds, save_seconds
        if callable(progress):
            return run.train(progress)
        with bar(run.fitted.family, show=progress) as update:
            return run.train(update)


def fresh(
    x: Any,
    family: str,
    y: Any,
    condition: str | None,
    bounds: reading.Bounds | None,
    options: dict[str, Any],
    steps: int | None,
    minutes: float | None,
    seed: int,
    device: str,
    folder: Path | None,
) -> "Run":
    """A run that starts from untrained weights; nothing is written yet."""
    if x is None:
        raise UsageError("there is nothing to fit: pass data, a path, or the name of a data set")
    if folder is not None and checkpoint.checkpoints(folder):
        raise FolderInUse(f"{folder} holds a run already; resume it or choose another folder")
    samples = x
    if not isinstance(x, Samples):
        samples = reading.read(x, y=y, condition=condition, bounds=bounds)
    source = str(x) if isinstance(x, str | Path) else None
    extra = {"source": source, "condition": condition, "bounds": bounds, "seed": seed}
    return Run.fresh(samples, families.key(family), options, steps, minutes, device, extra)


def resumed(
    x: Any,
    y: Any,
    condition: str | None,
    folder: Path | None,
    device: str,
    steps: int | None,
    stack: contextlib.ExitStack,
) -> "Run":
    """A run that goes on where its last checkpoint stands; its folder is held from here on."""
    if folder is None:
        raise UsageError("to resume, name the run folder: out=RUN")
    if checkpoint.checkpoints(folder):  # otherwise `load` says what is wrong
        stack.enter_context(checkpoint.lock(folder))
    found = checkpoint.load(folder)
    config = found.plain["config"]
    x = config["source"] if x is None else x
    if x is None:
        raise UsageError("the run was fitted to data in memory: pass the same data again")
    column = condition or config["condition"]
    samples = reading.read(x, y=y, condition=column, bounds=config["bounds"])
    return Run.resumed(samples, found, device, steps)
