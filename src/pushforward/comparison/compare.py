"""The same data, budget and seeds for every family and the classical baselines."""

import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import families as registry
from .. import metrics
from ..checkpoint import nearest_existing_folder
from ..data import memmap, reading, text_encoders
from ..data.builtin import datasets
from ..data.reading import Dataset
from ..devices import choose_device
from ..errors import DataError, DiskError, FolderInUse, PushforwardError, UsageError
from ..files import as_folder
from ..inference.fitted_model import FittedModel
from ..model import Likelihood
from ..options import check_duration
from ..progress import Interrupted, Update, terminal_bar
from ..rng import seeded_rng
from ..training.fit import fit, resolve_cache_folder
from . import report
from .leaderboard import PRIMARY, FitResult, Leaderboard

MEASURED = 5000  # test rows that samples are compared with
SCORED = 2000  # of these, rows whose likelihood is evaluated, the same for all; fewer if long
FEWEST = 50  # rows: twenty to test on, and some to train on
REPORT = 20.0  # seconds kept for the report
GUESS = 4.0  # seconds to evaluate one fit, before the first has been timed


class Comparison(Leaderboard):
    """What `compare` found: the fields and methods of a `Leaderboard`, and its report."""

    def save_report(self, folder: str | Path) -> Path:
        """Write ``report.html``, one file that needs no network, into a folder."""
        return report.write_report(self, Path(folder))


class _ComparisonBudget(NamedTuple):
    minutes: float | None
    total_minutes: float | None
    steps: int | None
    seeds: tuple[int, ...]

    def check(self) -> None:
        limits = self._asdict()
        del limits["seeds"]
        if sum(b is not None for b in limits.values()) > 1:
            raise UsageError("give one budget: minutes, total_minutes or steps")
        for name, limit in limits.items():
            check_duration(name, limit)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds are {[*self.seeds][:9]}; give one or more, all different")
        for seed in self.seeds:
            with seeded_rng(seed):  # refuses what is no seed
                pass

    def __str__(self) -> str:
        if self.total_minutes is not None:
            limit = f"{self.total_minutes:g} minutes of wall time in all, in equal shares"
        elif self.minutes is not None:
            limit = f"{self.minutes:g} minutes of wall time a family and seed"
        else:
            limit = f"{self.steps} steps" if self.steps else "each family's own number of steps"
        return f"{limit}, {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"


class _BudgetClock:
    def __init__(self, budget: _ComparisonBudget) -> None:
        self.started, self.budget = time.monotonic(), budget
        self.measuring: list[float] = []

    def share(self, fits: int) -> float | None:
        if self.budget.total_minutes is None or not fits:
            return self.budget.minutes
        left = 60 * self.budget.total_minutes - REPORT - (time.monotonic() - self.started)
        each = sum(self.measuring) / len(self.measuring) if self.measuring else GUESS
        # at least half of a share goes into training, even if the measuring then runs over
        return max(left / fits - each, left / fits / 2, 1.0) / 60


class _Task(NamedTuple):  # what `fit` takes beside the data
    family: str
    seed: int
    steps: int | None = None
    minutes: float | None = None
    device: str = "auto"


class Split(NamedTuple):
    train: Dataset
    test: Dataset
    labels: np.ndarray | None = None  # classes of the test rows of a built-in data set


def subset_rows(samples: Dataset, rows: np.ndarray) -> Dataset:
    y = None if samples.y is None else samples.y[rows]
    return replace(samples, x=samples.x[rows], y=y)


