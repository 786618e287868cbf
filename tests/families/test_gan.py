"""The GAN's game: who moves, what is minimised, and what the losses are at known points."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from pushforward.errors import NoLikelihood, UsageError
from pushforward.families.gan import Adversarial, build, penalised
from pushforward.model import Event, Recipe
from pushforward.theory.adversarial import saturating

SMALL = {"width": 16, "depth": 2}


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def play_one_round(model, x, c=None, lr=1e-2):
    """What the trainer does: one optimizer step of the player that each objective names."""
    moved = []
    for player, loss in model.objectives():
        params = list(model.players()[player].parameters())
        before = {k: [p.clone() for p in m.parameters()] for k, m in model.players().items()}
        model.zero_grad()
        sum(loss(x, c).values()).backward(inputs=params)
        torch.optim.SGD(params, lr).step()
        after = {k: list(m.parameters()) for k, m in model.players().items()}
        moved.append(
            (player, {k for k in after if any((a != b).any() for a, b in zip(after[k], before[k]))})
        )
    return moved


def test_each_player_moves_alone_and_in_turn():
    model = build(Event((2,)), **SMALL)
    assert play_one_round(model, torch.randn(32, 2)) == [
        ("critic", {"critic"}),
        ("generator", {"generator"}),
    ]


def test_the_critics_objective_gives_the_generator_no_gradient():
    model = build(Event((2,)), **SMALL)
    sum(model.judge(torch.randn(16, 2)).values()).backward()
    assert gradients(model.critic) and not gradients(model.generator)


@pytest.mark.parametrize("loss", ["non_saturating", "saturating"])
def test_losses_of_an_undecided_critic_are_log_2_a_half(loss):
    """With logit 0 both halves of the critic's loss are log 2, and the generator's is +-log 2."""
    model = build(Event((2,)), loss=loss, **SMALL)
    nn.init.zeros_(model.critic.layers[-1].weight)
    nn.init.zeros_(model.critic.layers[-1].bias)
    x = torch.randn(16, 2)
    terms = model.judge(x)
    assert [terms[k].item() for k in ("real", "fake")] == pytest.approx([math.log(2)] * 2)
    assert [terms[k].item() for k in ("r1", "r2")] == [0, 0]
    sign = 1 if loss == "non_saturating" else -1
    assert model.deceive(x)["generator"].item() == pytest.approx(sign * math.log(2))


@pytest.mark.parametrize(
    ("loss", "lower", "upper"), [("saturating", 0, 1e-6), ("non_saturating", 1, 2)]
)
def test_only_the_saturating_loss_dies_when_the_critic_is_sure(loss, lower, upper):
    """At logit -20 the derivative with respect to the logit is -2e-9, or -1."""
    model = build(Event((1,)), loss=loss, **SMALL)
    f = torch.full((4,), -20.0, requires_grad=True)
    model.generator_loss(f).backward()
    assert lower <= -f.grad.sum().item() * 1.0001 <= upper


class Point(nn.Module):
    """A generator whose every sample is theta."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(1))

    def forward(self, z, c=None):
        return self.theta.expand(len(z), 1)


class Slope(nn.Module):
    """The critic psi x."""

    def __init__(self):
        super().__init__()
        self.psi = nn.Parameter(torch.ones(1))

    def forward(self, x, c=None):
        return self.psi * x


@pytest.mark.parametrize(("penalty", "converges"), [(0.0, False), (0.5, True)])
def test_only_the_penalty_makes_the_dirac_game_converge(penalty, converges):
    """Data at 0, samples at theta, critic psi x (Mescheder et al., 2018).

    Without it the field is a rotation, and alternating steps keep the radius of the start; with
    weight 1/2 on data and on samples the field is critically damped at rate 1/2: e^-10 times a
    polynomial after time 20.
    """
    model = Adversarial(
        Point(),
        Slope(),
        (1,),
        1,
        critic_loss=partial(penalised, penalty=penalty),
        generator_loss=saturating,
        critic_steps=1,
        recipe=Recipe(),
    )
    for _ in range(100):
        play_one_round(model, torch.zeros(1, 1), lr=0.2)
    radius = math.hypot(model.generator.theta.item(), model.critic.psi.item())
    assert radius < 0.01 if converges else radius > 1


def test_an_unknown_condition_is_the_zero_vector():
    model = build(Event((2,), condition=3), **SMALL)
    z, x = torch.randn(5, model.latent), torch.randn(5, 2)
    zeros = torch.zeros(5, 3)
    assert torch.equal(model.generator(z), model.generator(z, zeros))
    assert torch.equal(model.score(x), model.score(x, zeros))
    assert not torch.allclose(model.score(x), model.score(x, zeros + 1))


@pytest.mark.parametrize("shape", [(1,), (3, 4, 4)])
def test_images_are_flattened_inside_and_restored(shape):
    model = build(Event(shape, condition=2), **SMALL)
    x, c = torch.randn(6, *shape), torch.ones(6, 2)
    assert model.sample(6, c).shape == x.shape
    flat = build(Event((x[0].numel(),), condition=2), **SMALL)
    flat.load_state_dict(model.state_dict())
    assert torch.equal(model.score(x, c), flat.score(x.flatten(1), c))


def test_a_gan_has_no_density_and_no_validation_loss():
    model = build(Event((2,)), **SMALL)
    with pytest.raises(NoLikelihood, match="no likelihood"):
        model.log_prob(torch.zeros(1, 2))
    assert model.validation(torch.zeros(1, 2)) is None


def test_an_unknown_loss_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="non_saturating, saturating"):
        build(Event((2,)), loss="hinge")
