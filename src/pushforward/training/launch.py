"""Several processes that fit one model together, started here or by ``torchrun``.

``fit(..., devices=2)`` starts one process more than it is, a `worker`, which gets the same request
on its standard input, and its rank in the variables of ``torchrun``. The first process alone
writes, shows progress and returns to the user. The others end with it: their input closes when it
ends, whatever the reason.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist

from .. import checkpoint
from ..errors import PushforwardError, Unavailable, UsageError
from .config import FitRequest
from .processes import ProcessGroup, dist_backends, has_torchrun_env

WORKER = f"{__package__}.worker"  # the program of the others, which nothing imports
PATIENCE = timedelta(minutes=30)  # with which a process waits for the others
HOME = "127.0.0.1"


@contextlib.contextmanager
def open_process_group(ranks: ProcessGroup, request: FitRequest) -> Iterator[None]:
    """Unavailable is raised if a process ends before the others."""
    if dist.is_initialized():
        if (dist.get_rank(), dist.get_world_size()) != (ranks.rank, ranks.count):
            raise UsageError("this process has a group of another size: use devices=1, or torchrun")
        yield
        return
    if has_torchrun_env():  # the group lasts as long as the process
        dist.init_process_group(dist_backends(), timeout=PATIENCE)
        yield
        return
    store = dist.TCPStore(HOME, 0, None, True, PATIENCE, wait_for_workers=False)
    with _share_threads(ranks.count), _worker_processes(ranks.count, store, request):
        dist.init_process_group(dist_backends(), store=store, rank=0, world_size=ranks.count)
        try:
            yield
        finally:
            dist.destroy_process_group()


@contextlib.contextmanager
def _share_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _worker_processes(count: int, store: dist.TCPStore, request: FitRequest) -> Iterator[None]:
    message = _pickle_request(request, store.port)
    variables = {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    variables |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        started = []
        for rank in range(1, count):
            said = stack.enter_context((Path(folder) / str(rank)).open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=os.environ | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            started.append(process)
        try:
            for process in started:
                with contextlib.suppress(BrokenPipeError):  # it has ended; the others will notice
                    process.stdin.write(message)  # type: ignore[union-attr]
                    process.stdin.flush()  # type: ignore[union-attr]
            _await_workers(started, store)
            yield
            for process in started:
                process.wait(60)
        except Unavailable as error:
            reason = _failure_reason(started, Path(folder)) or str(error)
            raise Unavailable(reason + _resume_hint(request.keeping.out)) from error
        finally:
            for process in started:
                _end_worker(process)


def _await_workers(started: list[subprocess.Popen[bytes]], store: dist.TCPStore) -> None:
    while not store.check([str(rank) for rank in range(1, len(started) + 1)]):
        if any(process.poll() is not None for process in started):
            raise Unavailable("a process has ended before it could begin")
        time.sleep(0.05)


def _pickle_request(request: FitRequest, port: int) -> bytes:
    try:
        quiet = request._replace(keeping=replace(request.keeping, progress=False))
        message = pickle.dumps((quiet, port))
    except (PushforwardError, TypeError, AttributeError, pickle.PicklingError) as error:
        raise UsageError(
            "with several devices, every argument must be data, a path or a plain value: "
            "name a teacher by its run folder"
        ) from error
    return len(message).to_bytes(8, "big") + message


def _end_worker(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _failure_reason(started: list[subprocess.Popen[bytes]], folder: Path) -> str:
    for rank, process in enumerate(started, 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.wait(2):
                lines = (folder / str(rank)).read_text(errors="replace").split("\n")
                last = next((f": {line[:200]}" for line in reversed(lines) if line.strip()), "")
                code = process.returncode
                ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                return f"process {rank} {ended}{last}"
    return ""


def _resume_hint(out: Path | None) -> str:
    found = out is not None and checkpoint.list_checkpoints(out)
    return f"; go on with: pushforward fit --resume {out}" if found else ""
