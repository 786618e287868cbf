"""The same data, budget and seeds for every family and the classical baselines."""

import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from ..progress import Interrupted, Update, terminal_bar
from ..training.fit import fit, resolve_cache_folder
from .budgets import BudgetClock, check_budgets, describe_budget
from .leaderboard import PRIMARY, Comparison, FitResult

MEASURED = 5000  # test rows that samples are compared with
SCORED = 2000  # of these, rows whose likelihood is evaluated, the same for all; fewer if long
FEWEST = 50  # rows: twenty to test on, and some to train on


def subset_rows(samples: Dataset, rows: np.ndarray) -> Dataset:
    """Some rows of the data."""
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
        y: As in `fit`.
        condition: As in `fit`.
        bounds: As in `fit`.
        size: As in `fit`.
        text: As in `fit`, for every family that is told a condition.
        cache: As in `fit`.
        minutes: Wall time per family and seed, set-up included.
        total_minutes: Wall time of everything instead.
        steps: Rounds of training instead; the families' own budgets when nothing is given.
        seeds: One fit for each.
        device: As in `fit`.
        out: A folder for ``report.html``.
        overwrite: Replace an old report there.
        progress: As in `fit`.

    Raises:
        DataError: If the data cannot be used.
        UsageError: If a family does not exist or budgets contradict each other.
    """
    check_budgets(minutes, total_minutes, steps, seeds)
    check_report_folder(out, overwrite)
    choose_device(device)
    chosen = baselines_first() if families is None else [registry.family_key(f) for f in families]
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"families are {', '.join(chosen)[:100]}; name each once")
    limits, sides, encoder = (
        reading.normalise_bounds(bounds),
        reading.parse_image_size(size),
        text_encoders.text_encoder_name(text),
    )
    with memmap.use_cache_folder(resolve_cache_folder(cache, x)):
        samples = reading.read_dataset(
            x, y=y, condition=condition, bounds=limits, size=sides, text=encoder
        )
    if len(samples.x) < FEWEST:
        raise DataError(
            f"{len(samples.x)} rows are too few to compare families: have {FEWEST} or more"
        )
    train, test = split_train_test(len(samples.x))
    known = datasets.load(x) if isinstance(x, str) and x in datasets.names() else None
    result = Comparison(
        [],
        samples.x[train],
        samples.x[test],
        samples.schema,
        describe_budget(minutes, total_minutes, steps, seeds),
        x if isinstance(x, str) else "the data passed",
        known,
    )
    rows = result.test[: likelihood_rows(samples.schema.event)]
    result.codecs = metrics.codecs.image_codec_bits(rows, samples.schema.levels)
    clock, work = BudgetClock(total_minutes, minutes), [(f, s) for s in seeds for f in chosen]
    with terminal_bar("compare", show=progress is True) as shown:
        update = progress if callable(progress) else shown
        try:
            for entry in fit_families(
                work, samples, train, test, known, clock, steps, device, update
            ):
                result.entries.append(entry)
                print_fit_result(entry, len(result.entries), len(work), shown=progress is True)
        except KeyboardInterrupt as stop:
            code = getattr(stop, "code", 130)
            raise interruption_error(result, work, clock, out, code) from None
    result.seconds = time.monotonic() - clock.started
    if out is not None:
        result.save_report(out)
    return result


def fit_families(
    work: Sequence[tuple[str, int]],
    samples: Dataset,
    train: np.ndarray,
    test: np.ndarray,
    known: datasets.BuiltinDataset | None,
    clock: BudgetClock,
    steps: int | None,
    device: str,
    update: Update,
) -> Iterator[FitResult]:
    """Fit and measure each family of ``work`` with its seed, one after the other."""
    labels = None if known is None or known.y is None else known.y[test]
    for i, (family, seed) in enumerate(work):
        timed = sum(f not in registry.BASELINES for f, _ in work[i:])
        share = clock.share(timed)
        entry = fit_and_measure(
            family,
            seed,
            subset_rows(samples, train),
            subset_rows(samples, test),
            labels=labels,
            minutes=share if family not in registry.BASELINES else None,
            steps=steps,
            device=device,
            update=scale_progress(update, i, len(work), family),
        )
        clock.measuring.append(entry.seconds_measuring)
        yield entry


def interruption_error(
    result: Comparison,
    work: Sequence[tuple[str, int]],
    clock: BudgetClock,
    out: str | Path | None,
    code: int,
) -> Interrupted:
    """What an interruption says; a report keeps the fits that there are."""
    count = len(result.entries)
    if out is None or not count:
        message = f"interrupted after {count} of {len(work)} fits; there is no report"
        return Interrupted(message, code)
    result.seconds = time.monotonic() - clock.started
    done = {e.family for e in result.entries}
    result.missing = tuple(dict.fromkeys(f for f, _ in work if f not in done))
    path = result.save_report(out)
    return Interrupted(f"interrupted after {count} of {len(work)} fits; report: {path}", code)


def check_report_folder(out: str | Path | None, overwrite: bool) -> None:
    """Refuse a place where no report can be written."""
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


def scale_progress(update: Update, i: int, n: int, family: str) -> Update:
    """The progress of one fit as that of the whole."""
    return lambda fraction, text: update((i + fraction) / n, f"{family} {text}")


def baselines_first() -> list[str]:
    """The baselines first, which are quick, then the other families."""
    names = registry.names()
    return [n for n in names if n in registry.BASELINES] + [
        n for n in names if n not in registry.BASELINES
    ]


def fit_and_measure(
    family: str,
    seed: int,
    train: Dataset,
    test: Dataset,
    *,
    labels: np.ndarray | None,
    minutes: float | None,
    steps: int | None,
    device: str,
    update: Update,
) -> FitResult:
    """Fit and measure one family with one seed; a failure is an entry, not the end."""
    entry, began = FitResult(family, seed), time.monotonic()
    try:
        model = fit(
            train,
            family,
            minutes=minutes,
            steps=None if minutes else steps,
            seed=seed,
            device=device,
            progress=update,
        )
        entry.seconds, measured = time.monotonic() - began, time.monotonic()
        update(1.0, "sampling and measuring")
        measure_fit(entry, model, train, test, labels)
        entry.seconds_measuring = time.monotonic() - measured
    except PushforwardError as error:
        entry.error, entry.code = str(error), error.code
    except Exception as error:  # one family's bug must not cost the others' hours
        entry.code = 70
        entry.error = f"a bug, please report it ({type(error).__name__}: {str(error)[:120]})"
    return entry


def measure_fit(
    entry: FitResult,
    model: FittedModel,
    train: Dataset,
    test: Dataset,
    labels: np.ndarray | None,
) -> None:
    """Everything the leaderboard and the report say of a fitted model."""
    n = min(len(test.x), MEASURED)
    test = subset_rows(test, np.arange(n))
    entry.model, entry.parameters, entry.nfe = model, model.parameters, model.model.nfe
    entry.likelihood = model.likelihood
    model.draw(min(n, 8), test.y if test.y is None else test.y[: min(n, 8)], seed=0)  # warm up
    began = time.monotonic()
    entry.generated = model.draw(n, test.y, seed=entry.seed)
    entry.seconds_per_1000 = (time.monotonic() - began) / n * 1000
    entry.metrics = metrics.evaluate(
        test.x,
        entry.generated,
        train=train.x,
        labels=None if labels is None else labels[:n],
        seed=entry.seed,
        max_n=MEASURED,
    )
    if model.likelihood is not Likelihood.NONE:
        rows = slice(likelihood_rows(test.schema.event))
        y = None if test.y is None else test.y[rows]
        values = model.log_prob(test.schema.restore(test.x[rows]), y, seed=entry.seed)
        entry.nll = metrics.nll(values, seed=entry.seed)


def print_fit_result(entry: FitResult, done: int, all_: int, *, shown: bool) -> None:
    """One line for a finished fit."""
    if shown:
        e = entry.metrics.get(PRIMARY)
        found = entry.error[:120] if e is None else f"energy distance {e.value:.4f}"
        text = f"[{done}/{all_}] {entry.family} (seed {entry.seed}) {entry.seconds:.1f} s, {found}"
        print(text, file=sys.stderr, flush=True)
