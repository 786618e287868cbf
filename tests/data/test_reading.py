"""Malformed sources against the error class they deserve; well-formed ones against a round trip."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushforward.data import reading, writing
from pushforward.errors import (
    DataError,
    DiskError,
    FolderInUse,
    MissingFile,
    PushforwardError,
    Unsafe,
    UsageError,
)

GOOD = "a,b\n" + "".join(f"{i},{i / 7}\n" for i in range(60))
NUMBERS = np.random.default_rng(0).standard_normal((60, 2))


def npy(x, **options):
    file = io.BytesIO()
    np.save(file, x, **options)
    return file.getvalue()


def header(text, version=1, body=b"\0" * 64):
    """A .npy file whose header is the given text."""
    raw = text.encode("latin-1") + b"\n"
    size = len(raw).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + raw + body


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def archive(entries, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as z:
        for name, content in entries.items():
            z.writestr(name, content)
    return file.getvalue()


def bomb():
    """100 MiB of zeros in 100 kB."""
    return archive({"x.npy": npy(np.zeros(13 * 2**20))}, zipfile.ZIP_DEFLATED)


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def duplicates():
    file = io.BytesIO()
    column = pa.array(np.arange(60.0))
    pq.write_table(pa.table([column, column], names=["a", "a"]), file)
    return file.getvalue()


def huge_parquet():
    """Four thousand million zeros in a few kilobytes of run lengths."""
    file = io.BytesIO()
    zeros = pa.table({f"c{i}": pa.nulls(2**20, pa.float64()) for i in range(64)})
    with pq.ParquetWriter(file, zeros.schema) as writer:
        for _ in range(9):
            writer.write_table(zeros)
    return file.getvalue()


def broken_crc():
    data = bytearray(npz(x=NUMBERS))
    data[200] ^= 255
    return bytes(data)


def encrypted():
    data = bytearray(npz(x=NUMBERS))
    data[6] |= 1  # the flag of the local header
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # and of the central directory
    return bytes(data)


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


OBJECTS = np.array([{"a": 1}, Canary()], dtype=object)
PICKLE = pickle.dumps(Canary())

FILES = {
    # CSV: what is in the file, and a word that the message must hold
    "empty.csv": (b"", DataError, "empty"),
    "blank.csv": (b"\n\n\n", DataError, ""),
    "header.csv": (b"a,b\n", DataError, "no rows"),
    "header_only_no_newline.csv": (b"a,b", DataError, "no rows"),
    "one_row.csv": (b"a,b\n1,2\n", DataError, "row"),
    "ragged.csv": (GOOD.encode() + b"1,2,3\n", DataError, "line 62"),
    "short.csv": (b"a,b\n1,2\n3\n4,5\n", DataError, "line 3"),
    "utf16.csv": (GOOD.encode("utf-16"), DataError, "UTF-16"),
    "utf16_without_mark.csv": (GOOD.encode("utf-16-le"), DataError, "not text"),
    "latin1_header.csv": ("ä,b\n1,2\n3,4\n".encode("latin-1"), DataError, "UTF-8"),
    "latin1_cells.csv": (b"a,b\n1,\xe4\n2,\xe5\n", DataError, "UTF-8"),
    "nul.csv": (b"a,b\n1,\x002\n", DataError, "not text"),
    "junk.csv": (bytes(range(256)) * 8, DataError, ""),
    "png.csv": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", DataError, ""),
    "zip.csv": (archive({"a.csv": GOOD}), DataError, ""),
    "text.csv": (b"a,b\n" + b"1,yes\n2,no\n" * 30, DataError, "'b'"),
    "mixed.csv": (GOOD.encode() + b"many,1\n", DataError, "row 61"),
    "nan.csv": (GOOD.encode() + b"nan,1\n,2\n", DataError, "2 missing values (rows 61, 62)"),
    "all_missing.csv": (b"a,b\n" + b",1\n" * 60, DataError, "60 missing"),
    "inf.csv": (GOOD.encode() + b"1,inf\n", DataError, "1 infinite value (row 61)"),
    "overflow.csv": (GOOD.encode() + b"1,1e400\n", DataError, "infinite"),
    "constant.csv": (b"a,b\n" + b"".join(b"%d,3\n" % i for i in range(60)), DataError, "drop it"),
    "duplicate.csv": (GOOD.replace("a,b", "a,a").encode(), DataError, "share"),
    "unnamed.csv": (GOOD.replace("a,b", "a,").encode(), DataError, "no name"),
    "no_header.csv": (b"0.5,0.7\n" + b"1.5,2.5\n" * 60, DataError, "first line holds numbers"),
    "dates.csv": (b"a,b\n" + b"1,2020-01-02\n2,2021-03-04\n" * 30, DataError, "dates"),
    "large.csv": (GOOD.encode() + b"9007199254740995,1\n", DataError, "2^53"),
    "wide.csv": (b"," * 20000 + b"\n1\n", DataError, "columns"),
    "long_line.csv": (b"a" * 2**21, DataError, "longer"),
    "html.csv": (b"<html>\n<body>no</body>\n</html>\n", DataError, ""),
    "formula.csv": (b"a,b\n" + b"1,=cmd|x!A0\n2,x\n" * 30, DataError, "'b'"),
    "script.csv": (b"<script>alert(1)</script>,b\n" + b"1,2\n" * 60, DataError, ""),
    "long_name.csv": (b"a" * 5000 + b",b\n" + b"1,2\n" * 60, DataError, "..."),
    "unclosed.csv": (b'a,b\n1,"2\n3,4\n', DataError, ""),
    # Parquet
    "empty.parquet": (b"", DataError, "empty"),
    "junk.parquet": (b"PAR1" + b"x" * 100, DataError, "Parquet"),
    "cut.parquet": (parquet(a=np.arange(60.0))[:-20], DataError, "Parquet"),
    "middle.parquet": (b"PAR1" + b"\0" * 60 + b"\x40\0\0\0PAR1", DataError, "Parquet"),
    "no_rows.parquet": (parquet(a=pa.array([], pa.float64())), DataError, "no rows"),
    "text.parquet": (parquet(a=["x"] * 60, b=np.arange(60.0)), DataError, "'a'"),
    "nested.parquet": (parquet(a=[[1, 2]] * 60, b=np.arange(60.0)), DataError, "'a'"),
    "null.parquet": (parquet(a=[None] * 60, b=np.arange(60.0)), DataError, "missing"),
    "dates.parquet": (parquet(a=np.arange(60).astype("M8[s]")), DataError, "dates"),
    "duplicate.parquet": (duplicates(), DataError, "share"),
    "huge.parquet": (huge_parquet(), Unsafe, "bytes"),
    # NumPy
    "empty.npy": (b"", DataError, "empty"),
    "junk.npy": (b"hello, world", DataError, "NumPy"),
    "pickle.npy": (PICKLE, Unsafe, "pickle"),
    "old_pickle.npy": (pickle.dumps(Canary(), protocol=0), Unsafe, "pickle"),
    # arrays of objects hold pickles, which reading must refuse
    "objects.npy": (npy(OBJECTS, allow_pickle=True), Unsafe, "objects"),
    "cut.npy": (npy(NUMBERS)[:-100], DataError, "cut short"),
    "magic.npy": (b"\x93NUMPY", DataError, "NumPy"),
    "future.npy": (header("{}", version=9), DataError, "NumPy"),
    "nonsense.npy": (header("hello"), DataError, "NumPy"),
    "call.npy": (header("__import__('os').mkdir('canary')"), DataError, "NumPy"),
    "deep.npy": (header("(" * 5000, version=2), DataError, "NumPy"),
    "long_header.npy": (header(" " * 20000, version=2), DataError, "NumPy"),
    "terabytes.npy": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (500000000000,)}"),
        Unsafe,
        "4000000000000",
    ),
    "negative.npy": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-4, 3)}"),
        DataError,
        "",
    ),
    "overflow.npy": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
        Unsafe,
        "",
    ),
    "complex.npy": (npy(NUMBERS + 1j), DataError, "complex"),
    "text.npy": (npy(np.array(["a", "b"] * 30)), DataError, "not a number"),
    "record.npy": (npy(np.zeros(60, [("a", float), ("b", int)])), DataError, "not numbers"),
    "dates.npy": (npy(np.arange(60).astype("M8[D]")), DataError, "dates"),
    "scalar.npy": (npy(np.float64(3)), DataError, "single value"),
    "no_rows.npy": (npy(np.zeros((0, 3))), DataError, ""),
    "no_columns.npy": (npy(np.zeros((60, 0))), DataError, "no columns"),
    "no_pixels.npy": (npy(np.zeros((60, 0, 8))), DataError, "no columns"),
    "blank_images.npy": (npy(np.zeros((60, 8, 8))), DataError, "same value"),
    "nan_image.npy": (npy(np.full((60, 8, 8), np.nan)), DataError, "60 missing values"),
    # archives
    "junk.npz": (b"PK\x03\x04 nothing", DataError, "archive"),
    "no_arrays.npz": (archive({}), DataError, "no arrays"),
    "pickle.npz": (archive({"x.npy": PICKLE}), Unsafe, "pickle"),
    "objects.npz": (archive({"x.npy": npy(OBJECTS, allow_pickle=True)}), Unsafe, "objects"),
    "two.npz": (npz(a=NUMBERS, b=NUMBERS), DataError, "name the data x"),
    "crc.npz": (broken_crc(), DataError, ""),
    "cut.npz": (npz(x=NUMBERS)[:-50], DataError, "archive"),
    "encrypted.npz": (encrypted(), DataError, ""),
    "bomb.npz": (bomb(), Unsafe, "unpack"),
    "readme.npz": (archive({"../../readme.txt": "hello"}), DataError, "NumPy"),
    # other
    "data.txt": (GOOD.encode(), UsageError, ".csv"),
    "data.pkl": (PICKLE, UsageError, ".csv"),
    "data.pt": (PICKLE, UsageError, ".csv"),
    "data.xlsx": (b"PK", UsageError, ".csv"),
    "data.csv.gz": (b"\x1f\x8b", UsageError, ".csv"),
}


def listing(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def refuses(error, word, source, **options):
    """The error has exactly this class, says it in one line, and names the trouble."""
    with pytest.raises(PushforwardError) as caught:
        reading.read_dataset(source, **options)
    message = str(caught.value)
    assert type(caught.value) is error, message
    assert "\n" not in message and len(message) <= 300
    assert word in message


@pytest.mark.parametrize("name", FILES)
def test_a_malformed_file_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, error, word = FILES[name]
    Path(name).write_bytes(content)
    refuses(error, word, name)
    assert listing(tmp_path) == {name: content}
    assert [p.name for p in tmp_path.iterdir()] == [name]  # no canary was run


ARRAYS = {
    "object": (np.array([[1, "a"], [2, "b"]], dtype=object), "not numbers"),
    "ragged": ([[1.0, 2.0], [3.0]], "length"),
    "nan": (np.array([[1.0, np.nan], [2.0, 3.0]]), "column '1' has 1 missing value (row 1)"),
    "inf": (np.array([[1.0, -np.inf], [2.0, 3.0]]), "infinite"),
    "constant": (np.stack([np.arange(60.0), np.ones(60)], 1), "column '1'"),
    "scalar": (np.float64(1), "not data"),
    "none": (None, "NoneType"),
    "dictionary": ({"a": [1, 2]}, "dict"),
    "bytes": (b"a,b", "bytes"),
    "empty list": ([], ""),
    "masked": (np.ma.masked_greater(np.arange(60.0), 50), "9 missing"),
    "too wide": (np.zeros((2, 20000)), "two axes"),
    "unsigned": (np.array([2**60, 1], np.uint64), "2^53"),
    "sparse tensor": (torch.eye(3).to_sparse(), "sparse"),
    "complex tensor": (torch.ones(60, 2, dtype=torch.complex64), "complex"),
    "nan tensor": (torch.full((60, 2), torch.nan), "missing"),
    "pandas text": (pd.DataFrame({"a": ["x"] * 60}), "'a'"),
    "pandas missing": (pd.DataFrame({"a": pd.array([1, None] * 30, "Int64")}), "30 missing"),
    "pandas duplicates": (pd.DataFrame(NUMBERS, columns=["a", "a"]), "share"),
    "pandas dates": (pd.DataFrame({"a": pd.date_range("2020", periods=60, tz="UTC")}), "dates"),
    "pandas categories": (pd.DataFrame({"a": pd.Categorical([1, 2] * 30)}), "numbers"),
    "pandas empty": (pd.DataFrame(), "no columns"),
    "pandas series": (pd.Series(np.arange(60.0)), "Series"),
    "polars text": (pl.DataFrame({"a": ["x"] * 60}), "'a'"),
    "polars missing": (pl.DataFrame({"a": [1, None] * 30}), "30 missing"),
    "polars lists": (pl.DataFrame({"a": [[1, 2]] * 60}), "'a'"),
    "polars lazy": (pl.LazyFrame({"a": [1, 2]}), "LazyFrame"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_malformed_data_in_memory_are_refused_in_one_line(name):
    source, word = ARRAYS[name]
    refuses(DataError, word, source)


@pytest.mark.parametrize(
    "name", ["none.csv", "no/such/file.npy", "iriss", "", "a\0b.csv", "\n.csv"]
)
def test_a_missing_file_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuses(MissingFile, "no such file", name)


VALID = {
    ".csv": GOOD.encode(),
    ".parquet": parquet(a=np.arange(60), b=np.arange(60) / 7),
    ".npy": npy(NUMBERS),
    ".npz": npz(x=NUMBERS, y=np.arange(60)),
}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(VALID)), st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path, suffix, data):
    """A few bytes changed, or the end cut off; what is read is finite."""
    content = bytearray(VALID[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        assert np.isfinite(reading.read_dataset(path).x).all()
    except PushforwardError as error:
        assert "\n" not in str(error) and len(str(error)) <= 300


def test_what_is_no_regular_file_is_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    refuses(DataError, "folder", tmp_path / "folder.csv")
    refuses(DataError, "regular", tmp_path / "pipe.csv")
    with pytest.raises((DataError, MissingFile)):
        reading.read_dataset(tmp_path / "loop.csv")
    refuses(DataError, "too long", tmp_path / ("a" * 400 + ".csv"))


def test_all_problems_are_found_at_once():
    frame = pd.DataFrame(
        {"a": [1.0, np.nan, 3.0], "b": ["x", "1", "y"], "c": [2, 2, 2], "d": [1.0, np.inf, 0.0]}
    )
    found = {(p.column, p.kind): p for p in reading.find_issues(frame)}
    assert set(found) == {
        ("a", "missing"), ("b", "text"), ("c", "constant"), ("d", "infinite"), (None, "rows")
    }  # fmt: skip
    assert found["a", "missing"].rows == (2,)
    assert found["b", "text"].rows == (1, 3)
    assert not found[None, "rows"].fatal
    assert "3 more problems" in error_of(frame)
    assert reading.find_issues(NUMBERS) == []


def error_of(source, **options):
    with pytest.raises(PushforwardError) as caught:
        reading.read_dataset(source, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (b"\xef\xbb\xbf" + GOOD.encode(), ["a", "b"]),
        (GOOD.replace(",", ";").encode(), ["a", "b"]),
        (GOOD.replace(",", "\t").encode(), ["a", "b"]),
        (GOOD.replace("\n", "\r\n").encode(), ["a", "b"]),
        (GOOD.replace("a,b", '"a","b"').encode(), ["a", "b"]),
        (GOOD.replace("a,b", "0,1").encode(), ["0", "1"]),
        (GOOD.replace("a,b", "größe,__proto__").encode(), ["größe", "__proto__"]),
    ],
)
def test_dialects_of_csv_hold_the_same_numbers(content, columns, tmp_path):
    (tmp_path / "data.csv").write_bytes(content)
    samples = reading.read_dataset(tmp_path / "data.csv")
    assert samples.schema.names == columns
    truth = np.array([[i, i / 7] for i in range(60)])
    np.testing.assert_array_equal(samples.x, truth)


SOURCES = {
    "line": NUMBERS[:, 0],
    "float64": NUMBERS,
    "float32": NUMBERS.astype(np.float32),
    "float16": NUMBERS.astype(np.float16),
    "big endian": NUMBERS.astype(">f8"),
    "Fortran": np.asfortranarray(NUMBERS),
    "int8": np.arange(-60, 60, dtype=np.int8).reshape(60, 2),
    "uint8 images": np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8),
    "bool": np.random.default_rng(0).random((60, 4)) < 0.5,
    "whole floats": np.arange(120.0, dtype=np.float32).reshape(60, 2),
    "torch": torch.from_numpy(NUMBERS).float(),
    "torch bfloat16": torch.from_numpy(NUMBERS).bfloat16(),
    "torch int32": torch.arange(120, dtype=torch.int32).reshape(60, 2),
    "torch bool": torch.arange(120).reshape(60, 2) % 7 < 3,
    "torch images": torch.rand(60, 1, 4, 4, requires_grad=True),
}


@pytest.mark.parametrize("name", SOURCES)
def test_arrays_are_restored_exactly(name):
    source = SOURCES[name]
    samples = reading.read_dataset(source)
    restored = samples.schema.restore(samples.x)
    assert type(restored) is type(source) and restored.dtype == source.dtype
    if isinstance(source, torch.Tensor):
        assert torch.equal(restored, source)
    else:
        np.testing.assert_array_equal(restored, source, strict=True)


FRAME = {
    "i": np.arange(60),
    "x": NUMBERS[:, 0],
    "f": NUMBERS[:, 1].astype(np.float32),
    "b": np.arange(60) % 3 == 0,
    "u": np.arange(60, dtype=np.uint8),
    "whole": np.arange(60.0) * 2,
}


@pytest.mark.parametrize("nullable", [False, True])
def test_pandas_frames_are_restored_exactly(nullable):
    frame = pd.DataFrame(FRAME)
    frame[7] = NUMBERS[:, 1]
    frame = frame.convert_dtypes() if nullable else frame
    samples = reading.read_dataset(frame)
    pd.testing.assert_frame_equal(samples.schema.restore(samples.x), frame)


def test_arrow_backed_pandas_frames_are_restored_exactly():
    frame = pd.DataFrame(FRAME).convert_dtypes(dtype_backend="pyarrow")
    samples = reading.read_dataset(frame)
    pd.testing.assert_frame_equal(samples.schema.restore(samples.x), frame)


def test_polars_frames_are_restored_exactly():
    frame = pl.DataFrame(FRAME)
    samples = reading.read_dataset(frame)
    assert samples.schema.restore(samples.x).equals(frame)
    assert samples.schema.restore(samples.x).schema == frame.schema


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_survive_writing_and_reading(suffix, tmp_path):
    table = pa.table(FRAME)
    writing.write_samples(tmp_path / f"a{suffix}", table)
    samples = reading.read_dataset(tmp_path / f"a{suffix}")
    restored = samples.schema.restore(samples.x)
    for name, values in FRAME.items():  # float32 in text reads back as the nearest float64
        np.testing.assert_array_equal(restored[name].to_numpy().astype(values.dtype), values)
    writing.write_samples(tmp_path / f"b{suffix}", restored)
    again = reading.read_dataset(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(again.x, samples.x)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", ["line", "float32", "uint8 images", "torch", "torch int32"])
def test_arrays_survive_writing_and_reading(suffix, name, tmp_path):
    samples = reading.read_dataset(SOURCES[name])
    writing.write_samples(tmp_path / f"x{suffix}", samples.schema.restore(samples.x))
    np.testing.assert_array_equal(reading.read_dataset(tmp_path / f"x{suffix}").x, samples.x)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_and_arrays_are_written_as_tables(frame, tmp_path):
    writing.write_samples(tmp_path / "frame.csv", frame({"a": [1, 2], "b": [0.5, 1.5]}))
    assert (tmp_path / "frame.csv").read_text() == '"a","b"\n1,0.5\n2,1.5\n'
    writing.write_samples(tmp_path / "array.csv", np.array([[1.0, 2.0], [3.0, 4.5]]))
    assert (tmp_path / "array.csv").read_text() == '"x0","x1"\n1,2\n3,4.5\n'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_no_cell_of_text_is_a_formula(text, tmp_path):
    writing.write_samples(tmp_path / "a.csv", {"class": np.array([text, "b"])})
    assert pd.read_csv(tmp_path / "a.csv")["class"][0] == f"'{text}"


@pytest.mark.parametrize("name", ["=cmd", "+x", "@y"])
def test_no_name_of_a_column_is_a_formula_and_all_are_found_again(name, tmp_path):
    table = pa.table({name: np.arange(60) / 7, "other": np.arange(60) % 3, "-k": ["a", "b"] * 30})
    data = reading.read_dataset(table, condition="-k")
    writing.write_samples(tmp_path / "a.csv", table)
    assert (tmp_path / "a.csv").read_text().startswith(f'"\'{name}","other","\'-k"')
    again = reading.read_with_schema(str(tmp_path / "a.csv"), data.schema)
    np.testing.assert_array_equal(again.x, data.x)
    assert again.y.tolist() == data.y.tolist()


def test_writing_is_all_or_nothing(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("before")
    with pytest.raises(UsageError):
        writing.write_samples(target, np.zeros((2, 3, 4)))
    with pytest.raises(UsageError):
        writing.write_samples(tmp_path / "a.npy", pa.table({"a": [1]}))
    with pytest.raises(UsageError):
        writing.write_samples(tmp_path / "a.txt", NUMBERS)
    (tmp_path / "folder.csv").mkdir()
    for path, error in (
        (tmp_path / "no" / "a.csv", DiskError),
        (tmp_path / "folder.csv", FolderInUse),
    ):
        with pytest.raises(error):
            writing.write_samples(path, NUMBERS)
    assert target.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "folder.csv"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.npy").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        writing.write_samples(tmp_path / "a.npy", NUMBERS)
    assert listing(tmp_path) == {"a.npy": b"before"}


def test_a_column_becomes_the_condition(tmp_path):
    text = "a,b,kind\n" + "".join(f"{i},{i / 3},{'uv'[i % 2]}\n" for i in range(60))
    (tmp_path / "data.csv").write_text(text)
    samples = reading.read_dataset(tmp_path / "data.csv", condition="kind")
    assert samples.schema.names == ["a", "b"] and list(samples.y[:3]) == ["u", "v", "u"]
    assert samples.schema.condition.labels == ("u", "v")
    scored = reading.read_with_schema(tmp_path / "data.csv", samples.schema)
    np.testing.assert_array_equal(scored.x, samples.x)
    np.testing.assert_array_equal(scored.y, samples.y)
    frame = pd.read_csv(tmp_path / "data.csv").drop(columns="kind")
    assert reading.read_with_schema(frame, samples.schema).y is None
    for y in ("v", ["v"] * 60):
        scored = reading.read_with_schema(frame, samples.schema, y=y)
        np.testing.assert_array_equal(samples.schema.encode(scored.y, 60), [[1, 0, 1]] * 60)
    for y in ("w", ["v"] * 59):
        with pytest.raises(DataError):
            reading.read_with_schema(frame, samples.schema, y=y)


def test_archives_carry_the_condition(tmp_path):
    (tmp_path / "a.npz").write_bytes(npz(x=NUMBERS, y=np.arange(60) % 3, z=np.arange(60.0)))
    assert reading.read_dataset(tmp_path / "a.npz").y is None
    assert reading.read_dataset(tmp_path / "a.npz", condition="y").schema.condition.labels == (
        0,
        1,
        2,
    )
    assert reading.read_dataset(tmp_path / "a.npz", condition="z").schema.condition_length == 2


@pytest.mark.parametrize("condition", ["label", "target", "species"])
def test_labels_of_built_in_sets_go_by_three_names(condition):
    samples = reading.read_dataset("iris", condition=condition)
    assert samples.schema.condition.labels == ("setosa", "versicolor", "virginica")
    assert samples.schema.condition.column == "species"
    assert reading.read_dataset("iris").y is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"condition": "nothing"}, UsageError),
        ({"y": np.zeros(59)}, DataError),
        ({"y": 3}, DataError),
        ({"y": [None] * 60}, DataError),
        ({"y": np.full(60, np.nan)}, DataError),
        ({"y": [f"{i}" for i in range(60)], "condition": "a"}, UsageError),
        ({"bounds": {"c": (0, 1)}}, UsageError),
        ({"bounds": {"0": (1, 0)}}, UsageError),
        ({"bounds": {"0": (0, None)}}, DataError),
        ({"bounds": {"0": (np.nan, 1)}}, UsageError),
    ],
)
def test_conditions_and_bounds_are_checked(options, error):
    refuses(error, "", NUMBERS, **options)


def test_too_many_classes_are_refused():
    refuses(DataError, "too many", np.arange(2000.0), y=[f"{i}" for i in range(2000)])


def test_reading_needs_no_torch_or_pandas():
    import subprocess
    import sys

    check = (
        "import sys; from pushforward.data import reading, writing, schema;"
        "reading.read_dataset('moons');"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
