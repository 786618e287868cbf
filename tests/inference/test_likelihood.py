"""Marginal likelihoods, conditions that come back, and what a fitted model refuses."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.stats import norm

from pushforward.comparison.evaluate_sources import evaluate_sources
from pushforward.data import reading
from pushforward.data.conditions import condition_frequencies, subsample_weighted
from pushforward.errors import DataError, UsageError
from pushforward.metrics import nll
from pushforward.model import Likelihood
from pushforward.training.fit import fit
from pushforward.training.preparation import holdout_split

CENTRES = {"a": -5.0, "b": 0.0, "c": 4.0}


def three_classes(n=600, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(list(CENTRES), n, p=[0.6, 0.3, 0.1])
    x = np.array([CENTRES[v] for v in y])[:, None] + rng.standard_normal((n, 2))
    return x, y


def test_an_unknown_condition_is_summed_over():
    """Gaussians by class: the exact mixture has the classes' moments and shares in training."""
    x, y = three_classes()
    x = x[:, :1]  # no shrinkage in one dimension
    model = fit(x, "gaussian", y, progress=False)
    train, _ = holdout_split(len(x), 0)
    points = x[:50]
    density = np.zeros(50)
    for label in CENTRES:
        mine = x[train][y[train] == label]
        normal = norm(mine.mean(), mine.std())
        density += len(mine) / len(train) * normal.pdf(points[:, 0])
    np.testing.assert_allclose(model.log_prob(points), np.log(density), atol=1e-4)
    assert model.likelihood is Likelihood.EXACT


def test_the_marginal_density_integrates_to_one():
    x, y = three_classes(200)
    model = fit(x[:, :1], "gaussian", y, progress=False)
    grid = np.linspace(-15, 15, 4001)
    assert np.exp(model.log_prob(grid[:, None])).sum() * (grid[1] - grid[0]) == pytest.approx(1)


def test_numbers_that_are_unknown_are_averaged_over():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(500)
    x = 3 * y[:, None] + rng.standard_normal((500, 1))
    model = fit(x, "gaussian", y, progress=False)
    rows, _ = model.preprocessor.condition_support()
    chosen, weights = subsample_weighted(rows, np.full(len(rows), 1 / len(rows)), 64)
    values = model.schema.condition.decode(chosen)
    each = [np.exp(model.log_prob(x[:20], v)) for v in values]
    np.testing.assert_allclose(model.log_prob(x[:20]), np.log(np.mean(each, 0)), atol=1e-5)
    assert len(chosen) == 64 and weights.sum() == pytest.approx(1)


def test_thinned_conditions_are_quantiles():
    rows = np.arange(10_000.0)[:, None]
    chosen, weights = subsample_weighted(rows, np.full(10_000, 1e-4), 4)
    np.testing.assert_allclose(chosen[:, 0], [1250, 3750, 6250, 8750], atol=1)
    np.testing.assert_allclose(weights, 0.25)
    seen, shares = condition_frequencies(np.array([[1.0, 2.0]] * 3 + [[1.0, 1.0]]))
    np.testing.assert_array_equal(seen, [[1, 1], [1, 2]])
    np.testing.assert_allclose(shares, [0.25, 0.75])


def test_samples_draw_classes_by_their_frequencies():
    x, y = three_classes()
    model = fit(x, "gaussian", y, progress=False)
    drawn = model.sample(4000, seed=0)[:, 0]
    share = np.mean(drawn > 2.5)  # nearly all of class c and none of a
    near = 0.1 * 0.933 + 0.3 * 0.0062
    assert abs(share - near) < 0.02


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize(
    "values",
    [
        np.array(["red", "blue"] * 60),
        np.array([True, False] * 60),
        np.array([7, 3] * 60),
        np.round(np.arange(120) * 0.7, 1),
    ],
    ids=["text", "truth", "whole", "number"],
)
def test_a_table_gets_its_condition_back_in_place_and_type(frame, values):
    x = np.random.default_rng(0).standard_normal((120, 2))
    table = frame({"p": x[:, 0], "kind": values, "q": x[:, 1]})
    model = fit(table, "gaussian", condition="kind", progress=False)
    got = model.sample(120, values, seed=0)
    assert list(got.columns) == ["p", "kind", "q"]
    assert [str(d) for d in got.dtypes] == [str(d) for d in table.dtypes]
    assert got["kind"].to_list() == values.tolist()
    unknown = model.sample(30, seed=0)["kind"].to_list()
    assert set(unknown) <= set(values.tolist())
    model.log_prob(got)


def test_a_conditional_fit_can_be_evaluated_against_its_file(tmp_path):
    x, y = three_classes(300)
    table = pd.DataFrame({"p": x[:, 0], "q": x[:, 1], "kind": y})
    good = fit(table, "gaussian", condition="kind", progress=False).sample(300, y, seed=0)
    shuffled = good.assign(kind=y[::-1].copy())
    names = ["label_accuracy"]
    right = evaluate_sources(table, good, names, condition="kind")["label_accuracy"].value
    wrong = evaluate_sources(table, shuffled, names, condition="kind")["label_accuracy"].value
    assert right > 0.9 and wrong < 0.7
    with pytest.raises(DataError, match="kind"):
        evaluate_sources(table, good[["p", "q"]], condition="kind")


