"""Where things run: one device's generators, refused devices, and the precision of a fit."""

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.devices import choose_device
from pushforward.errors import Unavailable, UsageError
from pushforward.rng import fork_rng, seeded_rng

TINY = {"steps": 3, "width": 8, "batch": 16, "progress": False}


@pytest.fixture
def forks(monkeypatch):
    """The devices that torch is asked to fork; there need be none of them."""
    seen = []
    real = torch.random.fork_rng

    def fork_rng(devices=None, **options):
        seen.append(devices)
        return real(devices=[], **options)

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    return seen


def test_a_fit_its_draws_and_its_scores_leave_other_devices_alone(forks):
    """None asks for every GPU that torch sees."""
    model = pf.fit(np.random.default_rng(0).normal(size=(60, 2)), "vae", device="cpu", **TINY)
    model.sample(3, seed=0), model.log_prob(np.zeros((2, 2)))
    assert len(forks) > 2 and all(devices == [] for devices in forks)


def test_only_the_device_in_use_is_forked(forks):
    with fork_rng(torch.device("cuda", 1)), fork_rng(torch.device("cpu")), fork_rng():
        assert forks == [[torch.device("cuda", 1)], [], []]


def test_a_fork_repeats_its_numbers_and_gives_the_callers_back():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draws = []
    for seed in (1, 1, None, None):
        with seeded_rng(seed, torch.device("cpu")):
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[2], draws[3])
    assert torch.equal(torch.rand(3), expected)


def test_a_device_without_float64_is_refused():
    with pytest.raises(Unavailable, match="float64"):
        choose_device("mps")


def test_mixed_precision_is_asked_for_and_kept(tmp_path):
    """Weights differ; the run goes on in the precision that it began with."""
    x, weights = np.random.default_rng(0).normal(size=(60, 2)), {}
    for precision in (None, "float32", "bfloat16"):
        model = pf.fit(x, "vae", precision=precision, out=tmp_path / str(precision), **TINY)
        weights[precision] = torch.cat([v.flatten() for v in model.model.state_dict().values()])
        assert model.config["precision"] == precision or precision is None
    assert torch.equal(weights[None], weights["float32"])
    assert not torch.equal(weights[None], weights["bfloat16"])
    with pytest.raises(UsageError, match="keeps its precision"):
        pf.fit(x, out=tmp_path / "bfloat16", resume=True, precision="float32", progress=False)
    with pytest.raises(UsageError, match="precision is 'half'"):
        pf.fit(x, "vae", precision="half", **TINY)
