"""The command line: what a user can do, and one line with the right code for what goes wrong."""

import hashlib
import inspect
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from pushforward import cli, families
from pushforward.cli.options import expand_groups
from pushforward.cli.parsing import parse_set_options
from pushforward.errors import NumericalError
from pushforward.inference.loading import load
from pushforward.training import validation
from pushforward.training.fit import fit

QUICK = ["--steps", "3", "--set", "width=8", "--set", "batch=32"]


def run(*words, capsys=None):
    """Exit code, stdout and stderr of a command, in this process."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(w) for w in words])
    out = capsys.readouterr() if capsys else None
    return stop.value.code, out.out if out else "", out.err if out else ""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with a continuous, an integer and a class column."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "people.csv"
    kind = rng.integers(0, 2, 200)
    rows = ["height,age,kind"]
    rows += [
        f"{170 + 9 * rng.standard_normal():.2f},{rng.integers(18, 80)},{'ab'[k]}" for k in kind
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def fitted(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "people"
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", str(table), "--condition", "kind", "-o", str(folder), *QUICK])
    assert stop.value.code == 0
    return folder


def test_samples_come_back_in_the_schema_that_went_in(fitted, tmp_path, capsys):
    out = tmp_path / "more.csv"
    code, _, _ = run(
        "sample", fitted, "-n", 50, "-o", out, "--condition", "a", "--seed", 1, capsys=capsys
    )
    assert code == 0
    got = pyarrow.csv.read_csv(out)
    assert got.column_names == ["height", "age", "kind"]
    assert got["kind"].to_pylist() == ["a"] * 50
    assert str(got.schema.field("age").type) == "int64" and len(got) == 50
    age = got["age"].to_numpy()
    assert age.min() >= 18 and age.max() <= 79


def test_the_same_seed_writes_the_same_file(fitted, tmp_path, capsys):
    paths = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for path in paths:
        assert run("sample", fitted, "-n", 20, "-o", path, "--seed", 5, capsys=capsys)[0] == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_scores_carry_their_kind(fitted, table, tmp_path, capsys):
    out = tmp_path / "scores.parquet"
    code, text, _ = run("score", fitted, table, "-o", out, "--json", capsys=capsys)
    result = json.loads(text)
    assert code == 0 and result["kind"] == "lower bound" and result["unit"] == "nats"
    values = pyarrow.parquet.read_table(out)["log_prob"].to_numpy()
    assert len(values) == 200 and result["mean"] == pytest.approx(values.mean())


def test_every_command_speaks_json(fitted, table, tmp_path, capsys):
    samples, figure = tmp_path / "s.csv", tmp_path / "f.png"
    moons = tmp_path / "moons.npy"
    for words in (
        ["families"],
        ["families", "wgan-gp"],
        ["families", "gaussian"],
        ["data"],
        ["data", "moons", "-n", 100, "-o", moons],
        ["check", table, "--condition", "kind"],
        ["sample", fitted, "-n", 60, "-o", samples, "--condition", "b"],
        ["plot", fitted, "-o", figure],
        ["plot", fitted, "-o", figure, "--data", table],
        ["evaluate", "moons", moons, "--metrics", "energy,sliced_w2"],
    ):
        code, text, err = run(*words, "--json", capsys=capsys)
        assert code == 0, (words, err)
        assert isinstance(json.loads(text), dict)
    assert figure.stat().st_size > 10_000


def test_a_check_lists_the_columns_and_proposes_bounds_of_positive_ones(table, capsys):
    code, text, _ = run("check", table, "--condition", "kind", capsys=capsys)
    assert code == 0
    first, second, third, note, last = text.strip().splitlines()
    assert first.startswith("height: double, 1") and second.startswith("age: int64, 18 to ")
    assert third == "kind: string" and last.endswith("nothing stands in the way")
    assert "1 column of positive numbers" in note and "--bounds 'height=0:'" in note


def test_a_family_is_described_with_what_each_of_its_options_means(capsys):
    for name in families.names():
        code, text, _ = run("families", name, "--json", capsys=capsys)
        facts = json.loads(text)
        assert code == 0 and facts["summary"]
        assert {o["name"] for o in facts["options"]} == set(families.family_options(name))
        assert all(o["meaning"] for o in facts["options"])


def test_compare_writes_a_report_and_refuses_to_overwrite_it(tmp_path, capsys):
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).standard_normal((120, 2)))
    words = ["compare", data, "--families", "gaussian,kde", "-o", tmp_path / "out", "--quiet"]
    code, text, err = run(*words, capsys=capsys)
    assert code == 0, err
    assert "kde" in text and (tmp_path / "out/report.html").stat().st_size > 10_000
    assert run(*words, capsys=capsys)[0] == 73
    assert run(*words, "--overwrite", capsys=capsys)[0] == 0


def test_a_finished_run_can_be_resumed_with_more_steps(table, tmp_path, capsys):
    folder = tmp_path / "r"
    assert run("fit", table, "--condition", "kind", "-o", folder, *QUICK, capsys=capsys)[0] == 0
    code, text, _ = run("fit", "--resume", folder, "--steps", 6, "--json", capsys=capsys)
    said = json.loads(text)
    assert code == 0 and said["last"]["step"] == 6
    assert said["flops"] == load(folder).flops > said["parameters"]


def test_a_finished_run_can_be_resumed_with_more_time(table, tmp_path, capsys):
    folder = tmp_path / "r"
    assert run("fit", table, "--condition", "kind", "-o", folder, *QUICK, capsys=capsys)[0] == 0
    spent = load(folder).config["seconds"]
    minutes = (spent + 1.0) / 60
    words = ["fit", "--resume", folder, "--minutes", minutes, "--json"]
    code, text, _ = run(*words, capsys=capsys)
    result = json.loads(text)
    assert code == 0 and result["steps"] > 3 and result["seconds"] > spent
    assert result["seconds"] < 60 * minutes + 5


def test_more_steps_change_the_weights_that_are_used(table, tmp_path, capsys):
    folder, words = tmp_path / "r", ["--set", "width=8", "--set", "batch=32", "--set", "lr=0.002"]
    words += ["--condition", "kind", "--steps", "20"]
    assert run("fit", table, "-o", folder, *words, capsys=capsys)[0] == 0
    before = load(folder).model.state_dict()
    assert run("fit", "--resume", folder, "--steps", 600, capsys=capsys)[0] == 0
    after = load(folder).model.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)


def test_a_resumed_run_takes_no_other_options_and_no_other_columns(table, tmp_path, capsys):
    folder, other = tmp_path / "r", tmp_path / "other.csv"
    words = ["--condition", "kind", "-o", folder]
    assert run("fit", table, *words, *QUICK, capsys=capsys)[0] == 0
    other.write_text(table.read_text().replace("height", "length", 1))
    assert run("fit", other, "--resume", folder, capsys=capsys)[0] == 65
    assert run("fit", "--resume", folder, "--set", "lr=5", capsys=capsys)[0] == 2
    assert load(folder).schema.columns[0].name == "height"


def test_samples_of_a_conditional_fit_can_be_scored_and_evaluated(fitted, table, tmp_path, capsys):
    out = tmp_path / "s.csv"
    assert run("sample", fitted, "-n", 200, "-o", out, "--seed", 0, capsys=capsys)[0] == 0
    drawn, real = pyarrow.csv.read_csv(out), pyarrow.csv.read_csv(table)
    assert drawn.schema == real.schema
    share = np.mean(np.array(drawn["kind"].to_pylist()) == "a")
    expected = np.mean(np.array(real["kind"].to_pylist()) == "a")
    assert abs(share - expected) < 4 * np.sqrt(0.25 / 200)
    code, text, err = run("score", fitted, out, "--json", capsys=capsys)
    assert code == 0 and json.loads(text)["rows"] == 200, err
    words = ["evaluate", table, out, "--condition", "kind", "--metrics", "energy,label_accuracy"]
    code, text, err = run(*words, "--json", capsys=capsys)
    assert code == 0 and set(json.loads(text)) == {"energy", "label_accuracy"}, err


def test_the_kind_of_a_score_follows_the_number(tmp_path, capsys):
    folder = tmp_path / "r"
    words = ["fit", "moons", "-f", "ddpm", "-o", folder, *QUICK, "--set", "chain=20"]
    assert run(*words, capsys=capsys)[0] == 0
    points = tmp_path / "p.npy"
    np.save(points, np.random.default_rng(0).standard_normal((5, 2)))
    for extra, kind in (
        ([], "ode"),
        (["--set", "bound=true"], "lower bound"),
        (["--bound"], "lower bound"),
        (["--set", "bound=false"], "ode"),
    ):
        code, text, err = run("score", folder, points, *extra, "--json", capsys=capsys)
        assert code == 0 and json.loads(text)["kind"] == kind, err
    assert run("score", folder, points, "--bound", "--set", "terms=0", capsys=capsys)[0] == 2
    assert run("score", folder, points, "--set", "bound=maybe", capsys=capsys)[0] == 2


def test_a_comparison_in_which_all_fail_says_so(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise NumericalError("the loss is not finite")

    monkeypatch.setattr("pushforward.comparison.compare.fit", fail)
    words = ["compare", "moons", "--families", "vae,gan", "-o", tmp_path / "out", "--quiet"]
    code, text, err = run(*words, capsys=capsys)
    assert code not in (0, 70), err
    assert err.splitlines()[-1].startswith("pushforward: error: every family failed")


def test_json_holds_no_numbers_that_json_lacks(tmp_path, capsys):
    data, far = tmp_path / "x.npy", tmp_path / "far.npy"
    np.save(data, np.random.default_rng(0).integers(0, 9, (90, 2)))
    np.save(far, np.full((2, 2), 99))
    assert run("fit", data, "-f", "histogram", "-o", tmp_path / "r", capsys=capsys)[0] == 0
    code, text, err = run("score", tmp_path / "r", far, "--json", capsys=capsys)
    assert code == 0, err
    assert "Infinity" not in text and "NaN" not in text and "mean" in json.loads(text)


def test_an_ascii_terminal_gets_an_answer(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pushforward", "data", "moons"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )
    assert done.returncode == 0 and done.stdout.isascii()
    shown = "import sys; from pushforward import cli; from pushforward.cli import sample;"
    shown += "cli.app.command('say')(lambda: print('\u00b1 \u221e')); cli.main(['say'])"
    done = subprocess.run(
        [sys.executable, "-c", shown],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )
    assert done.returncode == 0 and done.stdout.strip() == b"? ?", done.stderr


def test_a_run_that_stops_early_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(validation, "PATIENCE", 1)
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).standard_normal((60, 2)))
    words = ["fit", data, "-f", "normalizing_flow", "-o", tmp_path / "r", "--steps", 400]
    words += ["--set", "lr=0.05"]
    code, text, err = run(*words, "--json", capsys=capsys)
    result = json.loads(text)
    assert code == 0 and result["steps"] < 400 and "stopped early" in result["ended"]
    assert load(tmp_path / "r").config["ended"] == result["ended"]


def test_adams_rates_can_be_set(tmp_path, capsys):
    words = ["fit", "moons", "-o", tmp_path / "r", *QUICK, "--set", "betas=0.8,0.95"]
    assert run(*words, capsys=capsys)[0] == 0
    assert load(tmp_path / "r").config["recipe"]["betas"] == [0.8, 0.95]


def test_classes_that_look_like_literals_are_classes(tmp_path, capsys):
    table, folder, out = tmp_path / "t.csv", tmp_path / "r", tmp_path / "s.csv"
    rows = [f"{k % 2 * 50 + k / 100},{('none', '007')[k % 2]}" for k in range(100)]
    table.write_text("\n".join(["a,k", *rows]) + "\n")
    words = ["fit", table, "-f", "gaussian", "--condition", "k", "-o", folder]
    assert run(*words, capsys=capsys)[0] == 0
    for word, low in (("none", -5), ("007", 45)):
        words = ["sample", folder, "-n", 20, "-o", out, "--condition", word]
        code, _, err = run(*words, capsys=capsys)
        assert code == 0, err
        drawn = np.genfromtxt(out, skip_header=1, delimiter=",", usecols=0)
        assert (drawn > low).all() and (drawn < low + 12).all()


@pytest.mark.parametrize("family", ["gaussian", "kde", "histogram", "gaussian_mixture"])
def test_a_closed_form_run_can_be_resumed(family, table, tmp_path, capsys):
    words = ["fit", table, "-f", family, "-o", tmp_path / "r", "--condition", "kind"]
    assert run(*words, capsys=capsys)[0] == 0
    assert run("fit", "--resume", tmp_path / "r", capsys=capsys)[0] == 0


def test_progress_stays_out_of_pipes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pushforward", "fit", "moons", "-o", tmp_path / "r", *QUICK],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == "" and "run folder" in done.stdout


def test_debug_shows_the_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pushforward", "--debug", "score", tmp_path / "no", "moons"],
        capture_output=True,
        text=True,
    )
    assert "Traceback" in done.stderr and done.returncode != 0


def make_files(folder: Path) -> None:
    """Files that cannot be used, each for one reason."""
    rng = np.random.default_rng(0)
    good = rng.standard_normal((60, 2))
    lines = [f"{a:.3f},{b:.3f}" for a, b in good]
    texts = {
        "empty.csv": "",
        "header.csv": "a,b\n",
        "text.csv": "a,b\n" + "\n".join([*lines[:5], "1.0,red", *lines[5:]]),
        "missing.csv": "a,b\n" + "\n".join([*lines[:5], "1.0,", *lines[5:]]),
        "nan.csv": "a,b\n" + "\n".join([*lines[:5], "nan,1", *lines[5:]]),
        "infinite.csv": "a,b\n" + "\n".join([*lines[:5], "inf,1", *lines[5:]]),
        "huge.csv": "a,b\n" + "\n".join([*lines[:5], "1e999,1", *lines[5:]]),
        "constant.csv": "a,b\n" + "\n".join(f"{a:.3f},7" for a, _ in good),
        "ragged.csv": "a,b\n" + "\n".join([*lines[:5], "1,2,3", *lines[5:]]),
        "twice.csv": "a,a\n" + "\n".join(lines),
        "headless.csv": "\n".join(lines),
        "one.csv": "a,b\n1,2\n",
        "few.csv": "a,b\n" + "\n".join(lines[:38]),
        "words.txt": "hello",
        "page.csv": "<html><body>404</body></html>",
        "data.xlsx": "not a table",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "utf16.csv").write_text("a,b\n1,2\n", encoding="utf-16")
    (folder / "latin.csv").write_bytes(b"a,b\xe9\n1,2\n")
    (folder / "nul.csv").write_bytes(b"a,b\n1,\x002\n")
    (folder / "junk.parquet").write_bytes(b"PAR1" + rng.bytes(200) + b"PAR1")
    (folder / "junk.npy").write_bytes(rng.bytes(300))
    (folder / "pickle.npy").write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94K\x01a.")
    # only a pickle can hold objects: what reading must refuse
    np.save(folder / "object.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    np.save(folder / "complex.npy", good + 1j)
    np.save(folder / "strings.npy", np.array(["a", "b"]))
    np.save(folder / "zero.npy", np.zeros((0, 2)))
    np.save(folder / "scalar.npy", np.float64(3.0))
    bad = good.copy()
    bad[7, 1] = np.nan
    np.save(folder / "nan.npy", bad)
    whole = (folder / "complex.npy").read_bytes()
    (folder / "short.npy").write_bytes(whole[:300])
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, "
    header += b"'shape': (1000000000000, 4), }"
    (folder / "vast.npy").write_bytes(header + b" " * (127 - len(header)) + b"\n")
    np.savez(folder / "two.npz", a=good, b=good)
    (folder / "junk.npz").write_bytes(b"PK\x03\x04" + rng.bytes(50))
    (folder / "folder.csv").mkdir()
    (folder / "good.csv").write_text("a,b\n" + "\n".join(lines))
    (folder / "other.csv").write_text("a,c\n" + "\n".join(lines))
    (folder / "norun").mkdir()


DATA_FILES = {  # file: exit code
    "empty.csv": 65, "header.csv": 65, "text.csv": 65, "missing.csv": 65, "nan.csv": 65,
    "infinite.csv": 65, "huge.csv": 65, "constant.csv": 65, "ragged.csv": 65, "twice.csv": 65,
    "headless.csv": 65, "one.csv": 65, "words.txt": 2, "page.csv": 65, "data.xlsx": 2,
    "utf16.csv": 65, "latin.csv": 65, "nul.csv": 65, "junk.parquet": 65, "junk.npy": 65,
    "pickle.npy": 77, "object.npy": 77, "complex.npy": 65, "strings.npy": 65, "zero.npy": 65,
    "scalar.npy": 65, "nan.npy": 65, "short.npy": 65, "vast.npy": 77, "two.npz": 65,
    "junk.npz": 65, "folder.csv": 65, "absent.csv": 66, "absent.parquet": 66,
}  # fmt: skip

ARGUMENTS = [  # (words, exit code); @ is the folder of files, RUN a run
    (["fit", "@/good.csv"], 2),
    (["fit", "-o", "@/new"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--resume", "@/new"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--family", "flow_machine"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--steps", "0"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--steps", "ten"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--minutes", "0"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--minutes", "nan"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--steps", "3", "--minutes", "1"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "colour=red"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "width"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "lr=fast"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "lr=nan"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "batch=-5"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "width=wide"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "depth=-1"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "coupling=random"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--seed", "-1"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--condition", "nothing"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--bounds", "a"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--bounds", "zz=0:1"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--bounds", "a=0:1"], 65),
    (["fit", "@/good.csv", "-o", "@/new", "--device", "abacus"], 69),
    (["fit", "@/good.csv", "-o", "@/new", "--device", "cuda:7"], 69),
    (["fit", "@/good.csv", "-o", "RUN"], 73),
    (["fit", "--resume", "@/absent"], 66),
    (["fit", "--resume", "@/norun"], 65),
    (["fit", "nodata", "-o", "@/new"], 66),
    (["sample", "@/absent", "-o", "@/s.csv"], 66),
    (["sample", "@/norun", "-o", "@/s.csv"], 65),
    (["sample", "RUN", "-o", "@/s.doc"], 2),
    (["sample", "RUN", "-o", "@/nowhere/s.csv"], 74),
    (["sample", "RUN", "-o", "@/s.csv", "-n", "0"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--sampler", "magic"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--condition", "zebra"], 65),
    (["sample", "RUN", "-o", "@/s.csv", "--set", "speed=9"], 2),
    (["score", "RUN", "@/good.csv"], 65),
    (["score", "RUN", "@/absent.csv"], 66),
    (["score", "RUN", "@/text.csv"], 65),
    (["evaluate", "@/good.csv", "@/other.csv"], 65),
    (["evaluate", "@/good.csv", "@/good.csv", "--metrics", "beauty"], 2),
    (["compare", "@/good.csv", "-o", "@/new", "--families", "kde,nothing"], 2),
    (["compare", "@/good.csv", "-o", "@/new", "--minutes", "1", "--total-minutes", "5"], 2),
    (["compare", "@/one.csv", "-o", "@/new"], 65),
    (["plot", "@/absent"], 66),
    (["plot", "RUN", "-o", "@/p.gif"], 2),
    (["data", "atlantis"], 2),
    (["data", "moons", "-o", "@/m.doc"], 2),
    (["check", "@/absent.csv"], 66),
    (["launch"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "seed=1"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "out=x"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "progress=no"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "steps=4"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "width=8", "--set", "width=9"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "warmup=abc"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "betas=0.9|foo"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "betas=0.9,1.5"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "betas=0.9"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "ema=2"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "clip=0"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "width=1e11"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "width=100000000000"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "width=900000"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "batch=1000000000000"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "depth=none"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--set", "width=true"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--bounds", "a=5:-5"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--bounds", "a=nan:5"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--bounds", "a=0:1:2"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--teacher", "@/absent"], 66),
    (["fit", "@/good.csv", "-o", "@/new", "--teacher", "RUN"], 65),
    (["fit", "@/good.csv", "-o", "@/new", "-f", "vae", "--source", "@/good.csv"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--source", "@/absent.csv"], 66),
    (["fit", "@/good.csv", "-o", "@/new", "-f", "kde", "--device", ""], 69),
    (["fit", "--resume", "RUN", "--family", "vae"], 2),
    (["fit", "--resume", "RUN", "--seed", "5"], 2),
    (["fit", "--resume", "RUN", "--bounds", "age=0:"], 2),
    (["fit", "--resume", "RUN", "--minutes", "1e-9"], 2),
    (["fit", "--resume", "RUN", "--steps", "1"], 2),
    (["fit", "--resume", "RUN", "--steps", "10000000"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--size", "32"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "-f", "mean-flow", "--set", "apart=2"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "-f", "consistency", "--set", "huber=0"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "-f", "consistency", "--set", "target=1.0"], 2),
    (["lesson", "9"], 2),
    (["lesson", "p1", "--seed", "99999999999999999999999"], 2),
    (["lesson", "p1", "--out", "@/good.csv"], 74),
    (["fit", "--resume", "RUN", "--teacher", "RUN"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--set", "steps=abc"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--set", "steps=0"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--set", "steps=1e99"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--set", "guidance=wide"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--set", "condition=a"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--set", "y=a"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--sampler", "ddim", "--set", "eta=x"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--sampler", "ipndm", "--set", "order=0"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "-n", "999999999999999"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--seed", "99999999999999999999"], 2),
    (["score", "RUN", "@/good.csv", "--set", "probes=-1"], 2),
    (["score", "RUN", "@/good.csv", "--set", "probes=-1"], 2),
    (["score", "RUN", "@/good.csv", "--bound"], 2),
    (["encode", "RUN", "@/good.csv", "-o", "@/z.npy"], 65),
    (["decode", "RUN", "@/good.csv", "-o", "@/z.doc"], 2),
    (["reconstruct", "@/absent", "@/good.csv", "-o", "@/z.csv"], 66),
    (["translate", "RUN", "@/good.csv", "-o", "@/z.csv"], 2),
    (["compare", "@/good.csv", "-o", "@/good.csv"], 73),
    (["compare", "@/good.csv", "-o", "@/new", "--minutes", "nan"], 2),
    (["compare", "@/good.csv", "-o", "@/new", "--minutes", "-1"], 2),
    (["compare", "@/good.csv", "-o", "@/new", "--total-minutes", "0"], 2),
    (["compare", "@/good.csv", "-o", "@/new", "--device", "abacus"], 69),
    (["compare", "@/good.csv", "-o", "@/new", "--seeds", "0"], 2),
    (["compare", "@/good.csv", "-o", "@/new", "--families", ""], 2),
    (["compare", "@/few.csv", "-o", "@/new"], 65),
    (["evaluate", "@/good.csv", "@/good.csv", "--condition", "kind"], 2),
    (["evaluate", "@/good.csv", "@/good.csv", "--metrics", ""], 2),
    (["evaluate", "@/few.csv", "@/few.csv"], 65),
    (["evaluate", "@/good.csv", "@/one.csv"], 65),
    (["fit", "--speed", "9"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--family", ""], 2),
    (["fit", "@/good.csv", "-o", ""], 2),
    (["fit", "@/good.csv", "-o", "@/new", "--bounds", "a=-9:9", "--bounds", "a=-8:8"], 2),
    (["fit", "@/good.csv", "-o", "@/new", "-f", "autoregressive", "--set", "orderings=1000000"], 2),
    (["fit", "--resume", "RUN", "--steps", "1"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--given", "age=30", "--given", "age=40"], 2),
    (["sample", "RUN", "-o", "@/s.csv", "--condition", "a", "--given", "height=1e25"], 65),
    (["decode", "RUN", "@/good.csv", "--condition", "a", "-o", "@/z.csv"]
     + ["--set", "sampler=nope"], 2),  # fmt: skip
    (["compare", "@/good.csv", "-o", ""], 2),
    (["compare", "@/good.csv", "-o", "@/good.csv/x"], 73),
    (["compare", "@/good.csv", "-o", "/proc/x"], 74),
    (["compare", "@/good.csv", "-o", "@/new", "--families", "gaussian,gaussian"], 2),
    (["plot", "RUN", "-o", "@/nowhere/p.png"], 74),
    (["latent", "RUN", "-o", "@/nowhere/p.png"], 74),
    (["data", "-o", "@/new.csv"], 2),
]  # fmt: skip


def tree(folder: Path) -> dict[str, str]:
    """A hash of everything below a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else ""
        for p in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


