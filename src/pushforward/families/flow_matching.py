"""Flow matching (Lipman et al., 2023): learn the velocity of a straight path, then integrate it."""

from torch import Tensor

from ..diffusion import Diffusion, independent, recipe_for
from ..errors import UsageError
from ..model import Event
from ..networks.mlp import TimeMLP, waves_for
from ..theory import samplers
from ..theory.paths import Linear, Path
from ..theory.predictions import karras
from ..theory.transport import exact_coupling

COUPLINGS = {"independent": independent, "ot": exact_coupling}


def of_velocity(path: Path, t: Tensor) -> Tensor:
    r"""The weight :math:`1/(\alpha_t^2 + \sigma_t^2)`, which makes EDM's loss that of the velocity.

    On the linear path an error e of EDM's unit-variance target is an error
    :math:`-e / \sqrt{\alpha_t^2+\sigma_t^2}` of the velocity.
    """
    return 1 / path.scale(t).square()


class FlowMatching(Diffusion):
    r"""Conditional flow matching on the linear path.

    .. math:: L(\theta) = \mathbb E\,\|v_\theta(x_t, t) - (\varepsilon - x)\|^2

    The network gives the deviation of the velocity from that of standard normal data, in units in
    which it has unit variance (Karras et al., 2022): untrained, the flow is that of a Gaussian.
    """


def build(
    event: Event,
    *,
    width: int = 128,
    depth: int = 3,
    waves: int | None = None,
    coupling: str = "independent",
    sampler: str = "heun",
    steps: int = 50,
) -> Diffusion:
    """Build the model.

    Arguments:
        event: What the data look like.
        width: Units in each hidden layer.
        depth: Hidden layers.
        waves: Random waves of the data as inputs; by default 64 in up to 4 dimensions.
        coupling: How a batch of data is paired with noise: "independent" or "ot" (exact).
        sampler: The default sampler.
        steps: Its default number of steps.
    """
    if coupling not in COUPLINGS:
        raise UsageError(f"coupling is {coupling!r}; choose from {', '.join(COUPLINGS)}")
    model = FlowMatching(
        TimeMLP(
            event.shape,
            event.condition,
            width=width,
            depth=depth,
            waves=waves_for(event.shape, waves),
        ),
        event.shape,
        path=Linear(),
        prediction=karras(1.0),
        weight=of_velocity,
        coupling=COUPLINGS[coupling],
        sampler=samplers.by_name(sampler),
        steps=steps,
    )
    model.recipe = recipe_for(event.size)
    return model
