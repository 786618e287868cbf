"""Folders of images: any size and mode, classes, captions, and refusals of what is broken."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import pushforward as pf
from pushforward.data import image_folder, memmap, reading, writing
from pushforward.data.builtin import shapes
from pushforward.errors import DataError, DiskError, FolderInUse, Unsafe, UsageError

rng = np.random.default_rng(0)


def save(path, x, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(x)
    (image.convert(mode) if mode else image).save(path)


@pytest.fixture
def grey(tmp_path):
    """Twelve grey images of 8 x 10 pixels in two classes, and the pixels."""
    x = rng.integers(0, 256, (12, 8, 10), dtype=np.uint8)
    for i, image in enumerate(x):
        save(tmp_path / "zoo" / ("cat" if i < 5 else "dog") / f"{i:02d}.png", image)
    return tmp_path / "zoo", x


def test_images_of_one_size_come_as_they_are_with_their_classes(grey):
    folder, x = grey
    found = reading.read_dataset(folder, condition="label")
    assert np.array_equal(found.x, x) and found.schema.dtype == "uint8"
    assert found.y.tolist() == ["cat"] * 5 + ["dog"] * 7
    assert reading.read_dataset(str(folder), size=(8, 10)).x.shape == (12, 8, 10)


def test_linked_folders_are_classes_and_links_that_lead_back_end(grey, tmp_path):
    """As if they were copied; a link to the folder itself, or to one above, adds nothing."""
    folder, x = grey
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cat", "dog"):
        (linked / name).symlink_to(folder / name)
        (linked / name / "up").symlink_to(linked)
    (linked / "itself").symlink_to(linked)
    found = reading.read_dataset(linked, condition="label")
    assert np.array_equal(found.x, x) and found.y.tolist() == ["cat"] * 5 + ["dog"] * 7


def test_images_of_few_levels_are_written_from_black_to_white(tmp_path):
    """0 ... 16 become 0 ... 255; what has 256 levels stays; numbers above the last level are it."""
    x = np.arange(17, dtype=np.uint8).repeat(16).reshape(17, 4, 4)
    schema = reading.read_dataset(x).schema
    writing.write_samples(tmp_path / "digits", x, white=schema.white)
    again = reading.read_dataset(tmp_path / "digits").x[:, 0, 0]
    assert schema.white == 16 and np.array_equal(again, np.rint(np.arange(17) * 255 / 16))
    bits = reading.read_dataset((x > 8).astype(np.uint8)).schema
    photographs = reading.read_dataset((15 * x).astype(np.uint8)).schema
    assert bits.white == 1 and photographs.white == 255


def test_a_check_and_an_evaluation_of_images_take_a_size(tmp_path):
    from pushforward.cli import main

    for i in range(48):
        save(tmp_path / "zoo" / f"{i}.png", rng.integers(0, 256, (8 + i % 2, 8), dtype=np.uint8))

    def code(*words):
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        return stop.value.code

    for command, *given in (["check", "zoo"], ["evaluate", "zoo", "zoo"]):
        paths = [str(tmp_path / name) for name in given]
        assert code(command, *paths) == 65
        assert code(command, *paths, "--size", "6") == 0
        assert code(command, *["moons"] * len(given), "--size", "6") == 2


def test_images_of_several_sizes_are_scaled_and_cut_in_the_middle(tmp_path):
    left, right = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60, 3), np.uint8)
    left[:, :10], right[:, 20:40] = 255, 255  # only what lies in the middle survives
    save(tmp_path / "a.png", left)
    save(tmp_path / "b.png", right)
    save(tmp_path / "c.png", np.zeros((80, 80, 3), np.uint8))
    with pytest.raises(DataError, match="sizes differ.*--size 32"):
        reading.read_dataset(tmp_path)
    x = reading.read_dataset(tmp_path, size=(20, 20)).x
    assert x.shape == (3, 20, 20, 3)
    assert x[0, :, 1:].max() < 30 and x[1, :, 7:12].min() > 225


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_read_and_transparency_lies_on_white(tmp_path, mode):
    ending = "tif" if mode == "CMYK" else "png"
    for i in range(2):
        image = Image.new("L", (6, 6), 255 * i)
        if mode == "I;16":
            image = Image.fromarray(np.full((6, 6), 65535 * i, np.uint16))
        (image if mode == "I;16" else image.convert(mode)).save(tmp_path / f"{i}.{ending}")
    x = reading.read_dataset(tmp_path).x
    assert x.shape == ((2, 6, 6) if mode in image_folder.GREY else (2, 6, 6, 3))
    assert abs(x[0]).max() < 2 and abs(x[1] - 255).max() < 2


def test_what_is_transparent_is_white(tmp_path):
    for i in range(2):
        image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
        image.putpixel((i, 0), (0, 0, 0, 255))
        image.save(tmp_path / f"{i}.png")
    x = reading.read_dataset(tmp_path).x
    assert set(x.ravel().tolist()) == {0, 255} and (x[:, 1:] == 255).all()


def test_a_scored_folder_is_brought_to_the_size_that_was_fitted(grey, tmp_path):
    folder, _ = grey
    schema = reading.read_dataset(folder).schema
    for i in range(3):
        save(tmp_path / "big" / f"{i}.png", rng.integers(0, 256, (30, 30, 3), dtype=np.uint8))
    assert reading.read_with_schema(tmp_path / "big", schema).x.shape == (3, 8, 10)


def test_captions_are_found_by_file_and_missing_ones_are_named(grey):
    folder, _ = grey
    lines = [f"{'cat' if i < 5 else 'dog'}/{i:02d}.png,image {i}" for i in range(12)]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *reversed(lines)]) + "\n")
    found = reading.read_dataset(folder, condition="caption")
    assert found.y.tolist() == [f"image {i}" for i in range(12)]
    (folder / "captions.csv").write_text("file,caption\ncat/00.png,one\n")
    with pytest.raises(DataError, match=r"no caption for cat/01.png and 10 more"):
        reading.read_dataset(folder)


def test_a_caption_with_a_comma_has_to_be_quoted(grey):
    folder, _ = grey
    lines = [f"{'cat' if i < 5 else 'dog'}/{i:02d}.png,red, small" for i in range(12)]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *lines]) + "\n")
    with pytest.raises(DataError, match="row 2 has more cells than the header"):
        reading.read_dataset(folder)


def test_an_empty_caption_is_none(grey):
    folder, _ = grey
    lines = [f"{'cat' if i < 5 else 'dog'}/{i:02d}.png,{'' if i == 3 else 'x'}" for i in range(12)]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *lines]) + "\n")
    with pytest.raises(DataError, match=r"no caption for cat/03.png$"):
        reading.read_dataset(folder)


def test_images_are_turned_upright(tmp_path):
    x, exif = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    for i in range(2):
        Image.fromarray(np.roll(x, i, 0)).save(tmp_path / f"{i}.png", exif=exif)
    found = reading.read_dataset(tmp_path).x
    assert np.array_equal(found[0], np.rot90(x, -1)) and found.shape == (2, 6, 4, 3)


def test_numbers_without_a_known_range_are_refused(tmp_path):
    for i in range(2):
        Image.fromarray(np.full((4, 4), 1000 * i, np.int32)).save(tmp_path / f"{i}.tif")
    with pytest.raises(DataError, match="save it with 8 bits"):
        reading.read_dataset(tmp_path)


def test_hidden_folders_inside_are_left_out_but_not_the_folder_itself(tmp_path):
    for i in range(3):
        save(tmp_path / ".pictures" / f"{i}.png", rng.integers(0, 256, (4, 4), dtype=np.uint8))
        save(tmp_path / ".pictures" / ".cache" / "a" / f"{i}.png", np.zeros((9, 9), np.uint8))
    assert reading.read_dataset(tmp_path / ".pictures").x.shape == (3, 4, 4)


def test_what_is_broken_hidden_or_too_large_is_refused_or_left_out(grey, monkeypatch):
    folder, x = grey
    save(folder / "cat" / ".hidden.png", x[0])
    (folder / "cat" / "notes.txt").write_text("no image")
    assert len(reading.read_dataset(folder).x) == 12
    (folder / "cat" / "z.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"z.png: is not an image"):
        reading.read_dataset(folder)
    whole = (folder / "cat" / "00.png").read_bytes()
    (folder / "cat" / "z.png").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(DataError, match=r"z.png: is broken"):
        reading.read_dataset(folder)
    (folder / "cat" / "z.png").unlink()
    monkeypatch.setattr(image_folder, "PIXELS", 79)
    with pytest.raises(Unsafe, match="more than 79 pixels"):
        reading.read_dataset(folder)
    monkeypatch.setattr(memmap, "LARGE", 100)
    monkeypatch.setattr(memmap.shutil, "disk_usage", lambda place: SimpleNamespace(free=99))
    monkeypatch.setattr(image_folder, "PIXELS", 80)
    with pytest.raises(DiskError, match=r"need 960 bytes of this disk and 99 are free"):
        reading.read_dataset(folder)


def test_a_folder_without_images_says_what_it_wants(tmp_path):
    with pytest.raises(DataError, match=r"holds 0 images; give .png"):
        reading.read_dataset(tmp_path)


@pytest.mark.parametrize("size", [0, -3, True, "32", (3,), (3, 4, 5), (8, 0), 2.5])
def test_a_size_without_sense_is_refused(size):
    with pytest.raises(UsageError, match="size is"):
        reading.parse_image_size(size)
    assert reading.parse_image_size(8) == (8, 8) and reading.parse_image_size((8, 9)) == (8, 9)


def test_samples_are_written_as_a_folder_of_images_and_read_back(tmp_path):
    x = shapes.render_shapes(shapes.draw_factors(11))
    writing.write_samples(tmp_path / "new", x)
    assert sorted(p.name for p in (tmp_path / "new").iterdir())[::10] == ["00.png", "10.png"]
    assert np.array_equal(reading.read_dataset(tmp_path / "new").x, x)
    with pytest.raises(FolderInUse, match="folder already"):
        writing.write_samples(tmp_path / "new", x)
    with pytest.raises(UsageError, match="no images of 8 bits"):
        writing.write_samples(tmp_path / "other", x.astype(float))
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_folder_is_fitted_resumed_and_sampled_in_its_own_likeness(grey, tmp_path):
    folder, _ = grey
    tiny = {"steps": 2, "width": 8, "depth": 1, "batch": 8, "progress": False}
    run = tmp_path / "run"
    model = pf.fit(folder, "flow_matching", condition="label", size=6, out=run, **tiny)
    x = model.sample(3, y="dog", seed=0)
    assert x.shape == (3, 6, 6) and x.dtype == np.uint8
    again = pf.fit(out=run, resume=True, steps=3, progress=False)
    assert again.history[-1]["step"] == 3
    with pytest.raises(UsageError, match="keeps its size"):
        pf.fit(out=run, resume=True, size=7)


def test_captions_are_text_whatever_they_look_like(grey):
    folder, _ = grey
    said = ["007", "2024-01-01", "12:30", "true", "1e3", "N/A", "a, b", "é", "x", "y", "z", "w"]
    lines = [f'{"cat" if i < 5 else "dog"}/{i:02d}.png,"{text}"' for i, text in enumerate(said)]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *lines]) + "\n")
    assert reading.read_dataset(folder, condition="caption").y.tolist() == said
    (folder / "captions.csv").write_text("\n".join(["file,caption", *lines, lines[0]]) + "\n")
    with pytest.raises(DataError, match="names a file twice"):
        reading.read_dataset(folder)


def test_a_size_is_refused_where_there_is_no_folder():
    with pytest.raises(UsageError, match="images of a folder"):
        reading.read_dataset("moons", size=(8, 8))


def test_flat_images_in_colour_keep_their_axes(tmp_path):
    x = rng.integers(0, 256, (4, 3, 5, 3), dtype=np.uint8)
    writing.write_samples(tmp_path / "flat", x)
    assert np.array_equal(reading.read_dataset(tmp_path / "flat").x, x)


def test_nothing_is_left_of_a_folder_whose_writing_was_interrupted(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        writing.write_samples(tmp_path / "new", np.zeros((2, 4, 4), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(memmap, "LARGE", 100)
    shape = (20, 8, 8)
    for damage in (b"", b"no array", None):
        with memmap.use_cache_folder(tmp_path / "cache"):
            first = np.array(memmap.cache_array("name", shape, lambda x: x.fill(7)))
            file = tmp_path / "cache" / "name.npy"
            if damage is None:
                np.save(file, first[:3])
            else:
                file.write_bytes(damage)
            again = memmap.cache_array("name", shape, lambda x: x.fill(7))
        assert np.array_equal(again, first) and (first == 7).all()
