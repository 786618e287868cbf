"""Claims of 6.1: continuous normalizing flows, their densities and their gradients."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from ....errors import OdeError
from ....shapes import standard_normal_log_prob
from ....theory import densities, ode
from ...claims import Claim, Evidence, Number, Verdict, double

UNIT = double(0.0, 1.0)
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
TURN = torch.tensor([[0.3, -0.5], [0.4, 0.1]], dtype=torch.float64)  # x' = x A


def _measure_linear_flow() -> Evidence:
    x = torch.randn(5, 2, dtype=torch.float64)
    found = densities.flow_log_density(
        lambda x, t: x @ TURN, x, UNIT, standard_normal_log_prob, **TIGHT
    ).value
    flow = torch.linalg.matrix_exp(TURN)
    back = torch.linalg.inv(flow)
    exact = MultivariateNormal(x.new_zeros(2), back.mT @ back).log_prob(x)
    what = r"mean of $\log p(x)$ at five points of $\dot x = Ax$ (nats)"
    carried = float(standard_normal_log_prob(x @ flow).mean())
    return Evidence(
        [Number(what, float(found.mean()), carried)],
        [
            Number(what, float(found.mean()), float(exact.mean()), 1e-8),
            Number(
                "largest error at one of them (nats)", float((found - exact).abs().max()), 0, 1e-8
            ),  # fmt: skip
        ],
    )


def _measure_cubic_flow() -> Evidence:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    field = lambda x, t: x - x**3  # noqa: E731
    z, (trace, _, _) = densities.integrate_with_divergence(field, x, UNIT, **TIGHT)
    q = 1 + x[:, 0].square() * (math.exp(2) - 1)
    end = x * math.e / q.sqrt()[:, None]
    again, (undone, _, _) = densities.integrate_with_divergence(field, end, UNIT.flip(0), **TIGHT)
    state = float((z - end).abs().max())
    volume = float((trace - 1 + 1.5 * q.log()).abs().max())
    back = float((again - x).abs().max() + (trace + undone).abs().max())
    return Evidence([
        Number(r"error of the state of $\dot x = x - x^3$ at t = 1", state, 0, 1e-7),
        Number("error of its log-determinant (nats)", volume, 0, 1e-7),
        Number("error of state and log-determinant there and back", back, 0, 1e-7),
    ])  # fmt: skip


def _measure_blow_up() -> Evidence:
    """A field that grows with the square of x leaves every bound before t = 1."""
    field, x = lambda x, t: x.square(), torch.full((1, 1), 2.0, dtype=torch.float64)
    early = float(ode.final_state(ode.dormand_prince(field, x, double(0.0, 0.25), **TIGHT)))
    try:
        whole = int(ode.final_state(ode.dormand_prince(field, x, UNIT, **TIGHT)).isfinite())
    except OdeError:
        whole = 0
    what = r"solutions of $\dot x = x^2,\ x(0) = 2$ that reach t = 1"
    return Evidence(
        [Number(what, whole, 1)],
        [
            Number(what, whole, 0),
            Number(r"the solution at t = 1/4, $x_0 / (1 - x_0 t)$", early, 4, 1e-7),
        ],
    )


def _measure_hutchinson_bias() -> Evidence:
    r"""All four probes of a 2x2 Jacobian: :math:`z^\top A z = \operatorname{tr} A \pm s`."""
    a = torch.tensor([[0.3, 1.0], [0.55, -0.5]], dtype=torch.float64)
    signs = torch.cartesian_prod(double(-1.0, 1.0), double(-1.0, 1.0))[:, None]
    x = torch.zeros(1, 2, dtype=torch.float64)
    _, found = densities.hutchinson_divergence(lambda x, t: x @ a, x, UNIT[0], signs)
    trace, off = -0.2, 1.55
    mean, factor = float(found.mean()), float(torch.exp(-found).mean())
    what = r"mean of $e^{-z^\top A z}$, the factor of the density"
    return Evidence(
        [
            Number(r"mean of $z^\top A z$ over all signs (nats)", mean, trace, 1e-12),
            Number(what, factor, math.exp(-trace), 1e-9),
        ],
        [
            Number(r"mean of $z^\top A z$ over all signs (nats)", mean, trace, 1e-12),
            Number(what, factor, math.exp(-trace) * math.cosh(off), 1e-9),
        ],
    )


def _flow_loss_gradient(net: nn.Module, run: ode.Integrator) -> tuple[float, list[Tensor]]:
    """A loss of where a network's flow ends, and its gradient in the weights."""
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(4, 2)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return net(torch.cat([x, t.expand(len(x), 1)], dim=1))

    end = ode.final_state(run(field, x, torch.linspace(0, 1, 33, dtype=torch.float64)))
    loss = end.square().sum()
    return float(loss.detach()), list(torch.autograd.grad(loss, list(net.parameters())))


