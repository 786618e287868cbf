r"""Lower bounds on :math:`\log p(x)` for latent-variable models, and gradients of expectations.

With weights :math:`w = p(x, z) / q(z \mid x)`, :math:`z \sim q(z \mid x)`, Jensen's inequality says

.. math:: \log p(x) = \log \mathbb E_q w \ge \mathbb E_q \log w = \mathrm{ELBO}(x)

and Bayes' rule, :math:`\log w = \log p(x) - \log q(z \mid x) + \log p(z \mid x)`, says how much is
lost: :math:`\mathrm{ELBO}(x) = \log p(x) - \mathrm{KL}(q \,\|\, p(z \mid x))`. Splitting
:math:`p(x, z) = p(x \mid z)\,p(z)` instead gives what is computed,

.. math:: -\mathrm{ELBO}(x) = \underbrace{-\mathbb E_q \log p(x \mid z)}_{\text{distortion}}
    + \underbrace{\mathrm{KL}(q \,\|\, p(z))}_{\text{rate}} .

`exact.evidence` has all three in closed form where everything is Gaussian. Weighting the rate by
:math:`\beta \ge 1` keeps a bound, because the rate is not negative; :math:`\beta < 1` does not.
"""

import math
from collections.abc import Callable

from torch import Tensor, autograd
from torch.distributions import Normal

from ..shapes import PerDatum, sum_event

ACTIVE = 0.01  # variance of a unit's posterior mean over the data (Burda et al., 2016, 5.2)


def kl_to_prior(q: Normal) -> PerDatum:
    r"""The divergence of a diagonal Gaussian ``(n, *event)`` from the prior in nats, ``(n,)``.

    .. math:: \mathrm{KL}(q \,\|\, \mathcal N(0, I)) = \tfrac12 \sum_i
        (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2)
    """
    return sum_event(q.mean.square() + q.variance - 1) / 2 - sum_event(q.scale.log())


def importance_bound(log_w: Tensor) -> PerDatum:
    r"""The importance-weighted bound from K log-weights for each datum, ``(K, n)``.

    .. math:: L_K = \log \frac1K \sum_{i=1}^K w_i, \qquad
        \mathrm{ELBO} = \mathbb E L_1 \le \mathbb E L_K \le \mathbb E L_{K+1} \le \log p(x)

    (Burda et al., 2016, eq. 8). With bounded weights the gap is
    :math:`\operatorname{Var}(w / p(x)) / 2K` for large K.
    """
    return log_w.logsumexp(0) - math.log(len(log_w))


def reparametrise_doubly(z: Tensor, log_w: Tensor, beta: float = 1.0) -> None:
    r"""Make the encoder's gradient of `importance_bound` the doubly reparametrised one.

    .. math:: \nabla_\phi L_K = \mathbb E \sum_i \tilde w_i^2\,
        \frac{\partial \log w_i}{\partial z_i} \frac{\partial z_i}{\partial \phi},
        \qquad \tilde w_i = \frac{w_i}{\sum_j w_j}

    (Tucker et al., 2019). The plain gradient carries the score :math:`\nabla_\phi \log q`, whose
    signal-to-noise ratio falls as :math:`1/\sqrt K` (Rainforth et al., 2018): more particles would
    teach an encoder less. Reparametrising that term too leaves the expectation as it is and removes
    the fall. For K = 1 it is "sticking the landing" (Roeder et al., 2017). The gradient of a
    decoder is not touched.

    In ``log_w``, ``(K, n)``, computed from the reparametrised latents ``z``, ``(K, n, latent)``,
    the parameters of q are constants. ``beta`` is the power of :math:`p(z) / q(z)` in the weights,
    below one in a warm-up; the factor is then :math:`\beta \tilde w^2 + (1 - \beta) \tilde w`.
    """
    if z.requires_grad:
        share = log_w.detach().softmax(0)[..., None]
        # the bound's own gradient with respect to z_i has one factor of the share already
        z.register_hook(lambda gradient: (beta * share + 1 - beta) * gradient)


def active_units(mu: Tensor) -> Tensor:
    r"""Which latent units tell of the data: :math:`\operatorname{Var}_x \mathbb E_q z_i > 0.01`.

    From posterior means ``(n, latent)`` of many data (Burda et al., 2016, section 5.2). A unit
    whose posterior is the prior for every datum has collapsed: the decoder ignores it.
    """
    return mu.var(0, correction=0) > ACTIVE


def pathwise_gradient(
    f: Callable[[Tensor], Tensor], mu: Tensor, sigma: Tensor, eps: Tensor
) -> Tensor:
    r"""Draws whose mean is :math:`\nabla_\mu \mathbb E_{\mathcal N(\mu, \sigma^2)} f(z)`.

    .. math:: \nabla_\mu f(\mu + \sigma \varepsilon), \qquad \varepsilon \sim \mathcal N(0, 1)

    It needs a differentiable f. For :math:`f = z^2` its variance is :math:`4\sigma^2`.
    """
    z = (mu + sigma * eps).detach().requires_grad_()
    return autograd.grad(f(z).sum(), z)[0]


def score_function_gradient(
    f: Callable[[Tensor], Tensor], mu: Tensor, sigma: Tensor, eps: Tensor
) -> Tensor:
    r"""Draws whose mean is :math:`\nabla_\mu \mathbb E_{\mathcal N(\mu, \sigma^2)} f(z)` as well.

    .. math:: f(z)\,\nabla_\mu \log \mathcal N(z \mid \mu, \sigma^2) = f(z)\,\varepsilon / \sigma

    It needs no derivative of f and pays with variance (Williams, 1992): for :math:`f = z^2` it is
    :math:`\mu^4/\sigma^2 + 14\mu^2 + 15\sigma^2`.
    """
    return f(mu + sigma * eps) * eps / sigma
