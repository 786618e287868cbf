"""Teachers, sources and latents through the public interface, with a family that does sums."""

import importlib
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch

from pushforward import checkpoint, cli
from pushforward.errors import DataError, UsageError
from pushforward.inference.loading import load
from pushforward.progress import Interrupted
from pushforward.training.fit import fit

TOY = '''
"""Sums that can be checked by hand."""
import torch
from pushforward.model import GenerativeModel, Likelihood, Recipe

class Toy(GenerativeModel):
    likelihood = Likelihood.NONE
    recipe = Recipe(steps=4, batch=8)
    def __init__(self, event):
        super().__init__()
        self.event_shape = event.shape
        self.w = torch.nn.Parameter(torch.zeros(event.shape))
        self.taught = []
    def sample(self, n, c=None):
        return self.w.expand(n, *self.event_shape)
    def loss(self, x, c=None):
        return {"square": (x - self.w).square().mean()}
    def diagnosis(self, x, c=None):
        return {"rows": float(len(x)), "broken": float("nan")}
    def encode(self, x, c=None):
        return 2 * x if c is None else 2 * x + c[:, 1:2]
    def decode(self, z, c=None):
        return z / 2 if c is None else (z - c[:, 1:2]) / 2
    def distil(self, teacher):
        self.taught = [float(teacher.w.sum())]
    def start_from(self, z):
        self.register_buffer("rows", z[:10].clone())
    def gather(self, x, c=None):
        self.seen = len(x)
    def translate(self, z, c=None, *, reverse: bool = False):
        return z - 1 if reverse else z + 1

def build(event, *, width: int = 8):
    return Toy(event)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A registered family that has every optional ability."""
    (tmp_path / "families").mkdir()
    (tmp_path / "families/toy.py").write_text(TOY)
    package = sys.modules["pushforward.families"]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "families")])
    yield "toy"
    sys.modules.pop("pushforward.families.toy", None)


def rows(n=60, d=2, seed=0, scale=1.0, shift=0.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


def run(*words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(w) for w in words])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def test_translation_maps_source_units_to_data_units_and_back(toy):
    """The map is z + 1, so x = (x0 - m0) / s0 * s1 + (m1 + s1) with the moments of both sets."""
    x, x0 = rows(shift=5.0, scale=3.0), rows(80, seed=1, shift=-2.0, scale=0.5)
    model = fit(x, toy, source=x0, progress=False)
    expected = (x0 - x0.mean(0)) / x0.std(0) * x[:].std(0) + x.mean(0) + x.std(0)
    got = model.translate(x0)
    # the data's transform is that of the rows trained on, nine tenths of all
    scale, mean = np.array(model.transform.parts[0].scale), np.array(model.transform.parts[0].mean)
    exact = (x0 - x0.mean(0)) / x0.std(0) * scale + mean + scale
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-5)
    assert np.abs(got - expected).max() < 1.0
    np.testing.assert_allclose(model.translate(got, reverse=True), x0, rtol=1e-4, atol=1e-4)


def test_a_transport_that_couples_nothing_needs_no_gather(toy, monkeypatch):
    toys = importlib.import_module(f"pushforward.families.{toy}")
    monkeypatch.delattr(toys.Toy, "gather")
    model = fit(rows(), toy, source=rows(seed=1), progress=False)
    assert model.translate(rows(seed=2)).shape == (60, 2)


def test_a_source_survives_saving_and_resuming(toy, tmp_path):
    x, x0, folder = rows(), rows(30, seed=1, shift=2.0), tmp_path / "r"
    np.save(tmp_path / "x0.npy", x0)
    model = fit(x, toy, source=str(tmp_path / "x0.npy"), out=folder, progress=False)
    again = load(folder)
    assert torch.equal(again.model.rows, model.model.rows) and len(again.model.rows) == 10
    np.testing.assert_array_equal(again.translate(x0), model.translate(x0))
    longer = fit(x, out=folder, resume=True, steps=6, progress=False)
    np.testing.assert_array_equal(longer.translate(x0), model.translate(x0))
    np.save(tmp_path / "x0.npy", x0 + 1)
    with pytest.raises(DataError, match="not the one"):
        fit(x, out=folder, resume=True, steps=8, progress=False)


@pytest.mark.parametrize("coupling", ["ot", "outlines"])
def test_a_run_on_pairs_from_pools_ends_alike_if_it_is_stopped_in_one(tmp_path, coupling):
    """Pools of 24 pairs last 6 batches of 4."""
    x, x0 = np.random.default_rng(0).integers(0, 9, (2, 60, 10, 10))
    recipe = {"steps": 9, "batch": 4, "width": 4, "depth": 2, "progress": False}
    how = {"coupling": coupling, "together": 24, "source": x0}
    fit(x, "flow_matching", out=tmp_path / "whole", **how, **recipe)
    sent = []

    def stop(fraction, text):
        if fraction > 0.2 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    with pytest.raises(Interrupted):
        fit(x, "flow_matching", out=tmp_path / "r", **how, **recipe | {"progress": stop})
    assert 0 < checkpoint.load_checkpoint(tmp_path / "r").plain["state"]["drawn"] < 6
    fit(x, source=x0, out=tmp_path / "r", resume=True, progress=False)
    ends = [checkpoint.load_checkpoint(tmp_path / name).tensors["model"] for name in ("whole", "r")]
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert ends[0]["pooled"][1] == 12  # 3 batches of the second pool


def test_a_source_in_memory_must_be_given_again(toy, tmp_path):
    x, x0 = rows(), rows(30, seed=1)
    fit(x, toy, source=x0, out=tmp_path / "r", progress=False)
    with pytest.raises(UsageError, match="source in memory"):
        fit(x, out=tmp_path / "r", resume=True, progress=False)
    fit(x, source=x0, out=tmp_path / "r", resume=True, steps=6, progress=False)


def test_a_student_sees_data_as_its_teacher_did(toy, tmp_path):
    x = rows(shift=3.0)
    teacher = fit(x, toy, out=tmp_path / "t", progress=False)
    student = fit(x + 1.0, toy, teacher=tmp_path / "t", out=tmp_path / "s", progress=False)
    assert student.transform == teacher.transform and student.schema == teacher.schema
    assert student.model.taught == [float(teacher.model.w.sum())]
    fit(x + 1.0, out=tmp_path / "s", resume=True, steps=9, progress=False)
    with pytest.raises(DataError, match="shape"):
        fit(rows(d=3), toy, teacher=teacher, progress=False)


def test_a_teacher_that_has_changed_is_refused_when_resuming(toy, tmp_path):
    fit(rows(), toy, out=tmp_path / "t", progress=False)
    fit(rows(), toy, teacher=tmp_path / "t", out=tmp_path / "s", progress=False)
    fit(rows(), out=tmp_path / "t", resume=True, steps=50, progress=False)
    with pytest.raises(DataError, match="teacher"):
        fit(rows(), out=tmp_path / "s", resume=True, steps=9, progress=False)


def test_a_family_without_the_ability_says_so():
    teacher = fit(rows(), "gaussian", progress=False)
    with pytest.raises(UsageError, match="gaussian cannot be distilled"):
        fit(rows(), "gaussian", teacher=teacher, progress=False)
    with pytest.raises(UsageError, match="gaussian cannot start from data"):
        fit(rows(), "gaussian", source=rows(), progress=False)
    for call in (teacher.encode, teacher.decode, teacher.reconstruct, teacher.translate):
        with pytest.raises(UsageError, match="gaussian"):
            call(rows())


def test_latents_are_of_standardised_data_and_decode_to_them(toy):
    x = rows(shift=4.0, scale=2.0)
    model = fit(x, toy, progress=False)
    affine = model.transform.parts[0]
    z = model.encode(x)
    np.testing.assert_allclose(z, 2 * (x - affine.mean) / affine.scale, atol=1e-5)
    np.testing.assert_allclose(model.decode(z), x, atol=1e-4)
    np.testing.assert_allclose(model.reconstruct(x), x, atol=1e-4)


def test_latents_of_a_conditional_model_need_the_condition(toy):
    x, y = rows(), np.repeat([1.0, 2.5, 3.5], 20)
    model = fit(x, toy, y, progress=False)
    with pytest.raises(DataError, match="condition"):
        model.encode(x)
    np.testing.assert_allclose(model.decode(model.encode(x, y), y), x, atol=1e-4)
    np.testing.assert_allclose(
        model.encode(x, y) - model.encode(x, 2.5),
        np.repeat((y - 2.5)[:, None] / y.std(), 2, axis=1),
        atol=1e-5,
    )


def test_diagnoses_are_noted_at_each_validation(toy):
    model = fit(rows(), toy, progress=False, steps=80)
    noted = [row for row in model.history if "rows" in row]
    assert len(noted) == 40 and all("broken" not in row for row in model.history)
    assert model.config["diagnoses"] == ["rows", "broken"]


def test_the_commands_write_what_the_methods_give(toy, tmp_path, capsys):
    x, folder = rows(shift=1.0), tmp_path / "r"
    for name, value in (("x", x), ("x0", rows(seed=3))):
        np.save(tmp_path / f"{name}.npy", value)
    words = ["fit", tmp_path / "x.npy", "-f", toy, "--source", tmp_path / "x0.npy", "-o", folder]
    assert run(*words, capsys=capsys)[0] == 0
    model, z = load(folder), tmp_path / "z.npy"
    for command, given, out in (
        ("encode", "x.npy", z),
        ("decode", "z.npy", tmp_path / "y.npy"),
        ("reconstruct", "x.npy", tmp_path / "same.npy"),
        ("translate", "x0.npy", tmp_path / "moved.npy"),
    ):
        code, text, err = run(command, folder, tmp_path / given, "-o", out, "--json", capsys=capsys)
        assert code == 0 and json.loads(text)["rows"] == 60, err
    np.testing.assert_array_equal(np.load(z), model.encode(x))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x, atol=1e-4)
    np.testing.assert_array_equal(np.load(tmp_path / "moved.npy"), model.translate(rows(seed=3)))
    words = ["translate", folder, tmp_path / "moved.npy", "--reverse", "-o", tmp_path / "b.npy"]
    assert run(*words, capsys=capsys)[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), rows(seed=3), atol=1e-4)
