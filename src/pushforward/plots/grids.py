"""Numbers behind the plots: densities on grids, sampler trajectories, quality by cost."""

import contextlib
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from ..data.builtin.datasets import BuiltinDataset
from ..data.schema import Schema
from ..devices import cast_like_model, model_device
from ..diffusion import Diffusion
from ..errors import NumericalError, PushforwardError
from ..inference.fitted_model import FittedModel
from ..metrics.evaluation import column_scales
from ..metrics.wasserstein import sliced_w2
from ..model import Likelihood, count_evaluations
from ..networks.layout import image_layout, is_image
from ..rng import seeded_rng
from ..theory import ode
from .drawing import AxesLimits

DEPTH = 8.0  # nats below the highest density that a map shows
GRID = 36  # points along a side of a likelihood map
MAP = 2e-3  # tolerance of a log-density that is only plotted: off by 0.1 nats at most
SECONDS = 4.0  # spent on a family's curve of quality against cost
STEPS = (1, 2, 4, 8, 16, 32, 64)


def plot_kind(event: tuple[int, ...]) -> str:
    if len(event) == 1:
        return {1: "line", 2: "plane"}.get(event[0], "table")
    return "images" if is_image(event) and image_layout(event).channels in (1, 3, 4) else "table"


def known_log_density(known: BuiltinDataset | None, x: np.ndarray) -> np.ndarray | None:
    if known is None or known.log_prob is None:
        return None
    with np.errstate(divide="ignore"):
        return np.asarray(known.log_prob(x), dtype=float)


def grid_log_density(model: FittedModel, x: np.ndarray) -> np.ndarray | None:
    """A model's log-density at points in the units of the data, or None where it has none.

    Data with conditions have one density for each; data with whole numbers have masses. Neither
    is a map over the plane.
    """
    whole = any(c.integer for c in model.schema.columns)
    if model.likelihood is Likelihood.NONE or model.schema.condition is not None or whole:
        return None
    inner = model.model
    try:
        if isinstance(inner, Diffusion):
            values = _flow_grid_density(model, inner, x)
        else:
            values = model.log_prob(model.schema.restore(x))
    except NumericalError:
        return None
    return np.where(_within_bounds(model.schema, x), values, -np.inf)


def _flow_grid_density(fitted: FittedModel, model: Diffusion, x: np.ndarray) -> np.ndarray:
    rough = partial(ode.dormand_prince, rtol=MAP, atol=MAP)
    with torch.no_grad():
        z, log_det = fitted.transform.forward(torch.as_tensor(x))
        value = model.denoiser.log_prob(z.to(model.noise(0)), integrator=rough)
    return (value.cpu().double() + log_det).numpy()


def _within_bounds(schema: Schema, x: np.ndarray) -> np.ndarray:
    inside = np.ones(len(x), bool)
    for j, column in enumerate(schema.columns):
        low, high = column.bounds
        inside &= x[:, j] > (-np.inf if low is None else low)
        inside &= x[:, j] < (np.inf if high is None else high)
    return inside


def grid_points(where: AxesLimits, side: int = GRID) -> np.ndarray:
    step = (where.high - where.low) / side
    u, v = (where.low[k] + step[k] * (np.arange(side) + 0.5) for k in (0, 1))
    return np.stack([a.ravel() for a in np.meshgrid(u, v)], axis=1)


def sampler_trajectories(
    fitted: FittedModel, model: Diffusion, n: int = 40, seed: int = 0
) -> np.ndarray:
    """The states of a sampler in the units of the data, ``(steps + 1, n, *event)``, noise first."""
    with seeded_rng(seed, model_device(model)), torch.inference_mode():
        rows = fitted.preprocessor.condition_vectors(None, n)
        c = None if rows is None else cast_like_model(fitted.model, torch.as_tensor(rows))
        state = torch.get_rng_state()
        eps = model.base_noise(n)  # the draw with which the trajectory begins
        torch.set_rng_state(state)
        first = model.path.sigma(model.path.grid(model.steps)[0]).to(eps) * eps
        states = [first, *model.trajectory(n, c)]
        return np.stack([fitted.transform.inverse(z.double().cpu()).numpy() for z in states])


def standardised_distance(real: np.ndarray, x: np.ndarray) -> float:
    image = real.ndim > 2
    real, x = real.reshape(len(real), -1), x.reshape(len(x), -1)
    scale = column_scales(real, image)
    return sliced_w2(real / scale, x / scale)


def quality_by_steps(
    fitted: FittedModel, model: Diffusion, real: np.ndarray
) -> Iterator[tuple[int, float]]:
    samples: list[np.ndarray] = []

    def draw(steps: int) -> None:
        samples.append(fitted.draw(len(real), steps=steps, seed=0))

    began = time.process_time()
    for steps in STEPS:
        if time.process_time() - began > SECONDS / 2:  # the next steps take as long as all before
            return
        with contextlib.suppress(PushforwardError):
            nfe = count_evaluations(model.denoiser.net, partial(draw, steps))
            yield nfe, standardised_distance(real, samples.pop())


def peak_log_density(maps: list[np.ndarray]) -> float | None:
    values = np.concatenate(maps) if maps else np.zeros(0)
    values = values[np.isfinite(values)]
    return float(np.quantile(values, 0.999)) if len(values) else None
