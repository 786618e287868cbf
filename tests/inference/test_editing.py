"""Pictures redrawn in part, ways between two, noise added and taken away: the whole library."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist

from pushforward import cli, progress
from pushforward.data.builtin import datasets, shapes
from pushforward.errors import DataError, UsageError
from pushforward.inference import editing
from pushforward.inference.loading import load
from pushforward.training.fit import fit

SMALL = {"steps": 2, "batch": 16, "width": 8, "progress": False}
LATENT = ["ddpm", "edm", "ncsn", "flow_matching", "normalizing_flow", "cnf", "vae"]
PATHS = ["ddpm", "edm", "ncsn", "flow_matching"]


def run(*words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(w) for w in words])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def floats(n=60, shape=(4, 4), seed=0):
    """Smooth random pictures of continuous numbers."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.standard_normal((n, *shape)), axis=-1).astype(np.float32)


def lower(shape=(8, 8)):
    mask = np.zeros(shape, bool)
    mask[shape[0] // 2 :] = True
    return mask


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits").x


@pytest.fixture(scope="module")
def flow(digits):
    return fit(digits[:200], "flow_matching", **SMALL)


@pytest.fixture(scope="module")
def normal(digits):
    return fit(digits[:400], "gaussian", progress=False)


def save(folder, pictures):
    folder.mkdir(parents=True)
    for i, x in enumerate(pictures):
        Image.fromarray(x).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of circles, one of squares in another size, and a run of each kind."""
    root = tmp_path_factory.mktemp("editing")
    for word, side in (("circle", 10), ("square", 12)):
        save(root / word, shapes.render_shapes(shapes.draw_factors(14, 0, shape=word), side))
    options = {"network": "mlp", **SMALL}
    fit(root / "circle", "flow_matching", out=root / "run", **options)
    fit(root / "square", "flow_matching", source=root / "circle", out=root / "to", **options)
    mask = np.zeros((10, 10), np.uint8)
    mask[5:] = 255
    Image.fromarray(mask).save(root / "mask.png")
    return root


# the part that is redrawn


@pytest.mark.parametrize("method", ["moments", "filter"])
def test_what_the_mask_keeps_stays_and_the_rest_varies(flow, digits, method):
    made = flow.inpaint(digits[0], lower(), 6, seed=0, method=method, steps=10)
    x = made.pictures
    assert x.dtype == digits.dtype and (x[:, :4] == digits[0][:4]).all()
    assert len(np.unique(x[:, 4:], axis=0)) > 3
    again = flow.inpaint(digits[0], lower(), 6, seed=0, method=method, steps=10)
    assert (again.pictures == x).all() and again.diversity == made.diversity
    plain = digits[0].astype(float)
    plain[lower()] = np.nan
    assert (flow.sample(6, given=plain, seed=0, method=method, steps=10) == x).all()


def test_diversity_is_the_mean_distance_between_two(normal, digits):
    made = normal.inpaint(digits[0], lower(), 40, seed=0)
    rows = made.pictures[:, 4:].reshape(40, -1).astype(float)
    assert made.diversity == pytest.approx(pdist(rows).mean() / math.sqrt(32))
    free = normal.sample(editing.FREE, seed=0)[:, 4:].reshape(editing.FREE, -1).astype(float)
    assert made.unconditional == pytest.approx(pdist(free).mean() / math.sqrt(32))
    assert 0 < made.diversity < made.unconditional
    assert math.isnan(normal.inpaint(digits[0], lower(), 1, seed=0).diversity)


def test_pixels_of_continuous_pictures_are_kept_to_a_thousandth():
    x = floats(shape=(3, 6, 6))
    model = fit(x, "edm", network="mlp", **SMALL)
    made = model.inpaint(x[0], lower((6, 6)), 3, seed=0, steps=5).pictures
    assert np.abs(made[:, :, :3] - x[0][:, :3]).max() < 1e-3
    assert np.abs(made[0] - made[1])[:, 3:].min() > 0


@pytest.mark.parametrize("kind", ["bool", "bytes", "file", "npy", "colours"])
def test_a_mask_may_be_any_kind_of_picture(normal, tmp_path, kind):
    white = lower().astype(np.uint8) * 255
    white[0, 0] = 127  # still black
    mask = {
        "bool": lower(),
        "bytes": white,
        "file": str(tmp_path / "m.png"),
        "npy": str(tmp_path / "m.npy"),
        "colours": str(tmp_path / "c.png"),
    }[kind]
    Image.fromarray(white).save(tmp_path / "m.png")
    Image.fromarray(white).convert("RGB").save(tmp_path / "c.png")
    np.save(tmp_path / "m.npy", lower())
    assert (editing.mask_array(mask, normal.schema) == lower()).all()


@pytest.mark.parametrize("event", [(3, 6, 7), (6, 7, 3)])
def test_a_mask_goes_for_all_channels(event):
    model = fit(floats(40, event), "gaussian", progress=False)
    got = editing.mask_array(lower((6, 7)), model.schema)
    axis = 0 if event[0] == 3 else -1
    assert got.shape == event and (got == np.expand_dims(lower((6, 7)), axis)).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((8, 8), bool), "all white"),
        (np.zeros((8, 8), np.uint8), "all black"),
        (lower((6, 6)), "of size 6 x 6 and the images are of 8 x 8"),
        ([["a", "b"]], "a mask is an image"),
    ],
)
def test_what_is_no_mask_is_refused(normal, digits, mask, message):
    with pytest.raises(DataError, match=message):
        normal.inpaint(digits[0], mask, 2)


def test_a_mask_of_numbers_that_are_none_is_refused(normal, digits):
    mask = lower().astype(float)
    mask[0, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        normal.inpaint(digits[0], mask, 2)


def test_inpainting_refuses_what_is_not_one_picture(normal, digits):
    with pytest.raises(DataError, match="3 images: give one"):
        normal.inpaint(digits[:3], lower(), 2)
    with pytest.raises(DataError, match=r"\(6, 6\)"):
        normal.inpaint(digits[0][:6, :6], lower(), 2)
    with pytest.raises(UsageError, match="fitted to none"):
        fit(floats(shape=(3,)), "gaussian", progress=False).inpaint(floats(1, (3,)), [True], 2)
    with pytest.raises(UsageError, match="cannot honour the option 'method'"):
        normal.inpaint(digits[0], lower(), 2, method="moments")


def test_an_unknown_method_is_refused(flow, digits):
    with pytest.raises(UsageError, match="method is 'repaint'; choose from filter, moments, auto"):
        flow.inpaint(digits[0], lower(), 2, method="repaint")


def test_many_draws_are_made_in_parts(digits, monkeypatch):
    from pushforward.inference import preprocessor

    model = fit(digits[:100], "flow_matching", **SMALL)
    seen, own = [], type(model.model).complete
    monkeypatch.setattr(preprocessor, "batch_rows", lambda shape: 5)

    def counted(self, n, *rest, **options):
        seen.append(n)
        return own(self, n, *rest, **options)

    counted.__annotations__ = own.__annotations__
    monkeypatch.setattr(type(model.model), "complete", counted)
    given = np.where(lower(), np.nan, digits[0])
    assert len(model.sample(12, given=given, seed=0)) == 12 and seen == [5, 5, 2]


# the way between two


def test_a_flow_goes_along_the_great_circle_of_its_latents():
    x = floats()
    model = fit(x, "normalizing_flow", **SMALL)
    made = model.interpolate(x[0], x[1], 5)
    assert made.shape == (5, 4, 4)
    np.testing.assert_allclose(made[[0, -1]], x[:2], atol=1e-3)
    a, b = (model.encode(x[i : i + 1]).ravel() for i in (0, 1))
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    middle = (a + b) * np.sin(angle / 2) / np.sin(angle)
    np.testing.assert_allclose(model.encode(made[2:3]).ravel(), middle, atol=1e-3)


def test_a_vae_goes_along_the_line():
    x = floats()
    model = fit(x, "vae", **SMALL)
    z = model.encode(x[:2])
    middle = model.decode(z.mean(0, keepdims=True))
    np.testing.assert_allclose(model.interpolate(x[0], x[1], 3)[1], middle[0], atol=1e-4)


@pytest.mark.parametrize("name", LATENT)
def test_the_ends_of_a_way_are_reconstructions(name):
    """Of a flow the reconstruction is the datum, up to the solver; of a VAE what latents keep."""
    x = floats()
    model = fit(x, name, **SMALL)
    made = model.interpolate(x[:2], x[2:4], 3, seed=1)
    assert made.shape == (6, 4, 4)
    ends = model.reconstruct(x[[0, 2, 1, 3]], seed=1)
    np.testing.assert_allclose(made[[0, 2, 3, 5]], ends, atol=1e-3)
    if name != "vae":  # a path's noise at its end still holds a little of the data
        assert np.abs(ends - x[[0, 2, 1, 3]]).max() < 0.02 * x.std()


def test_a_condition_is_mixed_on_the_way():
    x, y = floats(), np.repeat(["a", "b"], 30)
    model = fit(x, "normalizing_flow", y, **SMALL)
    made = model.interpolate(x[0], x[30], 3, ("a", "b"))
    np.testing.assert_allclose(made[[0, -1]], x[[0, 30]], atol=1e-3)
    with pytest.raises(DataError, match="condition"):
        model.interpolate(x[0], x[30], 3)


def test_a_way_needs_two_ends_of_the_right_kind(flow, normal, digits):
    with pytest.raises(UsageError, match="gaussian has no latents"):
        normal.interpolate(digits[0], digits[1])
    with pytest.raises(UsageError, match="at least its 2 ends"):
        flow.interpolate(digits[0], digits[1], 1)
    with pytest.raises(DataError, match="2 rows at one end and 1"):
        flow.interpolate(digits[:2], digits[1])
    with pytest.raises(UsageError, match="cannot honour"):
        flow.interpolate(digits[0], digits[1], colour=3)


# noise added and taken away


@pytest.mark.parametrize("name", PATHS)
def test_strength_0_gives_the_data_and_strength_1_a_sample(name, digits):
    model = fit(digits[:100], name, **SMALL)
    assert (model.edit(digits[:5], strength=0) == digits[:5]).all()
    fresh = model.edit(digits[:5], strength=1, seed=3, steps=5)
    other = model.edit(digits[5:10], strength=1, seed=3, steps=5)
    assert (fresh == other).all()  # nothing of the data is left


def test_of_continuous_data_a_full_edit_is_the_very_sample():
    x = floats()
    model = fit(x, "flow_matching", **SMALL)
    assert (
        model.edit(x[:5], strength=1, seed=3, steps=5) == model.sample(5, seed=3, steps=5)
    ).all()
    assert (model.edit(x[:5], strength=0) == x[:5]).all()


def test_a_weak_edit_stays_nearer_than_a_strong_one():
    x = floats(200)
    model = fit(x, "edm", **SMALL | {"steps": 100, "width": 32})
    moves = [
        np.abs(model.edit(x[:50], strength=s, seed=0) - x[:50]).mean() for s in (0.1, 0.4, 0.9)
    ]
    assert moves[0] < 0.5 * moves[1] < 0.5 * moves[2]


def test_an_edit_follows_its_condition_and_its_seed():
    """Two classes far apart: under the other's condition an edit goes over to it."""
    rng = np.random.default_rng(0)
    y = np.repeat(["low", "high"], 200)
    x = (rng.standard_normal((400, 3, 3)) + np.where(y == "low", -3, 3)[:, None, None]).astype("f4")
    model = fit(x, "flow_matching", y, **SMALL | {"steps": 200, "width": 32, "batch": 128})
    made = model.edit(x[:100], "high", strength=0.8, seed=0, steps=10)
    assert (made.mean((1, 2)) > 0).mean() > 0.9
    kept = model.edit(x[:100], "low", strength=0.8, seed=0, steps=10)
    assert (kept.mean((1, 2)) < 0).mean() > 0.9
    assert (kept == model.edit(x[:100], "low", strength=0.8, seed=0, steps=10)).all()
    assert (kept != model.edit(x[:100], "low", strength=0.8, seed=1, steps=10)).any()
    with pytest.raises(DataError, match="condition"):
        model.edit(x[:2])


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), 2])
def test_a_strength_is_from_0_to_1(flow, digits, strength):
    with pytest.raises(UsageError, match="strength is"):
        flow.edit(digits[:2], strength=strength)


