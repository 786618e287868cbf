"""The mean over a batch, against the exact posterior mean of mixtures."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pushforward.theory import paths
from pushforward.theory.exact.targets import ExactDenoiser, GaussianMixture, lesson_mixture
from pushforward.theory.predictions import batch_posterior_means

PATHS = {
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "edm": paths.EDMPath(20.0, 0.01),
}
TIMES = {"linear": 0.6, "cosine": 0.5, "edm": 0.1}


def states(path, law, n, t):
    x = law.sample(n).double()
    return x, path.interpolate(x, torch.randn_like(x), t), t


@pytest.mark.parametrize("name", PATHS)
def test_it_is_the_denoiser_of_the_batch(float64, name):
    """Of a mixture of points: their means with a deviation that the noise drowns."""
    path = PATHS[name]
    x, x_t, t = states(path, lesson_mixture(), 12, torch.full((12,), TIMES[name]))
    points = GaussianMixture(torch.ones(12), x, torch.full((12,), 1e-7))
    found, exact = batch_posterior_means(path, x, x_t, t), ExactDenoiser(points, path)(x_t, t)
    torch.testing.assert_close(found.x, exact.x, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.eps, exact.eps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_its_error_has_mean_zero_and_less_variance_than_that_of_the_datum(float64, name):
    """Times any function of x_t, here 1, x_t and its square: within 4.5 standard errors."""
    path, law = PATHS[name], lesson_mixture()
    moments, ratios = [], []
    for _ in range(200):
        x, x_t, t = states(path, law, 50, torch.full((50,), TIMES[name]))
        exact = ExactDenoiser(law, path)(x_t, t).x
        error = batch_posterior_means(path, x, x_t, t).x - exact
        moments.append(torch.stack([(error * x_t**p).mean() for p in range(3)]))
        ratios.append(error.square().mean() / (x - exact).square().mean())
    m = torch.stack(moments)
    assert (m.mean(0).abs() < 4.5 * m.std(0) / 200**0.5).all()
    assert float(torch.stack(ratios).mean()) < 0.5


def test_datum_and_noise_make_the_point(float64):
    path = paths.CosinePath()
    x, x_t, t = states(path, lesson_mixture(), 30, torch.linspace(0.01, 0.99, 30))
    torch.testing.assert_close(path.interpolate(*batch_posterior_means(path, x, x_t, t), t), x_t)


def test_data_of_other_conditions_do_not_count(float64):
    """Each of two classes as if it were a batch of its own; alone in one, a datum is itself."""
    path, c = paths.LinearPath(), torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 5 + [[0.0, 0.0]])
    x, x_t, t = states(path, lesson_mixture(), 10, torch.full((10,), 0.7))
    found = batch_posterior_means(path, x, x_t, t, c).x
    for part in (slice(0, 4), slice(4, 9)):
        torch.testing.assert_close(
            found[part], batch_posterior_means(path, x[part], x_t[part], t[part]).x
        )
    torch.testing.assert_close(found[9:], x[9:])


class Largest(TorchDispatchMode):
    """Sees how many numbers the largest tensor has that is made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


def test_long_conditions_are_not_compared_number_by_number_for_each_pair(float64):
    """Of 100 captions of 512 numbers: nothing larger than the captions themselves is made."""
    c = torch.randn(10, 512).repeat(10, 1)
    x, x_t, t = states(paths.LinearPath(), lesson_mixture(), 100, torch.full((100,), 0.7))
    with Largest() as seen:
        found = batch_posterior_means(paths.LinearPath(), x, x_t, t, c).x
    assert seen.numbers <= c.numel()
    torch.testing.assert_close(
        found[::10], batch_posterior_means(paths.LinearPath(), x[::10], x_t[::10], t[::10]).x
    )


def test_next_to_the_data_it_is_the_datum():
    """In single precision, at the least times that are trained at."""
    x, x_t, t = states(paths.LinearPath(), lesson_mixture(), 200, torch.full((200,), 1e-4))
    found = batch_posterior_means(paths.LinearPath(), x.float(), x_t.float(), t).x
    torch.testing.assert_close(found, x.float(), rtol=0, atol=2e-3)
