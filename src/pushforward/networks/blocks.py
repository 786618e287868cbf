r"""What deep networks are built of: attention, residual blocks, and embedded times and conditions.

A condition ``c`` is a vector whose first entry is 1; the zero vector, or None, says that nothing is
known. Tokens, such as words or the entries of a set, are its last ``count * width`` numbers, and
each is made alike: ``width`` numbers of which the first is 1, or all zero where there is no token.

.. math:: c = [\,1, \text{vector};\; 1, \text{token}_1;\; \dots;\; 1, \text{token}_m;\; 0, \dots\,]

So a mask is a token's first entry, hiding a condition hides its tokens, and a batch of conditions
stays one matrix whatever they are.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..errors import UsageError
from ..shapes import Condition, Times
from .mlp import fourier_embedding, mlp

HEAD = 32  # numbers per head, where they divide the width


def zero_module(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def head_count(width: int) -> int:
    return math.gcd(width, max(1, width // HEAD))


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    r""":math:`\mathrm{softmax}(q k^\top / \sqrt d)\, v` (Vaswani et al., 2017, eq. 1).

    PyTorch's fused kernels have no forward-mode derivative and no second one on every device, and
    maps of a flow are trained with the former; an image of patches has few tokens. The mask
    ``seen`` says which keys can be seen; it broadcasts against ``(..., tokens, keys)``.
    """
    logits = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if seen is not None:
        logits = logits.masked_fill(~seen, -math.inf)
    return logits.softmax(-1) @ v


def split_heads(h: Tensor, parts: int, heads: int) -> Tensor:
    """Numbers side by side as heads apart, ``(parts, batch, heads, tokens, width / heads)``."""
    return h.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4)


class Attention(nn.Module):
    """What tokens read from each other and from a condition's tokens, under one softmax.

    The keys and values of a condition's tokens join those of the data (Nichol et al., 2022), so
    that a sample without any still has something to look at. Such a token has ``context`` numbers,
    of which the first says whether it is there.
    """

    def __init__(self, width: int, context: int = 0) -> None:
        super().__init__()
        self.heads = head_count(width)
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.context = nn.Linear(context, 2 * width, bias=False) if context else None

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        (q, k, v), seen = split_heads(self.mix(h), 3, self.heads), None
        if self.context is not None and context is not None:
            more, its = split_heads(self.context(context), 2, self.heads)
            k, v = torch.cat([k, more], dim=2), torch.cat([v, its], dim=2)
            own = torch.ones(*h.shape[:2], dtype=torch.bool, device=h.device)
            seen = torch.cat([own, context[..., 0] != 0], dim=1)[:, None, None]
        return self.join(dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2))


def conv3x3(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1)


def downsample_conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


def group_norm(channels: int) -> nn.Module:
    """Normalise each sample over its pixels and groups of at least four channels."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 4)), channels)


def identity_norm(channels: int) -> nn.Module:
    """No normalisation: a critic whose slope is penalised would divide it away."""
    return nn.Identity()


class ResidualBlock(nn.Module):
    r"""Two convolutions, shifted and scaled by an embedding, added to a skip connection.

    .. math:: r = (1 + s)\,\mathrm{norm}(\mathrm{conv}(\mathrm{silu}(\mathrm{norm}(h)))) + b,
        \qquad h \leftarrow \mathrm{skip}(h) + \mathrm{conv}(\mathrm{silu}(r)), \qquad (s, b) = W e

    (Dhariwal & Nichol, 2021, section 3: adaptive group normalisation). The length of e is
    ``embedded``; the zero vector and None change nothing.
    """

    def __init__(
        self,
        into: int,
        out: int,
        embedded: int = 0,
        *,
        norm: Callable[[int], nn.Module] = group_norm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.before, self.first = norm(into), conv3x3(into, out)
        self.between, self.second = norm(out), conv3x3(out, out)
        self.told = nn.Linear(embedded, 2 * out, bias=False) if embedded else None
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, h: Tensor, e: Tensor | None = None) -> Tensor:
        r = self.between(self.first(silu(self.before(h))))
        if self.told is not None and e is not None:
            scale, shift = self.told(e)[..., None, None].chunk(2, dim=1)
            r = torch.addcmul(r + shift, r, scale)
        return self.skip(h) + self.second(self.dropout(silu(r)))


class TimeConditionEmbedding(nn.Module):
    r"""Time, span and condition as one vector, and the condition's tokens apart.

    .. math:: e = \mathrm{silu}(\mathrm{mlp}(\phi(t)) + W\phi(\text{span}) + V c)

    of length ``width``. A scalar time is embedded once for the whole batch. The condition c has
    ``condition`` numbers with its tokens; these are given by how many there are, and their width.
    """

    omega: Tensor

    def __init__(
        self,
        condition: int,
        width: int,
        *,
        tokens: tuple[int, int] = (0, 0),
        frequencies: int = 8,
        spans: bool = False,
    ) -> None:
        super().__init__()
        self.tokens, self.vector = tokens, condition - math.prod(tokens)
        if self.vector < 0:
            raise UsageError(f"a condition of {condition} numbers cannot end in {tokens} tokens")
        self.register_buffer("omega", math.pi * torch.arange(1.0, frequencies + 1))
        self.time = mlp(2 * frequencies, width, width)
        self.span = nn.Linear(2 * frequencies, width, bias=False) if spans else None
        self.condition = nn.Linear(self.vector, width, bias=False) if self.vector else None

    def forward(
        self, t: Times, c: Condition = None, span: Times | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The vector ``(batch or 1, width)``; tokens ``(batch, count, their width)`` or None."""
        e, tokens = self.time(fourier_embedding(t, self.omega)), None
        if self.span is not None and span is not None:
            e = e + self.span(fourier_embedding(span, self.omega))
        if c is not None and self.condition is not None:
            e = e + self.condition(c[:, : self.vector])
        if c is not None and self.tokens[0]:
            tokens = c[:, self.vector :].unflatten(1, self.tokens)
        return silu(e).view(-1, e.shape[-1]), tokens
