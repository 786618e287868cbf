"""The two players of an adversarial game: a generator and a critic.

Perceptrons for vectors and small images, convolutions for others. Where a critic's slope is
penalised it has no normalisation, which would divide that away.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..model import Event
from ..shapes import Condition
from .blocks import identity_norm
from .convolutional import ConvCritic, ConvDecoder
from .mlp import Perceptron, fourier_count, zero_last_layer
from .select import is_convolutional
from .whitening import Whitening

Players = tuple[nn.Module, nn.Module]
Norm = Callable[[int], nn.Module]


class GaussianResidualGenerator(nn.Module):
    """A generator that begins as the Gaussian fitted to the data: noise, and what a net adds to it.

    Arguments:
        net: Maps ``(n, latent)`` and a condition to ``(n, d)``.
        d: The length of a datum; noise that is shorter leaves the last directions to the net.
    """

    def __init__(self, net: nn.Module, d: int) -> None:
        super().__init__()
        self.net, self.d, self.whitening = zero_last_layer(net), d, Whitening((d,))

    def forward(self, z: Tensor, c: Condition = None) -> Tensor:
        known = nn.functional.pad(z, (0, self.d - z.shape[1]))
        return self.whitening.inverse(known + self.net(z, c))


def default_latent_dim(event: Event, latent: int) -> int:
    """The length of the noise: as the data, but at least 2, or 8 where there are no waves."""
    least = 2 if fourier_count(event.shape, None) else 8
    return latent or min(max(math.prod(event.shape), least), 64)


def build_mlp_gan(
    event: Event,
    latent: int,
    width: int,
    critic: int,
    depth: int,
    *,
    critic_waves: int | None = None,
) -> Players:
    """A smooth generator and a critic of two hidden layers, whose gradients are cheap to penalise.

    In few dimensions both see waves: without them, a thousand rounds leave a 5 x 5 grid of narrow
    modes blurred.
    """
    d, waves = math.prod(event.shape), fourier_count(event.shape, None)
    width = width or 128
    critic = critic or (64 if waves else width)
    generator = Perceptron(latent, event.condition, d, [width] * depth, waves=waves, sharpest=4.0)
    return (
        generator if waves else GaussianResidualGenerator(generator, d),
        Perceptron(
            d,
            event.condition,
            1,
            [critic] * 2,
            activation=nn.LeakyReLU,
            waves=fourier_count(event.shape, critic_waves),
            sharpest=32.0,
        ),
    )


def build_conv_gan(
    event: Event,
    latent: int,
    width: int,
    critic: int,
    scales: int,
    norm: Norm = identity_norm,
) -> Players:
    """A generator and a critic of images, whose smallest sizes are the same."""
    shape, k, width = event.shape, event.condition, width or 16
    seen = max(scales - 1, 1)
    return (
        ConvDecoder(shape, k, latent, width=width, scales=scales),
        ConvCritic(shape, k, width=critic or 2 * width, scales=seen, norm=norm),
    )


def build_gan_networks(
    event: Event,
    network: str,
    latent: int,
    width: int,
    critic: int,
    depth: int,
    *,
    critic_waves: int | None = None,
    norm: Norm = identity_norm,
) -> Players:
    """A generator and a critic for the data.

    Arguments:
        event: The kind of data.
        network: "mlp", "conv", or "auto" (`networks.select.is_convolutional`).
        latent: The length of the noise.
        width: Units of the generator's layers, or channels of its largest scale; 0 to choose.
        critic: The same of the critic.
        depth: Hidden layers of the generator, or scales of both.
        critic_waves: Waves that a critic of vectors sees, None to choose.
        norm: Makes the normalisation in a critic of images.
    """
    if is_convolutional(event, network):
        return build_conv_gan(event, latent, width, critic, depth, norm)
    return build_mlp_gan(event, latent, width, critic, depth, critic_waves=critic_waves)


def apply_spectral_norm(critic: nn.Module) -> nn.Module:
    r"""Divide each layer's weight by its largest singular value (Miyato et al., 2018).

    One power iteration in each pass while training follows the weights. The weight of a convolution
    is taken as the matrix of its output channels, as in the paper: that bounds the slope of the
    layer only up to a factor of its 3 x 3 places.
    """
    for layer in list(critic.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            spectral_norm(layer)
    return critic
