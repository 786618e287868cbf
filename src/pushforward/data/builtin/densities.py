"""Distributions on the line and in the plane whose densities are known exactly.

Mixtures of Gaussians; curves blurred by Gaussian noise, which are mixtures too, with one component
for each node of a quadrature along the curve; a twist that preserves areas; squares.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Rng = np.random.Generator
LogProb = Callable[[np.ndarray], np.ndarray]


class _ToyDensity(NamedTuple):
    description: str
    draw: Callable[[Rng, int], tuple[np.ndarray, np.ndarray | None]]
    log_prob: LogProb
    entropy: float
    modes: np.ndarray | None = None
    mode_scale: float | None = None


def _mixture_log_prob(
    x: np.ndarray, means: np.ndarray, weights: np.ndarray, scale: np.ndarray | float
) -> np.ndarray:
    r""":math:`\log \sum_k w_k \mathcal N(x \mid \mu_k, \sigma_k^2 I)` in nats, shape (n,).

    x is (n, d), or (n,) where d = 1; means (k, d); weights (k,); scale (k,) or one for all.
    """
    k, d = means.shape
    x = np.asarray(x, dtype=np.float64).reshape(-1, d)
    scale = np.broadcast_to(scale, k)
    offset = np.log(weights) - d * np.log(scale) - d / 2 * math.log(2 * math.pi)
    inverse = 1 / scale**2
    offset = offset - inverse * (means**2).sum(1) / 2
    out = np.empty(len(x))
    for i in range(0, len(x), 512):  # pieces that stay in the cache
        part = x[i : i + 512]
        terms = part @ (means.T * inverse) + offset
        terms -= (part**2).sum(1, keepdims=True) / 2 * inverse
        top = terms.max(1, keepdims=True)
        out[i : i + 512] = top[:, 0] + np.log(np.exp(terms - top).sum(1))
    return out


def mixture_density(
    description: str,
    means: np.ndarray,
    scale: np.ndarray | float,
    entropy: float,
    weights: np.ndarray | None = None,
) -> _ToyDensity:
    k, d = means.shape
    weights = np.full(k, 1 / k) if weights is None else weights

    def draw(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.choice(k, n, p=weights)
        x = means[y] + np.broadcast_to(scale, k)[y, None] * rng.standard_normal((n, d))
        return (x[:, 0] if d == 1 else x), y

    def log_prob(x: np.ndarray) -> np.ndarray:
        return _mixture_log_prob(x, means, weights, scale)

    common = float(scale) if np.ndim(scale) == 0 else float(np.max(scale))
    return _ToyDensity(description, draw, log_prob, entropy, means, common)


def _curves_density(
    description: str,
    curves: Callable[[np.ndarray], list[np.ndarray]],
    scale: float,
    entropy: float,
    nodes: int,
) -> _ToyDensity:
    r"""Curves with Gaussian noise: :math:`x = \gamma_y(u) + \sigma \epsilon,\ u \sim U[0, 1]`.

    .. math:: p(x) = \frac1m \sum_y \int_0^1 \mathcal N(x \mid \gamma_y(u), \sigma^2 I)\, du

    Gauss-Legendre quadrature is exact to rounding once its nodes lie closer together on the curve
    than the noise is wide. ``curves`` maps positions u, (n,), to points, (n, 2), on each of them.
    """
    roots, weights = np.polynomial.legendre.leggauss(nodes)
    lines = curves((roots + 1) / 2)
    means, m = np.concatenate(lines), len(lines)
    masses = np.tile(weights / 2 / m, m)

    def draw(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        y = rng.integers(m, size=n)
        points = np.stack(curves(rng.random(n)))[y, np.arange(n)]
        return points + scale * rng.standard_normal((n, 2)), y if m > 1 else None

    def log_prob(x: np.ndarray) -> np.ndarray:
        return _mixture_log_prob(x, means, masses, scale)

    return _ToyDensity(description, draw, log_prob, entropy)


def _circle_points(k: int, radius: float) -> np.ndarray:
    angle = 2 * np.pi * np.arange(k) / k
    return radius * _unit_circle_points(angle)


def _unit_circle_points(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _moons(u: np.ndarray) -> list[np.ndarray]:
    arc = _unit_circle_points(np.pi * u)
    return [arc, np.array([1.0, 0.5]) - arc]


def _circles(u: np.ndarray) -> list[np.ndarray]:
    circle = _unit_circle_points(2 * np.pi * u)
    return [3 * circle, 1.5 * circle]


def _spirals(u: np.ndarray) -> list[np.ndarray]:
    angle = 3 * np.pi * np.sqrt(u)
    arm = angle[:, None] / 3 * _unit_circle_points(angle)
    return [arm, -arm]


def _swissroll(u: np.ndarray) -> list[np.ndarray]:
    angle = 1.5 * np.pi * (1 + 2 * u)
    return [angle[:, None] / 5 * _unit_circle_points(angle)]


def _pinwheel_density() -> _ToyDensity:
    r"""Five Gaussian arms, twisted by an angle that depends on the radius alone.

    .. math:: x = 2 R(\theta_k + \rho / 2)\,a, \quad a \sim \mathcal N((1, 0),
        \mathrm{diag}(0.3^2, 0.1^2)), \quad \rho = |a|

    A twist preserves areas, so that the density is that of the arms over 4.
    """
    arms, centre, scale = 2 * np.pi * np.arange(5) / 5, np.array([1.0, 0.0]), np.array([0.3, 0.1])

    def turned(a: np.ndarray, angle: np.ndarray) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        return np.stack([c * a[:, 0] - s * a[:, 1], s * a[:, 0] + c * a[:, 1]], axis=1)

    def draw(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(5, size=n)
        a = centre + scale * rng.standard_normal((n, 2))
        return 2 * turned(a, arms[y] + np.hypot(*a.T) / 2), y

    def log_prob(x: np.ndarray) -> np.ndarray:
        a = np.asarray(x, dtype=np.float64).reshape(-1, 2) / 2
        back = [(turned(a, -t - np.hypot(*a.T) / 2) - centre) / scale for t in arms]
        terms = np.stack([-(b**2).sum(1) / 2 for b in back])
        return np.logaddexp.reduce(terms) - math.log(20 * 2 * math.pi * scale.prod())

    return _ToyDensity("a pinwheel with five arms", draw, log_prob, 2.3205884851)


def _checkerboard_density() -> _ToyDensity:
    """Uniform on the dark squares, side 2, of a board from -4 to 4: an area of 32."""

    def draw(rng: Rng, n: int) -> tuple[np.ndarray, None]:
        column, row = rng.integers(4, size=n), rng.integers(2, size=n)
        corner = np.stack([column, 2 * row + column % 2], axis=1)
        return 2 * (corner + rng.random((n, 2))) - 4, None

    def log_prob(x: np.ndarray) -> np.ndarray:
        cell = np.floor((np.asarray(x, dtype=np.float64).reshape(-1, 2) + 4) / 2)
        dark = (cell.sum(1) % 2 == 0) & (cell >= 0).all(1) & (cell < 4).all(1)
        return np.where(dark, -math.log(32), -np.inf)

    return _ToyDensity("a checkerboard of area 32", draw, log_prob, math.log(32))


def _normal_entropy(k: int, scale: float) -> float:
    return math.log(k) + math.log(2 * math.pi * math.e * scale**2)


# entropies in nats, by quadrature on a grid fine enough for all digits given
TOY_DENSITIES: dict[str, Callable[[], _ToyDensity]] = {
    "lesson": lambda: mixture_density(
        "0.3 N(-2, 0.5^2) + 0.7 N(2, 0.7^2), the lesson's example",
        np.array([[-2.0], [2.0]]), np.array([0.5, 0.7]), 1.5709637395, np.array([0.3, 0.7]),
    ),
    "moons": lambda: _curves_density("two moons, noise 0.1", _moons, 0.1, 1.0075848348, 256),
    "8gaussians": lambda: mixture_density(
        "eight Gaussians on a circle of radius 4 / 1.414",
        _circle_points(8, 4 / 1.414), 0.5 / 1.414, 2.8318804061,
    ),
    "ring": lambda: mixture_density(
        "eight narrow Gaussians on the unit circle",
        _circle_points(8, 1.0), 0.01, _normal_entropy(8, 0.01),
    ),
    "ring8": lambda: mixture_density(
        "eight Gaussians on a circle of radius 4", _circle_points(8, 4.0), 0.5, 3.5247255411
    ),
    "grid": lambda: mixture_density(
        "25 narrow Gaussians on a grid",
        np.stack(np.meshgrid(*[np.arange(-4.0, 5, 2)] * 2), axis=-1).reshape(-1, 2),
        0.05, _normal_entropy(25, 0.05),
    ),
    "checkerboard": _checkerboard_density,
    "2spirals": lambda: _curves_density("two spirals, noise 0.1", _spirals, 0.1, 2.5406178943, 512),
    "pinwheel": _pinwheel_density,
    "circles": lambda: _curves_density(
        "two circles, noise 0.24", _circles, 0.24, 3.2681357117, 256
    ),
    "swissroll": lambda: _curves_density(
        "a swiss roll from the side, noise 0.2", _swissroll, 0.2, 2.6696461739, 512
    ),
}  # fmt: skip
