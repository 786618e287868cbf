"""A fit in progress: it trains, saves, and knows when to stop."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor

from .. import checkpoint
from ..checkpoint import Checkpoint
from ..errors import NumericalError, UsageError
from ..inference.fitted_model import FittedModel
from ..inference.loading import build_from_config
from ..inference.preprocessor import Preprocessor
from ..model import GenerativeModel, Recipe
from ..options import check_options
from ..progress import EtaEstimator, Interrupted, Update
from .config import Budget, Keeping, RunConfig
from .preparation import MinibatchStream
from .trainer import Batch, Trainer
from .validation import Validation

EVALUATING = 0.2  # the part of a budget of time that validations take at most, but for the last
LINES = 400  # of the history of a full run
COMPLETE = "complete"


@dataclass
class _RunningMeans:
    """The means of a loss's terms since the last line of the history; nothing waits for a GPU."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        self.count += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def pop(self) -> dict[str, float]:
        found = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return found


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM until a safe moment; a second one acts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise Interrupted("stopped at once; the last checkpoint is intact", 128 + number)
        received.append(number)

    kept = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _silent(fraction: float, text: str) -> None:
    pass


@dataclass
class Run:
    trainer: Trainer  # it owns the number of steps
    batches: Iterator[Batch]
    validation: Validation
    preprocessor: Preprocessor
    config: RunConfig  # what becomes known later is noted there
    keeping: Keeping
    started: float  # `time.monotonic` when the run began, as if it had never been stopped
    stream: MinibatchStream | None = None  # where ``batches`` come from, if read from the disk
    history: list[dict[str, Any]] = field(default_factory=list)  # a line for every few steps
    _means: _RunningMeans = field(default_factory=_RunningMeans, init=False)
    _eta: EtaEstimator = field(default_factory=EtaEstimator, init=False)

    def train(self, update: Update = _silent) -> FittedModel:
        if not self.trainer.count:
            self.validation.evaluate(0)  # what has been gained is counted from untrained weights
        with _catch_signals() as received:
            self._train_steps(received, update)
            self._note_end()
            self.validation.choose_average()
            self.save(done=True)
        update(1.0, "")
        return self.result()

    def extend(self, budget: Budget, seconds: float) -> None:
        """Give a resumed run, which took ``seconds`` so far, another length from its start."""
        trainer, steps, minutes = self.trainer, budget.steps, budget.minutes
        if steps is not None:
            check_options(Recipe, {"steps": steps}, "training")
        if not trainer.model.players():
            return  # a closed form is complete
        if minutes is not None:
            if 60 * minutes <= seconds:
                raise UsageError(f"minutes count from the start: give more than {seconds / 60:.3g}")
            steps = int(trainer.count * 60 * minutes / seconds) if trainer.count else trainer.steps
        if steps is None:
            return
        if steps < trainer.count:
            raise UsageError(f"steps count from the start: give at least {trainer.count}")
        self.config.minutes, trainer.steps = minutes, steps
        self.validation.reschedule(steps)

    def fraction(self) -> float:
        if minutes := self.config.minutes:
            return min(1.0, self._seconds() / (60 * minutes))
        return self.trainer.count / max(self.trainer.steps, 1)

    def save(self, done: bool = False) -> None:
        """Write a checkpoint, by the first process, unless the weights are not finite."""
        if self.keeping.out is None:
            return
        trainer, model = self.trainer, self.trainer.model
        tensors = {"model": trainer.gather(model.state_dict())}
        for name, _ in model.named_parameters():
            if not tensors["model"][name].isfinite().all():
                raise NumericalError(f"weight {name} is not finite; {self._last_checkpoint()}")
        for name, average in trainer.averages_by_name().items():
            with average.swapped_in() as averaged:
                tensors[name] = trainer.gather(averaged.state_dict())
        if self.validation.best_weights:
            tensors["best"] = trainer.gather(self.validation.best_weights)
        tensors["trainer"], state = trainer.state()
        state |= {"seconds": round(self._seconds(), 3), "done": done}
        state |= asdict(self.validation.state)
        if trainer.ranks.first:
            files = self._fitted(model).plain(state)
            checkpoint.save_checkpoint(self.keeping.out, Checkpoint(files, tensors, self.history))
        trainer.ranks.largest([0])  # nobody goes on, or ends, before it is written

    def result(self) -> FittedModel:
        trainer, best = self.trainer, self.validation.best_weights
        if trainer.root is None:
            model = trainer.average.eval()
        else:
            config = json.loads(json.dumps(self.config.to_json()))  # as a run folder has it
            model = build_from_config(config, self.preprocessor.schema).model
            with trainer.averaged() as averaged:
                model.load_state_dict(trainer.gather(averaged.state_dict()))
            model.to(trainer.device)
        if best:
            model.load_state_dict(trainer.gather(best))
        trainer.ranks.broadcast(model.state_dict().values())
        return self._fitted(model.requires_grad_(False))

    def _train_steps(self, received: list[int], update: Update) -> None:
        trainer, saved, shown = self.trainer, time.monotonic(), 0.0
        began, every = (saved, trainer.count), max(1, trainer.steps // LINES)
        while trainer.count < trainer.steps and not self.validation.exhausted:
            try:
                terms = self.trainer.step(self.batches).terms
            except NumericalError as error:
                raise NumericalError(f"{error}; {self._last_checkpoint()}") from error
            self._record(terms, every)
            self._spend_minutes(*began)
            stop, due, save = self._agree(received, saved)
            if due:
                self.validation.evaluate(due)
            now = time.monotonic()
            if now - shown > 0.1:
                shown = now
                update(self.fraction(), ", ".join(f"{k} {float(v):.3g}" for k, v in terms.items()))
            if stop:
                raise self._interrupt(stop)
            if save:
                self.save()
                saved = time.monotonic()

    def _record(self, terms: dict[str, Tensor], every: int) -> None:
        self._means.add(terms)
        left = self._eta.seconds_left(self.fraction())
        if self.trainer.count % every == 0:
            line = {"step": self.trainer.count, "seconds": round(self._seconds(), 3)}
            line |= {} if left is None else {"left": round(left, 3)}
            self.history.append(line | self._means.pop())

    def _spend_minutes(self, began: float, first: int) -> None:
        trainer, done = self.trainer, self.trainer.count - first
        if self.config.minutes and trainer.ranks.first and done >= 10:
            pace = (time.monotonic() - began) / done
            left = 60 * self.config.minutes - self._seconds()
            trainer.steps = trainer.count + max(0, int(left / pace))

    def _agree(self, received: list[int], saved: float) -> tuple[int, int, bool]:
        """Signal to stop (of any process), due validation, whether to save; the first decides."""
        trainer, due, late = self.trainer, 0, False
        if trainer.ranks.first:
            due = self._due_validation()
            late = bool(self.keeping.out) and time.monotonic() - saved > self.keeping.save_seconds
        signal = received[0] if received else 0
        steps = trainer.steps if trainer.ranks.first else 0
        stop, due, save, trainer.steps = trainer.ranks.largest([signal, due, int(late), steps])
        return stop, due, bool(save)

    def _due_validation(self) -> int:
        """The number of the validation that is due, or 0; the last is made in any case."""
        last = self.trainer.count >= self.trainer.steps
        within = self.validation.seconds <= EVALUATING * self._seconds()
        return self.validation.next_due() if last or not self.config.minutes or within else 0

    def _note_end(self) -> None:
        trainer, config = self.trainer, self.config
        config.steps, config.ended = trainer.count, COMPLETE
        if trainer.count < trainer.steps and self.validation.exhausted:
            why = "the held-out loss had been clearly worse than its best for long"
            config.ended = f"stopped early, at step {trainer.count} of {trainer.steps}: {why}"
        config.seconds = round(self._seconds(), 3)
        config.evaluating = round(self.validation.seconds, 3)
        if self.stream is not None:
            config.waited = round(self.stream.waited, 3)
            self.stream.close()

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _fitted(self, model: GenerativeModel) -> FittedModel:
        return FittedModel(model, self.preprocessor, self.config.to_json(), self.history)

    def _interrupt(self, number: int) -> Interrupted:
        if self.keeping.out is None:
            why = "interrupted; nothing was saved, for no folder was named"
            return Interrupted(why, 128 + number)
        self.save()
        how = f"go on with: pushforward fit --resume {self.keeping.out}"
        return Interrupted(f"stopped at step {self.trainer.count}; {how}", 128 + number)

    def _last_checkpoint(self) -> str:
        found = checkpoint.list_checkpoints(self.keeping.out) if self.keeping.out else []
        return f"last good checkpoint: {found[0]}" if found else "no checkpoint was written yet"
