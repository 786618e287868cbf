"""DDPM's losses, floors, weights and bound against closed forms on Gaussian data (D6)."""

import math

import pytest
import torch
from torch import nn

from pushforward import families
from pushforward.errors import UsageError
from pushforward.families.ddpm import DDPM, PREDICTIONS
from pushforward.model import Event
from pushforward.shapes import standard_normal_log_prob
from pushforward.theory import ddpm_schedule, predictions, samplers
from pushforward.theory.exact.targets import lesson_mixture
from pushforward.theory.ode import final_state

every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)


class Network(nn.Module):
    """A network that has learnt its prediction of N(0, s^2) data, wrong by a factor."""

    def __init__(self, path, prediction, s, factor=1.0):
        super().__init__()
        self.path, self.prediction, self.s, self.factor = path, prediction, s, factor

    def forward(self, x, t, c=None):
        (alpha, sigma), (a, b) = self.path(t.double()), self.prediction(self.path, t.double())
        gain = (a * alpha * self.s**2 + b * sigma) / (alpha**2 * self.s**2 + sigma**2)
        return self.factor * gain.to(x).reshape(-1, *[1] * (x.ndim - 1)) * x


def gaussian_model(
    s, prediction=predictions.v_prediction, T=1000, shape=(1,), factor=1.0, **options
):
    path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(T))
    net = Network(path, prediction, s, factor)
    return DDPM(net, shape, path=path, prediction=prediction, **options).double().eval()


@pytest.mark.parametrize("s, published", [(0.5, 0.1730), (1.0, 0.2755), (2.0, 0.3954)])
def test_the_floor_of_l_simple(s, published):
    """Per dimension alpha-bar s^2 / D on average, D = alpha-bar s^2 + 1 - alpha-bar."""
    alpha_bar = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000)).alpha_bar(
        torch.arange(1, 1001)
    )
    floor = alpha_bar * s**2 / (alpha_bar * s**2 + 1 - alpha_bar)
    assert float(floor.mean()) == pytest.approx(published, abs=1e-4)


@every_prediction
@pytest.mark.parametrize("s", [0.5, 2.0])
def test_a_perfect_network_reaches_the_floor_of_each_loss(prediction, s):
    """Unweighted, and as L_simple, the same for every prediction."""
    path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000))
    alpha_bar = path.alpha_bar(torch.arange(1, 1001))
    D, data = alpha_bar * s**2 + 1 - alpha_bar, s**2 * (1 - alpha_bar)
    floors = {"data": data / D, "noise": alpha_bar * s**2 / D, "v": torch.full_like(D, s**2) / D}
    for weight, floor in (
        (
            lambda path, t: torch.ones_like(t),
            floors[prediction.__name__.removesuffix("_prediction")],
        ),
        (predictions.noise_error_weight(prediction), floors["noise"]),
    ):
        model = gaussian_model(s, prediction, shape=(2,), weight=weight)
        losses = torch.stack(
            [model.loss(s * torch.randn(1000, 2).double())["regression"] for _ in range(30)]
        )
        error = float(losses.std()) / math.sqrt(len(losses))
        assert float(losses.mean()) == pytest.approx(2 * float(floor.mean()), abs=5 * error)


@every_prediction
def test_a_wrong_network_costs_its_squared_error_on_top(prediction):
    """L(net) - floor is E w |net - best|^2, here a factor 1.3 on the best."""
    s, path = 0.7, ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000))
    alpha_bar = path.alpha_bar(torch.arange(1, 1001))
    D, (a, b) = alpha_bar * s**2 + 1 - alpha_bar, prediction(path, path.chain()[:-1].flip(0))
    best = (a * alpha_bar.sqrt() * s**2 + b * (1 - alpha_bar).sqrt()) / D.sqrt()  # a deviation
    floor = (a * s) ** 2 + b**2 - best**2
    model = gaussian_model(s, prediction, factor=1.3)
    losses = torch.stack(
        [model.loss(s * torch.randn(1000, 1).double())["regression"] for _ in range(30)]
    )
    exact = float((floor + 0.09 * best**2).mean())
    error = float(losses.std()) / math.sqrt(len(losses))
    assert float(losses.mean()) == pytest.approx(exact, abs=5 * error)


