"""Adversarial games against closed forms: Gaussians, affine critics, autograd."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pushforward.theory import adversarial as adv
from pushforward.theory.exact import discriminator, divergences
from pushforward.theory.exact.targets import Gaussian

GRID = torch.linspace(-30, 30, 60_001, dtype=torch.float64)  # step 1e-3; tails below 1e-150


def normal(mean, std=1.0):
    return Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))


def expect(p, f):
    """The integral of f(x) p(x) by the trapezoidal rule, exact to rounding for Gaussians."""
    return torch.trapezoid(p.log_prob(GRID).exp() * f, GRID)


def js(p, q):
    m = torch.logaddexp(p.log_prob(GRID), q.log_prob(GRID)) - math.log(2)
    return (expect(p, p.log_prob(GRID) - m) + expect(q, q.log_prob(GRID) - m)) / 2


@pytest.mark.parametrize("theta", [0.5, 2.0, 6.0])
def test_optimal_logit_of_two_gaussians_is_affine(theta):
    """log N(x; 0, 1) - log N(x; theta, 1) = -theta x + theta^2 / 2."""
    f = discriminator.optimal_logit(normal(0.0).log_prob(GRID), normal(theta).log_prob(GRID))
    torch.testing.assert_close(f, -theta * GRID + theta**2 / 2, rtol=0, atol=1e-9)


def test_value_at_the_optimal_discriminator_is_twice_js_minus_log_4():
    """V(D*) = 2 JS - log 4, on 400,000 draws: standard error 0.001, bar 5 of them."""
    p, q, n = normal(0.0), normal(2.0), 400_000
    x, y = p.sample((n,)), q.sample((n,))
    value = adv.game_value(
        discriminator.optimal_logit(p.log_prob(x), q.log_prob(x)),
        discriminator.optimal_logit(p.log_prob(y), q.log_prob(y)),
    )
    torch.testing.assert_close(adv.js_from_value(value), js(p, q), rtol=0, atol=0.003)


def test_no_discriminator_beats_the_optimal_one():
    """V(D*) - V(D) = KL to the optimal Bernoulli laws, hence positive for any other logit."""
    p, q = normal(0.0), normal(1.0)
    best = discriminator.optimal_logit(p.log_prob(GRID), q.log_prob(GRID))

    def value(f):
        log_d, log_1_minus_d = torch.nn.functional.logsigmoid(f), torch.nn.functional.logsigmoid(-f)
        return expect(p, log_d) + expect(q, log_1_minus_d)

    other = best + GRID.sin()
    m = (p.log_prob(GRID).exp() + q.log_prob(GRID).exp()) / 2
    bern = torch.distributions.Bernoulli
    loss = 2 * torch.trapezoid(
        m * kl_divergence(bern(logits=best.clamp(-30, 30)), bern(logits=other.clamp(-30, 30))), GRID
    )
    torch.testing.assert_close(value(best) - value(other), loss, rtol=0, atol=1e-9)
    assert loss > 0


def test_discriminator_loss_is_minus_the_value_and_log_4_at_equilibrium():
    real, fake = torch.randn(50), torch.randn(50)
    total = sum(adv.discriminator_loss(real, fake).values())
    torch.testing.assert_close(total, -adv.game_value(real, fake))
    assert sum(adv.discriminator_loss(real * 0, fake * 0).values()) == pytest.approx(math.log(4))


def test_losses_on_logits_keep_their_gradient_where_a_sigmoid_is_one_in_float32():
    """d softplus(f)/df = 1 at f = 40; the binary cross-entropy of a sigmoid has gradient 0."""
    fake = torch.full((1,), 40.0, requires_grad=True)
    adv.discriminator_loss(torch.zeros(1), fake)["fake"].backward()
    assert fake.grad.item() == pytest.approx(1)


@pytest.mark.parametrize("theta", [0.5, 1.0, 3.0, 10.0])
def test_generator_gradients_are_those_of_js_and_of_reverse_kl_minus_js(theta):
    """Goodfellow's theorem, and Arjovsky & Bottou's theorem 2.5, for q = N(theta, 1)."""
    mean = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    eps, weight = GRID[::10], normal(0.0).log_prob(GRID[::10]).exp() * 1e-2
    f = -theta * (eps + mean) + theta**2 / 2  # the optimal logit, held fixed, at samples
    # the losses are means over data: undo 1 / n, then weigh by the density of the noise
    gradient = {
        loss: torch.autograd.grad(loss(f), f, retain_graph=True)[0] * len(f) * weight
        for loss in (adv.saturating_loss, adv.non_saturating_loss)
    }
    slope = {loss: (g * -theta).sum() for loss, g in gradient.items()}  # d f / d mean = -theta
    h, p = 1e-4, normal(0.0)
    d_js = (js(p, normal(theta + h)) - js(p, normal(theta - h))) / (2 * h)
    torch.testing.assert_close(slope[adv.saturating_loss], 2 * d_js, rtol=1e-5, atol=1e-9)
    # KL(N(theta, 1) || N(0, 1)) = theta^2 / 2
    torch.testing.assert_close(
        slope[adv.non_saturating_loss], theta - 2 * d_js, rtol=1e-5, atol=1e-9
    )


def test_optimal_discriminator_is_the_share_of_the_data():
    """D4: sigmoid(log p - log q) = p / (p + q), also where both underflow as densities."""
    p, q = normal(0.0), normal(1.0)
    d = discriminator.optimal_logit(p.log_prob(GRID), q.log_prob(GRID)).sigmoid()
    inside = GRID.abs() < 20
    share = p.log_prob(GRID).exp() / (p.log_prob(GRID).exp() + q.log_prob(GRID).exp())
    torch.testing.assert_close(d[inside], share[inside], rtol=1e-9, atol=0)
    assert ((d >= 0) & (d <= 1)).all()


@pytest.mark.parametrize("theta", [0.0, 1.0, 4.0])
def test_the_optimal_discriminator_is_right_as_often_as_bayes(theta):
    """D4: its accuracy on N(0, 1) against N(theta, 1) is Phi(theta / 2)."""
    p, q = normal(0.0), normal(theta)
    f = discriminator.optimal_logit(p.log_prob(GRID), q.log_prob(GRID))
    right = (expect(p, (f > 0) + 0.5 * (f == 0)) + expect(q, (f < 0) + 0.5 * (f == 0))) / 2
    bayes = normal(0.0).cdf(torch.tensor(theta / 2, dtype=torch.float64))
    torch.testing.assert_close(right, bayes, rtol=0, atol=1e-3)  # the grid cuts at theta / 2


def test_the_value_runs_from_minus_log_4_to_zero():
    """D4: JS runs from 0 for equal laws to log 2 for separate ones, where V(D*) = 0."""
    for theta, expected in [(0.0, 0.0), (20.0, math.log(2))]:
        p, q = normal(0.0), normal(theta)
        f = discriminator.optimal_logit(p.log_prob(GRID), q.log_prob(GRID))
        value = expect(p, f.sigmoid().log().clamp_min(-700)) + expect(
            q, (-f).sigmoid().log().clamp_min(-700)
        )
        assert adv.js_from_value(value).item() == pytest.approx(expected, abs=1e-9)


def test_the_discriminators_loss_gives_the_divergence():
    """D4: JS = (log 4 - loss) / 2 at D*, 0.11142 nats between N(0, 1) and N(1, 1)."""
    p, q, n = normal(0.0), normal(1.0), 400_000
    x, y = p.sample((n,)), q.sample((n,))
    real, fake = (discriminator.optimal_logit(p.log_prob(v), q.log_prob(v)) for v in (x, y))
    loss = sum(adv.discriminator_loss(real, fake).values())
    # the two logs have deviation below 0.5: standard error 0.0006, bar 5 of them
    assert (math.log(4) - loss.item()) / 2 == pytest.approx(js(p, q).item(), abs=0.003)
    assert js(p, q).item() == pytest.approx(0.1114, abs=5e-5)


@pytest.mark.parametrize(
    ("theta", "vanishing"), [(2.0, 4.5e-1), (6.0, 1.2e-2), (10.0, 4.5e-6)], ids=str
)
def test_gradient_table_of_the_two_generator_losses(theta, vanishing):
    """D4: far away the saturating gradient dies and the non-saturating one tends to theta."""
    f = -theta * (GRID + theta) + theta**2 / 2  # at the samples GRID + theta of N(theta, 1)
    slope = normal(0.0).log_prob(GRID).exp() * -theta * 1e-3  # d f / d mean = -theta
    saturating = (slope * -f.sigmoid()).sum().item()
    other = (slope * -(-f).sigmoid()).sum().item()
    for loss, expected in ((adv.saturating_loss, saturating), (adv.non_saturating_loss, other)):
        g = torch.autograd.grad(loss(v := f.clone().requires_grad_()), v)[0] * len(f)
        assert (g * slope).sum().item() == pytest.approx(expected, rel=1e-9)
    assert abs(saturating) == pytest.approx(vanishing, rel=0.05)  # two digits are known
    assert other == pytest.approx(theta - abs(saturating), rel=1e-6)


@pytest.mark.parametrize(("mass", "cost"), [(0.0, 0), (0.3, 0.117), (0.5, 0.216), (7 / 8, 0.497)])
def test_a_lost_mode_costs_its_share_of_js(mass, cost):
    """D4: against the definition on two atoms; at most log 2, when nothing is kept."""
    p, q = torch.tensor([[mass, 1 - mass], [0.0, 1.0]], dtype=torch.float64)
    m = (p + q) / 2
    defined = (torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m)).nansum() / 2
    assert discriminator.mode_drop_cost(mass) == pytest.approx(defined.item(), abs=1e-12)
    assert discriminator.mode_drop_cost(mass) == pytest.approx(cost, abs=6e-4)
    assert discriminator.mode_drop_cost(1.0) == pytest.approx(math.log(2))


def test_the_value_of_known_laws_is_what_samples_show():
    """By quadrature against 400,000 draws of each, for a logit that is not the best one."""
    p, q, n = normal(0.0), normal(1.0, 1.5), 400_000
    exact = discriminator.expected_game_value(p.log_prob(GRID), q.log_prob(GRID), GRID.sin(), 1e-3)
    x, y = p.sample((n,)), q.sample((n,))
    parts = torch.nn.functional.logsigmoid(torch.stack([x.sin(), -y.sin()]))
    bar = 5 * (parts.var(1) / n).sum().sqrt().item()
    assert adv.game_value(x.sin(), y.sin()).item() == pytest.approx(exact.item(), abs=bar)


@pytest.mark.parametrize("shift", [0.0, 0.5, -3.0])
def test_regret_is_the_value_that_a_discriminator_lacks(shift):
    log_p, log_q = normal(0.0).log_prob(GRID), normal(1.0).log_prob(GRID)
    best = discriminator.optimal_logit(log_p, log_q)
    values = [
        discriminator.expected_game_value(log_p, log_q, f, 1e-3) for f in (best, best + shift)
    ]
    found = discriminator.discriminator_regret(log_p, log_q, best + shift, 1e-3)
    torch.testing.assert_close(found, values[0] - values[1], rtol=0, atol=1e-12)
    assert found >= 0 and bool(found > 1e-3) == (shift != 0)


@pytest.mark.parametrize("theta", [0.5, 2.0, 6.0])
def test_slopes_of_a_shift_are_those_of_divergences_in_the_plane(theta):
    """Both gradients, against central differences of JS and of KL, by quadrature in 2-D."""
    S = torch.tensor([[1.0, 0.3], [0.3, 0.8]], dtype=torch.float64)
    u = torch.tensor([theta, -theta / 2], dtype=torch.float64)
    x, weight = divergences.trapezoidal_grid([-12, -12], [16, 12], 301)
    p = Gaussian(0 * u, S)

    def q(m):
        return Gaussian(m, S / 2)

    def difference(f, i, h=1e-4):
        e = h * torch.eye(2, dtype=torch.float64)[i]
        return (f(u + e) - f(u - e)) / (2 * h)

    def js(m):
        return divergences.jensen_shannon(p.log_prob(x), q(m).log_prob(x), weight)

    def lower(m):
        return divergences.gaussian_kl(q(m), p) - 2 * js(m)

    pull = p.score(x) - q(u).score(x)
    found = discriminator.generator_slopes(p.log_prob(x), q(u).log_prob(x), pull, weight)
    for i in range(2):
        torch.testing.assert_close(found.saturating[i], 2 * difference(js, i), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(
            found.non_saturating[i], difference(lower, i), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4), (2, 3, 3)])
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_penalty_of_an_affine_critic_is_its_slope_minus_one_squared(shape, one_sided, scale):
    w = torch.randn(shape, dtype=torch.float64)
    w = (scale * w / w.norm()).requires_grad_()
    x = torch.randn(7, *shape, dtype=torch.float64)
    value = adv.wgan_gp_penalty(lambda x: (w * x).flatten(1).sum(1), x, one_sided=one_sided)
    excess = max(scale - 1, 0) if one_sided else scale - 1
    assert value.item() == pytest.approx(excess**2, abs=1e-12)
    value.backward()
    torch.testing.assert_close(w.grad, 2 * excess * w.detach() / scale)  # through the double graph


def test_penalties_of_a_quadratic_critic_are_moments_of_chi():
    """f = |x|^2 / 2 has gradient x: R1 = E|x|^2 / 2, and the penalty is E(|x| - 1)^2."""
    x = torch.randn(200, 3, 2, dtype=torch.float64)

    def f(x):
        return x.flatten(1).square().sum(1) / 2

    norm = x.flatten(1).norm(dim=1)
    torch.testing.assert_close(adv.wgan_gp_penalty(f, x), (norm - 1).square().mean())
    torch.testing.assert_close(adv.zero_centred_penalty(f, x), norm.square().mean() / 2)


@pytest.mark.parametrize("shape", [(2,), (3, 2, 2)])
def test_penalty_of_a_quadratic_critic_between_two_normal_samples(shape):
    r"""D5: :math:`\int_0^1 d\,s^2 - 2 s\,\mathbb E\chi_d + 1`, with s^2 = eps^2 + (1 - eps)^2.

    One number for a whole datum: one for each entry would give another integral. 400,000 points.
    """
    d, n = math.prod(shape), 400_000
    s = torch.linspace(0, 1, 2001, dtype=torch.float64)
    s = (s.square() + (1 - s).square()).sqrt()
    chi = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    expected = torch.trapezoid(d * s.square() - 2 * s * chi + 1, dx=1 / 2000).item()
    x = adv.sample_interpolates(*(torch.randn(n, *shape, dtype=torch.float64) for _ in range(2)))
    value = adv.wgan_gp_penalty(lambda x: x.flatten(1).square().sum(1) / 2, x).item()
    spread = (x.flatten(1).norm(dim=1) - 1).square().std().item()
    assert value == pytest.approx(expected, abs=5 * spread / math.sqrt(n))


@pytest.mark.parametrize("one_sided", [False, True])
def test_penalty_is_finite_at_a_zero_gradient(one_sided):
    w = torch.zeros(4, requires_grad=True)
    value = adv.wgan_gp_penalty(lambda x: x @ w, torch.randn(6, 4), one_sided=one_sided)
    value.backward()
    assert value == (0 if one_sided else 1)
    torch.testing.assert_close(w.grad, torch.zeros(4))


def test_penalty_works_where_gradients_are_off_and_leaves_its_input_alone():
    x = torch.randn(4, 2)
    with torch.no_grad():
        value = adv.wgan_gp_penalty(lambda x: x.sum(1), x)
    assert value.item() == pytest.approx((math.sqrt(2) - 1) ** 2)
    assert not x.requires_grad


@pytest.mark.parametrize("shape", [(8, 1), (8, 8), (8, 3, 8), (8, 1, 8, 8)])
def test_points_between_use_one_number_per_datum_even_where_batch_equals_height(shape):
    """(x_hat - fake) / (real - fake) is constant within a datum and differs between data."""
    real, fake = torch.randn(shape), torch.randn(shape)
    eps = ((adv.sample_interpolates(real, fake) - fake) / (real - fake)).flatten(1)
    torch.testing.assert_close(
        eps, eps.median(1, keepdim=True).values.expand_as(eps), rtol=0, atol=1e-2
    )
    assert len(eps.median(1).values.unique()) == 8
    assert ((eps.median(1).values >= 0) & (eps.median(1).values <= 1)).all()


def test_points_between_are_uniform_on_the_segment():
    """Mean 1/2 and variance 1/12 of 100,000 draws; bars of 5 standard errors."""
    n = 100_000
    x = adv.sample_interpolates(torch.ones(n, 1), torch.zeros(n, 1))
    assert x.mean().item() == pytest.approx(1 / 2, abs=5 * math.sqrt(1 / 12 / n))
    assert x.var().item() == pytest.approx(1 / 12, abs=5 * math.sqrt(1 / 180 / n))


def test_penalised_affine_critic_of_two_points_has_slope_one_plus_d_over_two_lambda():
    """max_w w d - lambda (w - 1)^2 at w = 1 + d / (2 lambda): the gap exceeds W1 = d."""
    d, lam = 2.0, 5.0
    real, fake = torch.full((4, 1), d, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    w = torch.tensor(1 + d / (2 * lam), dtype=torch.float64, requires_grad=True)

    def f(x):
        return w * x[:, 0]

    loss = -adv.critic_gap(f(real), f(fake)) + lam * adv.wgan_gp_penalty(
        f, adv.sample_interpolates(real, fake)
    )
    loss.backward()
    assert w.grad.item() == pytest.approx(0, abs=1e-12)
    assert adv.critic_gap(f(real), f(fake)).item() == pytest.approx(d + d**2 / (2 * lam))
