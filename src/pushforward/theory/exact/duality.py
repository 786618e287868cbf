r"""Kantorovich's linear programme and its dual, between weighted points (lesson 4.1, 4.2).

.. math:: \min_{\pi \ge 0} \langle \pi, c \rangle,\; \pi 1 = a,\; \pi^\top 1 = b
    \quad = \quad \max_{f, g} \langle a, f \rangle + \langle b, g \rangle,\; f_i + g_j \le c_{ij}

Where the cost is a distance one potential is enough (Kantorovich and Rubinstein, 1958):

.. math:: W_1(P, Q) = \max_{\lVert f \rVert_L \le 1} \mathbb E_P f - \mathbb E_Q f

Both are solved apart by HiGHS (Huangfu and Hall, 2018, in SciPy), so that each is a test of the
other: for some hundred points. `transport.exact_w1` and `exact_w2` pair thousands, weighted alike.
"""

from typing import NamedTuple

import numpy as np

from ...errors import NumericalError, UsageError
from ..transport import Array


class _TransportPlan(NamedTuple):
    value: float  # the least cost
    plan: Array  # the masses that reach it, ``(n, m)``


class _DualPotentials(NamedTuple):
    value: float
    f: Array  # at the first points
    g: Array  # at the second


def _solve_linear_programme(objective: Array, **constraints: object) -> Array:
    from scipy.optimize import linprog

    found = linprog(objective, method="highs", **constraints)
    if found.status != 0:
        raise NumericalError(f"the linear programme was not solved: {found.message}")
    return found.x


def _check_marginals(cost: Array, a: Array, b: Array) -> None:
    if cost.shape != (len(a), len(b)):
        raise UsageError(f"a cost of {len(a)} by {len(b)} points has not shape {cost.shape}")
    if min(a.min(), b.min()) < 0 or not np.isclose(a.sum(), b.sum(), rtol=1e-9):
        raise UsageError(f"masses are positive and equal in sum, not {a.sum():g} and {b.sum():g}")


def _marginal_sums(n: int, m: int) -> object:
    from scipy.sparse import eye_array, kron, vstack

    rows = kron(eye_array(n), np.ones((1, m)))
    columns = kron(np.ones((1, n)), eye_array(m))
    return vstack([rows, columns], format="csr")


def solve_primal(cost: Array, a: Array, b: Array) -> _TransportPlan:
    """The cheapest plan (Kantorovich, 1942) at costs :math:`c_{ij}` per unit, ``(n, m)``."""
    _check_marginals(cost, a, b)
    sums, masses = _marginal_sums(*cost.shape), np.concatenate([a, b])
    x = _solve_linear_programme(cost.ravel(), A_eq=sums, b_eq=masses, bounds=(0, None))
    return _TransportPlan(float(x @ cost.ravel()), x.reshape(cost.shape))


def solve_dual(cost: Array, a: Array, b: Array) -> _DualPotentials:
    r"""The best prices :math:`f_i + g_j \le c_{ij}`, with :math:`f_1 = 0`."""
    _check_marginals(cost, a, b)
    n, m = cost.shape
    free = [(0, 0), *[(None, None)] * (n + m - 1)]  # a constant moves from f to g without effect
    weights = np.concatenate([a, b])
    sums = _marginal_sums(n, m).T  # type: ignore[attr-defined]
    x = _solve_linear_programme(-weights, A_ub=sums, b_ub=cost.ravel(), bounds=free)
    return _DualPotentials(float(weights @ x), x[:n], x[n:])


def euclidean_distances(x: Array, y: Array) -> Array:
    """Between rows, ``(n, m)``, without cancellation."""
    return np.linalg.norm(x[:, None] - y, axis=-1)


def kantorovich_rubinstein(x: Array, y: Array, a: Array, b: Array) -> _DualPotentials:
    r""":math:`W_1` and a critic that attains it: the best 1-Lipschitz function f of the points.

    The critic is the largest that `solve_dual` allows, :math:`f(u) = \min_j \|u - y_j\| - g_j`: no
    less than its price at any :math:`x_i`, and at :math:`y_j` no more than :math:`-g_j`.
    """
    prices = solve_dual(euclidean_distances(x, y), a, b)
    f, h = (mcshane_extension(y, -prices.g, points) for points in (x, y))
    return _DualPotentials(float(a @ f - b @ h), f, h)


def lipschitz_constant(points: Array, f: Array) -> float:
    r"""The largest slope :math:`|f(u) - f(v)| / \lVert u - v \rVert` between two of the points.

    A lower bound of the function's Lipschitz constant; points that coincide are passed over.
    """
    i, j = np.triu_indices(len(points), 1)
    run = np.linalg.norm(points[i] - points[j], axis=1)
    rise = np.abs(f[i] - f[j])[run > 0]
    return float((rise / run[run > 0]).max(initial=0.0))


def mcshane_extension(points: Array, f: Array, x: Array) -> Array:
    r"""The largest 1-Lipschitz extension, :math:`\min_i f(p_i) + \|x - p_i\|` (McShane, 1934)."""
    return (f + euclidean_distances(x, points)).min(1)


def line_critic(grid: Array, p: Array, q: Array) -> Array:
    r"""The optimal critic of two distributions on the line, zero at the first point of the grid.

    .. math:: f^*(x) = \int^x \operatorname{sign}\bigl(G(u) - F(u)\bigr)\,du, \qquad
        \mathbb E_P f^* - \mathbb E_Q f^* = \int |F - G| = W_1

    with the distribution functions p of P and q of Q at increasing points.
    """
    slope = np.sign(q - p)
    steps = (slope[1:] + slope[:-1]) / 2 * np.diff(grid)
    return np.concatenate([[0.0], np.cumsum(steps)])
