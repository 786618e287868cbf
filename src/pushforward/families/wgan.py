r"""Wasserstein GAN with weight clipping (Arjovsky et al., 2017, Algorithm 1).

.. math:: \min_G \max_{|w| \le c}\; \mathbb E_p f_w(x) - \mathbb E f_w(G(z))

After each step of the critic all its parameters are put back into :math:`[-c, c]`. That bounds its
Lipschitz constant by some :math:`K`, which is not known, and reaches only part of the functions of
slope :math:`K`: the recorded ``minus_critic_gap`` is at least :math:`-K\,W_1`, in units that belong
to this network. The paper takes RMSprop; here it is AdamW without momentum or decay, which is
RMSprop with a correction of the first steps. A critic of images is normalised within each sample,
as the paper's is over a batch: clipped convolutions alone let its values vanish or explode.
"""

from functools import partial
from typing import Unpack

import torch
from torch import nn

from ..model import Event
from ..networks.adversarial import GanOptions, build_gan_networks
from ..networks.blocks import group_norm
from ..shapes import Data, PerDatum, Scalar
from ..theory.adversarial import Critic, critic_gap
from .gan import GAN, RECIPE, Game


def wasserstein_critic_loss(critic: Critic, real: Data, fake: Data) -> dict[str, Scalar]:
    return {"minus_critic_gap": -critic_gap(critic(real), critic(fake))}


def wasserstein_generator_loss(fake: PerDatum) -> Scalar:
    r"""The generator's loss, :math:`-\mathbb E f(G(z))`."""
    return -fake.mean()


def held_out_gap(real: PerDatum, fake: PerDatum) -> dict[str, Scalar]:
    return {"critic_gap": critic_gap(real, fake)}


@torch.no_grad()
def clip_weights(critic: nn.Module, limit: float) -> None:
    for parameter in critic.parameters():
        parameter.clamp_(-limit, limit)


def build(
    event: Event, *, limit: float = 0.1, critic_steps: int = 5, **networks: Unpack[GanOptions]
) -> GAN:
    """A Wasserstein GAN whose critic has clipped weights: two perceptrons, or convolutions.

    Arguments:
        limit: The largest absolute value of the critic's weights, the paper's c.
        critic_steps: Steps of the critic for each of the generator.
    """
    made = build_gan_networks(event, critic_waves=0, norm=group_norm, **networks)
    game = Game(
        wasserstein_critic_loss,
        wasserstein_generator_loss,
        held_out_gap,
        critic_steps,
        constrain=partial(clip_weights, limit=limit),
    )
    return GAN(made, event.shape, game, RECIPE._replace(batch=32, lr=5e-4) if made.deep else RECIPE)
