"""Several processes that fit one model together, started here or by ``torchrun``.

``fit(..., devices=2)`` starts one process more than it is, which calls ``fit`` with the same
arguments and is told by the variables of ``torchrun`` who it is. The first process alone writes,
shows progress and returns to the user. The others end with it: their input closes when it ends,
whatever the reason.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import distributed as dist

from .. import checkpoint
from ..devices import choose_device
from ..errors import PushforwardError, Unavailable, UsageError
from .processes import ALONE, ProcessGroup

START = "from pushforward.training.launch import follow; follow()"
PATIENCE = timedelta(minutes=30)  # with which a process waits for the others
MANY = 1024
HOME = "127.0.0.1"


def choose_process_group(devices: Any, shard: bool = False) -> ProcessGroup:
    """Which process this is, among how many.

    Arguments:
        devices: How many the user asks for; None takes those of ``torchrun``, or one.
        shard: Whether each is to keep a part of the weights and of what goes with them.

    Raises:
        UsageError: If it is no number of devices, or not that of ``torchrun``.
    """
    known = env_int("WORLD_SIZE", 1) if has_torchrun_env() else 1
    whole = isinstance(devices, int) and not isinstance(devices, bool)
    if devices is not None and not (whole and 1 <= devices <= MANY):
        raise UsageError(f"devices is {str(devices)[:40]}; it must be a whole number from 1")
    absent = sorted({"MASTER_ADDR", "MASTER_PORT"} - os.environ.keys())
    if known > 1 and devices != 1 and absent and not dist.is_initialized():
        raise UsageError(
            f"WORLD_SIZE is {known}, but {absent[0]} is not set: start by torchrun, or unset RANK "
            "and WORLD_SIZE"
        )
    if known > 1 and devices not in (None, 1, known):
        raise UsageError(f"devices is {devices}, but torchrun started {known}: leave it out")
    count = known if devices is None else devices
    if count == 1:
        return ALONE
    return ProcessGroup(env_int("RANK", 0) if known > 1 else 0, count, shard)


def env_int(name: str, least: int) -> int:
    """A whole number among the variables of ``torchrun``.

    Raises:
        UsageError: If it is none.
    """
    text = os.environ[name]
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"the variable {name} is {text[:40]!r}: unset it, or start by torchrun")
    return int(text)


def has_torchrun_env() -> bool:
    """Whether variables say who this process is, as ``torchrun`` sets them."""
    return {"RANK", "WORLD_SIZE"}.issubset(os.environ)


def is_main_process() -> bool:
    """Whether this process is the first, or the only one."""
    return not has_torchrun_env() or os.environ["RANK"] == "0"


def process_device(name: Any, ranks: ProcessGroup) -> torch.device:
    """The device of this process: the GPU of its number, or the CPU.

    Raises:
        UsageError: If one GPU is named for several processes.
        Unavailable: If there are fewer GPUs.
    """
    where = choose_device(name)
    if where.type != "cuda" or ranks.count == 1:
        return where
    if ranks.count > torch.cuda.device_count() and not has_torchrun_env():
        raise Unavailable(f"{ranks.count} GPUs are asked for, {torch.cuda.device_count()} are here")
    if where.index is not None:
        raise UsageError(f"{name} is one device for {ranks.count} processes; use device='cuda'")
    return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")


@contextlib.contextmanager
def open_process_group(ranks: ProcessGroup, call: dict[str, Any]) -> Iterator[None]:
    """Within, the processes can speak with one another.

    Arguments:
        ranks: This one, and how many there are.
        call: The arguments of `fit` for processes that are started here.

    Raises:
        Unavailable: If one of them ends before the others.
    """
    if ranks.count == 1:
        yield
        return
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
    with share_threads(ranks.count), worker_processes(ranks.count, store, call):
        dist.init_process_group(dist_backends(), store=store, rank=0, world_size=ranks.count)
        try:
            yield
        finally:
            dist.destroy_process_group()


def dist_backends() -> str:
    """What carries messages between processes, for each kind of device."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


