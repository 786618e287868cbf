"""The lesson's names: used as the lesson uses them, and right where its code was not."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import mse_loss

from pushforward.errors import UsageError
from pushforward.lesson.snippets import (
    VAE,
    Discriminator,
    FlowMatchingModel,
    Generator,
    flow_matching_loss,
    generate_data,
    get_diffusion_parameters,
    gradient_penalty,
    linear_beta_schedule,
    q_sample,
    train_gan_step,
    vae_loss,
)
from pushforward.theory import ode, paths
from pushforward.theory.exact.dynamics import gaussian_floor, gaussian_velocity
from pushforward.theory.exact.targets import lesson_mixture


def test_the_six_blocks_run_in_order(tmp_path):
    """The same calls in the same order, on the processor and without a screen (A01, A02)."""
    drawing = Figure()
    drawing.add_subplot().hist(generate_data(n_samples=5000), bins=50, density=True)
    drawing.savefig(tmp_path / "data.png")

    vae, x = VAE(input_dim=2, latent_dim=2), torch.randn(10, 2)
    x_recon, mu, logvar = vae(x)
    total, recon, kl = vae_loss(x, x_recon, mu, logvar)
    assert total.item() == pytest.approx(recon.item() + kl.item(), rel=1e-5)

    G, D = Generator(latent_dim=10, output_dim=1), Discriminator(input_dim=1)
    makers = (torch.optim.Adam(net.parameters(), lr=2e-4) for net in (G, D))
    real = torch.FloatTensor(generate_data(100)).unsqueeze(1)
    losses = train_gan_step(real, G, D, *makers, 10)
    assert all(isinstance(loss, float) and math.isfinite(loss) for loss in losses)

    real, fake = torch.randn(32, 1, requires_grad=False), torch.randn(32, 1, requires_grad=False)
    assert gradient_penalty(Discriminator(input_dim=1), real, fake).item() >= 0

    params = get_diffusion_parameters(timesteps=1000)
    x_0, drawing = torch.FloatTensor([[1.0], [2.0], [3.0]]), Figure()
    for axes, t in zip(drawing.subplots(1, 5), [0, 250, 500, 750, 999]):
        axes.hist(q_sample(x_0, t, params).numpy(), bins=20)
    drawing.savefig(tmp_path / "forward.png")

    x0, x1 = torch.randn(32, 2), torch.randn(32, 2) + torch.tensor([2.0, 0.0])
    assert math.isfinite(flow_matching_loss(FlowMatchingModel(dim=2), x0, x1).item())


# block 0: data


def test_data_have_the_mixtures_moments_within_five_standard_errors():
    target, x = lesson_mixture(), torch.as_tensor(generate_data(200_000, seed=1)).double()
    assert abs(x.mean() - 0.8) < 5 * x.std() / len(x) ** 0.5
    spread = (x - 0.8).square()
    assert abs(spread.mean() - float(target.covariance)) < 5 * spread.std() / len(x) ** 0.5
    assert abs((x < 0).double().mean() - 0.3) < 5 * 0.46 / len(x) ** 0.5 + 2e-3  # tails past 0


def test_data_go_into_a_network_as_they_are():
    assert generate_data(5).dtype == np.float32
    Discriminator()(torch.from_numpy(generate_data(5))[:, None])


def test_one_seed_settles_the_data_whether_given_or_set_for_torch():
    torch.manual_seed(3)
    before, first = torch.get_rng_state(), generate_data(20, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert (first == generate_data(20)).all()


# block 1: the VAE


def test_the_loss_takes_real_data_and_is_the_negative_log_density_per_row():
    x, recon, mu, logvar = torch.randn(7, 3), *torch.randn(3, 7, 3)
    total, distortion, kl = vae_loss(x, recon, mu, logvar, scale=0.4)
    target = torch.distributions.MultivariateNormal(recon, 0.16 * torch.eye(3))
    torch.testing.assert_close(distortion, -target.log_prob(x).mean())
    q = torch.distributions.Normal(mu, torch.exp(logvar / 2))
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(q, prior).sum(1).mean())
    torch.testing.assert_close(total, distortion + kl)


def test_the_loss_does_not_grow_with_the_batch():
    rows = [torch.randn(8, 2) for _ in range(4)]
    once, twice = vae_loss(*rows)[0], vae_loss(*(torch.cat([r, r]) for r in rows))[0]
    torch.testing.assert_close(once, twice)


def test_reconstructions_of_another_shape_are_refused():
    with pytest.raises(UsageError, match="must be equal"):
        vae_loss(torch.randn(8, 2), torch.randn(1, 2), torch.randn(8, 2), torch.randn(8, 2))


def test_reparametrisation_is_the_mean_plus_scaled_noise_and_evaluation_draws_nothing():
    vae, (mu, logvar) = VAE(2, 2), torch.randn(2, 5, 2)
    torch.manual_seed(1)
    eps = torch.randn(5, 2)
    torch.manual_seed(1)
    torch.testing.assert_close(vae.reparameterize(mu, logvar), mu + torch.exp(0.5 * logvar) * eps)
    vae.eval()
    assert torch.equal(vae(mu)[0], vae(mu)[0])


def test_log_variances_stay_where_their_exponential_is_finite():
    vae = VAE(2, 2)
    _, logvar = vae.encode(1e6 * torch.randn(50, 2))
    assert torch.isfinite(logvar.exp()).all() and torch.isfinite(logvar).all()


def test_the_learned_scale_can_learn_and_samples_have_it():
    vae = VAE(2, 1)
    x_recon, mu, logvar = vae(torch.randn(20, 2))
    vae_loss(torch.randn(20, 2), x_recon, mu, logvar, scale=vae.scale)[0].backward()
    assert vae.model.law.shared.grad.abs() > 0
    assert vae.sample(5).shape == (5, 2)
    assert vae.model.log_prob(torch.randn(4, 2)).shape == (4,)


# block 2: the GAN


def test_a_step_is_the_game_at_the_optimum_where_samples_are_like_data():
    """Logits of 0: log 4 for D, log 2 for G, whatever the data."""
    G, D = Generator(4, 2), Discriminator(2)
    for p in D.parameters():
        nn.init.zeros_(p)
    still = [torch.optim.SGD(net.parameters(), lr=0.0) for net in (G, D)]
    loss_d, loss_g = train_gan_step(torch.randn(64, 2), G, D, *still, 4)
    assert loss_d == pytest.approx(math.log(4), rel=1e-6)
    assert loss_g == pytest.approx(math.log(2), rel=1e-6)


def test_confident_logits_keep_their_gradient():
    """A sigmoid in float32 is 1 from a logit of 17 on; a false logit of 40 must still be moved."""
    G, D = Generator(4, 1), Discriminator(1)
    with torch.no_grad():
        for p in D.parameters():
            p.zero_()
        list(D.parameters())[-1].fill_(40.0)
    makers = [torch.optim.SGD(net.parameters(), lr=0.0) for net in (G, D)]
    train_gan_step(torch.randn(64, 1), G, D, *makers, 4)
    assert float(list(D.parameters())[-1].grad) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("frozen", [0, 1], ids=["generator", "discriminator"])
def test_a_step_of_one_player_moves_no_other_and_leaves_no_gradient_there(frozen):
    nets = Generator(4, 1), Discriminator(1)
    makers = [
        torch.optim.SGD(net.parameters(), lr=0.0 if i == frozen else 0.1)
        for i, net in enumerate(nets)
    ]
    before = [[p.clone() for p in net.parameters()] for net in nets]
    train_gan_step(torch.randn(16, 1), *nets, *makers, 4)
    for i, net in enumerate(nets):
        same = all(torch.equal(a, b) for a, b in zip(before[i], net.parameters()))
        assert same == (i == frozen)


def test_the_generators_step_leaves_no_gradient_in_the_discriminator():
    G, D, x = Generator(4, 1), Discriminator(1), torch.randn(16, 1)
    makers = [torch.optim.SGD(net.parameters(), lr=0.0) for net in (G, D)]
    torch.manual_seed(5)
    train_gan_step(x, G, D, *makers, 4)
    got = [p.grad.clone() for p in D.parameters()]
    torch.manual_seed(5)
    fake = G(torch.randn(16, 4))
    loss = nn.functional.softplus(-D(x)).mean() + nn.functional.softplus(D(fake)).mean()
    for a, b in zip(got, torch.autograd.grad(loss, list(D.parameters()))):
        torch.testing.assert_close(a, b)


def test_numbers_that_are_not_rows_are_refused_by_name():
    G, D = Generator(4, 1), Discriminator(1)
    makers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (G, D)]
    with pytest.raises(UsageError, match="rows are"):
        train_gan_step(torch.randn(16), G, D, *makers, 4)


# block 3: the penalty


class Linear(nn.Module):
    """An affine critic of any event, whose slope is known."""

    def __init__(self, shape):
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return (x * self.w).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4, 4), (8, 2)])
def test_the_penalty_of_an_affine_critic_is_known_for_vectors_and_images(shape):
    critic = Linear(shape)
    gp = gradient_penalty(critic, torch.randn(8, *shape), torch.randn(8, *shape))
    torch.testing.assert_close(gp, (critic.w.norm() - 1).square())
    slope = torch.autograd.grad(gp, critic.w)[0]
    torch.testing.assert_close(slope, 2 * (1 - 1 / critic.w.norm()) * critic.w)


def test_every_row_is_interpolated_by_a_number_of_its_own():
    """From zeros to ones, entries of a row are equal and no two data are (B = H = 8)."""
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return x.flatten(1).sum(1)

    gradient_penalty(Watching(), torch.ones(8, 3, 8, 8), torch.zeros(8, 3, 8, 8))
    rows = seen[0].flatten(1)
    assert (rows.std(1) < 1e-6).all() and len(rows[:, 0].unique()) == 8


def test_the_penalty_needs_no_graph_and_does_not_reach_the_generator():
    fake = torch.randn(8, 2, requires_grad=True)
    gp = gradient_penalty(Discriminator(2), torch.randn(8, 2), fake)
    gp.backward()
    assert fake.grad is None
    with torch.no_grad():
        assert gradient_penalty(Discriminator(2), torch.randn(8, 2), fake) >= 0


def test_a_critic_without_slope_has_a_finite_penalty_and_gradient():
    critic = Linear((3,))
    nn.init.zeros_(critic.w)
    gp = gradient_penalty(critic, torch.randn(4, 3), torch.randn(4, 3))
    gp.backward()
    assert float(gp.detach()) == 1 and torch.isfinite(critic.w.grad).all()
    assert gradient_penalty(critic, *torch.randn(2, 4, 3), one_sided=True).item() == 0


def test_unequal_batches_and_batch_normalisation_are_refused():
    with pytest.raises(UsageError, match="must be equal"):
        gradient_penalty(Discriminator(2), torch.randn(8, 2), torch.randn(1, 2))
    normalising = nn.Sequential(nn.BatchNorm1d(2), Discriminator(2))
    with pytest.raises(UsageError, match="batch normalisation"):
        gradient_penalty(normalising, torch.randn(8, 2), torch.randn(8, 2))


# block 4: the chain


@pytest.mark.parametrize("T", [20, 100, 1000])
def test_every_chain_ends_in_noise(T):
    assert float(get_diffusion_parameters(T)["alphas_cumprod"][-1]) < 1e-4


def test_a_thousand_steps_are_those_of_the_paper():
    betas = linear_beta_schedule(1000)
    torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    params = get_diffusion_parameters()
    torch.testing.assert_close(params["alphas_cumprod"], (1 - betas).cumprod(0))
    torch.testing.assert_close(params["sqrt_alphas_cumprod"] ** 2, params["alphas_cumprod"])
    total = params["sqrt_alphas_cumprod"] ** 2 + params["sqrt_one_minus_alphas_cumprod"] ** 2
    torch.testing.assert_close(total, torch.ones_like(total))
    assert params["alphas_cumprod_prev"][0] == 1


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 4, 4)])
def test_a_step_for_each_row_is_the_chain_run_step_by_step(shape):
    """In variance and signal: t = 0, 1, 2 and T, with beta_1 at t = 1."""
    params, t = get_diffusion_parameters(100), torch.tensor([0, 1, 2, 100])
    ones, zeros = torch.ones(4, *shape), torch.zeros(4, *shape)
    signal = q_sample(ones, t, params, noise=zeros).flatten(1)[:, 0]
    spread = q_sample(zeros, t, params, noise=ones).flatten(1)[:, 0]
    scale, variance, expected = 1.0, 0.0, {0: (1.0, 0.0)}
    for k, beta in enumerate(params["betas"].tolist(), start=1):
        scale, variance = scale * math.sqrt(1 - beta), (1 - beta) * variance + beta
        expected[k] = scale, math.sqrt(variance)
    for i, k in enumerate(t.tolist()):
        assert (float(signal[i]), float(spread[i])) == pytest.approx(expected[k], rel=1e-6)
    assert float(spread[1]) ** 2 == pytest.approx(float(params["betas"][0]), rel=1e-6)


def test_a_step_keeps_the_type_of_the_data():
    params, t = get_diffusion_parameters(100), torch.randint(1, 101, (6,))
    for dtype in (torch.float32, torch.float64):
        assert q_sample(torch.randn(6, 2, dtype=dtype), t, params).dtype is dtype


@pytest.mark.parametrize("t", [-1, 101, torch.tensor([1, 200, 3]), torch.tensor([0.5, 1.0, 2.0])])
def test_steps_that_are_none_of_the_chain_are_refused(t):
    with pytest.raises(UsageError, match="from 0"):
        q_sample(torch.randn(3, 1), t, get_diffusion_parameters(100))


# block 5: flow matching


def test_the_loss_of_the_exact_field_is_the_floor_summed_over_entries():
    """N(0, I) to N((2, 0), I): pi / 2 an entry; the zero field has 4 + 4 (A65, A68)."""
    mean, n, path = torch.tensor([2.0, 0.0]), 100_000, paths.LinearPath()
    x0, x1 = torch.randn(2, n, 2)
    exact = lambda x, t: -gaussian_velocity(path, mean, 1.0, x, 1 - t)  # noqa: E731
    floor = 2 * gaussian_floor(1.0)
    losses = torch.stack([flow_matching_loss(exact, a, b + mean) for a, b in
                          zip(x0.split(1000), x1.split(1000))])  # fmt: skip
    assert abs(float(losses.mean()) - floor) < 5 * float(losses.std()) / 10
    zero = flow_matching_loss(lambda x, t: torch.zeros_like(x), x0, x1 + mean)
    assert float(zero) == pytest.approx(8, abs=5 * 8 / n**0.5 * 1.5)


def test_the_loss_is_the_mean_one_times_the_entries():
    x0, x1 = torch.randn(2, 16, 5)
    got = flow_matching_loss(lambda x, t: torch.zeros_like(x), x0, x1)
    torch.testing.assert_close(got, 5 * mse_loss(torch.zeros_like(x0), x1 - x0))


def test_images_and_every_form_of_time_are_taken():
    model, x = FlowMatchingModel(dim=48), torch.randn(6, 3, 4, 4)
    assert flow_matching_loss(model, torch.randn_like(x), x).shape == ()
    t = torch.tensor(0.3)
    for form in (t.expand(6), t.expand(6, 1)):
        torch.testing.assert_close(model(x, form), model(x, t))


def test_a_batch_that_would_broadcast_is_refused():
    with pytest.raises(UsageError, match="must be equal"):
        flow_matching_loss(FlowMatchingModel(2), torch.randn(32, 2), torch.randn(1, 2))


def test_the_field_is_smooth_enough_for_a_method_of_order_four():
    """Halving the step of Runge-Kutta divides the error by 16; a field with kinks gives 4."""
    model, x0 = FlowMatchingModel(2).double(), torch.randn(50, 2, dtype=torch.float64)
    ends = []
    for n in (24, 48, 192):
        with torch.no_grad():
            ends.append(ode.final_state(ode.rk4(model, x0, torch.linspace(0, 1, n + 1).double())))
    coarse, fine = ((end - ends[2]).norm() for end in ends[:2])
    assert math.log2(float(coarse / fine)) == pytest.approx(4, abs=0.5)


def test_the_time_runs_from_noise_to_data():
    """A few hundred steps on N((2, 0), 0.25 I); Euler from 0 to 1 arrives there."""
    model, mean = FlowMatchingModel(2), torch.tensor([2.0, 0.0])
    maker = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = flow_matching_loss(model, torch.randn(256, 2), mean + 0.5 * torch.randn(256, 2))
        maker.zero_grad()
        loss.backward()
        maker.step()
    with torch.no_grad():
        x = ode.final_state(ode.euler(model, torch.randn(4000, 2), torch.linspace(0, 1, 21)))
    assert (x.mean(0) - mean).abs().max() < 0.15
    assert x.std(0) == pytest.approx([0.5, 0.5], abs=0.1)
