"""Reflow (Liu et al., 2023): a flow learns from pairs that a teacher's flow has joined.

The pairs lie on one trajectory each, so that the new flow is nearly straight: few steps follow it.
"""

from typing import Any

import torch
from torch import Tensor

from .diffusion import Diffusion
from .errors import UsageError
from .model import Encodes, GenerativeModel
from .rng import fork_rng, seed_rng
from .shapes import Condition, Data
from .theory.couplings import Pairs

PAIRS = 16_384  # that a teacher makes
CONDITIONS = 1024  # of the data that are kept, for a teacher to draw from
NUMBERS = 2**20  # that these have together, at most


def _stored_condition_count(condition: int) -> int:
    """How many conditions of a length are kept: fewer where tokens of text make them long."""
    return min(CONDITIONS, max(16, NUMBERS // condition)) if condition else 0


class Reflow(Diffusion):
    """A flow that may have a teacher.

    Arguments:
        condition: The length of ``c``, 0 for none.
        options: Those of `Diffusion`.
    """

    conditions: Tensor

    def __init__(self, *args: Any, condition: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        kept = torch.zeros(_stored_condition_count(condition), condition)
        self.register_buffer("conditions", kept)
        self.teachers: tuple[Encodes, ...] = ()  # in a tuple it is no part of the state
        self.teacher_pairs: Pairs | None = None

    def prepare(self, x: Data, c: Condition = None) -> None:
        """Remember what conditions there are, and have the teacher make its pairs."""
        if c is not None:
            rows = torch.linspace(0, len(c) - 1, len(self.conditions)).long()
            self.conditions = c[rows].to(self.conditions)
        if self.teachers:
            self.teacher_pairs = self.make_teacher_pairs()

    def distil(self, teacher: GenerativeModel) -> None:
        """Learn from pairs of a teacher in place of the data.

        Raises:
            UsageError: If the teacher does not map noise to data.
        """
        if not isinstance(teacher, Encodes):
            raise UsageError(
                f"{type(teacher).__name__} is no teacher for a flow: it does not map noise to data "
                "one to one; take one of flow_matching, ddpm, cnf or normalizing_flow"
            )
        self.teachers, self.teacher_pairs = (teacher,), None

    def draw_pairs(self, x: Data, c: Condition) -> Pairs:
        """As many of the teacher's pairs as there are data, if there is a teacher."""
        if not self.teachers:
            return super().draw_pairs(x, c)
        self.teacher_pairs = self.teacher_pairs or self.make_teacher_pairs()
        rows = torch.randint(PAIRS, (len(x),), device=x.device)
        x, z, c = self.teacher_pairs
        return x[rows], z[rows], None if c is None else c[rows]

    @torch.no_grad()
    def make_teacher_pairs(self) -> Pairs:
        """Data that the teacher makes of noise, the noise, and the conditions: always the same."""
        with fork_rng(self.table.device):
            seed_rng(0, self.table.device)
            z, c = self.base_noise(PAIRS), None
            if len(self.conditions):
                c = self.conditions[torch.randint(len(self.conditions), (PAIRS,))]
            known = c.split(4096) if c is not None else [None] * PAIRS
            decode = self.teachers[0].decode
            made = [decode(part, of) for part, of in zip(z.split(4096), known)]
        return torch.cat(made), z, c
