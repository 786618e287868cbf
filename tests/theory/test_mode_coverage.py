"""The collapse alarm where the number of modes that are missing is known."""

import numpy as np
import pytest

from pushforward.theory import sample_statistics

ANGLE = np.arange(8) * np.pi / 4
RING = np.stack([np.cos(ANGLE), np.sin(ANGLE)], 1)


def ring(rng, modes, n, radius, scale):
    return radius * RING[rng.choice(modes, n)] + scale * rng.standard_normal((n, 2))


@pytest.mark.parametrize(
    ("radius", "scale", "few"), [(1, 0.01, [1, 2, 3, 4, 5, 6]), (4, 0.5, [2, 6])]
)
def test_the_alarm_rings_at_six_modes_or_fewer_and_not_at_eight(radius, scale, few):
    """Narrow and wide modes, 1,000 rows; which are kept is drawn anew for each of 20 seeds.

    With six modes the data's share of the lost ones is 1/4, its standard error 0.014, and the
    alarm's threshold 1/5.
    """

    def alarm(kept, seed):
        rng = np.random.default_rng(seed)
        modes = rng.permutation(8)[:kept]
        x, y = (ring(rng, m, 1000, radius, scale) for m in (8, modes))
        return sample_statistics.is_collapsed(sample_statistics.kmeans_coverage(x, y))

    assert all(alarm(kept, seed) for kept in few for seed in range(20))
    assert sum(alarm(8, seed) for seed in range(20)) <= 1


@pytest.mark.parametrize("law", ["gaussian", "uniform", "line", "heavy"])
def test_equal_laws_never_alarm(law):
    """Twenty pairs of samples of each law without modes; heavy tails leave cells of one row."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        draw = {
            "gaussian": lambda rng: rng.standard_normal((400, 10)),
            "uniform": lambda rng: rng.random((400, 2)),
            "line": lambda rng: rng.standard_normal((400, 1)),
            "heavy": lambda rng: rng.standard_t(2, (400, 3)),
        }[law]
        assert sample_statistics.kmeans_coverage(draw(rng), draw(rng)) > 0.9


def test_blurred_samples_are_not_collapsed():
    """Noise of half a standard deviation on samples moves none of the mass between cells."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((1000, 64)) + 4 * rng.integers(0, 2, (1000, 64)) for _ in range(2))
    assert sample_statistics.kmeans_coverage(x, y + 0.5 * rng.standard_normal(y.shape)) > 0.9


def test_mass_in_lost_cells_is_counted_by_the_data():
    """Cells of 5, 3 and 2 rows; one sample of 40 in the first is less than a tenth of a half."""
    real = np.repeat([0, 1, 2], [5, 3, 2])
    assert sample_statistics.covered_mass(real, np.repeat([1, 2], [20, 20])) == pytest.approx(0.5)
    assert sample_statistics.covered_mass(real, np.repeat([0, 1, 2], [1, 20, 19])) == pytest.approx(
        0.5
    )
    assert sample_statistics.covered_mass(real, np.repeat([0, 1, 2], [2, 20, 18])) == 1
