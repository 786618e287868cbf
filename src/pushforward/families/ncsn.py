r"""NCSN (Song & Ermon, 2019): scores at a ladder of noise levels, sampled by annealed Langevin.

One network learns the score of data blurred by every level, by denoising score matching with the
weight :math:`\sigma^2`, under which all levels count alike:

.. math:: L(\theta) = \mathbb E_\sigma\,\sigma^2\,
    \Big\|s_\theta(x + \sigma\varepsilon, \sigma) + \frac{\varepsilon}{\sigma}\Big\|^2

The levels are chosen from the data (Song & Ermon, 2020): the largest is the largest distance
between two data, so that chains move freely between modes, and neighbouring levels overlap within
three standard deviations in d dimensions. Training draws from all levels between the ends of the
ladder (Song et al., 2021), so that the probability flow, and its density, are learnt as well.
"""

import math
from typing import Annotated, Any, Unpack

import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm
from torch import Tensor, nn

from ..diffusion import Diffusion
from ..model import Event, Recipe
from ..networks.select import TimeNetworkOptions, adapt_recipe, build_time_network
from ..options import FRACTION
from ..shapes import Condition, Data
from ..theory import predictions, samplers
from ..theory.denoisers import Sampler
from ..theory.paths import GeometricPath

WIDEST = 1.2  # the ratio of levels is at most this: in few dimensions all of them overlap
TARGET = predictions.edm_prediction(1.0)


def data_diameter(x: Data, most: int = 2000) -> float:
    rows = x.flatten(1)[:: -(-len(x) // most)]
    return float(torch.cdist(rows, rows).max())


def level_ratio(d: int) -> float:
    r"""The ratio :math:`\gamma` of neighbouring levels (Song & Ermon, 2020, technique 2).

    .. math:: \Phi(\sqrt{2d}(\gamma - 1) + 3\gamma) - \Phi(\sqrt{2d}(\gamma - 1) - 3\gamma) = 0.5

    The length of noise of one level is near :math:`\mathcal N(\sqrt d\sigma, \sigma^2/2)`: half of
    it lies within three deviations of the next level's.
    """

    def excess(g: float) -> float:
        offset = (2 * d) ** 0.5 * (g - 1)
        return float(norm.cdf(offset + 3 * g) - norm.cdf(offset - 3 * g)) - 0.5

    return brentq(excess, 1.0, WIDEST) if excess(WIDEST) < 0 else WIDEST


def balanced_snr(ratio: float, corrections: int) -> float:
    r"""The step with which a level's chain ends nearest its distribution (Song & Ermon, 2020,
    technique 4).

    Noise comes from the level above with :math:`\gamma^2` of this level's variance; k steps of
    :math:`h = \eta\sigma^2,\ \eta = 2r^2`, leave

    .. math:: S + (1 - \eta)^{2k}(\gamma^2 - S), \qquad S = 1 / (1 - \eta/2)

    which is least, and nearest to 1, between the noise that stays and the bias of long steps.
    """

    def left(eta: float) -> float:
        settled = 1 / (1 - eta / 2)
        return settled + (1 - eta) ** (2 * corrections) * (ratio**2 - settled)

    return math.sqrt(minimize_scalar(left, bounds=(1e-4, 1.0), method="bounded").x / 2)


class NCSN(Diffusion):
    recipe = Recipe(steps=4500, batch=1024, lr=2e-3, clip=10.0)
    path: GeometricPath

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        sigma_min: float = 0.01,
        levels: int | None = None,
        sampler: Sampler = samplers.annealed_langevin,
    ) -> None:
        super().__init__(
            net,
            event_shape,
            path=GeometricPath(10.0, sigma_min),
            prediction=TARGET,
            weight=predictions.noise_error_weight(TARGET),
            sampler=sampler,
        )
        self.levels = levels
        self.set_largest_level(10.0)

    def set_largest_level(self, sigma_max: float) -> None:
        low = self.path.sigma_min
        self.path = self.denoiser.path = GeometricPath(max(sigma_max, 2 * low), low)
        self.table = self.coefficients(self.path.spaced_times(8192)).to(self.table)
        ratio = level_ratio(math.prod(self.event_shape))
        rungs = math.log(self.path.sigma_max / low) / math.log(ratio)
        self.steps = self.levels or 1 + math.ceil(rungs)

    def prepare(self, x: Data, c: Condition = None) -> None:
        """Technique 1: chains at the largest level move between any two data."""
        self.set_largest_level(data_diameter(x))

    def get_extra_state(self) -> Tensor:
        return self.table.new_tensor(self.path.sigma_max)

    def set_extra_state(self, state: Tensor) -> None:
        self.set_largest_level(float(state))

    def sampler_options(self, run: Sampler, times: Tensor, given: dict[str, Any]) -> dict[str, Any]:
        """Annealed Langevin takes the step of technique 4 unless it is given one."""
        if run is not samplers.annealed_langevin or "snr" in given or len(times) < 3:
            return given
        levels = self.path.sigma(times[:2])
        ratio = float(levels[0] / levels[1])
        return given | {"snr": balanced_snr(ratio, given.get("corrections", 10))}


def build(
    event: Event,
    *,
    sigma_min: float = 0.01,
    levels: int | None = None,
    sampler: str = "annealed_langevin",
    unconditional: Annotated[float, FRACTION] = 0.1,
    **network: Unpack[TimeNetworkOptions],
) -> NCSN:
    """Build the model.

    Arguments:
        sigma_min: The least level of noise, in standard deviations of the data.
        levels: How many, each a step of the sampler; by default so many that neighbours overlap.
        sampler: The default sampler.
        unconditional: Condition dropout probability, for guidance.
    """
    net = build_time_network(event, units=128, **network)
    model = NCSN(
        net,
        event.shape,
        sigma_min=sigma_min,
        levels=levels,
        sampler=samplers.sampler_by_name(sampler),
    )
    model.unconditional, model.recipe = unconditional, adapt_recipe(net, NCSN.recipe)
    return model