def test_families_without_a_path_say_so(normal, digits):
    with pytest.raises(UsageError, match="gaussian cannot add noise and take it away"):
        normal.edit(digits[:2])


def test_a_flow_from_other_data_translates_instead():
    x = floats()
    model = fit(x, "flow_matching", source=floats(seed=1), **SMALL)
    with pytest.raises(UsageError, match="use translate"):
        model.edit(x[:2])


# folders of pictures


def test_source_pictures_take_the_size_of_the_data_and_keep_it_when_resumed(place, tmp_path):
    model = load(place / "to")
    assert tuple(model.schema.shape) == (12, 12, 3)
    moved = model.translate(place / "circle", tolerance=0.1)
    assert moved.shape == (14, 12, 12, 3) and moved.dtype == np.uint8
    longer = fit(out=place / "to", resume=True, steps=3, progress=False)
    assert longer.config["steps"] == 3


def test_the_commands_write_pictures(place, tmp_path, capsys):
    picture, mask = place / "circle" / "00.png", place / "mask.png"
    words = ["inpaint", place / "run", picture, "--mask", mask, "-n", 3, "--steps", 4]
    code, text, err = run(*words, "-o", tmp_path / "fills", "--json", capsys=capsys)
    assert code == 0, err
    facts, before = json.loads(text), np.asarray(Image.open(picture))
    files = sorted((tmp_path / "fills").iterdir())
    fills = np.stack([np.asarray(Image.open(f)) for f in files])
    assert len(fills) == 3 and (fills[:, :5] == before[:5]).all()
    rows = fills[:, 5:].reshape(3, -1).astype(float)
    assert facts["diversity"] == pytest.approx(pdist(rows).mean() / math.sqrt(rows.shape[1]))
    assert facts["unconditional_diversity"] > 0

    words = ["interpolate", place / "run", picture, place / "circle" / "01.png", "-n", 4]
    more = ["--set", "tolerance=0.01"]
    code, _, err = run(*words, *more, "-o", tmp_path / "strip.png", capsys=capsys)
    assert code == 0, err
    strip = np.asarray(Image.open(tmp_path / "strip.png"))[::15, ::15]  # enlarged 15 times
    assert strip.shape == (10, 40, 3)
    assert np.abs(strip[:, :10].astype(float) - before).mean() < 8

    words = ["edit", place / "run", place / "circle", "--strength", 0, "-o", tmp_path / "same"]
    code, _, err = run(*words, capsys=capsys)
    assert code == 0, err
    assert (np.asarray(Image.open(tmp_path / "same" / "00.png")) == before).all()

    words = ["reconstruct", place / "run", place / "circle", "-o", tmp_path / "back.npy"]
    code, text, err = run(*words, "--json", capsys=capsys)
    assert code == 0, err
    x = np.stack([np.asarray(Image.open(f)) for f in sorted((place / "circle").iterdir())])
    lost = np.load(tmp_path / "back.npy").astype(float) - x
    assert json.loads(text)["error"] == pytest.approx(np.sqrt((lost**2).mean()))
    assert np.abs(lost).max() <= 2  # of 255 levels: what a solver's tolerance moves over an edge

    words = ["translate", place / "to", place / "circle", "--set", "tolerance=0.1"]
    code, _, err = run(*words, "-o", tmp_path / "moved", capsys=capsys)
    assert code == 0, err
    moved = sorted((tmp_path / "moved").iterdir())
    assert len(moved) == 14 and Image.open(moved[0]).size == (12, 12)


