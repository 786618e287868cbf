r"""The tables of Ho et al. (2020) as paths: a chain of T steps, of which T may be any number.

.. math:: q(x_k \mid x_{k-1}) = \mathcal N(\sqrt{1-\beta_k}\,x_{k-1}, \beta_k I), \qquad
    q(x_k \mid x_0) = \mathcal N(\sqrt{\bar\alpha_k}\,x_0, (1-\bar\alpha_k) I)

An index k runs from 1 to T, and 0 is data, as in the paper; its time is k / T. Here are also the
terms of the variational bound, in nats, that training and `families.ddpm` evaluate; its mean over
data in closed form is in `exact.diffusion_bound`.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ..errors import UsageError
from ..shapes import Data, PerDatum, append_dims, sum_event
from .paths import VariancePreservingPath
from .predictions import Prediction


class DDPMPath(VariancePreservingPath):
    r"""The table of Ho et al. (2020), :math:`\bar\alpha_k = \prod_{j\le k}(1-\beta_j)`, as a path.

    At :math:`t = k/T` the scales are :math:`\sqrt{\bar\alpha_k}, \sqrt{1-\bar\alpha_k}` exactly
    (:math:`k = 0` is data). In between, :math:`-\log\bar\alpha` is interpolated by a monotone
    cubic (Fritsch & Carlson, 1980), so that rates exist and :math:`\beta_t \ge 0`; where beta is
    linear in k the cubic is the parabola, and as smooth as the continuous path.
    Tables are kept in float64 and cast at use: :math:`1-\bar\alpha_1` would lose four digits.

    Raises:
        UsageError: If a beta is not between 0 and 1, or :math:`\bar\alpha_T > 0.01`: then a datum
            of unit size is still :math:`\mathrm{KL}(q(x_T \mid x_0) \,\|\, \mathcal N(0, 1))
            \approx \bar\alpha_T/2 > 0.005` nats per dimension from where samplers start.
    """

    def __init__(self, betas: Tensor) -> None:
        self.betas, self.steps, self.t_min = betas.double(), len(betas), 1 / len(betas)
        total = torch.cat([self.betas.new_zeros(1), -torch.log1p(-self.betas).cumsum(0)])
        if not bool((self.betas > 0).all() and (self.betas < 1).all()):
            raise UsageError("every beta of a diffusion table must lie strictly between 0 and 1")
        if (end := math.exp(-total[-1])) > 1e-2:
            raise UsageError(
                f"after {self.steps} steps alpha-bar is {end:.3g}: the path does not end in "
                "noise; rescale beta by 1000 / steps (linear_betas does) or take more steps"
            )
        self.total, self.slopes = total, _monotone_slopes(total)
        self.t_max = float(self.inverse(total.new_tensor(160.0)))

    def integral(self, t: Tensor) -> Tensor:
        return hermite_cubic(*self.locate(t)).to(t)

    def inverse(self, ratio: Tensor) -> Tensor:
        goal = torch.log1p(ratio.double().cpu().square())
        i = (torch.searchsorted(self.total, goal) - 1).clamp(0, self.steps - 1)
        piece = torch.stack([self.total[:-1], self.total[1:], self.slopes[:-1], self.slopes[1:]])
        low, high = torch.zeros_like(goal), torch.ones_like(goal)
        for _ in range(53):  # the bits of a float64
            u = (low + high) / 2
            below = hermite_cubic(u, *piece[:, i]) < goal
            low, high = torch.where(below, u, low), torch.where(below, high, u)
        return ((i + high) / self.steps).to(ratio)

    def rate(self, t: Tensor) -> Tensor:
        u, p, q, m, n = self.locate(t)
        slope = m + u * (2 * (3 * (q - p) - 2 * m - n) + u * 3 * (m + n - 2 * (q - p)))
        return (self.steps * slope).to(t)

    def spaced_times(self, count: int) -> Tensor:
        return _continuous_spacing(self, count).clone()

    def grid(self, steps: int) -> Tensor:
        """As `Path.grid`; T steps are the chain itself."""
        return self.chain() if steps == self.steps else super().grid(steps)

    def chain(self) -> Tensor:
        """All times T/T, ..., 1/T, 0 of the table: the grid of ancestral sampling as trained."""
        return torch.arange(self.steps, -1, -1, dtype=torch.float64) / self.steps

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Where ``t`` lies in its interval, and the values and the slopes at both ends."""
        total, slopes = _table_on_device(self, t.device)
        k = t.to(total) * self.steps
        node = k.round()  # t = k / T lands on a node whatever the precision of t
        k = torch.where((k - node).abs() <= torch.finfo(t.dtype).eps * node, node, k)
        i = k.long().clamp(0, self.steps - 1)
        return k - i, total[i], total[i + 1], slopes[i], slopes[i + 1]

    def beta(self, k: Tensor | int) -> Tensor:
        r""":math:`\beta_k` for :math:`k = 1, \dots, T`, in float64."""
        return self.betas[self.index(k) - 1]

    def alpha_bar(self, k: Tensor | int) -> Tensor:
        r""":math:`\bar\alpha_k` for :math:`k = 1, \dots, T`, in float64."""
        return torch.exp(-self.total[self.index(k)])

    def posterior(self, x: Data, x_t: Data, k: Tensor | int) -> tuple[Tensor, Tensor]:
        r"""Mean and variance of :math:`q(x_{k-1} \mid x_k, x_0)` (Ho et al., 2020, eq. 7).

        .. math:: \tilde\mu = \frac{\sqrt{\bar\alpha_{k-1}}\,\beta_k}{1-\bar\alpha_k} x_0
            + \frac{\sqrt{1-\beta_k}\,(1-\bar\alpha_{k-1})}{1-\bar\alpha_k} x_k, \qquad
            \tilde\beta = \frac{1-\bar\alpha_{k-1}}{1-\bar\alpha_k}\beta_k
        """
        k, beta = self.index(k), self.beta(k)
        before, now = -torch.expm1(-self.total[k - 1]), -torch.expm1(-self.total[k])
        a, b = torch.exp(-self.total[k - 1] / 2) * beta / now, torch.sqrt(1 - beta) * before / now
        a, b, variance = (append_dims(z.to(x), x) for z in (a, b, before / now * beta))
        return a * x + b * x_t, variance

    def variance(self, k: Tensor | int, v: float | Tensor) -> Tensor:
        r""":math:`\beta_k^v\,\tilde\beta_k^{1-v}` (Nichol & Dhariwal, 2021, eq. 15), in float64.

        The model's variance of :math:`x_{k-1}` given :math:`x_k`: v = 1 is right for standard
        normal data, 0 for a single point; v may differ by entry, ``(batch, *event)``. The last
        step, whose :math:`\tilde\beta_1` is 0, has :math:`\beta_1`.
        """
        k, beta = self.index(k), self.beta(k)
        ratio = torch.expm1(-self.total[k - 1]) / torch.expm1(-self.total[k])
        ratio = torch.where(k == 1, 1.0, ratio)
        if isinstance(v, Tensor):
            beta, ratio = (append_dims(z.to(v), v) for z in (beta, ratio))
        return beta * ratio ** (1 - v)

    def index(self, k: Tensor | int) -> Tensor:
        k = torch.as_tensor(k).cpu()
        if k.is_floating_point() or bool((k < 1).any() or (k > self.steps).any()):
            raise UsageError(f"k must be an integer from 1 to {self.steps}, not {k.tolist()}")
        return k