@contextlib.contextmanager
def share_threads(count: int) -> Iterator[None]:
    """Use this process's part of the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def worker_processes(count: int, store: dist.TCPStore, call: dict[str, Any]) -> Iterator[None]:
    """Start the other processes; within, all are there, and in the end none is left.

    Raises:
        Unavailable: If one of them has failed.
    """
    message = pickle_call(call, store.port)
    variables = {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    variables |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        started = []
        for rank in range(1, count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            said = stack.enter_context((Path(folder) / str(rank)).open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-c", START],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=os.environ | variables | own,
            )
            started.append(process)
        try:
            for process in started:
                send_message(process, message)
            await_workers(started, store)
            yield
            for process in started:
                process.wait(60)
        except Unavailable as error:
            reason = failure_reason(started, Path(folder)) or str(error)
            raise Unavailable(reason + resume_hint(call.get("out"))) from error
        finally:
            for process in started:
                end_worker(process)


def await_workers(started: list[subprocess.Popen[bytes]], store: dist.TCPStore) -> None:
    """Wait until all processes have come.

    Raises:
        Unavailable: If one of them has ended.
    """
    while not store.check([str(rank) for rank in range(1, len(started) + 1)]):
        if any(process.poll() is not None for process in started):
            raise Unavailable("a process has ended before it could begin")
        time.sleep(0.05)


def pickle_call(call: dict[str, Any], port: int) -> bytes:
    """The arguments of a call and where to meet, for a process of our own.

    Raises:
        UsageError: If they cannot be sent.
    """
    try:
        return pickle.dumps((call | {"progress": False}, port))
    except (PushforwardError, TypeError, AttributeError, pickle.PicklingError) as error:
        raise UsageError(
            "with several devices, every argument must be data, a path or a plain value: "
            "name a teacher by its run folder"
        ) from error


def send_message(process: subprocess.Popen[bytes], message: bytes) -> None:
    """Tell a process what to do, and leave its input open."""
    with contextlib.suppress(BrokenPipeError):  # it has ended; the others will notice
        process.stdin.write(len(message).to_bytes(8, "big") + message)  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]


def end_worker(process: subprocess.Popen[bytes]) -> None:
    """Close a process's input, which ends it; kill it if that fails."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def failure_reason(started: list[subprocess.Popen[bytes]], folder: Path) -> str:
    """What the first process that failed said last, or nothing."""
    for rank, process in enumerate(started, 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.wait(2):
                lines = (folder / str(rank)).read_text(errors="replace").split("\n")
                last = next((f": {line[:200]}" for line in reversed(lines) if line.strip()), "")
                return f"process {rank} {exit_description(process.returncode)}{last}"
    return ""


def resume_hint(out: str | Path | None) -> str:
    """How to go on from the last checkpoint of a run folder, if there is one."""
    found = out is not None and checkpoint.list_checkpoints(Path(out))
    return f"; go on with: pushforward fit --resume {out}" if found else ""


def exit_description(code: int) -> str:
    """How a process ended, in words."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def worker_main() -> NoReturn:
    """The life of a process that another one has started."""
    from .fit import fit

    pipe = sys.stdin.buffer
    call, port = pickle.loads(pipe.read(int.from_bytes(pipe.read(8), "big")))  # noqa: S301 our own
    threading.Thread(target=lambda: pipe.read() or os._exit(1), daemon=True).start()
    try:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = dist.TCPStore(HOME, port, None, False, PATIENCE, wait_for_workers=False)
        store.set(str(rank), "here")
        dist.init_process_group(dist_backends(), store=store, rank=rank, world_size=count)
        fit(**call)
    except KeyboardInterrupt as error:
        os._exit(getattr(error, "code", 130))
    except PushforwardError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(error.code)
    except BaseException:
        traceback.print_exc()
        os._exit(PushforwardError.code)
    os._exit(0)
