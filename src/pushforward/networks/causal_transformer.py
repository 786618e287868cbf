r"""A causal transformer over the entries of an image, drawn one after the other in a chosen order.

.. math:: h_{\pi_t} = h(x_{\pi_1}, \dots, x_{\pi_{t-1}}, \pi_t, c)

Token t holds the entry drawn before it and the place of the next; it attends to itself and to
earlier tokens, and by how far apart in the image their entries lie (Vaswani et al., 2017; the bias
of Shaw et al., 2018, in two dimensions). Keys and values are kept while drawing, so a sample costs
one pass in total.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from ..shapes import Condition, Data
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

        Arguments:
            h: The tokens.
            bias: What is added to the logits of attention, ``(heads, tokens, all so far)``.
            past: Keys and values of earlier tokens, ``(2, n, heads, tokens, width / heads)``.
        """
        mixed = self.mix(self.before(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        kept = mixed[1:] if past is None else torch.cat([past, mixed[1:]], dim=3)
        read = scaled_dot_product_attention(mixed[0], kept[0], kept[1], attn_mask=bias)
        h = h + self.dropout(self.join(read.transpose(1, 2).flatten(2)))
        return h + self.dropout(self.down(silu(self.up(self.between(h))))), kept


class CausalTransformer(AutoregressiveNetwork):
    r"""Parameters of every entry given the entries before it.

    Arguments:
        orders: The entries in the order drawn, ``(m, d)``; all orders share all weights.
        width: Numbers per token, a multiple of `HEADS`.
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
        """What the condition adds to every token, ``(n or 1, 1, width)``."""
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
        before = order[:-1]
        known = self.value(self.features(x.flatten(1)[:, before])) + self.place.weight[before]
        begin = self.begin.expand(len(x), 1, -1)
        h = (
            torch.cat([begin, known], dim=1)
            + self.target.weight[order]
            + self.condition_shift(c, begin)
        )
        h, near = self.dropout(h), self.attention_bias(order)
        for block, bias in zip(self.blocks, near, strict=True):
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
