"""Flow matching (Lipman et al., 2023): learn the velocity of a straight path, then integrate it."""

from ..diffusion import Diffusion, independent
from ..errors import UsageError
from ..model import Event, Recipe
from ..networks.mlp import TimeMLP
from ..theory import samplers
from ..theory.paths import Linear
from ..theory.predictions import velocity
from ..theory.transport import exact_coupling

COUPLINGS = {"independent": independent, "ot": exact_coupling}


class FlowMatching(Diffusion):
    """A diffusion whose loss is conditional flow matching."""

    recipe = Recipe()


def build(
    event: Event,
    *,
    width: int = 256,
    depth: int = 3,
    coupling: str = "independent",
    sampler: str = "heun",
    steps: int = 50,
) -> Diffusion:
    """Build the model.

    Arguments:
        event: What the data look like.
        width: Units in each hidden layer.
        depth: Hidden layers.
        coupling: How a batch of data is paired with noise: "independent" or "ot" (exact).
        sampler: The default sampler.
        steps: Its default number of steps.
    """
    if coupling not in COUPLINGS:
        raise UsageError(f"coupling is {coupling!r}; choose from {', '.join(COUPLINGS)}")
    return FlowMatching(
        TimeMLP(event.shape, event.condition, width=width, depth=depth),
        event.shape,
        path=Linear(),
        prediction=velocity,
        coupling=COUPLINGS[coupling],
        sampler=samplers.by_name(sampler),
        steps=steps,
    )
