"""Run folders: whole or not at all, damage is always noticed, one writer at a time."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from pushforward import checkpoint
from pushforward.checkpoint import Checkpoint
from pushforward.errors import DataError, DiskError, FolderInUse, MissingFile, Unsafe
from pushforward.inference.loading import load
from pushforward.training.fit import fit


def example(step=1):
    g = torch.Generator().manual_seed(step)
    return Checkpoint(
        {"config": {"family": "x"}, "state": {"step": step}},
        {"model": {"w": torch.randn(5, 3, generator=g), "n": torch.tensor(step)}},
        [{"step": i, "loss": 0.5 / i} for i in range(1, step + 1)],
    )


def same(a, b):
    return (
        a.plain == b.plain
        and a.history == b.history
        and all(torch.equal(v, b.tensors["model"][k]) for k, v in a.tensors["model"].items())
    )


def test_what_is_loaded_is_what_was_saved_and_two_are_kept(tmp_path):
    for step in range(1, 5):
        checkpoint.save_checkpoint(tmp_path, example(step))
    assert same(checkpoint.load_checkpoint(tmp_path), example(4))
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == [
        "checkpoint-000004",
        "checkpoint-000003",
    ]
    assert not list(tmp_path.glob(".*.tmp"))


def test_every_flipped_bit_is_noticed_and_the_one_before_is_used(tmp_path):
    checkpoint.save_checkpoint(tmp_path, example(1))
    newest = checkpoint.save_checkpoint(tmp_path, example(2))
    rng = np.random.default_rng(0)
    for file in newest.iterdir():
        whole = file.read_bytes()
        for _ in range(40):
            at, bit = int(rng.integers(len(whole))), int(rng.integers(8))
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            file.write_bytes(damaged)
            if file.name == "manifest.json":
                continue  # a manifest may be reformatted without harm; its hashes may not
            with pytest.raises(DataError):
                checkpoint.verify_checkpoint(newest)
            with pytest.warns(UserWarning, match="damaged"):
                assert same(checkpoint.load_checkpoint(tmp_path), example(1))
        file.write_bytes(whole)
    assert same(checkpoint.load_checkpoint(tmp_path), example(2))


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_truncated_file_is_noticed(tmp_path, cut):
    path = checkpoint.save_checkpoint(tmp_path, example()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError):
        checkpoint.load_checkpoint(tmp_path)


def test_a_missing_surplus_or_linked_file_is_refused(tmp_path):
    path = checkpoint.save_checkpoint(tmp_path, example())
    (path / "extra.json").write_text("{}")
    with pytest.raises(DataError, match="extra"):
        checkpoint.load_checkpoint(tmp_path)
    (path / "extra.json").unlink()
    config = path / "config.json"
    config.rename(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match="missing"):
        checkpoint.load_checkpoint(tmp_path)
    config.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(Unsafe, match="plain file"):
        checkpoint.load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["../evil.json", "/etc/passwd", "a.pkl", "x" * 80 + ".json"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path, name):
    path = checkpoint.save_checkpoint(tmp_path, example())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["config.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Unsafe):
        checkpoint.load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": NaN}', "[" * 100_000, '{"format": 9, "files": {}}']
)
def test_a_broken_manifest_is_one_named_error(tmp_path, text):
    path = checkpoint.save_checkpoint(tmp_path, example())
    (path / "manifest.json").write_text(text)
    with pytest.raises(DataError):
        checkpoint.load_checkpoint(tmp_path)


def test_folders_that_are_no_run_are_named(tmp_path):
    with pytest.raises(MissingFile):
        checkpoint.load_checkpoint(tmp_path / "nothing")
    with pytest.raises(DataError, match="no checkpoint"):
        checkpoint.load_checkpoint(tmp_path)


def test_a_second_writer_is_refused_and_a_dead_one_frees_the_folder(tmp_path):
    hold = (
        "import sys, time; from pathlib import Path; from pushforward import checkpoint\n"
        f"with checkpoint.lock_folder(Path({str(tmp_path)!r})):\n"
        " print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse, match=str(child.pid)), checkpoint.lock_folder(tmp_path):
        pass
    child.kill()
    child.wait()
    with checkpoint.lock_folder(tmp_path):
        pass


def test_a_full_disk_leaves_the_last_checkpoint_and_says_where(tmp_path, monkeypatch):
    checkpoint.save_checkpoint(tmp_path, example(1))

    def full(handle):
        raise OSError(28, "No space left on device")

    for after in range(12):  # the disk is full at the first, second, ... flush
        calls = iter([os.fsync] * after + [full] * 100)
        with monkeypatch.context() as patch:
            patch.setattr(
                os,
                "fsync",
                lambda h, real=os.fsync, c=calls: (full if next(c) is full else real)(h),
            )
            try:
                checkpoint.save_checkpoint(tmp_path, example(2))
            except DiskError as error:
                assert "No space left" in str(error) and len(str(error)) < 300
        assert checkpoint.load_checkpoint(tmp_path).plain["state"]["step"] in (1, 2)


def change(folder, name, edit):
    """Edit a JSON file of the newest checkpoint and sign it again."""
    path = checkpoint.list_checkpoints(folder)[0]
    plain = json.loads((path / name).read_text())
    edit(plain)
    data = json.dumps(plain).encode()
    (path / name).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    digest = hashlib.sha256(data).hexdigest()
    manifest["files"][name] = {"bytes": len(data), "sha256": digest}
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("config.json", {"event": []}),
        ("config.json", {"event": "x"}),
        ("config.json", {"event": [[2.5], 0, 0, 60]}),
        ("config.json", {"event": [[-2], 0, 0, 60]}),
        ("config.json", {"event": [[1000000], 0, 0, 60]}),
        ("config.json", {"family": 3}),
        ("config.json", {"family": None}),
        ("config.json", {"family": "nothing"}),
        ("config.json", {"options": {"colour": "red"}}),
        ("schema.json", {"dtype": "os.system"}),
        ("schema.json", {"condition": {"column": "k", "labels": ["a", "b"], "mean": [],
                                       "scale": [], "dtype": "object", "place": 0}}),
    ],
)  # fmt: skip
def test_an_edited_run_that_is_signed_again_is_refused(name, edit, tmp_path):
    fit(np.random.default_rng(0).normal(size=(60, 2)), "gaussian", out=tmp_path, progress=False)
    change(tmp_path, name, lambda plain: plain.update(edit))
    with pytest.raises(DataError):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["numpy", "torch", "polars", "os.system"])
def test_a_table_does_not_become_another_kind(kind, tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 60))
    fit(pa.table({"a": x[0], "b": x[1]}), "gaussian", out=tmp_path, progress=False)

    def edit(plain):
        if kind == "os.system":
            plain["columns"][0]["dtype"] = kind
        else:
            plain["kind"] = kind

    change(tmp_path, "schema.json", edit)
    with pytest.raises(DataError):
        load(tmp_path)


def test_a_run_without_its_state_is_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 2))
    fit(x, "gaussian", out=tmp_path, progress=False)
    change(tmp_path, "state.json", dict.clear)
    with pytest.raises(DataError):
        fit(x, out=tmp_path, resume=True, progress=False)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = fit(np.random.default_rng(0).normal(size=(60, 2)), "gaussian", progress=False)
    model.model.table["mean"][0, 0] = float("nan")
    model.save(tmp_path)
    with pytest.raises(DataError, match="NaN weights"):
        load(tmp_path)


def test_an_interruption_before_the_first_checkpoint_leaves_no_folder(tmp_path):
    """And one after it, or in a folder that held something, leaves all there was."""
    folder = tmp_path / "run"
    for held in ([], ["checkpoint-000001"], ["mine.txt"]):
        with pytest.raises(KeyboardInterrupt), checkpoint.lock_folder(folder):
            for name in held:
                (folder / name).touch()
            raise KeyboardInterrupt
        assert folder.exists() == bool(held)
        assert not held or (folder / held[0]).exists()
        for file in folder.iterdir() if held else ():
            file.unlink()
        if held:
            folder.rmdir()
