r"""What a deep network is told beside the data: a time, a condition, a set of tokens.

A condition ``c`` is a vector whose first entry is 1; the zero vector, or None, says that nothing is
known. Tokens, such as words or the entries of a set, are its last ``count * width`` numbers, and
each is made alike: ``width`` numbers of which the first is 1, or all zero where there is no token.

.. math:: c = [\,1, \text{vector};\; 1, \text{token}_1;\; \dots;\; 1, \text{token}_m;\; 0, \dots\,]

So a mask is a token's first entry, hiding a condition hides its tokens, and a batch of conditions
stays one matrix whatever they are.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..errors import UsageError
from ..shapes import Condition, Times
from .mlp import fourier_embedding, mlp


class TimeConditionEmbedding(nn.Module):
    r"""Time, span and condition as one vector, and the condition's tokens apart.

    .. math:: e = \mathrm{silu}(\mathrm{mlp}(\phi(t)) + W\phi(\text{span}) + V c)

    A scalar time is embedded once for the whole batch.

    Arguments:
        condition: The length of ``c`` with its tokens, 0 for none.
        width: The length of e.
        tokens: How many tokens end ``c``, and their width.
        frequencies: Fourier features of time.
        spans: Whether there is a second time.
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