def split_train_test(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four fifths to train on, one fifth (from 20 to 10,000) to test on, both in random order.

    Any first rows of either are then a sample of the data, however a file was sorted.
    """
    order = np.random.default_rng(seed).permutation(n)
    test = min(max(n // 5, 20), 10_000)
    return order[test:], order[:test]


def likelihood_rows(event: tuple[int, ...]) -> int:
    """How many test rows are scored: of long data fewer, for an integral is solved for each."""
    return max(200, SCORED * 8 // max(8, math.prod(event)))


def compare(
    x: Any,
    families: Sequence[str] | None = None,
    *,
    y: Any = None,
    condition: str | None = None,
    bounds: reading.Bounds | None = None,
    size: int | tuple[int, int] | None = None,
    text: str | Path | None = None,
    cache: str | Path | None = None,
    minutes: float | None = None,
    total_minutes: float | None = None,
    steps: int | None = None,
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | Update = True,
) -> Comparison:
    """Fit every family to the same data with the same budget and seeds, and measure all alike.

    Arguments:
        x: As in `fit`.
        families: Keys of families; all of them, baselines included, when None.
        y, condition, bounds, size, cache: As in `fit`.
        text: As in `fit`, for every family that takes a condition.
        minutes: Wall time per family and seed, set-up included.
        total_minutes: Wall time of everything instead.
        steps: Rounds of training instead; the families' own budgets when nothing is given.
        seeds: One fit for each.
        device, progress: As in `fit`.
        out: A folder for ``report.html``.
        overwrite: Replace an old report there.

    Raises:
        DataError: If the data cannot be used.
        UsageError: If a family does not exist or budgets contradict each other.
    """
    budget = _ComparisonBudget(minutes, total_minutes, steps, tuple(seeds))
    budget.check()
    _check_report_folder(out, overwrite)
    choose_device(device)
    chosen = baselines_first() if families is None else [registry.family_key(f) for f in families]
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"families are {', '.join(chosen)[:100]}; name each once")
    limits, sides = reading.normalise_bounds(bounds), reading.parse_image_size(size)
    encoder = text_encoders.text_encoder_name(text)
    with memmap.use_cache_folder(resolve_cache_folder(cache, x)):
        samples = reading.read_dataset(
            x, y=y, condition=condition, bounds=limits, size=sides, text=encoder
        )
    tasks = [_Task(f, s, steps, device=device) for s in seeds for f in chosen]
    result, split = _start_comparison(samples, x if isinstance(x, str) else None, budget)
    clock, show = _BudgetClock(budget), progress is True
    with terminal_bar("compare", show=show) as shown:
        update = progress if callable(progress) else shown
        try:
            for entry in _fit_families(tasks, split, clock, update):
                result.entries.append(entry)
                if show:
                    _print_fit_result(entry, len(result.entries), len(tasks))
        except KeyboardInterrupt as stop:
            result.seconds = time.monotonic() - clock.started
            code = getattr(stop, "code", 130)
            raise _interruption_error(result, tasks, out, code) from None
    result.seconds = time.monotonic() - clock.started
    if out is not None:
        result.save_report(out)
    return result


def baselines_first() -> list[str]:
    return sorted(registry.names(), key=lambda name: name not in registry.BASELINES)


def _check_report_folder(out: str | Path | None, overwrite: bool) -> None:
    if out is None:
        return
    folder = as_folder(out).absolute()
    if not next(p for p in (folder, *folder.parents) if os.path.lexists(p)).is_dir():
        raise FolderInUse(f"{out} is a file or below one; name a folder for the report")
    try:
        with tempfile.TemporaryDirectory(dir=nearest_existing_folder(folder)):
            pass  # what permissions say is not always true
    except OSError as error:
        raise DiskError(f"cannot write to {out}; name another folder") from error
    if not overwrite and (Path(out) / "report.html").exists():
        raise FolderInUse(f"{out} holds a report already; use --overwrite or another folder")


def _start_comparison(
    samples: Dataset, source: str | None, budget: _ComparisonBudget
) -> tuple[Comparison, Split]:
    if (n := len(samples.x)) < FEWEST:
        raise DataError(f"{n} rows are too few to compare families: have {FEWEST} or more")
    known = datasets.load(source) if source in datasets.names() else None
    train, test = split_train_test(n)
    labels = None if known is None or known.y is None else known.y[test]
    split = Split(subset_rows(samples, train), subset_rows(samples, test), labels)
    schema, held_out = samples.schema, split.test.x
    place = "the data passed" if source is None else source
    result = Comparison([], split.train.x, held_out, schema, str(budget), place, known)
    scored = held_out[: likelihood_rows(schema.event)]
    result.codecs = metrics.codecs.image_codec_bits(scored, schema.levels)
    return result, split


def _fit_families(
    tasks: Sequence[_Task], split: Split, clock: _BudgetClock, update: Update
) -> Iterator[FitResult]:
    for i, task in enumerate(tasks):
        if task.family not in registry.BASELINES:
            timed = sum(t.family not in registry.BASELINES for t in tasks[i:])
            task = task._replace(minutes=clock.share(timed))
        entry = fit_and_measure(task, split, _scale_progress(update, i, len(tasks), task.family))
        clock.measuring.append(entry.seconds_measuring)
        yield entry


def _scale_progress(update: Update, i: int, n: int, family: str) -> Update:
    return lambda fraction, text: update((i + fraction) / n, f"{family} {text}")


def fit_and_measure(task: _Task, split: Split, update: Update) -> FitResult:
    """Fit and measure one family with one seed; a failure is a result, not the end."""
    result, began = FitResult(task.family, task.seed), time.monotonic()
    try:
        model = fit(split.train, **task._asdict(), progress=update)
        result.seconds, measured = time.monotonic() - began, time.monotonic()
        update(1.0, "sampling and measuring")
        measure_fit(result, model, split)
        result.seconds_measuring = time.monotonic() - measured
    except PushforwardError as error:
        result.error, result.code = str(error), error.code
    except Exception as error:  # one family's bug must not cost the others' hours
        result.code = 70
        result.error = f"a bug, please report it ({type(error).__name__}: {str(error)[:120]})"
    return result


def measure_fit(result: FitResult, model: FittedModel, split: Split) -> None:
    n, labels = min(len(split.test.x), MEASURED), split.labels
    test = subset_rows(split.test, np.arange(n))
    result.model, result.parameters, result.nfe = model, model.parameters, model.model.nfe
    result.likelihood = model.likelihood
    model.draw(min(n, 8), test.y if test.y is None else test.y[: min(n, 8)], seed=0)  # warm up
    began = time.monotonic()
    result.generated = model.draw(n, test.y, seed=result.seed)
    result.seconds_per_1000 = (time.monotonic() - began) / n * 1000
    result.metrics = metrics.evaluate(
        test.x,
        result.generated,
        train=split.train.x,
        labels=None if labels is None else labels[:n],
        seed=result.seed,
        max_n=MEASURED,
    )
    if model.likelihood is not Likelihood.NONE:
        rows = slice(likelihood_rows(test.schema.event))
        y = None if test.y is None else test.y[rows]
        values = model.log_prob(test.schema.restore(test.x[rows]), y, seed=result.seed)
        result.nll = metrics.nll(values, seed=result.seed)


def _print_fit_result(result: FitResult, done: int, all_: int) -> None:
    e = result.metrics.get(PRIMARY)
    found = result.error[:120] if e is None else f"energy distance {e.value:.4f}"
    fitted = f"{result.family} (seed {result.seed}) {result.seconds:.1f} s"
    print(f"[{done}/{all_}] {fitted}, {found}", file=sys.stderr, flush=True)


def _interruption_error(
    result: Comparison, tasks: Sequence[_Task], out: str | Path | None, code: int
) -> Interrupted:
    count = len(result.entries)
    message = f"interrupted after {count} of {len(tasks)} fits"
    if out is None or not count:
        return Interrupted(f"{message}; there is no report", code)
    done = {e.family for e in result.entries}
    result.missing = tuple(dict.fromkeys(t.family for t in tasks if t.family not in done))
    return Interrupted(f"{message}; report: {result.save_report(out)}", code)
