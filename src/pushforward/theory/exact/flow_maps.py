r"""Flow matching in closed form: its field, the least loss, and what few Euler steps do.

Noise :math:`\varepsilon \sim \mathcal N(0, I)` and data :math:`x` are joined by
:math:`x_t = \alpha_t x + \sigma_t \varepsilon`. Regression on the rate :math:`\dot x_t` finds

.. math:: u_t(x_t) = \mathbb E[\dot x_t \mid x_t], \qquad
    \mathbb E\|v - \dot x_t\|^2 = \mathbb E\|v - u_t\|^2
    + \mathbb E \operatorname{tr} \operatorname{Var}[\dot x_t \mid x_t]

(Lipman et al., 2023, theorem 2): the last term is a floor that no network goes below. The maps of
whole flows are in `consistency`.
"""

import math

import torch
from torch import Tensor

from ...shapes import Data, PerDatum, Scalar, Times, append_dims, sum_event
from ..ode import Field
from ..paths import Path
from .targets import GaussianMixture


def gaussian_velocity(path: Path, mean: Tensor, scale: float, x_t: Data, t: Times) -> Data:
    r"""The field for data :math:`\mathcal N(m, v^2 I)` (lesson 6.2).

    .. math:: u_t(x) = \dot\alpha_t m
        + \frac{\alpha_t\dot\alpha_t v^2 + \sigma_t\dot\sigma_t}{\alpha_t^2 v^2 + \sigma_t^2}
        (x - \alpha_t m)

    On the linear path, in the lesson's time :math:`s = 1 - t` and with its sign, it is
    :math:`m + \frac{s v^2 - (1-s)}{(1-s)^2 + s^2 v^2}(x - s m)`.

    ``scale`` is v.
    """
    (alpha, sigma), (d_alpha, d_sigma) = path(append_dims(t, x_t)), path.rates(append_dims(t, x_t))
    rate = alpha * d_alpha * scale**2 + sigma * d_sigma
    variance = (alpha * scale).square() + sigma.square()
    return d_alpha * mean + rate / variance * (x_t - alpha * mean)


def residual_variance(mixture: GaussianMixture, path: Path, x_t: Data, t: Times) -> PerDatum:
    r"""What the regression cannot know, :math:`\operatorname{tr}\operatorname{Var}[\dot x_t|x_t]`.

    .. math:: \Big(\dot\alpha_t - \dot\sigma_t \frac{\alpha_t}{\sigma_t}\Big)^2
        \Big[\sum_k r_k \big(\|\hat x_k\|^2 + \operatorname{tr} \sigma_t^2 S_k C_k^{-1}\big)
        - \|\hat x\|^2\Big], \qquad C_k = \alpha_t^2 S_k + \sigma_t^2 I

    with :math:`\hat x_k` the posterior mean in component k and :math:`r_k` its responsibility. Its
    mean over :math:`x_t` and t is the least loss, summed over entries; for Gaussian data the linear
    path's is `gaussian_floor` an entry.

    Sigma must not be 0 at t.
    """
    (alpha, sigma), (d_alpha, d_sigma) = path(t), path.rates(t)
    offset, variance, terms = mixture.component_offsets(x_t, alpha, sigma)
    a, s = alpha.reshape(-1, 1, 1), sigma.reshape(-1, 1, 1)
    spread = mixture.variances.to(x_t)
    # posterior means less the components' own, along the axes of each
    shift = torch.einsum("kij,nkj->nki", mixture.axes.to(x_t), a * spread * offset / variance)
    means = mixture.means.to(x_t) + shift
    square = means.square().sum(2) + (s.square() * spread / variance).sum(2)
    r = terms.softmax(1)
    mean = (r[..., None] * means).sum(1)
    unknown = (r * square).sum(1) - mean.square().sum(1)
    return (d_alpha - d_sigma * alpha / sigma).square() * unknown


def gaussian_floor(scale: float) -> float:
    r"""The least loss an entry on the linear path for data :math:`\mathcal N(m, v^2 I)`.

    .. math:: \int_0^1 \frac{v^2}{(1-t)^2 v^2 + t^2}\,dt = \frac{\pi}{2} v

    For unit data it is :math:`\pi/2`, whatever their mean: a loss near 1.57 is a perfect field.
    """
    return math.pi / 2 * scale


