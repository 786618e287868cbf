r"""Attention of tokens to each other, and to the tokens of a condition."""

import math

import torch
from torch import Tensor, nn

HEAD = 32  # numbers per head, where they divide the width


def zero_module(layer: nn.Module) -> nn.Module:
    """A layer that begins at zero, so that what it is added to is unchanged at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def head_count(width: int) -> int:
    """How many heads attend: about one for every `HEAD` numbers."""
    return math.gcd(width, max(1, width // HEAD))


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    r""":math:`\mathrm{softmax}(q k^\top / \sqrt d)\, v` (Vaswani et al., 2017, eq. 1).

    PyTorch's fused kernels have no forward-mode derivative and no second one on every device, and
    maps of a flow are trained with the former; an image of patches has few tokens.

    Arguments:
        q: Queries, ``(..., tokens, d)``.
        k: Keys, ``(..., others, d)``.
        v: Values, ``(..., others, d)``.
        seen: Which keys can be seen, a mask that broadcasts against ``(..., tokens, others)``.
    """
    logits = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if seen is not None:
        logits = logits.masked_fill(~seen, -math.inf)
    return logits.softmax(-1) @ v


class Attention(nn.Module):
    """What tokens read from each other and from a condition's tokens, under one softmax.

    The keys and values of a condition's tokens join those of the data (Nichol et al., 2022), so
    that a datum without any still has something to look at.

    Arguments:
        width: Numbers per token.
        context: Numbers per token of a condition, 0 for none; the first says whether it is there.
    """

    def __init__(self, width: int, context: int = 0) -> None:
        super().__init__()
        self.heads = head_count(width)
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.context = nn.Linear(context, 2 * width, bias=False) if context else None

    def split(self, h: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Numbers side by side as heads apart: each ``(batch, heads, tokens, width / heads)``."""
        return h.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        """An update of tokens ``(batch, tokens, width)``."""
        (q, k, v), seen = self.split(self.mix(h), 3), None
        if self.context is not None and context is not None:
            more, its = self.split(self.context(context), 2)
            k, v = torch.cat([k, more], dim=2), torch.cat([v, its], dim=2)
            own = torch.ones(*h.shape[:2], dtype=torch.bool, device=h.device)
            seen = torch.cat([own, context[..., 0] != 0], dim=1)[:, None, None]
        return self.join(dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2))
