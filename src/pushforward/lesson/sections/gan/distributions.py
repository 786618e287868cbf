"""What the claims and figures of the section measure on: two Gaussians, and their integrals."""

from torch import Tensor

from ....theory.exact import discriminator, divergences
from ...cases import gaussian_1d

LINE = divergences.trapezoidal_grid([-30.0], [50.0], 8001)  # steps of a hundredth of a deviation
DATA = gaussian_1d()


def shifted_log_densities(theta: float) -> tuple[Tensor, Tensor, float]:
    """Log-densities of the data and of samples shifted by theta on the line, and the weight."""
    return DATA.log_prob(LINE.points), gaussian_1d(theta).log_prob(LINE.points), LINE.weight


def shift_gradients(theta: float) -> tuple[float, float]:
    """Gradients of the saturating and of the other loss in theta, at the best discriminator."""
    log_p, log_q, weight = shifted_log_densities(theta)
    pull = DATA.score(LINE.points) - gaussian_1d(theta).score(LINE.points)
    found = discriminator.generator_slopes(log_p, log_q, pull, weight)
    return float(found.saturating), float(found.non_saturating)


def js_gradient(theta: float, h: float = 1e-4) -> float:
    """The derivative of the Jensen-Shannon divergence in theta, by central differences."""
    above, below = (
        float(divergences.jensen_shannon(*shifted_log_densities(t))) for t in (theta + h, theta - h)
    )
    return (above - below) / (2 * h)
