"""The variational bound of DDPM against a model that is exact."""

import pytest
import torch
from torch import nn

from pushforward.families.ddpm import DDPM
from pushforward.shapes import standard_normal
from pushforward.theory import predictions, tables


def test_the_bound_of_a_perfect_model_is_just_below_the_density():
    """Of standard normal data the v-prediction is 0 at all times: a network of zeros is exact."""

    class Zero(nn.Module):
        def forward(self, x, t, c=None):
            return torch.zeros_like(x)

    path = tables.DDPM(tables.linear_betas(1000))
    model = DDPM(Zero(), (2,), path=path, prediction=predictions.v, times=path.chain()[:-1])
    x = torch.randn(400, 2)
    bound, exact = model.bound(x), standard_normal(x)
    assert bound.shape == (400,)
    assert 0 <= float((exact - bound).mean()) < 0.1
    some = torch.stack([model.log_prob(x, bound=True, terms=100) for _ in range(20)]) - bound
    error = float(some.std()) / some.numel() ** 0.5
    assert float(some.mean()) == pytest.approx(0, abs=4 * error + 0.02)
