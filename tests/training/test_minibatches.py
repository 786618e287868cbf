"""Data that stay on the disk: the same numbers, statistics and batches as data in memory."""

import os
import signal

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from pushforward import checkpoint
from pushforward.data import image_folder, memmap, reading, transforms
from pushforward.errors import DiskError
from pushforward.model import Preprocessing
from pushforward.progress import Interrupted
from pushforward.training.fit import fit
from pushforward.training.preparation import MinibatchStream

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")
OPTIONS = {"family": "flow_matching", "width": 8, "depth": 1, "batch": 16, "steps": 6}


@pytest.fixture
def tiny(monkeypatch):
    """A machine to which everything is large."""
    monkeypatch.setattr(memmap, "MANY", 100)
    monkeypatch.setattr(memmap, "LARGE", 1000)
    monkeypatch.setattr(memmap, "PASS", 150)


def on_disk(x):
    """Whether an array is a view of a file."""
    return isinstance(x, np.memmap) or (x.base is not None and on_disk(x.base))


def test_statistics_in_passes_are_those_of_all_rows(monkeypatch):
    """Means, deviations and the whitening matrix, to ten digits; the offset hides the variance."""
    x = RNG.normal(1e4, [1, 2, 3], (500, 3)) @ RNG.normal(size=(3, 3))
    schema, rows = reading.read_dataset(x).schema, np.sort(RNG.permutation(500)[:300])
    for wanted in (Preprocessing.STANDARDISE, Preprocessing.WHITEN):
        whole = transforms.choose_transform(schema, x, wanted, rows)
        with monkeypatch.context() as patch:
            patch.setattr(memmap, "MANY", 100)
            patch.setattr(memmap, "PASS", 100)
            passed = transforms.choose_transform(schema, x, wanted, rows)
        z, w = (chain.forward(torch.tensor(x)) for chain in (whole, passed))
        torch.testing.assert_close(z[0], w[0], rtol=0, atol=1e-8)
        torch.testing.assert_close(z[1], w[1], rtol=1e-10, atol=0)


@pytest.mark.parametrize("shape", [(300, 5), (80, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_large_array_is_read_as_a_small_one_and_stays_on_the_disk(tmp_path, tiny, shape, dtype):
    x = (100 * RNG.random(shape)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = reading.read_dataset(tmp_path / "x.npy", lean=True)
    assert on_disk(mapped.x) and mapped.x.dtype == dtype
    assert np.array_equal(mapped.x, x)
    assert mapped.schema == reading.read_dataset(x).schema


def test_a_large_table_is_read_by_groups_of_rows_as_a_whole(tmp_path, monkeypatch):
    columns = {"a": RNG.normal(size=900), "k": RNG.integers(0, 9, 900).astype("int16")}
    columns |= {"b": RNG.random(900) < 0.5, "name": RNG.choice(["x", "y"], 900).astype(object)}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=128)
    whole = reading.read_dataset(tmp_path / "t.parquet", condition="name")
    monkeypatch.setattr(memmap, "LARGE", 1000)
    grouped = reading.read_dataset(tmp_path / "t.parquet", condition="name", lean=True)
    assert on_disk(grouped.x) and np.array_equal(grouped.x, whole.x)
    assert grouped.schema == whole.schema and np.array_equal(grouped.y, whole.y)


def test_a_large_table_with_holes_is_refused_as_a_small_one(tmp_path, tiny):
    table = pa.table({"a": [*RNG.normal(size=400), None], "b": RNG.normal(size=401)})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    with pytest.raises(ValueError, match=r"column 'a' has 1 missing value \(row 401\)"):
        reading.read_dataset(tmp_path / "t.parquet", lean=True)


def test_images_are_decoded_once_and_found_again_unless_they_change(tmp_path, tiny, monkeypatch):
    folder, cache = tmp_path / "images", tmp_path / "cache"
    folder.mkdir()
    x = RNG.integers(0, 256, (9, 16, 16, 3)).astype(np.uint8)
    for i, image in enumerate(x):
        Image.fromarray(image).save(folder / f"{i}.png")
    decoded, decode = [], image_folder.decode_image
    monkeypatch.setattr(image_folder, "decode_image", lambda *a: decoded.append(a) or decode(*a))
    for _ in range(2):
        with memmap.use_cache_folder(cache):
            assert np.array_equal(reading.read_dataset(folder, lean=True).x, x)
    assert len(decoded) == 9 and len(list(cache.iterdir())) == 1
    Image.fromarray(x[1]).save(folder / "0.png")
    with memmap.use_cache_folder(cache):
        assert np.array_equal(reading.read_dataset(folder, lean=True).x[0], x[1])
    assert np.array_equal(reading.read_dataset(folder, lean=True).x[2:], x[2:])  # without a folder


def test_a_disk_without_room_is_said_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(memmap, "LARGE", 1000)
    with pytest.raises(DiskError, match="TMPDIR"):
        memmap.empty_or_memmap((2**50, 2**10), np.uint8)


def test_batches_are_uniform_rows_with_their_conditions():
    """Counts of 50 rows in 20,000 draws: chi-squared within 4 standard errors of its mean."""
    x = np.arange(200.0).reshape(100, 2)
    samples = reading.read_dataset(x, y=np.where(x[:, 0] % 4 == 0, "even", "odd"))
    rows = np.arange(0, 100, 2) + (np.arange(50) % 3 == 0)
    stream = MinibatchStream(samples, rows, 100, 0, CPU)
    drawn = [next(stream) for _ in range(200)]
    assert stream.position == 200 and stream.waited > 0
    first = torch.cat([x[:, 0] for x, _ in drawn]).numpy()
    counts = np.bincount((first / 2).astype(int), minlength=100)
    assert set(np.flatnonzero(counts)) == set(rows)
    chi = ((counts[rows] - 400) ** 2 / 400).sum()
    assert abs(chi - 49) < 4 * (2 * 49) ** 0.5
    even = torch.cat([c[:, 1] for _, c in drawn]).numpy()
    assert np.array_equal(even == 1, first % 4 == 0)
    stream.close()


def test_a_run_over_data_on_the_disk_ends_alike_if_it_is_stopped_and_resumed(tmp_path, tiny):
    x = RNG.integers(0, 256, (100, 5, 4)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    straight = fit(tmp_path / "x.npy", **OPTIONS, out=tmp_path / "a", progress=False)
    sent = []

    def stop(fraction, text):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    with pytest.raises(Interrupted):
        fit(tmp_path / "x.npy", **OPTIONS, out=tmp_path / "b", progress=stop)
    assert 0 < checkpoint.load_checkpoint(tmp_path / "b").plain["state"]["drawn"] < 6
    again = fit(out=tmp_path / "b", resume=True, progress=False)
    for a, b in zip(straight.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert again.config["waited"] >= 0 and again.sample(2).dtype == np.uint8


def test_images_in_memory_are_trained_on_as_numbers_of_any_type_are():
    """Bytes stay bytes; the batches, the noise and so the weights are those of float64."""
    x = RNG.integers(0, 256, (60, 4, 4)).astype(np.uint8)
    a, b = (fit(data, **OPTIONS, progress=False) for data in (x, x.astype(np.float64)))
    for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(p, q)
