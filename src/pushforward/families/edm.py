r"""EDM (Karras et al., 2022): a denoiser trained over a lognormal distribution of noise levels.

Data are blurred without shrinking, :math:`x_t = x + \sigma\varepsilon`, and the denoiser is

.. math:: \hat x(x_t, \sigma) = c_{skip}\,x_t + c_{out}\,\mathrm{net}(c_{in} x_t, \log\sigma)

with scales that give input and target unit variance at every level. Under the paper's weight
:math:`\lambda(\sigma) = 1/c_{out}^2` the loss is the plain error of the network's target, and
:math:`\log\sigma \sim \mathcal N(P_{mean}, P_{std}^2)` says which levels matter. The paper's data
have the deviation 0.5, ours 1: its :math:`P_{mean} = -1.2` is :math:`-1.2 + \log 2` here.
"""

from typing import Annotated, Unpack

import torch
from torch import Tensor

from ..diffusion import Diffusion, default_width, diffusion_recipe
from ..model import Event
from ..networks.select import TimeNetworkOptions, adapt_recipe, build_time_network
from ..options import FRACTION
from ..theory import paths, predictions, samplers


def lognormal_times(path: paths.EDMPath, mean: float, scale: float, count: int = 8192) -> Tensor:
    r"""Times at the quantiles of a normal :math:`\log\sigma` within the path's levels."""
    normal = torch.distributions.Normal(*torch.tensor([mean, scale], dtype=torch.float64))
    ends = torch.tensor([path.t_min, path.t_max], dtype=torch.float64)
    low, high = normal.cdf((path.sigma_max * ends).log())
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return normal.icdf(torch.lerp(low, high, u)).exp() / path.sigma_max


class EDM(Diffusion):
    """A diffusion with Karras et al.'s preconditioning, levels and grid."""


def build(
    event: Event,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 20.0,
    p_mean: float = -0.5,
    p_std: float = 1.6,
    rho: float = 7.0,
    sampler: str = "ipndm",
    sampler_steps: int = 40,
    unconditional: Annotated[float, FRACTION] = 0.1,
    **network: Unpack[TimeNetworkOptions],
) -> EDM:
    """Build the model.

    Arguments:
        sigma_min: The least noise, in standard deviations of the data.
        sigma_max: The most.
        p_mean: The mean of log sigma in training.
        p_std: Its deviation.
        rho: How the sampler's grid leans to small levels; 1 is even.
        sampler: The default sampler.
        sampler_steps: Its default number of steps.
        unconditional: Condition dropout probability, for guidance.
    """
    path = paths.EDMPath(sigma_max, sigma_min, rho)
    net = build_time_network(event, units=default_width(event.shape), **network)
    model = EDM(
        net,
        event.shape,
        path=path,
        prediction=predictions.edm_prediction(1.0),
        times=lognormal_times(path, p_mean, p_std),
        sampler=samplers.sampler_by_name(sampler),
        steps=sampler_steps,
    )
    model.unconditional = unconditional
    model.recipe = adapt_recipe(net, diffusion_recipe(event.size))
    return model
