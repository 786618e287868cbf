"""Fitting: data and a family in, a trained model out, with checkpoints on the way."""

import contextlib
import json
import time
from pathlib import Path
from types import NoneType
from typing import Any

from .. import checkpoint, families
from ..checkpoint import Checkpoint
from ..data import memmap, reading, text_encoders
from ..data.reading import Dataset
from ..devices import seeded_rng
from ..errors import FolderInUse, UsageError
from ..files import as_folder
from ..inference.fitted_model import FittedModel
from ..inference.loading import run_folder_errors
from ..options import check_duration, check_option_value
from ..progress import Update, terminal_bar
from . import setup
from .companions import TeacherAndSource, load_teacher, reload_teacher_and_source
from .idle import resolve_cache_folder
from .launch import choose_process_group, is_main_process, open_process_group, process_device
from .run import EVALUATIONS

DEFAULT = "flow_matching"
# what a resumed run may be told again, if it is the same
KEPT = {"family", "seed", "bounds", "size", "text", "precision", "watch"}
KEPT |= {"compile", "channels_last", "recompute"}


def fit(
    x: Any = None,
    family: str | None = None,
    y: Any = None,
    *,
    condition: str | None = None,
    bounds: reading.Bounds | None = None,
    size: int | tuple[int, int] | None = None,
    text: str | Path | None = None,
    teacher: Any = None,
    source: Any = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    devices: int | None = None,
    shard: bool | None = None,
    precision: str | None = None,
    compile: bool | None = None,
    channels_last: bool | None = None,
    watch: int | None = None,
    recompute: bool | None = None,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    resume: bool = False,
    progress: bool | Update = True,
    save_seconds: float = 20.0,
    **options: Any,
) -> FittedModel:
    """Fit a family to data.

    Arguments:
        x: An array, a tensor, a data frame, a path, or the name of a built-in data set.
        family: A key of `families.names()`; flow matching by default.
        y: A condition for each datum: classes, numbers, or vectors of numbers.
        condition: The column of ``x`` that is the condition, instead of ``y``.
        bounds: Limits of columns, ``{"age": (0, None)}``; samples respect them.
        size: Pixels that the pictures of a folder get along a side, or their height and width: the
            shorter side is scaled to it, and the middle is cut out.
        text: How captions are read: "words" (which ones they hold; the default), "bytes" (spelled,
            in order, by an encoder that learns with the model, if the family's networks take a
            time, and otherwise as words), "minilm" (a frozen sentence encoder, of the extra
            ``text``), or the folder of an encoder of Hugging Face's.
        teacher: A run folder or a fitted model to distil, for families that can be; the data must
            be of the kind that it was fitted to.
        source: Data to transport to ``x``, for families that can start from data instead of noise.
        steps: Rounds of training; the family's own number when no budget is given. A run that is
            resumed may get another number, counted from its start.
        minutes: Wall time instead, set-up included; likewise.
        seed: The same seed (0 by default), data and steps give the same weights on one machine.
        device: "auto", "cpu", "cuda", ...
        devices: How many GPUs, or processes of this machine, train together; the batch is divided
            among them. Under ``torchrun``, as many as it started.
        shard: Several devices keep weights, gradients, the optimizer's moments and the averages of
            weights in parts, one each, instead of all of them on each.
        precision: "float32" (by default), or "bfloat16" for automatic mixed precision, which gains
            speed in large networks on a GPU and rounds what small noise and gradients of gradients
            are made of.
        compile: Train through ``torch.compile``, which needs a compiler, takes a minute to begin,
            and has no second derivatives: it is for long runs of large networks. The weights agree
            up to rounding.
        channels_last: Train networks of images in the memory order that PyTorch calls channels
            last, which gains speed on some GPUs. The weights agree up to rounding.
        watch: Of pictures, how often in the run, at most 40 times and once a step, to draw some and
            to measure how far they are from those held out, in features of a classifier where
            there are classes: ``distance`` and ``pictures`` of the history. The weights are those
            of a run that is not watched.
        recompute: Compute the blocks of networks of images a second time for their gradients, and
            keep only what goes into them: less memory for about a third more time.
        out: A run folder to write, so that the run can be resumed.
        cache: A folder to keep decoded pictures in that are too many for memory, to be found there
            by the next fit; a file that ends with the process otherwise.
        resume: Continue the run in ``out``, with its own family, options and seed.
        progress: Show a bar on a terminal, or a function of the fraction done and a text.
        save_seconds: Wall time between checkpoints.
        options: The family's options and the fields of `Recipe`.

    Raises:
        DataError: If the data cannot be used as they are.
        UsageError: If an option does not exist or has no sense.
        NumericalError: If a loss is not finite; the last good checkpoint is named.
    """
    call = {k: v for k, v in locals().items() if k != "options"} | options
    started, folder = time.monotonic(), None if out is None else as_folder(out)
    check_duration("save_seconds", save_seconds)
    check_option_value("watch", watch, None, (int, NoneType), least=0)
    if watch is not None and watch > EVALUATIONS:
        raise UsageError(f"watch is {watch}; a fit is looked at {EVALUATIONS} times at most")
    bounds, size, text = (
        reading.normalise_bounds(bounds),
        reading.parse_image_size(size),
        text_encoders.text_encoder_name(text),
    )
    key = None if family is None else families.family_key(family)
    how = {"seed": seed, "bounds": bounds, "size": size, "precision": precision}
    how |= {"compile": compile, "channels_last": channels_last, "recompute": recompute}
    how |= {"watch": watch, "text": text}
    with contextlib.ExitStack() as stack:
        stack.enter_context(memmap.use_cache_folder(resolve_cache_folder(cache, x)))
        found = None
        if resume:
            found = reopen_run(folder, {"family": key} | how | options, stack)
            config = found.plain["config"]
            devices = config.get("devices") if devices is None else devices
            shard = config.get("shard") if shard is None else shard
        ranks = choose_process_group(devices, bool(shard))
        if call["shard"] and ranks.count == 1:
            raise UsageError("shard divides what several devices keep: give devices=2, or more")
        where = process_device(device, ranks)
        stack.enter_context(seeded_rng(seed or 0, where))
        if found is not None:
            company = reload_teacher_and_source(config, teacher, source)
            samples = reload_data(x, y, condition, config, company)
            with run_folder_errors(folder):
                run = setup.resume_run(samples, found, where, company, ranks)
            run.extend(steps, minutes)
        else:
            check_inputs(x, folder)
            company = load_teacher(teacher)
            samples = company.samples(x, y, condition, bounds, size, text)
            company = company.starting_from(source, samples.schema)
            place = str(x) if isinstance(x, str | Path) else None
            extra: dict[str, Any] = {"source": place, "condition": condition} | how
            extra |= {"seed": seed or 0, "precision": precision or "float32"}
            for name in ("compile", "channels_last", "recompute"):
                extra[name] = bool(extra[name])
            extra["watch"] = watch or 0
            key = DEFAULT if key is None else key
            run = setup.new_run(samples, key, options, steps, minutes, where, extra, company, ranks)
            if folder is not None and ranks.first:  # only now: what was wrong has left no trace
                stack.enter_context(checkpoint.lock_folder(folder))
        run.folder, run.started, run.save_seconds = folder, started - run.seconds, save_seconds
        stack.enter_context(open_process_group(ranks, call))
        run.trainer.align()
        if callable(progress):
            return run.train(progress)
        with terminal_bar(run.fitted.family, show=progress and ranks.first) as update:
            return run.train(update)


