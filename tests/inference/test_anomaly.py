"""Anomaly scores against what can be computed for Gaussians in closed form."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm

from pushforward.errors import NoLikelihood, UsageError
from pushforward.inference.anomaly import roc_auc
from pushforward.training.fit import fit


def normal(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.fixture(scope="module")
def wide():
    """A Gaussian in 100 dimensions."""
    return fit(normal(20_000, 100, 0), "gaussian", progress=False)


def test_the_mode_is_the_least_strange_by_density_and_very_strange_by_typicality(wide):
    """-log p of a draw has mean d/2 log 2 pi e and deviation sqrt(d/2); the mode lies d/2 below."""
    ordinary, mode = normal(500, 100, 1), np.zeros((1, 100))
    assert wide.anomaly_score(mode)[0] < wide.anomaly_score(ordinary).min()
    score = wide.anomaly_score(mode, method="typicality")[0]
    assert score == pytest.approx(50, abs=1.5)
    usual = wide.anomaly_score(ordinary, method="typicality")
    expected = math.sqrt(100 / 2) * math.sqrt(2 / math.pi)  # the mean of |N(0, d/2)|
    assert usual.mean() == pytest.approx(expected, abs=5 * usual.std() / 500**0.5 + 0.2)


def test_the_ratio_of_a_gaussian_to_itself_is_nothing(wide):
    """The baseline is fitted to 2,000 draws: d(d + 3)/4n = 1.3 nats a datum of error on average."""
    scores = wide.anomaly_score(normal(200, 100, 2), method="ratio")
    assert abs(scores.mean()) < 2.0


@pytest.mark.parametrize("own", [True, False])
def test_the_stated_part_of_ordinary_data_is_flagged(own):
    """A binomial of 20,000 data, with the error of the threshold: 4 standard errors of both."""
    model = fit(normal(50_000, 2, 0), "gaussian", progress=False)
    reference = None if own else normal(2000, 2, 3)
    flags = model.flag(normal(20_000, 2, 4), rate=0.05, reference=reference)
    error = math.sqrt(0.05 * 0.95 * (1 / 20_000 + 1 / 2000))
    assert abs(flags.flagged.mean() - 0.05) < 4 * error
    threshold = chi2(2).ppf(0.95) / 2 + math.log(2 * math.pi)
    assert flags.threshold == pytest.approx(threshold, abs=0.25)


def test_area_under_the_curve_is_that_of_two_gaussians():
    r"""For N(0, 1) and N(m, 1) it is :math:`\Phi(m/\sqrt2)`; ties count half."""
    n, m = 20_000, 1.0
    scores = np.concatenate([normal(n, 1, 0)[:, 0], m + normal(n, 1, 1)[:, 0]])
    truth = np.arange(2 * n) >= n
    assert roc_auc(scores, truth) == pytest.approx(norm.cdf(m / math.sqrt(2)), abs=0.015)
    assert roc_auc(np.zeros(10), np.arange(10) < 3) == 0.5
    with pytest.raises(UsageError, match="both anomalies and ordinary"):
        roc_auc(scores, truth & False)


def test_conditional_models_flag_within_the_condition():
    """A datum ordinary for one class is strange for the other."""
    x, label = normal(4000, 2, 0), np.arange(4000) % 2
    model = fit(x + 6 * label[:, None], "gaussian", label, progress=False)
    point = np.array([[6.0, 6.0]])
    assert not model.flag(point, 1, rate=0.01).flagged[0]
    assert model.flag(point, 0, rate=0.01).flagged[0]


@pytest.fixture(scope="module")
def classes():
    """Eight classes far apart, in a table with their column, and a model of them."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 8, 20_000)
    x = rng.standard_normal((20_000, 2)) + 10 * kind[:, None]
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "kind": [f"k{k}" for k in kind]})
    return table, fit(table[:10_000], "gaussian", condition="kind", progress=False)


