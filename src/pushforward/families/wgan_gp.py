r"""Wasserstein GAN with gradient penalty (Gulrajani et al., 2017, Algorithm 1).

.. math:: \min_G \max_f\; \mathbb E_p f(x) - \mathbb E f(G(z))
    - \lambda\,\mathbb E\,(\|\nabla f(\hat x)\| - 1)^2

The recorded ``minus_critic_gap`` is not :math:`-W_1`: the penalty bounds no Lipschitz constant,
and two finite samples of one distribution already have a positive gap.
"""

import math
from functools import partial
from typing import Annotated

from ..model import Event
from ..networks.adversarial import build_gan_networks, default_latent_dim
from ..networks.select import is_convolutional
from ..options import LAYERS
from ..shapes import Data, Scalar
from ..theory.adversarial import Critic, critic_gap, sample_interpolates, wgan_gp_penalty
from .gan import GAN, RECIPE
from .wgan import held_out_gap, wasserstein_generator_loss


def wgan_gp_critic_loss(
    critic: Critic, real: Data, fake: Data, penalty: float, one_sided: bool
) -> dict[str, Scalar]:
    """Minus the critic's gap, and the penalty on segments between data and samples."""
    slope = wgan_gp_penalty(critic, sample_interpolates(real, fake), one_sided=one_sided)
    return {"minus_critic_gap": -critic_gap(critic(real), critic(fake)), "penalty": penalty * slope}


def build(
    event: Event,
    *,
    network: str = "auto",
    latent: int = 0,
    width: int = 0,
    critic: int = 0,
    depth: Annotated[int, LAYERS] = 3,
    penalty: float | None = None,
    one_sided: bool | None = None,
    critic_steps: int | None = None,
) -> GAN:
    """A WGAN-GP of two perceptrons, or of two convolutional networks.

    Arguments:
        event: The kind of data.
        network: "mlp", "conv", or "auto": convolutions for images of more than 8 x 8 pixels.
        latent: The length of the noise, 0 to choose it from the data.
        width: Units in each hidden layer of the generator, or channels of its largest scale; 0 to
            choose from the data.
        critic: The same of the critic.
        depth: Hidden layers of the generator, or scales of both.
        penalty: The weight of the gradient penalty; by default 0.1, or the paper's 10 with
            convolutions: data of many entries lie far apart, and the gap grows with that.
        one_sided: Penalise only slopes above one; None means in one dimension, where the
            two-sided penalty can settle on a critic of the wrong sign.
        critic_steps: Steps of the critic for each of the generator; by default the paper's 5, or 2
            with convolutions, where a step with its penalty costs twice the generator's.
    """
    latent = default_latent_dim(event, latent)
    one_sided = math.prod(event.shape) == 1 if one_sided is None else one_sided
    deep, recipe = is_convolutional(event, network), RECIPE._replace(steps=1500)
    if penalty is None:
        penalty = 10.0 if deep else 0.1
    return GAN(
        *build_gan_networks(event, network, latent, width, critic, depth),
        event.shape,
        latent,
        critic_loss=partial(wgan_gp_critic_loss, penalty=penalty, one_sided=one_sided),
        generator_loss=wasserstein_generator_loss,
        verdict=held_out_gap,
        critic_steps=critic_steps or (2 if deep else 5),
        recipe=recipe._replace(batch=64, lr=5e-4) if deep else recipe,
    )
