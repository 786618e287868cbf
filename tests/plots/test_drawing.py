"""Mosaics of images."""

import numpy as np

from pushforward.plots import drawing

rng = np.random.default_rng(0)


def test_a_mosaic_holds_each_image_whole_in_any_layout():
    x = rng.uniform(size=(4, 3, 5, 6))
    first = drawing.image_mosaic(x, 2, 0.0, 1.0)
    np.testing.assert_array_equal(first, drawing.image_mosaic(np.moveaxis(x, 1, -1), 2, 0.0, 1.0))
    np.testing.assert_array_equal(first[6:, 7:], np.moveaxis(x[3], 0, -1))
