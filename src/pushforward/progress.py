"""Progress on a terminal, and interruption that waits for a safe moment."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

Update = Callable[[float, str], None]  # (fraction done, what is happening)


@contextlib.contextmanager
def bar(title: str, *, show: bool = True) -> Iterator[Update]:
    """A bar with the time left on stderr when it is a terminal; silence in a pipe."""
    if not show or not sys.stderr.isatty():
        yield lambda fraction, text: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=1.0, text="")
        yield lambda fraction, text: shown.update(task, completed=fraction, text=text)


class Interrupted(KeyboardInterrupt):
    """A signal arrived and the state has been saved; ``code`` is the exit code."""

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of being torn out of a step; a second one acts at once."""
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
