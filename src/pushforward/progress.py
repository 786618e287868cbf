"""Progress on a terminal."""

import bisect
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")
FINEST = 1 / 1000  # the smallest fraction that counts as progress
SEEN = 5  # observations without which no estimate is given
Update = Callable[[float, str], None]  # (fraction done, what is happening)


@dataclass
class EtaEstimator:
    r"""The time that is left, by the time that the later half of what is done took.

    .. math:: \text{left} = (1 - f) \frac{t(f) - t(h)}{f - h}, \qquad h = \frac{f_0 + f}{2}

    for a fraction :math:`f` done that began at :math:`f_0`. What is done once, at the start, is
    soon left behind; what recurs, such as a validation, is counted at its rate.
    """

    clock: Callable[[], float] = time.monotonic
    fractions: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def seconds_left(self, fraction: float) -> float | None:
        now = self.clock()
        if not self.fractions or fraction - self.fractions[-1] >= FINEST:
            self.fractions.append(fraction)
            self.times.append(now)
        half = bisect.bisect_left(self.fractions, (self.fractions[0] + fraction) / 2)
        since = fraction - self.fractions[min(half, len(self.fractions) - 1)]
        if len(self.fractions) < SEEN or since <= 0:
            return None
        return (1 - fraction) * (now - self.times[half]) / since


def clock_time(seconds: float | None) -> str:
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class ProgressSpan(NamedTuple):
    update: Update
    low: float = 0.0
    high: float = 1.0


BAR: ContextVar[ProgressSpan | None] = ContextVar("BAR", default=None)


@contextlib.contextmanager
def terminal_bar(title: str, *, show: bool = True) -> Iterator[Update]:
    """A bar with the time left on stderr when it is a terminal; silence in a pipe."""
    if not show or not sys.stderr.isatty():
        yield lambda fraction, text: None
        return
    from rich import console, progress

    columns = (
        "{task.description}",
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        "left {task.fields[left]}",
        "{task.fields[text]}",
    )
    stderr, pace = console.Console(stderr=True), EtaEstimator()
    with progress.Progress(*columns, console=stderr, transient=True) as shown:
        task = shown.add_task(title, total=1.0, text="", left=clock_time(None))
        yield lambda fraction, text: shown.update(
            task, completed=fraction, text=text, left=clock_time(pace.seconds_left(fraction))
        )


@contextlib.contextmanager
def progress_bar(title: str, *, show: bool = True) -> Iterator[None]:
    """A bar that every loop under `track_progress` moves while this lasts."""
    with terminal_bar(title, show=show) as update:
        token = BAR.set(ProgressSpan(update))
        try:
            yield
        finally:
            BAR.reset(token)


def track_progress(items: Iterable[T], count: int) -> Iterator[T]:
    """The items of a loop, moving the bar of `progress_bar`, if any; loops may be nested."""
    span = BAR.get()
    if span is None or count < 2:  # a single item leaves the bar to the loops within it
        yield from items
        return
    width = (span.high - span.low) / max(count, 1)
    try:
        for i, item in enumerate(items):
            low = min(span.low + i * width, span.high)
            span.update(low, "")
            BAR.set(ProgressSpan(span.update, low, min(low + width, span.high)))
            yield item
            BAR.set(span)
        span.update(span.high, "")
    finally:
        BAR.set(span)


class Interrupted(KeyboardInterrupt):
    """A signal arrived and the state has been saved; ``code`` is the exit code."""

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code
