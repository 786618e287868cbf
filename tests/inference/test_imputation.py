"""Fixing some columns and drawing the rest, through the whole library."""

import warnings

import numpy as np
import pandas as pd
import pytest

from pushforward import families
from pushforward.data.builtin import datasets
from pushforward.errors import DataError, UsageError
from pushforward.model import Likelihood
from pushforward.theory.exact.targets import GaussianMixture
from pushforward.training.fit import fit

TRAINED = [n for n in families.names() if n not in families.BASELINES]
quiet = pytest.mark.filterwarnings("ignore")


def correlated(n=4000, seed=0):
    """Two correlated blobs in other units than the model's."""
    rng = np.random.default_rng(seed)
    k = rng.random(n) < 0.4
    z = rng.standard_normal((n, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    return 10 + 3 * (z * 0.5 + np.where(k[:, None], [-1, -1], [1, 1]))


def exact(model, value):
    """The conditional of a fitted mixture, in the units of the data."""
    import torch

    table, affine = model.model.table, model.transform.parts[-1]
    scale = torch.tensor(affine.scale)
    means = table["mean"].double() * scale + torch.tensor(affine.mean)
    covariances = table["covariance"].double() * scale[:, None] * scale
    law = GaussianMixture(table["weight"].double(), means, covariances)
    return law.condition_on([0], torch.tensor([value]).double())


def assert_close(x, law, bias=0.0):
    """Mean and second moment within five standard errors."""
    n, y = len(x), x[:, 1]
    mean, variance = float(law.mean), float(law.covariance)
    assert abs(y.mean() - mean) < 5 * y.std() / n**0.5 + bias
    assert abs((y**2).mean() - variance - mean**2) < 5 * (y**2).std() / n**0.5 + 20 * bias


@pytest.fixture(scope="module")
def mixture():
    return fit(correlated(), "gaussian_mixture", components=2, progress=False)


def test_a_mixture_draws_its_exact_conditional(mixture):
    assert_close(mixture.sample(20_000, given={0: 11.0}, seed=0), exact(mixture, 11.0))


@quiet
def test_importance_resampling_agrees_with_the_exact_conditional(mixture, monkeypatch):
    complete = type(mixture.model).complete

    def unknowing(self, *rest):  # the proposal is a mixture too, and may know
        return None if self is mixture.model else complete(self, *rest)

    monkeypatch.setattr(type(mixture.model), "complete", unknowing)
    assert_close(mixture.sample(20_000, given={0: 11.0}, seed=0), exact(mixture, 11.0))


def test_without_a_density_the_nearest_draws_are_taken_and_it_is_said(mixture, monkeypatch):
    monkeypatch.setattr(type(mixture.model), "complete", lambda *_: None)
    monkeypatch.setattr(type(mixture.model), "likelihood", Likelihood.NONE)
    with pytest.warns(UserWarning, match="has no density.*standard deviations"):
        x = mixture.sample(2000, given={0: 11.0}, seed=0)
    assert_close(x, exact(mixture, 11.0), bias=0.1)


@quiet
@pytest.mark.parametrize("name", families.names())
def test_what_is_given_is_kept_and_the_schema_too(name):
    """Whole numbers stay whole, also through dequantisation, whitening and the filter."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=200), "k": rng.integers(0, 9, 200)})
    table["b"] = table["a"] + 0.1 * table["k"] + 0.1 * rng.normal(size=200)
    options = {"steps": 2} if name in TRAINED else {}
    model = fit(table, name, progress=False, **options)
    x = model.sample(50, given={"k": 3, "a": 0.25}, seed=0)
    assert list(x) == list(table) and (x.dtypes == table.dtypes).all()
    assert (x["k"] == 3).all() and (x["a"] == 0.25).all() and x["b"].nunique() > 10
    assert x.equals(model.sample(50, given={"k": 3, "a": 0.25}, seed=0))


def test_each_datum_may_have_its_own_gaps(mixture):
    rows = np.array([[11.0, np.nan], [np.nan, 9.0], [np.nan, 9.0]])
    x = mixture.sample(3, given=rows, seed=0)
    assert (x == rows)[~np.isnan(rows)].all() and not np.isnan(x).any()
    assert x[1, 0] != x[2, 0]


def test_pixels_can_be_given():
    digits = datasets.load("digits")
    model = fit(digits.x, "gaussian", progress=False)
    upper = digits.x[0].astype(float)
    upper[4:] = np.nan
    x = model.sample(10, given=upper, seed=0)
    assert (x[:, :4] == digits.x[0][:4]).all() and x.dtype == digits.x.dtype
    assert x[:, 4:].std(0).max() > 1


def test_a_condition_must_be_named_beside_what_is_given():
    x, label = correlated(200), np.arange(200) % 2
    model = fit(x, "gaussian", label, progress=False)
    assert model.sample(4, 1, given={1: 9.0}, seed=0).shape == (4, 2)
    with pytest.raises(UsageError, match=r"name it \(--condition, in Python y\)"):
        model.sample(4, given={1: 9.0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"colour": 1.0}, "no column is called"),
        ({"0": "red"}, "must be a number"),
        ({}, "nothing is given"),
        (np.full(2, np.nan), "nothing is given"),
        (np.zeros(3), "expected column=value"),
        ({"0": np.inf}, "not finite"),
        (np.zeros((7, 2)), "expected column=value"),
    ],
)
def test_what_cannot_be_given_is_refused(mixture, given, message):
    with pytest.raises(DataError, match=message):
        mixture.sample(5, given=given)


def test_whole_numbers_and_bounds_are_respected():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"k": rng.integers(0, 9, 100), "u": rng.random(100)})
    model = fit(table, "gaussian", bounds={"u": (0, 1)}, progress=False)
    for wrong, message in (
        ({"k": 2.5}, "whole number"),
        ({"k": 40}, "outside"),
        ({"u": 2.0}, "outside"),
    ):
        with pytest.raises(DataError, match=message):
            model.sample(3, given=wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.sample(3, given={"k": 2}, seed=0)["u"].between(0, 1).all()


def test_an_option_that_a_family_cannot_honour_is_refused(mixture):
    with pytest.raises(UsageError, match="cannot honour the option 'particles'"):
        mixture.sample(3, given={0: 11.0}, particles=10)


@quiet
@pytest.mark.parametrize("name", [n for n in families.names() if n != "cnf"])
def test_columns_that_are_drawn_may_have_bounds(name):
    """No valid value of b is known: what stands in for it must not spoil what is drawn."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=200), "u": rng.random(200)})
    table["b"] = np.exp(table["a"] + 0.3 * rng.normal(size=200)).astype(float)
    options = {"steps": 2} if name in TRAINED else {}
    bounds = {"b": (0, None), "u": (-3, -0.0)}
    table["u"] = -table["u"]
    model = fit(table, name, bounds=bounds, progress=False, **options)
    x = model.sample(40, given={"a": 1.5}, seed=0)
    assert (x["a"] == 1.5).all() and x["b"].nunique() > 10 and x["u"].nunique() > 10
    assert (x["b"] > 0).all() and x["u"].between(-3, 0).all() and np.isfinite(x).all(axis=None)


@quiet
def test_a_bound_itself_cannot_be_given():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=100), "b": rng.exponential(size=100)})
    model = fit(table, "gaussian", bounds={"b": (0, None)}, progress=False)
    with pytest.raises(DataError, match=r"b is 0, outside \(0"):
        model.sample(3, given={"b": 0.0})


