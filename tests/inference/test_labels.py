"""What the commands write keeps what is known: classes, captions, and the names of pictures."""

import json

import numpy as np
import pytest
from PIL import Image

import pushforward as pf
from pushforward import cli
from pushforward.data import reading, writing
from pushforward.errors import UsageError

TINY = ["--steps", 2, "--set", "width=4", "--set", "batch=8", "--quiet"]


def run(*words, capsys, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(w) for w in words])
    out = capsys.readouterr()
    assert stop.value.code == code, out.err
    return out.out, out.err


def pixels(path):
    return np.asarray(Image.open(path))


def test_shapes_that_were_written_are_fitted_by_their_captions(tmp_path, capsys):
    run("data", "shapes", "-n", 80, "-o", tmp_path / "sh", capsys=capsys)
    shapes = pf.datasets.load("shapes", 80)
    found = reading.read_dataset(tmp_path / "sh", condition="caption")
    said = {x.tobytes(): text for x, text in zip(shapes.x, shapes.extra["caption"], strict=True)}
    assert all(said[x.astype(np.uint8).tobytes()] == y for x, y in zip(found.x, found.y))
    words = ["check", tmp_path / "sh", "--condition", "caption", "--size", 8, "--json"]
    facts = json.loads(run(*words, capsys=capsys)[0])["pictures"]
    assert facts["pictures"] == 80 and facts["size"] == [8, 8] and facts["sizes"] == [[32, 32]] * 2
    counts = facts["conditions"]["label"]["classes"]
    assert counts == {k: int((shapes.y == k).sum()) for k in ("circle", "square", "triangle")}
    longest = max(map(len, shapes.extra["caption"]))
    assert facts["conditions"]["caption"]["longest"] == longest
    words = ["fit", tmp_path / "sh", "--size", 8, "--condition", "caption", "--text", "words"]
    run(*words, *TINY, "-o", tmp_path / "r", capsys=capsys)
    draw = ["sample", tmp_path / "r", "--steps", 2, "--seed", 0]
    two = ["--condition", "a red circle", "--condition", "a blue square"]
    run(*draw, *two, "-n", 4, "-o", tmp_path / "drawn", capsys=capsys)
    again = reading.read_dataset(tmp_path / "drawn", condition="caption")
    assert again.y.tolist() == ["a red circle"] * 2 + ["a blue square"] * 2
    run(*draw, "-n", 3, "-o", tmp_path / "any.npz", capsys=capsys)  # drawn from those seen
    with np.load(tmp_path / "any.npz") as held:
        assert set(held["caption"]) <= set(shapes.extra["caption"]) and len(held["y"]) == 3


def test_digits_that_were_drawn_are_evaluated_by_their_classes(tmp_path, capsys):
    """A kernel density of a bandwidth of a thousandth redraws what it saw: nearly all as asked."""
    run("data", "digits", "-n", 300, "-o", tmp_path / "dg", capsys=capsys)
    digits = pf.datasets.load("digits", 300)
    written = reading.read_dataset(tmp_path / "dg", condition="label")
    assert sorted(written.y) == sorted(map(str, digits.y)) and written.x.max() == 255
    words = ["fit", tmp_path / "dg", "--family", "kde", "--condition", "label", "--quiet"]
    run(*words, "--set", "bandwidth=0.001", "-o", tmp_path / "r", capsys=capsys)
    words = ["sample", tmp_path / "r", "-n", 200, "--seed", 0, "-o", tmp_path / "drawn"]
    run(*words, *(w for k in range(10) for w in ("--condition", k)), capsys=capsys)
    folders = sorted(p.name for p in (tmp_path / "drawn").iterdir())
    assert folders == list("0123456789")
    assert all(len(list((tmp_path / "drawn" / k).iterdir())) == 20 for k in folders)
    for real in (tmp_path / "dg", "digits"):  # whose column is called digit
        words = ["evaluate", real, tmp_path / "drawn", "--condition", "label", "--json"]
        metrics = ["--metrics", "label_accuracy"]
        found = json.loads(run(*words, *metrics, "--features", "classifier", capsys=capsys)[0])
        assert found["label_accuracy"]["value"] > 0.9, found


