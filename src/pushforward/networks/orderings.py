"""Orders in which the entries of a datum can be drawn one after the other."""

import math

import torch
from torch import Tensor

from ..errors import UsageError
from .layout import image_layout, is_image

ALONG_ROWS = 4  # scans of an image that go along its rows, one from each corner


def entry_orderings(shape: tuple[int, ...], order: str, m: int) -> Tensor:
    """The first m orders: that given, its reverse, and others.

    An image is read along its rows or columns from any corner, all channels of a pixel together;
    after these eight, and for vectors after two, orders are random.

    Raises:
        UsageError: If ``order`` is no order of the entries.
    """
    d = math.prod(shape)
    first = torch.arange(d) if order == "given" else parse_ordering(order, d)
    orders = [first, first.flip(0)]
    if is_image(shape) and order == "given":
        image = image_layout(shape).first(first.view(1, *shape).double())[0]
        places = image.permute(1, 2, 0).long()
        both = [places, places.flip(0, 1), places.flip(1), places.flip(0)]
        orders = [p.flatten() for p in both] + [p.transpose(0, 1).flatten() for p in both]
    while len(orders) < m:
        orders.append(torch.randperm(d))
    return torch.stack(orders[:m])


def parse_ordering(order: str, d: int) -> Tensor:
    """An order as a user writes it: column numbers from 0, with commas, or "reversed"."""
    if order == "reversed":
        return torch.arange(d).flip(0)
    numbers = [int(i) if i.strip().isdigit() else -1 for i in order.split(",")]
    if sorted(numbers) != list(range(d)):
        raise UsageError(
            f"order is {order[:40]!r}; write given, reversed, or the numbers 0 to {d - 1} in the "
            "order wanted, with commas between"
        )
    return torch.tensor(numbers)
