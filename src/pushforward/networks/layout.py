"""Images as convolutions take them, whatever the order of the user's axes.

An event of two axes is ``(height, width)``; of three it is ``(channels, height, width)``, or
``(height, width, channels)`` where the last axis is the shortest. Anything else is no image. The
view of the latter with its channels first has the memory order that PyTorch calls channels_last.
"""

from typing import NamedTuple

from torch import Tensor

from ..errors import UsageError
from ..shapes import Data

SMALL = 8  # images with a side up to here are left to perceptrons


class ImageLayout(NamedTuple):
    event: tuple[int, ...]  # the shape of one sample as the user has it
    channels: int
    height: int
    width: int
    axis: int = 1  # of a batch, which holds the channels; 1 also where there is none

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def to_channels_first(self, x: Data) -> Tensor:
        return (x if x.ndim == 4 else x.unsqueeze(1)).movedim(self.axis, 1)

    def from_channels_first(self, h: Tensor) -> Data:
        return h.movedim(1, self.axis).reshape(len(h), *self.event)


def is_image(event: tuple[int, ...]) -> bool:
    return len(event) in (2, 3)


def image_layout(event: tuple[int, ...]) -> ImageLayout:
    """The layout of images of a shape; others raise `UsageError`."""
    if not is_image(event):
        raise UsageError(f"data of shape {event} are no images: these have 2 or 3 axes")
    if len(event) == 2:
        return ImageLayout(event, 1, *event)
    a, b, c = event
    return ImageLayout(event, c, a, b, axis=3) if c < min(a, b) else ImageLayout(event, a, b, c)


def is_large_image(event: tuple[int, ...]) -> bool:
    return is_image(event) and min(image_layout(event).shape[1:]) > SMALL
