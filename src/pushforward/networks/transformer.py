r"""A diffusion transformer (Peebles & Xie, 2023): an image as a row of patches that attend.

Each block normalises its tokens, shifts and scales them, and weighs what it adds to them, all by
linear functions of the embedded time and condition that begin at zero (adaLN-zero): the untrained
network is the identity on tokens and gives zero.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, pad, pixel_shuffle

from ..errors import UsageError
from ..shapes import Condition, Data, Times
from .backbone import Backbone
from .blocks import Attention, TimeConditionEmbedding, zero_module
from .layout import ImageLayout, image_layout


def sinusoidal_positions(height: int, width: int, length: int) -> Tensor:
    r"""Sines and cosines of the places of a grid, ``(height * width, length)``.

    .. math:: [\sin r\omega_k, \cos r\omega_k, \sin s\omega_k, \cos s\omega_k], \qquad
        \omega_k = 10^{-4k/K}, \quad K = \text{length}/4

    for row r and column s (Vaswani et al., 2017, for each of two axes).
    """
    omega = 10.0 ** (-4 * torch.arange(length // 4) / (length // 4))
    rows, columns = (torch.arange(float(n))[:, None] * omega for n in (height, width))
    row = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(-1, width, -1)
    column = torch.cat([columns.sin(), columns.cos()], dim=1).expand(height, -1, -1)
    return torch.cat([row, column], dim=2).flatten(0, 1)


def _modulate_tokens(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    h = layer_norm(h, h.shape[-1:], eps=1e-6)
    return torch.addcmul(h + shift, h, scale)


class DiTBlock(nn.Module):
    def __init__(self, width: int, context: int, dropout: float) -> None:
        super().__init__()
        self.told = zero_module(nn.Linear(width, 6 * width))
        self.attention = Attention(width, context)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, e: Tensor, tokens: Tensor | None) -> Tensor:
        scale, shift, gate, scale2, shift2, gate2 = self.told(e)[:, None].chunk(6, dim=-1)
        h = h + gate * self.dropout(self.attention(_modulate_tokens(h, scale, shift), tokens))
        update = self.down(gelu(self.up(_modulate_tokens(h, scale2, shift2))))
        return h + gate2 * self.dropout(update)


class DiT(Backbone):
    """A map of images to images of the same shape, padded with zeros to whole patches.

    ``width`` is a multiple of 4, ``patch`` the side of a patch, and ``tokens`` say how many tokens
    end ``c``, and their width (`networks.blocks`).
    """

    places: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int = 0,
        *,
        width: int = 128,
        depth: int = 4,
        patch: int = 2,
        dropout: float = 0.0,
        tokens: tuple[int, int] = (0, 0),
        spans: bool = False,
    ) -> None:
        super().__init__()
        if width % 4:
            raise UsageError(f"width is {width}; that of a transformer is a multiple of 4")
        self.layout: ImageLayout = image_layout(event_shape)
        channels, *sides = self.layout.shape
        self.patch, self.grid = patch, (-(-sides[0] // patch), -(-sides[1] // patch))
        self.embed = TimeConditionEmbedding(condition, width, tokens=tokens, spans=spans)
        self.enter = nn.Conv2d(channels, width, patch, stride=patch)
        self.register_buffer("places", sinusoidal_positions(*self.grid, width), persistent=False)
        self.blocks = nn.ModuleList(DiTBlock(width, tokens[1], dropout) for _ in range(depth))
        self.told = zero_module(nn.Linear(width, 2 * width))
        self.leave = zero_module(nn.Linear(width, channels * patch**2))

    def forward(self, x: Data, t: Times, c: Condition = None, span: Times | None = None) -> Data:
        e, tokens = self.embed(t, c, span)
        image = self.layout.to_channels_first(x).to(memory_format=self.memory_format)
        height, width = image.shape[2:]
        below, beside = (n * self.patch - side for n, side in zip(self.grid, (height, width)))
        h = self.enter(pad(image, (0, beside, 0, below))).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            h = block(h, e, tokens)
        scale, shift = self.told(e)[:, None].chunk(2, dim=-1)
        patches = self.leave(_modulate_tokens(h, scale, shift)).transpose(1, 2)
        made = pixel_shuffle(patches.unflatten(2, self.grid), self.patch)
        return self.layout.from_channels_first(made[..., :height, :width])
