"""Flow matching against closed forms: Gaussian data, couplings, teachers, and other data."""

import math

import pytest
import torch

from pushforward import families
from pushforward.diffusion import midpoint_times
from pushforward.errors import NoLikelihood, UsageError
from pushforward.families.flow_matching import PATHS, FlowMatching
from pushforward.model import Event, GenerativeModel, Likelihood
from pushforward.theory import ode, paths, samplers
from pushforward.theory.couplings import exact_coupling
from pushforward.theory.denoisers import Denoiser
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian, gaussian_ring8
from pushforward.theory.predictions import PosteriorMeans
from pushforward.training.trainer import Trainer, random_batches

M, S = torch.tensor([1.0, -0.5]), 1.7
LAW = Gaussian(M.double(), S**2 * torch.eye(2, dtype=torch.float64))


@pytest.fixture
def exact():
    return ExactDenoiser(LAW, paths.LinearPath())


class Exact(torch.nn.Module):
    """The network that a `FlowMatching` model would have if it knew the law."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x, t, c=None):
        path = self.denoiser.path
        t = t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t
        alpha, sigma = path(t)
        s = path.scale(t)
        found = self.denoiser(x * s, t.flatten() if t.ndim else t)
        return (sigma * found.x - alpha * found.eps) / s


def knowing(law, path="linear", sigma_min=0.0, **options):
    """A model whose network is exact."""
    d = law.dim
    model = families.build("flow_matching", Event((d,)), path=path, sigma_min=sigma_min, **options)
    model.denoiser.net = Exact(ExactDenoiser(law, model.path))
    return model.double().eval()


def test_velocity_of_gaussian_data_has_its_closed_form(float64, exact):
    """D10, with the lesson's time r = 1 - t: u = m + (r s^2 - (1 - r)) / D (x - r m)."""
    x = torch.randn(20, 2) * 2
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        r = 1 - t
        u = M + (r * S**2 - (1 - r)) / ((1 - r) ** 2 + r**2 * S**2) * (x - r * M)
        torch.testing.assert_close(exact.velocity(x, torch.tensor(t)), -u)