@pytest.mark.parametrize("method", ["density", "typicality", "ratio"])
@pytest.mark.parametrize("known", [True, False])
def test_draws_and_references_are_scored_as_the_data_are(classes, method, known):
    """With the class and without: the rate is kept within 4 standard errors of both samples."""
    table, model = classes
    new = table[10_000:] if known else table[["a", "b"]][10_000:]
    error = math.sqrt(0.05 * 0.95 * (1 / 4000 + 1 / 2000))
    for reference in (None, table[12_000:14_000], table[["a", "b"]][12_000:14_000]):
        options = {"reference_y": table["kind"][12_000:14_000]}
        if reference is None or not known or "kind" in reference:
            options = {}
        flags = model.flag(new[4000:8000], rate=0.05, reference=reference, method=method, **options)
        assert abs(flags.flagged.mean() - 0.05) < 4 * error


def test_a_reference_must_name_its_condition_if_the_data_do(classes):
    table, model = classes
    plain, kind = table[["a", "b"]], table["kind"]
    with pytest.raises(UsageError, match="name it with reference_y"):
        model.flag(plain[:50], kind[:50], reference=plain[50:100], rate=0.1)
    model.flag(plain[:50], kind[:50], reference=plain[50:100], reference_y=kind[50:100], rate=0.1)


def test_a_rate_that_the_reference_cannot_set_is_told(classes):
    """With 49 ordinary data the largest score is exceeded once in 50."""
    table, model = classes
    with pytest.warns(UserWarning, match="no rate of flags below 0.02"):
        model.flag(table[:50], rate=0.019, reference=table[50:99])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.flag(table[:50], rate=0.021, reference=table[50:99])


def test_wrong_requests_are_refused():
    model = fit(normal(50, 2, 0), "gaussian", progress=False)
    with pytest.raises(UsageError, match="no anomaly score is called 'mahalanobis'"):
        model.anomaly_score(np.zeros((1, 2)), method="mahalanobis")
    with pytest.raises(UsageError, match="rate of flags is 1.5"):
        model.flag(np.zeros((1, 2)), rate=1.5)
    game = fit(normal(50, 2, 0), "gan", steps=1, progress=False)
    with pytest.raises(NoLikelihood):
        game.anomaly_score(np.zeros((1, 2)))


def test_the_command_line_flags_and_judges(tmp_path, monkeypatch, capsys):
    from pushforward.cli import main

    def code(command):
        with pytest.raises(SystemExit) as stopped:
            main(command.split())
        return stopped.value.code

    monkeypatch.chdir(tmp_path)
    x = np.concatenate([normal(300, 2, 1), 6 + normal(30, 2, 2)])
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "odd": (np.arange(330) >= 300).astype(int)})
    table.to_csv("mixed.csv", index=False)
    fit(table[["a", "b"]][:300], "gaussian", out="run", progress=False)
    command = "anomalies run mixed.csv --labels odd --flag 0.02 --json -o scores.csv"
    assert code(command) == 0
    import json

    result = json.loads(capsys.readouterr().out)
    assert result["auroc"] > 0.99 and 30 <= result["flagged"] <= 45
    scores = pd.read_csv("scores.csv")
    assert scores["flagged"].sum() == result["flagged"]
    assert ((scores["anomaly_score"] > result["threshold"]) == scores["flagged"]).all()
    assert code("anomalies run mixed.csv --labels a") == 2
    table["odd"] = table["odd"].astype(float).where(np.arange(330) > 20)
    table["word"] = np.where(np.arange(330) > 20, "yes", None)
    for column, expected in (("odd", "21 missing"), ("word", "21 missing")):
        table[["a", "b", column]].to_csv("holes.csv", index=False)
        assert code(f"anomalies run holes.csv --labels {column}") == 65
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize("method", ["density", "typicality", "ratio"])
@pytest.mark.filterwarnings("ignore:.*farther from the data")
def test_what_is_impossible_is_strangest_and_costs_the_others_nothing(method):
    x = normal(400, 2, 0)
    model = fit(x, "gaussian", progress=False)
    far = np.concatenate([x[:5], [[1e25, 0.0], [1e200, 1.0]]])
    flags = model.flag(far, method=method)
    assert np.isposinf(flags.score[5:]).all() and flags.flagged[5:].all()
    np.testing.assert_allclose(flags.score[:5], model.anomaly_score(x[:5], method=method))
