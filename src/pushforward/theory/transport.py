r"""Optimal transport between samples: one dimension, exact assignment, slices, Gaussians, entropy.

.. math:: W_p^p(P, Q) = \min_{\pi \in \Pi(P, Q)} \int \lVert x - y \rVert^p \, d\pi(x, y)

Between two samples of equal size a permutation attains the minimum; on the line it is the one that
sorts both; between Gaussians it is an affine map. Distances take and return NumPy float64 numbers
in the units of the data. What a training loop calls at every step takes torch tensors.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..shapes import Data

Array = NDArray[np.float64]


def wasserstein_1d(x: Array, y: Array, p: int) -> Array:
    r"""The :math:`p`-th power of the Wasserstein distance on the line, for each pair of columns.

    .. math:: W_p^p = \int_0^1 |F^{-1}(u) - G^{-1}(u)|^p \, du

    Both quantile functions are steps; the breakpoints :math:`i/n` and :math:`j/m` are compared as
    the integers :math:`im` and :math:`jn`, so unequal sizes cost no rounding. Samples are
    ``(n, k)`` and ``(m, k)``, the values ``(k,)``.
    """
    n, m = len(x), len(y)
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    if n == m:
        return (np.abs(x - y) ** p).mean(0)
    u = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    mass = np.diff(u, prepend=0) / (n * m)
    return mass @ np.abs(x[(u - 1) // m] - y[(u - 1) // n]) ** p


def w1_1d(x: Array, y: Array) -> float:
    r""":math:`W_1 = \int |F - G|` of two samples of numbers, of any sizes, in their unit."""
    return float(wasserstein_1d(x.reshape(-1, 1), y.reshape(-1, 1), 1)[0])


def w2_1d(x: Array, y: Array) -> float:
    r""":math:`W_2 = (\int_0^1 |F^{-1} - G^{-1}|^2)^{1/2}` of two samples of numbers."""
    return float(wasserstein_1d(x.reshape(-1, 1), y.reshape(-1, 1), 2)[0] ** 0.5)


def w1_of_cdfs(grid: Array, p: Array, q: Array) -> float:
    r""":math:`W_1 = \int |F - G|` of distribution functions on increasing points (lesson 4.1)."""
    return float(np.trapezoid(np.abs(p - q), grid))


def gaussian_w1(mean_1: float, scale_1: float, mean_2: float, scale_2: float) -> float:
    r""":math:`W_1` between two Gaussians on the line: the mean of a folded normal (lesson 4.1).

    .. math:: W_1 = \mathbb E|\mathcal N(\mu, s^2)|
        = s \sqrt{2/\pi}\, e^{-\mu^2/2s^2} + |\mu| \operatorname{erf}\frac{|\mu|}{s\sqrt2},
        \qquad \mu = m_1 - m_2,\; s = |s_1 - s_2|

    Both quantile functions are affine in one normal, so their difference is a normal.
    """
    shift, s = abs(mean_1 - mean_2), abs(scale_1 - scale_2)
    if s == 0:
        return shift
    bump = s * math.sqrt(2 / math.pi) * math.exp(-((shift / s) ** 2) / 2)
    return bump + shift * math.erf(shift / (s * math.sqrt(2)))


def expected_w1(grid: Array, cdf: Array, n: int) -> float:
    r""":math:`W_1` between two independent samples of size ``n`` of one distribution, expected.

    .. math:: \mathbb E\,W_1(P_n, P_n') \approx \frac{2}{\sqrt{\pi n}} \int \sqrt{F (1 - F)}\,dx

    At each point :math:`F_n - F_n'` is normal with variance :math:`2F(1-F)/n` for large ``n``
    (del Barrio, Giné and Matrán, 1999); for a normal distribution and 64 rows it is 5 % too much,
    for 256 rows 2.5 %. No model can be seen to be better than this.
    ``cdf`` is :math:`F` at the increasing points ``grid``, which cover the distribution.
    """
    return float(2 / np.sqrt(np.pi * n) * np.trapezoid(np.sqrt(cdf * (1 - cdf)), grid))


def random_directions(k: int, d: int, rng: np.random.Generator) -> Array:
    r"""Unit vectors in :math:`\mathbb R^d`, each uniform on the sphere, as columns ``(d, k)``.

    In the plane they are equally spaced under one random rotation, elsewhere they come in random
    orthonormal frames: both spread more evenly than independent draws and stay unbiased.
    """
    if d == 2:
        angle = np.pi * (np.arange(k) + rng.random()) / k
        return np.stack([np.cos(angle), np.sin(angle)])
    frames = rng.standard_normal((-(-k // d), d, d))
    q, r = np.linalg.qr(frames)
    q = q * np.sign(np.einsum("kii->ki", r))[:, None]  # makes the frames uniform (Mezzadri, 2007)
    return np.concatenate(list(q), axis=1)[:, :k]


def sliced_w2_distance(
    x: Array,
    y: Array,
    *,
    projections: int = 128,
    rng: np.random.Generator | None = None,
    along: Array | None = None,
) -> float:
    r"""Sliced 2-Wasserstein distance of samples ``(n, d)`` and ``(m, d)`` (Rabin et al., 2012).

    .. math:: SW_2 = \Big( \mathbb E_\theta\, W_2^2(\theta^\top x, \theta^\top y) \Big)^{1/2}

    The mean over directions is taken of the *squared* distance, then the root: isotropic Gaussians
    give :math:`SW_2^2 = \lVert m_1 - m_2 \rVert^2 / d + (s_1 - s_2)^2`.
    ``rng`` is seeded with 0 by default, so that models are compared on the same directions;
    ``along`` are unit columns ``(d, k)`` to use in place of drawn ones.
    """
    if along is None:
        along = random_directions(projections, x.shape[1], rng or np.random.default_rng(0))
    return float(wasserstein_1d(x @ along, y @ along, 2).mean() ** 0.5)


def squared_bures_distance(a: Array, b: Array) -> float:
    r""":math:`\operatorname{tr}\big( A + B - 2 (A^{1/2} B A^{1/2})^{1/2} \big)`.

    With :math:`A = LL^\top` the last matrix has the eigenvalues of :math:`L^\top B L`, which is
    symmetric, so the result is real by construction and needs no matrix square root.
    """
    try:
        root = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:  # A is singular
        values, vectors = np.linalg.eigh(a)
        root = vectors * np.sqrt(values.clip(0))
    cross = np.linalg.eigvalsh(root.T @ b @ root).clip(0)
    return float(np.trace(a) + np.trace(b) - 2 * np.sqrt(cross).sum())


def gaussian_w2(mean_1: Array, cov_1: Array, mean_2: Array, cov_2: Array) -> float:
    r""":math:`W_2^2 = \|m_1 - m_2\|^2 + \mathrm{Bures}^2(S_1, S_2)` (Dowson and Landau, 1982)."""
    square = float(np.square(mean_1 - mean_2).sum()) + squared_bures_distance(cov_1, cov_2)
    return max(square, 0.0) ** 0.5


def anneal_potentials(
    cost: Tensor, temperatures: Iterable[float], sweeps: int
) -> tuple[Tensor, Tensor]:
    r"""Sinkhorn's potentials after a few sweeps at each of some falling temperatures.

    The sweeps multiply by the kernel, which is an order of magnitude faster than adding logarithms;
    from one temperature to the next the potentials pass into it, so that it stays in range.
    """
    f = cost.amin(1)
    g = (cost - f[:, None]).amin(0)
    for temperature in temperatures:
        # e^{-60} is far from the subnormal numbers, which are slow
        kernel = ((f[:, None] + g - cost) / temperature).clamp_(-60, 60).exp_()
        v = torch.ones_like(g)
        for _ in range(sweeps):
            u = 1 / (kernel @ v)
            v = 1 / (u @ kernel)
        f, g = f + temperature * u.log(), g + temperature * v.log()
    return f, g


def _near_optimal_duals(cost: Tensor) -> tuple[Tensor, Tensor]:
    r"""Nearly the largest :math:`\sum f + \sum g` under :math:`f_i + g_j \le c_{ij}`."""
    spread = cost.std(correction=0).item()
    temperatures = [spread / 5 / 4**k for k in range(3 if spread > 0 else 0)]
    return anneal_potentials(cost, temperatures, sweeps=5)


def optimal_assignment(cost: Tensor) -> Tensor:
    r"""The permutation :math:`\sigma` with the least :math:`\sum_i c_{i\sigma(i)}`, ``(n,)``.

    Every permutation costs the same :math:`\sum f + \sum g` less under :math:`c_{ij} - f_i - g_j`,
    so the best one stays the best; but its entries are then nearly the smallest of their rows, and
    the shortest-path solver (Crouse, 2016, in SciPy) finds them sooner. Exact up to rounding.
    """
    from scipy.optimize import linear_sum_assignment

    f, g = _near_optimal_duals(cost.float())
    reduced = cost - (f[:, None] + g)
    reduced = reduced if reduced.isfinite().all() else cost
    return torch.from_numpy(linear_sum_assignment(reduced.cpu().numpy())[1]).to(cost.device)


def _matched_distances(x: Array, y: Array, cost: Callable[[Tensor], Tensor]) -> Array:
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(torch.from_numpy(x), torch.from_numpy(y), compute_mode=exact)
    return np.linalg.norm(x - y[optimal_assignment(cost(distance)).numpy()], axis=1)


def exact_w1(x: Array, y: Array) -> float:
    r""":math:`W_1` between two samples of equal size, exactly, in the unit of the data.

    Time grows as the cube of the size and memory as its square: a second at 2,000 rows.
    """
    return float(_matched_distances(x, y, Tensor.clone).mean())


def exact_w2(x: Array, y: Array) -> float:
    r""":math:`W_2` between two samples of equal size, exactly, in the unit of the data."""
    return float(np.square(_matched_distances(x, y, torch.square)).mean() ** 0.5)


def sinkhorn(
    cost: Tensor, epsilon: float, *, steps: int = 1000, tolerance: float = 1e-9
) -> tuple[Tensor, Tensor]:
    r"""The potentials of entropic optimal transport between uniform weights (Cuturi, 2013).

    .. math:: \min_\pi \langle \pi, c \rangle + \epsilon\,\mathrm{KL}(\pi \,\|\, a \otimes b)
        = \max_{f, g} \langle a, f \rangle + \langle b, g \rangle
        \text{ at the fixed point } f = -\epsilon \log \mathbb E_b\, e^{(g - c)/\epsilon}

    Iterated in the log domain, with the temperature halved at each of the first sweeps until it is
    ``epsilon``, then until no potential moves by more than ``tolerance`` of it. Stopped early, the
    value of the right-hand side is a lower bound.
    """
    f, g = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[0])
    log_n, log_m = (float(np.log(k)) for k in cost.shape)
    hotter = max(int(np.ceil(np.log2(max(float(cost.detach().max()) / epsilon, 1)))), 0)
    for k in range(hotter + steps):
        e = epsilon * 2.0 ** max(hotter - k, 0)
        previous = f
        f = e * (log_m - torch.logsumexp((g - cost) / e, 1))
        g = e * (log_n - torch.logsumexp((f[:, None] - cost) / e, 0))
        if k > hotter and (f - previous).detach().abs().max() <= tolerance * epsilon:
            break
    return f, g


def sinkhorn_plan(cost: Tensor, epsilon: float, *, steps: int = 1000) -> Tensor:
    r"""The entropic plan :math:`\pi_{ij} = e^{(f_i + g_j - c_{ij})/\epsilon}/(nm)`, ``(n, m)``."""
    f, g = sinkhorn(cost, epsilon, steps=steps)
    return ((f[:, None] + g - cost) / epsilon).exp() / cost.numel()


def sinkhorn_divergence(x: Data, y: Data, epsilon: float) -> Tensor:
    r"""The debiased entropic cost, zero when the samples agree and differentiable.

    .. math:: OT_\epsilon(x, y) - \tfrac12 OT_\epsilon(x, x) - \tfrac12 OT_\epsilon(y, y)

    with the squared distance as cost; it runs from :math:`W_2^2` at :math:`\epsilon \to 0` to
    :math:`\lVert \bar x - \bar y \rVert^2` at :math:`\epsilon \to \infty` (Feydy et al., 2019).
    """

    def value(a: Tensor, b: Tensor) -> Tensor:
        cost = (a.flatten(1)[:, None] - b.flatten(1)).square().sum(-1)
        f, g = sinkhorn(cost, epsilon)
        return f.mean() + g.mean()

    return value(x, y) - value(x, x) / 2 - value(y, y) / 2
