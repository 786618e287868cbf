r"""The energy score of one sample: what a generator without a likelihood can be validated with."""

from torch import Tensor

from ..shapes import Data, PerDatum


def energy_score(x: Data, a: Data, b: Data) -> PerDatum:
    r"""Of data x against two independent draws a, b for each (Gneiting & Raftery, 2007).

    .. math:: S = \tfrac12\|a - x\| + \tfrac12\|b - x\| - \tfrac12\|a - b\|

    Its mean exceeds that of the true law by half the energy distance, and so is least, in every
    condition, for the true law alone.
    """
    return (distance(a, x) + distance(b, x) - distance(a, b)) / 2


def distance(a: Data, b: Data) -> PerDatum:
    """The Euclidean distance of each pair."""
    difference: Tensor = (a - b).flatten(1)
    return difference.norm(dim=1)