def test_edited_folders_keep_names_and_say_what_they_became(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 256, (6, 6, 6), dtype=np.uint8)
    names = [f"{'cat' if i < 3 else 'dog'}/deep/p{i}.png" for i in range(6)]
    writing.write_samples(tmp_path / "zoo", x, names=names)
    fit = ["fit", tmp_path / "zoo", "--condition", "label", *TINY, "-o", tmp_path / "r"]
    run(*fit, capsys=capsys)
    edit = ["edit", tmp_path / "r", tmp_path / "zoo", "--steps", 2]
    told, _ = run(*edit, "--strength", 0, "-o", tmp_path / "same", capsys=capsys)
    assert told.startswith("6 images: ")
    assert all((pixels(tmp_path / "same" / n) == picture).all() for n, picture in zip(names, x))
    assert not (tmp_path / "same" / "captions.csv").exists()  # the subfolders say it all
    run(*edit, "--condition", "dog", "-o", tmp_path / "dogs", capsys=capsys)
    assert all((tmp_path / "dogs" / n).is_file() for n in names)
    assert reading.read_dataset(tmp_path / "dogs", condition="label").y.tolist() == ["dog"] * 6
    back = ["reconstruct", tmp_path / "r", tmp_path / "zoo", "-o", tmp_path / "back.npz"]
    run(*back, capsys=capsys)
    with np.load(tmp_path / "back.npz") as held:
        assert held["y"].tolist() == ["cat"] * 3 + ["dog"] * 3
    one = ["edit", tmp_path / "r", tmp_path / "zoo" / names[0], "-o", tmp_path / "one"]
    _, err = run(*one, capsys=capsys, code=65)
    assert "'label', one of cat, dog: name it (--condition" in err
    run(*one, "--condition", "cat", capsys=capsys)
    assert (tmp_path / "one" / "cat" / "0.png").is_file()
    _, err = run(*one, "--condition", "cat", capsys=capsys, code=73)
    assert "folder already" in err and len(list((tmp_path / "one").rglob("*.png"))) == 1


def test_translated_folders_keep_names_but_back_at_the_source_no_class(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 6), dtype=np.uint8)
    for name, pictures in zip(("from", "to"), x):
        writing.write_samples(
            tmp_path / name, pictures, names=[f"a/{name}{i}.png" for i in range(6)]
        )
    fit = ["fit", tmp_path / "to", "--source", tmp_path / "from", "--condition", "label", *TINY]
    run(*fit, "-f", "flow-matching", "-o", tmp_path / "r", capsys=capsys)
    for source, more in (("from", []), ("to", ["--reverse"])):
        words = ["translate", tmp_path / "r", tmp_path / source, *more, "--condition", "a"]
        run(*words, "--set", "tolerance=0.1", "-o", tmp_path / f"{source}2", capsys=capsys)
        made = sorted(p.name for p in (tmp_path / f"{source}2" / "a").iterdir())
        assert made == [f"{source}{i}.png" for i in range(6)]


def test_in_python_labels_come_with_the_samples_they_belong_to():
    """Two classes far apart: each datum lies at the label that it is given with."""
    y = np.repeat([0, 1], 50)
    x = (10.0 * y)[:, None] + np.random.default_rng(0).standard_normal((100, 2))
    model = pf.fit(x, "gaussian", y=y, progress=False)
    drawn, extra = model.labelled(40, seed=0)
    assert np.array_equal(extra["label"], (drawn[:, 0] > 5).astype(int)) and len(extra) == 1
    assert set(extra["label"]) == {0, 1}
    assert np.array_equal(drawn, model.sample(40, seed=0))
    assert (
        model.preprocessor.label_columns(1, 3)["label"].tolist() == [1, 1, 1]
        and model.preprocessor.label_columns(None, 3) == {}
    )
    assert pf.fit(x, "gaussian", progress=False).labelled(3, seed=0)[1] == {}


def test_spelled_captions_that_differ_cannot_be_mixed():
    """The bytes between those of two words spell no word; one caption is mixed with itself."""
    x = np.random.default_rng(0).standard_normal((60, 2))
    said = np.resize(["to the left", "to the right"], 60)
    small = {"steps": 2, "width": 8, "batch": 16, "progress": False}
    model = pf.fit(x, "flow_matching", y=said, text="bytes", **small)
    ends, loose = (x[:1], x[1:2]), {"tolerance": 0.1}
    with pytest.raises(UsageError, match="cannot be mixed: give one for both"):
        model.interpolate(*ends, 3, ("to the left", "to the right"), **loose)
    one = model.interpolate(*ends, 3, "to the left", **loose)
    both = model.interpolate(*ends, 3, ("to the left", "to the left"), **loose)
    assert np.array_equal(one, both)
    words = pf.fit(x, "flow_matching", y=said, text="words", **small)
    assert len(words.interpolate(*ends, 3, ("to the left", "to the right"), **loose)) == 3
