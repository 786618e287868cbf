"""Whitening against scikit-learn's shrunk correlation, autograd's Jacobian and its own inverse."""

import pytest
import torch
from sklearn.covariance import ledoit_wolf

from pushforward.networks import whitening
from pushforward.networks.whitening import LEAST, Whitening

MIXING = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, 1.0, 0.1]], dtype=torch.float64)


def fitted(x):
    layer = Whitening(x.shape[1:]).double()
    layer.fit(x)
    return layer


@pytest.mark.parametrize("rows", [2000, 2])
def test_white_noise_becomes_the_gaussian_fitted_to_the_data(rows):
    """Its covariance is D R D, R Ledoit and Wolf's; with fewer data than dimensions as well."""
    x = torch.randn(rows, 3).double() @ MIXING.T + 5
    layer = fitted(x)
    scale = x.std(0, correction=0)
    expected = torch.as_tensor(ledoit_wolf((x - x.mean(0)) / scale, assume_centered=True)[0])
    root = layer.inverse(torch.eye(3).double()) - layer.inverse(torch.zeros(3, 3).double())
    torch.testing.assert_close(
        root.T @ root, expected * torch.outer(scale, scale), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(layer.inverse(torch.zeros(1, 3).double())[0], x.mean(0))


def test_many_data_become_white():
    x = torch.randn(20_000, 2).double() @ MIXING[:2, :2].T
    z = fitted(x)(x)
    torch.testing.assert_close(z.T.cov(), torch.eye(2).double(), rtol=0, atol=0.01)


@pytest.mark.parametrize("full", [1024, 3])
def test_it_is_a_bijection_whose_determinant_is_autograds(full, monkeypatch):
    """Of images too, with correlations and without."""
    monkeypatch.setattr(whitening, "FULL", full)
    layer = fitted(torch.randn(50, 2, 2).double().cumsum(1))
    x = torch.randn(4, 2, 2).double()
    torch.testing.assert_close(layer.inverse(layer(x)), x)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0].flatten(), x[0])
    torch.testing.assert_close(jacobian.view(4, 4).slogdet().logabsdet, layer.log_det)


def test_constant_and_repeated_columns_have_an_inverse():
    x = torch.randn(100, 1).double() * torch.tensor([1.0, 1.0, 0.0])
    layer = fitted(x)
    assert layer.log_det.isfinite() and layer(x).isfinite().all()
    assert float(layer.scale[2]) == pytest.approx(LEAST)
    torch.testing.assert_close(layer.inverse(layer(x)), x)
