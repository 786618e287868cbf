r"""Learning a Gaussian path by regression. DDPM, EDM and flow matching are choices of arguments."""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .model import GenerativeModel, Likelihood, Recipe, count_evaluations
from .options import check_options, choose_option
from .progress import track_progress
from .shapes import Condition, Data, PerDatum, Scalar, Times
from .theory import completion, ode, samplers
from .theory.denoisers import Denoiser, NetworkDenoiser, Sampler
from .theory.guidance import Guidance, Guided, GuidedDenoiser
from .theory.paths import Path
from .theory.predictions import Prediction

FILTERED = 32  # entries of a datum up to which `complete` runs a particle filter


def midpoint_times(path: Path, count: int = 8192) -> Tensor:
    """In float64, of equal parts of ``[t_min, t_max]``."""
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return path.t_min + (path.t_max - path.t_min) * u


def _unit_weight(path: Path, t: Tensor) -> Tensor:
    return torch.ones_like(t)


def diffusion_recipe(size: int) -> Recipe:
    """Small data sets overfit before 7,000 steps; a tight clip would bias the mean."""
    if 0 < size < 5000:
        return Recipe(steps=4000, batch=256, lr=2e-3, clip=10.0)
    return Recipe(steps=7000, batch=1024, lr=3e-3, clip=10.0)


def default_width(event_shape: tuple[int, ...]) -> int:
    return 384 if math.prod(event_shape) > 32 else 128


def stratified_indices(n: int, levels: int) -> Tensor:
    r"""``n`` numbers :math:`k_i = (k + \lfloor i L / n \rfloor) \bmod L` of L levels, k uniform.

    Each is uniform and together they are spread evenly: the mean of a function of them has a much
    smaller variance than that of independent numbers (Kingma et al., 2021, appendix I).
    """
    return (_stratum_starts(n, levels) + torch.randint(levels, (1,))) % levels


