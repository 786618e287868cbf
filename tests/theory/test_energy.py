"""The energy distance that validates generators, against that of joined rows by another code."""

import pytest
import torch

from pushforward.metrics import kernels
from pushforward.theory.sample_statistics import conditional_energy_distance


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0, 3000.0])
def test_conditions_count_as_they_are_or_as_much_as_the_data_at_most(size, float64):
    x, y, c = torch.randn(20, 2), torch.randn(20, 2) + 0.5, size * torch.randn(20, 3)
    shrink = min(1.0, float((x.var(0, correction=0).sum() / c.var(0, correction=0).sum()).sqrt()))
    assert (shrink < 1) == (size > 0.5)  # cdist is exact up to 25 rows
    a, b = (torch.cat([z, shrink * c], dim=1).numpy() for z in (x, y))
    truth = kernels.energy_distance(a, b, unbiased=False)
    assert float(conditional_energy_distance(x, y, c)) == pytest.approx(truth, rel=1e-9)
    assert float(conditional_energy_distance(x, x, c)) == pytest.approx(0, abs=1e-12)