def test_weights_of_the_bound():
    """beta-tilde: (SNR_{k-1} - SNR_k) / 2 for data, (SNR_{k-1} / SNR_k - 1) / 2 for noise."""
    path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000))
    k = torch.arange(2, 1001)
    t, snr = k.double() / 1000, (lambda a: a / (1 - a))(path.alpha_bar(torch.arange(1, 1001)))
    data, noise = (
        ddpm_schedule.bound_weight(p, 0.0)(path, t) / 1000
        for p in (predictions.data_prediction, predictions.noise_prediction)
    )
    torch.testing.assert_close(data, (snr[:-1] - snr[1:]) / 2, rtol=1e-8, atol=0)
    torch.testing.assert_close(noise, (snr[:-1] / snr[1:] - 1) / 2, rtol=1e-8, atol=0)
    # A56, beta: beta^2 / (2 sigma^2 alpha (1 - alpha-bar))
    large = ddpm_schedule.bound_weight(predictions.noise_prediction, 1.0)(
        path, torch.tensor([1, 2, 500, 1000]) / 1000.0
    )
    published = torch.tensor([0.500, 0.273, 0.0055, 0.0102])
    torch.testing.assert_close(large.float() / 1000, published, rtol=0.01, atol=5e-5)


@every_prediction
@pytest.mark.parametrize("v", [0.0, 1.0])
def test_the_weighted_loss_is_the_bound_up_to_what_no_mean_changes(prediction, v):
    """-bound(wrong) + bound(right) = loss(wrong) - loss(right), all on the same noise."""
    x = 0.7 * torch.randn(500, 1).double()
    values = []
    for factor in (1.0, 1.2):
        model = gaussian_model(0.7, prediction, T=20, factor=factor, variance=v)
        model.table = model.coefficients(model.path.chain()[:-1].flip(0))
        weight = ddpm_schedule.bound_weight(prediction, v)(
            model.path, torch.arange(1, 21).double() / 20
        )
        losses, terms = [], []
        for k in range(1, 21):
            torch.manual_seed(k)
            terms.append(model.bound_term(x, torch.full((len(x),), k)).mean())
            torch.manual_seed(k)
            eps = torch.randn_like(x)
            t = torch.full((len(x),), k / 20, dtype=torch.float64)
            y = predictions.prediction_target(model.path, prediction, x, eps, t)
            out = model.denoiser.predict(model.path.interpolate(x, eps, t), t)
            losses.append(weight[k - 1] / 20 * (out - y).square().sum(1).mean())
        values.append((torch.stack(losses), torch.stack(terms)))
    (l0, t0), (l1, t1) = values
    torch.testing.assert_close(l1 - l0, t1 - t0, rtol=1e-8, atol=1e-10)


def normal_log(x, mean, variance):
    return -((x - mean).square() / variance + variance.log() + math.log(2 * math.pi)).sum(1) / 2


@pytest.mark.parametrize("v", [0.0, 0.4, 1.0])
def test_the_bound_is_the_ratio_of_joint_laws_on_every_path(v):
    r"""log p(x_0..x_T) - log q(x_1..x_T | x_0), by the forward chain and by the posteriors.

    An identity for any model, here a wrong one: q telescopes from steps to posteriors.
    """
    model, T = gaussian_model(0.7, T=40, shape=(2,), factor=1.4, variance=v), 40
    path, x = model.path, [0.7 * torch.randn(50, 2).double()]
    for k in range(1, T + 1):
        beta = path.beta(k)
        x.append((1 - beta).sqrt() * x[-1] + beta.sqrt() * torch.randn_like(x[-1]))
    joint = standard_normal_log_prob(x[T])
    terms = standard_normal_log_prob(x[T]) - normal_log(
        x[T], path.alpha_bar(T).sqrt() * x[0], 1 - path.alpha_bar(T)[None]
    )
    for k in range(1, T + 1):
        mean, variance = model.reverse_moments(x[k], torch.full((50,), k))
        step = normal_log(x[k - 1], mean, variance)
        beta = path.beta(k)[None]
        joint = joint + step - normal_log(x[k], (1 - beta).sqrt() * x[k - 1], beta)
        terms = terms + step
        if k > 1:
            mean, variance = path.posterior(x[0], x[k], k)
            terms = terms - normal_log(x[k - 1], mean, variance[None])
    torch.testing.assert_close(joint, terms, rtol=1e-12, atol=1e-10)


