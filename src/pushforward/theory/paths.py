r"""Gaussian paths from data to noise.

A path turns a datum :math:`x` into noise :math:`\varepsilon` as :math:`t` goes from 0 to 1,

.. math:: x_t = \alpha_t x + \sigma_t \varepsilon, \qquad \alpha_0 = 1,\ \sigma_0 = 0.

Time runs from data, :math:`t = 0`, to noise, :math:`t = 1`, everywhere in the library. The
lesson's section on flow matching runs the other way, :math:`s = 1 - t`.

Every quantity of diffusion and flow matching is a function of :math:`\alpha` and :math:`\sigma`
alone, so a path defines these two; the rates in closed form are there for speed. A time is a
scalar or has shape ``(batch,)`` and every function of it keeps its shape, type and device.
"""

import abc
import math

import torch
from torch import Tensor
from torch.func import jvp

from ..errors import UsageError
from ..shapes import Data, Times, append_dims


class Path(abc.ABC):
    r"""A pair of functions of time: the signal scale alpha and the noise scale sigma.

    The path is used on ``[t_min, t_max]``: next to 0 the score may be singular, and where
    :math:`\alpha = 0` a noise prediction says nothing about the data (0/0).
    """

    t_min: float = 0.0
    t_max: float = 1.0

    @abc.abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal scale, from 1 down."""

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise scale, from 0 up."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha(t), self.sigma(t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\dot\alpha_t, \dot\sigma_t)`, by automatic differentiation unless overridden."""
        one = torch.ones_like(t)
        return jvp(self.alpha, (t,), (one,))[1], jvp(self.sigma, (t,), (one,))[1]

    def scale(self, t: Tensor) -> Tensor:
        r""":math:`\sqrt{\alpha_t^2 + \sigma_t^2}`, the deviation of :math:`x_t` for unit data."""
        return torch.hypot(*self(t))

    def level(self, t: Tensor) -> Tensor:
        r"""The noise level :math:`\tfrac2\pi\arctan(\sigma_t / \alpha_t)`, from 0 (data) to 1.

        It means the same on every path, and is 1/2 where unit data and noise weigh alike. On the
        cosine path it is the time.
        """
        alpha, sigma = self(t)
        return torch.atan2(sigma, alpha) * (2 / math.pi)

    def drift(self, t: Tensor) -> Tensor:
        r""":math:`f_t = \dot\alpha_t / \alpha_t` in :math:`dx = f_t x\,dt + g_t\,dw`."""
        return self.rates(t)[0] / self.alpha(t)

    def diffusion(self, t: Tensor) -> Tensor:
        r""":math:`g_t^2 = 2\sigma_t(\dot\sigma_t - f_t\sigma_t)`."""
        sigma = self.sigma(t)
        return 2 * sigma * (self.rates(t)[1] - self.drift(t) * sigma)

    def interpolate(self, x: Data, eps: Data, t: Times) -> Data:
        alpha, sigma = self(append_dims(t, x))
        return alpha * x + sigma * eps

    def network_time(self, t: Tensor) -> Tensor:
        """The time that a network sees: in [0, 1], spread evenly over the levels of noise."""
        return t

    def inverse(self, ratio: Tensor) -> Tensor:
        r"""The time at which :math:`\sigma_t / \alpha_t` equals ``ratio``, by bisection."""
        low, high = torch.zeros_like(ratio), torch.ones_like(ratio)
        for _ in range(80):  # float64 has no more bits near 0 that matter
            t = (low + high) / 2
            alpha, sigma = self(t)
            below = sigma < ratio * alpha
            low, high = torch.where(below, t, low), torch.where(below, high, t)
        return high

    def grid(self, steps: int) -> Tensor:
        """The ``steps + 1`` times at which samplers stop: t_max > ... > t_min > 0, in float64.

        Steps are equal in time unless a path knows better; the last one, from t_min to 0, is there
        only if t_min > 0.
        """
        if steps < 1:
            raise UsageError(f"steps must be at least 1, not {steps}")
        times = self.spaced_times(steps if self.t_min else steps + 1)
        return torch.cat([times, times.new_zeros(1)]) if self.t_min else times

    def spaced_times(self, count: int) -> Tensor:
        return torch.linspace(self.t_max, self.t_min, count, dtype=torch.float64)


class LinearPath(Path):
    r""":math:`\alpha_t = 1 - t,\ \sigma_t = t` (Lipman et al., 2023; Liu et al., 2023)."""

    def __init__(self, t_min: float = 0.0, t_max: float = 1.0) -> None:
        self.t_min, self.t_max = t_min, t_max

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(t)
        return -one, one


