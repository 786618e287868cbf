r"""Networks between images and vectors: encoders and decoders, critics and generators.

An encoder halves the image and doubles its channels from scale to scale, a decoder does the reverse
through the same sizes, odd ones rounded up. Conditions shift and scale every block. Normalisation
is within a datum, never over a batch: the slope of a critic at a datum would otherwise depend on
the others, and its penalty would punish nothing (Gulrajani et al., 2017, section 4).
"""

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..shapes import Condition, Data
from .deep import Deep
from .images import Layout, layout_of
from .residual import Residual, conv, grouped, halve, unnormalised


def sizes(layout: Layout, scales: int) -> list[tuple[int, int]]:
    """Height and width at each scale."""
    return [(-(-layout.height // 2**i), -(-layout.width // 2**i)) for i in range(scales)]


class ConvEncoder(Deep):
    """Images and conditions to vectors; with ``norm=unnormalised`` a critic.

    Arguments:
        event_shape: The shape of one datum.
        condition: The length of ``c``, 0 for none; an unknown condition is the zero vector.
        out: The length of the vector.
        width: Channels of the first scale; each has twice those of the one before.
        scales: How many sizes, each half of the one before.
        norm: Makes the normalisation of so many channels.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int,
        out: int,
        *,
        width: int = 16,
        scales: int = 3,
        norm: Callable[[int], nn.Module] = grouped,
    ) -> None:
        super().__init__()
        self.layout: Layout = layout_of(event_shape)
        self.penalised = norm is unnormalised
        widths = [width * 2**i for i in range(scales)]
        self.enter = conv(self.layout.channels, width)
        self.blocks = nn.ModuleList(
            Residual(into, wide, condition, norm=norm)
            for into, wide in zip([width, *widths], widths)
        )
        self.down = nn.ModuleList(halve(wide) for wide in widths[:-1])
        self.norm = norm(widths[-1])
        self.leave = nn.Linear(widths[-1] * math.prod(sizes(self.layout, scales)[-1]), out)

    def forward(self, x: Data, c: Condition = None) -> Tensor:
        h = self.enter(self.layout.first(x).to(memory_format=self.memory_format))
        told = None if c is None else c.to(h)
        h = self.blocks[0](h, told)
        for smaller, block in zip(self.down, self.blocks[1:]):
            h = block(smaller(h), told)
        return self.leave(silu(self.norm(h)).flatten(1))


class ConvDecoder(Deep):
    """Vectors and conditions to numbers for every entry of an image; with one number, a generator.

    Arguments:
        event_shape: The shape of one datum.
        condition: The length of ``c``, 0 for none; an unknown condition is the zero vector.
        latent: The length of the vector.
        size: Numbers for each entry.
        width: Channels of the last scale; each has half those of the one before.
        scales: How many sizes, each twice the one before.
    """

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
        self.layout: Layout = layout_of(event_shape)
        self.size, self.sides = size, sizes(self.layout, scales)[::-1]
        widths = [width * 2**i for i in reversed(range(scales))]
        self.first = (widths[0], *self.sides[0])
        self.enter = nn.Linear(latent, math.prod(self.first))
        self.blocks = nn.ModuleList(
            Residual(into, wide, condition) for into, wide in zip([widths[0], *widths], widths)
        )
        self.norm, self.leave = grouped(width), conv(width, self.layout.channels * size)

    def forward(self, z: Tensor, c: Condition = None) -> Tensor:
        """Numbers ``(batch, entries * size)``, those of an entry side by side."""
        h = self.enter(z).unflatten(1, self.first).to(memory_format=self.memory_format)
        told = None if c is None else c.to(h)
        for side, block in zip(self.sides, self.blocks):
            h = block(h if h.shape[2:] == side else interpolate(h, size=side), told)
        h = self.leave(silu(self.norm(h))).unflatten(1, (-1, self.size)).movedim(2, 0)
        entries = self.layout.back(h.flatten(0, 1)).unflatten(0, (self.size, len(z)))
        return entries.movedim(0, -1).flatten(1)