def gaussian_bound(path, s, variances):
    """The expected bound of the exact mean on N(0, s^2) data, in closed form, and each KL."""
    alpha_bar = path.alpha_bar(torch.arange(1, path.steps + 1))
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    true = (1 - before) / (1 - alpha_bar) * path.betas
    error = (before.sqrt() * path.betas / (1 - alpha_bar)) ** 2
    error = error * s**2 * (1 - alpha_bar) / (alpha_bar * s**2 + 1 - alpha_bar)
    variances = true + error if variances is None else variances
    kl = ((true + error) / variances - 1 - (true / variances).log()) / 2
    kl[0] = (error[0] / variances[0] + variances[0].log() + math.log(2 * math.pi)) / 2
    terminal = (alpha_bar[-1] * (s**2 - 1) - torch.log1p(-alpha_bar[-1])) / 2
    return -float(kl.sum() + terminal), true + error


def entropy(s):
    return math.log(2 * math.pi * math.e * s**2) / 2


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("v", [0.0, 1.0])
def test_the_bound_on_gaussian_data_is_exact(v, s):
    model, n = gaussian_model(s, T=100, variance=v), 1500
    path = model.path
    exact, _ = gaussian_bound(path, s, path.variance(torch.arange(1, 101), v))
    values = model.bound(s * torch.randn(n, 1).double())
    assert float(values.mean()) == pytest.approx(exact, abs=5 * float(values.std()) / math.sqrt(n))
    assert exact < -entropy(s) + 1e-9


def test_the_gap_of_the_optimal_variance_is_that_of_the_last_law():
    """With the best variance all that is lost is KL(q(x_T) || N(0, 1)), to 1e-12 nats."""
    for s in (0.5, 1.0, 2.0):
        path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(200))
        bound, _ = gaussian_bound(path, s, None)
        last_variance = float(path.alpha_bar(200)) * (s**2 - 1) + 1
        kl = (last_variance - 1 - math.log(last_variance)) / 2
        assert -entropy(s) - bound == pytest.approx(kl, abs=1e-11)


@pytest.mark.parametrize("T, published", [(10**4, 0.3163), (10**5, 0.2925), (10**6, 0.2891)])
def test_the_gap_of_the_small_variance_tends_to_half_of_eulers_constant(T, published):
    """A55: gamma / 2 = .2886 nats per dimension, however long the chain; beta costs nothing."""
    path, s = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(T)), 0.5
    k = torch.arange(1, T + 1)
    gaps = [-entropy(s) - gaussian_bound(path, s, path.variance(k, v))[0] for v in (0.0, 1.0)]
    assert gaps[0] == pytest.approx(published, abs=1e-3)
    assert gaps[1] == pytest.approx(0, abs=2e-4)
    assert gaps[0] > 0.2886


def test_the_learned_variance_is_the_optimal_one_and_the_mean_is_held():
    """Weights for each k alone, trained on the bound: v tends to the closed form."""
    s, T = 0.6, 8

    class Fraction(nn.Module):
        def __init__(self):
            super().__init__()
            self.v = nn.Parameter(torch.full((T,), 0.5).double())

        def forward(self, x, t, c=None):
            return self.v[(t * T).round().long() - 1].reshape(-1, 1).expand_as(x)

    model = gaussian_model(s, T=T, variance=Fraction()).train()
    model.denoiser.net.factor = nn.Parameter(torch.ones(()).double())
    optimizer = torch.optim.Adam(model.variance.parameters(), 0.05, betas=(0.9, 0.9))
    average = 0.0
    for i in range(160):
        optimizer.zero_grad()
        model.loss(s * torch.randn(1000, 1).double())["vlb"].backward()
        optimizer.step()
        average = average + model.variance.v.detach() / 80 * (i >= 80)
    assert model.denoiser.net.factor.grad is None
    _, best = gaussian_bound(model.path, s, None)
    got = model.path.variance(torch.arange(1, T + 1), average)
    # the last step has beta whatever v; the first 80 steps are thrown away
    torch.testing.assert_close(got[1:], best[1:], rtol=0.03, atol=0)


@pytest.mark.parametrize("name, v", [("small", 0.0), ("large", 1.0)])
def test_the_variance_reaches_ancestral_sampling(name, v):
    model = families.build("ddpm", Event((2,)), width=16, variance=name).eval()
    draws = []
    for options in ({}, {"variance": v}):
        torch.manual_seed(1)
        draws.append(model.sample(30, sampler="ddpm", steps=10, **options))
    torch.manual_seed(1)
    other = model.sample(30, sampler="ddpm", steps=10, variance=1 - v)
    assert torch.equal(*draws) and not torch.equal(draws[0], other)


