r"""Networks between images and vectors: encoders and decoders, critics and generators.

An encoder halves the image and doubles its channels from scale to scale, a decoder does the reverse
through the same sizes, odd ones rounded up. Conditions shift and scale every block. Normalisation
is within a sample, never over a batch: the slope of a critic at a sample would otherwise depend on
the others, and its penalty would punish nothing (Gulrajani et al., 2017, section 4).
"""

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..shapes import Condition, Data
from .backbone import Backbone
from .blocks import ResidualBlock, conv3x3, downsample_conv, group_norm, identity_norm
from .layout import ImageLayout, image_layout

Norm = Callable[[int], nn.Module]  # makes the normalisation of so many channels


def scale_sizes(layout: ImageLayout, scales: int, first: int = 1) -> list[tuple[int, int]]:
    steps = [first * 2**i for i in range(scales)]
    return [(-(-layout.height // k), -(-layout.width // k)) for k in steps]


class ConvEncoder(Backbone):
    """Images and conditions to vectors; ``stride`` is the first convolution's."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int,
        out: int,
        *,
        width: int = 16,
        scales: int = 3,
        norm: Norm = group_norm,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.layout: ImageLayout = image_layout(event_shape)
        self.penalised = norm is identity_norm
        widths = [width * 2**i for i in range(scales)]
        self.enter = nn.Conv2d(self.layout.channels, width, 2 * stride + 1, stride, stride)
        self.blocks = nn.ModuleList(
            ResidualBlock(into, wide, condition, norm=norm)
            for into, wide in zip([width, *widths], widths)
        )
        self.down = nn.ModuleList(downsample_conv(wide) for wide in widths[:-1])
        self.norm = norm(widths[-1])
        pixels = math.prod(scale_sizes(self.layout, scales, stride)[-1])
        self.leave = nn.Linear(widths[-1] * pixels, out)

    def features(self, x: Data, c: Condition = None) -> Tensor:
        h = self.enter(self.layout.to_channels_first(x).to(memory_format=self.memory_format))
        known = None if c is None else c.to(h)
        h = self.blocks[0](h, known)
        for smaller, block in zip(self.down, self.blocks[1:]):
            h = block(smaller(h), known)
        return silu(self.norm(h))

    def forward(self, x: Data, c: Condition = None) -> Tensor:
        return self.leave(self.features(x, c).flatten(1))


class ConvCritic(ConvEncoder):
    r"""Images and conditions to a number: a value of the image, and of how the condition suits it.

    .. math:: f(x, c) = w^\top \phi(x) + \langle V c, \phi_\Sigma(x) \rangle

    with :math:`\phi_\Sigma` the sum over pixels (Miyato & Koyama, 2018): where the distribution of
    the condition given the image is a softmax of features, so is the part of the optimal critic
    that knows the condition. It sees the image from half its size on, which halves the cost of a
    penalty on its slope.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int,
        *,
        width: int = 32,
        scales: int = 2,
        norm: Norm = identity_norm,
    ) -> None:
        super().__init__(event_shape, 0, 1, width=width, scales=scales, norm=norm, stride=2)
        last = width * 2 ** (scales - 1)
        self.suits = nn.Linear(condition, last, bias=False) if condition else None

    def forward(self, x: Data, c: Condition = None) -> Tensor:
        h = self.features(x)
        value = self.leave(h.flatten(1))
        if self.suits is None or c is None:
            return value
        return value + (self.suits(c.to(h)) * h.sum((2, 3))).sum(1, keepdim=True)


class ConvDecoder(Backbone):
    """Vectors and conditions to numbers for every entry of an image, from ``width`` channels."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int,
        latent: int,
        size: int = 1,
        *,
        width: int = 16,
        scales: int = 3,
    ) -> None:
        super().__init__()
        self.layout: ImageLayout = image_layout(event_shape)
        self.size, self.sides = size, scale_sizes(self.layout, scales)[::-1]
        widths = [width * 2**i for i in reversed(range(scales))]
        self.first = (widths[0], *self.sides[0])
        self.enter = nn.Linear(latent, math.prod(self.first))
        self.blocks = nn.ModuleList(
            ResidualBlock(into, wide, condition) for into, wide in zip([widths[0], *widths], widths)
        )
        self.norm, self.leave = group_norm(width), conv3x3(width, self.layout.channels * size)

    def forward(self, z: Tensor, c: Condition = None) -> Tensor:
        """Numbers ``(batch, entries * size)``, those of an entry side by side."""
        h = self.enter(z).unflatten(1, self.first).to(memory_format=self.memory_format)
        known = None if c is None else c.to(h)
        for side, block in zip(self.sides, self.blocks):
            h = block(h if h.shape[2:] == side else interpolate(h, size=side), known)
        h = self.leave(silu(self.norm(h))).unflatten(1, (-1, self.size)).movedim(2, 0)
        entries = self.layout.from_channels_first(h.flatten(0, 1)).unflatten(0, (self.size, len(z)))
        return entries.movedim(0, -1).flatten(1)
