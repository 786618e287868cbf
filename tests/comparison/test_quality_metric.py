"""The figure of quality against cost shows the table's own number."""

import numpy as np
import pytest

from pushforward import metrics
from pushforward.plots import grids


@pytest.mark.parametrize("shape", [(3,), (4, 4), (2, 4, 4)])
def test_its_distance_is_the_sliced_w2_of_the_table(shape):
    """Columns of a table in their own deviations, pixels of pictures all in one."""
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=shape))
    real, made, train = (spread * rng.normal(size=(200, *shape)) for _ in range(3))
    table = metrics.evaluate(real, made + 0.3, metrics=["sliced_w2"], train=train)["sliced_w2"]
    assert grids.standardised_distance(real, made + 0.3) == pytest.approx(table.value, rel=1e-9)