def test_a_learned_variance_reaches_ancestral_sampling():
    """A constant network is a constant v, and the network is asked at the time of the state."""
    model = families.build("ddpm", Event((2,)), width=16, variance="learned").eval()
    seen = []

    class Constant(nn.Module):
        def forward(self, x, t, c=None):
            seen.append(float(t))
            return torch.full_like(x, 0.3)

    model.variance = Constant()
    draws = []
    for options in ({}, {"variance": 0.3}):
        torch.manual_seed(1)
        draws.append(model.sample(30, sampler="ddpm", steps=10, **options))
    torch.testing.assert_close(*draws)
    torch.testing.assert_close(torch.tensor(seen), model.path.grid(10)[:-1].float())


def test_the_ancestral_chain_draws_the_law_of_its_bound():
    """All T steps on N(0, s^2) with the optimal v: the last state has the variance of the data."""
    model, n, s = gaussian_model(0.6, T=50), 20_000, 0.6
    path = model.path
    _, best = gaussian_bound(path, s, None)
    k = torch.arange(1, 51)
    small, large = path.variance(k, 0.0), path.variance(k, 1.0)
    v = ((best / small).log() / (large / small).log()).nan_to_num(1.0)

    def fraction(x, t, c):
        return v[int((t * 50).round()) - 1].expand_as(x)

    x = torch.randn(n, 1).double()
    x = final_state(samplers.ddpm(model.denoiser, x, path.chain(), variance=fraction))
    # the step to data adds no noise: the law is that of the mean given x_1
    beta = float(path.beta(1))
    assert float(x.var()) == pytest.approx(s**2 - beta * s**2 / (s**2 + beta), rel=0.05)


def test_the_information_in_noisy_data_is_the_entropy_of_the_lesson():
    r"""I-MMSE: h = log(2 pi e) / 2 - (1/2) int [1/(1 + g) - mmse(g)] dg = 1.5709636 nats."""
    law = lesson_mixture()
    # over log g with the trapezoidal rule; mmse by quadrature over x_t / alpha = x + eps / sqrt(g)
    total, side = 0.0, torch.linspace(-14, 14, 4001, dtype=torch.float64)[:, None]
    logs = torch.linspace(-16, 14, 241, dtype=torch.float64)
    for g in logs.exp():
        alpha, sigma = torch.ones(()).double(), g.rsqrt()
        wide = side * max(1.0, float(sigma))
        blurred = law.diffuse(alpha, sigma)
        gain = wide + sigma**2 * blurred.score(wide)  # Tweedie
        second = law.covariance[0, 0] + law.mean[0] ** 2
        p = blurred.log_prob(wide).exp() * (wide[1] - wide[0])
        mmse = second - (p * gain[:, 0].square()).sum()
        total += float((1 / (1 + g) - mmse) * g) * float(logs[1] - logs[0])
    assert math.log(2 * math.pi * math.e) / 2 - total / 2 == pytest.approx(1.5709636, abs=1e-5)


def test_a_few_terms_estimate_the_bound_without_bias():
    model, n = gaussian_model(0.5, T=100, shape=(2,)), 1500
    x = 0.5 * torch.randn(n, 2).double()
    gap = model.log_prob(x, bound=True, terms=10) - model.bound(x)
    assert float(gap.mean()) == pytest.approx(0, abs=5 * float(gap.std()) / math.sqrt(n))


@pytest.mark.parametrize("T", [5, 20, 4000])
@pytest.mark.parametrize("weight", ["simple", "vlb"])
def test_every_length_trains_and_samples(T, weight):
    model = families.build("ddpm", Event((2,)), width=16, chain=T, weight=weight)
    assert model.loss(torch.randn(64, 2))["regression"].isfinite()
    assert model.eval().sample(5, steps=min(T, 20)).isfinite().all()


@pytest.mark.parametrize("option", ["schedule", "prediction", "weight", "variance"])
def test_unknown_choices_are_named(option):
    with pytest.raises(UsageError, match=f"{option} is 'other'; choose from"):
        families.build("ddpm", Event((2,)), **{option: "other"})
