"""Encoders, decoders and critics of images: shapes, independence of data, and bounded slopes."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from pushforward.networks.convolutional import ConvCritic, ConvDecoder, ConvEncoder, scale_sizes
from pushforward.networks.layout import image_layout
from pushforward.theory.adversarial import input_gradient, wgan_gp_penalty

SHAPES = [(7, 5), (1, 12, 12), (9, 6, 3)]


def critic(shape=(6, 5)):
    return ConvCritic(shape, 3, width=4, scales=2).double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scales", [1, 3])
def test_images_become_vectors_and_vectors_images(shape, scales):
    x, c = torch.randn(3, *shape), torch.randn(3, 2)
    z = ConvEncoder(shape, 2, 4, width=4, scales=scales)(x, c)
    h = ConvDecoder(shape, 2, 4, 5, width=4, scales=scales)(z, c)
    assert z.shape == (3, 4) and h.shape == (3, 5 * x[0].numel())


def test_sizes_are_halved_and_rounded_up():
    assert scale_sizes(image_layout((7, 12)), 4) == [(7, 12), (4, 6), (2, 3), (1, 2)]


def test_numbers_of_an_entry_lie_side_by_side_in_the_order_of_the_data():
    """A last bias that says channel and number, for images with their channels last."""
    decoder = ConvDecoder((5, 4, 3), 0, 2, 2, width=4, scales=2)
    nn.init.zeros_(decoder.leave.weight)
    decoder.leave.bias.data = torch.arange(6.0)
    h = decoder(torch.randn(1, 2)).view(5, 4, 3, 2)
    assert torch.equal(h, torch.arange(6.0).view(3, 2).expand(5, 4, 3, 2))


@pytest.mark.parametrize("kind", ["encoder", "critic", "decoder"])
def test_an_unknown_condition_is_the_zero_vector_and_a_known_one_matters(kind):
    x, zero, c = (
        torch.randn(4, 6, 5).double(),
        torch.zeros(4, 3).double(),
        torch.randn(4, 3).double(),
    )
    net = {"encoder": ConvEncoder((6, 5), 3, 2, width=4), "critic": critic()}.get(kind)
    net = ConvDecoder((6, 5), 3, 30, width=4) if net is None else net
    x = x if kind != "decoder" else x.flatten(1)
    net = net.double()
    assert torch.equal(net(x), net(x, zero))
    assert (net(x, c) - net(x)).abs().amax(1).min() > 0


def test_what_a_critic_says_of_a_condition_is_bilinear_in_it_and_in_the_features():
    """The log-odds of a softmax over classes are (Miyato & Koyama, 2018, equation 3)."""
    net, x = critic((7, 5)), torch.randn(4, 7, 5).double()
    a, b = torch.randn(2, 4, 3).double()
    suits = [net(x, c) - net(x) for c in (a, b, 2 * a - 3 * b)]
    torch.testing.assert_close(suits[2], 2 * suits[0] - 3 * suits[1])
    seen = net.features(x).sum((2, 3))
    torch.testing.assert_close(
        suits[0], torch.einsum("nk,dk,nd->n", a, net.suits.weight, seen)[:, None]
    )


def test_a_critic_judges_each_datum_by_itself_in_training_too():
    """The gradient that a penalty needs is each datum's own; a batch norm would make it vanish."""
    net, x = critic().train(), torch.randn(5, 6, 5).double()
    whole = input_gradient(lambda x: net(x)[:, 0], x)
    alone = torch.cat([input_gradient(lambda x: net(x)[:, 0], x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(whole, alone, rtol=1e-10, atol=1e-14)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def test_the_gradient_of_the_penalty_is_that_of_differences():
    net, x = critic(), torch.randn(2, 6, 5).double()
    weight = net.enter.weight
    h, step = 1e-6, torch.randn_like(weight)

    def value():
        return wgan_gp_penalty(lambda x: net(x)[:, 0], x)

    (slope,) = torch.autograd.grad(value(), weight)
    found = []
    for sign in (1, -1):
        weight.data.add_(sign * h * step)
        found.append(value().item())
        weight.data.sub_(sign * h * step)
    assert (slope * step).sum().item() == pytest.approx((found[0] - found[1]) / (2 * h), rel=1e-5)


def test_spectral_norms_bound_what_a_critic_of_scaled_weights_says():
    """Normalised weights do not grow: a critic of weights 1,000 times as large says the same."""
    values, x = [], torch.randn(4, 6, 5).double()
    for scale in (1.0, 1000.0):
        torch.manual_seed(1)
        net = critic()
        for layer in list(net.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.data.mul_(scale)
                spectral_norm(layer, n_power_iterations=30)
        net(x)
        values.append(net.eval()(x))
    assert values[0].isfinite().all()
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-9)