@pytest.mark.parametrize("command", ["fit", "check"])
@pytest.mark.parametrize("name", DATA_FILES)
def test_a_file_that_cannot_be_used_is_one_line_and_one_code(files, name, command, capsys):
    before, extra = tree(files), ["-o", files / "new", *QUICK] if command == "fit" else []
    code, _, err = run(command, files / name, *extra, capsys=capsys)
    assert code == DATA_FILES[name], err
    one_line(err)
    assert tree(files) == before


@pytest.mark.parametrize(
    "words, expected", ARGUMENTS, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_an_argument_without_sense_is_one_line_and_one_code(files, fitted, words, expected, capsys):
    before, kept = tree(files), tree(fitted)
    words = [w.replace("@", str(files)).replace("RUN", str(fitted)) for w in words]
    if words[0] == "fit" and "--steps" not in words and "--minutes" not in words:
        words += ["--steps", "3"]
    code, _, err = run(*words, capsys=capsys)
    assert code == expected, err
    one_line(err)
    assert tree(files) == before and tree(fitted) == kept


def one_line(err: str) -> None:
    assert err.startswith("pushforward: error: ") and err.count("\n") == 1, err
    assert len(err) <= 301 and "Traceback" not in err


def test_an_alarm_of_the_family_is_said_after_a_fit(table, tmp_path, capsys, monkeypatch):
    from pushforward.families.vae import VAE

    said = {"active_units": 0.0, "collapsed_units": 3.0}
    monkeypatch.setattr(VAE, "diagnosis", lambda *_: said)
    words = ["fit", table, "--condition", "kind", "-f", "vae", *QUICK, "-o"]
    assert "alarm: posterior collapse: 3 of 3" in run(*words, tmp_path / "a", capsys=capsys)[1]
    _, text, _ = run(*words, tmp_path / "b", "--json", capsys=capsys)
    assert json.loads(text)["alarms"][0].startswith("posterior collapse")


def test_the_error_of_an_estimated_trace_is_reported_and_none_of_an_exact_one(tmp_path, capsys):
    """65 dimensions take 8 probes by default; probes=0 makes the trace exact in any dimension."""
    data, folder = tmp_path / "x.npy", tmp_path / "run"
    np.save(data, np.random.default_rng(0).standard_normal((60, 65)))
    words = ["fit", data, "-f", "flow_matching", "-o", folder, "--steps", 10, "--set", "lr=0.01"]
    assert run(*words, "--set", "width=8", "--set", "batch=32", capsys=capsys)[0] == 0
    few = tmp_path / "few.npy"
    np.save(few, np.load(data)[:2])
    found = {}
    for probes in ("none", "0"):
        words = ["score", folder, few, "--set", f"probes={probes}"]
        code, text, err = run(*words, "--json", capsys=capsys)
        assert code == 0, err
        found[probes] = json.loads(text)
    error = found["none"]["trace_standard_error"]
    assert error > 0 and found["0"]["trace_standard_error"] == 0
    assert abs(found["none"]["mean"] - found["0"]["mean"]) < 5 * error
    text = run("score", folder, few, capsys=capsys)[1]
    assert "trace estimated, standard error" in text


def test_a_word_may_look_like_numbers():
    """What an option's annotation allows decides, not the looks of the text."""
    order = parse_set_options(
        ["order=1,0", "width=8"], fit, families.family_builder("autoregressive")
    )
    assert order == {"order": "1,0", "width": 8}
    assert parse_set_options(["betas=0.9,0.99"], fit) == {"betas": (0.9, 0.99)}


def test_without_a_word_the_help_is_shown(capsys):
    code, out, err = run(capsys=capsys)
    assert code == 2 and "Usage" in out and "error" not in err


def test_rows_of_density_zero_are_counted(tmp_path, capsys):
    x = np.random.default_rng(0).standard_normal((60, 2))
    fit(x, "gaussian", out=tmp_path / "run", progress=False)
    np.save(tmp_path / "far.npy", np.concatenate([x, [[1e200, 0.0]]]))
    code, out, err = run("score", tmp_path / "run", tmp_path / "far.npy", capsys=capsys)
    assert code == 0 and "1 have density 0" in out and "±" not in out and "numpy" not in err


def test_the_rate_of_anomalies_may_still_be_called_flag(tmp_path, capsys):
    x = np.random.default_rng(0).standard_normal((80, 2))
    fit(x, "gaussian", out=tmp_path / "run", progress=False)
    np.save(tmp_path / "x.npy", x)
    words = ["anomalies", tmp_path / "run", tmp_path / "x.npy", "--json"]
    said = [run(*words, name, 0.1, capsys=capsys)[1] for name in ("--rate", "--flag")]
    assert said[0] == said[1] and json.loads(said[0])["rate"] == 0.1
    assert "--flag" not in run("anomalies", "--help", capsys=capsys)[1]


def test_a_group_of_options_is_its_fields_to_the_parser():
    @dataclass(frozen=True)
    class Pair:
        first: int
        second: str = "b"

    @expand_groups
    def command(run: str, *, pair: Pair, quiet: bool = False) -> tuple[str, Pair, bool]:
        return run, pair, quiet

    names = ["run", "first", "second", "quiet"]
    assert list(inspect.signature(command).parameters) == names
    assert inspect.signature(command).parameters["second"].default == "b"
    made = command(run="r", first=1, second="c", quiet=True)
    assert made == ("r", Pair(1, "c"), True)