def test_number_conditions_are_evaluated_jointly():
    """A sample with the right marginals and the wrong dependence is found out."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(1200)
    table = pd.DataFrame({"p": y + 0.1 * rng.standard_normal(1200), "y": y})
    wrong = table.assign(y=rng.permutation(y))
    energy = [
        evaluate_sources(table, t, ["energy"], condition="y")["energy"] for t in (table, wrong)
    ]
    assert energy[1].low > energy[0].high


def test_a_fitted_model_copies_and_does_not_pickle():
    model = fit(three_classes()[0], "gaussian", progress=False)
    with pytest.raises(UsageError, match="save.*load"):
        pickle.dumps(model)
    for other in (copy.copy(model), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.sample(5, seed=1), model.sample(5, seed=1))
    assert copy.deepcopy(model).model is not model.model


def test_a_trained_model_copies():
    model = fit(three_classes()[0], "vae", steps=3, progress=False, width=8)
    other = copy.deepcopy(model)
    assert all(
        torch.equal(a, b) for a, b in zip(model.model.parameters(), other.model.parameters())
    )


def test_conditions_are_called_y():
    x, y = three_classes()
    model = fit(x, "gaussian", y, progress=False)
    with pytest.raises(UsageError, match="called y"):
        model.sample(3, condition="a")


def test_an_impossible_row_makes_the_mean_infinite():
    found = nll(np.array([-1.0, -np.inf, -2.0] * 10))
    assert found.value == np.inf and found.high == np.inf
    rare = nll(np.array([-np.inf] + [-1.0] * 99))
    assert rare.value == np.inf and rare.low == 1.0  # a third of the draws miss the row
    with pytest.raises(DataError):
        nll(np.array([np.nan, -1.0]))
    with pytest.raises(DataError):
        nll(np.array([np.inf, -1.0]))


def test_infinite_bounds_are_open_and_survive_saving(tmp_path):
    x = np.random.default_rng(0).uniform(1, 40, (60, 1))
    bounds = {"0": (-np.inf, 50)}
    fit(x, "gaussian", bounds=bounds, out=tmp_path / "r", progress=False)
    again = fit(x, out=tmp_path / "r", resume=True, progress=False)
    assert again.sample(500, seed=0).max() < 50


def test_decoding_conditions_gives_the_numbers_that_were_encoded():
    y = np.array([0.1, 1.2, 1e6 + 0.5, -3.3e-4])
    schema = reading.read_dataset(np.random.default_rng(0).standard_normal((4, 2)), y=y).schema
    np.testing.assert_allclose(schema.condition.decode(schema.encode(y)), y, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("family", ["kde", "vae", "autoregressive", "flow_matching", "cnf"])
def test_one_extreme_row_costs_the_others_nothing(family):
    """The solver is not even asked about it, and the density of the others stays what it was."""
    x = np.random.default_rng(0).standard_normal((200, 2))
    kept = {} if family == "kde" else {"steps": 3, "width": 8}
    model = fit(x, family, progress=False, **kept)
    far = np.concatenate([[[1e25, 0.0], [0.0, -1e200], [1e13, 1e13]], x[:3]])
    with pytest.warns(UserWarning, match="3 of 6 rows"):
        values = model.log_prob(far)
    assert np.isneginf(values[:3]).all()
    assert np.isfinite(values[3:]).all()
    if family != "vae":  # whose bound draws other latents
        np.testing.assert_allclose(values[3:], model.log_prob(x[:3]), rtol=1e-3)


@pytest.mark.parametrize("family", ["gaussian", "vae", "flow_matching"])
@pytest.mark.filterwarnings("ignore")
def test_a_model_keeps_its_own_precision(family):
    """Whatever torch's default is when it is used."""
    x, y = three_classes()
    model = fit(x, family, y, progress=False, **({"steps": 3} if family != "gaussian" else {}))
    before = model.log_prob(x[:3], y[:3])
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_allclose(model.log_prob(x[:3], y[:3]), before, rtol=1e-5)
        assert np.isfinite(model.sample(3, "a")).all()
        assert np.isfinite(model.sample(3, "a", given={0: 1.0})).all()
        if family != "gaussian":
            assert np.isfinite(model.reconstruct(x[:3], y[:3])).all()
            model.traverse(x[:1], y[:1], values=(0.0,))
    finally:
        torch.set_default_dtype(torch.float32)


SENSELESS = """
import numpy as np, pushforward as pf
from pushforward.metrics import evaluate
x, nan = np.random.default_rng(0).standard_normal((60, 2)), float("nan")
m = pf.fit(x, "gaussian", progress=False)
calls = [
    *[lambda n=n: m.sample(n) for n in ("a", None, nan, [3])],
    *[lambda s=s: evaluate(x, x, seed=s) for s in (1.5, "a", None, nan, [1], -1, 2**64)],
    lambda: pf.fit(x, "kde", device=None),
    lambda: pf.fit(x, "kde", condition=["0"]),
    lambda: pf.fit(x, "kde", out=3),
    *[lambda f=f: pf.fit(x, f) for f in (3, ["vae"], b"vae", "")],
    *[lambda s=s: pf.fit(x, "kde", save_seconds=s, out="k") for s in ("a", -1, nan)],
    lambda: pf.load(None),
    lambda: m.save(3),
    lambda: m.flag(x, rate="a"),
    lambda: m.anomaly_score(x, method=["density"]),
]
for i, call in enumerate(calls):
    try:
        call()
        print(i, "nothing")
    except Exception as error:
        if not isinstance(error, pf.errors.UsageError):
            print(i, type(error).__name__, error)
"""


def test_arguments_without_sense_are_named(tmp_path):
    """In a process of its own: here the annotations themselves are checked."""
    done = subprocess.run(
        [sys.executable, "-c", SENSELESS], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "" and done.returncode == 0, done.stdout + done.stderr[-500:]
    assert not any(tmp_path.iterdir())


def test_a_condition_that_is_no_class_is_refused():
    with pytest.raises(DataError, match="one class or number"):
        reading.read_dataset(np.random.default_rng(0).standard_normal((80, 2)), y=[{}] * 80)
