r"""Learning a Gaussian path by regression. DDPM, EDM and flow matching are choices of arguments."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UsageError
from .model import GenerativeModel, Likelihood
from .shapes import Condition, Data, PerDatum, Scalar, Times
from .theory import ode, samplers
from .theory.denoisers import Denoiser, Guided, NetworkDenoiser
from .theory.paths import Path
from .theory.predictions import Prediction, target
from .theory.samplers import Sampler


def uniform(path: Path, u: Tensor) -> Tensor:
    r""":math:`t \sim U(t_{\min}, t_{\max})`."""
    return path.t_min + (path.t_max - path.t_min) * u


def unit(path: Path, t: Tensor) -> Tensor:
    """No weight."""
    return torch.ones_like(t)


def independent(x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Data and noise paired as they come."""
    return x, eps


def stratified(n: int, like: Tensor) -> Tensor:
    """One uniform number in each of ``n`` equal intervals: the same law, a smaller variance."""
    return (torch.randperm(n, device=like.device) + torch.rand_like(like.flatten(1)[:, 0])) / n


class Diffusion(GenerativeModel):
    r"""Regression of a target on :math:`x_t = \alpha_t x + \sigma_t \varepsilon`.

    .. math:: L(\theta) = \mathbb E\, w_t\,
        \|\mathrm{net}_\theta(x_t, t) - (a_t x + b_t \varepsilon)\|^2

    summed over the entries of a datum. Its minimum is not zero: it is the variance of the target
    given :math:`x_t`.

    Arguments:
        net: Maps ``(batch, *event), (batch,) or (), (batch, condition)`` to ``(batch, *event)``.
        event_shape: The shape of one datum.
        path: The scales :math:`\alpha_t, \sigma_t`.
        prediction: The target :math:`(a_t, b_t)`.
        weight: The weight :math:`w_t`.
        time: The law of :math:`t` in training, as a function of a uniform number.
        coupling: Pairs data with noise, e.g. by optimal transport.
        sampler: The default sampler.
        steps: Its default number of steps.
        dropout: How often the condition is hidden in training, for guidance.
    """

    likelihood = Likelihood.ODE

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        path: Path,
        prediction: Prediction,
        weight: Callable[[Path, Tensor], Tensor] = unit,
        time: Callable[[Path, Tensor], Tensor] = uniform,
        coupling: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = independent,
        sampler: Sampler = samplers.ddpm,
        steps: int = 50,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.denoiser = NetworkDenoiser(net, path, prediction)
        self.event_shape, self.path = event_shape, path
        self.weight, self.time, self.coupling = weight, time, coupling
        self.sampler, self.steps, self.dropout = sampler, steps, dropout

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        """The regression's error in the units of the target, per datum."""
        return {"regression": self.error(x, self.time(self.path, stratified(len(x), x)), c)}

    def error(self, x: Data, t: Times, c: Condition) -> Scalar:
        """The weighted squared error at given times."""
        x, eps = self.coupling(x, torch.randn_like(x))
        x_t = self.path.interpolate(x, eps, t)
        y = target(self.path, self.denoiser.prediction, x, eps, t)
        error = (self.denoiser.output(x_t, t, self.hidden(c)) - y).square().flatten(1).sum(1)
        return (error if self.weight is unit else self.weight(self.path, t) * error).mean()

    def hidden(self, c: Condition) -> Condition:
        """Hide some conditions, so that the network learns the unconditional law as well."""
        if c is None or not self.training or not self.dropout:
            return c
        return c * (torch.rand_like(c[:, :1]) >= self.dropout)

    def guided(self, guidance: float) -> Denoiser:
        """The denoiser under classifier-free guidance: 0 is unconditional, 1 conditional."""
        return self.denoiser if guidance == 1 else Guided(self.denoiser, guidance)

    def trajectory(
        self,
        n: int,
        c: Condition = None,
        *,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance: float = 1.0,
        **options: Any,
    ) -> Iterator[Tensor]:
        """The states from noise to data, one a step.

        Arguments:
            n: How many.
            c: The condition of each.
            sampler: A sampler or its name.
            steps: Steps of the sampler.
            guidance: The scale of classifier-free guidance.
            options: What else the sampler takes.
        """
        run = samplers.by_name(sampler) if isinstance(sampler, str) else sampler or self.sampler
        for option in options:
            if option not in inspect.signature(run).parameters:
                raise UsageError(f"the sampler {run.__name__} has no option {option!r}")
        times = self.path.grid(steps or self.steps)
        eps = self.noise(n, *self.event_shape)
        x = self.path.scale(times[0]).to(eps) * eps
        return run(self.guided(guidance), x, times, c, **options)

    def sample(self, n: int, c: Condition = None, **options: Any) -> Tensor:
        """The last state of a trajectory; the options are those of `trajectory`."""
        return ode.last(self.trajectory(n, c, **options))

    @property
    def nfe(self) -> int:
        """Counted by drawing one sample."""
        calls: list[None] = []
        hook = self.denoiser.net.register_forward_hook(lambda *_: calls.append(None))
        with torch.random.fork_rng(), torch.no_grad():
            self.sample(1)
        hook.remove()
        return len(calls)

    def log_prob(self, x: Data, c: Condition = None, *, probes: int | None = None) -> PerDatum:
        """The density of the probability flow in nats (`Denoiser.log_density`).

        Arguments:
            x: Data.
            c: Conditions.
            probes: Of Hutchinson's estimate of the divergence; exact up to 64 dimensions when None.
        """
        return self.denoiser.log_prob(x, c, probes=probes)
