"""Families on images of more than 8 x 8 pixels, in any order of axes, through deep networks."""

import copy

import numpy as np
import pytest
import torch

from pushforward import families
from pushforward.errors import UsageError
from pushforward.model import Event, Likelihood, Recipe
from pushforward.networks.convolutional import ConvDecoder
from pushforward.networks.mlp import Perceptron, TimeMLP
from pushforward.networks.unet import UNet
from pushforward.training.trainer import Trainer, random_batches

PATHS = ("ddpm", "edm", "ncsn", "flow_matching")
GAMES = ("gan", "wgan", "wgan_gp")
DEEP = (*PATHS, "vae", *GAMES)
SHAPES = [(12, 9), (1, 9, 9), (9, 12, 3)]
TINY = Recipe(steps=4, batch=4, lr=1e-3, warmup=1, ema=0.9)


def small(name, shape, condition=0, **options):
    """A small model of images, whose last layers are no longer zero."""
    model = families.build(name, Event(shape, condition, 0, 32), **{"width": 4} | options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    model.prepare(torch.randn(16, *shape))
    return model


def draw(model, name, n=3, c=None):
    options = {"steps": 2} if name in PATHS else {}
    return model.sample(n, c, **options | ({"corrections": 1} if name == "ncsn" else {}))


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("shape", SHAPES)
def test_images_are_drawn_and_scored_in_the_order_of_their_axes(name, shape):
    model = small(name, shape).eval()
    x = draw(model, name)
    assert x.shape == (3, *shape) and x.isfinite().all()
    if name == "vae":
        assert model.log_prob(x, particles=2).shape == (3,)


@pytest.mark.parametrize("name", DEEP)
def test_large_images_get_convolutions_and_small_ones_perceptrons(name):
    def kinds(shape, **options):
        return {type(m) for m in small(name, shape, **options).modules()}

    deep, plain = (UNet, TimeMLP) if name in PATHS else (ConvDecoder, Perceptron)
    assert deep in kinds((9, 9)) and plain not in kinds((9, 9))
    assert plain in kinds((8, 8)) and deep not in kinds((8, 8))
    assert plain in kinds((9, 9), network="mlp")
    assert deep in kinds((8, 8), network="unet" if name in PATHS else "conv")
    with pytest.raises(UsageError, match="network is 'cnn'"):
        small(name, (9, 9), network="cnn")
    with pytest.raises(UsageError, match="no images"):
        small(name, (30,), network="unet" if name in PATHS else "conv")


@pytest.mark.parametrize("name", DEEP)
def test_stopping_and_going_on_equals_never_stopping(name):
    x, c = torch.randn(16, 9, 9, 1), torch.ones(16, 2)

    def fresh():
        torch.manual_seed(1)
        return Trainer(small(name, (9, 9, 1), 2), TINY, 4)

    straight = fresh()
    for _ in straight.run(random_batches(x, 4, c)):
        pass
    first = fresh()
    for _ in range(2):
        first.step(random_batches(x, 4, c))
    weights = copy.deepcopy((first.model.state_dict(), first.average.state_dict()))
    tensors, plain = copy.deepcopy(first.state())
    second = fresh()
    second.model.load_state_dict(weights[0])
    second.average.load_state_dict(weights[1])
    second.load(tensors, plain)
    for _ in second.run(random_batches(x, 4, c)):
        pass
    for key, value in straight.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[key]), key


@pytest.mark.parametrize("name", DEEP)
def test_the_gradient_of_two_half_batches_is_that_of_the_whole(name):
    """Of the loss on the same noise: what accumulation relies on, and a batch norm would break."""
    model, x = small(name, (9, 9)).double().train(), torch.randn(4, 9, 9).double()
    net = {"vae": "encoder", **dict.fromkeys(GAMES, "critic")}.get(name, "denoiser")
    net = getattr(model, net)
    net = getattr(net, "net", net)
    t = [torch.rand(4).double()] if name in PATHS else []
    target = torch.randn(4, *net(x, *t).shape[1:]).double()

    used = list(net.parameters())

    def gradient(rows):
        loss = (net(x[rows], *[v[rows] for v in t]) - target[rows]).square().sum() / len(rows)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, used)])

    whole = gradient(torch.arange(4))
    halves = (gradient(torch.arange(2)) + gradient(torch.arange(2, 4))) / 2
    torch.testing.assert_close(halves, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", DEEP)
def test_every_player_learns_under_bfloat16_and_in_float64(name):
    x = torch.randn(16, 9, 9)
    for dtype in (torch.float32, torch.float64):
        model = small(name, (9, 9)).to(dtype)
        mixed = torch.bfloat16 if dtype is torch.float32 else None
        before = {k: [p.clone() for p in m.parameters()] for k, m in model.players().items()}
        trainer = Trainer(model, TINY, 2, autocast=mixed)
        for record in trainer.run(random_batches(x.to(dtype), 4)):
            assert all(v.isfinite() for v in record.terms.values())
        for name_, player in model.players().items():
            assert any(not torch.equal(a, b) for a, b in zip(before[name_], player.parameters()))
        assert draw(model.eval(), name).dtype == dtype


@pytest.mark.parametrize("name", DEEP)
def test_an_unknown_condition_is_the_zero_vector(name):
    model, c = small(name, (9, 9), 3).eval(), torch.zeros(3, 3)
    drawn = []
    for known in (None, c, torch.ones(3, 3)):
        torch.manual_seed(2)
        drawn.append(draw(model, name, c=known))
    torch.testing.assert_close(drawn[0], drawn[1])
    assert (drawn[0] - drawn[2]).abs().max() > 1e-4


def test_the_density_of_a_flow_on_images_agrees_with_that_of_its_pixels_in_another_order():
    """(h, w, c) and (c, h, w) with one network: the same number, by the exact trace."""
    first = small("flow_matching", (1, 3, 2), network="unet", depth=2).eval()
    last = small("flow_matching", (3, 2, 1), network="unet", depth=2).eval()
    last.load_state_dict(first.state_dict() | {"source": torch.zeros(0, 3, 2, 1)})
    x = torch.randn(2, 1, 3, 2)
    assert first.likelihood is Likelihood.ODE
    torch.testing.assert_close(
        first.log_prob(x), last.log_prob(x.movedim(1, 3)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_a_unet_learns_what_patches_look_like():
    """Stripes of either direction: the samples' rows or columns are constant, as in the data."""
    torch.manual_seed(0)
    phase = torch.randint(0, 2, (512, 1, 1)).float()
    line = torch.randn(512, 12).sign()
    x = torch.where(phase == 0, line[:, :, None], line[:, None]).expand(512, 12, 12)
    model = families.build("flow_matching", Event((12, 12), 0, 0, 512), width=8, depth=2)
    trainer = Trainer(model, Recipe(batch=32, lr=2e-3, ema=0.99), 1200)
    for _ in trainer.run(random_batches(x, 32)):
        pass
    with torch.no_grad():
        drawn = trainer.average.eval().sample(64, steps=20)
    left = torch.minimum(drawn.std(1).mean(1), drawn.std(2).mean(1))
    assert np.median(left.numpy()) < 0.25
