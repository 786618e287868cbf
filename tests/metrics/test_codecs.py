"""Bits of lossless codecs against entropy, files on disk, and images that can be decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from pushforward.errors import DataError
from pushforward.metrics import codec_bits, codecs


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_noise_of_all_levels_costs_eight_bits_and_a_header(rng):
    """No code is shorter than the entropy; tiled, both are within a tenth of it."""
    x = rng.integers(0, 256, (100, 28, 28))
    found = codec_bits(x)
    for name in ("png", "webp"):
        assert 8 <= found[f"{name}_tiled"] < 8.8
        assert found[name] > found[f"{name}_tiled"]


def test_no_codec_beats_the_entropy_of_independent_pixels(rng):
    p = np.array([0.7, 0.2, 0.1])
    found = codec_bits(rng.choice(3, (200, 16, 16), p=p))
    entropy = -(p * np.log2(p)).sum()
    assert entropy * 0.98 < min(found.values()) < entropy + 1  # 51,200 pixels: 2 % is 4 deviations


def test_bits_are_those_of_the_files(rng, tmp_path):
    x = rng.integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)
    for name, options in codecs.CODECS.items():
        total = 0
        for i, image in enumerate(x):
            path = tmp_path / f"{i}.{name}"
            Image.fromarray(image).save(path, **options)
            total += path.stat().st_size
        assert codec_bits(x)[name] == pytest.approx(8 * total / x.size)


@pytest.mark.parametrize("shape", [(7, 5, 4), (7, 5, 4, 3), (3, 6, 6, 3)])
def test_what_is_encoded_decodes_to_the_same_images(rng, shape):
    """Both codecs, single and tiled: every image is found again in the sheet."""
    x = rng.integers(0, 256, shape, dtype=np.uint8)
    (sheet,) = codecs.tile_sheets(codecs.to_byte_images(x))
    h, w = shape[1:3]
    across = sheet.shape[1] // w
    for options in codecs.CODECS.values():
        file = io.BytesIO()
        Image.fromarray(sheet).save(file, **options)
        again = np.asarray(Image.open(file))
        again = again[..., 0] if x.ndim == 3 and again.ndim == 3 else again
        for i, image in enumerate(x):
            top, left = h * (i // across), w * (i % across)
            np.testing.assert_array_equal(again[top : top + h, left : left + w], image)


def test_the_order_of_the_axes_and_a_shift_below_zero_change_nothing(rng):
    x = rng.integers(0, 200, (20, 8, 8, 3))
    assert codec_bits(np.moveaxis(x, 3, 1)) == codec_bits(x)
    assert codec_bits(x[..., 0] - x[..., 0].min() - 50) == codec_bits(x[..., 0] - x[..., 0].min())


def test_many_images_are_tiled_in_several_sheets(rng, monkeypatch):
    monkeypatch.setattr(codecs, "SIDE", 20)
    sheets = codecs.tile_sheets(rng.integers(0, 256, (30, 6, 5), dtype=np.uint8))
    assert len(sheets) == 3 and all(max(s.shape) <= 20 for s in sheets)


@pytest.mark.parametrize("x", [np.zeros((3, 4)), np.full((3, 4, 4), 0.5), np.zeros((0, 4, 4)),
                               np.array([[[0, 300]]])])  # fmt: skip
def test_what_is_no_image_of_levels_is_refused(x):
    with pytest.raises(DataError, match="codecs take"):
        codec_bits(x)
