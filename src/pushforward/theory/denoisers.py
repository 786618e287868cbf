r"""Denoisers: everything that a sampler needs to know about a model, and the steps of its grid."""

import abc
import math
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..shapes import Condition, Data, PerDatum, Times, append_dims, sum_event
from . import densities, predictions
from .densities import LogDensity
from .paths import Path
from .predictions import PosteriorMeans, Prediction

Estimate = Callable[[Data], PosteriorMeans]


class Denoiser(nn.Module, abc.ABC):
    r"""Maps :math:`(x_t, t)` to the posterior means of :math:`x` and :math:`\varepsilon`."""

    path: Path

    @abc.abstractmethod
    def forward(self, x_t: Data, t: Times, c: Condition = None) -> PosteriorMeans: ...

    def estimates(self, times: Tensor, c: Condition = None) -> list[Estimate]:
        """The denoiser at each time of a grid, a function of the data alone, as samplers need it.

        A subclass may compute here, once for the whole grid, what depends on time only.
        """
        return [lambda x_t, t=t: self(x_t, t, c) for t in times]  # type: ignore[misc]

    def velocities(self, times: Tensor, c: Condition = None) -> list[Callable[[Data], Data]]:
        return [lambda x_t, t=t: self.velocity(x_t, t, c) for t in times]  # type: ignore[misc]

    def smooth_intervals(self, times: Tensor) -> list[tuple["Denoiser", Tensor]]:
        """Parts of the way between two times in which the flow is smooth, with its denoiser there.

        A solver that chooses its own steps goes through one after the other.
        """
        return [(self, times)]

    def score(self, x_t: Data, t: Times, c: Condition = None) -> Data:
        r""":math:`\nabla \log p_t(x_t) = -\mathbb E[\varepsilon \mid x_t] / \sigma_t`."""
        return -self(x_t, t, c).eps / append_dims(self.path.sigma(t), x_t)

    def velocity(self, x_t: Data, t: Times, c: Condition = None) -> Data:
        r"""The flow's velocity :math:`\dot\alpha_t \hat x + \dot\sigma_t \hat\varepsilon`."""
        x, eps = self(x_t, t, c)
        d_alpha, d_sigma = self.path.rates(append_dims(t, x_t))
        return d_alpha * x + d_sigma * eps

    def base_log_prob(self, x: Data) -> PerDatum:
        r""":math:`\log\mathcal N(x \mid 0, s^2 I)`, s the deviation at ``t_max`` for unit data."""
        s = float(self.path.scale(torch.tensor(self.path.t_max, dtype=torch.float64)))
        return -sum_event((x / s).square() / 2 + math.log(s) + math.log(2 * math.pi) / 2)

    def log_density(
        self,
        x: Data,
        c: Condition = None,
        *,
        base: Callable[[Tensor], Tensor] | None = None,
        times: Tensor | None = None,
        **options: Any,
    ) -> LogDensity:
        r"""Log-density of the probability flow (Song et al., 2021), from noise at ``t_max``.

        It is the density of :math:`x_t` at ``t_min``: data blurred by :math:`\sigma_{t_\min}`
        (not at all on paths with ``t_min = 0``). ``base`` is the log-density at ``t_max``, normal
        with the variance of unit data; options are those of `densities.flow_log_density`.
        """
        if times is None:
            times = torch.tensor([self.path.t_min, self.path.t_max], dtype=torch.float64)
        return densities.flow_log_density(
            lambda z, t: self.velocity(z, t, c), x, times, base or self.base_log_prob, **options
        )

    def log_prob(self, x: Data, c: Condition = None, **options: Any) -> PerDatum:
        return self.log_density(x, c, **options).value


