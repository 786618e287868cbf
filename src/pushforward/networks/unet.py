r"""A U-Net of images, times and conditions: down to coarse scales, and up beside what was seen.

After Ho et al. (2020) and Dhariwal & Nichol (2021): residual blocks that time and condition shift
and scale, attention where images are small, and last layers that begin at zero, so that the
untrained network gives zero. A side that is odd is halved up to the next whole number, and the way
back takes the sizes of the way down: nothing is padded.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..errors import UsageError
from ..optional import import_optional
from ..shapes import Condition, Data, Times
from . import blocks
from .backbone import Backbone
from .blocks import ResidualBlock, TimeConditionEmbedding, conv3x3, group_norm, zero_module
from .layout import ImageLayout, image_layout

WIDEST = 4  # the channels of a scale are at most so many times those of the first
GROUPS = 8  # of channels that `diffusers` normalises together


class UNetBlock(nn.Module):
    """A residual block, and where it ``attends``, attention to pixels and ``context`` tokens."""

    def __init__(
        self, into: int, out: int, embedded: int, attends: bool, context: int, dropout: float
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(into, out, embedded, dropout=dropout)
        zero_module(self.residual.second)
        self.norm = group_norm(out) if attends else None
        self.attention = blocks.Attention(out, context) if attends else None
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
        self.conv = blocks.downsample_conv(channels)

    def forward(self, h: Tensor, e: Tensor, tokens: Tensor | None) -> Tensor:
        return self.conv(h)


class UNet(Backbone):
    """A map of images to images, with a residual block at each scale down and two up.

    ``width`` channels of the first scale double at each, up to four times. Pixels attend to each
    other at the bottom and where no side has more of them than ``attention``; ``tokens`` say how
    many tokens end ``c``, and their width (`networks.blocks`).
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


class DiffusersUNet(Backbone):
    """A `UNet2DModel` of `diffusers` over a chain of T ``steps``, with any condition.

    What it learns is read by `diffusers` without us: time t is the timestep T t - 1. The condition
    is a vector added to the embedded time, 0 where it is hidden. Its last layer begins at zero, as
    those of our own. Channels, a multiple of 8, double at each scale up to four times, and pixels
    attend to each other where no side has more of them than ``attention``.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int = 0,
        *,
        width: int = 32,
        scales: int = 3,
        steps: int = 1000,
        attention: int = 8,
    ) -> None:
        super().__init__()
        self.layout: ImageLayout = image_layout(event_shape)
        channels, *sides = self.layout.shape
        if width % GROUPS or any(side % 2 ** (scales - 1) for side in sides):
            raise UsageError(
                f"the width of a U-Net of diffusers is a multiple of {GROUPS}, and sides are "
                f"halved depth - 1 times, but width={width}, depth={scales} and sides {sides}"
            )
        attends = [max(sides) // 2**i <= attention for i in range(scales)]
        down = ["AttnDownBlock2D" if yes else "DownBlock2D" for yes in attends]
        up = ["AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)]
        self.unet = import_optional("diffusers", "diffusers").UNet2DModel(
            sample_size=tuple(sides),
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=tuple(width * min(2**i, 4) for i in range(scales)),
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            norm_num_groups=GROUPS,
            class_embed_type="identity" if condition else None,
        )
        zero_module(self.unet.conv_out)
        self.steps = steps
        self.condition = nn.Linear(condition, 4 * width, bias=False) if condition else None

    def forward(self, x: Data, t: Times, c: Condition = None) -> Data:
        image = self.layout.to_channels_first(x).contiguous().to(memory_format=self.memory_format)
        timestep = ((self.steps * t - 1) * 1000).round() / 1000  # a whole one is whole
        known = {} if self.condition is None else {"class_labels": self.embed_condition(c, x)}
        y = self.unet(image, timestep.expand(len(x)), **known, return_dict=False)[0]
        return self.layout.from_channels_first(y)

    def embed_condition(self, c: Condition, x: Data) -> Tensor:
        if c is None or self.condition is None:
            return x.new_zeros(len(x), self.unet.time_embedding.linear_2.out_features)
        return self.condition(c)

    @torch.no_grad()
    def unconditioned(self, c: Condition = None) -> Any:
        # the condition's vector joins the bias that the embedded time has anyway
        unet = type(self.unet).from_config(self.unet.config, class_embed_type=None)
        unet.load_state_dict(self.unet.state_dict())
        if c is not None and self.condition is not None:
            unet.time_embedding.linear_2.bias += self.condition(c)[0].to(unet.device)
        return unet.eval()
