"""Transforms against autograd's Jacobian, their own inverse, and an integral of the density."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from pushforward.data import reading, transforms
from pushforward.data.transforms import (
    Chain,
    Dequantise,
    IntegerLevels,
    Standardise,
    Unconstrain,
    Whiten,
    fit_standardisation,
    fit_whitening,
)
from pushforward.errors import DataError, UsageError
from pushforward.model import Preprocessing

RNG = np.random.default_rng(0)
MIX = torch.tensor([[2.0, 0.3, 0.0], [0.0, 0.1, 5.0], [1.0, 0.0, 30.0]], dtype=torch.float64)


def normal(*shape):
    return torch.from_numpy(RNG.standard_normal(shape))


CASES = {
    "standardise": (fit_standardisation(7 + 3 * normal(50, 3)), normal(20, 3)),
    "standardise images": (fit_standardisation(normal(50, 2, 4, 4)), normal(20, 2, 4, 4)),
    "whiten": (fit_whitening(normal(50, 3) @ MIX), normal(20, 3) @ MIX),
    "two bounds": (Unconstrain((0.0, -3.0), (1.0, 5.0)), torch.rand(20, 2, dtype=torch.float64)),
    "lower bound": (Unconstrain((-2.0, None), (None, None)), normal(20, 2).abs()),
    "upper bound": (Unconstrain((None, None), (None, 4.0)), -normal(20, 2).abs()),
    "bounded images": (Unconstrain((0.0,), (1.0,)), torch.rand(20, 2, 2, dtype=torch.float64)),
    "chain": (
        Chain((Unconstrain((0.0, None), (1.0, None)), Standardise((0.1, 3.0), (2.0, 1e-3)))),
        torch.rand(20, 2, dtype=torch.float64),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_log_det_is_that_of_autograds_jacobian(name):
    transform, x = CASES[name]
    _, log_det = transform.forward(x)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda v: transform.forward(v[None])[0][0], x[i]
        )
        exact = torch.linalg.slogdet(jacobian.reshape(x[i].numel(), -1)).logabsdet
        torch.testing.assert_close(log_det[i], exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_inverse_undoes_forward(name):
    """Condition numbers are at most 1e3, so 1e-12 leaves a margin over rounding."""
    transform, x = CASES[name]
    torch.testing.assert_close(
        transform.inverse(transform.forward(x)[0]), x, rtol=1e-12, atol=1e-12 * x.abs().max().item()
    )


@pytest.mark.parametrize("name", CASES)
def test_json_gives_back_the_same_numbers(name):
    transform, x = CASES[name]
    chain = transform if isinstance(transform, Chain) else Chain((transform,))
    again = Chain.from_json(json.loads(json.dumps(chain.to_json(), allow_nan=False)))
    assert again == chain
    assert torch.equal(again.forward(x)[0], transform.forward(x)[0])


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [1],
        [{}],
        [{"kind": "eval"}],
        [{"kind": ["standardise"]}],
        [{"kind": "standardise", "mean": [0.0]}],
        [{"kind": "standardise", "mean": [0.0], "scale": [0.0]}],
        [{"kind": "standardise", "mean": [0.0], "scale": [-1.0]}],
        [{"kind": "standardise", "mean": [float("nan")], "scale": [1.0]}],
        [{"kind": "standardise", "mean": ["0"], "scale": [1.0]}],
        [{"kind": "levels", "low": 0.5, "levels": 3}],
        [{"kind": "levels", "low": 0, "levels": 3, "extra": 1}],
    ],
)
def test_json_of_another_form_is_refused(data):
    with pytest.raises(DataError):
        Chain.from_json(data)


def test_whitening_gives_the_identity_as_covariance():
    x = normal(500, 3) @ MIX + 100
    z, _ = fit_whitening(x).forward(x)
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(3, dtype=z.dtype), rtol=0, atol=1e-11)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=z.dtype), rtol=0, atol=1e-12)


def test_whitening_leaves_uncorrelated_columns_alone():
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double() * 3 + 5
    torch.testing.assert_close(fit_whitening(x).forward(x)[0], fit_standardisation(x).forward(x)[0])


def test_whitening_survives_a_column_that_is_a_sum_of_others():
    x = normal(200, 2)
    x = torch.cat([x, x.sum(1, keepdim=True)], 1)
    whiten = fit_whitening(x)
    z, log_det = whiten.forward(x)
    assert log_det.isfinite().all()
    # the smallest root is 1e-3, so rounding grows by 1e3
    torch.testing.assert_close(whiten.inverse(z), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e-300, 1e-6, 1.0, 1e6, 1e300])
def test_standardising_does_not_overflow(size):
    """The standardised data do not depend on the unit."""
    x = normal(100, 2)
    expected, _ = fit_standardisation(x).forward(x)
    z, log_det = fit_standardisation(size * x).forward(size * x)
    torch.testing.assert_close(z, expected, rtol=1e-10, atol=1e-10)
    assert log_det.isfinite().all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_integers_come_back_exactly(dtype):
    high = 2 if dtype is bool else 17
    x = RNG.integers(0, high, (2000, 3)).astype(dtype)
    samples = reading.read_dataset(x)
    chain = transforms.choose_transform(samples.schema, samples.x)
    z, _ = chain.forward(torch.from_numpy(samples.x))
    restored = samples.schema.restore(chain.inverse(z).numpy())
    np.testing.assert_array_equal(restored, x, strict=True)


@pytest.mark.parametrize("size", [1, 10**3, 10**9, 2**46])
def test_large_integers_survive_the_whole_chain(size):
    x = RNG.integers(-size, size, (20000, 1), endpoint=True)
    samples = reading.read_dataset(x)
    chain = transforms.choose_transform(samples.schema, samples.x)
    z, _ = chain.forward(torch.from_numpy(samples.x))
    np.testing.assert_array_equal(chain.inverse(z).numpy(), x)


def test_dequantised_integers_are_uniform_on_their_cells():
    """A Kolmogorov-Smirnov distance of 100,000 values exceeds 2.2 / sqrt(n) once in 10,000 runs."""
    u, log_det = Dequantise((True,), (4.0,), (4.0,)).forward(
        torch.full((100_000, 1), 4.0, dtype=torch.float64)
    )
    u = (u - 4).flatten().sort().values
    empirical = torch.arange(1, len(u) + 1) / len(u)
    assert (u - empirical).abs().max() < 2.2 / math.sqrt(len(u))
    assert (log_det == 0).all()


def test_only_integer_columns_are_dequantised():
    transform = Dequantise((True, False), (0.0, 0.0), (5.0, 1.0))
    x = torch.stack([torch.arange(6.0), torch.linspace(0, 1, 6)], 1).double()
    z, _ = transform.forward(x)
    assert torch.equal(z[:, 1], x[:, 1]) and not torch.equal(z[:, 0], x[:, 0])
    assert transform.stochastic and not Chain((IntegerLevels(0, 3),)).stochastic


def test_what_a_model_draws_is_clipped_to_the_range_observed():
    transform = Dequantise((True,), (2.0,), (9.0,))
    z = torch.tensor([[-100.0], [2.99], [9.999], [1e9]], dtype=torch.float64)
    assert transform.inverse(z).flatten().tolist() == [2.0, 2.0, 9.0, 9.0]


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("preprocessing", [Preprocessing.STANDARDISE, Preprocessing.WHITEN])
@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (None, 0.0), (-1.0, 1.0)], ids=str)
def test_the_density_integrates_to_one_in_data_units(size, preprocessing, bounds):
    """A standard normal in the model's space, by the trapezoidal rule over points of the data.

    Twenty thousand intervals within 8.5 standard deviations leave an error of order 1e-6.
    """
    low, high = (None if b is None else b * size for b in bounds)
    x = RNG.uniform(-0.9, 0.9, (400, 1)) * size
    x = np.abs(x) if bounds == (0.0, None) else -np.abs(x) if bounds == (None, 0.0) else x
    samples = reading.read_dataset(x, bounds={"0": (low, high)})
    chain = transforms.choose_transform(samples.schema, samples.x, preprocessing)
    nodes = chain.inverse(torch.linspace(-8.5, 8.5, 20001, dtype=torch.float64)[:, None])
    nodes = nodes.sort(0).values
    z, log_det = chain.forward(nodes)
    p = torch.exp(log_det - z[:, 0].square() / 2 - math.log(2 * math.pi) / 2)
    assert torch.trapezoid(p, nodes[:, 0]).item() == pytest.approx(1, abs=5e-6)


def test_bounds_hold_for_whatever_a_model_draws():
    transform = Unconstrain((0.0, 0.0, None), (1.0, None, 0.0))
    z = torch.tensor([-1e9, -800.0, -40.0, 0.0, 40.0, 800.0, 1e9], dtype=torch.float64)
    x = transform.inverse(z[:, None].expand(-1, 3))
    assert x.isfinite().all()
    assert ((x[:, 0] > 0) & (x[:, 0] < 1) & (x[:, 1] > 0) & (x[:, 2] < 0)).all()
    assert transform.forward(x)[0].isfinite().all()


def test_small_distances_from_a_bound_keep_their_digits():
    x = torch.logspace(-300, -1, 50, dtype=torch.float64)[:, None]
    for transform in (Unconstrain((0.0,), (1.0,)), Unconstrain((0.0,), (None,))):
        torch.testing.assert_close(
            transform.inverse(transform.forward(x)[0]), x, rtol=1e-12, atol=0
        )


def test_bounded_integers_fill_the_closed_range():
    """Counts 0..5 dequantised fill (0, 6), both ends of the range included."""
    frame = pd.DataFrame({"n": [0, 5, 2, 3] * 20})
    samples = reading.read_dataset(frame, bounds={"n": (0, 5)})
    chain = transforms.choose_transform(samples.schema, samples.x)
    assert chain.parts[1] == Unconstrain((0.0,), (6.0,))
    z, log_det = chain.forward(torch.from_numpy(samples.x))
    assert z.isfinite().all() and log_det.isfinite().all()
    np.testing.assert_array_equal(chain.inverse(z).numpy(), samples.x)


def test_levels_number_the_integers_from_zero():
    samples = reading.read_dataset(RNG.integers(3, 9, (60, 2, 2)))
    chain = transforms.choose_transform(samples.schema, samples.x, Preprocessing.LEVELS)
    assert chain == Chain((IntegerLevels(3, 6),))
    z, log_det = chain.forward(torch.from_numpy(samples.x))
    assert z.min() == 0 and z.max() == 5 and (log_det == 0).all()
    np.testing.assert_array_equal(chain.inverse(z).numpy(), samples.x)


def test_an_integer_outside_the_levels_has_no_mass():
    x = torch.tensor([[3.0, 4.0], [3.0, 9.0], [2.0, 3.0]], dtype=torch.float64)
    assert IntegerLevels(3, 6).forward(x)[1].tolist() == [0.0, -math.inf, -math.inf]


def test_discrete_models_refuse_other_data():
    samples = reading.read_dataset(RNG.standard_normal((60, 2)))
    with pytest.raises(UsageError, match="whole numbers"):
        transforms.choose_transform(samples.schema, samples.x, Preprocessing.LEVELS)


def test_arrays_share_one_scale_and_vectors_have_their_own():
    images = reading.read_dataset(RNG.random((60, 4, 4)))
    chain = transforms.choose_transform(images.schema, images.x, Preprocessing.WHITEN)
    assert len(chain.parts[-1].mean) == 1
    points = reading.read_dataset(RNG.random((60, 4)))
    chain = transforms.choose_transform(points.schema, points.x, Preprocessing.WHITEN)
    assert isinstance(chain.parts[-1], Whiten) and len(chain.parts[-1].mean) == 4
