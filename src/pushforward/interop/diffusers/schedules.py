r"""Schedulers of `diffusers` as our paths, predictions and grids of times.

A scheduler with T betas is the path of its table, and its timestep n = 0, ..., T - 1 our time
:math:`t = (n + 1)/T`. A flow-matching scheduler is the linear path, with the timestep :math:`T t`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import DataError, UsageError
from ...options import choose_option
from ...shapes import Condition, Data, Times, append_dims
from ...theory import predictions
from ...theory.ddpm_schedule import DDPMPath
from ...theory.denoisers import Denoiser
from ...theory.paths import LinearPath
from ...theory.predictions import PosteriorMeans, Prediction

SAME_STEPS = {  # the sampler of ours that takes the same steps; Euler's in sigma / alpha are DDIM's
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "ddim",
    "HeunDiscreteScheduler": "heun",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "FlowMatchEulerDiscreteScheduler": "euler",
}
PREDICTIONS = {
    "epsilon": predictions.noise_prediction,
    "v_prediction": predictions.v_prediction,
    "sample": predictions.data_prediction,
    "flow_prediction": predictions.velocity_prediction,
}


class SchedulerPath(DDPMPath):
    r"""The path of a table of :math:`\bar\alpha_1, \dots, \bar\alpha_T` as a scheduler holds it.

    The last one is 0 in schedules rescaled to end in pure noise, or a number that some schedulers
    put in its place; a path has to fall, and ends at 2^-24 of the one before it then.
    """

    def __init__(self, alpha_bar: Tensor) -> None:
        kept = alpha_bar.double().cpu().clone()
        if not 0 < kept[-1] < kept[-2]:
            kept[-1] = kept[-2] * 2.0**-24
        super().__init__(1 - kept / torch.cat([kept.new_ones(1), kept[:-1]]))

    def network_time(self, t: Tensor) -> Tensor:
        """The timestep to a thousandth, so that whole ones are whole in any precision."""
        return ((self.steps * t - 1) * 1000).round() / 1000


class _FlowMatchingPath(LinearPath):
    """The linear path of networks that see :math:`x_t` as it is, and timesteps from 0 to T."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def network_time(self, t: Tensor) -> Tensor:
        return self.steps * t

    def scale(self, t: Tensor) -> Tensor:
        """1, the deviation of the noise: nothing is scaled on its way into the network."""
        return torch.ones_like(t)


class ClippedDenoiser(Denoiser):
    """A denoiser whose estimate of the data is clipped to ``(-bound, bound)``.

    The estimate of the noise is what that of the data leaves, or with ``keeps_noise`` stays as it
    was, as in DDIMScheduler's steps.
    """

    def __init__(self, denoiser: Denoiser, bound: float, keeps_noise: bool = False) -> None:
        super().__init__()
        self.denoiser, self.path, self.bound = denoiser, denoiser.path, bound
        self.keeps_noise = keeps_noise

    def forward(self, x_t: Data, t: Times, c: Condition = None) -> PosteriorMeans:
        found = self.denoiser(x_t, t, c)
        x = found.x.clamp(-self.bound, self.bound)
        if self.keeps_noise:
            return PosteriorMeans(x, found.eps)
        alpha, sigma = self.path(append_dims(t, x_t))
        return PosteriorMeans(x, (x_t - alpha * x) / sigma)


class NoiseSchedule(NamedTuple):
    scheduler: Any
    path: SchedulerPath | _FlowMatchingPath
    prediction: Prediction
    clip: float | None  # the bound that the scheduler clips estimates of the data to, if it does

    @property
    def sampler(self) -> str:
        """Our sampler with the same steps, or a good one where there is none."""
        return SAME_STEPS.get(type(self.scheduler).__name__, "dpmpp_2m")

    def clip_denoiser(self, denoiser: Denoiser) -> Denoiser:
        if self.clip is None:
            return denoiser
        keeps_noise = type(self.scheduler).__name__ == "DDIMScheduler"
        return ClippedDenoiser(denoiser, self.clip, keeps_noise)

    @property
    def variance(self) -> float:
        """The v of ancestral sampling (`samplers.ddpm`); a learned one counts as small."""
        return float(str(self.scheduler.config.get("variance_type", "")).startswith("fixed_large"))

    def grid(self, steps: int) -> Tensor:
        """The times at which the scheduler's own steps end, in float64; not all numbers exist."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        try:
            scheduler.set_timesteps(steps)
        except (ArithmeticError, ValueError, IndexError) as error:
            raise UsageError(f"{type(scheduler).__name__} cannot take {steps} steps: {error}; give "
                             "others, or times") from error  # fmt: skip
        if isinstance(self.path, _FlowMatchingPath):
            return scheduler.sigmas.double().unique_consecutive()
        if hasattr(scheduler, "sigmas"):
            sigma = scheduler.sigmas.double().unique_consecutive()
            index = self.path.inverse(sigma) * self.path.steps
            near = (index - index.round()).abs() < 1e-3  # the noise of a timestep of the table
            return torch.where(near, index.round(), index) / self.path.steps
        index = scheduler.timesteps.double() + 1
        end = 0.0 if scheduler.config.get("set_alpha_to_one", True) else 1.0
        return torch.cat([index, index.new_tensor([end])]).unique_consecutive() / self.path.steps


def read_scheduler(scheduler: Any) -> NoiseSchedule:
    config, name = scheduler.config, type(scheduler).__name__
    steps, kind = config.get("num_train_timesteps", 0), config.get("prediction_type", "epsilon")
    unknown = config.get("thresholding") or config.get("timestep_type") == "continuous"
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
        path: SchedulerPath | _FlowMatchingPath = _FlowMatchingPath(steps)
        kind = "flow_prediction"
    elif hasattr(scheduler, "alphas_cumprod") and not unknown:
        path = SchedulerPath(scheduler.alphas_cumprod)
    else:
        raise DataError(
            f"{name} as it is set is no scheduler that is known here: it must have a table of beta "
            "without thresholding and continuous timesteps, or be one of flow matching"
        )
    clip = config.get("clip_sample_range", 1.0) if config.get("clip_sample") else None
    return NoiseSchedule(scheduler, path, choose_option("prediction_type", kind, PREDICTIONS), clip)
