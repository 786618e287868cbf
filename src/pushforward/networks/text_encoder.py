r"""A small encoder of captions that learns with the network it tells them to.

A caption comes as the pieces of its words, each as the bytes that spell it (`data.captions`): words
that were never seen are read by their letters. A piece is the sum of a vector for each byte in its
place, through a perceptron; where it stands in the caption is added, and pieces attend to each
other (Vaswani et al., 2017, normalised before each layer), so that the order of words counts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, gelu, layer_norm, linear

from ..shapes import Data, Times
from .backbone import Backbone
from .blocks import dot_product_attention, head_count, split_heads
from .mlp import mlp

VALUES = 257  # of a byte, and one for none


class _CaptionLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = head_count(width)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = mlp(width, 2 * width, width)

    def forward(self, h: Tensor, there: Tensor) -> Tensor:
        q, k, v = split_heads(self.mix(self.before(h)), 3, self.heads)
        read = dot_product_attention(q, k, v, there[:, None, None])
        h = h + self.join(read.transpose(1, 2).flatten(2))
        return h + self.layers(self.after(h))


class ByteEncoder(Backbone):
    offsets: Tensor

    def __init__(self, tokens: tuple[int, int], *, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        count, size = tokens
        self.register_buffer("offsets", VALUES * torch.arange(size), persistent=False)
        self.letters = nn.Parameter(torch.randn(VALUES * size, width) / size**0.5)
        self.places = nn.Parameter(torch.randn(count, width))
        self.word = mlp(width, 2 * width, width)
        self.layers = nn.ModuleList(_CaptionLayer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, spelled: Tensor) -> tuple[Tensor, Tensor]:
        """Vector ``(batch, width)``, tokens ``(batch, count, 1 + width)``; 0 if not spelled."""
        count, size = self.tokens
        letters = (256 * spelled.float()).round().long().view(-1, count, size)
        there = letters[..., 0] > 0
        at = (letters + self.offsets).view(-1, size)
        pieces = embedding_bag(at, self.letters, mode="sum").view(-1, count, self.letters.shape[1])
        h = self.word(pieces) + self.places
        # something to attend to where no piece is there; it is zeroed below
        seen = there | ~there.any(1, keepdim=True)
        for layer in self.layers:
            h = layer(h, seen)
        flag = there[..., None].to(h)
        h = flag * self.norm(h)
        vector = h.sum(1) / flag.sum(1).clamp(min=1)
        return vector, torch.cat([flag, h], dim=2)


class EncodedCondition(NamedTuple):
    c: Tensor


class CaptionedNetwork(nn.Module):
    """``net(x, t, c)`` after reading the spelled caption in which c ends.

    ``net`` takes the vector of the condition, that of the reader and, if it attends, its tokens.
    """

    def __init__(self, net: nn.Module, reader: ByteEncoder, attends: bool) -> None:
        super().__init__()
        self.net, self.reader, self.attends = net, reader, attends

    def read(self, c: Tensor | None) -> EncodedCondition | None:
        if c is None:
            return None
        spelled = self.reader.tokens[0] * self.reader.tokens[1]
        vector, tokens = self.reader(c[:, -spelled:])
        parts = [c[:, :-spelled], vector.to(c), *([tokens.flatten(1).to(c)] * self.attends)]
        return EncodedCondition(torch.cat(parts, dim=1))

    def forward(
        self,
        x: Data,
        t: Times,
        c: Tensor | EncodedCondition | None = None,
        span: Times | None = None,
    ) -> Data:
        known = c if isinstance(c, EncodedCondition) else self.read(c)
        return self.net(x, t, None if known is None else known.c, span)


class Bert:
    """A frozen BERT, from weights by their published names: token numbers to states."""

    def __init__(self, weights: dict[str, Tensor], heads: int, eps: float) -> None:
        self.weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        self.heads, self.eps = heads, eps
        layers = (name for name in self.weights if name.startswith("encoder.layer."))
        self.depth = len({name.split(".")[2] for name in layers})

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States of tokens, ``(batch, tokens, d)``; those outside the mask are not attended to."""
        names = ("word", "position", "token_type")
        word, place, kind = (self.weights[f"embeddings.{name}_embeddings.weight"] for name in names)
        h = embedding(ids, word) + place[: ids.shape[1]] + kind[0]
        h = self.normalised(h, "embeddings.LayerNorm")
        for i in range(self.depth):
            h = self.layer(h, mask[:, None, None], f"encoder.layer.{i}.")
        return h

    def layer(self, h: Tensor, mask: Tensor, at: str) -> Tensor:
        q, k, v = (
            self.linear(h, f"{at}attention.self.{name}").unflatten(-1, (self.heads, -1))
            for name in ("query", "key", "value")
        )
        read = dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        read = self.linear(read.transpose(1, 2).flatten(2), f"{at}attention.output.dense")
        h = self.normalised(h + read, f"{at}attention.output.LayerNorm")
        more = gelu(self.linear(h, f"{at}intermediate.dense"))
        return self.normalised(h + self.linear(more, f"{at}output.dense"), f"{at}output.LayerNorm")

    def linear(self, h: Tensor, name: str) -> Tensor:
        return linear(h, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def normalised(self, h: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return layer_norm(h, h.shape[-1:], weight, bias, self.eps)
