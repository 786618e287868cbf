"""Compiled networks and another memory order train to the same weights, up to rounding."""

import inspect
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.errors import UsageError
from pushforward.networks.autoencoder import RandomFeatureDistance, spatial_encoder
from pushforward.networks.backbone import Backbone, accelerate_networks, outermost_blocks
from pushforward.networks.causal import CausalConvNet, CausalTransformer
from pushforward.networks.convolutional import ConvCritic, ConvDecoder, ConvEncoder
from pushforward.networks.masked import FourierEntryFeatures, LinearAutoregression, MaskedPerceptron
from pushforward.networks.mlp import Perceptron, TimeMLP
from pushforward.networks.text_encoder import ByteEncoder
from pushforward.networks.transformer import DiT
from pushforward.networks.unet import DiffusersUNet, UNet

X = np.random.default_rng(0).normal(size=(48, 9, 9, 2))
OPTIONS = {"steps": 3, "batch": 8, "width": 8, "progress": False}


def weights(**options):
    model = pf.fit(X, "flow_matching", **OPTIONS | options).model
    return torch.cat([p.flatten() for p in model.parameters()])


SHAPE, T = (3, 8, 12), torch.rand(2)


def autoregressive(kind):
    """A network over the entries of an image, in one order."""
    shape = () if kind is MaskedPerceptron else (SHAPE,)
    order = torch.arange(math.prod(SHAPE))[None]
    return kind(*shape, FourierEntryFeatures(0), order, 3, 2, width=8, depth=2)


def diffusers_unet():
    """One of a package that need not be there."""
    pytest.importorskip("diffusers")
    return DiffusersUNet(SHAPE, 3, width=8, scales=2)


# makes a network, and says which kinds of input it takes
DEEP = {
    "perceptron": (lambda: Perceptron(288, 3, 4, [8, 8]), "flat c"),
    "mlp": (lambda: TimeMLP(SHAPE, 3, width=8), "x t c"),
    "unet": (lambda: UNet(SHAPE, 3, width=8), "x t c"),
    "dit": (lambda: DiT(SHAPE, 3, width=8), "x t c"),
    "diffusers": (diffusers_unet, "x t c"),
    "encoder": (lambda: ConvEncoder(SHAPE, 3, 4, width=8), "x c"),
    "critic": (lambda: ConvCritic(SHAPE, 3, width=8), "x c"),
    "decoder": (lambda: ConvDecoder(SHAPE, 3, 4, width=8), "z c"),
    "spatial encoder": (lambda: spatial_encoder(SHAPE, 2, width=8, scales=2), "x"),
    "features": (lambda: RandomFeatureDistance(SHAPE, width=8), "x y"),
    "reader": (lambda: ByteEncoder((5, 4)), "spelled"),
    "masked": (lambda: autoregressive(MaskedPerceptron), "x o c"),
    "linear": (lambda: LinearAutoregression(DEEP["masked"][0](), 3), "x o c"),
    "transformer": (lambda: autoregressive(CausalTransformer), "x o c"),
    "convolutions": (lambda: autoregressive(CausalConvNet), "x o c"),
}
IMAGES = ("unet", "dit", "diffusers", "encoder", "decoder", "spatial encoder", "features")


def made(kind):
    """A network that is not at rest, what it is given, and its value and gradients."""
    torch.manual_seed(0)
    make, names = DEEP[kind]
    net, inputs = make(), {"t": T, "o": 0, "c": torch.randn(2, 3), "z": torch.randn(2, 4)}
    inputs |= {"x": torch.randn(2, *SHAPE), "y": torch.randn(2, *SHAPE)}
    inputs |= {"flat": torch.randn(2, 288), "spelled": torch.randint(0, 9, (2, 20)) / 256}
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.requires_grad_(True), [inputs[name] for name in names.split()]


def measured(net, given):
    """The value of a network and the gradients of its weights, as one vector."""
    value = net(*given)
    value = torch.cat([v.flatten() for v in (value if isinstance(value, tuple) else (value,))])
    parts = list(net.parameters())
    loss = value.square().sum()
    found = torch.autograd.grad(loss, parts, allow_unused=True, materialize_grads=True)
    return torch.cat([value.detach(), *(g.flatten() for g in found)])


