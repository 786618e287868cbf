r"""Two models trained in turn: the first makes codes of data, the second learns their distribution.

The second sees :math:`u = (z - m)/s`, codes standardised for each channel. The statistics m and
:math:`s^2` are those of the last codes of the first stage, or of all where the first is fitted.
"""

import torch
from torch import Tensor

from .model import GenerativeModel

MEMORY = 100  # batches, at most, that the statistics of codes are a mean over


def _channel_mean(z: Tensor) -> Tensor:
    return z.mean([0, *range(2, z.ndim)])[(...,) + (None,) * (z.ndim - 2)]


class TwoStage(GenerativeModel):
    """The stages of a run, of which ``stage`` is the first model's part, and its codes' moments."""

    mean: Tensor
    variance: Tensor
    rounds: Tensor
    settled: Tensor

    def __init__(self, stage: float) -> None:
        super().__init__()
        self.stage = stage

    def reset_codes(self, shape: tuple[int, ...], like: Tensor) -> None:
        ones = torch.ones(shape[0], *[1] * (len(shape) - 1)).to(like)
        self.register_buffer("mean", torch.zeros_like(ones))
        self.register_buffer("variance", ones)
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64, device=like.device))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool, device=like.device))

    @property
    def in_second_stage(self) -> bool:
        """Whether the first model is done; for good, even where a run is given more steps."""
        return bool(self.settled) or (self.progress >= self.stage and bool(self.rounds))

    def stage_progress(self, count: int, steps: int) -> tuple[int, int]:
        if not self.in_second_stage:
            return count, max(1, round(self.stage * steps))
        return count - int(self.rounds), steps - int(self.rounds)

    def measure_codes(self, z: Tensor) -> None:
        self.mean.copy_(_channel_mean(z))
        self.variance.copy_(_channel_mean((z - self.mean).square()))

    @torch.no_grad()
    def update_code_statistics(self, z: Tensor) -> None:
        """Over the last tenth of the rounds or so."""
        weight = max(1 / MEMORY, 10 / (10 + int(self.rounds)))
        z = z.to(self.mean)
        self.mean.lerp_(_channel_mean(z), weight)
        self.variance.lerp_(_channel_mean((z - self.mean).square()), weight)

    @property
    def scale(self) -> Tensor:
        return self.variance.sqrt().clamp(min=1e-4)

    def standardise(self, z: Tensor) -> Tensor:
        return (z - self.mean) / self.scale

    def restore_codes(self, u: Tensor) -> Tensor:
        return self.mean + self.scale * u