@cache
def _stratum_starts(n: int, levels: int) -> Tensor:
    return torch.arange(n) * levels // n


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
        times: The times to train at, each as often as the others, ``(L,)``; by default many, spread
            evenly over the path.
        sampler: The default sampler.
        steps: Its default number of steps.
    """

    likelihood = Likelihood.ODE
    table: Tensor

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        path: Path,
        prediction: Prediction,
        weight: Callable[[Path, Tensor], Tensor] = _unit_weight,
        times: Tensor | None = None,
        sampler: Sampler = samplers.ddpm,
        steps: int = 50,
    ) -> None:
        super().__init__()
        self.denoiser = NetworkDenoiser(net, path, prediction)
        self.event_shape, self.path, self.weight = event_shape, path, weight
        table = self.coefficients(midpoint_times(path) if times is None else times)
        self.register_buffer("table", table.to(torch.get_default_dtype()), persistent=False)
        self.sampler, self.steps = sampler, steps

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        x, eps, c = self.draw_pairs(x, c)
        k = stratified_indices(len(x), len(self.table)).to(x.device)
        rows = self.table[k].view(len(x), -1, *[1] * (x.ndim - 1))
        signal, noise, a, b, weight, clock = rows.unbind(1)
        x_t, y = torch.addcmul(signal * x, noise, eps), torch.addcmul(a * x, b, eps)
        output = weight * self.denoiser.net(x_t, clock.flatten(), self.drop_condition(c))
        return {"regression": mse_loss(output, y, reduction="sum") / len(x)}

    def draw_pairs(self, x: Data, c: Condition) -> tuple[Data, Data, Condition]:
        """What to interpolate between, with its condition: data, and noise drawn for each."""
        return x, torch.randn_like(x), c

    def coefficients(self, t: Times) -> Tensor:
        r"""All that the regression needs to know of a time, ``(len(t), 6)``.

        .. math:: \alpha_t/s_t,\quad \sigma_t/s_t,\quad \sqrt{w_t}\,a_t,\quad \sqrt{w_t}\,b_t,
            \quad \sqrt{w_t},\quad \text{clock}(t)

        with :math:`s_t^2 = \alpha_t^2 + \sigma_t^2`: the network sees :math:`x_t/s_t`.
        """
        path, weight = self.path, self.weight(self.path, t).sqrt()
        (alpha, sigma), (a, b), s = path(t), self.denoiser.prediction(path, t), path.scale(t)
        rows = [alpha / s, sigma / s, weight * a, weight * b, weight, path.network_time(t)]
        return torch.stack(rows, dim=1)

    def guided_denoiser(self, guidance: Guidance | float, c: Condition) -> Denoiser:
        guidance = Guidance.of(guidance).check(known=c is not None)
        return GuidedDenoiser(self.denoiser, guidance) if guidance.active else self.denoiser

    def trajectory(
        self,
        n: int,
        c: Condition = None,
        *,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance: Guided = 1.0,
        **options: Any,
    ) -> Iterator[Tensor]:
        """The states from noise to data, one a step.

        ``guidance`` is the scale of classifier-free guidance, or all that there is to say of it;
        further options are those of the sampler, which may be given by its name.
        """
        times = self.path.grid(steps or self.steps)
        eps = self.base_noise(n)
        x = self.path.scale(times[0]).to(eps) * eps
        return self.run_sampler(self.guided_denoiser(guidance, c), x, times, c, sampler, options)

    def run_sampler(
        self,
        denoiser: Denoiser,
        x_t: Data,
        times: Tensor,
        c: Condition,
        sampler: str | Sampler | None,
        options: dict[str, Any],
    ) -> Iterator[Tensor]:
        run = sampler or self.sampler
        run = samplers.sampler_by_name(run) if isinstance(run, str) else run
        check_options(run, options, f"the sampler {run.__name__}")
        chosen = self.sampler_options(run, times, options)
        return track_progress(run(denoiser, x_t, times, c, **chosen), len(times) - 1)

    def sampler_options(self, run: Sampler, times: Tensor, given: dict[str, Any]) -> dict[str, Any]:
        return given

    def base_noise(self, n: int) -> Tensor:
        """What samples begin with, of unit variance."""
        return self.noise(n, *self.event_shape)

    def encode(
        self, x: Data, c: Condition = None, *, guidance: Guided = 1.0, tolerance: float = 1e-5
    ) -> Data:
        """The noise, of unit variance, from which `decode` makes data, with the same options."""
        ends = torch.tensor([self.path.t_min, self.path.t_max], dtype=torch.float64)
        denoiser = self.guided_denoiser(guidance, c)
        return self.integrate(denoiser, x, ends, c, tolerance) / float(self.path.scale(ends)[1])

    def decode(
        self, z: Data, c: Condition = None, *, guidance: Guided = 1.0, tolerance: float = 1e-5
    ) -> Data:
        """The data that the probability flow makes of noise, the inverse of `encode`.

        ``tolerance`` is that of the adaptive solver, relative and absolute.
        """
        ends = torch.tensor([self.path.t_max, self.path.t_min], dtype=torch.float64)
        denoiser = self.guided_denoiser(guidance, c)
        return self.integrate(denoiser, z * float(self.path.scale(ends)[0]), ends, c, tolerance)

    @torch.no_grad()
    def integrate(
        self, denoiser: Denoiser, x: Data, times: Tensor, c: Condition, tolerance: float
    ) -> Data:
        for piece, ends in denoiser.smooth_intervals(times):
            field = partial(piece.velocity, c=c)
            x = ode.final_state(ode.dormand_prince(field, x, ends, rtol=tolerance, atol=tolerance))
        return x

    def sample(self, n: int, c: Condition = None, **options: Any) -> Tensor:
        """The last state of a `trajectory`, whose options it takes."""
        check_options(self.trajectory, options, type(self).__name__)
        return ode.final_state(self.trajectory(n, c, **options))

    def edit(
        self,
        x: Data,
        c: Condition = None,
        *,
        strength: float = 0.5,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance: Guided = 1.0,
        **options: Any,
    ) -> Data:
        """Data noised to a level and carried back (SDEdit; Meng et al., 2022).

        If x has the distribution of the model, so has what comes back, at any strength: from 0,
        which gives the data themselves, to 1, a fresh sample (`completion.time_at_strength`); at
        0.5 noise and standardised data weigh alike. ``steps`` are those from pure noise, of which a
        weaker edit takes the last. Options are those of `trajectory`.
        """
        grid = self.path.grid(steps or self.steps)
        times = completion.times_from_strength(self.path, strength, grid)
        eps = self.noise(*x.shape)
        if strength == 1:
            x_t = self.path.scale(times[0]).to(eps) * eps
        else:
            x_t = self.path.interpolate(x, eps, times[0].to(x))
        if len(times) < 2:
            return x
        denoiser = self.guided_denoiser(guidance, c)
        return ode.final_state(self.run_sampler(denoiser, x_t, times, c, sampler, options))

    def complete(
        self,
        n: int,
        x: Tensor,
        known: Tensor,
        c: Condition = None,
        *,
        method: str = "auto",
        steps: int | None = None,
        guidance: Guided = 1.0,
        **options: Any,
    ) -> Tensor:
        """By `completion.particle_filter`, or `completion.moment_matching` where entries are many.

        Arguments:
            n: How many.
            x: A datum, ``(*event,)``.
            known: Which of its entries are known, ``(*event,)``.
            c: Conditions, all alike.
            method: "filter", which is exact as particles and steps grow, but costs every particle a
                network evaluation a step, and more particles the more entries are known; "moments",
                whose draws are independent and whose cost is theirs alone, and which may weigh
                distinct ways to go on differently from the model; or "auto", the filter for up to
                32 entries.
            steps: Steps of the reverse process: 100 for a filter, 50 for moments.
            guidance: As of `trajectory`, one for all.
            options: Of a filter ``particles``, the least number of them, 256 by default; of moments
                ``rounds``, the products with the Jacobian in a step, 3 by default.
        """
        few = math.prod(self.event_shape) <= FILTERED
        filtered = choose_option("method", method, {"filter": True, "moments": False, "auto": few})
        run = completion.particle_filter if filtered else completion.moment_matching
        check_options(run, options, f"the method {method}")
        grid = self.path.grid(steps or (100 if filtered else 50))
        denoiser = self.guided_denoiser(Guidance.of(guidance).repeat(1), c)
        if filtered:
            options = {"particles": 256} | options
            return completion.particle_filter(denoiser, n, x, known, grid, c, **options)
        states = completion.moment_matching(denoiser, n, x, known, grid, c, **options)
        return ode.final_state(track_progress(states, len(grid) - 1))

    @property
    def nfe(self) -> int:
        """Counted by drawing one sample."""
        return count_evaluations(self.denoiser.net, lambda: self.sample(1))

    def log_prob(self, x: Data, c: Condition = None, *, probes: int | None = None) -> PerDatum:
        """The density of the probability flow in nats (`Denoiser.log_density`).

        ``probes`` are those of Hutchinson's estimate of the divergence, 0 for the exact one; by
        default it is exact up to 64 dimensions.
        """
        return self.estimated(x, c, probes=probes)[0]

    def estimated(self, x: Data, c: Condition = None, **options: Any) -> tuple[PerDatum, PerDatum]:
        found = self.denoiser.log_density(x, c, **options)
        return found.value, found.standard_error
