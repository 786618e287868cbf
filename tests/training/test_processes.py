"""Two processes that train one model, against one process with the joined batches."""

import contextlib
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn

from pushforward import checkpoint
from pushforward.errors import Unavailable, UsageError
from pushforward.model import GenerativeModel, Likelihood, Recipe
from pushforward.progress import Interrupted
from pushforward.training.fit import fit
from pushforward.training.processes import ALONE, ProcessGroup, choose_process_group
from pushforward.training.trainer import Trainer

# some gradients are longer than the clip, and some are not: those show a mean that is a sum
RECIPE = Recipe(steps=6, batch=16, lr=1e-2, warmup=0, ema=(0.5, 0.9), clip=3.5, accumulate=2)
X = np.random.default_rng(0).normal(size=(60, 2))
FIT = {"x": X, "family": "gan", "steps": 8, "batch": 16, "width": 8, "seed": 5}
FIT |= {"precision": "float32"}


class Duel(GenerativeModel):
    """Two players with parameters in numbers that two processes cannot divide evenly."""

    event_shape, likelihood = (2,), Likelihood.NONE

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        self.b = nn.Linear(2, 1)
        self.double()

    def players(self):
        return {"a": self.a, "b": self.b}

    def objectives(self):
        yield "b", lambda x, c: {"b": (self.b(x) - self.b(self.a(x)).exp()).square().mean()}
        yield "a", lambda x, c: {"a": (self.b(self.a(x)) - 3).square().mean()}

    def sample(self, n, c=None):
        return self.noise(n, 2)


def duel(ranks, split=lambda x: [x]):
    """What training on fixed batches leads to; ``split`` chooses this process's part."""
    trainer = Trainer(Duel(), RECIPE, 6, ranks=ranks)
    trainer.synchronise()
    generator = torch.Generator().manual_seed(2)
    data = (
        (part, None)
        for _ in range(12)
        for part in split(torch.randn(16, 2, dtype=torch.double, generator=generator))
    )
    trainer.step(data)
    players = trainer.players
    first = {f"gradient.{k}": p.whole(p.gradients).clone() for k, p in players.items()}
    for _ in range(5):
        trainer.step(data)
    found = trainer.gather({f"model.{k}": v for k, v in trainer.model.state_dict().items()}) | first
    for name, average in trainer.averages_by_name().items():
        with average.swapped_in() as model:
            state = {f"{name}.{k}": v for k, v in model.state_dict().items()}
            found |= trainer.gather(state)
    own = [v for p in players.values() for v in (*p.weights, *p.gradients, *p.first, *p.second)]
    own += [v for average in trainer.averages for vs in average.own.values() for v in vs]
    kept = sum(v.numel() for v in own)
    found |= {k: v for k, v in trainer.state()[0].items() if "rng" not in k}
    return found, kept


def broken(ranks):
    """A batch of which only the second process has a number that is not finite."""
    trainer = Trainer(Duel(), RECIPE._replace(accumulate=1), 6, ranks=ranks)
    x = torch.full((8, 2), float("nan") if ranks.rank else 1.0, dtype=torch.double)
    with contextlib.suppress(ArithmeticError):
        trainer.step(iter([(x, None)] * 2))
    return trainer.count


def halves(rank):
    """This process's half of a batch, in two pieces."""
    return lambda x: [x[2 * k + rank :: 4] for k in range(2)]


def fits(rank, folder):
    """A run that never stops, and one that is stopped by a signal to one process and resumed."""
    written, save = [], checkpoint.save_checkpoint
    checkpoint.save_checkpoint = lambda *a: written.append(a) or save(*a)
    straight = fit(**FIT, out=folder / "straight", progress=False)

    sent = []

    def stop(fraction, text):
        if rank == 1 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    code = None
    try:
        fit(**FIT, out=folder / "stopped", progress=stop)
    except Interrupted as error:
        code = error.code
    resumed = fit(X, out=folder / "stopped", resume=True, progress=False)
    states = [{k: v.clone() for k, v in m.model.state_dict().items()} for m in (straight, resumed)]
    return {"straight": states[0], "resumed": states[1], "code": code, "written": len(written)}


