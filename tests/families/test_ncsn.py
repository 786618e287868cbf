"""NCSN's levels against the formulas of Song & Ermon (2020); its loss and score on Gaussians."""

import math

import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import chi, norm
from torch import nn

from pushforward import families
from pushforward.families.ncsn import NCSN, WIDEST, balanced_snr, data_diameter, level_ratio
from pushforward.model import Event
from pushforward.theory import samplers
from pushforward.theory.exact.dynamics import gaussian_ula


class Network(nn.Module):
    """A network that has learnt N(0, s^2) data: the best target given x_t, scaled as it sees it."""

    def __init__(self, s):
        super().__init__()
        self.s, self.path = s, None

    def forward(self, x, t, c=None):
        sigma = self.path.sigma_min * (self.path.sigma_max / self.path.sigma_min) ** t.double()
        a, b = sigma / torch.hypot(sigma, torch.ones(())), -1 / torch.hypot(sigma, torch.ones(()))
        x_t = torch.hypot(sigma, torch.ones(()).to(sigma))
        gain = (a * self.s**2 + b * sigma) / (self.s**2 + sigma**2) * x_t
        return gain.to(x).reshape(-1, *[1] * (x.ndim - 1)) * x


def model_of(s, shape=(2,), **options):
    net = Network(s)
    model = NCSN(net, shape, **options).double().eval()
    net.path = model.path
    return model


def test_the_largest_level_is_the_largest_distance():
    x = torch.randn(300, 2, 3)
    assert data_diameter(x) == pytest.approx(pdist(x.flatten(1)).max(), rel=1e-5)
    model = families.build("ncsn", Event((2, 3)))
    model.prepare(x)
    grid = model.path.sigma(model.path.grid(model.steps))
    assert float(grid[0]) == pytest.approx(data_diameter(x), rel=1e-6)
    assert float(grid[-2]) == pytest.approx(0.01) and float(grid[-1]) == 0


@pytest.mark.parametrize("d", [1, 2, 64, 784, 3072])
def test_neighbouring_levels_overlap_within_three_deviations(d):
    """Technique 2, against the exact law of a length of noise: half of it is near the next."""
    gamma = level_ratio(d)
    assert 1 < gamma <= WIDEST
    if gamma == WIDEST:
        assert norm.cdf((2 * d) ** 0.5 * (gamma - 1) + 3 * gamma) > 0.5
        return
    # a length of noise of level gamma is gamma chi_d; the next level's is sqrt(d) +- 3 / sqrt(2)
    low, high = math.sqrt(d) - 3 / math.sqrt(2), math.sqrt(d) + 3 / math.sqrt(2)
    near = chi.cdf(high * gamma, d) - chi.cdf(low * gamma, d)  # of level 1 near level gamma
    assert near == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("levels", [None, 7])
def test_levels_fall_by_a_constant_ratio(levels):
    model = families.build("ncsn", Event((5,)), levels=levels)
    model.prepare(torch.randn(100, 5))
    grid = model.path.sigma(model.path.grid(model.steps))[:-1]
    falls = grid[:-1] / grid[1:]
    torch.testing.assert_close(falls, falls[:1].expand_as(falls))
    assert len(grid) == levels if levels else float(falls[0]) <= level_ratio(5) * (1 + 1e-9)


def test_training_spreads_evenly_over_the_logarithm_of_the_noise():
    model = families.build("ncsn", Event((2,)))
    model.prepare(torch.randn(50, 2))
    sigma = model.table[:, 1] / model.table[:, 0]  # of the noise to the signal
    steps = sigma.double().log().diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=0, atol=2e-6)


def test_the_loss_is_denoising_score_matching_weighted_by_the_variance():
    """sigma^2 |s + eps / sigma|^2 = |eps-hat - eps|^2, with the floor s^2 / (s^2 + sigma^2)."""
    s, model = 0.6, model_of(0.6)
    sigma = model.path.sigma(model.path.spaced_times(8192))
    floor = 2 * float((s**2 / (s**2 + sigma**2)).mean())
    losses = torch.stack(
        [model.loss(s * torch.randn(1000, 2).double())["regression"] for _ in range(30)]
    )
    error = float(losses.std()) / math.sqrt(30)
    assert float(losses.mean()) == pytest.approx(floor, abs=5 * error)


def test_the_network_of_the_floor_gives_the_score_of_the_blurred_law():
    """-x / (s^2 + sigma^2), not that of the data (A58)."""
    model, x = model_of(0.6), torch.randn(9, 2).double()
    for t in model.path.grid(6)[:-1]:
        exact = -x / (0.36 + model.path.sigma(t) ** 2)
        torch.testing.assert_close(model.denoiser.score(x, t), exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gamma, corrections", [(1.2, 10), (1.5, 5), (1.03, 3)])
def test_the_step_leaves_each_level_nearest_its_law(gamma, corrections):
    """Technique 4, against the exact law of ULA: no other step ends nearer to variance 1."""

    def left(snr):
        eye, zero = torch.eye(1).double(), torch.zeros(1).double()
        return float(gaussian_ula(eye, 2 * snr**2, corrections, zero, gamma**2 * eye)[1])

    best = balanced_snr(gamma, corrections)
    others = torch.linspace(0.01, 0.7, 400).tolist()
    assert left(best) <= min(left(r) for r in others) + 1e-6
    assert left(best) > 1


def test_the_step_reaches_the_sampler_and_can_be_chosen():
    model = families.build("ncsn", Event((2,)), width=16).eval()
    times = model.path.grid(12)
    chosen = model.sampler_options(samplers.annealed_langevin, times, {"corrections": 4})
    gamma = float(model.path.sigma(times[0]) / model.path.sigma(times[1]))
    assert chosen == {"corrections": 4, "snr": balanced_snr(gamma, 4)}
    assert model.sampler_options(samplers.annealed_langevin, times, {"snr": 0.1}) == {"snr": 0.1}
    assert model.sampler_options(samplers.heun, times, {}) == {}


def test_levels_are_saved_with_the_weights():
    model, other = (families.build("ncsn", Event((2,)), width=16) for _ in range(2))
    model.prepare(5 * torch.randn(100, 2))
    other.load_state_dict(model.state_dict())
    assert other.path.sigma_max == pytest.approx(model.path.sigma_max, rel=1e-6)
    assert other.steps == model.steps and other.denoiser.path is other.path
    torch.testing.assert_close(other.table, model.table)


def test_samples_of_a_perfect_network_have_the_law_of_their_chains():
    """N(0, s^2): the variance of the exact recursion over the levels, and Tweedie's at the end."""
    model, n, s2 = model_of(0.6), 5000, 0.36
    x = model.sample(n)
    grid = model.path.sigma(model.path.grid(model.steps))[:-1].tolist()
    snr, zero = balanced_snr(grid[0] / grid[1], 10), torch.zeros(1).double()
    V = torch.full((1, 1), 1 + grid[0] ** 2).double()
    for sigma in grid:
        law = torch.full((1, 1), s2 + sigma**2).double()
        _, V = gaussian_ula(law, 2 * (snr * sigma) ** 2, 10, zero, V)
    exact = float(V) * (s2 / (s2 + grid[-1] ** 2)) ** 2
    # two dimensions each datum: 5 standard errors of a variance of 2 n numbers
    assert float(x.square().mean()) == pytest.approx(exact, rel=5 * math.sqrt(1 / n))
    assert exact == pytest.approx(s2, rel=0.25)  # the chains' own bias, said in the docs
