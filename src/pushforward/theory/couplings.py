r"""Couplings: which noise of a batch goes with which datum.

Pairs that are near make paths that cross less, so that the flow is straighter and needs fewer
steps (Pooladian et al., 2023; Tong et al., 2024). A coupling permutes the noise only, so that
labels stay with their data, and takes the conditions: noise that is chosen by its distance from a
datum tells which class that is, whereas a sampler draws noise that tells nothing. Each must
therefore be coupled among its own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..shapes import Condition, Data
from .transport import assignment, cooled

Coupling = Callable[[Data, Data, Condition], tuple[Data, Data]]
Partner = Callable[[Data, Data, Condition], Tensor]

CONDITION = 100.0  # price of a squared difference of conditions where no two are equal
TEMPERATURE = 0.05  # of Sinkhorn's plan, in units of the mean cost


def independent(x: Data, eps: Data, c: Condition = None) -> tuple[Data, Data]:
    """Data and noise as they come."""
    return x, eps


def exact_coupling(x: Data, eps: Data, c: Condition = None) -> tuple[Data, Data]:
    r"""Pair each ``x`` with the noise that minimises the total squared distance in the batch.

    Every row is used once, so that both marginals are kept exactly, and those given the class too.
    """
    return x, eps[among_equals(nearest, x, eps, c)]


def sinkhorn_coupling(x: Data, eps: Data, c: Condition = None) -> tuple[Data, Data]:
    r"""Pair each ``x`` with a noise drawn from its row of the entropic plan of the batch.

    The law of ``x`` is kept exactly; that of ``eps`` in expectation.
    """
    return x, eps[among_equals(drawn, x, eps, c)]


def in_parts(
    coupling: Coupling, x: Data, eps: Data, c: Condition = None, *, size: int = 256
) -> tuple[Data, Data]:
    """Couple a few rows at a time, because an assignment takes the cube of their number."""
    known = c.split(size) if c is not None else [None] * len(x)
    joined = [coupling(*rows) for rows in zip(x.split(size), eps.split(size), known)]
    return torch.cat([a for a, _ in joined]), torch.cat([b for _, b in joined])


def among_equals(partner: Partner, x: Data, eps: Data, c: Condition) -> Tensor:
    r"""The row of noise for each datum, chosen only among rows with the same condition.

    The noise of row i has the condition of row i, of which it is independent. Where conditions are
    numbers, of which no two are equal, their squared difference is added to the cost at a high
    price, so that the noise stays almost independent (Kerrigan et al., 2024).
    """
    if c is None:
        return partner(x, eps, None)
    kinds, kind = torch.unique(c, dim=0, return_inverse=True)
    if 2 * len(kinds) > len(x):
        return partner(x, eps, c)
    order = torch.arange(len(x), device=x.device)
    for k in range(len(kinds)):
        rows = (kind == k).nonzero()[:, 0]
        order[rows] = rows[partner(x[rows], eps[rows], None)]
    return order


def price(x: Data, eps: Data, c: Condition) -> Tensor:
    """The cost of every pair, ``(n, n)``."""
    cost = torch.cdist(x.detach().flatten(1).float(), eps.detach().flatten(1).float()).square_()
    return cost if c is None else cost + CONDITION * torch.cdist(c.float(), c.float()).square_()


def nearest(x: Data, eps: Data, c: Condition) -> Tensor:
    """The permutation of least total cost; on the line it sorts both."""
    if c is not None or x[0].numel() > 1:
        return assignment(price(x, eps, c))
    order = torch.empty_like(x.flatten(), dtype=torch.long)
    order[x.flatten().argsort()] = eps.flatten().argsort()
    return order


def drawn(x: Data, eps: Data, c: Condition) -> Tensor:
    """A draw from each row of the entropic plan, at a temperature relative to the mean cost."""
    cost = price(x, eps, c)
    final = max(TEMPERATURE * float(price(x, eps, None).mean()), 1e-6)
    _, g = cooled(cost, [final * 4**k for k in (2, 1, 0)], sweeps=20)
    return torch.multinomial(((g - cost) / final).softmax(1), 1)[:, 0]
