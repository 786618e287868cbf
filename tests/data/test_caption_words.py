"""Captions become the words they hold; what is not known is said."""

import numpy as np
import pytest

import pushforward as pf
from pushforward.data import captions, reading
from pushforward.data.builtin import shapes
from pushforward.errors import DataError

SCENE = shapes.draw_factors(3000, seed=0)
SAID = SCENE.captions()


def test_captions_are_told_from_classes_by_their_number_and_their_shared_words():
    x = np.arange(3000.0)[:, None]
    condition = reading.read_dataset(x, y=SAID).schema.condition
    assert condition.words and not condition.labels and condition.length == len(condition.words)
    few = reading.read_dataset(x, y=SAID[np.arange(3000) % 40]).schema.condition
    assert 30 < len(few.labels) <= 40 and not few.words
    names = np.array([f"person{i % 60}" for i in range(3000)])
    assert len(reading.read_dataset(x, y=names).schema.condition.labels) == 60


def test_a_caption_is_the_set_of_its_words_and_every_factor_can_be_told():
    words = captions.build_vocabulary(SAID)
    held = captions.encode_words(list(SAID), words)
    for text, row in zip(SAID[:50], held):
        assert {words[i] for i in np.flatnonzero(row)} == set(text.split())
    scenes = {tuple(getattr(SCENE, f)[i] for f in shapes.FACTORS) for i in range(3000)}
    assert len(np.unique(held, axis=0)) == len(scenes)


def test_words_in_their_usual_order_read_like_the_caption():
    words = captions.build_vocabulary(SAID)
    back = captions.decode_words(captions.encode_words(list(SAID[:200]), words), words)
    assert all(sorted(a.split()) == sorted(b.split()) for a, b in zip(back, SAID))
    assert np.mean(back == SAID[:200]) > 0.9


def test_unknown_words_are_said_and_a_text_of_only_such_is_refused():
    words = captions.build_vocabulary(SAID)
    with pytest.warns(UserWarning, match="do nothing: purple"):
        held = captions.encode_words(["A Small, purple circle!"], words)
    assert {words[i] for i in np.flatnonzero(held[0])} == {"a", "small", "circle"}
    with pytest.raises(DataError, match="holds no word that was seen"):
        captions.encode_words(["nothing known"], words)


def test_the_most_frequent_words_are_kept(monkeypatch):
    monkeypatch.setattr(captions, "VOCABULARY", 2)
    assert set(captions.build_vocabulary(["a b", "a b", "c a", "d"])) == {"a", "b"}


def test_a_model_given_captions_draws_what_they_say(tmp_path):
    """The mean colour of an image follows the word for it, in a combination never seen."""
    rng = np.random.default_rng(0)
    tones, grounds = np.array(["dark", "mid", "light"]), np.array([f"g{i}" for i in range(30)])
    i, j = rng.integers(0, 3, 4000), rng.integers(0, 30, 4000)
    keep = (i != 2) | (j != 7)
    x = np.stack([i + 0.1 * rng.standard_normal(4000), j / 10], axis=1)[keep]
    y = np.array([f"a {tones[a]} thing on {grounds[b]}" for a, b in zip(i, j)])[keep]
    model = pf.fit(x, "flow_matching", y=y, steps=800, progress=False, out=tmp_path / "run")
    again = pf.load(tmp_path / "run")
    drawn = again.sample(400, y="a light thing on g7", seed=0)
    assert abs(drawn[:, 0].mean() - 2) < 0.3 and abs(drawn[:, 1].mean() - 0.7) < 0.3
    assert again.schema.condition == model.schema.condition


def test_a_caption_of_rare_words_alone_stops_nothing(monkeypatch):
    monkeypatch.setattr(captions, "VOCABULARY", 2)
    with pytest.warns(UserWarning, match="do nothing: d"):
        assert captions.encode_words(["a b", "d"], ("a", "b")).tolist() == [[1, 1], [0, 0]]
    with pytest.raises(DataError):
        captions.encode_words(["???"], ("a", "b"))
