"""EDM's preconditioning, levels and grid against Karras et al. (2022), table 1."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from pushforward import families
from pushforward.families.edm import lognormal_times
from pushforward.model import Event
from pushforward.theory import paths


class Recorder(nn.Module):
    """A network that remembers its inputs and gives a fixed output."""

    def forward(self, x, t, c=None):
        self.x, self.t = x, t
        return torch.sin(3 * x) + t.reshape(-1, *[1] * (x.ndim - 1))


class Zero(nn.Module):
    """The network of standard normal data."""

    def __init__(self):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()).double())

    def forward(self, x, t, c=None):
        return self.zero * x


def model_with(net, **options):
    model = families.build("edm", Event((2,)), **options).double().eval()
    model.denoiser.net = net
    return model


def test_levels_are_lognormal():
    """Within the ends they are the quantiles of SciPy's truncated normal law of log sigma."""
    path = paths.EDMPath(80.0, 0.002)
    got = (lognormal_times(path, -0.5, 1.2, 999) * 80).log()
    ends = [(math.log(end) + 0.5) / 1.2 for end in (0.002, 80.0)]
    law = stats.truncnorm(*ends, loc=-0.5, scale=1.2)
    torch.testing.assert_close(got, torch.from_numpy(law.ppf((np.arange(999) + 0.5) / 999)))


def test_the_denoiser_is_preconditioned_as_published():
    """D = c_skip x + c_out F(c_in x) with sigma_data = 1, and the loss lambda c_out^2 = 1."""
    model = model_with(Recorder())
    x = torch.randn(7, 2).double()
    for t in model.path.grid(5)[:-1]:
        sigma = float(model.path.sigma(t))
        c_skip, c_out, c_in = (
            1 / (1 + sigma**2),
            sigma / (1 + sigma**2) ** 0.5,
            (1 + sigma**2) ** -0.5,
        )
        got = model.denoiser(x, t).x
        net = model.denoiser.net
        torch.testing.assert_close(net.x, c_in * x)
        F = torch.sin(3 * c_in * x) + net.t
        torch.testing.assert_close(got, c_skip * x + c_out * F, rtol=1e-9, atol=1e-9)


def test_the_loss_is_the_published_one():
    """E lambda |D(x + sigma eps) - x|^2, lambda = (sigma^2 + 1) / sigma^2, on equal noise."""
    model, x = model_with(Recorder()), torch.randn(4096, 2).double()
    torch.manual_seed(3)
    got = model.loss(x)["regression"]
    torch.manual_seed(3)
    eps, k = torch.randn_like(x), torch.randint(8192, (1,))
    t = model.path.t_max * lognormal_times(model.path, *LAW)
    t = t[(torch.arange(4096) * 8192 // 4096 + k) % 8192]
    sigma = model.path.sigma(t)
    error = model.denoiser(x + sigma[:, None] * eps, t).x - x
    exact = (((sigma**2 + 1) / sigma**2)[:, None] * error**2).sum(1).mean()
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=0)


LAW = (families.family_options("edm")["p_mean"], families.family_options("edm")["p_std"])


@pytest.mark.parametrize("sampler, own", [("heun", 0.01), ("ipndm", 0.01), ("ddim", 0.15)])
def test_an_untrained_network_of_zeros_draws_a_standard_normal_law(sampler, own):
    """F = 0 is exact for N(0, I) data: what remains is the solver's error."""
    model, n = model_with(Zero()), 20_000
    x = model.sample(n, sampler=sampler, steps=60)
    assert float(x.var()) == pytest.approx(
        1, rel=5 * math.sqrt(1 / n) + (0.06 if sampler == "ddim" else 0.01)
    )


def test_the_density_of_an_untrained_network_of_zeros_is_standard_normal():
    x = torch.randn(20, 2).double()
    exact = torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    # the flow's density is that of data blurred by sigma_min
    torch.testing.assert_close(model_with(Zero()).log_prob(x), exact, rtol=0, atol=2e-4)


def test_negative_means_of_the_levels_can_be_given():
    model = families.build("edm", Event((2,)), p_mean=-1.2)
    sigma = model.table[:, 1] / model.table[:, 0]
    assert float(sigma.median().log()) == pytest.approx(-1.2, abs=0.01)
