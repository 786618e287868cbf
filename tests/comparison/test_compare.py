"""What a comparison measures: the data whatever their order, and alike for all families."""

import numpy as np
import pytest

from pushforward.cli import main
from pushforward.comparison import compare
from pushforward.comparison.compare import likelihood_rows, split_train_test
from pushforward.comparison.leaderboard import FitResult, pool_seeds
from pushforward.data import reading
from pushforward.errors import NumericalError
from pushforward.metrics.estimate import MetricEstimate
from pushforward.training.fit import fit
from pushforward.training.preparation import holdout_split


def sorted_classes(n, k=2):
    """Class numbers of data sorted by class."""
    return np.arange(n) * k // n


def test_the_first_test_rows_are_a_sample_of_sorted_data():
    """Half of them of class 1; for 5,000 of 10,000 rows the standard error is 0.007."""
    _, test = split_train_test(50_000)
    share = sorted_classes(50_000)[test[: compare.MEASURED]].mean()
    assert abs(share - 0.5) < 0.035  # 5 standard errors


@pytest.mark.parametrize(("rows", "bar"), [(4096, 0.04), (1000, 0.08), (128, 0.22)])
def test_the_first_rows_held_out_are_a_sample_of_sorted_data(rows, bar):
    """Five standard errors of a share of a half."""
    _, held = holdout_split(50_000, 0)
    assert abs(sorted_classes(50_000)[held[:rows]].mean() - 0.5) < bar


@pytest.mark.parametrize("divide", [split_train_test, lambda n: holdout_split(n, 3)])
def test_training_and_other_rows_are_all_rows_once(divide):
    for n in (50, 999):
        assert sorted(np.concatenate(divide(n))) == list(range(n))


def test_every_kind_of_likelihood_is_scored_on_the_same_rows(monkeypatch):
    """An exact one too, and a bound, and one of an ODE."""
    samples = reading.read_dataset(np.random.default_rng(0).normal(size=(300, 2)))
    train, test = (compare.subset_rows(samples, rows) for rows in split_train_test(300))
    monkeypatch.setattr(compare, "likelihood_rows", lambda event: 25)
    monkeypatch.setattr(compare.metrics, "evaluate", lambda *_, **__: {})
    seen = {}
    for name in ("gaussian", "vae", "flow_matching"):
        options = {} if name == "gaussian" else {"steps": 2, "width": 8}
        model = fit(train, name, progress=False, **options)
        monkeypatch.setattr(
            type(model), "log_prob", lambda self, x, *_, **__: seen.setdefault(self.family, x)[:, 0]
        )
        compare.measure_fit(FitResult(name, 0), model, compare.Split(train, test))
        assert np.array_equal(seen[name], test.x[:25])


def test_long_data_are_scored_on_fewer_rows():
    assert [likelihood_rows(event) for event in ((2,), (64,), (28, 28))] == [2000, 250, 200]


def test_the_interval_over_three_seeds_holds_the_truth_as_often_as_it_says():
    """95 % of 4,000 times, standard error 0.34 %; a normal quantile would hold 81 %."""
    rng, held = np.random.default_rng(0), 0
    for values in rng.normal(size=(4000, 3)):
        found = pool_seeds([MetricEstimate(v, v, v, 0.0) for v in values])
        held += found.low <= 0 <= found.high
    assert abs(held / 4000 - 0.95) < 0.0175  # 5 standard errors


def test_the_command_line_passes_steps_and_bounds(tmp_path, monkeypatch):
    """To every fit: the schema has the bounds of its column, and samples will respect them."""
    data, seen = tmp_path / "x.csv", []
    data.write_text("age,size\n" + "".join(f"{i}.5,{i % 7}.25\n" for i in range(60)))

    def fit(samples, family, **options):
        seen.append((samples.schema.columns[0], options["steps"]))
        raise NumericalError("enough")

    monkeypatch.setattr(compare, "fit", fit)
    words = ["compare", str(data), "--families", "vae", "--steps", "7", "--bounds", "age=0:", "-q"]
    with pytest.raises(SystemExit):
        main([*words, "-o", str(tmp_path / "out")])
    ((column, steps),) = seen
    assert steps == 7 and column.name == "age" and column.bounds == (0, None)


def test_an_interruption_before_the_first_fit_says_that_there_is_no_report(tmp_path, monkeypatch):
    def stopped(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "fit_and_measure", stopped)
    with pytest.raises(KeyboardInterrupt, match="after 0 of 1 fits; there is no report"):
        compare.compare("wine", ["gaussian"], out=tmp_path / "made", progress=False)
    assert not (tmp_path / "made").exists()