@quiet
def test_a_given_integer_is_spread_over_its_cell():
    """b = k + u to within 0.01 for a dequantised k: given k, b fills [k, k + 1) evenly."""
    import torch

    rng = np.random.default_rng(0)
    k = rng.integers(0, 9, 4000)
    model = fit(pd.DataFrame({"k": k, "b": k + rng.random(4000)}), "gaussian", progress=False)
    affine, table = model.transform.parts[-1], model.model.table
    # the law of the model is put in by hand: z = (k + u, k + u + noise)
    z = torch.tensor(affine.scale)
    cov = torch.tensor([[1.0, 1.0], [1.0, 1.0]]) * 7.0 + torch.diag(torch.tensor([0.0, 1e-4]))
    table.store(covariance=(cov.double() / (z[:, None] * z))[None])
    means = torch.tensor([[4.5, 4.5]]).double()
    table.store(mean=(means - torch.tensor(affine.mean)) / z)
    b = model.sample(4000, given={"k": 3}, seed=0)["b"].to_numpy()
    assert ((b > 2.9) & (b < 4.1)).all()
    # 16 values of u: the mean of so many has the deviation 1 / sqrt(12 * 16) = 0.07
    assert abs(b.mean() - 3.5) < 4 * 0.07 and 0.15 < b.std() < 0.4


def test_a_value_far_beyond_the_data_is_refused(mixture):
    with pytest.raises(DataError, match=r"too far from the data, which lie in \["):
        mixture.sample(5, given={0: 1e25})
