"""Properties that every family must have, for every module in families/."""

import copy
from inspect import signature

import numpy as np
import pytest
import torch

from pushforward import families
from pushforward.errors import NoLikelihood, UsageError
from pushforward.model import Event, Likelihood, Recipe, count_evaluations
from pushforward.theory.exact.targets import gaussian_ring8
from pushforward.training.fit import fit
from pushforward.training.trainer import Trainer, random_batches

NAMES = families.names()
TRAINED = [n for n in NAMES if n not in families.BASELINES]
TINY = Recipe(steps=6, batch=16, lr=1e-3, warmup=2, ema=0.9)


def small(name, event=None, data=None, c=None, width=16):
    """A small model, prepared on data, in evaluation mode."""
    event = event or Event((2,))
    options = {"width": width} if "width" in families.family_options(name) else {}
    model = families.build(name, event, **options)
    data = torch.randn(64, *event.shape) if data is None else data
    model.prepare(data, c)
    return model.eval()


def train(model, x, c=None, steps=6, recipe=TINY):
    trainer = Trainer(model, recipe, steps)
    for _ in trainer.run(random_batches(x, recipe.batch, c)):
        pass
    return trainer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (4, 4), (3, 2, 2)])
def test_samples_and_densities_have_the_shapes_of_the_contract(name, shape):
    model = small(name, Event(shape))
    x = model.sample(7)
    assert x.shape == (7, *shape) and x.dtype == torch.float32 and x.isfinite().all()
    if model.likelihood is not Likelihood.NONE:
        value = model.log_prob(x)
        assert value.shape == (7,) and value.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_no_option_of_a_family_hides_behind_one_of_fit(name):
    """`fit` would keep it for itself, and nobody could set the family's."""
    assert not families.family_options(name).keys() & {*Recipe._fields, *signature(fit).parameters}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_a_density_says_so(name):
    model = small(name)
    if model.likelihood is Likelihood.NONE:
        with pytest.raises(NoLikelihood, match="sampled but not scored"):
            model.log_prob(torch.randn(3, 2))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same_samples_and_another_draws_others(name):
    model = small(name)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model.sample(20))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("name", TRAINED)
def test_every_player_moves_and_only_it(name):
    model = small(name).train()
    trainer, original, x = Trainer(model, TINY, 6), model.objectives, torch.randn(64, 2)
    before = {k: [p.clone() for p in m.parameters()] for k, m in model.players().items()}

    def changed():
        return {
            k
            for k, m in model.players().items()
            if any(not torch.equal(p, q) for p, q in zip(m.parameters(), before[k], strict=True))
        }

    moved = []

    def spy():
        for player, loss in original():
            already = changed()
            yield player, loss
            moved.append(player)
            assert changed() - already <= {player}

    model.objectives = spy
    for _ in trainer.run(random_batches(x, 16)):  # all of it: some players move late
        pass
    assert changed() == set(moved) == set(model.players())


@pytest.mark.parametrize("name", TRAINED)
def test_stopping_and_going_on_equals_never_stopping(name):
    x = torch.randn(64, 2)

    def fresh():
        torch.manual_seed(1)
        model = small(name, data=x)
        return Trainer(model, TINY, 8)

    straight = fresh()
    for _ in straight.run(random_batches(x, 16)):
        pass
    first = fresh()
    for _ in range(4):
        first.step(random_batches(x, 16))
    weights = copy.deepcopy((first.model.state_dict(), first.average.state_dict()))
    tensors, plain = copy.deepcopy(first.state())
    second = fresh()
    second.model.load_state_dict(weights[0])
    second.average.load_state_dict(weights[1])
    second.load(tensors, plain)
    for _ in second.run(random_batches(x, 16)):
        pass
    for a, b in ((straight.model, second.model), (straight.average, second.average)):
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_saved_weights_give_the_same_model(name):
    x = torch.randn(64, 2)
    model, other = small(name, data=x), small(name, data=torch.randn(30, 2) * 2)
    other.load_state_dict(model.state_dict())
    torch.manual_seed(3)
    expected = model.sample(10)
    torch.manual_seed(3)
    assert torch.equal(other.sample(10), expected)
    if model.likelihood is not Likelihood.NONE:
        torch.manual_seed(4)
        value = model.log_prob(x[:5])
        torch.manual_seed(4)
        assert torch.equal(other.log_prob(x[:5]), value)


