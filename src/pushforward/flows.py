"""Flows whose pairs of data and noise are chosen: by a coupling, or by a teacher.

Noise that is chosen near its datum makes paths that cross less (`theory.couplings`). Where noise
is replaced by other data, the source, the flow translates between the two; the network then gives
the velocity itself, so that what is alike on both sides need not be computed. Pairs that a
teacher's flow has joined lie on one trajectory each, so that a flow fitted to them is nearly
straight and takes few steps (reflow; Liu et al., 2023).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .diffusion import Diffusion, midpoint_times
from .errors import NoLikelihood, UsageError
from .model import Encodes, GenerativeModel, Likelihood
from .rng import fork_rng, seed_rng
from .shapes import Condition, Data, PerDatum
from .theory import couplings, predictions
from .theory.couplings import Coupling, CouplingPool, Pairs
from .theory.guidance import Guided
from .theory.paths import Path
from .theory.predictions import Prediction

AT_ONCE = 256  # rows of a batch that are coupled: an assignment takes the cube of their number


def velocity_weight(prediction: Prediction) -> Callable[[Path, Tensor], Tensor]:
    r"""The weight that makes the loss of a prediction that of the velocity.

    With :math:`s^2 = \alpha^2 + \sigma^2` an error e of EDM's unit-variance target is an error
    :math:`(\sigma\dot\alpha - \alpha\dot\sigma)\,e/s` of the velocity: :math:`-e/s` if linear.
    """

    def weight(path: Path, t: Tensor) -> Tensor:
        goal = predictions.velocity_prediction
        return predictions.conversion_coefficients(path, prediction, goal, t)[1].square()

    return weight


class TransportFlow(Diffusion):
    """A flow from noise, or from the rows of a source, to data.

    ``coupling`` pairs the data of a batch with noise or with rows of the source, of which
    ``together`` are coupled at once, or those of a batch if it is 0; options are `Diffusion`'s.
    """

    source: Tensor
    pooled: Tensor

    def __init__(
        self,
        *args: Any,
        coupling: Coupling = couplings.independent_coupling,
        together: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.coupling, self.together = coupling, together
        self.register_buffer("source", torch.zeros(0, *self.event_shape))
        self.pool: CouplingPool | None = None

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        return Likelihood.NONE if len(self.source) else Likelihood.ODE

    def start_from(self, z: Data) -> None:
        goal = predictions.unit_velocity_prediction
        self.source, self.denoiser.prediction = z.to(self.source), goal
        self.weight = velocity_weight(goal)
        self.table = self.coefficients(midpoint_times(self.path)).to(self.table)
        self.register_buffer("pooled", torch.zeros(2, dtype=torch.int64, device=z.device))

    def gather(self, x: Data, c: Condition = None) -> None:
        if self.together and self.coupling is not couplings.independent_coupling:
            self.pool = CouplingPool(partial(self.couple_rows, x, c), self.together)

    def couple_rows(self, x: Data, c: Condition, n: int) -> Pairs:
        rows = torch.randint(len(x), (n,), device=x.device)
        c = None if c is None else c[rows]
        return *self.coupling(x[rows], self.base_noise(n), c), c

    def base_noise(self, n: int) -> Tensor:
        if not len(self.source):
            return super().base_noise(n)
        return self.source[torch.randint(len(self.source), (n,), device=self.source.device)]

    def draw_pairs(self, x: Data, c: Condition) -> Pairs:
        if self.training and self.pool is not None:
            return self.pool.take(len(x), self.pooled)
        start = self.base_noise(len(x)).to(x) if len(self.source) else torch.randn_like(x)
        if self.coupling is couplings.independent_coupling:
            return x, start, c
        size = max(self.together, AT_ONCE)
        return *couplings.couple_in_chunks(self.coupling, x, start, c, size=size), c

    def translate(
        self,
        z: Data,
        c: Condition = None,
        *,
        reverse: bool = False,
        guidance: Guided = 1.0,
        tolerance: float = 1e-5,
    ) -> Data:
        carry = self.encode if reverse else self.decode
        return carry(z, c, guidance=guidance, tolerance=tolerance)

    def estimated(self, x: Data, c: Condition = None, **options: Any) -> tuple[PerDatum, PerDatum]:
        """From normal noise at the path's end, which is N(0, 1) on the linear path, exactly.

        On the others the noise there still holds 1/160 of the data, and the base is normal with the
        variance that unit data would give it. NoLikelihood if the flow starts from other data.
        """
        if len(self.source):
            raise NoLikelihood("a flow from other data can be sampled but not scored")
        return super().estimated(x, c, **options)


PAIRS = 16_384  # that a teacher makes
CONDITIONS = 1024  # of the data that are kept, for a teacher to draw from
NUMBERS = 2**20  # that these have together, at most


def _stored_condition_count(condition: int) -> int:
    return min(CONDITIONS, max(16, NUMBERS // condition)) if condition else 0


class Reflow(Diffusion):
    """A flow that may have a teacher; ``condition`` is the length of ``c``, 0 for none."""

    conditions: Tensor

    def __init__(self, *args: Any, condition: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        kept = torch.zeros(_stored_condition_count(condition), condition)
        self.register_buffer("conditions", kept)
        self.teachers: tuple[Encodes, ...] = ()  # in a tuple it is no part of the state
        self.teacher_pairs: Pairs | None = None

    def prepare(self, x: Data, c: Condition = None) -> None:
        if c is not None:
            rows = torch.linspace(0, len(c) - 1, len(self.conditions)).long()
            self.conditions = c[rows].to(self.conditions)
        if self.teachers:
            self.teacher_pairs = self.make_teacher_pairs()

    def distil(self, teacher: GenerativeModel) -> None:
        if not isinstance(teacher, Encodes):
            raise UsageError(
                f"{type(teacher).__name__} is no teacher for a flow: it does not map noise to data "
                "one to one; take one of flow_matching, ddpm, cnf or normalizing_flow"
            )
        self.teachers, self.teacher_pairs = (teacher,), None

    def draw_pairs(self, x: Data, c: Condition) -> Pairs:
        if not self.teachers:
            return super().draw_pairs(x, c)
        self.teacher_pairs = self.teacher_pairs or self.make_teacher_pairs()
        rows = torch.randint(PAIRS, (len(x),), device=x.device)
        x, z, c = self.teacher_pairs
        return x[rows], z[rows], None if c is None else c[rows]

    @torch.no_grad()
    def make_teacher_pairs(self) -> Pairs:
        """Always the same: data that the teacher makes of noise, the noise, and the conditions."""
        with fork_rng(self.table.device):
            seed_rng(0, self.table.device)
            z, c = self.base_noise(PAIRS), None
            if len(self.conditions):
                c = self.conditions[torch.randint(len(self.conditions), (PAIRS,))]
            known = c.split(4096) if c is not None else [None] * PAIRS
            decode = self.teachers[0].decode
            made = [decode(part, of) for part, of in zip(z.split(4096), known)]
        return torch.cat(made), z, c
