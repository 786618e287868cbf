r"""The adjoint method: the gradient of an ODE's solution, by an ODE (Chen et al., 2018).

For :math:`\dot x = v_\theta(x, t)` and a loss L of the states, :math:`a = \partial L/\partial x_t`
and the gradient :math:`g` of the weights obey

.. math:: \dot a = -a^\top \partial_x v, \qquad \dot g = -a^\top \partial_\theta v

and are integrated backwards beside the state, which starts again from the stored one at each time.
Memory holds one state a time instead of the graph of every evaluation. The gradient is that of the
exact flow: it differs from the derivative of the discrete steps by the error of the integrator.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .ode import Field, Integrator, final_state


def adjoint_integrator(integrator: Integrator, weights: Iterable[Tensor]) -> Integrator:
    """The same integrator with gradients by the adjoint method.

    Arguments:
        integrator: Of fixed or of adaptive steps; it also integrates backwards.
        weights: Everything besides the state that the field depends on and that learns.
    """
    learning = tuple(w for w in weights if w.requires_grad)

    def integrate(v: Field, x: Tensor, times: Tensor) -> Iterator[Tensor]:
        yield from AdjointFunction.apply(v, integrator, times, x, *learning)

    return integrate


class AdjointFunction(torch.autograd.Function):
    """The states at ``times[1:]``, ``(len(times) - 1, *x.shape)``."""

    @staticmethod
    def forward(
        ctx: Any, v: Field, integrator: Integrator, times: Tensor, x: Tensor, *weights: Tensor
    ) -> Tensor:
        """Integrate, and keep the states."""
        states = torch.stack([x, *integrator(v, x, times)])
        ctx.v, ctx.integrator = v, integrator
        ctx.save_for_backward(times, states, *weights)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Integrate the adjoint backwards from stop to stop."""
        times, states, *weights = ctx.saved_tensors
        sizes = [w.numel() for w in weights]
        back = adjoint_field(ctx.v, states[0], weights)
        a, g = torch.zeros_like(states[0]).flatten(), states.new_zeros(sum(sizes))
        for i in reversed(range(len(slopes))):
            a = a + slopes[i].flatten()
            state = torch.cat([states[i + 1].flatten(), a, g])
            state = final_state(ctx.integrator(back, state, times[[i + 1, i]]))
            _, a, g = state.split([len(a), len(a), len(g)])
        parts = [part.view_as(w) for part, w in zip(g.split(sizes), weights, strict=True)]
        return None, None, None, a.view_as(states[0]), *parts


def adjoint_field(v: Field, like: Tensor, weights: list[Tensor]) -> Field:
    """The field of state, adjoint and gradient in one vector; a state has the shape of ``like``."""
    size = like.numel()

    def field(state: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = state[:size].view_as(like).detach().requires_grad_()
            y = v(x, t)
            a = state[size : 2 * size].view_as(like)
            rates = torch.autograd.grad(y, [x, *weights], -a, materialize_grads=True)
        return torch.cat([z.flatten() for z in (y.detach(), *rates)])

    return field