def velocity_error(v: Field, u: Field, x_t: Data, t: Times) -> Scalar:
    r"""The excess of the loss over its floor, :math:`\mathbb E\|v(x_t, t) - u_t(x_t)\|^2`."""
    return sum_event((v(x_t, t) - u(x_t, t)).square()).mean()


def ddim_contraction(path: Path, scale: float, times: Tensor) -> float:
    r"""How much DDIM's steps shrink data :math:`\mathcal N(m, v^2 I)`, relative to the exact map.

    .. math:: \prod_k \cos(\phi_{k+1} - \phi_k), \qquad \phi_k = \arctan\frac{\sigma_k}{\alpha_k v}

    Every step projects on the tangent of a circle, whatever the path. On the linear path DDIM is
    Euler's method of flow matching. The same product is the fixed point of consistency distillation
    whose teacher takes these steps.

    ``scale`` is v.
    """
    alpha, sigma = path(times.double())
    return float(torch.atan2(sigma, alpha * scale).diff().cos().prod())


def least_contraction(steps: int) -> float:
    r"""The best that any grid of N steps can do: equal angles, :math:`\cos(\pi/2N)^N`.

    It is about :math:`1 - \pi^2/8N`; one step gives 0, the mean of the data.
    """
    return math.cos(math.pi / (2 * steps)) ** steps


def gaussian_flow_map(
    path: Path, mean: Tensor, scale: float, x_t: Data, t: Times, s: Times
) -> Data:
    r"""The flow's map for data :math:`\mathcal N(m, v^2 I)`, from t to s.

    .. math:: x_s = \alpha_s m + \frac{D_s}{D_t}(x_t - \alpha_t m), \qquad
        D_t^2 = \alpha_t^2 v^2 + \sigma_t^2
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = path(append_dims(t, x_t)), path(append_dims(s, x_t))
    ratio = torch.hypot(alpha_s * scale, sigma_s) / torch.hypot(alpha_t * scale, sigma_t)
    return alpha_s * mean + ratio * (x_t - alpha_t * mean)


def quantile_map(mixture: GaussianMixture, path: Path, x_t: Data, t: Tensor, s: Tensor) -> Data:
    r"""The flow's map on the line, :math:`F_s^{-1} \circ F_t`, from a scalar t to a scalar s.

    The flow keeps the order of points, and the only increasing map of one distribution to another
    is that of their quantiles.
    """
    later, earlier = mixture.diffuse(*path(t)), mixture.diffuse(*path(s))
    side = torch.where(mixture_log_cdf(later, x_t) < math.log(0.5), 1.0, -1.0)  # the lesser tail
    goal = mixture_log_cdf(later, x_t, side)
    # no component's quantile is more
    reach = _component_z_scores(later, x_t).abs().amax(1, keepdim=True)
    high = earlier.means.abs().max() + earlier.variances.max().sqrt() * reach
    low = -high
    for _ in range(70):
        middle = (low + high) / 2
        below = mixture_log_cdf(earlier, side * middle, side) < goal
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (side * high).to(x_t)


def _component_z_scores(mixture: GaussianMixture, x: Data) -> Tensor:
    r""":math:`(x - m_k) / s_k` of each component on the line, ``(n, k)``, in float64."""
    return (x.double() - mixture.means.mT) / mixture.variances.mT.sqrt()


def mixture_log_cdf(mixture: GaussianMixture, x: Data, side: Tensor | float = 1.0) -> Data:
    r""":math:`\log F(x)` on the line, in float64, and :math:`\log(1 - F(x))` at a side of -1.

    .. math:: \log \sum_k w_k\,\Phi\bigl(\pm(x - m_k) / s_k\bigr)

    Both keep their digits in the tail, where F itself is 0 or 1.
    """
    terms = mixture.weights.log() + torch.special.log_ndtr(side * _component_z_scores(mixture, x))
    return terms.logsumexp(1, keepdim=True)
