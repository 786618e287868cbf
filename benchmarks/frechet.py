"""The arithmetic of a Fréchet distance from two covariances, beside SciPy's matrix square root.

Ours takes the eigenvalues of one symmetric matrix, theirs the square root of a product that is not
symmetric, as most programs for FID do. One turn of each, since theirs takes a minute at the 2,048
features of Inception.
"""

import numpy as np
from race import Plan, Row, clocked, main, repeat
from scipy.linalg import sqrtm

from pushforward.theory.transport import squared_bures_distance

BAR = 0.2


def covariances(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Of twice as many rows as features, whose spectrum decays as that of features does."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2 * d, d)) * np.arange(1, d + 1) ** -0.5
    return np.cov(x, rowvar=False), np.cov(1.2 * y + 0.1 * x, rowvar=False)


def rows(plan: Plan, quick: bool) -> list[Row]:
    """256 features where it must be quick, else 2,048."""
    d = 256 if quick else 2048
    group = f"Fréchet distance, {d} features"
    if plan.group not in group:
        return []
    a, b = covariances(d)
    found: dict[str, float] = {}
    runs = {
        "ours": repeat(lambda: found.update(ours=squared_bures_distance(a, b))),
        "sqrtm": repeat(lambda: found.update(sqrtm=float(np.trace(a + b - 2 * sqrtm(a @ b)).real))),
    }
    squared_bures_distance(a[:64, :64], b[:64, :64])  # loads the libraries
    seconds = {name: clocked(run, 1, plan.clock) for name, run in runs.items()}
    ratio = seconds["ours"] / seconds["sqrtm"]
    apart = abs(found["ours"] / found["sqrtm"] - 1)
    note = f"one turn; sqrtm {1e6 * seconds['sqrtm']:,.0f} us; values differ by {apart:.0e} of them"
    return [Row(group, "ours", "sqrtm", ratio, ratio, ratio, BAR, 1e6 * seconds["ours"], note)]


if __name__ == "__main__":
    main({"frechet": rows}, __doc__)
