"""WGAN-GP's Algorithm 1: rounds, signs, and the optimum of the penalised critic in closed form."""

import math

import pytest
import torch
from torch import nn

from pushforward.families.gan import GAN
from pushforward.families.wgan_gp import build, wasserstein_generator_loss, wgan_gp_critic_loss
from pushforward.model import Event, Likelihood, Recipe
from pushforward.networks.mlp import mlp
from pushforward.theory.adversarial import input_gradient, wgan_gp_penalty
from pushforward.theory.exact.discriminator import penalised_optimum
from pushforward.training.trainer import Trainer, random_batches

SMALL = {"width": 16, "depth": 2}


class Affine(nn.Module):
    """The critic w x, with w of either sign."""

    def __init__(self, slope):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[slope]], dtype=torch.float64))

    def forward(self, x, c=None):
        return x @ self.w


def settle(slope, penalty, one_sided, d=2.0):
    """The slope that gradient descent on the critic's loss reaches; samples at 0, data at d."""
    critic = Affine(slope)
    real, fake = torch.full((4, 1), d).double(), torch.zeros(4, 1).double()
    descent = torch.optim.SGD(critic.parameters(), lr=0.2 / penalty)
    for _ in range(100):
        loss = wgan_gp_critic_loss(lambda x: critic(x)[:, 0], real, fake, penalty, one_sided)
        descent.zero_grad()
        sum(loss.values()).backward()
        descent.step()
    return critic.w.item(), {k: v.item() for k, v in loss.items()}


@pytest.mark.parametrize("penalty", [2.0, 10.0])
@pytest.mark.parametrize("one_sided", [False, True])
def test_critic_of_two_points_settles_at_slope_one_plus_d_over_two_lambda(penalty, one_sided):
    """max_w w d - lambda (w - 1)^2: the gap is d + d^2 / (2 lambda), more than W1 = d."""
    slope, loss = settle(0.5, penalty, one_sided)
    assert slope == pytest.approx(1 + 2 / (2 * penalty), abs=1e-6)
    assert -loss["minus_critic_gap"] == pytest.approx(2 + 4 / (2 * penalty), abs=1e-5)


def test_only_the_two_sided_penalty_has_an_optimum_of_the_wrong_sign():
    """From slope -1 the two-sided critic stays at -1 + d / (2 lambda), a negative gap."""
    assert settle(-1.0, 10.0, one_sided=False)[0] == pytest.approx(-1 + 0.1, abs=1e-6)
    assert settle(-1.0, 10.0, one_sided=True)[0] == pytest.approx(1 + 0.1, abs=1e-4)


def test_a_trained_critic_of_two_points_in_the_plane_reaches_the_closed_form():
    """A perceptron on data at (0, 0) and samples at (2, 0): slope 1 + d/2 lambda = 1.25 (D5)."""
    best = penalised_optimum(2.0, 4.0)
    critic = mlp(2, 32, 32, 1)
    real, fake = torch.zeros(64, 2), torch.tensor([2.0, 0.0]).repeat(64, 1)
    descent = torch.optim.Adam(critic.parameters(), 5e-3, (0.0, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(descent, 1, 0.02, 500)
    for _ in range(500):
        loss = wgan_gp_critic_loss(lambda x: critic(x)[:, 0], real, fake, 4.0, False)
        descent.zero_grad()
        sum(loss.values()).backward()
        descent.step()
        schedule.step()
    assert -loss["minus_critic_gap"].item() == pytest.approx(best.gap, rel=0.02)
    assert -sum(loss.values()).item() == pytest.approx(best.value, rel=0.02)
    along = torch.linspace(0.1, 1.9, 10)[:, None] * torch.tensor([1.0, 0.0])
    slope = input_gradient(lambda x: critic(x)[:, 0], along).detach()
    torch.testing.assert_close(
        slope, torch.tensor([-best.slope, 0.0]).expand(10, 2), rtol=0, atol=0.1
    )


@pytest.mark.parametrize(("shape", "one_sided"), [((1,), True), ((1, 1), True), ((2,), False)])
def test_the_penalty_is_one_sided_in_one_dimension_only(shape, one_sided):
    """A constant critic pays the penalty if and only if slopes below one cost."""
    model = build(Event(shape), penalty=3.0, **SMALL)
    for p in model.critic.parameters():
        nn.init.zeros_(p)
    value = model.critic_objective(torch.randn(8, *shape))["penalty"].item()
    assert value == pytest.approx(0.0 if one_sided else 3.0)


def test_a_round_is_five_steps_of_the_critic_and_one_of_the_generator():
    assert [player for player, _ in build(Event((2,)), **SMALL).objectives()] == [
        *["critic"] * 5,
        "generator",
    ]


def test_the_generator_climbs_the_critic():
    """With critic w x and samples theta, d loss / d theta = -w."""
    theta = torch.tensor([0.5], requires_grad=True)
    wasserstein_generator_loss(2.0 * theta).backward()
    assert theta.grad.item() == -2.0


@pytest.mark.parametrize("shape", [(2,), (5, 5), (1, 4, 4)])
def test_the_penalty_of_a_batch_is_the_mean_over_its_data(shape):
    """Equal event height and batch size (5) included; the critic sees each datum alone."""
    model = build(Event(shape), penalty=1.0, one_sided=False, **SMALL).double()
    x = torch.randn(5, *shape, dtype=torch.float64)

    def one(x):
        slope = torch.autograd.functional.jacobian(lambda v: model.score(v)[0], x)
        return (slope.norm() - 1) ** 2

    expected = torch.stack([one(x[[i]]) for i in range(5)]).mean()
    torch.testing.assert_close(wgan_gp_penalty(lambda v: model.score(v), x), expected)


def test_it_has_no_likelihood():
    model = build(Event((2,)), **SMALL)
    assert model.likelihood is Likelihood.NONE and model.validation(torch.zeros(1, 2)) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_covers_every_mode_of_the_unit_ring(seed):
    """Eight modes of std 0.01 on the unit circle; 2,500 samples; a mode needs one within 3 std."""
    torch.manual_seed(seed)
    angle = torch.randint(8, (16_384,)) * math.pi / 4
    scale = 1 / math.sqrt(2)  # of the raw data
    x = (torch.stack([angle.cos(), angle.sin()], 1) + 0.01 * torch.randn(16_384, 2)) / scale
    model = build(Event((2,)))
    trainer = Trainer(model, model.recipe, model.recipe.steps)
    for _ in trainer.run(random_batches(x, model.recipe.batch)):
        pass
    with torch.no_grad():
        drawn = trainer.average.sample(2500) * scale
    turn = torch.arange(8) * math.pi / 4
    centres = torch.stack([turn.cos(), turn.sin()], 1)
    near, mode = torch.cdist(drawn, centres).min(1)
    assert len(mode[near < 0.03].unique()) == 8


def test_adversarial_models_share_one_class():
    """WGAN-GP is a choice of losses: the game itself is the GAN's."""
    model = build(Event((2,)), **SMALL)
    assert type(model) is GAN and isinstance(model.recipe, Recipe)


def test_the_diagnosis_is_the_gap_on_held_out_data():
    model, x = build(Event((2,)), **SMALL).eval(), torch.randn(500, 2)
    torch.manual_seed(1)
    gap = model.score(x).mean() - model.score(model.sample(500)).mean()
    torch.manual_seed(1)
    assert model.diagnosis(x)["critic_gap"] == pytest.approx(gap.item(), abs=1e-6)
