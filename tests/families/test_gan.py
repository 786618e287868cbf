"""The GAN's game: who moves, what is minimised, and what the losses are at known points."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from pushforward import families
from pushforward.data.builtin import datasets
from pushforward.errors import NoLikelihood, UsageError
from pushforward.families.gan import (
    GAN,
    Game,
    build,
    jensen_shannon_bound,
    penalised_critic_loss,
)
from pushforward.model import Event, Recipe
from pushforward.networks.adversarial import GanNetworks
from pushforward.networks.mlp import mlp
from pushforward.theory.adversarial import saturating_loss
from pushforward.theory.sample_statistics import is_collapsed
from pushforward.theory.transport import w1_1d
from pushforward.training.fit import fit
from pushforward.training.trainer import Trainer, random_batches

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
    sum(model.critic_objective(torch.randn(16, 2)).values()).backward()
    assert gradients(model.critic) and not gradients(model.generator)


@pytest.mark.parametrize("loss", ["non_saturating", "saturating"])
def test_losses_of_an_undecided_critic_are_log_2_a_half(loss):
    """With logit 0 both halves of the critic's loss are log 2, and the generator's is +-log 2."""
    model = build(Event((2,)), loss=loss, **SMALL)
    nn.init.zeros_(model.critic.layers[-1].weight)
    nn.init.zeros_(model.critic.layers[-1].bias)
    x = torch.randn(16, 2)
    terms = model.critic_objective(x)
    assert [terms[k].item() for k in ("real", "fake")] == pytest.approx([math.log(2)] * 2)
    assert [terms[k].item() for k in ("r1", "r2")] == [0, 0]
    sign = 1 if loss == "non_saturating" else -1
    assert model.generator_objective(x)["generator"].item() == pytest.approx(sign * math.log(2))


@pytest.mark.parametrize(
    ("loss", "lower", "upper"), [("saturating", 0, 1e-6), ("non_saturating", 1, 2)]
)
def test_only_the_saturating_loss_dies_when_the_critic_is_sure(loss, lower, upper):
    """At logit -20 the derivative with respect to the logit is -2e-9, or -1."""
    model = build(Event((1,)), loss=loss, **SMALL)
    f = torch.full((4,), -20.0, requires_grad=True)
    model.game.generator_loss(f).backward()
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
    critic_loss = partial(penalised_critic_loss, penalty=penalty)
    game = Game(critic_loss, saturating_loss, jensen_shannon_bound)
    model = GAN(GanNetworks(Point(), Slope(), 1), (1,), game, Recipe())
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
        families.build("gan", Event((2,)), loss="hinge")


class Law(nn.Module):
    """A generator without parameters: samples of a given law."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, z, c=None):
        return self.draw(len(z)).to(z)


class Logit(nn.Module):
    """A critic that is a given function."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x, c=None):
        return self.f(x)


def game(draw, critic, d, **options):
    """The GAN's game with a fixed generator."""
    model = build(Event((d,)), **SMALL, **options)
    model.generator, model.critic = Law(draw), critic
    model.register_buffer("like", torch.zeros(1))
    return model


