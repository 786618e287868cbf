r"""Bits an entry that lossless codecs spend on images, beside which bits per dimension are read.

A density of whole-number pixels, dequantised or not, bounds the length of the best code from it
(Theis et al., 2016): a model that knows such images should need fewer bits than PNG and WebP,
which know none. A file has a header of some dozens of bytes, which is most of a small image's
file, so one large image tiled of all of them is encoded as well; there the images help each
other, which flatters the codec.
"""

import io
import math
from collections.abc import Iterable

import numpy as np

from ..errors import DataError

CODECS = {
    "png": {"format": "PNG", "optimize": True},
    "webp": {"format": "WEBP", "lossless": True, "quality": 100, "method": 4},
}
NAMES = {"png": "PNG", "webp": "WebP"}
SIDE = 8192  # pixels along a side of a tiled image at most; WebP takes no more than 16,383


def codec_bits(images: np.ndarray) -> dict[str, float]:
    """Bits an entry of PNG and lossless WebP: in files of one image, and tiled in one.

    Arguments:
        images: Whole numbers that span at most 256 levels, ``(n, h, w)``, ``(n, c, h, w)`` or
            ``(n, h, w, c)``. Three channels are colours; of others, each is a grey image.

    Returns:
        ``png`` and ``webp`` of one file an image, headers included, ``png_tiled`` and
        ``webp_tiled`` of one image of all of them.

    Raises:
        DataError: If these are no such images.
    """
    bytes_ = to_byte_images(np.asarray(images))
    files: dict[str, Iterable[np.ndarray]] = {"": bytes_, "_tiled": tile_sheets(bytes_)}
    return {
        f"{name}{suffix}": 8 * sum(_file_bytes(image, options) for image in images) / bytes_.size
        for suffix, images in files.items()
        for name, options in CODECS.items()
    }


def image_codec_bits(x: np.ndarray, levels: int) -> dict[str, float]:
    """`codec_bits` of images of whole-number levels; nothing for other data."""
    from ..networks.layout import is_image

    return codec_bits(x) if levels and is_image(x.shape[1:]) else {}


def format_codec_bits(bits: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {bits[key]:.3f} ({bits[f'{key}_tiled']:.3f} tiled)" for key, name in NAMES.items()
    )


def to_byte_images(images: np.ndarray) -> np.ndarray:
    """Images ``(n, h, w)`` in grey or ``(n, h, w, 3)`` in colour, the lowest level as zero."""
    from ..networks.layout import image_layout, is_image

    if not is_image(images.shape[1:]) or not len(images):
        raise DataError(f"data of shape {images.shape[1:]} are no images: codecs take no others")
    low, high = images.min(), images.max()
    if high - low > 255 or (images % 1).any():
        raise DataError("codecs take whole numbers of at most 256 levels")
    # a range within 0 to 255 is that of the images: what is black stays 0
    shifted = (images - (low if low < 0 or high > 255 else 0)).astype(np.uint8)
    if shifted.ndim == 3:
        return shifted
    last = np.moveaxis(shifted, image_layout(images.shape[1:]).axis, -1)
    if last.shape[-1] == 3:
        return last
    return np.moveaxis(last, -1, 1).reshape(-1, *last.shape[1:3])


def _file_bytes(image: np.ndarray, options: dict[str, object]) -> int:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, **options)  # type: ignore[arg-type]
    return file.tell()


def tile_sheets(images: np.ndarray) -> list[np.ndarray]:
    n, h, w = images.shape[:3]
    most = max(1, SIDE // h) * max(1, SIDE // w)
    return [tile_square(images[i : i + most]) for i in range(0, n, most)]


def tile_square(images: np.ndarray) -> np.ndarray:
    n, h, w = images.shape[:3]
    columns = min(n, math.ceil(math.sqrt(n * h / w)), max(1, SIDE // w))
    rows = math.ceil(n / columns)
    black = np.zeros((rows * columns - n, *images.shape[1:]), images.dtype)
    grid = np.concatenate([images, black]).reshape(rows, columns, *images.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * h, columns * w, *images.shape[3:])