def worker(rank, folder):
    """One of two processes; what it finds is left in a file."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    found = {"duel": duel(ProcessGroup(rank, 2), halves(rank))}
    found["sharded"] = duel(ProcessGroup(rank, 2, sharded=True), halves(rank))
    found["broken"] = broken(ProcessGroup(rank, 2))
    found |= fits(rank, folder)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)], folder


@pytest.fixture(scope="module")
def alone():
    return duel(ALONE, lambda x: [x[:8], x[8:]])


@pytest.mark.parametrize("how", ["duel", "sharded"])
def test_two_processes_learn_what_one_does_from_the_joined_batch(found, alone, how):
    """Weights, both averages and both moments of two players agree to the rounding of float64."""
    for rank in range(2):
        values, _ = found[0][rank][how]
        for name, value in alone[0].items():
            torch.testing.assert_close(values[name], value, rtol=1e-6, atol=1e-9)


def test_a_sharded_process_keeps_half_of_weights_gradients_moments_and_averages(found, alone):
    """Up to half a row of each weight, of which there are three, and biases of odd lengths."""
    kept = [found[0][rank]["sharded"][1] for rank in range(2)]
    copies = 6  # weights, gradients, two moments, two averages
    assert sum(kept) == alone[1] and max(kept) <= alone[1] / 2 + copies * (3 * 3 + 2) / 2
    assert found[0][0]["duel"][1] == alone[1]


def test_a_loss_that_is_not_finite_in_one_process_stops_both_before_the_step(found):
    assert [found[0][rank]["broken"] for rank in range(2)] == [0, 0]


def test_the_weights_of_a_fit_are_equal_in_all_processes(found):
    for how in ("straight", "resumed"):
        a, b = (found[0][rank][how] for rank in range(2))
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_signal_to_one_process_stops_all_and_the_resumed_run_ends_in_the_same_weights(found):
    for rank in range(2):
        mine = found[0][rank]
        assert mine["code"] == 128 + signal.SIGTERM
        assert all(torch.equal(mine["straight"][k], v) for k, v in mine["resumed"].items())


def test_the_first_process_alone_writes(found):
    values, folder = found
    assert [v["written"] for v in values] == [3, 0]
    assert len(list((folder / "stopped").glob("checkpoint-*"))) == 2


def test_each_process_draws_noise_of_its_own(found):
    tensors = checkpoint.load_checkpoint(found[1] / "straight").tensors["trainer"]
    assert not torch.equal(tensors["rng"], tensors["rng.1"])
    seeds = {ProcessGroup(rank, 4).seed(0) for rank in range(4)}
    assert len(seeds) == 4


@pytest.mark.parametrize("devices", [0, -1, 2.5, True, "two", 10**6])
def test_a_number_of_devices_without_sense_is_refused(devices):
    with pytest.raises(UsageError, match="devices"):
        choose_process_group(devices)


def test_what_torchrun_says_must_agree_with_what_is_asked(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert choose_process_group(None) == ALONE  # a rank alone says nothing
    monkeypatch.setenv("WORLD_SIZE", "4")
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        with pytest.raises(UsageError, match=f"{name} is not set"):
            choose_process_group(None)
        monkeypatch.setenv(name, value)
    assert choose_process_group(None, shard=True) == ProcessGroup(3, 4, sharded=True)
    assert choose_process_group(1) == ALONE
    with pytest.raises(UsageError, match="torchrun started 4"):
        choose_process_group(2)


def test_what_cannot_be_sent_or_divided_is_said_before_a_process_is_started():
    with pytest.raises(UsageError, match="give batch=15"):
        fit(X, "ddpm", batch=16, devices=3, progress=False)
    teacher = fit(X, "flow_matching", steps=1, width=8, progress=False)
    with pytest.raises(UsageError, match="run folder"):
        fit(X, "consistency", steps=1, teacher=teacher, devices=2, progress=False)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_fit_and_is_named_with_the_way_to_go_on(tmp_path):
    killed = []

    def kill(fraction, text):
        if not killed and list(tmp_path.glob("run/checkpoint-*")):
            me = os.getpid()
            children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
            killed.append(os.kill(int(children[-1]), signal.SIGKILL))

    words = f"^process 1 was killed by signal 9; go on with: pushforward fit --resume {tmp_path}"
    with pytest.raises(Unavailable, match=words):
        options = {"width": 8, "batch": 16, "devices": 2, "save_seconds": 0.1}
        fit(X, "ddpm", steps=10**5, **options, out=tmp_path / "run", progress=kill)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", [["-m"], ["-m", "torch.distributed.run", "--nproc_per_node=2", "-m"]]
)
def test_the_command_line_starts_the_processes_or_finds_those_of_torchrun(tmp_path, launch):
    devices = ["--devices", "2"] if len(launch) == 1 else []
    words = [*launch, "pushforward", "fit", "moons", "--steps", "4", "--set", "width=8"]
    command = [sys.executable, *words, *devices, "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1  # the first process alone speaks
    assert checkpoint.load_checkpoint(tmp_path / "run").plain["config"]["devices"] == 2
