"""The continuous flow: closed forms, gradients, and an accurate solver for scores."""

import math
import warnings

import pytest
import torch
from torch import nn

from pushforward import families
from pushforward.errors import UsageError
from pushforward.families.cnf import CNF, INTEGRATORS, TrainingSolver
from pushforward.model import Event
from pushforward.shapes import standard_normal_log_prob
from pushforward.theory import ode
from pushforward.theory.ode import adjoint_integrator
from pushforward.training.trainer import Trainer, random_batches


class Field(nn.Module):
    """A field in closed form in place of a network."""

    def __init__(self, v):
        super().__init__()
        self.v, self.scale = v, nn.Parameter(torch.ones(()))

    def forward(self, x, t, c=None):
        t = t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t
        return self.scale * self.v(x, t)


def small(**options):
    torch.manual_seed(0)
    model = families.build("cnf", Event((2,)), width=16, **options).double()
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    return model


A = torch.tensor([[0.3, -0.8, 0.1], [0.5, -0.2, 0.4], [0.0, 0.6, 0.5]], dtype=torch.float64)
B = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64)


def test_linear_flow_has_its_closed_form(float64):
    """D9: x' = Ax + b to t = 1 is e^A x + (e^A - 1) A^-1 b, with log-determinant tr A."""
    model, x = CNF(Field(lambda x, t: x @ A.T + B), (3,)), torch.randn(9, 3)
    E = torch.linalg.matrix_exp(A)
    z = x @ E.T + torch.linalg.solve(A, (E - torch.eye(3)) @ B)
    torch.testing.assert_close(model.encode(x, tolerance=1e-10), z)
    found = model.score(x, tolerance=1e-8)
    torch.testing.assert_close(
        found.value, standard_normal_log_prob(z) + A.trace(), rtol=0, atol=1e-6
    )
    assert found.solver_error < 1e-6 and not found.standard_error.any()


def test_cubic_flow_has_its_closed_form(float64):
    """D9: x' = x - x^3 has x e^t / sqrt(q) and log-determinant t - 1.5 log q."""
    model, x = CNF(Field(lambda x, t: x - x**3), (1,)), torch.linspace(-2, 2, 9)[:, None]
    q = 1 + x**2 * (math.e**2 - 1)
    z = x * math.e / q.sqrt()
    torch.testing.assert_close(model.encode(x, tolerance=1e-10), z)
    exact = standard_normal_log_prob(z) + 1 - 1.5 * q[:, 0].log()
    torch.testing.assert_close(model.log_prob(x, tolerance=1e-8), exact, rtol=0, atol=1e-6)


def test_decoding_undoes_encoding(float64):
    model, x = small(), torch.randn(20, 2)
    torch.testing.assert_close(
        model.decode(model.encode(x, tolerance=1e-9), tolerance=1e-9), x, rtol=0, atol=1e-7
    )


def test_density_integrates_to_one(float64):
    """D9, on a grid of 89^2 points."""
    side = torch.linspace(-11, 11, 89)
    log_p = small().log_prob(torch.cartesian_prod(side, side), tolerance=1e-5)
    assert float(log_p.exp().sum() * 0.25**2) == pytest.approx(1, abs=1e-5)


def test_samples_have_the_density_that_is_scored(float64):
    r"""E of log p over samples by quadrature: :math:`\int p \log p`; bar 5 standard errors."""
    model = small()
    side = torch.linspace(-11, 11, 89)
    grid = model.log_prob(torch.cartesian_prod(side, side), tolerance=1e-4)
    exact = float((grid.exp() * grid).sum() * 0.25**2)
    drawn = model.log_prob(model.sample(2000), tolerance=1e-4)
    assert abs(float(drawn.mean()) - exact) < 5 * float(drawn.std()) / 2000**0.5


def gradient(model, x):
    torch.manual_seed(5)
    loss = sum(model.loss(x).values())
    return torch.autograd.grad(loss, list(model.parameters())), float(loss.detach())


