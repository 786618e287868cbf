r"""A multi-scale flow of images: couplings over small convolutional networks.

.. math:: y_a = x_a, \qquad y_b = f(x_b;\, \theta(x_a, c)), \qquad
    \log|\det J| = \sum_{i \in b} \log f'(x_i;\, \theta_i)

At each scale, couplings split the pixels like a checkerboard; then 2 x 2 squares become four
channels (a side that is odd is left as it is), couplings split the channels, and half of these are
done: they go to the noise as they are and the next scale sees the others (RealNVP; Dinh et al.,
2017). The last scale has no squares. The couplings are those of any monotone function of
one entry, such as a spline.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from zuko.lazy import LazyTransform

from ..shapes import Condition, sum_event
from .layout import ImageLayout

Shape = tuple[int, int, int]
Univariate = tuple[Callable[..., Transform], list[tuple[int, ...]]]  # of so shaped parameters


class _ConvCoupling(nn.Module):
    """Entries in the mask stay, and tell how the others move; it begins at the identity."""

    mask: Tensor

    def __init__(self, mask: Tensor, condition: int, univariate: Univariate, width: int) -> None:
        super().__init__()
        channels, (self.make, self.shapes) = len(mask), univariate
        self.register_buffer("mask", mask, persistent=False)
        self.first = nn.Conv2d(2 * channels, width, 3, padding=1)  # zeros, and where they are
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.last = nn.Conv2d(width, channels * sum(self.sizes), 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(sum(self.sizes), *mask.shape))  # of every pixel
        nn.init.zeros_(self.last.weight)

    def elementwise_transform(self, x: Tensor, c: Condition) -> Any:
        stays = self.mask.to(x).expand_as(x)
        h = self.first(torch.cat([x * stays, stays], dim=1))
        if self.condition is not None and c is not None:
            h = h + self.condition(c)[..., None, None]
        h = nn.functional.silu(h)
        h = self.last(nn.functional.silu(h + self.middle(h))).unflatten(1, (sum(self.sizes), -1))
        parts = (h + self.bias).movedim(1, -1).split(self.sizes, dim=-1)
        pairs = zip(parts, self.shapes, strict=True)
        return self.make(*(p.unflatten(-1, s) if s else p[..., 0] for p, s in pairs))

    def forward(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        y, log_slope = self.elementwise_transform(x, c).call_and_ladj(x)
        return torch.where(self.mask, x, y), sum_event(torch.where(self.mask, 0.0, log_slope))

    def inverse(self, y: Tensor, c: Condition = None) -> Tensor:
        return torch.where(self.mask, y, self.elementwise_transform(y, c).inv(y))


class _CouplingLevel(nn.Module):
    """Couplings by checkerboards, then by channels after squares of pixels have become channels.

    The sides of the squares are 1 or 2; ``couple`` makes each of ``count`` couplings of a mask.
    """

    def __init__(
        self, shape: Shape, square: tuple[int, int], couple: Callable[[Tensor], Any], count: int
    ) -> None:
        super().__init__()
        (a, b), (channels, height, across) = square, shape
        self.square, self.shape = square, (channels * a * b, height // a, across // b)
        halves = count if self.shape[0] > 1 else 0
        self.board = nn.ModuleList(couple(_checkerboard_mask(shape, k)) for k in range(count))
        self.halves = nn.ModuleList(couple(_channel_mask(self.shape, k)) for k in range(halves))

    def forward(self, x: Tensor, c: Condition) -> tuple[Tensor, Tensor]:
        x, total = _apply_couplings(self.board, x, x.new_zeros(len(x)), c)
        return _apply_couplings(self.halves, space_to_depth(x, self.square), total, c)

    def inverse(self, y: Tensor, c: Condition) -> Tensor:
        for coupling in reversed(cast("list[_ConvCoupling]", self.halves)):
            y = coupling.inverse(y, c)
        y = depth_to_space(y, self.square)
        for coupling in reversed(cast("list[_ConvCoupling]", self.board)):
            y = coupling.inverse(y, c)
        return y


def _apply_couplings(
    couplings: nn.ModuleList, x: Tensor, total: Tensor, c: Condition
) -> tuple[Tensor, Tensor]:
    for coupling in couplings:
        x, log_det = coupling(x, c)
        total = total + log_det
    return x, total


class MultiScaleTransform(LazyTransform):
    """A flow of flattened images, with ``count`` couplings by each kind of mask at each scale."""

    def __init__(
        self, layout: ImageLayout, condition: int, univariate: Univariate, width: int, count: int
    ) -> None:
        super().__init__()
        couple = partial(_ConvCoupling, condition=condition, univariate=univariate, width=width)
        self.layout, shape, scales = layout, layout.shape, []
        while True:
            square = (2 - shape[1] % 2, 2 - shape[2] % 2) if min(shape[1:]) > 2 else (1, 1)
            scales.append(_CouplingLevel(shape, square, couple, count))
            if square == (1, 1):
                break
            channels, *sides = scales[-1].shape
            shape = (channels // 2, sides[0], sides[1])
        self.scales = cast("list[_CouplingLevel]", nn.ModuleList(scales))

    def forward(self, c: Condition = None) -> "_ConditionedMultiScale":
        return _ConditionedMultiScale(self, c)

    def to_noise(self, x: Tensor, c: Condition) -> tuple[Tensor, Tensor]:
        done, total = [], x.new_zeros(len(x))
        x = self.layout.to_channels_first(x.unflatten(1, self.layout.event))
        for scale in self.scales:
            x, log_det = scale(x, c)
            total = total + log_det
            kept = x.shape[1] // 2 if scale is not self.scales[-1] else 0
            done.append(x[:, kept:].flatten(1))
            x = x[:, :kept]
        return torch.cat(done, dim=1), total

    def to_images(self, z: Tensor, c: Condition) -> Tensor:
        shapes = [scale.shape for scale in self.scales]
        out = [s[0] - s[0] // 2 for s in shapes[:-1]] + [shapes[-1][0]]
        sizes = [channels * s[1] * s[2] for channels, s in zip(out, shapes, strict=True)]
        x = z.new_zeros(len(z), 0, *shapes[-1][1:])
        for scale, done in zip(reversed(self.scales), reversed(z.split(sizes, dim=1)), strict=True):
            x = torch.cat([x, done.unflatten(1, (-1, *scale.shape[1:]))], dim=1)
            x = scale.inverse(x, c)
        return self.layout.from_channels_first(x).flatten(1)


class _ConditionedMultiScale(Transform):
    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, flow: MultiScaleTransform, c: Condition) -> None:
        super().__init__()
        self.flow, self.c = flow, c

    def _call(self, x: Tensor) -> Tensor:
        return self.flow.to_noise(x, self.c)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.flow.to_images(y, self.c)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.flow.to_noise(x, self.c)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.to_noise(x, self.c)


def _checkerboard_mask(shape: Shape, k: int) -> Tensor:
    row, column = torch.arange(shape[1])[:, None], torch.arange(shape[2])
    return ((row + column + k) % 2 == 0).expand(shape)


def _channel_mask(shape: Shape, k: int) -> Tensor:
    first = 2 * torch.arange(shape[0]) < shape[0]
    return (first ^ bool(k % 2))[:, None, None].expand(shape)


def space_to_depth(x: Tensor, square: tuple[int, int]) -> Tensor:
    """Squares of pixels become channels: ``(n, c, h, w)`` to ``(n, 4c, h/2, w/2)``."""
    a, b = square
    x = x.unflatten(3, (-1, b)).unflatten(2, (-1, a))  # n c h a w b
    return x.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def depth_to_space(x: Tensor, square: tuple[int, int]) -> Tensor:
    a, b = square
    return x.unflatten(1, (-1, a, b)).permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)
