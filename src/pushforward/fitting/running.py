"""A fit in progress: it trains, validates, saves, and knows when to stop."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__, checkpoint, families
from ..checkpoint import Checkpoint
from ..data.reading import Samples
from ..errors import DataError, NumericalError
from ..fitted import FittedModel, assemble
from ..model import Recipe
from ..options import positive
from ..places import choose_device, seeded
from ..progress import Interrupted, Update, signals
from ..training import Trainer, batches, held_out
from .companions import Companions
from .preparing import (
    device_data,
    event_of,
    fingerprint,
    noisy,
    pick,
    recipe_from,
    recipe_of,
    seen_conditions,
    split,
)

EVALUATIONS = 40  # validations in a full run
PATIENCE = 14  # validations clearly worse than the best before a run stops
COMPLETE = "complete"
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # of automatic mixed precision
MARGIN = 0.01  # "clearly": by this part of what training has gained
JUDGING = 0.2  # of the minutes, the part that validations before the last may take


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
    judging: float = 0.0  # seconds that validations took

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
        company: Companions | None = None,
    ) -> "Run":
        """A run that starts from untrained weights."""
        company = company or Companions()
        positive("minutes", minutes)
        families.one_of("precision", extra["precision"], PRECISIONS)
        of_recipe = {k: v for k, v in options.items() if k in Recipe._fields}
        of_family = {k: v for k, v in options.items() if k not in Recipe._fields}
        event = event_of(samples)
        model = families.build(family, event, **of_family)
        recipe, fields = recipe_of(model, of_recipe, steps)
        train, _ = split(len(samples.x), extra["seed"])
        transform = company.transform(model, samples, train)
        config = extra | company.to_json()
        config |= {
            "pushforward": __version__,
            "family": family,
            "options": of_family,
            "recipe": fields,
            "minutes": minutes,
            "event": list(event),
            "transform": transform.to_json(),
            "data": fingerprint(samples),
        } | seen_conditions(samples, train)
        fitted = FittedModel(model, transform, samples.schema, config)
        return cls.over(samples, fitted, recipe, device, company)

    @classmethod
    def resumed(
        cls,
        samples: Samples,
        found: Checkpoint,
        device: str,
        steps: int | None,
        company: Companions,
    ) -> "Run":
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
        recipe = recipe_from(config["recipe"])
        run = cls.over(samples, fitted, recipe, device, company, prepared=True)
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
        company: Companions,
        prepared: bool = False,
    ) -> "Run":
        """Put the data and the model on the device."""
        where, config = choose_device(device), fitted.config
        train, held = split(len(samples.x), config["seed"])
        x, c = device_data(samples, fitted.transform, where)
        model = fitted.model.to(where)
        company.meet(model, where)
        if not prepared:
            z = fitted.transform.forward(torch.as_tensor(samples.x[train]))[0]
            with torch.no_grad():
                model.prepare(z.to(torch.get_default_dtype()).to(where), pick(c, train))
        trainer = Trainer(
            model,
            recipe,
            recipe.steps if model.players() else 0,
            autocast=PRECISIONS[config["precision"]],
        )
        data = batches(x[train], recipe.batch, pick(c, train))
        if fitted.transform.stochastic:
            data = noisy(data, fitted.transform)
        validation = None
        if len(held) and model.players():
            with seeded(config["seed"], where):  # dequantised alike by a resumed run
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
            self.judge(0)  # what has been gained is counted from untrained weights
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
                number = record.step * EVALUATIONS // trainer.steps
                if number > self.evaluations and self.affords(number):
                    self.judge(number)
                if now - shown > 0.1:
                    shown = now
                    text = ", ".join(f"{k} {float(v):.3g}" for k, v in record.terms.items())
                    update(record.step / max(trainer.steps, 1), text)
                if received:
                    raise self.interrupted(received[0])
                if self.folder and now - saved > self.save_seconds:
                    self.save()
                    saved = time.monotonic()
            self.fitted.config |= {"steps": trainer.count, "ended": self.ending()}
            self.save(done=True)
        update(1.0, "")
        return self.result()

    def finished(self) -> bool:
        """Whether patience is used up: the held-out loss has long been clearly worse."""
        return self.worse >= PATIENCE

    def affords(self, number: int) -> bool:
        """Whether there is time for a validation, where a run has minutes; the last always is."""
        if not self.minutes or number >= EVALUATIONS:
            return True
        return self.judging <= JUDGING * (time.monotonic() - self.started)

    def ending(self) -> str:
        """How the run ended, in words."""
        trainer = self.trainer
        if trainer.count >= trainer.steps or not self.finished():
            return COMPLETE
        why = "the held-out loss had been clearly worse than its best for long"
        return f"stopped early, at step {trainer.count} of {trainer.steps}: {why}"

    def judge(self, number: int) -> None:
        """Evaluate, and count the time that it takes."""
        began = time.monotonic()
        self.evaluate(number)
        self.judging += time.monotonic() - began

    def evaluate(self, number: int) -> None:
        """Keep the averaged weights if none before were clearly better on held-out data."""
        self.evaluations = number
        if self.validation is None:
            return
        model = self.trainer.average.eval()
        said = held_out(model.diagnosis, *self.validation)
        self.fitted.config["diagnoses"] = list(said)
        self.note(said)
        loss = held_out(model.validation, *self.validation)
        if loss is None or not np.isfinite(value := float(loss)):
            return
        self.note({"validation": value})
        self.first = value if self.first is None else self.first
        self.best = value if self.best is None else min(self.best, value)
        self.worse += 1
        # within the noise of the best, later weights are better: the learning rate has fallen
        if value <= self.best + MARGIN * max(self.first - self.best, 0.0):
            self.worse = 0
            state = self.trainer.average.state_dict()
            self.best_weights = {k: v.detach().clone() for k, v in state.items()}

    def note(self, facts: dict[str, float]) -> None:
        """Add numbers to the last line of the history."""
        finite = {name: float(value) for name, value in facts.items() if np.isfinite(value)}
        if self.fitted.history:
            self.fitted.history[-1] |= finite

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
