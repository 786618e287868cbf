r"""Causal networks of an image's entries, which are drawn one after the other.

`CausalTransformer` takes them in any order, at a cost that grows with the square of the number of
pixels; `CausalConvNet` goes along the rows, and its cost grows with their number.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad, scaled_dot_product_attention, silu

from ..shapes import Condition, Data
from .blocks import split_heads
from .layout import image_layout
from .masked import AutoregressiveNetwork, EntryFeatures, Steps, initialise_output

HEADS = 4  # of the attention


class _CausalBlock(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor, bias: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens ``(n, tokens, width)`` after the block, and all keys and values so far.

        ``bias`` is ``(heads, tokens, all)``; the past ``(2, n, heads, tokens, width / heads)``.
        """
        mixed = split_heads(self.mix(self.before(h)), 3, self.heads)
        kept = mixed[1:] if past is None else torch.cat([past, mixed[1:]], dim=3)
        read = scaled_dot_product_attention(mixed[0], kept[0], kept[1], attn_mask=bias)
        h = h + self.dropout(self.join(read.transpose(1, 2).flatten(2)))
        return h + self.dropout(self.down(silu(self.up(self.between(h))))), kept


class CausalTransformer(AutoregressiveNetwork):
    r"""Parameters of every entry given those before it, from attention.

    .. math:: h_{\pi_t} = h(x_{\pi_1}, \dots, x_{\pi_{t-1}}, \pi_t, c)

    Token t holds the entry drawn before it and the place of the next; it attends to itself and to
    earlier tokens, and by how far apart in the image their entries lie (Vaswani et al., 2017; the
    bias of Shaw et al., 2018, in two dimensions). Keys and values are kept while drawing, so a
    sample costs one pass in total. All orders share all weights; `HEADS` divides the width.
    """

    offset: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        features: EntryFeatures,
        orders: Tensor,
        condition: int,
        size: int,
        *,
        width: int,
        depth: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        d, self.features = math.prod(shape), features
        self.register_buffer("orders", orders)
        self.register_buffer("offset", relative_position_index(shape), persistent=False)
        self.value = nn.Linear(features.width, width)
        self.place, self.target = nn.Embedding(d, width), nn.Embedding(d, width)
        self.begin = nn.Parameter(torch.zeros(width))
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        self.blocks = nn.ModuleList(_CausalBlock(width, HEADS, dropout) for _ in range(depth))
        self.near = nn.Parameter(torch.zeros(depth, HEADS, int(self.offset.max()) + 2))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, size)
        self.bias = nn.Parameter(torch.zeros(d, size))
        self.dropout = nn.Dropout(dropout)
        for embedding in (self.place, self.target):
            nn.init.normal_(embedding.weight, std=0.1)

    def initialise(self, h: Tensor, rows: Tensor, c: Condition = None) -> None:
        initialise_output(h, self.out, self.bias)

    def condition_shift(self, c: Condition, like: Tensor) -> Tensor:
        if self.condition is None or c is None:
            return torch.zeros_like(self.begin)[None, None]
        return self.condition(c.to(like))[:, None]

    def attention_bias(self, order: Tensor) -> Tensor:
        """The bias of attention between tokens, ``(depth, heads, d, d)``; later ones are hidden."""
        d = len(order)
        index = torch.full((d, d), self.near.shape[2] - 1, device=order.device)
        index[:, 1:] = self.offset[order[:, None], order[:-1]]
        later = torch.ones(d, d, dtype=torch.bool, device=order.device).triu(1)
        return self.near[:, :, index].masked_fill(later, -math.inf)

    def forward(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        order = self.orders[o]
        before, begin = order[:-1], self.begin.expand(len(x), 1, -1)
        known = self.value(self.features(x.flatten(1)[:, before])) + self.place.weight[before]
        place = self.target.weight[order] + self.condition_shift(c, begin)
        h = self.dropout(torch.cat([begin, known], dim=1) + place)
        for block, bias in zip(self.blocks, self.attention_bias(order), strict=True):
            h, _ = block(h, bias)
        h = self.out(self.norm(h)) + self.bias[order]
        return h[:, order.argsort()]

    def decode_steps(self, x: Tensor, o: int = 0, c: Condition = None) -> Steps:
        order = self.orders[o]
        near, given = self.attention_bias(order), self.condition_shift(c, self.begin)
        known, past = self.begin.expand(len(x), 1, -1), [None] * len(self.blocks)
        for t, i in enumerate(order.tolist()):
            h = known + self.target.weight[i] + given
            for b, block in enumerate(self.blocks):
                h, past[b] = block(h, near[b, :, t : t + 1, : t + 1], past[b])
            yield i, self.out(self.norm(h))[:, 0] + self.bias[i]
            known = (self.value(self.features(x[:, i])) + self.place.weight[i])[:, None]


def relative_position_index(shape: tuple[int, ...]) -> Tensor:
    """A number for each difference of the places of two entries, ``(d, d)``."""
    places = torch.cartesian_prod(*[torch.arange(s) for s in shape]).view(-1, len(shape))
    away = places[:, None] - places + torch.tensor(shape) - 1
    index = torch.zeros_like(away[..., 0])
    for axis, side in enumerate(shape):
        index = index * (2 * side - 1) + away[..., axis]
    return index


ROWS = 64  # images whose features are in memory together where nothing is learned from them


REACH = 3  # rows above, and columns to either side, that a kernel sees


class _CausalConv(nn.Module):
    """A weighted sum of the pixels before each one, and of ``itself`` if 1, feature by feature."""

    seen: Tensor

    def __init__(self, width: int, itself: int) -> None:
        super().__init__()
        seen = torch.ones(REACH + 1, 2 * REACH + 1)
        seen[-1, REACH + itself :] = 0
        self.register_buffer("seen", seen, persistent=False)
        self.kernel = nn.Parameter(torch.randn(width, *seen.shape) / seen.sum().sqrt())

    def forward(self, h: Tensor) -> Tensor:
        before = pad(h.movedim(-1, 1), (REACH, REACH, REACH, 0))
        kernel = (self.kernel * self.seen)[:, None]
        return conv2d(before, kernel, groups=len(kernel)).movedim(1, -1)

    def at_pixel(self, window: Tensor) -> Tensor:
        """The sum at one pixel, from what its kernel covers, ``(n, rows, columns, width)``."""
        return torch.einsum("nijw,wij->nw", window, self.kernel * self.seen)


class _GatedLayer(nn.Module):
    r"""What is gathered, through a gated perceptron, added to what was known.

    .. math:: (a, b) = U\,\mathrm{norm}(g) + V c, \qquad h \leftarrow h + W (a\,\mathrm{silu}(b))
    """

    def __init__(self, width: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.gather = _CausalConv(width, itself=1)
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.told = nn.Linear(condition, 2 * width, bias=False) if condition else None
        self.down, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)

    def forward(self, h: Tensor, c: Condition) -> Tensor:
        return self.update(h, self.gather(h), c)

    def update(self, h: Tensor, gathered: Tensor, c: Condition) -> Tensor:
        update = self.up(self.norm(gathered))
        if self.told is not None and c is not None:
            modulation = self.told(c.to(update))
            update = update + modulation.view(len(c), *[1] * (h.ndim - 2), -1)
        a, b = update.chunk(2, dim=-1)
        return h + self.dropout(self.down(a * silu(b)))


class CausalConvNet(AutoregressiveNetwork):
    r"""Parameters of every entry given those before it, from convolutions.

    .. math:: p(x \mid c) = \prod_t \prod_k p(x_{tk} \mid x_1, \dots, x_{t-1}, x_{t1}, \dots,
        x_{t,k-1}, c)

    for pixels t along the rows, from any corner, and channels k (van den Oord et al., 2016). A
    layer gathers what lies in the rows above and to the left by a convolution of each feature
    alone, and passes it through a perceptron (the blocks of Liu et al., 2022); the first kernel
    leaves the pixel itself out. A last perceptron sees the channels of the pixel that are already
    known. Of the pixels before it, one sees all but some far to the upper right, where kernels of
    no depth reach. All orders share all weights but those of the places.
    """

    later: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        features: EntryFeatures,
        orders: Tensor,
        condition: int,
        size: int,
        *,
        width: int,
        depth: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, columns = image_layout(shape).shape
        self.grid, self.channels = (height, columns, channels), channels
        (m, d), self.features = orders.shape, features
        self.register_buffer("orders", orders)
        self.enter = nn.Linear(channels * features.width, width)
        self.first = _CausalConv(width, itself=0)
        self.place = nn.Parameter(0.1 * torch.randn(m, height, columns, width))
        self.layers = nn.ModuleList(_GatedLayer(width, condition, dropout) for _ in range(depth))
        self.norm, self.above = nn.LayerNorm(width), nn.Linear(width, channels * width)
        self.beside = nn.Linear(channels * features.width, channels * width, bias=False)
        k = torch.arange(channels)
        later = (k[:, None] > k).repeat_interleave(width, 0)
        self.register_buffer("later", later.repeat_interleave(features.width, 1), persistent=False)
        self.out, self.bias = nn.Linear(width, size), nn.Parameter(torch.zeros(d, size))

    @property
    def layer_list(self) -> list[_GatedLayer]:
        return cast(list[_GatedLayer], list(self.layers))

    def initialise(self, h: Tensor, rows: Tensor, c: Condition = None) -> None:
        initialise_output(h, self.out, self.bias)

    def forward(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        if torch.is_grad_enabled() or len(x) <= ROWS:
            return self.forward_all(x, o, c)
        parts = [None] * len(x) if c is None else c.split(ROWS)
        return torch.cat([self.forward_all(v, o, w) for v, w in zip(x.split(ROWS), parts)])

    def forward_all(self, x: Data, o: int, c: Condition) -> Tensor:
        order = self.orders[o]
        pixels = self.features(x.flatten(1)[:, order].unflatten(1, self.grid)).flatten(-2)
        h = self.first(self.enter(pixels)) + self.place[o]
        for layer in self.layer_list:
            h = layer(h, c)
        h = self.above(self.norm(h)) + linear(pixels, self.beside.weight * self.later)
        h = self.out(silu(h).unflatten(-1, (self.channels, -1))).flatten(1, 3) + self.bias[order]
        return h[:, order.argsort()]

    def decode_steps(self, x: Tensor, o: int = 0, c: Condition = None) -> Steps:
        # features of the rows that kernels cover are kept
        height, columns, channels = self.grid
        order = iter(self.orders[o].tolist())
        beside = (self.beside.weight * self.later).unflatten(1, (channels, -1))
        sides = REACH + 1, columns + 2 * REACH, self.place.shape[-1]
        kept = [self.place.new_zeros(len(x), *sides) for _ in range(len(self.layers) + 1)]
        for row in range(height):
            kept = [pad(known[:, 1:], (0, 0, 0, 0, 0, 1)) for known in kept]
            for j in range(columns):
                covered, here = slice(j, j + 2 * REACH + 1), (slice(None), -1, j + REACH)
                h = self.first.at_pixel(kept[0][:, :, covered]) + self.place[o, row, j]
                for layer, known in zip(self.layer_list, kept[1:], strict=True):
                    known[here] = h
                    h = layer.update(h, layer.gather.at_pixel(known[:, :, covered]), c)
                hidden, pixel = self.above(self.norm(h)), []
                for k in range(channels):
                    i = next(order)
                    unit = silu(hidden.unflatten(-1, (channels, -1))[:, k])
                    yield i, self.out(unit) + self.bias[i]
                    pixel.append(self.features(x[:, i]))
                    hidden = hidden + linear(pixel[-1], beside[:, k])
                kept[0][here] = self.enter(torch.cat(pixel, dim=-1))
