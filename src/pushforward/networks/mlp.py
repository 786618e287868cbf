r"""Networks for vectors: a plain multilayer perceptron, and one of :math:`(x, t, c)`."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..shapes import Condition, Data, Times


def mlp(*widths: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers of the given widths with activations in between."""
    layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), activation())]
    return nn.Sequential(*layers[:-1])


class TimeMLP(nn.Module):
    r"""A perceptron of :math:`(x, t, c)` in which time and condition shift the first layer.

    .. math:: h = W x + U\,[\cos\omega t, \sin\omega t] + V c, \qquad \omega = \pi(1, \dots, F)

    A scalar ``t`` is embedded once for the whole batch, so a sampler's step costs little more than
    the layers themselves.

    Arguments:
        event_shape: The shape of one datum; it is flattened inside.
        condition: The length of ``c``, 0 for none.
        width: Units in each hidden layer.
        depth: Hidden layers.
        frequencies: Fourier features of time.
    """

    omega: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int = 0,
        *,
        width: int = 128,
        depth: int = 3,
        frequencies: int = 8,
    ) -> None:
        super().__init__()
        d = math.prod(event_shape)
        self.register_buffer("omega", math.pi * torch.arange(1.0, frequencies + 1))
        self.data = nn.Linear(d, width)
        self.time = nn.Linear(2 * frequencies, width, bias=False)
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        self.layers = nn.Sequential(nn.SiLU(), mlp(*[width] * depth, d))

    def forward(self, x: Data, t: Times, c: Condition = None) -> Data:
        phase = t[..., None] * self.omega
        h = self.data(x.flatten(1)) + self.time(torch.cat([phase.cos(), phase.sin()], dim=-1))
        if self.condition is not None and c is not None:
            h = h + self.condition(c)
        return self.layers(h).view_as(x)