def test_a_trained_discriminator_is_p_over_p_plus_q():
    """N(0, 1) against N(1.5, 1): D* = sigmoid(-1.5 x + 1.125), and V(D*) = 2 JS - log 4."""
    critic = mlp(1, 32, 32, 1)
    model = game(lambda n: 1.5 + torch.randn(n, 1), Logit(critic), 1, penalty=0.0)
    descent = torch.optim.Adam(critic.parameters(), 5e-3, (0.0, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(descent, 1, 0.01, 400)
    for _ in range(400):
        loss = sum(model.critic_objective(torch.randn(512, 1)).values())
        descent.zero_grad()
        loss.backward()
        descent.step()
        schedule.step()
    x = torch.cat([torch.randn(4000, 1), 1.5 + torch.randn(4000, 1)])
    with torch.no_grad():
        found, best = model.score(x).sigmoid(), (1.125 - 1.5 * x[:, 0]).sigmoid()
    assert (found - best).abs().mean() < 0.03
    # the loss of 2 x 50,000 fresh data has standard error 0.003; a worse D only lowers the bound
    said = model.diagnosis(torch.randn(50_000, 1))["js_bound"]
    assert said == pytest.approx(0.2169, abs=0.012)


def test_the_bound_on_the_divergence_is_met_by_the_optimal_discriminator():
    """JS(N(0, 1), N(1, 1)) = 0.1114 nats; 200,000 data, standard error 0.001, bar 4 of them."""
    model = game(lambda n: 1 + torch.randn(n, 1), Logit(lambda x: 0.5 - x), 1)
    assert model.diagnosis(torch.randn(200_000, 1))["js_bound"] == pytest.approx(0.1114, abs=0.004)


def ring(modes, n):
    turn = modes[torch.randint(len(modes), (n,))] * math.pi / 4
    return torch.stack([turn.cos(), turn.sin()], 1) + 0.01 * torch.randn(n, 2)


@pytest.mark.parametrize(("kept", "rings"), [(1, True), (4, True), (6, True), (8, False)])
def test_the_diagnosis_rings_for_a_generator_that_lost_modes(kept, rings):
    """Modes kept of eight; the statistic is near their number over eight, and bears copies."""
    for seed in range(3):
        torch.manual_seed(seed)
        modes = torch.randperm(8)[:kept]
        model = game(lambda n, m=modes: ring(m, n), Logit(lambda x: x[:, :1]), 2)
        x = ring(torch.arange(8), 1000)
        found = model.diagnosis(x)["mode_coverage"]
        assert found == pytest.approx(kept / 8, abs=0.06)
        assert is_collapsed(found) == rings
        few = ring(torch.arange(8), 300)
        assert is_collapsed(model.diagnosis(few.repeat(5, 1))["mode_coverage"]) == rings


def test_too_few_data_get_no_diagnosis_of_modes():
    model = build(Event((2,)), **SMALL)
    assert set(model.diagnosis(torch.randn(30, 2).repeat(9, 1))) == {"js_bound"}


@pytest.mark.parametrize(
    ("options", "terms"),
    [({}, "r1 r2"), ({"r2": False}, "r1"), ({"penalty": 0.0}, "")],
    ids=str,
)
def test_penalties_are_on_data_and_on_samples_as_asked(options, terms):
    assert set(build(Event((2,)), **SMALL, **options).critic_objective(torch.randn(8, 2))) == {
        "real",
        "fake",
        *terms.split(),
    }


def singular_values(critic):
    return [
        torch.linalg.svdvals(m.weight.flatten(1)).max().item()
        for m in critic.modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
    ]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_spectral_normalisation_bounds_every_singular_value_by_one(autocast):
    """By LAPACK, after training: in the model, its average and a copy with loaded weights."""
    model = build(Event((2,), 3), spectral=True, **SMALL)
    x, c = torch.randn(256, 2), torch.ones(256, 3)
    trainer = Trainer(model, model.recipe._replace(lr=1e-2), 50, autocast=autocast)
    for _ in trainer.run(random_batches(x, 64, c)):
        pass
    other = build(Event((2,), 3), spectral=True, **SMALL)
    other.load_state_dict(model.state_dict())
    for critic in (model.eval().critic, trainer.average.eval().critic, other.eval().critic):
        # a power iteration a pass follows the weights to a few parts in a thousand
        assert singular_values(critic) == pytest.approx([1, 1, 1], abs=3e-3)
    assert torch.equal(other.score(x, c), model.score(x, c))
    assert max(singular_values(build(Event((2,)), width=256, critic=256).critic)) > 1.05


def test_spectral_normalisation_takes_convolutions_too():
    """Every weight as a matrix of its output channels, by LAPACK; the smallest was below 0.9."""
    free, model = (
        build(Event((9, 9)), width=4, depth=3, spectral=spectral) for spectral in (False, True)
    )
    assert min(singular_values(free.critic)) < 0.9
    for _ in range(60):
        model.score(torch.randn(2, 9, 9))
    found = singular_values(model.eval().critic)
    assert len(found) == 8 and found == pytest.approx([1] * 8, abs=3e-3)


def test_r1_of_convolutions_is_the_mean_squared_slope_at_the_data():
    """By autograd, one datum at a time: weight 1 on half of it, and none at samples."""
    model = build(Event((9, 9)), width=4, depth=2).double()
    x = torch.randn(3, 9, 9).double()
    slopes = [
        torch.autograd.functional.jacobian(lambda v: model.score(v)[0], x[[i]]) for i in range(3)
    ]
    terms = model.critic_objective(x)
    expected = sum(s.square().sum() for s in slopes) / 3 / 2
    assert terms["r1"].item() == pytest.approx(expected.item(), rel=1e-9) and "r2" not in terms


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("loss", "bar"), [("non_saturating", 0.15), ("saturating", 0.3)])
def test_it_learns_the_lessons_mixture(loss, bar, seed):
    """W1 between 20,000 samples and fresh data, in the data's units; two data samples: 0.02.

    The saturating loss learns more slowly: its gradient is the weaker, the surer the critic.
    """
    model = fit("lesson", "gan", seed=seed, loss=loss, progress=False)
    data = datasets.load("lesson").sample(20_000, 123)
    assert w1_1d(data.ravel(), model.draw(20_000, seed=seed).ravel()) < bar


def test_in_many_dimensions_the_generator_begins_as_the_gaussian_fitted_to_the_data():
    """Untrained samples have the data's mean and covariance, with short noise the mean alone."""
    n, root = 20_000, torch.eye(5) + 0.5 * torch.ones(5, 5).tril(-1)
    x = 3 + torch.randn(n, 5) @ root.T
    model = build(Event((5,)), latent=5)
    model.prepare(x)
    drawn = model.sample(n)
    S = x.T.cov()
    bar = 5 * math.sqrt(2 * 2 / n) * float(S.max())  # of the data's covariance and of the samples'
    torch.testing.assert_close(drawn.T.cov(), S, rtol=0, atol=bar)
    torch.testing.assert_close(drawn.mean(0), x.mean(0), rtol=0, atol=bar)
    short = build(Event((5,)), latent=2)
    short.prepare(x)
    torch.testing.assert_close(short.sample(n).mean(0), x.mean(0), rtol=0, atol=bar)
