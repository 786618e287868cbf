"""Guidance, its interval and a negative condition, in every way of drawing, where all is normal.

The pictures of class k are N(m_k, S) with one S. Then the guided estimates are those of
N((1 - w) m_- + w m_k, S) wherever guidance acts, and flows and conditional laws are known.
"""

import math

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import cli
from pushforward.errors import DataError, UsageError
from pushforward.inference.preprocessor import Preprocessor
from pushforward.networks.text_encoder import CaptionedNetwork, EncodedCondition
from pushforward.theory import paths, predictions
from pushforward.theory.denoisers import Denoiser, NetworkDenoiser, PosteriorMeans
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian
from pushforward.theory.guidance import Guidance, GuidedDenoiser

SIDE = 4
S = 0.3 * np.eye(SIDE**2) + 0.1
MEANS = np.random.default_rng(0).normal(size=(3, SIDE**2))
WAYS = [
    {},
    {"guidance": 2.5},
    {"guidance": 0.0, "negative": "b"},
    {"guidance": 2.5, "negative": "b"},
    {"guidance": 2.5, "guidance_interval": (0.3, 0.6)},
    {"guidance": 2.5, "negative": "b", "guidance_interval": (0.2, 0.7)},
]


class Normal(Denoiser):
    """The posterior means of N(m_k, S), where no condition says m = 0."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, x_t, t, c=None):
        x = x_t.double().flatten(1)
        m = 0 if c is None else c[:, 1:].double() @ torch.tensor(MEANS)
        alpha, sigma = (v.reshape(-1, 1, 1) for v in self.path(t.double()))
        cov, one = torch.tensor(S), torch.eye(SIDE**2, dtype=torch.float64)
        rest = torch.linalg.solve(
            alpha**2 * cov + sigma**2 * one, (x - alpha[..., 0] * m)[..., None]
        )
        x, eps = m + (alpha * cov @ rest)[..., 0], (sigma * rest)[..., 0]
        return PosteriorMeans(*(z.view_as(x_t).to(x_t) for z in (x, eps)))


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    y = rng.choice(list("abc"), 60)
    x = rng.standard_normal((60, SIDE, SIDE)).astype(np.float32)
    other = rng.standard_normal((60, SIDE, SIDE)).astype(np.float32)
    found = pf.fit(x, "flow_matching", y=y, source=other, steps=1, width=8, progress=False)
    found.model.denoiser = Normal(found.model.path)
    return found


@pytest.fixture(scope="module")
def noisy(model):
    """The same, which starts from noise."""
    found = pf.fit(
        model.sample(60, "a", steps=1), "flow_matching", y=["a", "b", "c"] * 20, steps=1, width=8,
        progress=False,
    )  # fmt: skip
    found.model.denoiser = Normal(found.model.path)
    return found


def root(t):
    """The deviation of x_t, a matrix: it scales as the flow goes."""
    values, vectors = np.linalg.eigh((1 - t) ** 2 * S + t**2 * np.eye(len(S)))
    return vectors * np.sqrt(values) @ vectors.T


def at(level):
    """The time of a noise level on the linear path."""
    return math.sin(math.pi * level / 2) / (
        math.sin(math.pi * level / 2) + math.cos(math.pi * level / 2)
    )


def mean(guidance=1.0, negative=None, **_):
    """That of class a under guidance."""
    away = 0 if negative is None else MEANS["abc".index(negative)]
    return (1 - guidance) * away + guidance * MEANS[0]


def flow(x, start, way):
    """Where the flow carries states at a time, down to data: segment by segment, exactly."""
    low, high = (at(v) for v in way.get("guidance_interval", (0.0, 1.0)))
    for top, bottom, m in ((1.0, high, MEANS[0]), (high, low, mean(**way)), (low, 0.0, MEANS[0])):
        t, s = min(top, start), min(bottom, start)
        x = (1 - s) * m + (x - (1 - t) * m) @ np.linalg.inv(root(t)) @ root(s)
    return x


def inside(model, x):
    """Pictures as the model sees them, one row each."""
    return model.transform.forward(torch.as_tensor(np.asarray(x, float)))[0].flatten(1).numpy()


@pytest.mark.parametrize("way", WAYS)
def test_latents_are_carried_by_the_guided_flow_and_back(noisy, model, way):
    z = np.random.default_rng(2).standard_normal((5, SIDE, SIDE))
    truth = flow(z.reshape(5, -1), 1.0, way)
    made = noisy.decode(z, "a", tolerance=1e-6, **way)
    np.testing.assert_allclose(inside(noisy, made), truth, atol=2e-3)
    np.testing.assert_allclose(noisy.encode(made, "a", tolerance=1e-6, **way), z, atol=5e-3)
    back = noisy.reconstruct(made, "a", **way)
    np.testing.assert_allclose(inside(noisy, back), truth, atol=5e-3)
    ends = noisy.interpolate(made[:1], made[1:2], 3, "a", **way)
    np.testing.assert_allclose(inside(noisy, ends)[[0, 2]], truth[:2], atol=5e-3)
    moved = model.translate(made, "a", **way)
    start = Preprocessor.from_json(model.config["origin"]).transform
    z = start.forward(torch.as_tensor(np.asarray(made, float)))[0].flatten(1).numpy()
    np.testing.assert_allclose(inside(model, moved), flow(z, 1.0, way), atol=5e-3)


@pytest.mark.parametrize("way", WAYS)
def test_samples_and_edits_are_guided_alike(noisy, way):
    """A full edit is a sample; a weaker one follows the flow from where its noise leaves it."""
    x = noisy.sample(6, "b", seed=3, steps=5)
    sample = noisy.sample(6, "a", seed=0, steps=200, **way)
    full = noisy.edit(x, "a", strength=1.0, seed=0, steps=200, **way)
    np.testing.assert_allclose(full, sample, atol=1e-5)
    some = noisy.edit(x, "a", strength=0.5, seed=0, steps=200, **way)
    free = inside(noisy, noisy.edit(x, "a", strength=1.0, seed=0, steps=200))  # of the same noise
    eps = (free - MEANS[0]) @ np.linalg.inv(root(0.0))
    t = at(0.5)
    truth = flow((1 - t) * inside(noisy, x) + t * eps, t, way)
    np.testing.assert_allclose(inside(noisy, some), truth, atol=0.03)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["filter", "moments"])
def test_what_is_redrawn_has_the_guided_conditional_law(noisy, way, method):
    """Its mean is m_U + S_UK S_KK^-1 (x_K - m_K), m the guided mean where all levels are guided."""
    n, known = 400, np.zeros((SIDE, SIDE), bool)
    known[:2] = True
    x = noisy.sample(1, "a", seed=3, steps=5)
    made = noisy.inpaint(x, ~known, n, "a", seed=0, method=method, **way).pictures
    k, u = known.ravel(), ~known.ravel()
    gain = S[np.ix_(u, k)] @ np.linalg.inv(S[np.ix_(k, k)])
    plain, full = (m[u] + gain @ (inside(noisy, x)[0, k] - m[k]) for m in (MEANS[0], mean(**way)))
    found = inside(noisy, made)[:, u].mean(0)
    error = np.sqrt(np.diag(S[np.ix_(u, u)] - gain @ S[np.ix_(k, u)]) / n)
    if method == "moments" and "guidance_interval" not in way:
        assert np.abs((found - full) / error).max() < 5
    if way:  # how far on the way from no guidance to guidance
        part = (found - plain) @ (full - plain) / np.square(full - plain).sum()
        low, high = (0.05, 0.95) if "guidance_interval" in way else (0.85, 1.15)
        assert low < part < high


def test_each_datum_moves_away_from_its_own_negative_condition(noisy):
    z = np.random.default_rng(2).standard_normal((6, SIDE, SIDE))
    away, known = ["b", "c", "b", "c", "b", "c"], np.full((SIDE, SIDE), np.nan)
    known[0] = 0.0
    options = {"guidance": 2.0, "negative": away}
    made = inside(noisy, noisy.decode(z, "a", **options))
    for i, k in enumerate(away):
        truth = flow(z[i].reshape(1, -1), 1.0, {"guidance": 2.0, "negative": k})
        np.testing.assert_allclose(made[i : i + 1], truth, atol=2e-3)
    drawn = inside(noisy, noisy.sample(6, "a", given=known, seed=0, **options))[:, SIDE:]
    gaps = [[np.square(x - mean(2.0, k)[SIDE:]).sum() for k in "bc"] for x in drawn]
    assert [("b", "c")[int(np.argmin(gap))] for gap in gaps] == away


@pytest.mark.parametrize("interval", [None, (0.3, 0.7)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_velocities_of_a_grid_are_guided_and_read_their_conditions_once(float64, interval, scale):
    """(1 - w) v_- + w v_k of the two exact flows; a network reads each kind of batch once."""
    path, reads = paths.VariancePreservingPath(), []
    cov = torch.eye(2).expand(1, 2, 2) / 4
    laws = [ExactDenoiser(Gaussian(torch.tensor([m, 0.0]), cov[0]), path) for m in (0.0, 2.0)]

    class Reader(torch.nn.Module):
        def read(self, c):
            reads.append(len(c))
            return EncodedCondition(c)

        def forward(self, x, t, c):
            x_t = x * path.scale(t)
            both = [law.velocity(x_t, t) for law in laws]
            return torch.where(c.c[:, :1] > 0, both[1], both[0])

    assert callable(CaptionedNetwork.read)  # what networks of spelled captions do
    denoiser = NetworkDenoiser(Reader(), path, predictions.velocity_prediction)
    guided, c = GuidedDenoiser(denoiser, Guidance(scale, interval)), torch.ones(5, 1)
    times, x = path.grid(12)[1:-1], torch.randn(5, 2)
    functions = guided.velocities(times, c)
    for t, function in zip(times, functions):
        low, high = interval or (0.0, 1.0)
        w = scale if low <= float(path.level(t)) <= high else 1.0
        truth = (1 - w) * laws[0].velocity(x, t) + w * laws[1].velocity(x, t)
        torch.testing.assert_close(function(x), truth)
    batch = 10 if scale > 1 else 5
    assert sorted(reads) == ([5] if scale == 1 or interval is None and scale == 0 else
                             [batch] if interval is None else sorted([5, batch]))  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.edit(x, "a", negative="b"), "negative does nothing without guidance"),
        (lambda m, x: m.decode(x, "a", negative="b"), "negative does nothing without guidance"),
        (lambda m, x: m.encode(x, "a", guidance_interval=(0.1, 0.2)), "guidance_interval does"),
        (lambda m, x: m.inpaint(x[:1], ~lower(), 2, "a", negative="b"), "negative does nothing"),
        (lambda m, x: m.edit(x, "a", guidance=2.0, guidance_interval=3), "several numbers"),
        (lambda m, x: m.decode(x, "a", guidance=2.0, guidance_interval=(2.0, 3.0)), "noise levels"),
    ],
)
def test_guidance_that_does_nothing_is_refused(noisy, call, message):
    with pytest.raises(UsageError, match=message):
        call(noisy, noisy.sample(2, "a", seed=0, steps=2))


def lower():
    return np.arange(SIDE)[:, None] * np.ones(SIDE) >= SIDE // 2


def test_a_negative_condition_needs_one_to_know(noisy):
    plain = pf.fit(noisy.sample(60, "a", steps=1), "flow_matching", steps=1, width=8,
                   progress=False)  # fmt: skip
    for draw in (lambda **o: plain.sample(2, **o), lambda **o: plain.edit(plain.sample(2), **o)):
        with pytest.raises(UsageError, match="fitted without a condition: leave negative out"):
            draw(guidance=2.0, negative="b")
    with pytest.raises(DataError, match="3 negative conditions for 2 data"):
        noisy.edit(noisy.sample(2, "a", steps=1), "a", guidance=2.0, negative=list("abc"))
    with pytest.raises(DataError, match="no class is called 'z'"):
        noisy.decode(np.zeros((2, SIDE, SIDE)), "a", guidance=2.0, negative="z")


def test_the_command_line_guides_every_way_of_drawing(tmp_path, capsys):
    """With --guidance 0 --negative b all is as under b: what the flags say has arrived."""
    rng = np.random.default_rng(1)
    y = rng.choice(list("ab"), 60)
    x = rng.standard_normal((60, SIDE, SIDE)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    np.save(tmp_path / "some.npy", x[:2])
    np.save(tmp_path / "one.npy", x[0])
    np.save(tmp_path / "other.npy", x[1])
    np.save(tmp_path / "mask.npy", lower())

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(w) for w in words])
        assert stop.value.code == 0, capsys.readouterr().err

    r, out = tmp_path / "r", tmp_path / "out.npy"
    pf.fit(x, "flow_matching", y=y, source=x, steps=5, width=8, lr=0.05, out=r,
                   ema=(0.1, 0.9), progress=False)  # fmt: skip
    base = tmp_path / "n"
    pf.fit(x, "flow_matching", y=y, steps=5, width=8, lr=0.05, out=base, ema=(0.1, 0.9),
           progress=False)  # fmt: skip
    commands = {
        "sample": [base, "-n", 2, "--steps", 3],
        "encode": [base, tmp_path / "some.npy"],
        "decode": [base, tmp_path / "some.npy"],
        "reconstruct": [base, tmp_path / "some.npy"],
        "interpolate": [base, tmp_path / "one.npy", tmp_path / "other.npy", "-n", 3],
        "edit": [base, tmp_path / "some.npy", "--steps", 3],
        "inpaint": [base, tmp_path / "one.npy", "--mask", tmp_path / "mask.npy", "-n", 2],
        "translate": [r, tmp_path / "some.npy"],
    }
    under_b = ["--guidance", 0, "--negative", "b", "--guidance-interval", "0,1"]
    for name, words in commands.items():
        run(name, *words, "-o", out, "--condition", "a", *under_b, "--seed", 0, "--ema", 0.9)
        guided = np.load(out)
        run(name, *words, "-o", out, "--condition", "b", "--seed", 0, "--ema", 0.9)
        np.testing.assert_allclose(guided, np.load(out), atol=2e-3, err_msg=name)
        if name == "reconstruct":  # the same whatever the weights
            continue
        run(name, *words, "-o", out, "--condition", "b", "--seed", 0, "--ema", 0.1)
        assert not np.allclose(guided, np.load(out), atol=2e-3), name
