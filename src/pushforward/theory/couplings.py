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

from ..rng import fork_rng, seed_rng
from ..shapes import Condition, Data
from .transport import anneal_potentials, optimal_assignment

Coupling = Callable[[Data, Data, Condition], tuple[Data, Data]]
Pairs = tuple[Tensor, Tensor, Tensor | None]
Partner = Callable[[Data, Data, Condition], Tensor]

CONDITION = 100.0  # price of a squared difference of conditions where no two are equal
TEMPERATURE = 0.05  # of Sinkhorn's plan, in units of the mean cost


def independent_coupling(x: Data, eps: Data, c: Condition = None) -> tuple[Data, Data]:
    return x, eps


def exact_coupling(x: Data, eps: Data, c: Condition = None) -> tuple[Data, Data]:
    """Pair each ``x`` with the noise that minimises the total squared distance in the batch.

    Every row is used once, so that both marginals are kept exactly, and those given the class too.
    """
    return x, eps[_match_within_conditions(_optimal_permutation, x, eps, c)]


def outline_coupling(
    x: Data, eps: Data, c: Condition = None, *, first: Callable[[Data], Tensor] = torch.as_tensor
) -> tuple[Data, Data]:
    """By `image_outlines` of ``first(x)``, images ``(n, channels, height, width)``."""
    outlines = image_outlines(first(x)), image_outlines(first(eps))
    return x, eps[_match_within_conditions(_optimal_permutation, *outlines, c)]


def image_outlines(x: Data) -> Tensor:
    r"""What the brightness of images does not change: how steep they are, and their colour.

    .. math:: \phi(x) = (\|\nabla x\|,\ x_k - \bar x), \qquad
        \|\nabla x\|^2 = \sum_k (\partial_1 x_k)^2 + (\partial_2 x_k)^2, \quad
        \bar x = \tfrac1K \sum_k x_k

    by differences of neighbouring pixels, in the units of x: ``(n, channels + 1, height, width)``.
    A thing that is darker than one ground and lighter than another has the same outlines on both,
    whereas the products of its pixels, all that the squared distance knows of a pair, are negative:
    pixels keep such things apart.
    """
    rises = (torch.diff(x, dim=k, append=x.narrow(k, x.shape[k] - 1, 1)) for k in (2, 3))
    steep = torch.stack([rise.square().sum(1, keepdim=True) for rise in rises]).sum(0).sqrt()
    return torch.cat([steep, x - x.mean(1, keepdim=True)], dim=1)


def sinkhorn_coupling(x: Data, eps: Data, c: Condition = None) -> tuple[Data, Data]:
    r"""Pair each ``x`` with a noise drawn from its row of the entropic plan of the batch.

    The distribution of ``x`` is kept exactly; that of ``eps`` in expectation.
    """
    return x, eps[_match_within_conditions(_sample_plan_rows, x, eps, c)]


def couple_in_chunks(
    coupling: Coupling, x: Data, eps: Data, c: Condition = None, *, size: int = 256
) -> tuple[Data, Data]:
    """Couple a few rows at a time, because an assignment takes the cube of their number."""
    known = c.split(size) if c is not None else [None] * len(x)
    joined = [coupling(*rows) for rows in zip(x.split(size), eps.split(size), known)]
    return torch.cat([a for a, _ in joined]), torch.cat([b for _, b in joined])


class CouplingPool:
    """Pairs that ``couple`` draws and couples ``size`` at once, and that are used a few at a time.

    The partners that a small batch offers are far: the more rows are coupled at once, the nearer
    are the pairs to those of the plan between the two distributions.
    """

    def __init__(self, couple: Callable[[int], Pairs], size: int) -> None:
        self.couple, self.size, self.seed = couple, size, 0
        self.pairs: Pairs | None = None

    def take(self, n: int, state: Tensor) -> Pairs:
        """The next ``n`` pairs, of a new pool where too few are left.

        ``state`` is the seed of the pool, 0 before the first, and how many of it are used; it is
        brought up to date. The same state gives the same pairs.
        """
        seed, used = state.tolist()
        if not seed or used + n > self.size:
            seed, used = int(torch.randint(1, 2**62, ())), 0
        if self.pairs is None or self.seed != seed:
            with fork_rng(state.device):
                seed_rng(seed, state.device)
                self.seed, self.pairs = seed, self.couple(max(self.size, n))
        state.copy_(torch.tensor([seed, used + n]))
        x, eps, c = self.pairs
        rows = slice(used, used + n)
        return x[rows], eps[rows], None if c is None else c[rows]


def _match_within_conditions(partner: Partner, x: Data, eps: Data, c: Condition) -> Tensor:
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


def pairing_cost(x: Data, eps: Data, c: Condition) -> Tensor:
    cost = torch.cdist(x.detach().flatten(1).float(), eps.detach().flatten(1).float()).square_()
    return cost if c is None else cost + CONDITION * torch.cdist(c.float(), c.float()).square_()


def _optimal_permutation(x: Data, eps: Data, c: Condition) -> Tensor:
    if c is not None or x[0].numel() > 1:
        return optimal_assignment(pairing_cost(x, eps, c))
    order = torch.empty_like(x.flatten(), dtype=torch.long)
    order[x.flatten().argsort()] = eps.flatten().argsort()
    return order


def _sample_plan_rows(x: Data, eps: Data, c: Condition) -> Tensor:
    cost = pairing_cost(x, eps, c)
    final = max(TEMPERATURE * float(pairing_cost(x, eps, None).mean()), 1e-6)
    _, g = anneal_potentials(cost, [final * 4**k for k in (2, 1, 0)], sweeps=20)
    return torch.multinomial(((g - cost) / final).softmax(1), 1)[:, 0]