class NetworkDenoiser(Denoiser):
    """A denoiser whose network makes the given kind of prediction.

    It maps x, ``(batch, *event)``, t, ``()`` or ``(batch,)``, and c to the shape of x.
    """

    def __init__(self, net: nn.Module, path: Path, prediction: Prediction) -> None:
        super().__init__()
        self.net, self.path, self.prediction = net, path, prediction

    def predict(self, x_t: Data, t: Times, c: Condition = None) -> Data:
        """The raw prediction; the input is scaled to unit variance for unit-variance data."""
        return self.net(x_t / append_dims(self.path.scale(t), x_t), self.path.network_time(t), c)

    def forward(self, x_t: Data, t: Times, c: Condition = None) -> PosteriorMeans:
        y = self.predict(x_t, t, c)
        return predictions.solve_posterior_means(self.path, self.prediction, x_t, y, t)

    def estimates(self, times: Tensor, c: Condition = None) -> list[Estimate]:
        goals = predictions.data_prediction, predictions.noise_prediction
        found = self.prepare_predictions(times, c, *goals)
        return [lambda x_t, f=f: PosteriorMeans(*f(x_t)) for f in found]  # type: ignore[misc]

    def velocities(self, times: Tensor, c: Condition = None) -> list[Callable[[Data], Data]]:
        goals = self.prepare_predictions(times, c, predictions.velocity_prediction)
        return [lambda x_t, f=f: f(x_t)[0] for f in goals]  # type: ignore[misc]

    def prepare_predictions(
        self, times: Tensor, c: Condition, *goals: Prediction
    ) -> list[Callable[[Data], list[Data]]]:
        """At each time of a grid, a function from data to these predictions."""
        if callable(read := getattr(self.net, "read", None)):
            c = read(c)  # a network that reads its condition does so once
        exact = times.cpu().double()
        scales = self.path.scale(exact).tolist()
        convert = partial(predictions.conversion_coefficients, self.path, self.prediction)
        columns = [convert(goal, exact) for goal in goals]
        pairs = zip(*(zip(p.tolist(), q.tolist()) for p, q in columns))

        def predict(clock: Tensor, s: float, pairs: Any, x_t: Data) -> list[Data]:
            y = self.net(x_t if s == 1 else x_t / s, clock, c)
            return [torch.add(p * x_t, y, alpha=q) for p, q in pairs]

        rows = zip(self.path.network_time(times), scales, pairs)
        return [partial(predict, *row) for row in rows]

    def velocity(self, x_t: Data, t: Times, c: Condition = None) -> Data:
        """The same in one conversion: finite wherever the network predicts the velocity."""
        y = self.predict(x_t, t, c)
        goal = predictions.velocity_prediction
        return predictions.convert_prediction(self.path, self.prediction, goal, x_t, y, t)


Sampler = Callable[..., Iterator[Tensor]]


def without_graph(sampler: Sampler) -> Sampler:
    """Run a sampler without gradients, which stay as they are for whoever takes its states."""

    @wraps(sampler)
    def run(*args: Any, **options: Any) -> Iterator[Tensor]:
        states = sampler(*args, **options)
        while True:
            with torch.no_grad():
                state = next(states, None)
            if state is None:
                return
            yield state

    return run


class SamplerStep(NamedTuple):
    """One step of a grid, from t to s: the denoiser at both ends, and the scales as numbers."""

    estimate_at_t: Estimate
    estimate_at_s: Estimate
    t: float
    s: float
    alpha_t: float
    alpha_s: float
    sigma_t: float
    sigma_s: float

    @property
    def is_boundary(self) -> bool:
        """Whether the step starts without signal or ends without noise."""
        return self.alpha_t == 0 or self.sigma_s == 0

    def ddim(self, estimate: PosteriorMeans, eta: float = 0.0) -> Tensor:
        kept = (self.alpha_t * self.sigma_s / (self.alpha_s * self.sigma_t)) ** 2
        tau = eta**2 * (1 - kept)
        x = torch.add(
            self.alpha_s * estimate.x, estimate.eps, alpha=self.sigma_s * math.sqrt(1 - tau)
        )
        if tau and self.sigma_s:
            x = torch.add(x, torch.randn_like(x), alpha=self.sigma_s * math.sqrt(tau))
        return x

    def ancestral(
        self, estimate: PosteriorMeans, variance: float | Tensor = 0.0
    ) -> tuple[Tensor, float | Tensor]:
        """The mean of the reverse step and its deviation, v ``variance`` (`samplers.ddpm`)."""
        ratio = self.alpha_t / self.alpha_s * self.sigma_s / self.sigma_t
        # mu-tilde in terms of both posterior means: alpha_s x + sigma_s ratio eps
        mean = torch.add(self.alpha_s * estimate.x, estimate.eps, alpha=self.sigma_s * ratio)
        deviation = math.sqrt(max(1 - ratio**2, 0.0)) if self.sigma_s else 0.0
        return mean, self.sigma_t**variance * self.sigma_s ** (1 - variance) * deviation


def plan_steps(denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition) -> list[SamplerStep]:
    """The steps of a grid, its times rounded to the precision of the data first."""
    times = times.to(x)
    exact = times.cpu().double()
    functions = denoiser.estimates(times, c)
    columns = [functions, exact.tolist(), *(z.tolist() for z in denoiser.path(exact))]
    ends = [end for column in columns for end in (column[:-1], column[1:])]
    return [SamplerStep(*row) for row in zip(*ends)]
