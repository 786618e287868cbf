r"""Networks of autoencoders, and what judges their reconstructions.

Where codes are small images, the encoder and the decoder are those of `convolutional` with a
convolution where these have a dense layer between an image and a vector, so that a code keeps
places: numbers of a pixel of it tell of the pixels around there alone.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, autograd, nn
from torch.nn.functional import avg_pool2d, normalize, relu

from ..errors import UsageError
from ..model import Event
from ..shapes import Data, PerDatum, Scalar
from ..theory.adversarial import discriminator_loss, non_saturating_loss, zero_centred_penalty
from .backbone import Backbone
from .blocks import conv3x3, group_norm, identity_norm
from .convolutional import ConvDecoder, ConvEncoder, Norm, scale_sizes
from .layout import image_layout
from .likelihoods import EntryLikelihood
from .mlp import Perceptron


class AutoencoderNetworks(NamedTuple):
    encoder: nn.Module  # maps data and a condition to (n, 2 * latent): means and log-scales
    decoder: nn.Module  # maps (n, latent) and a condition to (n, d * law.size)
    law: EntryLikelihood
    prior: nn.Module | None = None  # maps a condition to (n, 2 * latent): where its latents lie


class _ConditionalPrior(nn.Module):
    learning_rate_scale = 10.0  # an optimizer moves weights by its rate, and means lie units apart

    def __init__(self, condition: int, latent: int) -> None:
        super().__init__()
        self.places = nn.Linear(condition, 2 * latent, bias=False)
        nn.init.zeros_(self.places.weight)

    def forward(self, c: Tensor) -> Tensor:
        return self.learning_rate_scale * self.places(c)


def build_mlp_autoencoder(
    event: Event, entry: EntryLikelihood, *, latent: int, hidden: list[int], waves: int = 0
) -> AutoencoderNetworks:
    d, k = math.prod(event.shape), event.condition
    return AutoencoderNetworks(
        Perceptron(d, k, 2 * latent, hidden, waves=waves, sharpest=16.0),
        Perceptron(latent, k, d * entry.size, hidden, waves=waves, sharpest=4.0),
        entry,
        _ConditionalPrior(k, latent) if k else None,
    )


def build_conv_autoencoder(
    event: Event, entry: EntryLikelihood, *, latent: int, width: int, scales: int
) -> AutoencoderNetworks:
    shape, k = event.shape, event.condition
    return AutoencoderNetworks(
        ConvEncoder(shape, k, 2 * latent, width=width, scales=scales),
        ConvDecoder(shape, k, latent, entry.size, width=width, scales=scales),
        entry,
        _ConditionalPrior(k, latent) if k else None,
    )


def spatial_encoder(
    shape: tuple[int, ...], out: int, *, width: int, scales: int, norm: Norm = group_norm
) -> ConvEncoder:
    net = ConvEncoder(shape, 0, 1, width=width, scales=scales, norm=norm)
    wide, sides = width * 2 ** (scales - 1), scale_sizes(net.layout, scales)[-1]
    net.register_module("leave", nn.Sequential(nn.Unflatten(1, (wide, *sides)), conv3x3(wide, out)))
    return net


def _spatial_decoder(
    event_shape: tuple[int, ...], channels: int, size: int, *, width: int, scales: int
) -> ConvDecoder:
    net = ConvDecoder(event_shape, 0, 1, size, width=width, scales=scales)
    net.register_module("enter", nn.Sequential(conv3x3(channels, net.first[0]), nn.Flatten()))
    return net


def build_spatial_autoencoder(
    event: Event, entry: EntryLikelihood, *, latent: int, width: int, factor: int
) -> AutoencoderNetworks:
    if factor > (side := min(image_layout(event.shape).shape[1:])):
        raise UsageError(f"factor is {factor}, more than the {side} pixels of a side")
    scales = scale_count(factor)
    return AutoencoderNetworks(
        spatial_encoder(event.shape, 2 * latent, width=width, scales=scales),
        _spatial_decoder(event.shape, latent, entry.size, width=width, scales=scales),
        entry,
    )


def scale_count(factor: int) -> int:
    if factor & (factor - 1):
        raise UsageError(f"factor is {factor}; an image is halved, so give 1, 2, 4, 8 or 16")
    return factor.bit_length()


class RandomFeatureDistance(Backbone):
    r"""Features of a convolutional network with fixed random weights, at several scales.

    .. math:: d(x, y) = \frac1L \sum_l \operatorname{mean}_{p}
        \left\| \frac{\phi_l(x)_p}{\|\phi_l(x)_p\|} - \frac{\phi_l(y)_p}{\|\phi_l(y)_p\|} \right\|^2

    over pixels p, as of Zhang et al. (2018) with weights that have seen no image: a deep network
    of random weights already tells textures and edges apart (He, Wang & Hopcroft, 2016). Each scale
    has twice the features of the one before.
    """

    def __init__(self, event_shape: tuple[int, ...], *, width: int = 32, scales: int = 3) -> None:
        super().__init__()
        self.layout = image_layout(event_shape)
        widths = [self.layout.channels, *(width * 2**i for i in range(scales))]
        layers = [conv3x3(*pair) for pair in zip(widths, widths[1:])]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
        self.layers = nn.ModuleList(layers)
        self.requires_grad_(False)

    def features(self, x: Data) -> list[Tensor]:
        h, found = self.layout.to_channels_first(x).to(memory_format=self.memory_format), []
        for i, layer in enumerate(self.layers):
            h = relu(layer(avg_pool2d(h, 2, ceil_mode=True) if i else h))
            found.append(normalize(h, dim=1, eps=1e-4))
        return found

    def forward(self, x: Data, y: Data) -> PerDatum:
        """The distance of each sample from its partner, from 0 to 2."""
        pairs = zip(self.features(x), self.features(y))
        each = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in pairs]
        return torch.stack(each).mean(0)


class PerceptualAdversarialLoss(nn.Module):
    """What an autoencoder of images may be asked for beside a bound.

    ``perceptual`` weighs the distance of features, in nats for each entry; ``adversarial`` is the
    size of the critic's pull on the decoder's last layer, in that of the distortion's (Esser et
    al., 2021, equation 7). The critic has so many ``scales``, the first of ``width`` channels.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        perceptual: float,
        adversarial: float,
        width: int,
        scales: int,
    ) -> None:
        super().__init__()
        self.perceptual, self.adversarial = perceptual, adversarial
        self.features = RandomFeatureDistance(event_shape) if perceptual else None
        self.critic = None
        if adversarial:
            size = {"width": width, "scales": scales}
            self.critic = spatial_encoder(event_shape, 1, **size, norm=identity_norm)

    def critic_objective(self, real: Data, fake: Data) -> dict[str, Scalar]:
        losses = discriminator_loss(self.score(real), self.score(fake))
        return losses | {"slope": zero_centred_penalty(self.score, real)}

    def score(self, x: Data) -> Tensor:
        return torch.flatten(self.critic(x))  # type: ignore[misc]

    def perceptual_loss(self, x: Data, made: Data) -> dict[str, Scalar]:
        if self.features is None:
            return {}
        return {"features": self.perceptual * x[0].numel() * self.features(x, made).mean()}

    def generator_objective(self, made: Data, misfit: Scalar, last: Tensor) -> dict[str, Scalar]:
        """The generator's loss, as strong at the decoder's last layer as asked."""
        fooled = non_saturating_loss(self.score(made))
        pulls = [autograd.grad(part, last, retain_graph=True)[0] for part in (misfit, fooled)]
        ours, its = (torch.linalg.vector_norm(pull.float()) for pull in pulls)
        return {"fooled": self.adversarial * (ours / its.clamp(min=1e-4 * ours)) * fooled}