def _measure_adjoint_gradient() -> Evidence:
    """By the adjoint method, through the steps, and by a difference of losses."""
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    weights = list(net.parameters())
    _, direct = _flow_loss_gradient(net, ode.rk4)
    _, found = _flow_loss_gradient(net, ode.adjoint_integrator(ode.rk4, weights))
    difference = max(float((a - b).abs().max()) for a, b in zip(direct, found))
    losses = []
    for h in (1e-5, -2e-5):
        with torch.no_grad():
            weights[0][2, 1] += h
        losses.append(_flow_loss_gradient(net, ode.rk4)[0])
    slope = (losses[0] - losses[1]) / 2e-5
    return Evidence([
        Number("largest difference of adjoint and direct gradients", difference, 0, 1e-6),
        Number("adjoint gradient of one weight less a difference quotient",
               float(found[0][2, 1]) - slope, 0, 1e-6),
    ])  # fmt: skip


CLAIMS = [
    Claim(
        "6.1-density",
        r"An ODE transforms noise into data; to know where points go is to know the model.",
        Verdict.ONLY_IF,
        _measure_linear_flow,
        "theory.densities.flow_log_density",
        right=r"The density changes on the way, and its equation is part of the model: "
        r"$\log p$ loses the divergence of the field.",
        formula=r"\frac{d}{dt} \log p_t(x_t) = -\operatorname{tr} \partial_x f_\theta(x_t, t)",
        covers="A63 R54",
    ),
    Claim(
        "6.1-invertible",
        r"The flow of a smooth field $f_\theta$ is a transformation of the space.",
        Verdict.HOLDS,
        _measure_cubic_flow,
        "theory.densities.integrate_with_divergence",
        formula=r"x_t = \frac{x_0 e^t}{\sqrt q},\quad \int \operatorname{tr}\partial_x f\,dt "
        r"= t - \tfrac32 \log q,\quad q = 1 + x_0^2(e^{2t} - 1)",
        covers="R54",
    ),
    Claim(
        "6.1-lipschitz",
        r"Any network may be the field $f_\theta$.",
        Verdict.ONLY_IF,
        _measure_blow_up,
        "theory.ode.dormand_prince",
        right=r"The field must be Lipschitz in $x$: otherwise solutions may end early or split.",
        covers="A63",
    ),
    Claim(
        "6.1-hutchinson",
        r"A random estimate of the trace can replace the trace in the density.",
        Verdict.ONLY_IF,
        _measure_hutchinson_bias,
        "theory.densities.hutchinson_divergence",
        right=r"It is unbiased for $\log p$, which is what training needs. In $p$ it is biased "
        r"upwards, by Jensen's inequality.",
        formula=r"\mathbb E\,z^\top A z = \operatorname{tr} A,\qquad "
        r"\mathbb E\,e^{-z^\top A z} = e^{-\operatorname{tr} A} \cosh(A_{12} + A_{21})",
        covers="A63 R54",
    ),
    Claim(
        "6.1-adjoint",
        r"A neural network can be trained as the field of an ODE.",
        Verdict.HOLDS,
        _measure_adjoint_gradient,
        "theory.ode.final_state",
        formula=r"\dot a = -a^\top \partial_x f_\theta,\qquad "
        r"\dot g = -a^\top \partial_\theta f_\theta",
        covers="R54",
    ),
]
