r"""Editing data through noise: how far to go, and the way between two latents."""

import math

import torch
from torch import Tensor

from ..shapes import Data, PerDatum, append_dims, sum_event
from .paths import Path

STRAIGHT = 1e-4  # of an angle, or of what it lacks to pi: there the great circle is a line


def time_at_strength(path: Path, strength: float) -> Tensor:
    r"""The time at which a path has lost so much: :math:`\sigma_t/\alpha_t = \tan(\pi s/2)`.

    On every path the same strength s leaves the same signal beside the same noise, as time t = s of
    the cosine path does; s = 1/2 leaves equal variances. s = 1 is the end of the path.
    """
    end = torch.tensor(path.t_max, dtype=torch.float64)
    if strength == 1:
        return end
    ratio = torch.tensor(math.tan(math.pi * strength / 2), dtype=torch.float64)
    return path.inverse(ratio).minimum(end)


def times_from_strength(path: Path, strength: float, grid: Tensor) -> Tensor:
    """The times from a strength down to data: its own, and those of a sampler's grid below it.

    Only the last, 0, is left where the strength is too small for any noise on the path.
    """
    t = time_at_strength(path, strength)
    if strength == 0 or t <= path.t_min < path.t_max:
        return grid[-1:]
    return torch.cat([t[None], grid[grid < t]])


def slerp(a: Data, b: Data, w: float) -> Data:
    r"""The way from a to b on the great circle (Shoemake, 1985), each entry of a batch on its own.

    .. math:: \frac{\sin((1 - w)\theta)\,a + \sin(w\theta)\,b}{\sin\theta}, \qquad
        \cos\theta = \frac{a^\top b}{\|a\|\,\|b\|}

    Points of one length stay at that length, which is about :math:`\sqrt d` for normal noise,
    while the middle of the line has :math:`\sqrt{d/2}`. Where the points lie on one line with 0, as
    they always do in one dimension, there is no great circle between them and the line is taken.
    """
    one, other = (z / append_dims(event_norm(z).clamp(min=1e-12), z) for z in (a, b))
    # accurate at both ends, where an inverse cosine is not
    angle = append_dims(2 * torch.atan2(event_norm(one - other), event_norm(one + other)), a)
    line = (angle < STRAIGHT) | (angle > math.pi - STRAIGHT)
    size = torch.where(line, 1.0, angle.sin())
    circle = (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / size
    return torch.where(line, torch.lerp(a, b, w), circle)


def event_norm(x: Data) -> PerDatum:
    r""":math:`\|x\|` of each datum."""
    return sum_event(x.square()).sqrt()
