"""What each way of reading captions sees, and what it refuses."""

import sys

import numpy as np
import pytest

from pushforward.data import captions as text
from pushforward.data import columns, reading, text_encoders
from pushforward.data.builtin import shapes
from pushforward.errors import DataError, MissingFile, Unsafe, UsageError

LEFT, RIGHT = "red circle left of blue square", "blue square left of red circle"
SAID = shapes.draw_factors(200, seed=0).captions()


def condition(captions, encoder):
    x = np.arange(float(len(captions)))[:, None]
    return reading.read_dataset(x, y=captions, text=encoder).schema.condition


def test_words_do_not_see_order_and_bytes_do():
    swapped = np.array([LEFT, RIGHT] * 30)
    words, spelled = (condition(swapped, name) for name in ("words", "bytes"))
    assert np.array_equal(*words.encode([LEFT, RIGHT]))
    left, right = spelled.encode([LEFT, RIGHT])
    assert not np.array_equal(left, right)
    assert np.array_equal(left[: len(spelled.words)], right[: len(spelled.words)])
    pieces = [row[len(spelled.words) :].reshape(-1, text.PIECE) for row in (left, right)]
    assert sorted(map(tuple, pieces[0])) == sorted(map(tuple, pieces[1]))


def test_spelled_captions_can_be_read_back():
    said = ["a small réd circle", "extraordinarily long words", "x"]
    rows = text.encode_bytes(said, 6).reshape(3, 6, text.PIECE)
    for caption, row in zip(said, rows):
        parts = [bytes(int(v) - 1 for v in 256 * piece if v) for piece in row]
        assert b"".join(parts).decode() == caption.replace(" ", "")
    assert (256 * rows == np.rint(256 * rows)).all() and rows.max() <= 1


def test_a_tail_that_is_not_tokens_and_a_text_too_long_to_read_are_said():
    known = condition(SAID, "bytes")
    with pytest.warns(UserWarning, match="longer than 10 tokens"):
        known.encode([SAID[0] + " a a a"])
    with pytest.warns(UserWarning, match="longer than 2000 characters"):
        assert len(text.truncate_captions(["ab" * 5000])[0]) == text.LONGEST
    with pytest.warns(UserWarning, match="known by their letters alone: purple"):
        known.encode(["a purple circle"])


def test_one_long_caption_does_not_make_the_others_long():
    listed = columns.as_condition_array(["short"] * 1000 + ["x" * 100_000])
    assert listed.dtype == object and sys.getsizeof(listed) < 20_000


@pytest.mark.parametrize("name", ["words", "bytes"])
def test_text_makes_captions_of_few_values_and_survives_json(name):
    x, y = np.arange(60.0)[:, None], np.array([LEFT, RIGHT] * 30)
    schema = reading.read_dataset(x, y=y, text=name).schema
    assert schema.condition.captioned and not schema.condition.labels
    assert reading.read_dataset(x, y=y).schema.condition.labels
    again = type(schema).from_json(schema.to_json())
    assert again == schema and np.array_equal(again.encode(LEFT), schema.encode(LEFT))


def test_text_without_captions_is_refused():
    x = np.arange(60.0)[:, None]
    with pytest.raises(UsageError, match="there is no condition"):
        reading.read_dataset(x, text="bytes")
    with pytest.raises(UsageError, match="is for captions"):
        reading.read_dataset(x, y=np.arange(60.0), text="bytes")
    with pytest.raises(UsageError, match="choose from words, bytes, minilm"):
        reading.read_dataset(x, y=["a b"] * 60, text="letters")
    with pytest.raises(DataError, match="60 texts without a letter"):
        reading.read_dataset(x, y=["?!"] * 60, text="words")


def test_text_that_is_neither_classes_nor_shared_words_may_be_read_as_captions():
    y = np.array([f"w{i} v{i}" for i in range(1200)])
    with pytest.raises(DataError, match="--text bytes"):
        reading.read_dataset(np.arange(1200.0)[:, None], y=y)
    assert condition(y, "bytes").spelled


def test_a_folder_without_safetensors_and_one_that_is_not_there_are_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(MissingFile, match="no such folder"):
        text_encoders.load_text_encoder(str(tmp_path / "nothing"))
    (tmp_path / "pytorch_model.bin").write_bytes(b"code")
    with pytest.raises(Unsafe, match="could run code"):
        text_encoders.load_text_encoder(str(tmp_path))


def tiny_bert(folder):
    """A folder of Hugging Face's with a BERT of random weights, and the model."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(" ".join(SAID).split()))]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=20, max_position_embeddings=40,
    )  # fmt: skip
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return model


def test_an_encoder_of_a_folder_is_read_and_remembered_by_its_weights(tmp_path):
    """Against the model itself, one caption at a time, and our own forward pass of BERT."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    from pushforward.networks.text_encoder import Bert

    model = tiny_bert(tmp_path)
    known = condition(SAID, str(tmp_path))
    assert text_encoders.text_encoder_name(tmp_path) == known.text.encoder == str(tmp_path)
    encoder, said = text_encoders.load_text_encoder(str(tmp_path)), list(SAID[:5])
    vectors, states = encoder.encode(said)
    rows = known.encode(said)
    own = Bert(load_file(tmp_path / "model.safetensors"), 3, model.config.layer_norm_eps)
    for caption, vector, its, row in zip(said, vectors, states, rows):
        ids = torch.tensor(encoder.tokenize([caption]))
        truth = model(ids).last_hidden_state[0].detach()
        torch.testing.assert_close(torch.tensor(its), truth, rtol=1e-4, atol=1e-5)
        there = torch.ones_like(ids, dtype=torch.bool)
        torch.testing.assert_close(own(ids, there)[0], truth, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(vector, truth.mean(0), atol=1e-5)
        tokens = row[12:].reshape(known.text.tokens, 13)
        assert (tokens[:, 0] == (np.arange(known.text.tokens) < len(truth))).all()
        back = tokens[: len(truth), 1:] * known.text.token_scale + np.array(known.text.token_mean)
        np.testing.assert_allclose(back, truth, atol=1e-4)
    (tmp_path / "model.safetensors").unlink()
    torch.manual_seed(1)
    tiny_bert(tmp_path)
    text_encoders.load_transformers_encoder.cache_clear()
    with pytest.raises(DataError, match="its weights differ"):
        known.encode(said)


def test_the_sentence_encoder_knows_what_is_alike():
    pytest.importorskip(text_encoders.PACKAGE)
    pytest.importorskip("tokenizers")
    said = [
        "a cat sits on the mat",
        "a kitten resting on a rug",
        "stock markets fell sharply today",
    ]
    vectors, states = text_encoders.load_text_encoder("minilm").read(said)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cat, kitten, stocks = unit
    assert cat @ kitten > 0.6 > 0.2 > abs(cat @ stocks)
    alone, _ = text_encoders.load_text_encoder("minilm").read(said[2:])
    np.testing.assert_allclose(alone[0], vectors[2], rtol=1e-4, atol=1e-5)
    assert [len(s) for s in states] == [8, 8, 7]


def test_what_names_no_way_of_reading_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    assert text_encoders.text_encoder_name("encoder") == str(tmp_path / "encoder")
    assert [text_encoders.text_encoder_name(name) for name in (None, "bytes")] == [None, "bytes"]
    with pytest.raises(UsageError, match="name an encoder"):
        text_encoders.text_encoder_name(5)
