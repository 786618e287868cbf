"""WGAN-GP's Algorithm 1: rounds, signs, and the optimum of the penalised critic in closed form."""

import math

import pytest
import torch
from torch import nn

from pushforward.families.gan import Adversarial
from pushforward.families.wgan_gp import build, potential, wasserstein
from pushforward.model import Event, Likelihood, Recipe
from pushforward.theory.adversarial import gradient_penalty
from pushforward.training import Trainer, batches

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
        loss = wasserstein(lambda x: critic(x)[:, 0], real, fake, penalty, one_sided)
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


@pytest.mark.parametrize(("shape", "one_sided"), [((1,), True), ((1, 1), True), ((2,), False)])
def test_the_penalty_is_one_sided_in_one_dimension_only(shape, one_sided):
    """A constant critic pays the penalty if and only if slopes below one cost."""
    model = build(Event(shape), penalty=3.0, **SMALL)
    for p in model.critic.parameters():
        nn.init.zeros_(p)
    value = model.judge(torch.randn(8, *shape))["penalty"].item()
    assert value == pytest.approx(0.0 if one_sided else 3.0)


def test_a_round_is_five_steps_of_the_critic_and_one_of_the_generator():
    assert [player for player, _ in build(Event((2,)), **SMALL).objectives()] == [
        *["critic"] * 5,
        "generator",
    ]


def test_the_generator_climbs_the_critic():
    """With critic w x and samples theta, d loss / d theta = -w."""
    theta = torch.tensor([0.5], requires_grad=True)
    potential(2.0 * theta).backward()
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
    torch.testing.assert_close(gradient_penalty(lambda v: model.score(v), x), expected)


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
    for _ in trainer.run(batches(x, model.recipe.batch)):
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
    assert type(model) is Adversarial and isinstance(model.recipe, Recipe)
