r"""Flow matching (Lipman et al., 2023): learn the velocity of a path, then integrate it.

.. math:: L(\theta) = \mathbb E\,\|v_\theta(x_t, t, c) - \dot x_t\|^2, \qquad
    x_t = \alpha_t x + \sigma_t\varepsilon, \quad
    \dot x_t = \dot\alpha_t x + \dot\sigma_t\varepsilon

Its minimum is :math:`v = \mathbb E[\dot x_t \mid x_t]`, whose flow carries noise to data; the
loss there is not zero. Couplings of data and noise within a batch, and pairs that a teacher has
joined (reflow, Liu et al., 2023), straighten the flow. Where noise is replaced by other data, the
flow translates between the two. The network then gives the velocity itself: pairs are alike, and
what is to stay as it is need not be computed.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Unpack

import torch
from torch import Tensor

from ..diffusion import Diffusion, default_width, diffusion_recipe, midpoint_times
from ..errors import NoLikelihood, UsageError
from ..memory import require_memory
from ..model import Event, GenerativeModel, Likelihood
from ..networks.layout import image_layout, is_image
from ..networks.select import TimeNetworkOptions, adapt_recipe, build_time_network, is_deep
from ..options import FRACTION, Choice
from ..rng import fork_rng, seed_rng
from ..shapes import Condition, Data, PerDatum
from ..theory import samplers
from ..theory.couplings import (
    Coupling,
    CouplingPool,
    Pairs,
    couple_in_chunks,
    exact_coupling,
    independent_coupling,
    outline_coupling,
    sinkhorn_coupling,
)
from ..theory.guidance import Guided
from ..theory.paths import BlurredPath, CosinePath, LinearPath, Path, VariancePreservingPath
from ..theory.predictions import (
    Prediction,
    conversion_coefficients,
    edm_prediction,
    unit_velocity_prediction,
    velocity_prediction,
)

COUPLINGS: dict[str, Coupling] = {
    "independent": independent_coupling,
    "ot": exact_coupling,
    "outlines": outline_coupling,
    "sinkhorn": sinkhorn_coupling,
}
PATHS: dict[str, Callable[[], Path]] = {
    "linear": LinearPath,
    "vp": VariancePreservingPath,
    "cosine": CosinePath,
}
SEEN = 1024  # conditions of the data that are kept, for a teacher to draw from
NUMBERS = 2**20  # that these have together, at most
PAIRS = 16_384  # that a teacher makes
GAUSSIAN = edm_prediction(
    1.0
)  # from noise, the network gives the deviation from standard normal data
AT_ONCE = 256  # rows of a batch that are coupled: an assignment takes the cube of their number
POOL = 2048  # rows that are where the network takes much longer


def stored_condition_count(condition: int) -> int:
    """How many conditions of a length are kept: fewer where tokens of text make them long."""
    return min(SEEN, max(16, NUMBERS // condition)) if condition else 0


def velocity_weight(prediction: Prediction) -> Callable[[Path, Tensor], Tensor]:
    r"""The weight that makes the loss of a prediction that of the velocity.

    With :math:`s^2 = \alpha^2 + \sigma^2` an error e of EDM's unit-variance target is an error
    :math:`(\sigma\dot\alpha - \alpha\dot\sigma)\,e/s` of the velocity: :math:`-e/s` if linear.
    """

    def weight(path: Path, t: Tensor) -> Tensor:
        return conversion_coefficients(path, prediction, velocity_prediction, t)[1].square()

    return weight


class FlowMatching(Diffusion):
    """Conditional flow matching on a Gaussian path, or between two data sets.

    The network gives the deviation of the velocity from that of standard normal data, in units in
    which it has unit variance (Karras et al., 2022): untrained, the flow is that of a Gaussian.
    From other data it gives the velocity itself: untrained, everything stays where it is.

    Arguments:
        coupling: Pairs the data of a batch with noise.
        together: How many rows of other data are coupled at once, 0 for those of a batch.
        condition: The length of ``c``, 0 for none.
        options: Those of `Diffusion`.
    """

    source: Tensor
    conditions: Tensor
    pooled: Tensor

    def __init__(
        self,
        *args: Any,
        coupling: Coupling = independent_coupling,
        together: int = 0,
        condition: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.coupling, self.together = coupling, together
        self.register_buffer("source", torch.zeros(0, *self.event_shape))
        self.register_buffer(
            "conditions", torch.zeros(stored_condition_count(condition), condition)
        )
        self.teachers: tuple[GenerativeModel, ...] = ()
        self.made: Pairs | None = None
        self.pool: CouplingPool | None = None

    def prepare(self, x: Data, c: Condition = None) -> None:
        """Remember what conditions there are, and have the teacher make its pairs."""
        if c is not None:
            rows = torch.linspace(0, len(c) - 1, len(self.conditions)).long()
            self.conditions = c[rows].to(self.conditions)
        if self.teachers:
            self.made = self.taught()

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        """That of the probability flow; none from other data, whose density is unknown."""
        return Likelihood.NONE if len(self.source) else Likelihood.ODE

    def start_from(self, z: Data) -> None:
        """Start the flow at rows of other data, standardised, in place of noise."""
        self.source = z.to(self.source)
        self.denoiser.prediction, self.weight = (
            unit_velocity_prediction,
            velocity_weight(unit_velocity_prediction),
        )
        self.table = self.coefficients(midpoint_times(self.path)).to(self.table)
        self.register_buffer("pooled", torch.zeros(2, dtype=torch.int64, device=z.device))

    def gather(self, x: Data, c: Condition = None) -> None:
        """Keep the data that are coupled with those of the source before and beside a batch."""
        if self.together and self.coupling is not independent_coupling:
            self.pool = CouplingPool(partial(self.coupled, x, c), self.together)

    def coupled(self, x: Data, c: Condition, n: int) -> Pairs:
        """So many of the data, drawn with replacement, and rows of the source."""
        rows = torch.randint(len(x), (n,), device=x.device)
        c = None if c is None else c[rows]
        return *self.coupling(x[rows], self.start(n), c), c

    def distil(self, teacher: GenerativeModel) -> None:
        """Learn from pairs that a teacher's flow has joined (reflow).

        Raises:
            UsageError: If the teacher does not map noise to data.
        """
        if not callable(getattr(teacher, "decode", None)):
            raise UsageError(
                f"{type(teacher).__name__} is no teacher for a flow: it does not map noise to data "
                "one to one; take one of flow_matching, ddpm, cnf or normalizing_flow"
            )
        self.teachers, self.made = (teacher,), None

    def start(self, n: int) -> Tensor:
        """Noise, or rows of the source."""
        if not len(self.source):
            return super().start(n)
        rows = torch.randint(len(self.source), (n,), device=self.source.device)
        return self.source[rows]

    def pairs(self, x: Data, c: Condition) -> Pairs:
        """Data and what they are joined to: coupled in the batch, or any pairs of the teacher.

        In training they are those of a pool, if there is one, in place of the batch.
        """
        if self.teachers:
            self.made = self.made or self.taught()
            rows = torch.randint(PAIRS, (len(x),), device=x.device)
            made, z, c = self.made
            return made[rows], z[rows], None if c is None else c[rows]
        if self.training and self.pool is not None:
            return self.pool.take(len(x), self.pooled)
        start = self.start(len(x)).to(x) if len(self.source) else torch.randn_like(x)
        return *couple_in_chunks(self.coupling, x, start, c, size=max(self.together, AT_ONCE)), c

    @torch.no_grad()
    def taught(self) -> Pairs:
        """Data that the teacher makes of noise, the noise, and the conditions: always the same."""
        with fork_rng(self.table.device):
            seed_rng(0, self.table.device)
            z, c = self.start(PAIRS), None
            if len(self.conditions):
                c = self.conditions[torch.randint(len(self.conditions), (PAIRS,))]
            known = c.split(4096) if c is not None else [None] * PAIRS
            decode = self.teachers[0].decode
            made = [decode(part, of) for part, of in zip(z.split(4096), known)]  # type: ignore[operator]
        return torch.cat(made), z, c

    def translate(
        self,
        z: Data,
        c: Condition = None,
        *,
        reverse: bool = False,
        guidance: Guided = 1.0,
        tolerance: float = 1e-5,
    ) -> Data:
        """Carry source rows to data along the flow, or data to the source.

        Arguments:
            z: Rows of the source, or data if ``reverse``.
            c: The condition of the data.
            reverse: From data to source; the inverse up to the solver's tolerance.
            guidance: As of `Diffusion.decode`.
            tolerance: The same.
        """
        carry = self.encode if reverse else self.decode
        return carry(z, c, guidance=guidance, tolerance=tolerance)

    def estimated(self, x: Data, c: Condition = None, **options: Any) -> tuple[PerDatum, PerDatum]:
        """The density of the probability flow in nats, from normal noise at the path's end.

        That is N(0, 1) on the linear path, exactly; on the others the noise there still holds 1/160
        of the data, and the base is normal with the variance that unit data would give it.

        Raises:
            NoLikelihood: If the flow starts from other data.
        """
        if len(self.source):
            raise NoLikelihood("a flow from other data can be sampled but not scored")
        return super().estimated(x, c, **options)


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
        event: What the data look like.
        path: "linear", "vp" (variance preserving) or "cosine".
        sigma_min: Noise that is left in the data, in their standard deviation.
        coupling: How data are paired with noise, or with those of a source: "independent", "ot"
            (at the least total squared distance), "outlines" (the same of the outlines and hues of
            pictures, whatever their brightness) or "sinkhorn" (entropic).
        together: How many rows a coupling pairs with those of a source at once, of which batches
            are then taken; by default 2048 for a U-Net or a transformer, otherwise those of a
            batch.
        sampler: The default sampler.
        sampler_steps: Its default number of steps; by default 50, and 20 for images, where more
            were not measured to be better.
        unconditional: How often the condition is hidden in training, for guidance.
    """
    scales, joined = PATHS[path](), COUPLINGS[coupling]
    if sampler_steps is None:
        sampler_steps = 20 if is_image(event.shape) else 50
    net = build_time_network(event, units=default_width(event.shape), **network)
    if joined is outline_coupling:
        joined = partial(joined, first=image_layout(event.shape).to_channels_first)
    if together is None:
        together = POOL if is_deep(net) else 0
    require_memory(8 * together**2, f"together={together}", "lower it")
    return FlowMatching(
        net,
        event.shape,
        path=BlurredPath(scales, sigma_min) if sigma_min else scales,
        prediction=GAUSSIAN,
        weight=velocity_weight(GAUSSIAN),
        coupling=joined,
        together=together,
        condition=event.condition,
        sampler=samplers.sampler_by_name(sampler),
        steps=sampler_steps,
        unconditional=unconditional,
        recipe=adapt_recipe(net, diffusion_recipe(event.size)),
    )