@pytest.mark.parametrize(("integrator", "steps"), [("rk4", 48), ("adaptive", 2)])
def test_adjoint_direct_and_finite_difference_gradients_of_the_loss_agree(
    float64, integrator, steps, monkeypatch
):
    """D9 to 1e-6, on the same random times."""
    monkeypatch.setitem(
        INTEGRATORS,
        "adaptive",
        lambda v, x, times: ode.dormand_prince(v, x, times, rtol=1e-10, atol=1e-10),
    )
    x, options = torch.randn(6, 2), {"integrator": integrator, "solver_steps": steps}
    direct, by_adjoint = small(**options), small(**options, gradient="adjoint")
    assert by_adjoint.solver.gradient is adjoint_integrator
    found, _ = gradient(by_adjoint, x)
    for a, b in zip(gradient(direct, x)[0], found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    h, weight, values = 1e-5, by_adjoint.net.layers[1][0].weight, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[2, 1] += sign * h
        values.append(gradient(by_adjoint, x)[1])
        with torch.no_grad():
            weight[2, 1] -= sign * h
    i = [p is weight for p in by_adjoint.parameters()].index(True)
    slope = (values[0] - values[1]) / (2 * h)
    assert float(found[i][2, 1]) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("probes", [0, 2])
def test_the_loss_estimates_the_likelihood_without_bias(float64, probes):
    """Over many draws of the times and signs; with enough steps only they are random."""
    model, x = small(solver_steps=8, probes=probes), torch.randn(100, 2)
    exact = -float(model.log_prob(x, tolerance=1e-7).mean())
    with torch.no_grad():
        found = torch.stack([model.loss(x)["nll"] for _ in range(30)])
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / 30**0.5 + 1e-5


def bunched(x, t):
    """A swelling that steps of 1/4 from t = 0, 1/4, ... see as five times what it is."""
    return 4 * x * torch.cos(4 * math.pi * t) ** 16


def test_gains_from_a_coarse_solver_are_caught(float64):
    """D9: four Euler steps beat the entropy by 2.4 nats; neither the score nor the loss does.

    They swell by 2^4 and count a log-determinant of 8, so that data of deviation 1/16 seem to have
    2.4 nats less than their entropy; in truth the swelling is e^0.79.
    """
    x = torch.randn(4000, 2) / 16
    entropy = math.log(2 * math.pi * math.e) - 2 * math.log(16)
    model = CNF(Field(bunched), (2,), solver=TrainingSolver(ode.euler, steps=4))
    coarse = model.solve_log_density(x, None, torch.linspace(0, 1, 5), integrator=ode.euler)
    assert float(-coarse.value.mean()) < entropy - 2
    error = 4 / 4000**0.5
    assert float(-model.score(x).value.mean()) > entropy - error
    with torch.no_grad():
        losses = torch.stack([model.loss(x[:1000])["nll"] for _ in range(40)])
    assert float(losses.mean()) > entropy - 4 * float(losses.std()) / 40**0.5 - error


def test_steps_too_coarse_for_the_field_are_diagnosed(float64):
    """x' = 3x by two Euler steps swells by (5/2)^2, the flow by e^3: the base density of 0.1 N
    differs by 0.01 (e^6 - (5/2)^4) nats in two dimensions, and the log-determinant does not."""
    model = CNF(Field(lambda x, t: 3 * x), (2,), solver=TrainingSolver(ode.euler, steps=2))
    x = 0.1 * torch.randn(64, 2)
    model.draw_times = lambda x: torch.linspace(0, 1, 3)
    exact = float(x.square().sum(1).mean()) / 2 * (math.e**6 - 2.5**4)
    assert model.diagnosis(x)["solver_error"] == pytest.approx(exact, rel=1e-3)
    assert abs(small(solver_steps=16).diagnosis(x)["solver_error"]) < 0.05


def test_an_uncertain_density_is_said_to_be_so(float64):
    """A burst that an adaptive solver steps over at its first tolerance and meets at the second."""
    burst = CNF(Field(lambda x, t: 40 * x * torch.exp(-(((t - 0.53) / 0.02) ** 2))), (1,))
    x = 0.1 * torch.randn(50, 1)
    found = burst.score(x, tolerance=1e-2)
    assert found.solver_error > 0.01
    with pytest.warns(UserWarning, match="solver's error is"):
        burst.log_prob(x, tolerance=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().log_prob(torch.randn(20, 2))


def test_halving_the_tolerance_changes_little(float64):
    """RELIABILITY D4: at most 1e-3 nats a dimension."""
    model, x = small(), torch.randn(60, 2)
    a, b = (model.log_prob(x, tolerance=t) for t in (1e-5, 5e-6))
    assert (a - b).abs().max() < 1e-3 * 2


def test_exact_trace_and_hutchinson_agree():
    """RELIABILITY D4: 64 probes within 3 standard errors, but for 0.3 % of the data."""
    torch.manual_seed(0)
    model, x = small().float(), torch.randn(60, 2)
    exact, found = model.score(x), model.score(x, probes=64)
    assert ((exact.value - found.value).abs() > 3 * found.standard_error + 1e-4).sum() <= 2


@pytest.mark.slow
def test_an_unknown_condition_is_learned_too():
    """Two classes at -1 and 1: without the condition the density is that of the mixture."""
    torch.manual_seed(0)
    label = torch.arange(2000) % 2
    x = (2.0 * label - 1)[:, None] + 0.5 * torch.randn(2000, 1)
    c = torch.cat([torch.ones(2000, 1), torch.eye(2)[label]], dim=1)
    model = families.build("cnf", Event((1,), 3), width=32)
    model.unconditional = 0.5
    model.prepare(x, c)
    trainer = Trainer(model, model.recipe._replace(lr=1e-2), 400)
    for _ in trainer.run(random_batches(x, 128, c)):
        pass
    model = trainer.average.eval()
    grid = torch.linspace(-3, 3, 61)[:, None]
    bells = torch.stack([torch.exp(-((grid[:, 0] - m) ** 2) / 0.5) for m in (-1, 1)])
    bells = bells / (0.5 * (2 * math.pi) ** 0.5)
    for given, exact in ((None, bells.mean(0)), (c[:1].expand(61, 3), bells[0])):
        error = (model.log_prob(grid, given).exp() - exact).abs().sum() * 0.1
        assert error < 0.15, given


def test_choices_that_do_not_exist_are_named():
    for option in ("integrator", "gradient"):
        with pytest.raises(UsageError, match=f"{option} is 'good'"):
            families.build("cnf", Event((2,)), **{option: "good"})


def test_it_starts_as_the_gaussian_fitted_to_the_data():
    """Density and draws are those of N(m, S) before training; encoding is undone by decoding."""
    S = torch.tensor([[1.0, 0.5], [0.5, 0.6]])
    x = 2 + torch.randn(20_000, 2) @ torch.linalg.cholesky(S).T
    model = families.build("cnf", Event((2,)))
    model.prepare(x)
    law = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    torch.testing.assert_close(model.log_prob(x[:50]), law.log_prob(x[:50]), rtol=0, atol=0.02)
    torch.testing.assert_close(-model.loss(x)["nll"], law.log_prob(x).mean(), rtol=0, atol=0.02)
    torch.testing.assert_close(model.decode(model.encode(x[:50])), x[:50])
    drawn = model.sample(20_000)
    torch.testing.assert_close(drawn.T.cov(), S, rtol=0, atol=5 * math.sqrt(2 / 10_000))
