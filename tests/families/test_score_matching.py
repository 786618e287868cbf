"""Score matching without noise: the fitted score, and what its chains draw, on known laws."""

import math

import pytest
import torch
from torch import nn

from pushforward import families
from pushforward.errors import UsageError
from pushforward.families.score_matching import OBJECTIVES, ScoreMatching
from pushforward.model import Event, Recipe
from pushforward.theory.exact.targets import Gaussian
from pushforward.training.trainer import Trainer, random_batches

COVARIANCE = torch.tensor([[1.0, 0.5], [0.5, 0.6]])
LAW = Gaussian(torch.zeros(2), COVARIANCE)


class Quadratic(nn.Module):
    """f with which E is x P x / 2, P a symmetric matrix that learns."""

    def __init__(self, precision=None):
        super().__init__()
        self.precision = nn.Parameter(torch.eye(2) if precision is None else precision)

    def forward(self, x, c=None):
        P = (self.precision + self.precision.T) / 2
        return (x.square().sum(1) - ((x @ P) * x).sum(1))[:, None] / 2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_finds_the_precision_of_a_gaussian(name):
    """P = S^-1, of the blurred law for denoising (A58): (S + noise^2 I)^-1 (1 + noise^2).

    The optimum on the sample is known: for the implicit loss the inverse of its second moments,
    about which the noisy objectives wander by the size of their last steps.
    """
    x = LAW.sample(4000)
    model = ScoreMatching(Quadratic(), (2,), objective=OBJECTIVES[name], noise=0.5)
    trainer = Trainer(model, Recipe(batch=2000, lr=0.05, ema=0.98), 200)
    for _ in trainer.run(random_batches(x, 2000)):
        pass
    blur = 0.25 if name == "denoising" else 0.0
    exact = torch.linalg.inv((x.T @ x / len(x) + blur * torch.eye(2)) / (1 + blur))
    got = trainer.average.net.precision.detach()
    torch.testing.assert_close((got + got.T) / 2, exact, rtol=0, atol=0.1)
    assert (got - torch.linalg.inv(COVARIANCE)).norm() < 0.3 or name == "denoising"


def exact_model(**options):
    return ScoreMatching(Quadratic(torch.linalg.inv(COVARIANCE)), (2,), **options).eval()


@pytest.mark.parametrize("sampler", ["mala", "ula"])
def test_chains_settle_at_the_law_of_the_energy(sampler):
    """MALA exactly; ULA with the covariance of its step, S (I - h S^-1 / 2)^-1."""
    h, n = 0.1, 20_000
    x = exact_model().sample(n, sampler=sampler, steps=120, h=h).double()
    S = COVARIANCE.double()
    if sampler == "ula":
        S = torch.linalg.solve(torch.eye(2).double() - h / 2 * torch.linalg.inv(S), S)
    # 5 standard errors of an entry of a covariance, at most sqrt(2 / n) times the variances
    bar = 5 * math.sqrt(2 / n) * float(S.max())
    torch.testing.assert_close(x.T.cov(), S, rtol=0, atol=bar)
    assert float(x.mean(0).abs().max()) < 5 * math.sqrt(float(S.max()) / n)


def test_chains_choose_a_stable_step():
    assert exact_model().sample(500, sampler="ula", steps=400).abs().max() < 10


def test_a_step_beyond_the_limit_is_refused():
    limit = 2 * float(torch.linalg.eigvalsh(COVARIANCE).min())
    with pytest.raises(UsageError, match=f"2/L = {limit:.3g}"):
        exact_model().sample(10, h=1.1 * limit)


class Flat(nn.Module):
    """f = 0, with which the energy is that of the Gaussian fitted to the data."""

    def forward(self, x, c=None):
        return 0 * x.flatten(1).sum(1, keepdim=True)


def test_without_a_correction_it_is_the_gaussian_fitted_to_the_data():
    """Its score is -S^-1 (x - m), and chains start, and stay, at N(m, S)."""
    x = 0.5 + torch.randn(20_000, 2) @ torch.linalg.cholesky(COVARIANCE).T
    model = ScoreMatching(Flat(), (2,))
    model.prepare(x)
    S = x.T.cov()
    expected = -(x - x.mean(0)) @ torch.linalg.inv(S)
    torch.testing.assert_close(model.score(x), expected, rtol=0, atol=0.02)
    drawn = model.sample(20_000, steps=4)
    torch.testing.assert_close(drawn.T.cov(), S, rtol=0, atol=5 * math.sqrt(2 / 20_000))


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_short_chains_take_all_their_steps(steps):
    model, calls = exact_model(), []
    model.net.register_forward_hook(lambda *_: calls.append(None))
    model.sample(3, sampler="ula", steps=steps)
    assert len(calls) == steps + min(steps, 4)  # and one look at the curvature a stage


def test_guidance_mixes_energies():
    """w = 0 is the unconditional energy, 1 the conditional; in between and beyond a line."""
    model = families.build("score_matching", Event((2,), 3)).eval()
    x, c = torch.randn(9, 2), torch.eye(3)[[0] * 9]
    free, known = model.energy(x), model.energy(x, c)
    assert not torch.allclose(free, known)
    for w in (0.0, 1.0, 2.5):
        torch.testing.assert_close(model.guided_energy(w)(x, c), free + w * (known - free))


def test_the_score_is_the_gradient_of_the_energy():
    model = families.build("score_matching", Event((2, 2)), width=16).double().eval()
    x, h = torch.randn(4, 2, 2).double(), 1e-6
    for i in range(4):
        e = torch.zeros(4).double()
        e[i] = h
        e = e.view(2, 2)
        slope = (model.energy(x + e) - model.energy(x - e)) / (2 * h)
        torch.testing.assert_close(-slope, model.score(x).flatten(1)[:, i], rtol=1e-6, atol=1e-7)


def test_a_model_without_an_unknown_objective_or_sampler():
    with pytest.raises(UsageError, match="choose from sliced, implicit, denoising"):
        families.build("score_matching", Event((2,)), objective="other")
    with pytest.raises(UsageError, match="choose from mala, ula"):
        exact_model().sample(3, sampler="hmc")
