"""The two players of an adversarial game: a generator and a critic.

Perceptrons for vectors and small images, convolutions for others. Where a critic's slope is
penalised it has no normalisation, which would divide that away.
"""

import math
from typing import Annotated, NamedTuple, TypedDict, Unpack

from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.parametrizations import spectral_norm

from ..model import Event
from ..options import LAYERS, Default, with_defaults
from ..shapes import Condition
from .blocks import identity_norm
from .convolutional import ConvCritic, ConvDecoder, Norm
from .mlp import Perceptron, fourier_count, zero_last_layer
from .select import VECTOR_NETWORKS, is_convolutional
from .whitening import Whitening


class GaussianResidualGenerator(nn.Module):
    """Noise as the Gaussian fitted to the data, and a net: alone in directions the noise lacks."""

    def __init__(self, net: nn.Module, d: int) -> None:
        super().__init__()
        self.net, self.d, self.whitening = zero_last_layer(net), d, Whitening((d,))

    def forward(self, z: Tensor, c: Condition = None) -> Tensor:
        return self.whitening.inverse(pad(z, (0, self.d - z.shape[1])) + self.net(z, c))


class GanOptions(TypedDict, total=False):
    """The networks of an adversarial family.

    Arguments:
        network: "mlp", "conv", or "auto": convolutions for images of more than 8 x 8 pixels.
        latent: The length of the noise, 0 to choose it from the data.
        width: Units of the generator's layers, or channels of its largest scale; 0 to choose.
        critic: The same of the critic.
        depth: Hidden layers of the generator, or scales of both.
    """

    network: Annotated[str, VECTOR_NETWORKS, Default("auto")]
    latent: Annotated[int, Default(0)]
    width: Annotated[int, Default(0)]
    critic: Annotated[int, Default(0)]
    depth: Annotated[int, LAYERS, Default(3)]


class GanNetworks(NamedTuple):
    generator: nn.Module  # maps (n, latent) and a condition to (n, d)
    critic: nn.Module  # maps data and a condition to (n, 1)
    latent: int
    deep: bool = False  # whether both are convolutional


def _default_latent_dim(event: Event) -> int:
    """The length of the noise: as the data, but at least 2, or 8 without Fourier features."""
    least = 2 if fourier_count(event.shape, None) else 8
    return min(max(math.prod(event.shape), least), 64)


def build_gan_networks(
    event: Event,
    *,
    channels: int = 16,
    critic_waves: int | None = None,
    norm: Norm = identity_norm,
    **given: Unpack[GanOptions],
) -> GanNetworks:
    """``channels`` are those of a generator of images where no width is given.

    ``critic_waves`` are Fourier features of vectors, None to choose; ``norm`` is for images.
    """
    options = with_defaults(GanOptions, given)
    options["latent"] = options["latent"] or _default_latent_dim(event)
    if is_convolutional(event, options["network"]):
        options["width"] = options["width"] or channels
        return _build_conv_gan(event, options, norm)
    return _build_mlp_gan(event, options, critic_waves)


def _build_mlp_gan(event: Event, options: GanOptions, critic_waves: int | None) -> GanNetworks:
    """Fourier features in few dimensions: else narrow modes of a grid stay blurred."""
    d, k, waves = math.prod(event.shape), event.condition, fourier_count(event.shape, None)
    latent, width = options["latent"], options["width"] or 128
    hidden = [width] * options["depth"]
    generator: nn.Module = Perceptron(latent, k, d, hidden, waves=waves, sharpest=4.0)
    seen = fourier_count(event.shape, critic_waves)
    units = [options["critic"] or (64 if waves else width)] * 2
    critic = Perceptron(d, k, 1, units, activation=nn.LeakyReLU, waves=seen, sharpest=32.0)
    if not waves:
        generator = GaussianResidualGenerator(generator, d)
    return GanNetworks(generator, critic, latent)


def _build_conv_gan(event: Event, options: GanOptions, norm: Norm) -> GanNetworks:
    shape, k, width, scales = event.shape, event.condition, options["width"], options["depth"]
    critic, seen = options["critic"] or 2 * width, max(scales - 1, 1)
    return GanNetworks(
        ConvDecoder(shape, k, options["latent"], width=width, scales=scales),
        ConvCritic(shape, k, width=critic, scales=seen, norm=norm),
        options["latent"],
        deep=True,
    )


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
