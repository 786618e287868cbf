"""The figure of a run, for every kind of data and in every format."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from pushforward.errors import DataError, UsageError
from pushforward.plots import figures


@pytest.mark.parametrize("kind", ["line", "plane", "table", "images"])
def test_a_run_is_drawn_for_every_kind_of_data(fits, kind, tmp_path):
    path = figures.plot_run(fits[kind][1]["flow_matching"], tmp_path / "run.png")
    with Image.open(path) as image:
        assert image.width > image.height > 400
    assert [p.name for p in tmp_path.iterdir()] == ["run.png"]


@pytest.mark.parametrize("kind", ["line", "plane", "table", "images"])
def test_data_are_drawn_with_the_samples_of_a_run(fits, kind, tmp_path):
    x, models, _ = fits[kind]
    alone = figures.plot_run(models["gaussian"], tmp_path / "alone.png")
    both = figures.plot_run(models["gaussian"], tmp_path / "both.png", data=x)
    with Image.open(alone) as a, Image.open(both) as b:
        assert a.size != b.size or np.abs(np.subtract(a, b, dtype=float)).mean() > 0.1


def test_data_of_another_kind_cannot_be_drawn_with_a_run(fits, tmp_path):
    with pytest.raises(DataError):
        figures.plot_run(fits["plane"][1]["gaussian"], tmp_path / "x.png", data=np.ones((9, 3)))
    assert not list(tmp_path.iterdir())


def test_a_run_is_drawn_in_every_format(fits, tmp_path):
    model = fits["plane"][1]["gaussian"]
    svg, pdf = (figures.plot_run(model, tmp_path / f"run.{kind}") for kind in ("svg", "PDF"))
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert pdf.read_bytes().startswith(b"%PDF")


def test_an_unknown_format_is_refused(fits, tmp_path):
    with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
        figures.plot_run(fits["line"][1]["gaussian"], tmp_path / "run.jpg")
    assert not list(tmp_path.iterdir())
