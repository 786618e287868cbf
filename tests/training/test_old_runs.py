"""Run folders of earlier versions load, score as they did, and go on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pushforward as pf
from pushforward import cli
from pushforward.data.builtin import datasets
from pushforward.data.schema import Schema
from pushforward.errors import DataError, UsageError
from pushforward.inference.loading import build_from_config
from pushforward.training.config import RunConfig

RUNS = Path(__file__).parent / "runs"  # written before `config.json` had a version
EXPECTED = json.loads((RUNS / "expected.json").read_text())


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A copy of the folders, in the place that the source of the data is relative to."""
    shutil.copytree(RUNS, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_run_loads_and_scores_as_it_did(name, runs):
    people = name == "flow_matching"
    x = pd.read_csv(runs / "people.csv") if people else datasets.load("moons").x[:20]
    model = pf.load(runs / name, device="cpu")
    np.testing.assert_allclose(model.log_prob(x), EXPECTED[name], rtol=1e-5)


def test_an_old_run_is_resumed_from_the_data_it_names(runs):
    before = pf.load(runs / "flow_matching").model.state_dict()
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "--resume", "flow_matching", "--steps", "25", "--quiet"])
    assert ended.value.code == 0
    model = pf.load(runs / "flow_matching")
    assert model.config["steps"] == 25 and model.config["ended"] == "complete"
    assert model.history[-1]["step"] == 25
    assert model.config["version"] == 1
    after = model.model.state_dict()
    assert before.keys() == after.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_configuration_is_read_and_written_without_a_change(name):
    plain = json.loads(next((RUNS / name).rglob("config.json")).read_text())
    again = json.loads(json.dumps(RunConfig.from_json(plain).to_json()))
    assert again == plain | {"version": 1}


def test_a_run_of_a_later_version_is_not_resumed(runs):
    path = next((runs / "vae").rglob("config.json"))
    with pytest.raises(DataError, match="later version"):
        RunConfig.from_json(json.loads(path.read_text()) | {"version": 99})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": None}, "lacks 'seed'"),
        ({"precision": None}, "lacks 'precision'"),
        ({"bounds": None}, "lacks 'bounds'"),
        ({"recipe": {"betas": 3}}, "betas is"),
        ({"recipe": {"ema": "x"}}, "ema is 'x'"),
        ({"recipe": {"lr": -1}}, "lr is -1"),
        ({"recipe": {"batch": 0}}, "batch is 0"),
    ],
)
def test_a_configuration_that_describes_no_run_is_refused_before_training(change, message):
    """None leaves a key out; a recipe is changed in part."""
    plain = json.loads(next((RUNS / "flow_matching").rglob("config.json")).read_text())
    for name, value in change.items():
        if value is None:
            del plain[name]
        else:
            plain[name] |= value
    with pytest.raises((DataError, UsageError), match=message):
        RunConfig.from_json(plain)


@pytest.mark.parametrize("name", ["conditions", "frequencies"])
def test_a_conditional_run_without_the_conditions_of_training_is_refused(name):
    folder = next((RUNS / "flow_matching").rglob("config.json")).parent
    config = json.loads((folder / "config.json").read_text())
    schema = Schema.from_json(json.loads((folder / "schema.json").read_text()))
    del config[name]
    with pytest.raises(DataError, match="lacks the conditions"):
        build_from_config(config, schema)