def test_a_failing_command_says_why_in_one_line_and_writes_nothing(place, tmp_path, capsys):
    picture, mask, out = place / "circle" / "00.png", place / "mask.png", tmp_path / "out"
    Image.fromarray(np.full((10, 10), 255, np.uint8)).save(tmp_path / "white.png")
    for words, code, message in (
        (["inpaint", place / "run", picture, "--mask", tmp_path / "white.png"], 65, "all white"),
        (["inpaint", place / "run", picture, "--mask", place / "square" / "00.png"], 65, "12 x 12"),
        (["inpaint", place / "run", picture, "--mask", tmp_path / "none.png"], 66, "no such file"),
        (["inpaint", place / "run", place / "circle", "--mask", mask], 65, "give one"),
        (["interpolate", place / "to", picture, tmp_path / "none.png"], 66, "no such file"),
        (["edit", place / "to", picture], 2, "use translate"),
        (["edit", place / "run", picture, "--strength", "2"], 2, "strength"),
        (["edit", place / "run", picture, "--condition", "a"], 2, "without a condition"),
    ):
        got, _, err = run(*words, "-o", out, capsys=capsys)
        assert got == code and message in err and len(err.strip().splitlines()) == 1, err
        assert not out.exists()


def test_a_sheet_has_sixteen_pictures_in_a_row_and_white_behind_the_last(tmp_path):
    """Several are enlarged by a whole factor, as far as 600 pixels hold; a single one is not."""
    from pushforward.data.writing import write_samples

    x = np.arange(18, dtype=np.uint8)[:, None, None] + np.zeros((18, 2, 3), np.uint8)
    write_samples(tmp_path / "sheet.png", x)
    large = np.asarray(Image.open(tmp_path / "sheet.png"))
    sheet = large[::12, ::12]
    assert large.shape == (48, 576) and (np.kron(sheet, np.ones((12, 12), np.uint8)) == large).all()
    assert sheet.shape == (4, 48)
    write_samples(tmp_path / "one.png", x[:1])
    assert Image.open(tmp_path / "one.png").size == (3, 2)
    assert (sheet[:2, 45:] == 15).all() and (sheet[2:, :3] == 16).all()
    assert (sheet[2:, 6:] == 255).all()
    with pytest.raises(UsageError, match="no images of 8 bits"):
        write_samples(tmp_path / "table.png", np.zeros((3, 2)))


