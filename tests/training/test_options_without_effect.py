"""Options that would change nothing are refused before anything is written, or said to be idle."""

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import cli
from pushforward.errors import UsageError

X = np.random.default_rng(0).standard_normal((48, 2))
IMAGES = np.random.default_rng(0).standard_normal((48, 9, 9))
SMALL = {"steps": 1, "batch": 8, "width": 8, "progress": False}
IDLE = [
    (X, "flow_matching", {"shard": True}, "shard divides what several devices keep"),
    (X, "flow_matching", {"channels_last": True}, "channels_last is for convolutions"),
    (X, "flow_matching", {"recompute": True}, "recompute is for blocks"),
    (X, "flow_matching", {"unconditional": 0.2}, "there is none: leave it out"),
    (X, "flow_matching", {"text": "bytes"}, "there is no condition"),
    (X, "flow_matching", {"cache": "c"}, "cache keeps the decoded images of a folder"),
    (X, "flow_matching", {"size": 8}, "size is for the images of a folder"),
    (X, "flow_matching", {"watch": 2}, "watch is for images"),
    (X, "flow_matching", {"minutes": 1.0}, "give steps or minutes, not both"),
    (X, "vae", {"teacher": "flow"}, "cannot be distilled from a teacher"),
    (X, "vae", {"source": X}, "cannot start from data"),
    (IMAGES, "flow_matching", {"waves": 8}, "`waves` are inputs of an mlp"),
]


@pytest.fixture(scope="module")
def flow():
    return pf.fit(X, "flow_matching", **SMALL)


@pytest.mark.parametrize(("x", "family", "options", "message"), IDLE)
def test_an_option_that_would_do_nothing_is_refused(x, family, options, message, flow, tmp_path):
    options = {k: flow if isinstance(v, str) and v == "flow" else v for k, v in options.items()}
    with pytest.raises(UsageError, match=message):
        pf.fit(x, family, out=tmp_path / "r", **SMALL | options)
    assert not (tmp_path / "r").exists() or not any((tmp_path / "r").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": True}, "compile is for networks"),
        ({"devices": 2}, "this family takes none: leave devices out"),
    ],
)
def test_a_closed_form_refuses_what_networks_take(options, message):
    with pytest.raises(UsageError, match=message):
        pf.fit(X, "gaussian", progress=False, **options)


def test_a_closed_form_says_which_options_of_training_are_idle(recwarn):
    pf.fit(X, "gaussian", steps=5, progress=False)
    assert not [w for w in recwarn if "without effect" in str(w.message)]
    with pytest.warns(UserWarning, match="batch, lr, precision: without effect"):
        pf.fit(X, "gaussian", batch=8, lr=0.1, precision="bfloat16", progress=False)


def test_guidance_in_training_is_that_of_a_teacher(flow):
    y = np.arange(48) % 2
    with pytest.raises(UsageError, match="that of a teacher, and there is none"):
        pf.fit(X, "consistency", y=y, guidance=2.0, **SMALL)
    teacher = pf.fit(X, "flow_matching", y=y, **SMALL)
    student = pf.fit(X, "consistency", y=y, teacher=teacher, guidance=2.0, **SMALL)
    assert student.sample(2, y=1, seed=0).shape == (2, 2)


def test_the_command_line_says_what_an_option_needs(tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    words = ["fit", tmp_path / "x.npy", "-o", tmp_path / "r", "--steps", 1, "--set", "width=8"]
    for option in ("--shard", "--recompute", "--channels-last"):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(w) for w in [*words, option]])
        assert stop.value.code == 2
        err = capsys.readouterr().err.splitlines()
        assert len(err) == 1 and err[0].startswith(f"pushforward: error: {option[2:6]}")
    assert not (tmp_path / "r").exists()


def test_a_wrong_kind_of_option_is_told_the_right_one(flow):
    with pytest.raises(UsageError, match=r"it must be several numbers, such as 0.2,0.8"):
        flow.decode(X, guidance_interval=3)


def test_particles_that_need_an_exact_trace_are_refused_before_any_work(monkeypatch):
    """No code is drawn, and no integral is solved, to find out that it was for nothing."""
    model = pf.fit(np.zeros((48, 12, 12)) + IMAGES[:, :1, :1], "latent_diffusion", steps=2,
                   batch=8, width=8, encoder_width=4, latent=8, factor=1, depth=1,
                   progress=False)  # fmt: skip
    assert model.model.second.event_shape == (8, 12, 12)

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(model.model.second, "estimated", never)
    with pytest.raises(UsageError, match="needs the exact trace"):
        model.log_prob(IMAGES[:1, :1, :1] + np.zeros((1, 12, 12)), particles=2)


def test_an_unconditional_first_stage_leaves_captions_to_the_second():
    """A teacher without a condition reads no captions: the message was about another case."""
    said = [("a red circle", "a blue square")[i % 2] for i in range(48)]
    teacher = pf.fit(X, "vae", **SMALL)
    options = {"steps": 2, "batch": 8, "width": 8, "progress": False}
    model = pf.fit(X, "latent_diffusion", y=said, text="bytes", teacher=teacher, **options)
    assert model.sample(2, "a red circle", seed=0).shape == (2, 2)
    assert torch.isfinite(torch.as_tensor(model.log_prob(X[:2], said[:2]))).all()
