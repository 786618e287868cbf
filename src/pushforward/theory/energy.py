"""The energy distance of samples: what a generator without a likelihood can be validated with."""

from torch import Tensor, cat, cdist

from ..shapes import Condition, Data, Scalar


def conditional_energy_distance(x: Data, y: Data, c: Condition = None) -> Scalar:
    r"""Of data x and draws y under the same conditions, over all pairs (Székely & Rizzo, 2013).

    .. math:: 2\,\mathbb E\|x - y\| - \mathbb E\|x - x'\| - \mathbb E\|y - y'\|

    With conditions it is that of the joint laws of :math:`(x, c)`, which vanishes for the true law
    in every condition alone; conditions that vary more than the data, as tokens of text do, are
    scaled down to vary as much, or they would hide the data. All pairs count, those of a datum with
    itself as well: the noise is of the order 1/n near the true law, where that of independent pairs
    is :math:`n^{-1/2}`.
    """
    if c is not None:
        most, spread = (z.flatten(1).var(0, correction=0).sum() for z in (x, c))
        c = c * (most / spread.clamp(min=1e-12)).sqrt().clamp(max=1)
    a, b = append_conditions(x, c), append_conditions(y, c)
    return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


def append_conditions(x: Data, c: Condition) -> Tensor:
    """The rows of x, with their conditions beside them."""
    rows = x.flatten(1)
    return rows if c is None else cat([rows, c], dim=1)
