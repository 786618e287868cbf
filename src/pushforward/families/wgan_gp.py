r"""Wasserstein GAN with gradient penalty (Gulrajani et al., 2017, Algorithm 1).

.. math:: \min_G \max_f\; \mathbb E_p f(x) - \mathbb E f(G(z))
    - \lambda\,\mathbb E\,(\|\nabla f(\hat x)\| - 1)^2

The recorded ``minus_critic_gap`` is not :math:`-W_1`: the penalty bounds no Lipschitz constant,
and two finite samples of one distribution already have a positive gap.
"""

import math
from functools import partial
from typing import Unpack

from ..model import Event
from ..networks.adversarial import GanOptions, build_gan_networks
from ..shapes import Data, Scalar
from ..theory.adversarial import Critic, critic_gap, sample_interpolates, wgan_gp_penalty
from .gan import GAN, RECIPE, Game
from .wgan import held_out_gap, wasserstein_generator_loss


def wgan_gp_critic_loss(
    critic: Critic, real: Data, fake: Data, penalty: float, one_sided: bool
) -> dict[str, Scalar]:
    slope = wgan_gp_penalty(critic, sample_interpolates(real, fake), one_sided=one_sided)
    return {"minus_critic_gap": -critic_gap(critic(real), critic(fake)), "penalty": penalty * slope}


def build(
    event: Event,
    *,
    penalty: float | None = None,
    one_sided: bool | None = None,
    critic_steps: int | None = None,
    **networks: Unpack[GanOptions],
) -> GAN:
    """A WGAN-GP of two perceptrons, or of two convolutional networks.

    Arguments:
        penalty: The weight of the gradient penalty; by default 0.1, or the paper's 10 with
            convolutions: data of many entries lie far apart, and the gap grows with that.
        one_sided: Penalise only slopes above one; None means in one dimension, where the
            two-sided penalty can settle on a critic of the wrong sign.
        critic_steps: Steps of the critic for each of the generator; by default the paper's 5, or 2
            with convolutions, where a step with its penalty costs twice the generator's.
    """
    made = build_gan_networks(event, **networks)
    one_sided = math.prod(event.shape) == 1 if one_sided is None else one_sided
    if penalty is None:
        penalty = 10.0 if made.deep else 0.1
    game = Game(
        partial(wgan_gp_critic_loss, penalty=penalty, one_sided=one_sided),
        wasserstein_generator_loss,
        held_out_gap,
        critic_steps or (2 if made.deep else 5),
    )
    recipe = RECIPE._replace(steps=1500)
    return GAN(made, event.shape, game, recipe._replace(batch=64, lr=5e-4) if made.deep else recipe)
