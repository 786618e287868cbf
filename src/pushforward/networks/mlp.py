r"""Networks for vectors: a plain multilayer perceptron, and one of :math:`(x, t, c)`."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..shapes import Condition, Data, Times
from .backbone import Backbone

SHARPEST = 8.0  # largest angular frequency of Fourier features, in inverse standard deviations


def mlp(*widths: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers of the given widths with activations in between."""
    layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), activation())]
    return nn.Sequential(*layers[:-1])


def zero_last_layer(net: nn.Module) -> nn.Module:
    *_, last = (m for m in net.modules() if isinstance(m, nn.Linear))
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return net


def fourier_count(event_shape: tuple[int, ...], waves: int | None) -> int:
    """How many Fourier features to use: in many dimensions random ones are only noise."""
    return (64 if math.prod(event_shape) <= 4 else 0) if waves is None else waves


def fourier_embedding(t: Times, omega: Tensor) -> Tensor:
    r""":math:`\cos\omega t, \sin\omega t` for each frequency, ``(..., 2 * frequencies)``."""
    phase = t[..., None] * omega
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


class RandomFourierFeatures(nn.Module):
    r"""Rows of :math:`x` beside random features :math:`\sin Bx, \cos Bx` (Tancik et al., 2020).

    Perceptrons are slow to learn functions that vary fast. In few dimensions wavelengths from
    several standard deviations down to a fraction of one take that from them. Under mixed precision
    they are computed in single: half precision would shift the sharpest by a tenth of a radian. The
    highest of ``count`` angular frequencies has the standard deviation ``sharpest``.
    """

    directions: Tensor

    def __init__(self, d: int, count: int, sharpest: float) -> None:
        super().__init__()
        lengths = torch.logspace(0, math.log10(sharpest), count)
        self.register_buffer("directions", torch.randn(d, count) * lengths)
        self.width = d + 2 * count

    def forward(self, x: Data) -> Tensor:
        rows = x.flatten(1)
        if not self.directions.numel():
            return rows
        if torch.is_autocast_enabled(rows.device.type):
            with torch.autocast(rows.device.type, enabled=False):
                return self.append_features(rows.to(self.directions))
        return self.append_features(rows)

    def append_features(self, rows: Tensor) -> Tensor:
        phase = rows @ self.directions
        return torch.cat([rows, phase.sin(), phase.cos()], dim=1)


class Perceptron(Backbone):
    r"""A perceptron of :math:`(x, c)`, and of random Fourier features of x if asked.

    These let a critic see modes much narrower than the data, and a generator move quickly from one
    mode to the next.
    """

    def __init__(
        self,
        d: int,
        condition: int,
        out: int,
        hidden: list[int],
        *,
        activation: type[nn.Module] = nn.SiLU,
        waves: int = 0,
        sharpest: float = 8.0,
    ) -> None:
        super().__init__()
        self.waves, self.condition = RandomFourierFeatures(d, waves, sharpest), condition
        self.layers = mlp(self.waves.width + condition, *hidden, out, activation=activation)

    def forward(self, x: Data, c: Condition = None) -> Tensor:
        rows = self.waves(x)
        if self.condition:
            known = x.new_zeros(len(x), self.condition) if c is None else c.to(rows)
            rows = torch.cat([rows, known], dim=1)
        return self.layers(rows)


class TimeMLP(Backbone):
    r"""A perceptron of :math:`(x, t, c)` in which time and condition shift the first layer.

    .. math:: h = W[x, \sin Bx, \cos Bx] + U[\cos\omega t, \sin\omega t] + V c,
        \qquad \omega = \pi(1, \dots, F)

    A scalar ``t`` is embedded once for the whole batch, so that a sampler's step costs little more
    than the layers themselves. A map from one time to another takes the span between them as a
    second time, embedded likewise. There are ``waves`` random Fourier features of the flattened
    data, or with None as many as `fourier_count` chooses.
    """

    omega: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int = 0,
        *,
        width: int = 128,
        depth: int = 3,
        waves: int | None = 0,
        frequencies: int = 8,
        spans: bool = False,
    ) -> None:
        super().__init__()
        d = math.prod(event_shape)
        self.register_buffer("omega", math.pi * torch.arange(1.0, frequencies + 1))
        self.waves = RandomFourierFeatures(d, fourier_count(event_shape, waves), SHARPEST)
        self.data = nn.Linear(self.waves.width, width)
        self.time = nn.Linear(2 * frequencies, width, bias=False)
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        self.layers = nn.Sequential(nn.SiLU(), mlp(*[width] * depth, d))
        self.span = nn.Linear(2 * frequencies, width, bias=False) if spans else None

    def forward(self, x: Data, t: Times, c: Condition = None, span: Times | None = None) -> Data:
        h = self.data(self.waves(x)) + self.time(fourier_embedding(t, self.omega))
        if self.condition is not None and c is not None:
            h = h + self.condition(c)
        if self.span is not None and span is not None:
            h = h + self.span(fourier_embedding(span, self.omega))
        return self.layers(h).view_as(x)
