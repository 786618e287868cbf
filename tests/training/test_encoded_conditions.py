"""How often a frozen encoder reads a caption, and how comparisons read captions."""

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import cli
from pushforward.data import text_encoders

SAID = [f"caption number {'abcdefgh'[i % 8]} of {'ijklmnop'[i // 8]}" for i in range(60)]
X = np.random.default_rng(0).standard_normal((60, 2))
SMALL = {"steps": 1, "batch": 8, "width": 8, "progress": False}


@pytest.fixture
def read(monkeypatch):
    """The texts that an encoder of letters has read, in order."""
    seen = []

    def tokenize(texts):
        seen.extend(texts)
        return [[ord(letter) for letter in text[-1:] + text[15:16]] for text in texts]

    def net(ids, mask):
        return torch.stack([ids % 7, ids % 5, ids % 3], dim=-1).float()

    monkeypatch.setattr(text_encoders, "load_text_encoder", lambda _: encoder)
    encoder = text_encoders.FrozenTextEncoder("letters", tokenize, net, "seal")
    return seen


def test_a_fit_reads_each_caption_once(read):
    model = pf.fit(X, "flow_matching", y=SAID, text="letters", **SMALL)
    assert sorted(read) == sorted(SAID)
    model.sample(4, seed=0, steps=2)
    assert len(read) == 60


def test_a_fit_of_more_captions_than_are_kept_reads_them_for_their_spread_and_for_training(
    monkeypatch, read
):
    encoder = text_encoders.load_text_encoder("letters")
    encoder.cache_room = 0
    pf.fit(X, "flow_matching", y=SAID, text="letters", **SMALL)
    assert sorted(read) == sorted(2 * SAID)


def test_as_many_captions_are_kept_as_there_is_room_for(read):
    encoder = text_encoders.load_text_encoder("letters")
    encoder.cache_room = 10 * (2 * 3 * 4)  # bytes of two tokens of three numbers
    first = encoder.encode(SAID)
    again = encoder.encode(SAID)
    assert read == SAID + SAID[10:]
    assert all(np.array_equal(a, b) for a, b in zip(first[1], again[1]))
    assert np.array_equal(first[0], again[0])


def test_a_comparison_reads_captions_as_it_is_told():
    """Each family that can has tokens; the others have the words of the same captions."""
    found = pf.compare(X, ["gaussian", "flow_matching"], y=SAID, text="bytes", steps=1,
                       progress=False)  # fmt: skip
    known = {e.family: e.model.schema.condition for e in found.entries if not e.error}
    assert known["flow_matching"].text.encoder == "bytes" and known["flow_matching"].tokens[0] > 0
    assert (
        known["gaussian"].text is None and known["gaussian"].words == known["flow_matching"].words
    )


def test_the_command_line_passes_text_and_cache_to_a_comparison(tmp_path, capsys):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"x": X[:, 0], "said": SAID})
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ["compare", tmp_path / "t.csv", "--families", "gaussian", "--condition", "said"]
    for more, message in (
        (["--text", "tongues"], "choose from words, bytes, minilm"),
        (["--cache", tmp_path], "cache keeps the decoded images of a folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(w) for w in [*words, *more, "-o", tmp_path / "c"]])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