# progress


def test_nested_loops_move_one_bar_from_start_to_end():
    seen = []
    token = progress.BAR.set(progress.ProgressSpan(lambda done, text: seen.append(done)))
    try:
        inner = [
            b
            for _ in progress.track_progress(range(2), 2)
            for b in progress.track_progress("ab", 2)
        ]
    finally:
        progress.BAR.reset(token)
    assert inner == list("abab")
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1
    assert set(seen) == {0, 0.25, 0.5, 0.75, 1}


def test_a_draw_moves_the_bar_that_is_shown(flow):
    seen = []
    token = progress.BAR.set(progress.ProgressSpan(lambda done, text: seen.append(done)))
    try:
        flow.sample(3, seed=0, steps=4)
    finally:
        progress.BAR.reset(token)
    np.testing.assert_allclose(seen, [0, 0.25, 0.5, 0.75, 1])
    assert torch.is_grad_enabled()


def test_what_lies_beyond_the_range_that_was_fitted_is_taken_to_its_ends(flow, digits):
    """Pure white, where no picture of training had it; inpainting and editing agree."""
    bright = np.where(digits[:1] > 10, 20, digits[:1])
    with pytest.warns(UserWarning, match="taken to its ends"):
        edited = flow.edit(bright, strength=0.0)
    assert np.array_equal(edited, bright.clip(0, 16))
    with pytest.warns(UserWarning, match="taken to its ends"):
        made = flow.inpaint(bright, lower(), 2, seed=0, steps=2).pictures
    assert np.array_equal(made[:, :4], np.repeat(bright.clip(0, 16)[:, :4], 2, 0))