def check_inputs(x: Any, folder: Path | None) -> None:
    """Refuse a run without data, or into a folder that holds one."""
    if x is None:
        raise UsageError("there is nothing to fit: pass data, a path, or the name of a data set")
    if folder is not None and checkpoint.list_checkpoints(folder):
        raise FolderInUse(f"{folder} holds a run already; resume it or choose another folder")


def reopen_run(
    folder: Path | None, given: dict[str, Any], stack: contextlib.ExitStack
) -> Checkpoint:
    """The last checkpoint of a run, whose folder is held from here on.

    Raises:
        UsageError: If something is given that the run has decided otherwise.
    """
    if folder is None:
        raise UsageError("to resume, name the run folder: out=RUN")
    if (
        checkpoint.list_checkpoints(folder) and is_main_process()
    ):  # without any, `load` says what is wrong
        stack.enter_context(checkpoint.lock_folder(folder))
    found = checkpoint.load_checkpoint(folder)
    config = found.plain["config"]
    for name, value in given.items():
        same = name in KEPT and json_roundtrip(value) == json_roundtrip(config.get(name))
        if value is not None and not same:
            raise UsageError(f"a resumed run keeps its {name}; leave out {name}={value}")
    return found


def json_roundtrip(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))


def reload_data(
    x: Any, y: Any, condition: str | None, config: dict[str, Any], company: TeacherAndSource
) -> Dataset:
    """The data of a run that goes on."""
    x = config["source"] if x is None else x
    if x is None:
        raise UsageError("the run was fitted to data in memory: pass the same data again")
    known = (config["bounds"], reading.parse_image_size(config["size"]), config.get("text"))
    return company.samples(x, y, condition or config["condition"], *known)
