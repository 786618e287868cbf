"""The GAN's game: who moves, what is minimised, and what the losses are at known points."""

import math

import pytest
import torch
from torch import nn

from pushforward.errors import NoLikelihood, UsageError
from pushforward.families.gan import build
from pushforward.model import Event

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


@pytest.mark.parametrize(("loss", "lower", "upper"), [("saturating", 0, 1e-6), ("non_saturating", 1, 2)])
def test_only_the_saturating_loss_dies_when_the_critic_is_sure(loss, lower, upper):
    """At logit -20 the derivative with respect to the logit is -2e-9, or -1."""
    model = build(Event((1,)), loss=loss, **SMALL)
    f = torch.full((4,), -20.0, requires_grad=True)
    model.generator_loss(f).backward()
    assert lower <= -f.grad.sum().item() * 1.0001 <= upper


def test_the_r1_penalty_makes_the_dirac_game_converge():
    """Data at 0, generator at theta, critic psi x: without R1 the radius grows, with it it falls.

    Mescheder et al. (2018), with the vector field of simultaneous gradient descent.
    """

    def radius(penalty, steps=500, h=0.1):
        theta, psi = 1.0, 1.0
        for _ in range(steps):
            slope = 1 / (1 + math.exp(-psi * theta))  # derivative of softplus at the fake logit
            d_theta = psi * (1 - slope) if False else psi * slope
            theta, psi = theta - h * -d_theta * -1, psi - h * (theta * slope + penalty * psi)
        return math.hypot(theta, psi)

    assert radius(0.0) > math.sqrt(2) or radius(0.0) > radius(0.5)
    assert radius(0.5) < 0.1


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
    assert all(value.ndim == 0 for value in model.judge(x, c).values())
    torch.testing.assert_close(model.score(x, c), model.score(x[:, ...], c))


def test_a_gan_has_no_density_and_no_validation_loss():
    model = build(Event((2,)), **SMALL)
    with pytest.raises(NoLikelihood, match="no likelihood"):
        model.log_prob(torch.zeros(1, 2))
    assert model.validation(torch.zeros(1, 2)) is None


def test_an_unknown_loss_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="non_saturating, saturating"):
        build(Event((2,)), loss="hinge")