def test_flow_of_gaussian_data_is_affine(float64):
    """D10: noise z goes to m + s z, along a curve."""
    model, z = knowing(LAW), torch.randn(20, 2)
    x = model.decode(z, tolerance=1e-9)
    torch.testing.assert_close(x, M + S * z, rtol=0, atol=1e-7)
    torch.testing.assert_close(model.encode(x, tolerance=1e-9), z, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_floor_of_the_loss_is_half_pi_times_the_scale(float64, scale):
    """D10: s pi/2 per dimension. Each batch's mean has a relative deviation near 1 %."""
    law = Gaussian(M.double(), scale**2 * torch.eye(2))
    model = knowing(law)
    losses = torch.stack([model.loss(law.sample(20_000))["regression"].detach() for _ in range(10)])
    error = float(losses.std() / 10**0.5)
    assert abs(float(losses.mean()) - math.pi * scale) < 4 * error
    assert error < 0.02 * scale


class Straight(Denoiser):
    """What optimally coupled pairs (m + s eps, eps) teach: x_t determines eps."""

    path = paths.LinearPath()

    def forward(self, x_t, t, c=None):
        eps = (x_t - (1 - t) * M) / ((1 - t) * S + t)
        return PosteriorMeans(M + S * eps, eps)


def test_coupled_flow_is_exact_in_one_euler_step(float64):
    """D10; and the coupling of a batch is that of the law, in the limit of large batches."""
    z = torch.randn(30, 2)
    x = ode.final_state(samplers.euler(Straight(), z, torch.tensor([1.0, 0.0])))
    torch.testing.assert_close(x, M + S * z)
    data, noise = exact_coupling(M[:1] + S * torch.randn(20_000, 1), torch.randn(20_000, 1))
    middle, rate = (data + noise) / 2, noise - data
    slope = float(((middle - middle.mean()) * rate).mean() / middle.var())
    # both quantile functions are known to 1/sqrt(20,000) = 0.7 %
    assert slope == pytest.approx((1 - S) / ((1 + S) / 2), abs=0.03)
    assert float((rate - slope * (middle - middle.mean()) - rate.mean()).std()) < 0.05


def test_velocity_at_both_ends(float64):
    """D10: x - E[data] at noise, and -x at data, for any law."""
    law = gaussian_ring8()
    denoiser, x = ExactDenoiser(law, paths.LinearPath()), torch.randn(9, 2)
    torch.testing.assert_close(denoiser.velocity(x, torch.tensor(1.0)), x - law.mean)
    torch.testing.assert_close(denoiser.velocity(x, torch.tensor(0.0)), -x)


def test_one_euler_step_gives_the_mean(float64):
    model = knowing(gaussian_ring8())
    x = model.sample(50, sampler="euler", steps=1)
    torch.testing.assert_close(x, torch.zeros_like(x), rtol=0, atol=1e-10)


def test_score_data_and_noise_follow_from_the_velocity(float64):
    """D10: eps = x_t + (1 - t) v, x = x_t - t v, score = -eps / t, for any network."""
    model = families.build("flow_matching", Event((3,)), width=16).double()
    x_t, t = torch.randn(8, 3), torch.tensor(0.35)
    v, (x, eps) = model.denoiser.velocity(x_t, t), model.denoiser(x_t, t)
    torch.testing.assert_close(eps, x_t + (1 - t) * v)
    torch.testing.assert_close(x, x_t - t * v)
    torch.testing.assert_close(model.denoiser.score(x_t, t), -eps / t)


@pytest.mark.parametrize("path", PATHS)
def test_blurred_paths_end_at_blurred_data(float64, path):
    """D10: with sigma_min the output has variance s^2 + sigma_min^2."""
    sigma = 0.5
    model, z = knowing(LAW, path, sigma), torch.randn(20, 2)
    end = math.hypot(S, sigma)
    x = model.decode(z, tolerance=1e-9)
    # the cosine and VP paths start at 1/160 of the data; VP ends at t = 0.001
    close = 1e-7 if path == "linear" else 0.03
    torch.testing.assert_close(x, M + end * z, rtol=0, atol=close)
    drawn = model.sample(5000)
    error = end * math.sqrt(1 / 20_000)  # of the mean of two deviations of 5,000 draws
    assert float(drawn.std(0).mean()) == pytest.approx(end, abs=5 * error)


def test_blurred_linear_path_is_lipmans(float64):
    t = torch.linspace(0, 1, 9)
    alpha, sigma = paths.BlurredPath(paths.LinearPath(), 0.1)(t)
    torch.testing.assert_close(alpha, 1 - t)
    torch.testing.assert_close(sigma, 1 - (1 - 0.1) * (1 - t))  # 1 - (1 - sigma_min) r, r = 1 - t
    path = paths.BlurredPath(paths.VariancePreservingPath(), 0.1)
    t, h = torch.linspace(0.1, 0.9, 9), 1e-6
    growth = torch.stack([(path(t + h)[k] - path(t - h)[k]) / (2 * h) for k in (0, 1)])
    torch.testing.assert_close(torch.stack(path.rates(t)), growth, rtol=1e-6, atol=1e-8)


def test_equal_signal_to_noise_makes_equal_denoisers(float64):
    """D10: the linear path and VP at equal sigma / alpha, on x / alpha."""
    vp, linear, x = paths.VariancePreservingPath(), paths.LinearPath(), torch.randn(12, 2) * 3
    for t in (0.1, 0.4, 0.7):
        t = torch.tensor(t)
        s = vp.inverse(linear.sigma(t) / linear.alpha(t))
        a = ExactDenoiser(gaussian_ring8(), linear)(x * linear.alpha(t), t)
        b = ExactDenoiser(gaussian_ring8(), vp)(x * vp.alpha(s), s)
        torch.testing.assert_close(a.x, b.x)
        torch.testing.assert_close(a.eps, b.eps)


@pytest.mark.parametrize("path", PATHS)
def test_the_loss_is_that_of_the_velocity(float64, path):
    """Its gradient's scale and floor: E |v - x'|^2 by hand, on the same draws."""
    model = families.build("flow_matching", Event((2,)), width=8, path=path).double()
    x = torch.randn(4000, 2)
    torch.manual_seed(3)
    loss = float(model.loss(x)["regression"].detach())
    torch.manual_seed(3)
    eps = torch.randn_like(x)
    k = int(torch.randint(8192, (1,)))
    spread = (torch.arange(4000) * 8192 // 4000 + k) % 8192
    t = model.path.t_min + (model.path.t_max - model.path.t_min) * (spread + 0.5) / 8192
    d_alpha, d_sigma = (z[:, None] for z in model.path.rates(t))
    v = model.denoiser.velocity(model.path.interpolate(x, eps, t), t)
    by_hand = (v - d_alpha * x - d_sigma * eps).square().sum(1).mean()
    assert loss == pytest.approx(float(by_hand.detach()), rel=1e-5)  # the table is in float32


@pytest.mark.parametrize("path", PATHS)
def test_likelihood_of_every_path_is_that_of_the_law(float64, path):
    """Exact but for the base: 1/160 of the data is left in it, and VP ends at t = 0.001."""
    model, x = knowing(gaussian_ring8(), path), gaussian_ring8().sample(40)
    bar = 1e-4 if path == "linear" else 0.02
    assert (model.log_prob(x) - gaussian_ring8().log_prob(x)).abs().max() < bar


@pytest.mark.parametrize("path", PATHS)
def test_decoding_undoes_encoding(path):
    model = families.build("flow_matching", Event((2,), 3), width=16, path=path).eval()
    x, c = torch.randn(30, 2), torch.eye(3)[torch.arange(30) % 3]
    for guidance in (0.0, 1.0, 2.0):
        z = model.encode(x, c, guidance=guidance, tolerance=1e-5)
        back = model.decode(z, c, guidance=guidance, tolerance=1e-5)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("path", PATHS)
def test_guidance_of_nought_and_one_are_the_laws_it_is_between(path):
    model = families.build("flow_matching", Event((2,), 3), width=16, path=path).eval()
    c = torch.eye(3)[torch.arange(30) % 3] + torch.eye(3)[0]

    def draw(c, **options):
        torch.manual_seed(0)
        return model.sample(30, c, steps=8, **options)

    torch.testing.assert_close(draw(c, guidance=0.0), draw(torch.zeros_like(c)))
    torch.testing.assert_close(draw(c, guidance=1.0), draw(c))
    assert not torch.allclose(draw(c, guidance=3.0), draw(c), atol=1e-3)


def train(model, x, c=None, steps=300, **changes):
    recipe = model.recipe._replace(**{"batch": 256, "lr": 3e-3, "ema": 0.99} | changes)
    trainer = Trainer(model.train(), recipe, steps)
    for _ in trainer.run(random_batches(x, recipe.batch, c)):
        pass
    return trainer.average.eval()


class Affine(GenerativeModel):
    """A teacher whose flow is known: it takes z to m(c) + s z."""

    event_shape, likelihood = (2,), Likelihood.EXACT

    def decode(self, z, c=None):
        return 0.3 * (1 if c is None else c[:, 1:]) + 0.6 * z

    def encode(self, x, c=None):
        return (x - self.decode(torch.zeros_like(x), c)) / 0.6

    def sample(self, n, c=None):
        return self.decode(torch.randn(n, 2), c)


def test_reflow_makes_the_flow_straight():
    """With the pairs of its teacher one Euler step is the whole flow; without them, the mean."""
    torch.manual_seed(0)
    z, errors = torch.randn(4000, 2), []
    for teachers in ((Affine(),), ()):
        model = families.build("flow_matching", Event((2,)), width=32, waves=0)
        for teacher in teachers:
            model.distil(teacher)
        model = train(model, Affine().sample(4000), steps=400, lr=1e-2)
        step = ode.final_state(samplers.euler(model.denoiser, z, torch.tensor([1.0, 0.0])))
        errors.append(float((step - Affine().decode(z)).square().mean() ** 0.5))
    assert errors[0] < 0.1 and errors[1] == pytest.approx(0.6, abs=0.1)


def test_a_teacher_makes_data_under_the_conditions_of_the_data():
    model, c = families.build("flow_matching", Event((2,), 2)), torch.ones(100, 2)
    c[:, 1] = torch.arange(100) % 10
    model.prepare(torch.zeros(100, 2), c)
    model.distil(Affine())
    x, z, kept = model.draw_pairs(torch.zeros(3000, 2), None)
    torch.testing.assert_close(x, Affine().decode(z, kept))
    counts = torch.bincount(kept[:, 1].long(), minlength=10)
    assert len(counts) == 10 and (counts - 300).abs().max() < 5 * 300**0.5
    again = families.build("flow_matching", Event((2,), 2))
    again.load_state_dict(model.state_dict())
    again.distil(Affine())
    torch.testing.assert_close(
        again.make_teacher_pairs()[0], model.teacher_pairs[0]
    )  # a resumed run has the same
    assert "teachers" not in " ".join(model.state_dict())
    with pytest.raises(UsageError, match="no teacher"):
        model.distil(families.build("gan", Event((2,))))


def test_data_to_data_goes_both_ways():
    """From a uniform law to a normal one by the monotone map between them, and back."""
    torch.manual_seed(0)
    source, data = torch.rand(4000, 1) * 12**0.5 - 3**0.5, torch.randn(4000, 1)
    model = families.build("flow_matching", Event((1,)), width=64, coupling="ot")
    assert model.likelihood is Likelihood.ODE
    model.start_from(source)
    assert model.likelihood is Likelihood.NONE
    with pytest.raises(NoLikelihood):
        model.log_prob(data[:3])
    model = train(model, data, steps=400)
    start = torch.linspace(-1.6, 1.6, 33)[:, None]
    goal = 2**0.5 * torch.erfinv(start / 3**0.5)  # the monotone map of a uniform law to a normal
    found = model.translate(start)
    assert (found - goal)[2:-2].abs().max() < 0.25
    torch.testing.assert_close(
        model.translate(found, reverse=True, tolerance=1e-5), start, rtol=0, atol=5e-3
    )
    drawn = model.sample(4000)
    assert float(drawn.std()) == pytest.approx(1, abs=0.06) and abs(float(drawn.mean())) < 0.06


def test_untrained_flows_from_other_data_move_nothing():
    for path in PATHS:
        model = families.build("flow_matching", Event((12, 12)), path=path, width=8, depth=2)
        model.start_from(torch.randn(4, 12, 12))
        x = torch.randn(3, 12, 12)
        with torch.no_grad():
            assert float(model.denoiser.velocity(x, torch.tensor(0.4)).abs().max()) < 1e-6


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_loss_from_other_data_is_that_of_the_velocity(float64, path):
    """Of an untrained network, which gives 0, the mean of |dx_t/dt|^2 over the path."""
    model = families.build("flow_matching", Event((12, 12)), path=path, width=8, depth=2).double()
    model.start_from(torch.ones(1, 12, 12))
    x = torch.full((512, 12, 12), 2.0)
    scales, t = PATHS[path](), midpoint_times(PATHS[path]())
    d_alpha, d_sigma = scales.rates(t)
    expected = float(144 * (2 * d_alpha + d_sigma).square().mean())
    assert float(model.loss(x)["regression"]) == pytest.approx(expected, rel=0.01)  # 512 times


def test_pairs_of_a_pool_are_of_the_data_and_the_source():
    """1 joined with 1 and -1 with -1, as 512 rows of each are; held-out data stay themselves."""
    sign = torch.arange(600) % 2 * 2.0 - 1
    x, z = (sign[:, None] * torch.ones(1, 2) + 0.1 * torch.randn(600, 2) for _ in range(2))
    model = families.build("flow_matching", Event((2,)), width=8, coupling="ot", together=512)
    model.start_from(z)
    model.gather(x)
    a, b, _ = model.train().draw_pairs(torch.zeros(64, 2), None)
    assert {tuple(r) for r in a.tolist()} <= {tuple(r) for r in x.tolist()}
    assert {tuple(r) for r in b.tolist()} <= {tuple(r) for r in z.tolist()}
    assert float((a[:, 0] * b[:, 0] > 0).float().mean()) > 0.8
    assert torch.equal(model.eval().draw_pairs(x[:8], None)[0], x[:8])
    with pytest.raises(UsageError, match="together"):
        families.build("flow_matching", Event((2,)), together=10**6)
    with pytest.raises(UsageError, match="no images"):
        families.build("flow_matching", Event((2,)), coupling="outlines")


def test_samples_start_at_rows_of_the_source():
    model = families.build("flow_matching", Event((2,)), width=8).eval()
    rows = torch.tensor([[5.0, 5.0], [-5.0, 5.0]])
    model.start_from(rows)
    first = model.base_noise(100)
    assert {tuple(r) for r in first.tolist()} == {tuple(r) for r in rows.tolist()}
    other = families.build("flow_matching", Event((2,)), width=8)
    other.start_from(torch.zeros(2, 2))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.source, rows) and other.likelihood is Likelihood.NONE


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["independent", "ot", "sinkhorn"])
def test_conditional_samples_follow_each_class(coupling):
    """torchcfm#117: means 1.5 apart and deviations 0.3, under every coupling."""
    torch.manual_seed(0)
    label = torch.arange(6000) % 3
    centre = 1.5 * torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    x = centre[label] + 0.3 * torch.randn(6000, 2)
    c = torch.cat([torch.ones(6000, 1), torch.eye(3)[label]], dim=1)
    model = families.build("flow_matching", Event((2,), 4), width=64, coupling=coupling)
    model = train(model, x, c, steps=1200)
    for k in range(3):
        drawn = model.sample(2000, c[label == k][:2000])
        assert (drawn.mean(0) - centre[k]).abs().max() < 0.08
        assert (drawn.std(0) - 0.3).abs().max() < 0.06


@pytest.mark.slow
def test_optimal_coupling_learns_the_law_of_each_class():
    """N(+-1, 0.1^2) in one dimension: coupled across classes, the mean of one was 0.28."""
    torch.manual_seed(0)
    label = torch.arange(4000) % 2
    x = (2.0 * label - 1)[:, None] + 0.1 * torch.randn(4000, 1)
    c = torch.cat([torch.ones(4000, 1), torch.eye(2)[label]], dim=1)
    model = families.build("flow_matching", Event((1,), 3), width=64, coupling="ot")
    drawn = train(model, x, c, steps=800).sample(4000, c[1:2].expand(4000, 3))
    assert abs(drawn.mean() - 1) < 0.05 and abs(drawn.std() - 0.1) < 0.05


def test_options_that_are_no_choice_are_refused():
    for option in ("path", "coupling"):
        with pytest.raises(UsageError, match=option):
            families.build("flow_matching", Event((2,)), **{option: "crooked"})
    assert issubclass(FlowMatching, torch.nn.Module)