def test_a_file_may_hold_one_picture_without_an_axis_of_data(flow, digits, tmp_path):
    np.save(tmp_path / "one.npy", digits[0])
    made = flow.inpaint(tmp_path / "one.npy", lower(), 2, seed=0, steps=2).pictures
    assert np.array_equal(made[:, :4], np.repeat(digits[:1, :4], 2, 0))


def test_an_edit_can_move_away_from_a_condition():
    """With guidance 2, away from the other class: further from it than plain guidance goes."""
    rng = np.random.default_rng(0)
    y = np.array(["a", "b"])[rng.integers(0, 2, 400)]
    x = (rng.standard_normal((400, 2)) + 4 * (y == "b")[:, None]).astype(np.float32)
    model = fit(x, "flow_matching", y=y, steps=300, batch=128, width=32, progress=False)
    found = {
        away: model.edit(x[:200], "a", strength=1.0, guidance=2.0, negative=away, seed=0).mean()
        for away in (None, "b")
    }
    assert found["b"] < found[None] - 0.3


def test_pictures_that_were_written_are_read_in_the_levels_that_were_fitted(digits, tmp_path):
    """Of 17 levels, 16 is written as white; an edit without noise gives the picture back."""
    model = fit(digits[:200], "flow_matching", **SMALL, out=tmp_path / "run")
    from pushforward.data import writing

    writing.write_samples(tmp_path / "some", digits[:3], white=model.white)
    assert np.array_equal(model.edit(str(tmp_path / "some"), strength=0.0), digits[:3])


def test_a_run_without_averages_says_so(normal, tmp_path):
    normal.save(tmp_path / "run")
    with pytest.raises(UsageError, match="no averages|no such|average"):
        load(tmp_path / "run", ema=0.999)


def test_a_condition_for_each_fill_is_taken_beyond_the_free_draws_too():
    x, n = np.random.default_rng(0).integers(0, 9, (40, 4, 4)), editing.FREE + 2
    model = fit(x, "gaussian", np.arange(40) % 2, progress=False)
    made = model.inpaint(x[0], lower((4, 4)), n, np.arange(n) % 2, seed=0)
    assert len(made.pictures) == n and (made.pictures[:, :2] == x[0, :2]).all()
