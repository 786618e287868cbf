r"""Adversarial games: losses on logits, optimal discriminators, game values, gradient penalties.

A discriminator :math:`D = \operatorname{sigmoid} f` and a generator with distribution :math:`q`
play

.. math:: \min_q \max_f V, \qquad V = \mathbb E_p \log D(x) + \mathbb E_q \log(1 - D(x))
    \le 2\,\mathrm{JS}(p, q) - \log 4

with equality at :math:`f^* = \log p - \log q`. Everything here takes the logit :math:`f`: in
float32 a sigmoid is exactly 1 from a logit of 17 on, and its gradient exactly 0. A Wasserstein
critic is the same network without a sigmoid, kept near slope one by a penalty on its gradient.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ..shapes import Data, PerDatum, Scalar, append_dims

Critic = Callable[[Tensor], Tensor]  # of data ``(n, *event)``, one number per datum, ``(n,)``


def game_value(real: PerDatum, fake: PerDatum) -> Scalar:
    """The value V of the game in nats, from logits on data and on samples."""
    return logsigmoid(real).mean() + logsigmoid(-fake).mean()


def js_from_value(value: Scalar) -> Scalar:
    r""":math:`(V + \log 4)/2` nats: JS for the optimal discriminator, a lower bound for others."""
    return (value + math.log(4)) / 2


def discriminator_loss(real: PerDatum, fake: PerDatum) -> dict[str, Scalar]:
    r"""The two halves of :math:`-V`; both are :math:`\log 2` when data and samples are alike."""
    return {"real": softplus(-real).mean(), "fake": softplus(fake).mean()}


def saturating_loss(fake: PerDatum) -> Scalar:
    r"""The minimax loss :math:`\mathbb E_q \log(1 - D)`: its gradient dies where D is confident.

    At :math:`D^*` the gradient is that of :math:`2\,\mathrm{JS}(p, q)`.
    """
    return logsigmoid(-fake).mean()


def non_saturating_loss(fake: PerDatum) -> Scalar:
    r"""The loss :math:`-\mathbb E_q \log D` (Goodfellow et al., 2014).

    At :math:`D^*` the gradient is that of :math:`\mathrm{KL}(q\|p) - 2\,\mathrm{JS}(p, q)`
    (Arjovsky & Bottou, 2017).
    """
    return softplus(-fake).mean()


def critic_gap(real: PerDatum, fake: PerDatum) -> Scalar:
    r""":math:`\mathbb E_p f - \mathbb E_q f`, at most the critic's Lipschitz constant times W1.

    A penalised critic's is not one, and on finite samples the gap is positive even where p = q.
    """
    return real.mean() - fake.mean()


def input_gradient(critic: Critic, x: Data) -> Data:
    r""":math:`\nabla_x f(x)` for each datum, itself differentiable in the critic's parameters.

    The critic must treat the data of a batch one by one: with batch normalisation the gradient
    of the sum is not the gradient of any datum.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient


def sample_interpolates(real: Data, fake: Data) -> Data:
    r"""A uniform point on the segment from each datum to its sample.

    .. math:: \hat x_i = \epsilon_i x_i + (1 - \epsilon_i) \tilde x_i, \quad \epsilon_i \sim U[0, 1]
    """
    eps = append_dims(torch.rand_like(real.flatten(1)[:, 0]), real)
    return fake.detach() + eps * (real - fake.detach())


def wgan_gp_penalty(critic: Critic, x: Data, *, one_sided: bool = False) -> Scalar:
    r"""How far the critic's slope is from one (Gulrajani et al., 2017, Algorithm 1).

    .. math:: \mathbb E (\|\nabla f(x)\| - 1)^2 \quad\text{or, one-sided,}\quad
        \mathbb E \max(0, \|\nabla f(x)\| - 1)^2

    In one dimension the two-sided penalty has a second, stable optimum whose slope has the wrong
    sign; the one-sided has not. Where the slope is zero the value is 1 and its gradient 0 (the
    subgradient of the norm that PyTorch takes), never NaN.
    """
    excess = torch.linalg.vector_norm(input_gradient(critic, x).flatten(1), dim=1) - 1
    return (excess.relu() if one_sided else excess).square().mean()


def zero_centred_penalty(critic: Critic, x: Data) -> Scalar:
    r"""R1 for data, R2 for samples: :math:`\tfrac12 \mathbb E \|\nabla f(x)\|^2`.

    It makes the game converge where p = q (Mescheder et al., 2018).
    """
    return input_gradient(critic, x).flatten(1).square().sum(1).mean() / 2