@pytest.mark.parametrize("name", TRAINED)
def test_training_runs_in_bfloat16_on_one_datum_and_in_float64(name):
    x = torch.randn(64, 2)
    trainer = Trainer(small(name), TINY, 2, autocast=torch.bfloat16)
    for record in trainer.run(random_batches(x, 16)):
        assert all(v.isfinite() for v in record.terms.values())
    train(small(name), x, steps=2, recipe=TINY._replace(batch=1))
    model = small(name).double()
    train(model, x.double(), steps=2)
    assert model.eval().sample(3).dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_a_datum_is_scored_alike_alone_and_in_a_batch(name):
    x = torch.randn(64, 2)
    model = small(name, data=x)
    if model.likelihood not in (Likelihood.EXACT, Likelihood.ODE):
        pytest.skip("no deterministic density")
    whole = model.log_prob(x[:6])
    alone = torch.cat([model.log_prob(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_densities_integrate_to_one_before_and_after_training(name):
    d = 1 if name == "histogram" else 2  # it jumps, so that a sum in the plane converges slowly
    x = torch.randn(256, d)
    model = small(name, Event((d,)), x)
    if model.likelihood not in (Likelihood.EXACT, Likelihood.ODE):
        pytest.skip("no density to integrate")
    for trained in (False, True):
        if trained and name in TRAINED:
            model = train(model.train(), x, steps=20).average.eval()
        points = 200_001 if d == 1 else 151 if model.likelihood is Likelihood.ODE else 241
        side = torch.linspace(-9, 9, points)
        grid = torch.cartesian_prod(*[side] * d).reshape(-1, d)
        with torch.no_grad():
            log_p = torch.cat([model.log_prob(g) for g in grid.split(16384)])
        mass = log_p.double().exp().sum() * (18 / (points - 1)) ** d
        assert mass == pytest.approx(1, abs=1e-3), f"trained: {trained}"  # float32 and the grid


@pytest.mark.parametrize("name", TRAINED)
def test_accumulating_batches_equals_one_large_batch(name):
    """Where the loss draws no noise, which is so of likelihoods in closed form."""
    x = torch.randn(64, 2)
    model = small(name, data=x).train()
    with torch.no_grad():  # at the start some losses do not depend on their noise
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    one_player = list(model.players()) == ["model"]
    losses = [sum(model.loss(x).values()) for _ in range(3)] if one_player else [torch.rand(3)]
    if not (one_player and losses[0] == losses[1] == losses[2]):
        pytest.skip("the objective draws noise")
    after = []
    for parts in (1, 4):
        trainer = Trainer(copy.deepcopy(model), TINY._replace(accumulate=parts), 4)
        data = ((part, None) for _ in range(4) for part in x.chunk(parts))
        for _ in range(4):
            trainer.step(data)
        after.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(*after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_likelihood_beats_the_entropy(name):
    """On eight Gaussians, after a little training: a gap below zero would be a wrong density."""
    law = gaussian_ring8()
    torch.manual_seed(1)
    x, fresh = (law.sample(n).float() / 3 for n in (2000, 500))
    model = small(name, data=x)
    if model.likelihood is Likelihood.NONE:
        pytest.skip("no likelihood")
    if name in TRAINED:
        model = train(model.train(), x, steps=60, recipe=TINY._replace(lr=3e-3)).average.eval()
    with torch.no_grad():
        truth = law.log_prob(3 * fresh.double()) + 2 * np.log(3)
        gap = truth - torch.cat([model.log_prob(rows) for rows in fresh.split(250)]).double()
    assert gap.mean() > -3 * gap.std() / 500**0.5


@pytest.mark.parametrize("name", NAMES)
def test_conditions_change_what_is_drawn_and_scored(name):
    """Two classes far apart: conditional samples lie with their class."""
    label = torch.arange(400) % 2
    x = 0.3 * torch.randn(400, 2) + (2.0 * label - 1)[:, None]
    c = torch.cat([torch.ones(400, 1), torch.eye(2)[label]], dim=1)
    model = small(name, Event((2,), 3), x, c, width=64)
    if name in TRAINED:
        game = len(model.players()) > 1  # games need their own pace, and more of it
        steps = 1800 // len(list(model.objectives())) if game else 300
        recipe = model.recipe._replace(batch=64, lr=model.recipe.lr if game else 5e-3)
        model = train(model.train(), x, c, steps, recipe).average.eval()
    for k in (0, 1):
        drawn = model.sample(200, c[label == k][:200])
        same_side = (drawn.sum(1).sign() == 2 * k - 1).float().mean()
        assert same_side > 0.85, (k, same_side)
    for unknown in (None, torch.zeros(400, 3)):  # training hides the class now and then
        drawn = model.sample(400, unknown)
        shares = [float((side * drawn.sum(1) > 0.5).float().mean()) for side in (-1, 1)]
        assert min(shares) > 0.1, shares
    if model.likelihood is not Likelihood.NONE:
        right, wrong = model.log_prob(x, c).mean(), model.log_prob(x, c.flip(0)).mean()
        assert right > wrong + 1


@pytest.mark.parametrize(
    "name",
    [
        "ddpm",
        "edm",
        "ncsn",
        "flow_matching",
        "consistency",
        "mean_flow",
        "score_matching",
        "latent_diffusion",
    ],
)
def test_guidance_without_a_condition_is_refused(name):
    model = small(name)
    with pytest.raises(UsageError, match="guidance=2 needs a condition"):
        model.sample(3, guidance=2.0)


@pytest.mark.parametrize("name", ["consistency", "mean_flow"])
def test_guidance_cannot_be_learned_without_a_condition(name):
    with pytest.raises(UsageError, match="guidance=3 needs a condition"):
        families.build(name, Event((2,)), guidance=3.0)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("vae", "anneal", 0.5), ("wgan_gp", "one_sided", False), ("ddpm", "waves", 8)],
)
def test_options_chosen_from_the_data_can_be_given(name, option, value):
    families.build(name, Event((2,)), **{option: value})
    with pytest.raises(UsageError, match=option):
        families.build(name, Event((2,)), **{option: "much"})


@pytest.mark.parametrize("name", NAMES)
def test_options_that_do_not_exist_are_named(name):
    with pytest.raises(UsageError, match="cannot honour the option 'colour'"):
        families.build(name, Event((2,)), colour="red")


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_can_describe_it(name):
    assert len(families.family_summary(name)) > 20
    assert all(
        v is None or isinstance(v, bool | int | float | str)
        for v in families.family_options(name).values()
    )


def test_an_unknown_family_lists_the_known_ones():
    with pytest.raises(UsageError, match="flow_matching"):
        families.build("flow_machine", Event((2,)))
    assert families.family_key("wgan-gp") == "wgan_gp"


def test_flow_matching_loss_ends_near_its_floor():
    r"""For N(0, I) data and noise the regression's floor is :math:`\pi/2` per dimension (D10)."""
    torch.manual_seed(0)
    model = families.build("flow_matching", Event((2,)), width=64)
    x = torch.randn(20_000, 2)
    trainer = Trainer(model, Recipe(lr=2e-3, ema=0.99), 600)
    for _ in trainer.run(random_batches(x, 512)):
        pass
    with torch.no_grad():
        values = [float(trainer.average.eval().validation(x[:8192])) for _ in range(8)]
    mean, error = np.mean(values), np.std(values) / np.sqrt(8)
    assert np.pi - 4 * error < mean < np.pi + 0.05


@pytest.mark.parametrize(
    ("kind", "passes"), [("coupling", 2), ("autoregressive", 6), ("maf", 6), ("iaf", 1)]
)
def test_a_draw_of_a_flow_evaluates_each_of_its_networks_as_often_as_it_says(kind, passes):
    """Counted by a hook: a coupling is inverted in two passes, others in one an entry."""
    model = families.build("normalizing_flow", Event((6,)), kind=kind).eval()
    networks = [m.hyper for m in model.flow.transform.modules() if hasattr(m, "hyper")]
    assert model.nfe == passes and len(networks) > 1
    assert {count_evaluations(net, lambda: model.sample(1)) for net in networks} == {passes}


def test_a_draw_of_an_autoregression_takes_a_step_an_entry():
    model = families.build("autoregressive", Event((2, 3), 0, 3)).eval()
    assert model.nfe == len(list(model.net.decode_steps(torch.zeros(1, 6)))) == 6


def test_a_chain_evaluates_its_energy_more_often_than_it_steps(monkeypatch):
    """Counted without hooks; random numbers go on as if nothing had been counted."""
    model = families.build("score_matching", Event((2,)), sampler_steps=20, width=8, depth=1)
    model.prepare(torch.randn(50, 2))
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    said, calls, forward = model.nfe, [], model.net.forward
    assert torch.equal(torch.randn(3), expected)
    monkeypatch.setattr(model.net, "forward", lambda *x: calls.append(None) or forward(*x))
    model.sample(1)
    assert said == len(calls) > 20
