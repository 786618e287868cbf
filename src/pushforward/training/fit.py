"""Fitting: data and a family in, a trained model out, with checkpoints on the way.

`fit` is a door: it checks its keywords, puts them into one `FitRequest`, and goes one way. The data
are opened, validated, described by a schema, split and transformed (`setup`), and a `Run` trains
on batches of them until its budget is spent.
"""

import contextlib
import json
import time
from pathlib import Path
from types import NoneType
from typing import Any

from .. import checkpoint, families
from ..checkpoint import Checkpoint
from ..data import memmap, reading, text_encoders
from ..errors import FolderInUse, UsageError
from ..files import as_folder
from ..inference.fitted_model import FittedModel
from ..options import check_duration, check_option_value
from ..progress import Update, terminal_bar
from ..rng import seeded_rng
from . import processes, setup
from .config import Budget, DataSpec, FitRequest, Hardware, Keeping
from .validation import EVALUATIONS


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
        y: A condition for each row: classes, numbers, or vectors of numbers.
        condition: The column of ``x`` that is the condition, instead of ``y``.
        bounds: Limits of columns, ``{"age": (0, None)}``; samples respect them.
        size: Pixels along a side of the images of a folder, or their height and width: the shorter
            side is scaled to it, and the middle is cut out.
        text: How captions are encoded: "words" (which ones they hold; the default), "bytes"
            (spelled, in order, by an encoder that learns with the model, if the family's networks
            take a time, and otherwise as words), "minilm" (a frozen sentence encoder, of the extra
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
            weights in parts, one each, instead of all of them on each (FSDP).
        precision: "float32" (by default), or "bfloat16" for automatic mixed precision, which is
            faster for large networks on a GPU and rounds small noise and gradients of gradients.
        compile: Train through ``torch.compile``, which needs a compiler, takes a minute to begin,
            and has no second derivatives: it is for long runs of large networks. The weights agree
            up to rounding.
        channels_last: Train networks of images in PyTorch's channels_last memory format, which is
            faster on some GPUs. The weights agree up to rounding.
        watch: How often in the run, at most 40 times and once a step, to sample images and measure
            their distance to images held out, in features of a classifier where there are classes:
            ``distance`` and ``pictures`` of the history. It does not change the weights.
        recompute: Activation checkpointing of the blocks of deep networks: less memory for about a
            third more time.
        out: A run folder to write, so that the run can be resumed.
        cache: A folder for decoded images that are too many for memory, to be found there by the
            next fit; a file that ends with the process otherwise.
        resume: Continue the run in ``out``, with its own family, options and seed.
        progress: Show a bar on a terminal, or a function of the fraction done and a text.
        save_seconds: Wall time between checkpoints.
        options: The family's options and the fields of `Recipe`.

    Raises:
        DataError: If the data cannot be used as they are.
        UsageError: If an option does not exist or has no sense.
        NumericalError: If a loss is not finite; the last good checkpoint is named.
    """
    check_duration("save_seconds", save_seconds)
    check_duration("minutes", minutes)
    if steps is not None and minutes is not None:
        raise UsageError("give steps or minutes, not both")
    check_option_value("watch", watch, None, (int, NoneType), least=0)
    if watch is not None and watch > EVALUATIONS:
        raise UsageError(f"watch is {watch}; samples are measured {EVALUATIONS} times at most")
    data = DataSpec(
        x=x,
        y=y,
        condition=condition,
        bounds=reading.normalise_bounds(bounds),
        size=reading.parse_image_size(size),
        text=None if text is None else text_encoders.text_encoder_name(text),
        teacher=teacher,
        source=source,
        cache=resolve_cache_folder(cache, x),
    )
    folder = None if out is None else as_folder(out)
    request = FitRequest(
        None if family is None else families.family_key(family),
        data,
        Budget(steps, minutes),
        Hardware(device, devices, shard, precision, compile, channels_last, recompute),
        Keeping(folder, resume, seed, watch, save_seconds, progress),
        options,
    )
    return run_request(request)


def run_request(request: FitRequest) -> FittedModel:
    """What `fit` does, once all that it was called with is checked and in one record."""
    began, keeping, hardware = time.monotonic(), request.keeping, request.hardware
    with contextlib.ExitStack() as stack:
        if request.data.cache is not None:
            stack.enter_context(memmap.use_cache_folder(request.data.cache))
        stopped = _reopen_run(request, stack) if keeping.resume else None
        devices, shard = hardware.devices, hardware.shard
        if stopped is not None:
            config = stopped.plain["config"]
            devices = config.get("devices") if devices is None else devices
            shard = config.get("shard") if shard is None else shard
        ranks = processes.choose_process_group(devices, bool(shard))
        if hardware.shard and ranks.count == 1:
            raise UsageError("shard divides what several devices keep: give devices=2, or more")
        place = setup.Placement(processes.process_device(hardware.device, ranks), ranks, began)
        stack.enter_context(seeded_rng(keeping.seed or 0, place.device))
        if stopped is not None:
            run = setup.resume_run(request, stopped, place)
        else:
            _check_inputs(request)
            run = setup.new_run(request, place)
            if keeping.out is not None and ranks.first:  # only now: what was wrong left no trace
                stack.enter_context(checkpoint.lock_folder(keeping.out))
        if ranks.count > 1:
            from .launch import open_process_group

            stack.enter_context(open_process_group(ranks, request))
        run.trainer.synchronise()
        if callable(keeping.progress):
            return run.train(keeping.progress)
        if not (keeping.progress and ranks.first):
            return run.train()
        with terminal_bar(run.config.family) as update:
            return run.train(update)


def _check_inputs(request: FitRequest) -> None:
    folder = request.keeping.out
    if request.data.x is None:
        raise UsageError("there is nothing to fit: pass data, a path, or the name of a data set")
    if folder is not None and checkpoint.list_checkpoints(folder):
        raise FolderInUse(f"{folder} holds a run already; resume it or choose another folder")


def resolve_cache_folder(cache: str | Path | None, x: Any) -> Path | None:
    if cache is None:
        return None
    if x is not None and not reading.is_image_folder(x):  # None: a resumed run knows
        raise UsageError("cache keeps the decoded images of a folder, and the data are none")
    return as_folder(cache)


def _reopen_run(request: FitRequest, stack: contextlib.ExitStack) -> Checkpoint:
    """The last checkpoint of a run, whose folder is locked from here on."""
    folder = request.keeping.out
    if folder is None:
        raise UsageError("to resume, name the run folder: out=RUN")
    # without any checkpoint, loading says what is wrong
    if checkpoint.list_checkpoints(folder) and processes.is_main_process():
        stack.enter_context(checkpoint.lock_folder(folder))
    found = checkpoint.load_checkpoint(folder)
    data, hardware, keeping = request.data, request.hardware, request.keeping
    again = {"family": request.family, "seed": keeping.seed, "watch": keeping.watch}
    again |= {name: getattr(data, name) for name in ("bounds", "size", "text")}
    for name in ("precision", "compile", "channels_last", "recompute"):
        again[name] = getattr(hardware, name)
    for name, value in (again | request.options).items():
        known = _json_roundtrip(found.plain["config"].get(name))
        if value is not None and (name not in again or _json_roundtrip(value) != known):
            raise UsageError(f"a resumed run keeps its {name}; leave out {name}={value}")
    return found


def _json_roundtrip(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
