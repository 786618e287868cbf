"""The WGAN's clipped critic: bounds after every round, and its optimum in closed form."""

import pytest
import torch
from torch import nn

from pushforward.families.wgan import build, clip_weights, wasserstein_critic_loss
from pushforward.model import Event, Likelihood
from pushforward.theory.exact.discriminator import clipped_gap
from pushforward.training.trainer import Trainer, random_batches

SMALL = {"width": 16, "depth": 2}


def largest(module):
    return max(p.abs().max().item() for p in module.parameters())


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_all_weights_of_the_critic_are_within_the_limit_after_each_round(autocast):
    """In the model, in the trainer's vector behind it, and in the average; the generator is free.

    Steps of 0.05 carry weights over the limit of 0.03, so that clipping is what keeps them.
    """
    model = build(Event((2,)), limit=0.03, **SMALL)
    trainer = Trainer(model, model.recipe._replace(lr=0.05, warmup=0), 20, autocast=autocast)
    for _ in trainer.run(random_batches(torch.randn(64, 2), 16)):
        assert largest(model.critic) == pytest.approx(0.03, abs=1e-9)
        assert trainer.players["critic"].value.abs().max() == largest(model.critic)
    assert (
        trainer.averages[0].own["critic"][0].abs().max() <= 1
    )  # the average starts free and comes in
    assert largest(model.generator) > 0.03


def test_clipping_comes_after_each_step_of_the_critic_and_in_place():
    model = build(Event((2,)), limit=0.1, **SMALL)
    parameters = list(model.critic.parameters())
    for k, _ in enumerate(model.objectives()):
        assert not k or largest(model.critic) == pytest.approx(0.1)
        with torch.no_grad():
            for p in parameters:
                p.add_(1.0)
    assert all(a is b for a, b in zip(parameters, model.critic.parameters(), strict=True))


def test_a_linear_critic_settles_at_the_corner_and_its_gap_is_no_distance():
    """c |Delta|_1 = 0.07 for two points at distance 5 (D5)."""
    critic = nn.Linear(2, 1, dtype=torch.float64)
    real, fake = torch.tensor([[3.0, -4.0]]).double(), torch.zeros(1, 2).double()
    for _ in range(50):
        loss = wasserstein_critic_loss(lambda x: critic(x)[:, 0], real, fake)["minus_critic_gap"]
        critic.zero_grad()
        loss.backward()
        with torch.no_grad():
            critic.weight.sub_(0.01 * critic.weight.grad)
        clip_weights(critic, 0.01)
    loss = wasserstein_critic_loss(lambda x: critic(x)[:, 0], real, fake)["minus_critic_gap"].item()
    assert -loss == pytest.approx(clipped_gap(real - fake, 0.01).item()) == pytest.approx(0.07)


def test_a_clipped_critic_is_lipschitz_by_the_product_of_its_layers_bounds():
    """A layer of m x n weights within c has norm at most c sqrt(mn), and the activation's is 1."""
    model = build(Event((2,)), limit=0.1, **SMALL).double()
    clip_weights(model.critic, 0.1)
    bound = 1.0
    for layer in model.critic.layers:
        if isinstance(layer, nn.Linear):
            bound *= 0.1 * layer.weight.numel() ** 0.5
    x, y = torch.randn(2, 500, 2, dtype=torch.float64)
    with torch.no_grad():
        rise = (model.score(x) - model.score(y)).abs() / (x - y).norm(dim=1)
    assert rise.max() <= bound


def test_a_round_is_five_steps_of_the_critic_and_one_of_the_generator():
    model = build(Event((2,)), **SMALL)
    assert [player for player, _ in model.objectives()] == [*["critic"] * 5, "generator"]
    assert model.likelihood is Likelihood.NONE and model.validation(torch.zeros(1, 2)) is None
    assert set(model.critic_objective(torch.randn(8, 2))) == {"minus_critic_gap"}
