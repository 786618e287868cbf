"""The tables of DDPM against sequential products, limits and conditioning."""

import math

import pytest
import torch

from pushforward.errors import UsageError
from pushforward.theory import paths
from pushforward.theory.ddpm_schedule import DDPMPath, cosine_betas, linear_betas


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
@pytest.mark.parametrize("T", [10, 100, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_table_is_exact_at_its_nodes(betas, T, dtype):
    """alpha_k^2 = prod(1 - beta), with k = 0 data: sequential product against the table's sums."""
    path, product = DDPMPath(betas(T)), [1.0]
    for beta in betas(T).tolist():
        product.append(product[-1] * (1 - beta))
    t = (torch.arange(T + 1, dtype=torch.float64) / T).to(dtype)
    alpha, sigma = path(t)
    alpha_bar = torch.tensor(product, dtype=torch.float64)
    tol = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(alpha.double(), alpha_bar.sqrt(), rtol=tol, atol=0)
    torch.testing.assert_close(sigma.double(), (1 - alpha_bar).sqrt(), rtol=max(tol, 1e-11), atol=0)
    torch.testing.assert_close(path.alpha_bar(torch.arange(1, T + 1)), alpha_bar[1:])


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
def test_a_table_is_interpolated_without_turning_back(betas):
    path = DDPMPath(betas(20))
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    assert (path.rate(t) >= 0).all() and (path.integral(t).diff() > 0).all()
    torch.testing.assert_close(  # the rate is the slope of the integral, across nodes as well
        path.rate(t)[1:-1],
        (path.integral(t)[2:] - path.integral(t)[:-2]) / (2 * 5e-5),
        rtol=0.02,
        atol=0.02,
    )


def test_the_linear_table_tends_to_the_continuous_path():
    """The table of T steps differs from the integral of beta by O(1/T)."""
    t, limit = torch.linspace(0.05, 1, 20, dtype=torch.float64), paths.VariancePreservingPath()
    gaps = [
        (DDPMPath(linear_betas(T)).integral(t) - limit.integral(t)).abs().max() for T in (500, 1000)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1) and gaps[1] < 0.15


def test_terminal_value_of_the_thousand_step_table():
    """D6: alpha-bar_1000 = 4.0358297e-5, and KL to the prior 2.018e-5 nats at x = 1."""
    alpha_bar = float(DDPMPath(linear_betas(1000)).alpha_bar(1000))
    assert alpha_bar == pytest.approx(4.0358297e-5, rel=1e-7)
    assert (alpha_bar - alpha_bar - math.log1p(-alpha_bar)) / 2 == pytest.approx(2.018e-5, rel=1e-3)


@pytest.mark.parametrize("T", [2, 10, 50, 200, 4000])
@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
def test_every_length_ends_in_noise(betas, T):
    assert DDPMPath(betas(T)).alpha_bar(T) < 1e-2


@pytest.mark.parametrize("T", [10, 50, 100, 200])
def test_a_table_that_keeps_signal_is_refused(T):
    """The unscaled betas of 1,000 steps in fewer: alpha-bar_T = .904, .603, .364, .132 (A49)."""
    with pytest.raises(UsageError, match="rescale") as caught:
        DDPMPath(torch.linspace(1e-4, 0.02, T))
    assert len(str(caught.value)) < 300 and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("k", [0, -1, 101, torch.tensor([1.5]), torch.tensor([1, 101])])
def test_an_index_outside_the_table_is_refused(k):
    path, x = DDPMPath(linear_betas(100)), torch.zeros(2, 1)
    for ask in (path.beta, path.alpha_bar, lambda k: path.posterior(x, x, k)):
        with pytest.raises(UsageError, match="from 1 to 100"):
            ask(k)


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
def test_posterior_by_conditioning_the_joint_gaussian(betas):
    """q(x_{k-1} | x_k, x_0) from the joint law of (x_{k-1}, x_k) given x_0, at both ends too."""
    path, x, x_t = DDPMPath(betas(50)), torch.randn(7, 3).double(), torch.randn(7, 3).double()
    for k in (1, 2, 25, 50):
        before = float(path.alpha_bar(k - 1)) if k > 1 else 1.0
        a = math.sqrt(1 - float(path.beta(k)))  # x_k = a x_{k-1} + sqrt(beta) z
        variance, total = 1 - before, a * a * (1 - before) + float(path.beta(k))
        gain = a * variance / total
        mean = math.sqrt(before) * x + gain * (x_t - a * math.sqrt(before) * x)
        got_mean, got_variance = path.posterior(x, x_t, k)
        torch.testing.assert_close(got_mean, mean, rtol=1e-10, atol=1e-12)
        assert float(got_variance) == pytest.approx(
            variance - gain * a * variance, rel=1e-9, abs=1e-15
        )


def test_posterior_takes_an_index_for_each_datum():
    path, x, x_t = DDPMPath(linear_betas(50)), torch.randn(3, 2, 2), torch.randn(3, 2, 2)
    k = torch.tensor([1, 20, 50])
    mean, variance = path.posterior(x, x_t, k)
    for i in range(3):
        one, spread = path.posterior(x[i : i + 1], x_t[i : i + 1], int(k[i]))
        torch.testing.assert_close(mean[i : i + 1], one)
        torch.testing.assert_close(variance[i].squeeze(), spread.squeeze())


def test_as_many_steps_as_the_table_are_its_chain():
    path = DDPMPath(cosine_betas(50))
    assert torch.equal(path.grid(50), path.chain())
    assert float(path.grid(49)[0]) == path.t_max < 1


@pytest.mark.parametrize("v", [0.0, 0.3, 1.0])
def test_variances_lie_between_those_of_a_point_and_of_noise(v):
    """Log-linear from beta-tilde, by the posterior, to beta; the last step has beta."""
    path, x = DDPMPath(linear_betas(50)), torch.zeros(50, 2).double()
    k = torch.arange(1, 51)
    beta, tilde = path.beta(k), path.posterior(x, x, k)[1][:, 0]
    exact = torch.exp(v * beta.log() + (1 - v) * tilde.log())
    got = path.variance(k, v)
    torch.testing.assert_close(got[1:], exact[1:], rtol=1e-9, atol=0)
    assert got[0] == beta[0]
    each = path.variance(k, torch.full((50, 2, 3), v).double())
    torch.testing.assert_close(each, got[:, None, None].expand(50, 2, 3))
