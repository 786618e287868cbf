"""What is known of images is written beside them and read back: classes, captions, numbers."""

import csv

import numpy as np
import pytest
from PIL import Image

from pushforward.data import captions, image_folder, reading, writing
from pushforward.data.builtin import datasets
from pushforward.errors import DataError, FolderInUse, UsageError

X = np.random.default_rng(0).integers(0, 256, (8, 5, 6), dtype=np.uint8)
SAID = np.array(["red, small", 'a "quoted" one', "two\nlines", "=1+1", "'plain", "-", "😀", "007"])


def by_first_pixels(x, values):
    """What stands beside each image, whatever the order."""
    return {image.tobytes(): value for image, value in zip(x, values, strict=True)}


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog"],
        ["ankle boot", "t-shirt"],
        ["a/b", "c"],
        ["..", "x"],
        [".hidden", "x"],
        ["Cat", "cat"],
        ["captions.csv", "x"],
        ["a" * 300, "x"],
        ["=1+1", "'x"],
    ],
)
def test_classes_come_back_whatever_they_are_called(tmp_path, labels):
    """As subfolders where these are possible on every system, and in the table otherwise."""
    y = np.resize(np.array(labels, object), 8)
    writing.write_samples(tmp_path / "new", X, extra={"label": y})
    found = reading.read_dataset(tmp_path / "new", condition="label")
    assert by_first_pixels(found.x.astype(np.uint8), found.y) == by_first_pixels(X, y)
    assert all(p.resolve().is_relative_to(tmp_path / "new") for p in tmp_path.rglob("*.png"))


