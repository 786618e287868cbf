"""Images of shapes show what their captions say, and the reader reads it back."""

import numpy as np
import pytest

from pushforward.data.builtin import shapes


@pytest.mark.parametrize("side", [32, 48, 64])
def test_the_reader_reads_every_factor_of_every_image(side):
    scene = shapes.draw_factors(2000, seed=1)
    found, misfit = shapes.recognise_shapes(shapes.render_shapes(scene, side))
    for factor in shapes.FACTORS:
        assert np.array_equal(getattr(found, factor), getattr(scene, factor)), factor
    assert abs(found.x - scene.x).max() < 0.01 and abs(found.y - scene.y).max() < 0.01
    assert misfit.max() < 8


def test_the_reader_survives_noise_and_an_image_of_nothing_is_a_misfit():
    scene, rng = shapes.draw_factors(500, seed=2), np.random.default_rng(0)
    clean = shapes.render_shapes(scene)
    noisy = np.clip(clean + 6 * rng.standard_normal(clean.shape), 0, 255)
    found, _ = shapes.recognise_shapes(noisy)
    right = np.mean([getattr(found, f) == getattr(scene, f) for f in shapes.FACTORS], axis=0)
    assert right.mean() > 0.99
    _, misfit = shapes.recognise_shapes(rng.integers(0, 256, (50, 32, 32, 3)))
    assert misfit.min() > 40


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_shape_covers_the_area_of_its_disc(shape):
    scene = shapes.draw_factors(200, shape=shape)
    covered = shapes.pixel_coverage(scene, 256).mean((1, 2))
    assert np.allclose(covered, np.pi * scene.radius**2, rtol=0.01)


def test_captions_say_every_factor_and_differ_where_the_scenes_do():
    scene = shapes.draw_factors(5000, seed=3)
    captions = scene.captions()
    cells = {tuple(getattr(scene, f)[i] for f in shapes.FACTORS) for i in range(5000)}
    assert len(set(captions)) == len(cells) == 3 * 4 * 2 * 9 * 3
    fixed = {"shape": "circle", "colour": "red", "size": "small", "row": "top", "column": "left"}
    some = shapes.draw_factors(1, **fixed, background="grey")
    assert some.captions()[0] == "a small red circle at the top left on grey"


def test_no_shape_touches_the_border_and_factors_are_independent():
    scene = shapes.draw_factors(20_000, seed=4)
    share = shapes.pixel_coverage(scene._replace(size=scene.size), 32)
    rim = np.concatenate([share[:, 0], share[:, -1], share[:, :, 0], share[:, :, -1]], axis=1)
    assert rim.max() == 0
    for a, b in (("shape", "colour"), ("size", "row"), ("column", "background")):
        r = np.corrcoef(getattr(scene, a), getattr(scene, b))[0, 1]
        assert abs(r) < 5 / np.sqrt(20_000)


def test_images_drawn_in_batches_are_those_drawn_alone():
    scene = shapes.draw_factors(130, 3)
    alone = [
        shapes.render_shapes(shapes.ShapeFactors(*(part[[i]] for part in scene)), 8)[0]
        for i in range(130)
    ]
    assert np.array_equal(shapes.render_shapes(scene, 8), alone)
