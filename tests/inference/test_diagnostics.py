"""Alarms ring for states that are known to be bad, and for no others."""

import numpy as np
import pytest
import torch

from pushforward.inference.diagnostics import diagnose_fit
from pushforward.inference.loading import load
from pushforward.theory.exact.targets import gaussian_ring
from pushforward.training.fit import fit


def test_a_generator_of_few_modes_is_found_out(monkeypatch):
    """A GAN that cannot learn (no steps to speak of) reaches one place of the ring."""
    x = gaussian_ring(8, 1.0, 0.01).sample(1000).numpy()
    model = fit(x, "gan", steps=40, lr=1e-9, progress=False)
    assert any("mode collapse" in text for text in model.alarms)


def test_latents_that_tell_nothing_are_found_out():
    """With a rate that costs a hundred times, no latent pays for itself."""
    x = np.random.default_rng(0).standard_normal((400, 3))
    model = fit(x, "vae", steps=400, beta=100.0, anneal=0.0, progress=False)
    assert any("posterior collapse" in text for text in model.alarms)


@pytest.mark.parametrize("error", [0.002, 0.3])
def test_a_flattered_likelihood_is_found_out(error):
    rows = [{"step": 1, "solver_error": 5.0}, {"step": 2, "solver_error": error}, {"step": 3}]
    assert [text.split(":")[0] for text in diagnose_fit(rows, {})] == ["solver error"] * (
        error > 0.01
    )


@pytest.mark.parametrize("budget", [{"minutes": 0.01}, {"steps": 5}])
def test_a_fit_of_few_steps_says_how_little_it_did(budget, tmp_path):
    x = gaussian_ring(8, 1.0, 0.1).sample(2000).numpy()
    model = fit(x, "flow_matching", out=tmp_path, progress=False, **budget)
    (text,) = model.alarms
    count = model.config["steps"]
    assert text.startswith(f"far from trained: {count:,} of the usual 4,000 steps; give it more")
    assert text.endswith(*budget)
    assert load(tmp_path).alarms == [text]


def test_a_run_from_before_usual_steps_were_noted_is_judged_by_its_minutes():
    past = {"recipe": {"steps": 1000}, "steps": 100, "ended": "complete"}
    assert list(diagnose_fit([], past)) == []
    (text,) = diagnose_fit([], past | {"minutes": 1.0})
    assert text == "far from trained: 100 of the usual 1,000 steps; give it more minutes"


def test_a_healthy_fit_is_left_in_peace():
    torch.manual_seed(0)
    x = gaussian_ring(8, 1.0, 0.1).sample(1000).numpy()
    model = fit(x, "gaussian_mixture", components=8, progress=False)
    assert model.alarms == []
    rows = [{"mode_coverage": 0.97, "active_units": 2.0, "collapsed_units": 1.0}]
    assert list(diagnose_fit(rows, {})) == []