def test_captions_numbers_and_classes_come_back_together(tmp_path):
    age, y = np.linspace(0, 1, 8) / 3, np.array([0, 1] * 4)
    writing.write_samples(tmp_path / "new", X, extra={"label": y, "caption": SAID, "age": age})
    for name, values in (("caption", SAID), ("age", age), ("label", y.astype(str))):
        found = reading.read_dataset(tmp_path / "new", condition=name)
        values_by_image = by_first_pixels(found.x.astype(np.uint8), found.y)
        assert values_by_image == by_first_pixels(X, values.tolist()), name
    with (tmp_path / "new" / "captions.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["file", "caption", "age"]


def test_no_cell_of_the_table_is_a_formula(tmp_path):
    writing.write_samples(tmp_path / "new", X, extra={"caption": SAID})
    with (tmp_path / "new" / "captions.csv").open(newline="") as file:
        assert not any(cell[:1] in ("=", "+", "-", "@") for row in csv.reader(file) for cell in row)


def test_an_archive_holds_what_is_known_first_as_y_and_all_by_name(tmp_path):
    y = np.array(["a", 1] * 4, object)
    writing.write_samples(
        tmp_path / "new.npz", X, extra={"label": y, "caption": SAID.astype(object)}
    )
    with np.load(tmp_path / "new.npz") as held:  # no pickle
        assert {*held} == {"x", "y", "label", "caption"}
        assert np.array_equal(held["x"], X) and held["y"].tolist() == ["a", "1"] * 4
    assert (
        reading.read_dataset(tmp_path / "new.npz", condition="caption").y.tolist() == SAID.tolist()
    )


@pytest.mark.parametrize("out", ["new", "new.npz"])
@pytest.mark.parametrize("extra", [{"label": ["a"] * 7}, {"x": ["a"] * 8}, {"file": ["a"] * 8}])
def test_what_is_known_of_other_data_is_refused(tmp_path, out, extra):
    with pytest.raises(UsageError, match="give one for each|cannot be called"):
        writing.write_samples(tmp_path / out, X, extra=extra)
    assert not list(tmp_path.iterdir())


def test_a_label_in_the_table_goes_before_the_subfolders(tmp_path):
    names = [f"{'cat' if i < 4 else 'dog'}/{i}.png" for i in range(8)]
    writing.write_samples(tmp_path / "new", X, names=names, extra={"label": ["dog"] * 7 + ["cat"]})
    found = reading.read_dataset(tmp_path / "new", condition="label")
    assert np.array_equal(found.x, X) and found.y.tolist() == ["dog"] * 7 + ["cat"]
    writing.write_samples(
        tmp_path / "same", X, names=names, extra={"label": ["cat"] * 4 + ["dog"] * 4}
    )
    assert not (tmp_path / "same" / "captions.csv").exists()


def test_names_are_kept_and_what_would_be_one_file_stays_two(tmp_path):
    for name in ("a/one.jpg", "a/one.png", "a/b/two.webp", "three.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[0]).save(tmp_path / name)
    kept = ["a/b/two.png", "a/one.jpg.png", "a/one.png.png", "three.png"]
    assert writing.png_names(tmp_path) == kept


def test_an_empty_folder_is_filled_and_others_are_left_alone(tmp_path):
    (tmp_path / "new").mkdir()
    writing.write_samples(tmp_path / "new", X)
    assert len(list((tmp_path / "new").iterdir())) == 8
    (tmp_path / "file").write_text("mine")
    for name, what in (("new", "a folder already"), ("file", "a file already")):
        with pytest.raises(FolderInUse, match=what) as stop:
            writing.check_writable(tmp_path / name)
        assert stop.value.code == 73
    assert (tmp_path / "file").read_text() == "mine"


def test_subfolders_are_classes_of_any_name_if_all_are_known(tmp_path):
    """A run fitted on digits reads them as digits, and not the folders of another sorting."""
    x, y = datasets.load("digits", 60).x, datasets.load("digits", 60).y
    schema = reading.read_dataset("digits", condition="label").schema
    assert schema.condition.column == "digit"
    writing.write_samples(tmp_path / "digits", x, white=16, extra={"label": y})
    found = reading.read_with_schema(tmp_path / "digits", schema)
    assert np.array_equal(schema.encode(found.y)[:, 1:].argmax(1), np.sort(y))
    writing.write_samples(
        tmp_path / "sorted", x, white=16, extra={"label": np.resize(["train", "1"], 60)}
    )
    assert reading.read_with_schema(tmp_path / "sorted", schema).y is None


def test_captions_are_a_caption_of_any_name(tmp_path):
    said = np.array([f"number {i} of {j}" for i in range(10) for j in range(10)])
    x = np.resize(X, (100, 5, 6))
    schema = reading.read_dataset(x, y=said).schema
    assert schema.condition.captioned and schema.condition.column == "y"
    writing.write_samples(
        tmp_path / "new", x, extra=schema.condition_columns(schema.encode(said), said)
    )
    assert reading.read_with_schema(tmp_path / "new", schema).y.tolist() == said.tolist()


# tables that cannot be read, and captions that say nothing


def save(folder, header, cells):
    folder.mkdir()
    for i, image in enumerate(X):
        Image.fromarray(image).save(folder / f"{i}.png")
    lines = [f'{i}.png,"{cell}"' for i, cell in enumerate(cells)]
    (folder / "captions.csv").write_text("\n".join([f"file,{header}", *lines]) + "\n")
    return folder


def test_a_cell_beyond_the_limit_of_csv_is_said_with_its_line(tmp_path):
    folder = save(tmp_path / "new", "caption", ["a"] * 5 + ["b" * 140_000] + ["a"] * 2)
    with pytest.raises(DataError, match="line 7 or before it has more than 131072 characters"):
        reading.read_dataset(folder)


def test_a_table_without_a_caption_tells_its_columns(tmp_path):
    found = reading.read_dataset(save(tmp_path / "new", "kind", "aabbaabb"), condition="kind")
    assert found.y.tolist() == list("aabbaabb")
    with pytest.raises(DataError, match=r"'kind' has 1 missing value \(image 3\)"):
        reading.read_dataset(
            save(tmp_path / "gap", "kind", ["a", "a", "", *"aabbb"]), condition="kind"
        )
    with pytest.raises(DataError, match="needs the columns file and caption"):
        reading.read_dataset(save(tmp_path / "none", "", "aabbaabb"))


def test_a_caption_of_signs_alone_is_named_and_emoji_are_words(tmp_path):
    folder = save(tmp_path / "new", "caption", ["a cat", "?!", *["a dog"] * 5, "..."])
    with pytest.raises(DataError, match=r"2 texts without a letter.*\(images 2, 8\)"):
        reading.read_dataset(folder, condition="caption", text="words")
    assert captions.split_words("A 😀🚀 → b!") == ["a", "😀", "🚀", "→", "b"]
    found = reading.read_dataset(
        save(tmp_path / "e", "caption", "😀🚀" * 4), condition="caption", text="words"
    )
    rows = found.schema.encode(found.y)
    assert np.array_equal(rows[0], rows[2]) and not np.array_equal(rows[0], rows[1])


# what a check says


def test_a_survey_counts_what_is_there(tmp_path):
    said = [f"image {i}" for i in range(7)] + ["?!"]
    folder = save(tmp_path / "new", "caption", said)
    Image.fromarray(np.zeros((10, 9), np.uint8)).save(folder / "0.png")
    facts = image_folder.summarise_images(folder, reading.open_resized(folder, (4, 4)))
    known = {"captions": 8, "different": 8, "longest": 7, "without_letters": 1}
    assert facts == {"pictures": 8, "size": [4, 4], "channels": 1, "sizes": [[5, 6], [10, 9]],
                     "conditions": {"caption": known}}  # fmt: skip
    text = "\n".join(image_folder.summary_lines(facts))
    assert "from 5 x 6 to 10 x 9" in text and "1 without a letter" in text
    x = np.moveaxis(datasets.load("shapes", 6).x, -1, 1)  # channels first
    y = ["a", "b", "b"] * 2
    np.savez(tmp_path / "x.npz", x=x, y=y)
    facts = image_folder.summarise_images(
        tmp_path / "x.npz", reading.open_resized(tmp_path / "x.npz", None)
    )
    assert facts["channels"] == 3 and facts["size"] == [32, 32]
    assert facts["conditions"] == {"y": {"classes": {"a": 2, "b": 4}}}
    assert image_folder.summarise_images("moons", reading.open_resized("moons", None)) is None


def test_problems_of_images_speak_of_images():
    x = X.astype(float)
    x[2] = np.nan
    with pytest.raises(DataError, match=r"1 missing value \(image 3\)"):
        reading.read_dataset(x)
    assert "only 8 images" in str(reading.find_issues(X)[-1])
    assert "only 8 rows" in str(reading.find_issues(X.reshape(8, -1)[:, :3])[-1])


def test_names_that_are_kept_stay_apart(tmp_path):
    for name in ("a.png", "a.jpg", "a.png.png", "b.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    names = writing.png_names(tmp_path)
    assert len({name.lower() for name in names}) == 4


def test_names_of_classes_in_a_table_are_text_as_those_of_subfolders(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        Image.new("L", (4, 4), i).save(folder / f"{i}.png")
    rows = "".join(f"{i}.png,0{i % 2}\n" for i in range(4))
    (folder / "captions.csv").write_text(f"file,label\n{rows}")
    assert set(reading.read_dataset(str(folder), condition="label").y) == {"00", "01"}
