r"""Flow matching (Lipman et al., 2023): learn the velocity of a path, then integrate it.

.. math:: L(\theta) = \mathbb E\,\|v_\theta(x_t, t, c) - \dot x_t\|^2, \qquad
    x_t = \alpha_t x + \sigma_t\varepsilon, \quad
    \dot x_t = \dot\alpha_t x + \dot\sigma_t\varepsilon

Its minimum is :math:`v = \mathbb E[\dot x_t \mid x_t]`, whose flow carries noise to data; the
loss there is not zero. Couplings of data and noise within a batch, and pairs that a teacher has
joined, straighten the flow (`flows`); from other data it translates between the two.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Unpack

from ..diffusion import default_width, diffusion_recipe
from ..flows import Reflow, TransportFlow, velocity_weight
from ..memory import require_memory
from ..model import Event
from ..networks.layout import image_layout
from ..networks.select import TimeNetworkOptions, adapt_recipe, build_time_network, is_deep
from ..options import FRACTION, Choice
from ..theory import couplings, paths, samplers
from ..theory.predictions import edm_prediction

COUPLINGS: dict[str, couplings.Coupling] = {
    "independent": couplings.independent_coupling,
    "ot": couplings.exact_coupling,
    "outlines": couplings.outline_coupling,
    "sinkhorn": couplings.sinkhorn_coupling,
}
PATHS: dict[str, Callable[[], paths.Path]] = {
    "linear": paths.LinearPath,
    "vp": paths.VariancePreservingPath,
    "cosine": paths.CosinePath,
}
GAUSSIAN = edm_prediction(1.0)  # the deviation of the velocity from that of standard normal data
POOL = 2048  # rows that are coupled at once where the network takes much longer


class FlowMatching(Reflow, TransportFlow):
    """Conditional flow matching on a Gaussian path, or between two data sets.

    The network gives the deviation of the velocity from that of standard normal data, in units in
    which it has unit variance (Karras et al., 2022): untrained, the flow is that of a Gaussian.
    From other data it gives the velocity itself: untrained, everything stays where it is.
    """


def build(
    event: Event,
    *,
    path: Annotated[str, Choice(PATHS)] = "linear",
    sigma_min: float = 0.0,
    coupling: Annotated[str, Choice(COUPLINGS)] = "independent",
    together: int | None = None,
    sampler: str = "heun",
    sampler_steps: int | None = None,
    unconditional: Annotated[float, FRACTION] = 0.1,
    **network: Unpack[TimeNetworkOptions],
) -> FlowMatching:
    """Build the model.

    Arguments:
        path: "linear", "vp" (variance preserving) or "cosine".
        sigma_min: Noise that is left in the data, in their standard deviation.
        coupling: How data are paired with noise, or with those of a source: "independent", "ot"
            (at the least total squared distance), "outlines" (the same of the outlines and hues of
            images, whatever their brightness) or "sinkhorn" (entropic).
        together: Rows that a coupling pairs with those of a source at once; by default those of a
            batch, and 2048 for a U-Net or a transformer.
        sampler: The default sampler.
        sampler_steps: Its default number of steps; by default 50, and 20 for images.
        unconditional: Condition dropout probability, for guidance.
    """
    scales, joined = PATHS[path](), COUPLINGS[coupling]
    if sampler_steps is None:
        sampler_steps = 20 if len(event.shape) in (2, 3) else 50
    net = build_time_network(event, units=default_width(event.shape), **network)
    if joined is couplings.outline_coupling:
        joined = partial(joined, first=image_layout(event.shape).to_channels_first)
    if together is None:
        together = POOL if is_deep(net) else 0
    require_memory(8 * together**2, f"together={together}", "lower it")
    model = FlowMatching(
        net,
        event.shape,
        path=paths.BlurredPath(scales, sigma_min) if sigma_min else scales,
        prediction=GAUSSIAN,
        weight=velocity_weight(GAUSSIAN),
        coupling=joined,
        together=together,
        condition=event.condition,
        sampler=samplers.sampler_by_name(sampler),
        steps=sampler_steps,
    )
    model.unconditional = unconditional
    model.recipe = adapt_recipe(net, diffusion_recipe(event.size))
    return model
