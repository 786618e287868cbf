"""Compiled networks and another memory order train to the same weights, up to rounding."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.errors import UsageError
from pushforward.fitting.hastening import hasten
from pushforward.networks.convolutional import ConvDecoder, ConvEncoder
from pushforward.networks.transformer import DiT
from pushforward.networks.unet import UNet

X = np.random.default_rng(0).normal(size=(48, 9, 9, 2))
OPTIONS = {"steps": 3, "batch": 8, "width": 8, "progress": False}


def weights(**options):
    model = pf.fit(X, "flow_matching", **OPTIONS | options).model
    return torch.cat([p.flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", ["unet", "dit", "encoder", "decoder"])
def test_channels_last_is_the_same_function_in_another_order_of_memory(kind):
    shape, c = (3, 12, 9), torch.randn(2, 3)
    x, t = torch.randn(2, *shape), torch.rand(2)
    net, given = {
        "unet": (UNet(shape, 3, width=8), (x, t, c)),
        "dit": (DiT(shape, 3, width=8), (x, t, c)),
        "encoder": (ConvEncoder(shape, 3, 4, width=8), (x, c)),
        "decoder": (ConvDecoder(shape, 3, 4, width=8), (torch.randn(2, 4), c)),
    }[kind]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    seen = []
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda m, x, y: seen.append(x[0]))
    before = net(*given)
    hasten(net, {"channels_last": True})
    after = net(*given)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    orders = [h.is_contiguous(memory_format=torch.channels_last) for h in seen]
    assert orders == [False, True]


def test_training_in_channels_last_ends_at_the_same_weights():
    plain, last = weights(), weights(channels_last=True)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_a_resumed_run_keeps_how_it_was_hastened(tmp_path):
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
    told = sum(
        m.weight.numel()
        for name, m in net.named_modules()
        if isinstance(m, nn.Linear) and "attention" not in name
    )
    assert model.flops == 2 * (weights * pixels + tokens + told)


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
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_hastening import weights\n"
        "plain, fast = weights(), weights(compile=True)\n"
        "assert float((plain - fast).abs().max()) <= 1e-5 * float(plain.abs().max())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
