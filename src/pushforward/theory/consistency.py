r"""Consistency functions: where the probability flow through :math:`(x_t, t)` ends.

.. math:: f(x_t, t) = x_{t_\min} / \alpha_{t_\min}, \qquad f(x, t_\min) = x / \alpha_{t_\min},

and :math:`\alpha_{t_\min} = 1` or nearly so on every path here. The flow's maps are known for
Gaussian data and, on the line, for all data (`exact.dynamics`).
"""

import math
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from ..errors import UsageError
from ..shapes import Condition, Data, append_dims
from .denoisers import Denoiser, without_graph
from .paths import Path

Map = Callable[[Tensor, Tensor], Tensor]


def boundary_scales(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""The scales :math:`c_{skip}, c_{out}` that make :math:`c_{skip} x_t + c_{out} F` consistent.

    .. math:: c_{skip} = \frac{\alpha_t}{\alpha_t^2 + (\sigma_t - \epsilon\alpha_t)^2}, \qquad
        c_{out} = \frac{\sigma_t - \epsilon\alpha_t}{\sqrt{\alpha_t^2 + \sigma_t^2}}, \qquad
        \epsilon = \frac{\sigma_{t_\min}}{\alpha_{t_\min}}

    At ``t_min`` they are :math:`1/\alpha_{t_\min}` and exactly 0. Where :math:`\alpha = 1` they are
    those of Song et al. (2023) for unit data; on the cosine path, with :math:`\epsilon = 0`, they
    are :math:`\cos, \sin` (Lu & Song, 2025).
    """
    (alpha, sigma), (first, least) = path(t), path(t.new_tensor(path.t_min))
    left = sigma - least / first * alpha
    return alpha / (alpha.square() + left.square()), left / torch.hypot(alpha, sigma)


@cache
def discretisation_times(path: Path, count: int) -> Tensor:
    r"""The ends of ``count`` intervals of ``[t_min, t_max]``, increasing, in float64.

    .. math:: \arctan\frac{\sigma}{\alpha} = \phi_{\min} + (\phi_{\max} - \phi_{\min})
        \frac{k^2}{n^2}, \qquad k = 0, \dots, n

    The narrower the data, the nearer to t_min they are decided: sixteen Heun steps of the cosine
    path scale normal data of deviation 0.17 right within 2%, where equal angles lose 11%.
    """
    ends = torch.tensor([path.t_min, path.t_max], dtype=torch.float64)
    first, final = torch.atan2(path.sigma(ends), path.alpha(ends)).tolist()
    part = torch.linspace(0, 1, count + 1, dtype=torch.float64).square()
    times = path.inverse((first + (final - first) * part).tan())
    times[0], times[-1] = ends  # not to the last bit of a bisection
    return times


@cache
def _match_times(path: Path, other: Path, count: int) -> Tensor:
    r"""Another path's times of the same :math:`\sigma/\alpha`, or its nearest end, in float64."""
    alpha, sigma = path(discretisation_times(path, count))
    return other.inverse(sigma / alpha).clamp(other.t_min, other.t_max)


class HeunTeacher:
    r"""One Heun step of a denoiser's flow between two `discretisation_times` (Karras et al., 2022).

    .. math:: \tilde x_r = \alpha_r \hat x_t + \sigma_r \hat\varepsilon_t, \qquad
        x_r = x_t + \tfrac{r - t}{2}\bigl(u_t(x_t) + u_r(\tilde x_r)\bigr)

    A step to the noise-free end is the first alone, DDIM's. The denoiser may be of any path, not
    only ``path``, the student's: at equal :math:`\sigma/\alpha`, :math:`x_t/\alpha_t` is the same
    variable, and so are the means.
    """

    def __init__(self, denoiser: Denoiser, path: Path) -> None:
        self.denoiser, self.path = denoiser, path

    def estimate(self, x_t: Data, k: Tensor, count: int, c: Condition) -> tuple[Tensor, Tensor]:
        """Both posterior means at the k-th level.

        Where the teacher knows no noise as strong, its strongest stands in, at the same place in
        units of the deviation there; the noise follows from the data.
        """
        other = self.denoiser.path
        s = _match_times(self.path, other, count).to(x_t)[k]
        t = discretisation_times(self.path, count).to(x_t)[k]
        x = self.denoiser(x_t * append_dims(other.scale(s) / self.path.scale(t), x_t), s, c).x
        alpha, sigma = self.path(append_dims(t, x_t))
        return x, (x_t - alpha * x) / sigma

    def step(self, x_t: Data, k: Tensor, j: Tensor, count: int, c: Condition = None) -> Data:
        """From level k to level j < k of ``count``, one of each for each datum."""
        grid = discretisation_times(self.path, count).to(x_t)
        r, t = append_dims(grid[j], x_t), append_dims(grid[k], x_t)
        (alpha, sigma), (d_alpha, d_sigma) = self.path(r), self.path.rates(t)
        x, eps = self.estimate(x_t, k, count, c)
        euler = alpha * x + sigma * eps
        u = d_alpha * x + d_sigma * eps
        x, eps = self.estimate(euler, j, count, c)
        d_alpha, d_sigma = self.path.rates(r)
        heun = x_t + (r - t) / 2 * (u + d_alpha * x + d_sigma * eps)
        return torch.where(sigma > 0, heun, euler)


def _renoise_data(path: Path, x: Data, t: Tensor) -> Data:
    r""":math:`\alpha_t x + \sqrt{\sigma_t^2 - \alpha_t^2\epsilon^2}\,z`, distributed as x_t."""
    (alpha, sigma), (first, least) = path(t), path(t.new_tensor(path.t_min))
    rest = (sigma.square() - (alpha * least / first).square()).clamp(min=0)
    return alpha * x + rest.sqrt() * torch.randn_like(x)


def equal_angle_times(path: Path, steps: int) -> Tensor:
    r"""``steps`` times at equal parts of the angle :math:`\arctan(\sigma/\alpha)`, from t_max."""
    if steps < 1:
        raise UsageError(f"steps must be at least 1, not {steps}")
    angle = math.pi / 2 * torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    times = path.inverse(angle.tan())
    times[0] = path.t_max
    return times.clamp(path.t_min, path.t_max)


@without_graph
def sample_multistep(f: Map, path: Path, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    """Multistep consistency sampling, NFE 1 a step (Song et al., 2023, algorithm 1).

    Map to data, add the noise of the next time, map again. The exact f keeps the distribution.
    """
    for i, t in enumerate(times.to(x)):
        x = f(_renoise_data(path, x, t) if i else x, t)
        yield x
