"""Validation: which weights of a run are kept, and when its patience ends.

Some times in a run the averaged weights are measured on held-out data, always with the same noise.
Those that are not clearly worse than the best so far are kept: within the noise of the best, later
weights are better, since the learning rate has fallen.
"""

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..model import GenerativeModel
from .config import RunConfig
from .trainer import Batch, Trainer, evaluate_held_out

if TYPE_CHECKING:
    from .monitor import SampleMonitor

EVALUATIONS = 40  # validations in a full run
PATIENCE = 14  # validations clearly worse than the best before a run stops
MARGIN = 0.01  # "clearly": by this part of what training has gained, and four deviations


@dataclass
class ValidationState:
    first: float | None = None  # the held-out loss of untrained weights
    best: float | None = None  # the lowest held-out loss
    worse: int = 0  # validations in succession that were clearly worse than it
    evaluations: int = 0  # so far, of `EVALUATIONS` in a full run


@dataclass
class Validation:
    trainer: Trainer
    held: Batch | None
    history: list[dict[str, Any]]
    config: RunConfig
    monitor: "SampleMonitor | None" = None  # measures samples as well
    state: ValidationState = field(default_factory=ValidationState)
    best_weights: dict[str, Tensor] | None = None
    seconds: float = 0.0  # that they took

    @property
    def exhausted(self) -> bool:
        return self.state.worse >= PATIENCE

    def next_due(self) -> int:
        number = self.trainer.count * EVALUATIONS // max(self.trainer.steps, 1)
        return number if number > self.state.evaluations else 0

    def reschedule(self, steps: int) -> None:
        count, self.state.worse = self.trainer.count, 0
        self.state.evaluations = count * EVALUATIONS // steps
        if self.monitor is not None:
            self.monitor.reschedule(count, steps)

    def evaluate(self, number: int) -> None:
        """Validate the averaged weights, and keep them unless others were clearly better."""
        trainer, state, began = self.trainer, self.state, time.monotonic()
        state.evaluations = number
        if self.held is None and self.monitor is None:
            return
        with trainer.averaged() as model:
            found = trainer.on_main_process(lambda: self._measure(model))
            if found is not None:
                self._judge(model, *found)
            self._monitor_samples(model)
        self.seconds += time.monotonic() - began
        (state.worse,) = trainer.ranks.largest([state.worse if trainer.ranks.first else 0])

    def choose_average(self) -> None:
        """Keep another average's weights if they are better on held-out data than the first's."""
        trainer, best = self.trainer, self.state.best
        losses: list[list[float]] = []
        if len(trainer.averages) < 2:
            return
        for i, average in enumerate(trainer.averages):
            with average.swapped_in() as model:
                found = trainer.on_main_process(lambda: self._measure(model))  # noqa: B023 called at once
                if found is not None and best is not None:
                    loss = found[1]
                    losses.append([average.decay, loss])
                    if i and loss < min(best, losses[0][1]):
                        best, self.best_weights = loss, _clone_weights(model)
        if losses:
            self.config.averages = losses

    def _measure(self, model: GenerativeModel) -> tuple[dict[str, float], float] | None:
        """The family's diagnosis and the held-out loss, NaN for none, if there are data for it."""
        if self.held is None:
            return None
        diagnosis = evaluate_held_out(model.diagnosis, *self.held)
        loss = evaluate_held_out(model.validation, *self.held)
        return diagnosis, math.nan if loss is None else float(loss)

    def _judge(self, model: GenerativeModel, diagnosis: dict[str, float], loss: float) -> None:
        state, self.config.diagnoses = self.state, list(diagnosis)
        if self.history:
            facts = diagnosis | {"validation": loss}
            self.history[-1] |= {k: float(v) for k, v in facts.items() if np.isfinite(v)}
        if not np.isfinite(loss):
            return
        state.first = loss if state.first is None else state.first
        state.best = loss if state.best is None else min(state.best, loss)
        gained = MARGIN * (state.first - state.best)
        state.worse += 1
        if loss <= state.best + max(gained, 4 * _validation_noise(self.history)):
            state.worse = 0
            self.best_weights = _clone_weights(model)

    def _monitor_samples(self, model: GenerativeModel) -> None:
        monitor, trainer = self.monitor, self.trainer
        if monitor is None or not monitor.due(trainer.count, trainer.steps) or not self.history:
            return
        self.history[-1] |= trainer.on_main_process(lambda: monitor.look(model)) or {}
        self.config.watched = monitor.facts


def _clone_weights(model: GenerativeModel) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def _validation_noise(history: list[dict[str, Any]]) -> float:
    """The deviation of held-out losses since the best one, whatever their trend.

    Second differences of independent noise have six times its variance and none of a straight
    line; the median of their sizes is 0.6745 deviations.
    """
    known = [line["validation"] for line in history if "validation" in line]
    since = np.array(known[int(np.argmin(known)) :] if known else [])
    if len(since) < 4:
        return 0.0
    return float(np.median(np.abs(np.diff(since, 2))) / (0.6745 * 6**0.5))
