"""Killed at any moment, a run loads, and resuming it ends in the weights of one never stopped."""

import os
import signal
import time
import traceback

import numpy as np
import pytest
import torch

from pushforward import checkpoint
from pushforward.training.fit import fit

STEPS = 150


def train(folder, resume=False):
    """A fit that writes a checkpoint after nearly every step."""
    options = {} if resume else {"steps": STEPS, "width": 16, "batch": 64}
    return fit(
        None if resume else "moons",
        "ddpm",
        seed=3,
        out=folder,
        resume=resume,
        progress=False,
        save_seconds=0.005,
        **options,
    )


def in_child(work, kill_after=None):
    """Run in a forked process; kill it after some seconds. Returns whether it ended by itself."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: B036 the child must not return into the test runner
            traceback.print_exc()
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def kill_at_random(tmp_path, times, seed):
    straight = tmp_path / "straight"
    began = time.monotonic()
    assert in_child(lambda: train(straight))
    span = time.monotonic() - began
    expected = checkpoint.load_checkpoint(straight)
    rng, killed = np.random.default_rng(seed), 0
    while killed < times:
        folder, finished = tmp_path / f"run{killed}", False
        while not finished:
            started = bool(checkpoint.list_checkpoints(folder))
            end = rng.uniform(0, span) if killed < times else None
            finished = in_child(lambda f=folder, r=started: train(f, resume=r), end)
            killed += not finished
            if checkpoint.list_checkpoints(folder):
                checkpoint.load_checkpoint(folder)  # whatever the moment, it loads
        found = checkpoint.load_checkpoint(folder)
        for part in ("model", "ema", "best", "trainer"):
            for name, value in expected.tensors[part].items():
                assert torch.equal(value, found.tensors[part][name]), (part, name)
        assert not [p for p in folder.glob("checkpoint-*") if not (p / "manifest.json").exists()]


def test_runs_killed_four_times_end_like_runs_never_stopped(tmp_path):
    kill_at_random(tmp_path, 4, seed=0)


@pytest.mark.slow
def test_runs_killed_forty_times_end_like_runs_never_stopped(tmp_path):
    kill_at_random(tmp_path, 40, seed=1)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_last_finished_step(tmp_path, number, code):
    from pushforward.cli import main

    folder = tmp_path / "run"
    words = ["fit", "moons", "-o", str(folder), "--steps", "100000", "--set", "width=16"]
    child = os.fork()
    if child == 0:
        try:
            main(words)
        except SystemExit as stop:
            os._exit(stop.code)
    began = time.monotonic()
    while not (folder / ".lock").exists() and time.monotonic() - began < 60:
        time.sleep(0.05)
    time.sleep(1)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) == code
    assert checkpoint.load_checkpoint(folder).plain["state"]["count"] > 0