@cache
def _table_on_device(path: DDPMPath, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copied once, in the best precision that the device has."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return path.total.to(device, dtype), path.slopes.to(device, dtype)


@cache
def _continuous_spacing(path: DDPMPath, count: int) -> Tensor:
    """Its bisection takes as long as several networks."""
    return VariancePreservingPath.spaced_times(path, count)


def hermite_cubic(u: Tensor, p: Tensor, q: Tensor, m: Tensor, n: Tensor) -> Tensor:
    """At u in [0, 1], with values p, q and slopes m, n at the ends."""
    return p + u * (m + u * (3 * (q - p) - 2 * m - n + u * (m + n - 2 * (q - p))))


def _monotone_slopes(y: Tensor) -> Tensor:
    """Those of a parabola at equally spaced nodes, limited to keep the cubic monotone."""
    d = y.diff()
    if len(d) == 1:
        return d.expand(2)
    inner = torch.minimum((d[:-1] + d[1:]) / 2, 3 * torch.minimum(d[:-1], d[1:]))
    ends = (3 * d[[0, -1]] - d[[1, -2]]).clamp(min=0) / 2
    return torch.cat([ends[:1], inner, ends[1:]])


def linear_betas(steps: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    r""":math:`\beta_k` from 1e-4 to 0.02 times :math:`1000/T` (Ho et al., 2020), at most 0.999.

    The factor keeps :math:`\bar\alpha_T` near 4e-5 for every T. The ends are those for T = 1000.
    """
    return (torch.linspace(first, last, steps, dtype=torch.float64) * 1000 / steps).clamp(max=0.999)


def cosine_betas(steps: int) -> Tensor:
    r"""Betas at most 0.999 of the cosine schedule (Nichol & Dhariwal, 2021).

    .. math:: \bar\alpha_k \propto \cos^2\frac{\pi}{2}\frac{k/T + 0.008}{1.008}
    """
    k = torch.arange(steps + 1, dtype=torch.float64)
    alpha_bar = torch.cos(math.pi / 2 * (k / steps + 0.008) / 1.008).square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def terminal_kl(x: Data, alpha_bar: float) -> PerDatum:
    r"""How far the chain's end is from noise, for each datum (lesson 5.3, first term).

    .. math:: \mathrm{KL}(q(x_T \mid x_0)\,\|\,\mathcal N(0, I))
        = \tfrac12\big(\bar\alpha_T\,\|x_0\|^2 - d\,(\bar\alpha_T + \log(1-\bar\alpha_T))\big)
    """
    d = x[0].numel()
    return (alpha_bar * sum_event(x.square()) - d * (alpha_bar + math.log1p(-alpha_bar))) / 2


def bound_weight(prediction: Prediction, v: float) -> Callable[[DDPMPath, Tensor], Tensor]:
    r"""The weight that makes the loss the terms of the bound that depend on the mean, in nats.

    .. math:: w_k = \frac{T}{2\Sigma_k}\Big(
        \frac{\sqrt{\bar\alpha_{k-1}}\beta_k}{1 - \bar\alpha_k}
        \frac{\sigma_k}{\alpha_k b_k - \sigma_k a_k}\Big)^2

    With :math:`\Sigma = \tilde\beta` it is :math:`\tfrac T2(\mathrm{SNR}_{k-1} - \mathrm{SNR}_k)`
    for data and :math:`\tfrac T2(\mathrm{SNR}_{k-1}/\mathrm{SNR}_k - 1)` for noise. The mean over
    k of the weighted loss is the sum of the terms.
    """

    def weight(path: DDPMPath, t: Tensor) -> Tensor:
        (alpha, sigma), (a, b) = path(t), prediction(path, t)
        k = (t * path.steps).round().long()
        gain = data_gain(path, k).to(t) * sigma / (alpha * b - sigma * a)
        return path.steps * gain.square() / (2 * path.variance(k, v))

    return weight


def data_gain(path: DDPMPath, k: Tensor) -> Tensor:
    r"""How much of :math:`x_0` is in :math:`\tilde\mu_k`, for each index of ``(n,)``."""
    one = torch.ones(len(k), 1, dtype=torch.float64)
    return path.posterior(one, 0 * one, k)[0].squeeze(1)