class BlurredPath(Path):
    r"""A path whose data keep noise: :math:`\sigma_t + \sigma_{\min}\alpha_t` for :math:`\sigma_t`.

    On the linear path it is the optimal transport path of Lipman et al. (2023), eq. 20. It ends at
    data blurred by :math:`\sigma_{\min}`, whose variance is larger by :math:`\sigma_{\min}^2`.
    """

    def __init__(self, path: Path, sigma_min: float) -> None:
        self.path, self.sigma_min = path, sigma_min
        self.t_min, self.t_max = path.t_min, path.t_max

    def alpha(self, t: Tensor) -> Tensor:
        return self.path.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.path.sigma(t) + self.sigma_min * self.path.alpha(t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        d_alpha, d_sigma = self.path.rates(t)
        return d_alpha, d_sigma + self.sigma_min * d_alpha

    def network_time(self, t: Tensor) -> Tensor:
        return self.path.network_time(t)

    def spaced_times(self, count: int) -> Tensor:
        return self.path.spaced_times(count)


class CosinePath(Path):
    r""":math:`\alpha_t = \cos(\pi t/2),\ \sigma_t = \sin(\pi t/2)` (Nichol & Dhariwal, 2021).

    Samplers start where :math:`\alpha = 1/160`, EDM's ratio of data to noise, because
    :math:`\alpha_1 = 0`.
    """

    def __init__(
        self, t_min: float = 0.0, t_max: float = 1 - 2 / math.pi * math.asin(1 / 160)
    ) -> None:
        self.t_min, self.t_max = t_min, t_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * (1 - t))  # exactly 0 at t = 1, where cos is not

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -math.pi / 2 * self.sigma(t), math.pi / 2 * self.alpha(t)


class VarianceExplodingPath(Path):
    r""":math:`\alpha_t = 1,\ \sigma_t = \sigma_{\max} t^\rho \ge 0.01` (Song & Ermon, 2019)."""

    def __init__(self, sigma_max: float = 10.0, rho: float = 3.0, t_min: float = 0.1) -> None:
        self.sigma_max, self.rho, self.t_min = sigma_max, rho, t_min

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t**self.rho

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), self.sigma_max * self.rho * t ** (self.rho - 1)


class EDMPath(Path):
    r""":math:`\alpha_t = 1,\ \sigma_t = \sigma_{\max} t`, straight in sigma (Karras et al., 2022).

    The grid is uniform in :math:`\sigma^{1/\rho}` from ``sigma_max`` to ``sigma_min``, then 0.
    """

    def __init__(self, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0) -> None:
        if not 0 < sigma_min < sigma_max:
            given = f"sigma_min is {sigma_min:g} and sigma_max {sigma_max:g}"
            raise UsageError(f"{given}; it must be 0 < sigma_min < sigma_max")
        self.sigma_max, self.sigma_min, self.rho = sigma_max, sigma_min, rho
        self.t_min = sigma_min / sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.full_like(t, self.sigma_max)

    def network_time(self, t: Tensor) -> Tensor:
        return t ** (1 / self.rho)

    def spaced_times(self, count: int) -> Tensor:
        end = self.t_min ** (1 / self.rho)
        return torch.linspace(1.0, end, count, dtype=torch.float64) ** self.rho


class GeometricPath(EDMPath):
    r"""EDM's path on a ladder of levels with equal ratios, NCSN's (Song & Ermon, 2019).

    The network sees :math:`\log\sigma`, and the grid falls by a factor a step; the last level is
    followed by data.
    """

    def __init__(self, sigma_max: float, sigma_min: float) -> None:
        super().__init__(sigma_max, sigma_min)

    def network_time(self, t: Tensor) -> Tensor:
        return 1 - t.clamp(min=self.t_min).log() / math.log(self.t_min)

    def spaced_times(self, count: int) -> Tensor:
        return self.t_min ** torch.linspace(0, 1, count, dtype=torch.float64)


class VariancePreservingPath(Path):
    r""":math:`\alpha_t = e^{-B_t/2},\ \sigma_t^2 = 1 - \alpha_t^2,\ B_t = \int_0^t\beta_s\,ds`.

    With :math:`\beta_t` linear it is the limit of Ho et al.'s table (Song et al., 2021). The grid
    has equal steps of the angle :math:`\phi = \arctan(\sigma/\alpha)`: N steps of DDIM shrink unit
    normal data by :math:`\prod_k\cos\Delta\phi_k`, which is then the least possible.
    """

    t_min = 1e-3

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = beta_min, beta_max

    def integral(self, t: Tensor) -> Tensor:
        r""":math:`B_t = \int_0^t \beta_s\,ds = -\log \alpha_t^2`."""
        return t * (self.beta_min + (self.beta_max - self.beta_min) / 2 * t)

    def inverse(self, ratio: Tensor) -> Tensor:
        total = torch.log1p(ratio.square())  # the positive root of a quadratic
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * total)
        return 2 * total / (self.beta_min + root)

    def rate(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def spaced_times(self, count: int) -> Tensor:
        ends = torch.tensor([self.t_max, self.t_min], dtype=torch.float64)
        first, final = torch.atan2(self.sigma(ends), self.alpha(ends)).tolist()
        times = self.inverse(torch.linspace(first, final, count, dtype=torch.float64).tan())
        times[-1], times[0] = ends[1], ends[0]  # not to the last bit of a bisection
        return times

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        total = self.integral(t)
        return torch.exp(-total / 2), torch.sqrt(-torch.expm1(-total))

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self.integral(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.integral(t)))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        (alpha, sigma), beta = self(t), self.rate(t)
        return -beta * alpha / 2, beta * alpha.square() / (2 * sigma)