def test_every_deep_network_is_tried():
    """Every final class there is, for later ones too."""

    def below(kind):
        return {k for sub in kind.__subclasses__() for k in {sub, *below(sub)}}

    final = {k for k in below(Backbone) if not inspect.isabstract(k)}
    tried = {type(made(kind)[0]) for kind in DEEP if kind != "diffusers"} | {DiffusersUNet}
    assert {k for k in final if k.__module__.startswith("pushforward.networks")} == tried


@pytest.mark.parametrize("how", ["channels_last", "recompute"])
@pytest.mark.parametrize("kind", DEEP)
def test_values_and_gradients_are_the_same_however_a_network_is_accelerated(kind, how):
    net, given = made(kind)
    before = measured(net, given)
    accelerate_networks(net, **{how: True})
    largest = float(before.abs().max())
    torch.testing.assert_close(measured(net, given), before, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("kind", IMAGES)
def test_channels_last_is_another_order_of_memory(kind):
    net, given = made(kind)
    seen = []
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda m, x, y: seen.append(x[0]))
    net(*given)
    accelerate_networks(net, channels_last=True)
    net(*given)
    orders = [seen[i].is_contiguous(memory_format=torch.channels_last) for i in (0, -1)]
    assert orders == [False, True]


@pytest.mark.parametrize("kind", ["unet", "dit", "diffusers", "transformer", "convolutions"])
def test_blocks_are_computed_once_more_on_the_way_back(kind):
    net, given = made(kind)
    accelerate_networks(net, recompute=True)
    count = []
    for block in outermost_blocks(net):
        for leaf in block.modules():
            if isinstance(leaf, nn.Linear | nn.Conv2d):
                leaf.register_forward_hook(lambda *_: count.append(None))
    with torch.no_grad():
        net(*given)
    once = len(count)
    measured(net, given)
    assert 2 * once < len(count) <= 3 * once  # up to the last value that a gradient needs


def test_training_in_channels_last_ends_at_the_same_weights():
    plain, last = weights(), weights(channels_last=True)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_a_resumed_run_keeps_how_it_was_accelerated(tmp_path):
    pf.fit(X, "flow_matching", **OPTIONS | {"channels_last": True}, out=tmp_path)
    with pytest.raises(UsageError, match="keeps its channels_last"):
        pf.fit(X, out=tmp_path, resume=True, channels_last=False, progress=False)
    again = pf.fit(X, out=tmp_path, resume=True, channels_last=True, steps=4, progress=False)
    assert again.config["channels_last"] and not again.config["compile"]


def test_operations_are_those_of_the_matrices():
    """Two for each weight of each linear layer; the penalty's gradient would be counted as well."""
    model = pf.fit(X[:, 0, :5, 0], "flow_matching", steps=1, width=16, progress=False)
    linear = [m for m in model.model.modules() if isinstance(m, nn.Linear)]
    assert model.flops == 2 * sum(m.weight.numel() for m in linear)
    assert pf.fit(X[:, 0, :5, 0], "gaussian", progress=False).flops == 0


def test_operations_of_convolutions_are_those_of_every_pixel():
    model = pf.fit(X, "flow_matching", **OPTIONS | {"steps": 1, "depth": 1})
    net, pixels = model.model.denoiser.net, 81
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))
    attention = net.bottom[0].attention
    tokens = 4 * attention.mix.in_features * attention.mix.in_features * pixels
    tokens += 2 * pixels**2 * attention.mix.in_features
    embedding = sum(
        m.weight.numel()
        for name, m in net.named_modules()
        if isinstance(m, nn.Linear) and "attention" not in name
    )
    assert model.flops == 2 * (weights * pixels + tokens + embedding)


def test_counting_operations_leaves_the_model_and_the_generator_as_they_were():
    model = pf.fit(X[:, 0, :5, 0], "wgan_gp", steps=1, width=16, progress=False)
    before, state = [p.clone() for p in model.model.parameters()], torch.get_rng_state()
    assert model.flops > 0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, model.model.parameters(), strict=True))
    assert not model.model.training and not any(p.requires_grad for p in model.model.parameters())


@pytest.mark.slow
def test_a_compiled_run_ends_at_the_same_weights():
    """In a process of its own, for the checks of shapes in tests are not what is compiled."""
    script = (
        "import sys; sys.path.insert(0, 'tests/training')\n"
        "from test_acceleration import weights\n"
        "plain, fast = weights(), weights(compile=True)\n"
        "assert float((plain - fast).abs().max()) <= 1e-5 * float(plain.abs().max())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
