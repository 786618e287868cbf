r"""A U-Net of images, times and conditions: down to coarse scales, and up beside what was seen.

After Ho et al. (2020) and Dhariwal & Nichol (2021): residual blocks that time and condition shift
and scale, attention where images are small, and last layers that begin at zero, so that the
untrained network gives zero. A side that is odd is halved up to the next whole number, and the way
back takes the sizes of the way down: nothing is padded.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..shapes import Condition, Data, Times
from .backbone import Backbone
from .blocks import (
    Attention,
    ResidualBlock,
    TimeConditionEmbedding,
    conv3x3,
    downsample_conv,
    group_norm,
    zero_module,
)
from .layout import ImageLayout, image_layout

WIDEST = 4  # the channels of a scale are at most so many times those of the first


class UNetBlock(nn.Module):
    """A residual block, and attention after it where asked.

    Arguments:
        embedded: The length of the embedded time and condition.
        attends: Whether pixels attend to each other.
        context: Numbers per token of a condition, for those that attend.
    """

    def __init__(
        self, into: int, out: int, embedded: int, attends: bool, context: int, dropout: float
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(into, out, embedded, dropout=dropout)
        zero_module(self.residual.second)
        self.norm = group_norm(out) if attends else None
        self.attention = Attention(out, context) if attends else None
        if self.attention is not None:
            zero_module(self.attention.join)

    def forward(self, h: Tensor, e: Tensor, tokens: Tensor | None) -> Tensor:
        h = self.residual(h, e)
        if self.attention is None or self.norm is None:
            return h
        pixels = self.norm(h).flatten(2).transpose(1, 2)
        return h + self.attention(pixels, tokens).transpose(1, 2).view_as(h)


class _Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = downsample_conv(channels)

    def forward(self, h: Tensor, e: Tensor, tokens: Tensor | None) -> Tensor:
        return self.conv(h)


class UNet(Backbone):
    """A map of images to images, with a residual block at each scale down and two up.

    Arguments:
        event_shape: The shape of one sample, ``(h, w)``, ``(c, h, w)`` or ``(h, w, c)``.
        width: Channels of the first scale; each scale has twice those before it, up to four times.
        attention: Pixels attend to each other where no side has more of them than this, and at
            the bottom.
        dropout: The share of each block's update that is hidden in training.
        tokens: How many tokens end ``c``, and their width (`networks.blocks`).
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int = 0,
        *,
        width: int = 32,
        scales: int = 3,
        attention: int = 8,
        dropout: float = 0.0,
        tokens: tuple[int, int] = (0, 0),
        spans: bool = False,
    ) -> None:
        super().__init__()
        self.layout: ImageLayout = image_layout(event_shape)
        channels, *sides = self.layout.shape
        widths = [width * min(2**i, WIDEST) for i in range(scales)]
        embedded = 4 * width
        self.embed = TimeConditionEmbedding(condition, embedded, tokens=tokens, spans=spans)

        def block(into: int, i: int, attends: bool = False) -> UNetBlock:
            small = -(-max(sides) // 2**i) <= attention
            return UNetBlock(into, widths[i], embedded, attends or small, tokens[1], dropout)

        self.enter, kept = conv3x3(channels, width), [width]
        down: list[nn.Module] = []
        for i, wide in enumerate(widths):
            down.append(block(kept[-1], i))
            kept.append(wide)
            if i < scales - 1:
                down.append(_Downsample(wide))
                kept.append(wide)
        self.down, bottom = nn.ModuleList(down), scales - 1
        self.bottom = nn.ModuleList([block(widths[-1], bottom, True), block(widths[-1], bottom)])
        up, into = [], widths[-1]
        for i in reversed(range(scales)):
            for _ in range(2):
                up.append(block(into + kept.pop(), i))
                into = widths[i]
        self.up = nn.ModuleList(up)
        self.norm, self.leave = group_norm(width), zero_module(conv3x3(width, channels))

    def forward(self, x: Data, t: Times, c: Condition = None, span: Times | None = None) -> Data:
        e, tokens = self.embed(t, c, span)
        h = self.enter(self.layout.to_channels_first(x).to(memory_format=self.memory_format))
        kept = [h]
        for step in self.down:
            h = step(h, e, tokens)
            kept.append(h)
        for step in self.bottom:
            h = step(h, e, tokens)
        for step in self.up:
            beside = kept.pop()
            if h.shape[2:] != beside.shape[2:]:
                h = interpolate(h, size=beside.shape[2:])
            h = step(torch.cat([h, beside], dim=1), e, tokens)
        return self.layout.from_channels_first(self.leave(silu(self.norm(h))))
