"""Numbers behind the plots, against the models and the metrics themselves."""

import numpy as np
import pytest

from pushforward import metrics
from pushforward.plots import grids

rng = np.random.default_rng(0)


def test_the_quick_map_agrees_with_the_likelihood(fits):
    _, models, _ = fits["plane"]
    flow, points = models["flow_matching"], rng.normal(size=(50, 2))
    quick = grids.grid_log_density(flow, points)
    assert np.abs(quick - flow.log_prob(points)).max() < 0.1  # what the eye cannot see


def test_trajectories_end_in_the_samples_of_the_same_seed(fits):
    flow = fits["plane"][1]["flow_matching"]
    ways = grids.sampler_trajectories(flow, flow.model, n=16, seed=3)
    assert len(ways) == flow.model.steps + 1
    np.testing.assert_allclose(ways[-1], flow.draw(16, seed=3), atol=1e-5)  # float32 sums
    spread = ways[0].std(0) / np.asarray(fits["plane"][0]).std(0)
    assert (np.abs(spread - 1) < 4 / np.sqrt(2 * 16)).all()  # noise has the scale of the data


def test_evaluations_are_those_of_heuns_method(fits):
    """Two a step; one in the first, which starts from pure noise, and in the last."""
    flow = fits["plane"][1]["flow_matching"]
    counts = [nfe for nfe, _ in grids.quality_by_steps(flow, flow.model, fits["plane"][2].x[:50])]
    expected = [1, *(2 * k - 2 for k in grids.STEPS[1:])]
    assert counts == expected[: len(counts)] and len(counts) > 2


def test_data_of_every_shape_have_a_kind():
    kinds = {(1,): "line", (2,): "plane", (7,): "table", (8, 8): "images", (3, 8, 8): "images"}
    kinds |= {(8, 8, 1): "images", (5, 8, 8): "table", (2, 2, 2, 2): "table"}
    assert {shape: grids.plot_kind(shape) for shape in kinds} == kinds


@pytest.mark.parametrize("shape", [(3,), (4, 4), (2, 4, 4)])
def test_its_distance_is_the_sliced_w2_of_the_table(shape):
    """Columns of a table in their own deviations, pixels of images all in one."""
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=shape))
    real, made, train = (spread * rng.normal(size=(200, *shape)) for _ in range(3))
    table = metrics.evaluate(real, made + 0.3, metrics=["sliced_w2"], train=train)["sliced_w2"]
    assert grids.standardised_distance(real, made + 0.3) == pytest.approx(table.value, rel=1e-9)
