"""Schemas: conditions as vectors, restored ranges, JSON and what may be scored."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.data import reading
from pushforward.data.builtin import datasets
from pushforward.data.reading import open_source
from pushforward.data.schema import Schema
from pushforward.errors import DataError, NumericalError, UsageError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2))
IMAGES = RNG.integers(3, 19, (60, 4, 4))
TABLE = pd.DataFrame({"age": np.arange(60), "p": RNG.random(60)})


def schemas():
    yield "line", reading.read_dataset(X[:, 0])
    yield "images", reading.read_dataset(IMAGES, y=np.arange(60) % 10)
    yield "table", reading.read_dataset(TABLE, bounds={"p": (0, 1), "age": (0, None)})
    yield (
        "classes",
        reading.read_dataset(pl.DataFrame({"a": X[:, 0], "b": ["u", "v"] * 30}), condition="b"),
    )
    yield "numbers", reading.read_dataset(torch.from_numpy(X), y=RNG.standard_normal((60, 3)))
    yield "truths", reading.read_dataset(X, y=X[:, 0] > 0)
    yield from ((name, reading.read_dataset(name)) for name in ("wine", "digits", "8gaussians"))


SCHEMAS = {name: samples.schema for name, samples in schemas()}


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_reads_back_as_the_same_schema(name):
    text = json.dumps(SCHEMAS[name].to_json(), allow_nan=False)
    assert Schema.from_json(json.loads(text)) == SCHEMAS[name]


def changed(**values):
    return SCHEMAS["table"].to_json() | values


COLUMN = SCHEMAS["table"].to_json()["columns"][0]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        "schema",
        changed(extra=1),
        {k: v for k, v in changed().items() if k != "levels"},
        changed(kind="pickle"),
        changed(kind=3),
        changed(shape="2"),
        changed(shape=[2.0]),
        changed(shape=[-1]),
        changed(shape=[3]),
        changed(shape=[True]),
        changed(columns=[]),
        changed(columns=[COLUMN]),
        changed(columns=[COLUMN, COLUMN | {"low": float("nan")}]),
        changed(columns=[COLUMN, COLUMN | {"low": float("inf")}]),
        changed(columns=[COLUMN, COLUMN | {"integer": 1}]),
        changed(columns=[COLUMN, COLUMN | {"bounds": [0]}]),
        changed(columns=[COLUMN, COLUMN | {"bounds": ["a", None]}]),
        changed(columns=[COLUMN, {"name": "a"}]),
        changed(levels=True),
        changed(condition={"column": "a"}),
        changed(condition="a"),
    ],
)
def test_json_of_another_form_is_refused(data):
    with pytest.raises(DataError) as caught:
        Schema.from_json(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


def test_classes_are_one_hot_after_a_one():
    """Row i of the identity belongs to the i-th label in sorted order."""
    schema = reading.read_dataset(X, y=["b", "a", "c"] * 20).schema
    assert schema.condition.labels == ("a", "b", "c") and schema.condition_length == 4
    np.testing.assert_array_equal(
        schema.encode(["c", "a"]), [[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]
    )


@pytest.mark.parametrize(
    ("labels", "same"),
    [
        ([0, 5, 7], [[5], np.array([5]), "5", 5.0, 5, torch.tensor([5]), pd.Series([5]), [[5]]]),
        ([False, True], [True, "true", "True", np.bool_(True), torch.tensor([True])]),
        (["x", "y"], ["y", ["y"], np.array(["y"]), pl.Series(["y"])]),
    ],
)
def test_a_class_can_be_spelled_in_many_ways(labels, same):
    schema = reading.read_dataset(X[: 20 * len(labels)], y=labels * 20).schema
    rows = [schema.encode(y, 3) for y in same]
    assert all(r.shape == (3, 1 + len(labels)) for r in rows)
    for row in rows:
        np.testing.assert_array_equal(row, rows[0])
    assert (rows[0][:, 0] == 1).all() and (rows[0].sum(1) == 2).all()


def test_an_alias_never_stands_in_for_a_real_class():
    schema = reading.read_dataset(X, y=["a", "'a", "true"] * 20).schema
    np.testing.assert_array_equal(
        schema.encode(schema.condition.labels)[:, 1:], np.eye(schema.condition.length)
    )


@pytest.mark.parametrize("pair", [(1, "1"), (True, "True"), (1, True), (0, False)])
def test_classes_that_look_alike_are_refused(pair):
    for y in (list(pair) * 30, pd.Series(list(pair) * 30, dtype=object)):
        with pytest.raises(DataError, match="same class"):
            reading.read_dataset(X, y=y)


@pytest.mark.parametrize(
    "y",
    [
        np.ma.masked_equal(np.arange(60) % 3, 2),
        np.ma.masked_greater(np.linspace(0.5, 9.7, 60), 9),
        np.ma.masked_equal(np.array(["a", "b"] * 30), "b"),
        pd.Series([1, None] * 30, dtype="Int64"),
        ["a", np.nan] * 30,
    ],
)
def test_conditions_that_are_missing_are_refused(y):
    with pytest.raises(DataError, match="missing"):
        reading.read_dataset(X, y=y)


def test_numbers_are_standardised():
    y = 1e3 + 50 * RNG.standard_normal((60, 2))
    schema = reading.read_dataset(X, y=y).schema
    c = schema.encode(y)
    np.testing.assert_array_equal(c[:, 0], 1)
    np.testing.assert_allclose(c[:, 1:].mean(0), 0, atol=1e-13)  # 60 roundings of order 1e-16 * 20
    np.testing.assert_allclose(c[:, 1:].std(0), 1, rtol=1e-13)
    np.testing.assert_array_equal(schema.encode(y[0], 5), np.repeat(c[:1], 5, axis=0))


def test_nothing_known_is_the_zero_vector():
    schema = reading.read_dataset(X, y=["a", "b"] * 30).schema
    np.testing.assert_array_equal(schema.encode(None, 4), np.zeros((4, 3)))


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.arange(60) % 40, 40),
        (np.arange(60), 0),
        (np.arange(60) / 7, 0),
        ([f"c{i}" for i in range(60)], 60),
        (np.arange(60) % 2 == 0, 2),
        ((np.arange(60) % 3).astype(np.float32), 3),
        (pd.Series(["u", "v"] * 30, dtype="category"), 2),
        (pl.Series([1, 2] * 30), 2),
        (torch.arange(60) % 4, 4),
    ],
)
def test_text_truths_and_few_whole_numbers_are_classes(y, classes):
    assert len(reading.read_dataset(X, y=y).schema.condition.labels) == classes


@pytest.mark.parametrize(
    ("fitted", "y", "n", "error"),
    [
        (["a", "b"], "c", 3, DataError),
        (["a", "b"], ["a", "b"], 3, DataError),
        (["a", "b"], ["a", None], 2, DataError),
        ([0.5, 1.5], "x", 3, DataError),
        ([0.5, 1.5], [1.0, 2.0], 3, DataError),
        ([0.5, 1.5], np.nan, 3, DataError),
        ([[0.5, 1.0], [1.5, 3.0]], [1.0, 2.0, 3.0], None, DataError),
        (None, 1, 3, UsageError),
    ],
)
def test_unknown_conditions_are_refused(fitted, y, n, error):
    schema = reading.read_dataset(X, y=None if fitted is None else fitted * 30).schema
    with pytest.raises(error) as caught:
        schema.encode(y, n)
    assert len(str(caught.value)) <= 300
    if y == "c":
        assert "a, b" in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e308, 1e308), min_size=4, max_size=4))
def test_whatever_a_model_draws_respects_the_ranges(values):
    schema = SCHEMAS["table"]
    frame = schema.restore(np.array(values).reshape(2, 2))
    assert frame["age"].between(0, 59).all() and frame["age"].dtype == TABLE["age"].dtype
    assert ((frame["p"] > 0) & (frame["p"] < 1)).all()
    images = SCHEMAS["images"].restore(np.array(values * 8).reshape(2, 4, 4))
    assert ((images >= 3) & (images <= 18)).all() and images.dtype == IMAGES.dtype


def test_rounding_to_float32_stays_within_open_bounds():
    """1 - 1e-12 rounds to 1 in float32, which the open interval does not hold."""
    x = RNG.random((60, 1)).astype(np.float32)
    schema = reading.read_dataset(x, bounds={"0": (0, 1)}).schema
    restored = schema.restore(np.array([[1 - 1e-12], [1e-60]]))
    assert restored.dtype == np.float32 and (restored > 0).all() and (restored < 1).all()
    schema.align_columns(open_source(restored))


def test_samples_that_are_not_finite_are_not_given_back():
    with pytest.raises(NumericalError):
        SCHEMAS["table"].restore(np.array([[np.nan, 0.5]]))


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_samples_have_the_schema_too(name):
    schema = SCHEMAS[name]
    empty = schema.restore(np.zeros((0, *schema.event)))
    assert len(empty) == 0 and type(empty) is type(schema.restore(np.full((2, *schema.event), 0.5)))


def test_columns_are_matched_by_name():
    schema = SCHEMAS["table"]
    expected = TABLE.to_numpy(dtype=float)
    for same in (TABLE, TABLE[["p", "age"]], pl.DataFrame(dict(TABLE))[["p", "age"]], expected):
        np.testing.assert_array_equal(schema.align_columns(open_source(same)), expected)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (TABLE[["age"]], "lacks the columns p"),
        (TABLE.assign(q=1.0), "unknown columns q"),
        (TABLE.rename(columns={"p": "q"}), "lacks the columns p"),
        (TABLE.iloc[:0], "no rows"),
        (TABLE.assign(age=TABLE["age"] + 0.5), "not whole"),
        (TABLE.assign(p=2.0), "bounds"),
        (TABLE.assign(p=1.0), "bounds"),
        (TABLE.assign(age=-1), "bounds"),
        (TABLE.assign(p=np.nan), "missing"),
        (TABLE.assign(p="x"), "not a number"),
        (np.zeros((5, 3)), "shape"),
    ],
)
def test_data_of_another_kind_are_not_scored(source, word):
    with pytest.raises(DataError, match=word) as caught:
        SCHEMAS["table"].align_columns(open_source(source))
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


def test_one_datum_can_be_scored():
    assert SCHEMAS["table"].align_columns(open_source(TABLE.iloc[:1])).shape == (1, 2)
    for same in (X[:1, 0], X[:1, :1]):
        np.testing.assert_array_equal(SCHEMAS["line"].align_columns(open_source(same)), X[:1, :1])


@pytest.mark.parametrize(
    ("x", "levels", "low"),
    [
        (IMAGES, 16, 3),
        (RNG.integers(0, 2, (60, 5)).astype(bool), 2, 0),
        (np.append(np.arange(59), 255), 256, 0),
        (np.append(np.arange(59), 256), 0, 0),
        (IMAGES.astype(np.float32), 16, 3),
        (IMAGES + 0.5, 0, 0),
        (TABLE, 0, 0),
        (pd.DataFrame({"a": [0, 1] * 30, "b": [0, 7, 3] * 20}), 8, 0),
        (pd.DataFrame({"a": [0, 1] * 30, "b": [1, 7, 3] * 20}), 0, 0),
        (1e20 * X, 0, 0),
    ],
)
def test_levels_count_the_values_that_all_entries_share(x, levels, low):
    schema = reading.read_dataset(x).schema
    assert (schema.levels, schema.low) == (levels, low)


@pytest.mark.parametrize("name", datasets.REAL)
def test_built_in_sets_restore_their_own_numbers(name):
    data, samples = datasets.load(name), reading.read_dataset(name)
    restored = samples.schema.restore(samples.x)
    if data.columns is None:
        np.testing.assert_array_equal(restored, data.x, strict=True)
    else:
        assert restored.column_names == list(data.columns)
        np.testing.assert_array_equal(np.stack([c.to_numpy() for c in restored.columns], 1), data.x)
