"""The monitor of a fit: what it records, and that the weights are the same."""

import json
import warnings

import numpy as np
import pytest
import torch

from pushforward.errors import DataError, UsageError
from pushforward.inference.loading import load
from pushforward.metrics import frechet_distance
from pushforward.plots import figures as watched
from pushforward.plots.figures import plot_run
from pushforward.training import monitor
from pushforward.training.fit import fit

ROWS, IMAGES = np.arange(150.0).reshape(50, 3), np.random.default_rng(0).random((50, 4, 4))
QUICK = {"steps": 6, "batch": 16, "progress": False}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(monitor, "ROWS", 20)


@pytest.fixture
def images():
    """Two kinds of 4 x 4 images of 17 levels, and which is which."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    x = rng.integers(0, 9, (200, 4, 4)) + 8 * y[:, None, None]
    return x, np.array(["dark", "light"])[y]


def weights(model):
    return torch.cat([v.flatten().double() for v in model.model.state_dict().values()])


@pytest.mark.parametrize("options", [{}, {"ema": 0.0}])
@pytest.mark.parametrize("family", ["flow_matching", "ddpm", "vae", "wgan_gp", "autoregressive"])
def test_the_weights_are_bit_for_bit_those_of_a_run_without_a_monitor(images, family, options):
    x, _ = images
    alone = fit(x, family, **QUICK, **options)
    state = torch.get_rng_state()
    seen = fit(x, family, **QUICK, **options, watch=3)
    assert torch.equal(weights(alone), weights(seen))
    assert torch.equal(state, torch.get_rng_state())
    assert len(watched.monitored_steps(seen.history)) == 3 and not watched.monitored_steps(
        alone.history
    )


def test_the_distance_is_that_of_the_drawn_images_to_those_held_out(images):
    """Of pixels from 0 to 1, by hand, from the weights that the run ends with."""
    x, _ = images
    model = fit(x, "wgan_gp", **QUICK, watch=1)
    (line,) = watched.monitored_steps(model.history)
    held = x[np.random.default_rng(0).permutation(200)[:20]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = frechet_distance(held / 16, model.draw(20, seed=0).clip(0, 16) / 16)
    assert model.config["watched"]["metric"] == "FD-raw"  # 20 images of 16 pixels
    assert line["distance"] == pytest.approx(truth, rel=1e-9)


def test_classes_are_judged_by_a_classifier_with_its_floor(images):
    x, y = images
    model = fit(x, "flow_matching", y, **QUICK, watch=2)
    facts = model.config["watched"]
    assert facts["metric"] == "KID-classifier"  # 20 images in 64 features
    assert facts["rows"] == 20 and "perceptron" in facts["features"]
    first, last = watched.monitored_steps(model.history)
    assert abs(facts["floor"]) < first["distance"]


def test_a_resumed_run_is_monitored_on_at_the_moments_of_its_new_length(images, tmp_path):
    x, _ = images
    first = fit(x, "flow_matching", **QUICK | {"steps": 2}, watch=3, out=tmp_path / "part")
    assert [line["step"] for line in watched.monitored_steps(first.history)] == [1, 2]
    part = fit(x, out=tmp_path / "part", resume=True, steps=6, progress=False)
    assert [line["step"] for line in watched.monitored_steps(part.history)] == [1, 2, 4, 6]
    with pytest.raises(UsageError, match="keeps its watch"):
        fit(x, out=tmp_path / "part", resume=True, watch=5, progress=False)


def test_the_images_come_back_from_the_run_folder_and_are_drawn(images, tmp_path):
    x, _ = images
    fit(x, "flow_matching", **QUICK, watch=2, out=tmp_path / "run")
    model = load(tmp_path / "run")
    sheet = watched.decode_sheet(watched.monitored_steps(model.history)[-1]["pictures"])
    assert sheet.shape == (16, 16)  # sixteen images of 4 x 4
    seen = monitor.png_contact_sheet(
        monitor.extractors.fit_pixel_range(x.reshape(200, -1) * 1.0, (4, 4)), x[:16] * 1.0
    )
    np.testing.assert_array_equal(watched.decode_sheet(seen)[:4, 4:8], np.round(x[1] / 16 * 255))
    assert plot_run(model, tmp_path / "run.png").stat().st_size > 10_000


def test_the_command_line_monitors_and_prints_no_images(images, tmp_path, capsys):
    from pushforward import cli

    np.save(tmp_path / "x.npy", images[0])
    words = (
        f"fit {tmp_path / 'x.npy'} -o {tmp_path / 'run'} --steps 4 --set batch=16 --watch 2 --json"
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    last = json.loads(capsys.readouterr().out)["last"]
    assert stop.value.code == 0 and "distance" in last and "pictures" not in last


@pytest.mark.parametrize(
    ("x", "family", "watch", "error", "words"),
    [
        (ROWS, "flow_matching", 2, UsageError, "for images"),
        (IMAGES[:30], "flow_matching", 2, DataError, "held out"),
        (IMAGES, "flow_matching", -1, UsageError, "watch is -1"),
        (IMAGES, "flow_matching", 41, UsageError, "watch is 41; .* 40 times at most"),
        (IMAGES, "gaussian", 2, UsageError, "fitted in one pass"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_written(
    x, family, watch, error, words, tmp_path
):
    with pytest.raises(error, match=words):
        fit(x, family, progress=False, watch=watch, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
