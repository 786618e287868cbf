"""How far the result of an adaptive solver can be trusted: solve again, more accurately."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..rng import fork_rng

PARTS = 16  # of the time, at which the second solver stops in any case


def tolerance_error(
    solve: Callable[[Tensor, float], Tensor], like: Tensor, tolerance: float
) -> float:
    """The most by which values change at a tenth of the tolerance.

    The second solver also stops at equal parts of the time, so that it sees what the first may have
    stepped over. Both draw the same random numbers.

    Arguments:
        solve: Values, given the times at which it stops in any case and a tolerance.
        like: A tensor on the device, and in the precision, of the solver.
        tolerance: Of the first solver.
    """
    fine = max(tolerance / 10, 8 * torch.finfo(like.dtype).eps)
    values = []
    for limit, parts in ((tolerance, 1), (fine, PARTS)):
        with fork_rng(like.device):
            values.append(solve(torch.linspace(0, 1, parts + 1), limit))
    return float((values[0] - values[1]).abs().max())
