"""Pictures as numbers: the range of their pixels, and the tensors that networks take."""

from typing import Any, NamedTuple

from ..errors import DataError
from .distances import Array

BYTES, UNIT, SIGNED = "0..255", "[0, 1]", "[-1, 1]"


def check_same_range(real: Array, generated: Array) -> None:
    """Refuse images of which one set has values in another customary range than the other.

    Raises:
        DataError: If one of them is in 0..255, [0, 1] or [-1, 1] and the other in another of these.
    """
    ours, theirs = detect_pixel_range(real), detect_pixel_range(generated)
    if ours == BYTES and theirs == UNIT and not (generated % 1).any():
        return  # nearly black
    if ours and theirs and ours != theirs:
        raise DataError(
            f"real pixels are in {ours} and generated pixels in {theirs}: bring both to one range"
        )


def detect_pixel_range(x: Array) -> str:
    """The customary range that the values are in, or nothing."""
    low, high = x.min(), x.max()
    if low >= 0 and 1 < high <= 255 and not (x % 1).any():
        return BYTES
    if high <= 1 and low >= -1:
        return UNIT if low >= 0 else SIGNED if low < -0.1 else ""
    return ""


class PixelRange(NamedTuple):
    """How the numbers of pictures become pixels from 0 to 1.

    Arguments:
        event: The shape of one picture.
        low: The number that is black.
        high: The number that is white.
    """

    event: tuple[int, ...]
    low: float
    high: float

    @property
    def words(self) -> str:
        """The change of range as one says it."""
        return f"pixels {self.low:g} to {self.high:g} as 0 to 1"

    def unit(self, x: Array) -> Array:
        """Rows of numbers from 0 to 1; what lies outside is cut off."""
        return ((x.reshape(len(x), -1) - self.low) / (self.high - self.low)).clip(0, 1)

    def tensor(self, x: Array) -> Any:
        """Pictures from 0 to 1, a float32 tensor ``(n, channels, height, width)``."""
        import torch

        from ..networks.layout import image_layout

        rows = torch.as_tensor(self.unit(x), dtype=torch.float32)
        return image_layout(self.event).to_channels_first(rows.reshape(-1, *self.event)).contiguous()


def fit_pixel_range(
    real: Array, event: tuple[int, ...], generated: Array | None = None
) -> PixelRange:
    """How to see pictures, as the real ones say; none of the generated ones is cut off.

    Whole numbers run to 255, or to the largest of them where none is above 127; other numbers from
    0 or -1 to 1, or else from the smallest to the largest.
    """
    sets = (real,) if generated is None else (real, generated)
    kind, high = detect_pixel_range(real), max(float(x.max()) for x in sets)
    ends = {
        BYTES: (0.0, 255.0 if high > 127 else high),
        UNIT: (0.0, 1.0),
        SIGNED: (-1.0, 1.0),
    }
    low, high = ends.get(kind, (min(float(x.min()) for x in sets), high))
    return PixelRange(event, low, high if high > low else low + 1.0)
