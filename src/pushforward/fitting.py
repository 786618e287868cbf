"""Fitting: data and a family in, a trained model out, with checkpoints on the way."""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import __version__, checkpoint, families
from .checkpoint import Checkpoint
from .data import reading, transforms
from .data.reading import Samples
from .errors import DataError, FolderInUse, NumericalError, UsageError
from .fitted import FittedModel, assemble, choose_device, seeded
from .model import Event, GenerativeModel, Recipe
from .progress import Interrupted, Update, bar, signals
from .training import Trainer, batches, held_out

EVALUATIONS = 40  # validations in a full run
PATIENCE = 14  # validations clearly worse than the best before a run stops
MARGIN = 0.01  # "clearly": by this part of what training has gained


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


def event_of(samples: Samples) -> Event:
    """What a family must know of the data."""
    schema = samples.schema
    return Event(schema.event, schema.condition_length, schema.levels, len(samples.x))


def split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training, and a tenth (at most 5,000, none of fewer than 40) held out."""
    order = np.random.default_rng(seed).permutation(n)
    held = min(n // 10, 5000) if n >= 40 else 0
    return np.sort(order[held:]), np.sort(order[:held])


def recipe_of(
    model: GenerativeModel, options: dict[str, Any], steps: int | None
) -> tuple[Recipe, dict[str, Any]]:
    """The family's recipe with the user's changes, checked."""
    recipe = model.recipe._replace(**options)
    if steps is not None:
        recipe = recipe._replace(steps=steps)
    for name, low in {"steps": 1, "batch": 1, "lr": 0, "clip": 0, "ema": 0, "decay": 0}.items():
        value = getattr(recipe, name)
        whole = name in ("steps", "batch")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise UsageError(f"{name} is {value!r}; it must be a {'whole ' * whole}number")
        if not low <= value < float("inf"):
            raise UsageError(f"{name} is {value}; it must be finite and at least {low}")
    if not recipe.clip:
        raise UsageError("clip is 0, which would stop all learning; for no clipping, pass clip=1e9")
    return recipe, recipe._asdict()


def recipe_from(plain: dict[str, Any]) -> Recipe:
    """A recipe that was written as JSON, which knows no tuples."""
    return Recipe(**plain | {"betas": tuple(plain["betas"])})


@dataclass
class Run:
    """A fit in progress: data on the device, the trainer, and what decides when it ends."""

    fitted: FittedModel
    trainer: Trainer
    data: Iterator[tuple[Tensor, Tensor | None]]
    validation: tuple[Tensor, Tensor | None] | None
    minutes: float | None = None
    folder: Path | None = None
    started: float = 0.0
    seconds: float = 0.0
    save_seconds: float = 20.0
    first: float | None = None
    best: float | None = None
    worse: int = 0
    best_weights: dict[str, Tensor] | None = None
    evaluations: int = 0

    @classmethod
    def fresh(
        cls,
        samples: Samples,
        family: str,
        options: dict[str, Any],
        steps: int | None,
        minutes: float | None,
        device: str,
        extra: dict[str, Any],
    ) -> "Run":
        """A run that starts from untrained weights."""
        if minutes is not None and not 0 < minutes < float("inf"):
            raise UsageError(f"minutes is {minutes}; it must be positive")
        of_recipe = {k: v for k, v in options.items() if k in Recipe._fields}
        of_family = {k: v for k, v in options.items() if k not in Recipe._fields}
        event = event_of(samples)
        model = families.build(family, event, **of_family)
        recipe, fields = recipe_of(model, of_recipe, steps)
        train, _ = split(len(samples.x), extra["seed"])
        transform = transforms.choose(
            samples.schema, samples.x[train], discrete=model.discrete, whiten=model.whitened
        )
        config = extra | {
            "pushforward": __version__,
            "family": family,
            "options": of_family,
            "recipe": fields,
            "minutes": minutes,
            "event": list(event),
            "transform": transform.to_json(),
            "conditions": seen_conditions(samples),
            "data": fingerprint(samples),
        }
        fitted = FittedModel(model, transform, samples.schema, config)
        return cls.over(samples, fitted, recipe, device)

    @classmethod
    def resumed(cls, samples: Samples, found: Checkpoint, device: str, steps: int | None) -> "Run":
        """A run that goes on as if it had never stopped."""
        config = found.plain["config"]
        if fingerprint(samples) != config["data"]:
            raise DataError("the data differ from those the run was fitted to; start a new run")
        names = [column["name"] for column in found.plain["schema"]["columns"]]
        if [column.name for column in samples.schema.columns] != names:
            raise DataError("the columns are named otherwise than those the run was fitted to")
        if not {"model", "trainer"} <= found.tensors.keys():
            raise DataError("this run was saved without its trainer: it can be used, not resumed")
        fitted = assemble(config, samples.schema)
        run = cls.over(samples, fitted, recipe_from(config["recipe"]), device, prepared=True)
        fitted.history = found.history
        state = dict(found.plain["state"])
        fitted.model.load_state_dict(found.tensors["model"])
        if run.trainer.average is not fitted.model:
            run.trainer.average.load_state_dict(found.tensors["ema"])
        run.trainer.load(found.tensors["trainer"], state)
        run.seconds, run.first, run.best = state["seconds"], state["first"], state["best"]
        run.worse = state["worse"]
        run.evaluations, run.best_weights = state["evaluations"], found.tensors.get("best")
        if steps is not None:  # what was waited for so far counts by the new length of the run
            run.trainer.steps, run.worse = steps, 0
            run.evaluations = run.trainer.count * EVALUATIONS // steps
        return run

    @classmethod
    def over(
        cls,
        samples: Samples,
        fitted: FittedModel,
        recipe: Recipe,
        device: str,
        prepared: bool = False,
    ) -> "Run":
        """Put the data and the model on the device."""
        where, config = choose_device(device), fitted.config
        train, held = split(len(samples.x), config["seed"])
        x, c = device_data(samples, fitted.transform, where)
        model = fitted.model.to(where)
        if not prepared:
            z = fitted.transform.forward(torch.as_tensor(samples.x[train]))[0]
            with torch.no_grad():
                model.prepare(z.to(torch.get_default_dtype()).to(where), pick(c, train))
        half = torch.bfloat16 if where.type == "cuda" else None
        trainer = Trainer(model, recipe, recipe.steps if model.players() else 0, autocast=half)
        data = batches(x[train], recipe.batch, pick(c, train))
        if fitted.transform.stochastic:
            data = noisy(data, fitted.transform)
        validation = None
        if len(held) and model.players():
            with seeded(config["seed"]):  # dequantised alike by a resumed run
                z = fitted.transform.forward(torch.as_tensor(samples.x[held]))[0]
            validation = z.to(torch.get_default_dtype()).to(where), pick(c, held)
        return cls(fitted, trainer, data, validation, minutes=config["minutes"])

    def train(self, update: Update) -> FittedModel:
        """Go on until the steps, the time or the patience are used up."""
        trainer, saved, shown = self.trainer, time.monotonic(), 0.0
        every = max(1, trainer.steps // 400)
        sums: dict[str, Tensor] = {}
        summed = 0
        timed = (time.monotonic(), trainer.count)
        if not trainer.count:
            self.evaluate(0)  # what has been gained is counted from untrained weights
        with signals() as received:
            while trainer.count < trainer.steps and not self.finished():
                try:
                    record = trainer.step(self.data)
                except NumericalError as error:
                    raise NumericalError(f"{error}; {self.last_good()}") from error
                now = time.monotonic()
                for name, value in record.terms.items():
                    sums[name] = sums.get(name, 0.0) + value
                summed += 1
                if record.step % every == 0:
                    self.fitted.history.append(
                        {"step": record.step, "seconds": round(now - self.started, 3)}
                        | {name: float(value) / summed for name, value in sums.items()}
                    )
                    sums, summed = {}, 0
                if self.minutes and record.step - timed[1] >= 10:
                    pace = (now - timed[0]) / (record.step - timed[1])
                    left = 60 * self.minutes - (now - self.started)
                    trainer.steps = record.step + max(0, int(left / pace))
                if record.step * EVALUATIONS // trainer.steps > self.evaluations:
                    self.evaluate(record.step * EVALUATIONS // trainer.steps)
                if now - shown > 0.1:
                    shown = now
                    text = ", ".join(f"{k} {float(v):.3g}" for k, v in record.terms.items())
                    update(record.step / max(trainer.steps, 1), text)
                if received:
                    raise self.interrupted(received[0])
                if self.folder and now - saved > self.save_seconds:
                    self.save()
                    saved = time.monotonic()
            self.save(done=True)
        update(1.0, "")
        return self.result()

    def finished(self) -> bool:
        """Whether patience is used up: the held-out loss has long been clearly worse."""
        return self.worse >= PATIENCE

    def evaluate(self, number: int) -> None:
        """Keep the averaged weights if none before were clearly better on held-out data."""
        self.evaluations = number
        if self.validation is None:
            return
        value = held_out(self.trainer.average.eval().validation, *self.validation)
        if value is None or not np.isfinite(value):
            return
        if self.fitted.history:
            self.fitted.history[-1]["validation"] = value
        self.first = value if self.first is None else self.first
        self.best = value if self.best is None else min(self.best, value)
        self.worse += 1
        # within the noise of the best, later weights are better: the learning rate has fallen
        if value <= self.best + MARGIN * max(self.first - self.best, 0.0):
            self.worse = 0
            state = self.trainer.average.state_dict()
            self.best_weights = {k: v.detach().clone() for k, v in state.items()}

    def interrupted(self, number: int) -> Interrupted:
        """Save, and say how to go on."""
        if self.folder is None:
            return Interrupted(
                "interrupted; nothing was saved, for no folder was named", 128 + number
            )
        self.save()
        how = f"go on with: pushforward fit --resume {self.folder}"
        return Interrupted(f"stopped at step {self.trainer.count}; {how}", 128 + number)

    def last_good(self) -> str:
        """Where the last good checkpoint is, in words."""
        found = checkpoint.checkpoints(self.folder) if self.folder else []
        return f"last good checkpoint: {found[0]}" if found else "no checkpoint was written yet"

    def save(self, done: bool = False) -> None:
        """Write a checkpoint, unless the weights are not finite."""
        if self.folder is None:
            return
        trainer, fitted = self.trainer, self.fitted
        tensors = {"model": fitted.model.state_dict()}
        for name, value in fitted.model.named_parameters():
            if not value.isfinite().all():
                raise NumericalError(f"weight {name} is not finite; {self.last_good()}")
        if trainer.average is not fitted.model:
            tensors["ema"] = trainer.average.state_dict()
        if self.best_weights:
            tensors["best"] = self.best_weights
        tensors["trainer"], plain = trainer.state()
        state = plain | {
            "seconds": round(time.monotonic() - self.started, 3),
            "first": self.first,
            "best": self.best,
            "worse": self.worse,
            "evaluations": self.evaluations,
            "done": done,
        }
        checkpoint.save(self.folder, Checkpoint(fitted.plain(state), tensors, fitted.history))

    def result(self) -> FittedModel:
        """The fitted model with the best averaged weights."""
        model = self.trainer.average.eval()
        if self.best_weights:
            model.load_state_dict(self.best_weights)
        self.fitted.model = model.requires_grad_(False)
        self.fitted.config["seconds"] = round(time.monotonic() - self.started, 3)
        return self.fitted


def pick(c: Tensor | None, rows: np.ndarray) -> Tensor | None:
    """Some rows of the conditions."""
    return None if c is None else c[rows]


def device_data(
    samples: Samples, transform: transforms.Chain, where: torch.device
) -> tuple[Tensor, Tensor | None]:
    """All data on the device: transformed once, or raw when the transform draws noise."""
    x = torch.as_tensor(samples.x)
    if not transform.stochastic:
        x = transform.forward(x)[0].to(torch.get_default_dtype())
        if not x.isfinite().all():
            raise DataError("a column varies too little or too much to be standardised; rescale it")
    c = None
    if samples.schema.condition_length:
        encoded = samples.schema.encode(samples.y, len(samples.x))
        c = torch.as_tensor(encoded, dtype=torch.get_default_dtype()).to(where)
    return x.to(where), c


def noisy(
    data: Iterator[tuple[Tensor, Tensor | None]], transform: transforms.Chain
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Dequantise every batch afresh, so that no particular noise is learned."""
    for x, c in data:
        yield transform.forward(x)[0].to(torch.get_default_dtype()), c


def seen_conditions(samples: Samples, most: int = 1000) -> list[list[float]] | None:
    """Condition vectors seen in training, thinned: samples without ``y`` draw from them."""
    if not samples.schema.condition_length:
        return None
    c = samples.schema.encode(samples.y, len(samples.x))
    return c[np.linspace(0, len(c) - 1, min(len(c), most)).astype(int)].tolist()


def fingerprint(samples: Samples) -> str:
    """SHA-256 of the data and conditions, so that a resumed run cannot mix two data sets."""
    digest = hashlib.sha256(np.ascontiguousarray(samples.x).tobytes())
    if samples.y is not None:
        digest.update(repr(samples.y.tolist()).encode())
    return digest.hexdigest()
