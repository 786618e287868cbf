"""A fit in progress: it trains, validates, saves, and knows when to stop."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import checkpoint
from ..checkpoint import Checkpoint
from ..errors import NumericalError, UsageError
from ..inference.fitted_model import FittedModel, build_from_config
from ..model import GenerativeModel, Recipe
from ..options import check_duration, check_options
from ..progress import EtaEstimator, Interrupted, Update, catch_signals
from .history import RunningMeans, validation_noise
from .minibatches import MinibatchStream
from .monitor import SampleMonitor
from .trainer import Trainer, evaluate_held_out

EVALUATIONS = 40  # validations in a full run
EVALUATING = 0.2  # the part of a budget of time that they take at most, but for the last
PATIENCE = 14  # validations clearly worse than the best before a run stops
COMPLETE = "complete"
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # of automatic mixed precision
MARGIN = 0.01  # "clearly": by this part of what training has gained, and four deviations


def clone_weights(model: GenerativeModel) -> dict[str, Tensor]:
    """The weights of a model, out of reach of further training."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


@dataclass
class Run:
    """A fit in progress: data on the device, the trainer, and what decides when it ends."""

    fitted: FittedModel
    trainer: Trainer
    data: Iterator[tuple[Tensor, Tensor | None]]
    validation: tuple[Tensor, Tensor | None] | None
    stream: MinibatchStream | None = None
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
    timed: tuple[float, int] = (0.0, 0)
    evaluating: float = 0.0
    watcher: SampleMonitor | None = None
    pace: EtaEstimator = field(default_factory=EtaEstimator)

    def train(self, update: Update) -> FittedModel:
        """Go on until the steps, the time or the patience are used up."""
        trainer, means, saved, shown = self.trainer, RunningMeans(), time.monotonic(), 0.0
        self.timed, every = (time.monotonic(), trainer.count), max(1, trainer.steps // 400)
        if not trainer.count:
            self.evaluate(0)  # what has been gained is counted from untrained weights
        with catch_signals() as received:
            while trainer.count < trainer.steps and not self.finished():
                terms = self.step()
                means.add(terms)
                self.follow(means, every)
                stop, due, save = self.agree(received, saved)
                if due:
                    self.evaluate(due)
                now = time.monotonic()
                if now - shown > 0.1:
                    shown = now
                    text = ", ".join(f"{k} {float(v):.3g}" for k, v in terms.items())
                    update(self.fraction(), text)
                if stop:
                    raise self.interrupted(stop)
                if save:
                    self.save()
                    saved = time.monotonic()
            seconds = round(time.monotonic() - self.started, 3)
            how = {"steps": trainer.count, "ended": self.ending(), "seconds": seconds}
            how["evaluating"] = round(self.evaluating, 3)
            self.fitted.config |= how
            if self.stream is not None:
                self.fitted.config["waited"] = round(self.stream.waited, 3)
                self.stream.close()
            self.choose_average()
            self.save(done=True)
        update(1.0, "")
        return self.result()

    def step(self) -> dict[str, Tensor]:
        """One round of the game, and the terms of its losses."""
        try:
            return self.trainer.step(self.data).terms
        except NumericalError as error:
            raise NumericalError(f"{error}; {self.last_good()}") from error

    def agree(self, received: list[int], saved: float) -> tuple[int, int, bool]:
        """The signal to stop, the validation that is due, and whether to save: all 0 for none.

        The first of several processes decides; a signal that any of them received stops all.
        """
        trainer, due, late = self.trainer, 0, False
        if trainer.ranks.first:
            due = self.due()
            late = bool(self.folder) and time.monotonic() - saved > self.save_seconds
        signal = received[0] if received else 0
        stop, due, save, trainer.steps = trainer.ranks.most(
            [signal, due, int(late), trainer.steps if trainer.ranks.first else 0]
        )
        return stop, due, bool(save)

    def due(self) -> int:
        """The number of the validation that is due, or 0."""
        trainer = self.trainer
        number = trainer.count * EVALUATIONS // max(trainer.steps, 1)
        last = trainer.count >= trainer.steps
        return number if number > self.evaluations and (last or self.affordable()) else 0

    def follow(self, means: "RunningMeans", every: int) -> None:
        """After a step: the history, and the steps that there is time for."""
        trainer, now, left = self.trainer, time.monotonic(), self.pace.seconds_left(self.fraction())
        if trainer.count % every == 0:
            line = {"step": trainer.count, "seconds": round(now - self.started, 3)}
            line |= {} if left is None else {"left": round(left, 3)}
            self.fitted.history.append(line | means.taken())
        began, since = self.timed
        if self.minutes and trainer.ranks.first and trainer.count - since >= 10:
            pace = (now - began) / (trainer.count - since)
            left = 60 * self.minutes - (now - self.started)
            trainer.steps = trainer.count + max(0, int(left / pace))

    def fraction(self) -> float:
        """The part of the budget of steps or of time that is used up."""
        if self.minutes:
            return min(1.0, (time.monotonic() - self.started) / (60 * self.minutes))
        return self.trainer.count / max(self.trainer.steps, 1)

    def extend(self, steps: int | None, minutes: float | None) -> None:
        """Give a run another length, in all; what was waited for counts by the new one.

        Raises:
            UsageError: If that much is behind it already.
        """
        count = self.trainer.count
        check_duration("minutes", minutes)
        if steps is not None:
            check_options(Recipe, {"steps": steps}, "training")
        if not self.trainer.model.players():
            return  # a closed form is complete
        if minutes is not None:
            if 60 * minutes <= self.seconds:
                spent = self.seconds / 60
                raise UsageError(f"minutes count from the start: give more than {spent:.3g}")
            steps = int(count * 60 * minutes / self.seconds) if count else self.trainer.steps
        if steps is None:
            return
        if steps < count:
            raise UsageError(f"steps count from the start: give at least {count}")
        self.minutes = self.fitted.config["minutes"] = minutes
        self.trainer.steps, self.worse = steps, 0
        self.evaluations = count * EVALUATIONS // steps
        if self.watcher is not None:
            self.watcher.done = count * self.watcher.times // steps

    def finished(self) -> bool:
        """Whether patience is used up: the held-out loss has long been clearly worse."""
        return self.worse >= PATIENCE

    def affordable(self) -> bool:
        """Whether a budget of time, if that is the budget, has so far gone into training."""
        spent = time.monotonic() - self.started
        return not self.minutes or self.evaluating <= EVALUATING * spent

    def ending(self) -> str:
        """How the run ended, in words."""
        trainer = self.trainer
        if trainer.count >= trainer.steps or not self.finished():
            return COMPLETE
        why = "the held-out loss had been clearly worse than its best for long"
        return f"stopped early, at step {trainer.count} of {trainer.steps}: {why}"

    def evaluate(self, number: int) -> None:
        """Keep the averaged weights if none before were clearly better on held-out data."""
        self.evaluations, began, ranks = number, time.monotonic(), self.trainer.ranks
        if self.validation is None and self.watcher is None:
            return
        with self.trainer.averaged() as model:
            found = self.trainer.within(lambda: self.measured(model))
            if found is not None:
                self.judge(model, *found)
            self.watch(model)
        self.evaluating += time.monotonic() - began
        (self.worse,) = ranks.most([self.worse if ranks.first else 0])

    def watch(self, model: GenerativeModel) -> None:
        """Note what the averaged weights draw, when that is due."""
        watcher, trainer = self.watcher, self.trainer
        if watcher is None or not watcher.due(trainer.count, trainer.steps):
            return
        if self.fitted.history:
            seen = trainer.within(lambda: watcher.look(self.fitted, model))
            self.fitted.history[-1] |= seen or {}
            self.fitted.config["watched"] = watcher.facts

    def measured(self, model: GenerativeModel) -> tuple[dict[str, float], float] | None:
        """What the model says of itself and its loss, NaN for none, if there are data held out."""
        if self.validation is None:
            return None
        said, loss = (
            evaluate_held_out(f, *self.validation) for f in (model.diagnosis, model.validation)
        )
        return said, math.nan if loss is None else float(loss)

    def judge(self, model: GenerativeModel, said: dict[str, float], value: float) -> None:
        """Keep the averaged weights, unless they are clearly worse than others were."""
        self.fitted.config["diagnoses"] = list(said)
        self.note(said)
        if not np.isfinite(value):
            return
        self.note({"validation": value})
        self.first = value if self.first is None else self.first
        self.best = value if self.best is None else min(self.best, value)
        self.worse += 1
        # within the noise of the best, later weights are better: the learning rate has fallen
        if value <= self.best + max(
            MARGIN * (self.first - self.best), 4 * validation_noise(self.fitted.history)
        ):
            self.worse = 0
            self.best_weights = clone_weights(model)

    def choose_average(self) -> None:
        """Keep another average's weights if they are better on held-out data than the first's."""
        trainer, best = self.trainer, self.best
        seen: list[list[float]] = []
        if len(trainer.averages) < 2:
            return
        for i, average in enumerate(trainer.averages):
            with average.worn() as model:
                found = trainer.within(lambda: self.measured(model))  # noqa: B023 called at once
                if found is not None and best is not None:
                    value = found[1]
                    self.fitted.config["averages"] = seen = [*seen, [average.decay, value]]
                    if i and value < min(best, seen[0][1]):
                        best, self.best_weights = value, clone_weights(model)

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
        found = checkpoint.list_checkpoints(self.folder) if self.folder else []
        return f"last good checkpoint: {found[0]}" if found else "no checkpoint was written yet"

    def save(self, done: bool = False) -> None:
        """Write a checkpoint, by the first process, unless the weights are not finite."""
        if self.folder is None:
            return
        trainer, fitted = self.trainer, self.fitted
        tensors = {"model": trainer.whole(fitted.model.state_dict())}
        for name, _ in fitted.model.named_parameters():
            if not tensors["model"][name].isfinite().all():
                raise NumericalError(f"weight {name} is not finite; {self.last_good()}")
        for name, average in trainer.named_averages().items():
            with average.worn() as model:
                tensors[name] = trainer.whole(model.state_dict())
        if self.best_weights:
            tensors["best"] = trainer.whole(self.best_weights)
        tensors["trainer"], plain = trainer.state()
        state = plain | {
            "seconds": round(time.monotonic() - self.started, 3),
            "first": self.first,
            "best": self.best,
            "worse": self.worse,
            "evaluations": self.evaluations,
            "done": done,
        }
        if trainer.ranks.first:
            checkpoint.save_checkpoint(
                self.folder, Checkpoint(fitted.plain(state), tensors, fitted.history)
            )
        trainer.ranks.most([0])  # nobody goes on, or ends, before it is written

    def result(self) -> FittedModel:
        """The fitted model with the best averaged weights."""
        trainer = self.trainer
        if trainer.root is None:
            model = trainer.average.eval()
        else:
            config = json.loads(json.dumps(self.fitted.config))  # as a run folder has it
            model = build_from_config(config, self.fitted.schema).model
            with trainer.averaged() as worn:
                model.load_state_dict(trainer.whole(worn.state_dict()))
            model.to(trainer.device)
        if self.best_weights:
            model.load_state_dict(trainer.whole(self.best_weights))
        trainer.ranks.share(model.state_dict().values())
        self.fitted.model = model.requires_grad_(False)
        return self.fitted
