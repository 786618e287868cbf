"""From captions to samples: every family, another process, the command line."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

import pushforward as pf
from pushforward import checkpoint, cli
from pushforward.errors import DataError, UsageError

LEFT, RIGHT = "red left of blue", "blue left of red"
rng = np.random.default_rng(0)
SIDE = rng.integers(0, 2, 600)
X = np.stack([2.0 * SIDE - 1, np.zeros(600)], 1) + 0.1 * rng.standard_normal((600, 2))
Y = np.array([LEFT, RIGHT])[SIDE]


def run(*words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(w) for w in words])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def fitted(family, text, folder=None, steps=2, **options):
    """A model of the two sides of a line, which only the order of the caption tells."""
    more = {"width": 8, "batch": 32} | options
    return pf.fit(X, family, y=Y, text=text, steps=steps, out=folder, progress=False, **more)


def test_bytes_learn_a_law_that_depends_on_the_order_of_words():
    """The two laws are 2 apart with a spread of 0.1: 0.5 is five of them."""
    options = {"batch": 64, "lr": 2e-3, "depth": 2, "waves": 0, "width": 32}
    model = fitted("flow_matching", "bytes", steps=150, **options)
    for caption, side in ((LEFT, -1), (RIGHT, 1)):
        drawn = model.sample(200, y=caption, seed=0, steps=10)
        assert drawn[:, 0].mean() == pytest.approx(side, abs=0.5)


def test_words_draw_the_same_for_both_orders():
    model = fitted("flow_matching", "words")
    one, two = (model.sample(5, y=caption, seed=0, steps=3) for caption in (LEFT, RIGHT))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("family", ["ddpm", "edm", "ncsn", "consistency", "mean_flow"])
def test_every_family_of_a_time_reads_the_order(family):
    model = fitted(family, "bytes", steps=3)
    assert model.config["event"][4:] == [(4, 8), True]
    options = {} if family in ("consistency", "mean_flow") else {"steps": 2}
    one, two = (model.sample(20, y=caption, seed=0, **options) for caption in (LEFT, RIGHT))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("family", ["gaussian_mixture", "vae"])
def test_other_families_are_told_the_words(family):
    options = {} if family == "vae" else {"width": None, "batch": None}
    given = {"width": 8, "batch": 32} | options
    model = pf.fit(X, family, y=Y, text="bytes", steps=2, progress=False,
                   **{k: v for k, v in given.items() if v})  # fmt: skip
    assert model.schema.condition.text is None and model.schema.condition.words
    assert model.schema.condition_length == 1 + 4
    one, two = (model.sample(5, y=caption, seed=0) for caption in (LEFT, RIGHT))
    assert np.array_equal(one, two)


def test_a_run_keeps_captions_as_text_and_goes_on(tmp_path):
    model = fitted("flow_matching", "bytes", tmp_path / "run")
    again = pf.load(tmp_path / "run")
    assert sorted(again.config["conditions"]) == [RIGHT, LEFT]
    shares = dict(zip(again.config["conditions"], again.config["frequencies"]))
    assert shares[LEFT] == pytest.approx((SIDE == 0).mean(), abs=0.05)
    for y in (LEFT, None, [LEFT, RIGHT, LEFT]):
        one, two = (m.sample(3, y=y, seed=0, steps=2) for m in (model, again))
        assert np.array_equal(one, two)
    assert np.isfinite(again.log_prob(X[:2])).all()
    with pytest.raises(UsageError, match="keeps its text"):
        pf.fit(X, y=Y, out=tmp_path / "run", resume=True, text="words", progress=False)
    more = pf.fit(X, y=Y, out=tmp_path / "run", resume=True, steps=4, progress=False)
    whole = fitted("flow_matching", "bytes", steps=4)
    for a, b in zip(more.model.parameters(), whole.model.parameters(), strict=True):
        assert a.shape == b.shape
    assert more.schema == again.schema


def test_a_run_from_before_there_was_text_is_read(tmp_path):
    fitted("flow_matching", "words", tmp_path / "run")
    found = checkpoint.load_checkpoint(tmp_path / "run")
    del found.plain["schema"]["condition"]["text"], found.plain["config"]["event"][4:]
    (tmp_path / "old").mkdir()
    checkpoint.save_checkpoint(tmp_path / "old", found)
    one, two = (pf.load(tmp_path / n).sample(3, y=LEFT, seed=0, steps=2) for n in ("run", "old"))
    assert np.array_equal(one, two)


def test_a_student_that_takes_no_tokens_is_refused():
    teacher = fitted("flow_matching", "bytes")
    with pytest.raises(UsageError, match="token by token"):
        pf.fit(X, "vae", y=Y, teacher=teacher, steps=1, progress=False)
    student = pf.fit(X, "consistency", y=Y, teacher=teacher, steps=1, width=8, progress=False)
    assert student.schema.condition == teacher.schema.condition


def test_a_table_gets_its_captions_back(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": X[:, 0], "said": Y})
    model = pf.fit(frame, "flow_matching", condition="said", text="bytes", steps=2,
                   width=8, batch=32, progress=False)  # fmt: skip
    drawn = model.sample(3, y=[RIGHT, LEFT, RIGHT], seed=0, steps=2)
    assert drawn["said"].tolist() == [RIGHT, LEFT, RIGHT]
    assert set(model.sample(20, seed=0, steps=2)["said"]) <= {LEFT, RIGHT}


def test_a_negative_caption_and_an_interval_of_guidance():
    model = fitted("flow_matching", "bytes", steps=10, lr=0.05)
    draw = lambda **options: model.sample(20, y=LEFT, seed=0, steps=4, **options)  # noqa: E731
    plain, guided = draw(), draw(guidance=3.0)
    assert not np.array_equal(plain, guided)
    assert np.array_equal(draw(guidance=3.0, guidance_interval=(0.0, 1.0)), guided)
    assert np.array_equal(draw(guidance=3.0, guidance_interval=(0.5, 0.5)), plain)
    np.testing.assert_allclose(draw(guidance=3.0, negative=LEFT), plain, atol=1e-5)
    away = draw(guidance=3.0, negative=RIGHT)
    assert not np.allclose(away, guided)
    np.testing.assert_allclose(draw(guidance=0.0, negative=RIGHT), model.sample(20, y=RIGHT, seed=0, steps=4), atol=1e-5)  # fmt: skip  # noqa: E501
    for options in ({"negative": RIGHT}, {"guidance_interval": (0.2, 0.8)}):
        with pytest.raises(UsageError, match="does nothing without guidance"):
            draw(**options)
    with pytest.raises(DataError, match="2 negative conditions for 20 data"):
        draw(guidance=2.0, negative=[LEFT, RIGHT])
    with pytest.raises(UsageError, match="from 0"):
        draw(guidance=2.0, guidance_interval=(0.8, 0.2))


@pytest.mark.parametrize("family", ["consistency", "mean_flow", "vae"])
@pytest.mark.parametrize("option", [{"negative": RIGHT}, {"guidance_interval": (0.2, 0.8)}])
def test_families_without_a_path_to_guide_on_refuse(family, option):
    with pytest.raises(UsageError, match="cannot honour the option"):
        fitted(family, "words", steps=1).sample(2, y=LEFT, **option)


def test_prompts_on_the_command_line(tmp_path, capsys):
    """Shapes by captions, digits by class; one picture a prompt, in order."""
    (tmp_path / "prompts.txt").write_text("a red circle on grey\n\na blue square on white\n")
    small = ["--steps", 2, "--set", "width=4", "--set", "batch=8", "--quiet"]
    pictures = pf.datasets.load("shapes", n=120)
    for i, picture in enumerate(pictures.x[:, ::4, ::4]):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "p" / f"{i:03}.png")
    lines = [f"{i:03}.png,{said}" for i, said in enumerate(pictures.extra["caption"])]
    (tmp_path / "p" / "captions.csv").write_text("\n".join(["file,caption", *lines]))
    words = ["fit", tmp_path / "p", "--condition", "caption", "--text", "bytes", *small]
    assert run(*words, "-o", tmp_path / "r", capsys=capsys)[0] == 0
    draw = ["sample", tmp_path / "r", "--steps", 2, "--seed", 0, "--json"]
    two = ["--condition", "a red circle on grey", "--condition", "a blue square on white"]
    guided = ["--guidance", 2, "--guidance-interval", "0.2,0.8", "--negative", "a green triangle"]
    for name, more, count in (
        ("one", two[:2] + ["-n", 3], 3),
        ("two", two, 2),
        ("four", [*two, "-n", 4, *guided], 4),
        ("file", ["--conditions", tmp_path / "prompts.txt"], 2),
        ("any", ["-n", 2], 2),
    ):
        code, out, err = run(*draw, *more, "-o", tmp_path / f"{name}.npy", capsys=capsys)
        assert code == 0 and json.loads(out)["samples"] == count, err
        assert len(np.load(tmp_path / f"{name}.npy")) == count
    assert np.array_equal(np.load(tmp_path / "two.npy"), np.load(tmp_path / "file.npy"))
    for more, code in (
        ([*two, "-n", 3], 2),
        ([*two, "--conditions", tmp_path / "prompts.txt"], 2),
        (["--conditions", tmp_path / "none.txt"], 66),
        ([*two, "--guidance", 2, "--guidance-interval", "a,b"], 2),
        (["--condition", "?!"], 65),
    ):
        assert run(*draw, *more, "-o", tmp_path / "x.npy", capsys=capsys)[0] == code, more


def test_a_digit_on_the_command_line(tmp_path, capsys):
    small = ["--steps", 2, "--set", "width=4", "--set", "batch=8", "--quiet"]
    words = ["fit", "digits", "--condition", "label", "-o", tmp_path / "r", *small]
    assert run(*words, capsys=capsys)[0] == 0
    draw = ["sample", tmp_path / "r", "--steps", 2, "-o", tmp_path / "x.npy"]
    assert run(*draw, "-n", 3, "--condition", 7, capsys=capsys)[0] == 0
    assert np.load(tmp_path / "x.npy").shape == (3, 8, 8)
    several = ["--condition", 7, "--condition", 1, "--negative", 3, "--guidance", 2]
    assert run(*draw, *several, capsys=capsys)[0] == 0
    assert len(np.load(tmp_path / "x.npy")) == 2


def test_a_word_that_was_never_seen_is_said():
    model = fitted("flow_matching", "words")
    with pytest.warns(UserWarning, match="do nothing: purple"):
        model.sample(2, y="purple red", steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(2, y=LEFT, steps=2)
