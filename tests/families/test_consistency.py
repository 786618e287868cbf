"""Consistency training and distillation against their fixed points (D11)."""

import numpy as np
import pytest
import torch
from torch import nn

from pushforward import families
from pushforward.data.builtin import datasets
from pushforward.errors import UsageError
from pushforward.families.consistency import (
    PATHS,
    VELOCITY,
    ConsistencyModel,
    Curriculum,
    flow_step,
    pseudo_huber,
    shared_noise_step,
)
from pushforward.metrics.wasserstein import sliced_w2
from pushforward.model import Event, Recipe
from pushforward.theory.consistency import HeunTeacher, discretisation_times
from pushforward.theory.exact.dynamics import gaussian_flow_map
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian
from pushforward.theory.paths import EDMPath
from pushforward.training.fit import fit
from pushforward.training.trainer import Trainer, random_batches

S, COUNT = 0.5, 12  # the deviation of the data N(0, S^2), intervals of the grid


class Given(ConsistencyModel):
    """A consistency model whose f is given, and whose velocity is that of N(0, S^2)."""

    levels_per_interval = 1

    def __init__(self, given, path, **options):
        curriculum = Curriculum(COUNT, COUNT)
        super().__init__(Exact(path), (1,), path=path, curriculum=curriculum, **options)
        self.given = given

    def f(self, x_t, t, c=None, net=None):
        return self.given(x_t, t)


class Exact(nn.Module):
    """What a network should say of the velocity of N(0, S^2)."""

    def __init__(self, path):
        super().__init__()
        self.denoiser = exact_denoiser(path)

    def forward(self, x, t, c=None, span=None):
        assert not span.any()
        path = self.denoiser.path
        t = t**path.rho if isinstance(path, EDMPath) else t  # from the clock
        found = self.denoiser(x * path.scale(t)[:, None], t)
        a, b = VELOCITY(path, t[:, None])
        return a * found.x + b * found.eps


def exact_denoiser(path):
    return ExactDenoiser(Gaussian(torch.zeros(1), torch.eye(1) * S**2), path)


def angles(path):
    """The angle of noise against data at each level; DDIM keeps the ratio of their cosines."""
    alpha, sigma = path(discretisation_times(path, COUNT))
    return torch.atan2(sigma, alpha * S), torch.hypot(alpha * S, sigma)


def pair(k, n=1):
    """The level after k, and k."""
    return torch.full((n,), k + 1), torch.full((n,), k)


def by_level(path, factors):
    """The f that multiplies by a factor of the level."""
    grid = discretisation_times(path, COUNT)
    return lambda x, t: x * factors[torch.searchsorted(grid, t - 1e-9)][:, None]


@pytest.mark.parametrize("name", PATHS)
def test_f_at_the_least_time_is_the_identity_for_any_weights(float64, name):
    model = families.build("consistency", Event((2,)), width=8, path=name)
    path, x = model.path, torch.randn(6, 2)
    t = torch.tensor(path.t_min)
    torch.testing.assert_close(model.f(x, t), x / path.alpha(t), rtol=0, atol=1e-15)
    model.f(x, t).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.net.parameters())


@pytest.mark.parametrize("own", [False, True], ids=["teacher", "own"])
@pytest.mark.parametrize("name", PATHS)
def test_there_is_no_loss_at_the_product_of_steps_of_the_flow(float64, name, own):
    """And the exact flow has: it is not what steps of a finite grid agree with."""
    path = PATHS[name]
    teacher = HeunTeacher(exact_denoiser(path), path)
    one = torch.ones(1, 1)
    factors = [1 / path.alpha(torch.tensor(path.t_min))]
    for k in range(COUNT):
        factors.append(factors[-1] * teacher.step(one, *pair(k), COUNT)[0, 0])
    product, x = by_level(path, torch.stack(factors)), S * torch.randn(500, 1)
    end = torch.tensor(path.t_min)
    exact = lambda x, t: gaussian_flow_map(path, torch.zeros(1), S, x, t, end)  # noqa: E731
    losses = []
    for f in (product, exact):
        model = Given(f, path)
        if not own:
            model.teacher = teacher
        losses.append(float(model.loss(x)["consistency"]))
    assert losses[0] < 1e-12 < 1e-6 < losses[1]


def test_the_last_step_of_the_teacher_is_ddim_whose_factor_is_known(float64):
    r"""To the noise-free end: :math:`\cos(\Delta\varphi)` short of the ratio of deviations."""
    path = PATHS["cosine"]
    phi, scale = angles(path)
    got = HeunTeacher(exact_denoiser(path), path).step(torch.ones(1, 1), *pair(0), COUNT)
    expected = scale[0] / scale[1] * (phi[1] - phi[0]).cos()
    torch.testing.assert_close(got[0, 0], expected)


def test_training_on_shared_noise_ends_at_the_product_of_euler_steps(float64):
    r"""Linear f and squared loss: :math:`k_t = k_r \mathrm{Cov}(x_r, x_t) / \mathrm{Var}(x_t)`.

    That is DDIM's factor (D2): the gradient there is zero within five standard errors, and at the
    exact map it is not.
    """
    path = PATHS["cosine"]
    phi, scale = angles(path)
    euler = torch.cat([torch.ones(1), phi.diff().cos().cumprod(0)]) * S / scale
    gradients = []
    for factors in (euler, S / scale):
        found = []
        for _ in range(20):
            k = factors.clone().requires_grad_()
            model = Given(by_level(path, k), path, point=shared_noise_step, huber=1e4)  # squared
            model.loss(S * torch.randn(6_000, 1))["consistency"].backward()
            found.append(k.grad)
        g = torch.stack(found)
        gradients.append(float((g.mean(0) / g.std(0) * 20**0.5)[1:].abs().max()))
    assert gradients[0] < 5 < gradients[1]


def test_without_the_boundary_condition_a_constant_is_a_trivial_minimiser(float64):
    """Its loss is zero, less than that of the exact map."""
    path, x = PATHS["cosine"], S * torch.randn(2_000, 1)
    constant = Given(lambda x, t: torch.zeros_like(x), path, point=shared_noise_step)
    exact = Given(
        lambda x, t: gaussian_flow_map(path, torch.zeros(1), S, x, t, torch.tensor(0.0)),
        path,
        point=shared_noise_step,
    )
    assert float(constant.loss(x)["consistency"]) == 0
    assert float(exact.loss(x)["consistency"]) > 0.01


def test_the_pseudo_huber_distance_is_squared_when_small_and_linear_when_large(float64):
    x, zero = torch.tensor([[3e-4, 4e-4], [300.0, 400.0]]), torch.zeros(2, 2)
    small, large = pseudo_huber(x, zero, 0.1)
    assert float(small) == pytest.approx(25e-8 / 2 / 0.1, rel=1e-4)
    assert float(large) == pytest.approx(500 - 0.1, rel=1e-4)


def test_the_intervals_double_until_the_last():
    model, counts = families.build("consistency", Event((2,)), width=8, first=4, last=20), []
    for model.progress in (0.0, 0.2, 0.3, 0.45, 0.6, 1.0):
        counts.append(model.intervals)
    assert counts[0] == 4 and counts[-1] == counts[-2] == 20
    assert counts == sorted(counts) and set(counts) <= {4, 8, 16, 20}


def test_the_target_is_the_average_that_the_option_names():
    model = families.build("consistency", Event((2,)), width=8, target=0.9)
    trainer = Trainer(model, Recipe(batch=16, ema=0), 4)
    before = [p.clone() for p in model.average.parameters()]
    trainer.step(random_batches(torch.randn(64, 2), 16))
    for a, b, p in zip(model.average.parameters(), before, model.net.parameters(), strict=True):
        torch.testing.assert_close(a, 0.9 * b + 0.1 * p)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_nfe_is_the_number_of_calls_of_the_network(steps):
    model, calls = families.build("consistency", Event((2,)), width=8), []
    model.net.register_forward_hook(lambda *_: calls.append(1))
    model.sample(3, steps=steps)
    assert len(calls) == steps
    model.sample(3)
    assert len(calls) == steps + model.nfe


def test_guidance_mixes_the_ends_with_and_without_the_condition():
    model, c = families.build("consistency", Event((2,), 3), width=8), torch.ones(4, 3)
    draws = {}
    for w in (0.0, 1.0, 3.0):
        torch.manual_seed(1)
        draws[w] = model.sample(4, c, guidance=w, steps=1)
    torch.manual_seed(1)
    torch.testing.assert_close(draws[0.0], model.sample(4, steps=1))
    torch.testing.assert_close(draws[3.0], 3 * draws[1.0] - 2 * draws[0.0])


def test_a_teacher_is_no_part_of_the_student_and_must_have_a_flow():
    teacher = families.build("flow_matching", Event((2,)), width=8)
    student = families.build("consistency", Event((2,)), width=8)
    keys = student.state_dict().keys()
    student.distil(teacher)
    assert student.state_dict().keys() == keys
    with pytest.raises(UsageError, match="ddpm, edm or flow_matching"):
        student.distil(families.build("gan", Event((2,))))


@pytest.mark.parametrize("name", ["ddpm", "edm", "flow_matching"])
def test_an_untrained_students_pairs_lie_on_the_teachers_flow(float64, name):
    """With networks of zeros every teacher's flow is that of N(0, I), which ends where it began."""
    teacher = families.build(name, Event((2,)), width=8)
    last = [m for m in teacher.denoiser.net.modules() if isinstance(m, nn.Linear)][-1]
    teacher.prepare(torch.randn(10, 2))
    for p in last.parameters():
        p.data.zero_()
    student = families.build("consistency", Event((2,)), width=8)
    student.distil(teacher)
    count, x = 64, torch.randn(5, 2)
    y = x
    for k in reversed(range(count)):
        y = student.teacher.step(y, *pair(k, 5), count)
    torch.testing.assert_close(y, x, rtol=2e-3, atol=0)  # rotations keep the norm of unit data


def test_the_loss_of_the_exact_velocity_has_its_floor(float64):
    r"""The rate's variance given x_t, :math:`S^2 / (\alpha^2 S^2 + \sigma^2)`, even in angle (D10).

    Its mean over a quarter of a circle is :math:`S`. Each datum under a condition of its own: the
    mean over a batch is below that floor.
    """
    model, c = Given(lambda x, t: x, PATHS["cosine"]), torch.arange(1.0, 401)[:, None]
    terms = torch.stack(
        [model.flow_matching_error(S * torch.randn(400, 1), c).mean() for _ in range(100)]
    )
    assert float(terms.mean()) == pytest.approx(S, abs=5 * float(terms.std()) / 100**0.5)
    pooled = torch.stack(
        [model.flow_matching_error(S * torch.randn(400, 1), None).mean() for _ in range(20)]
    )
    assert float(pooled.mean()) < 0.2 * S


def test_a_flow_is_learned_beside_f_in_the_plane_and_not_beyond_nor_with_a_teacher():
    plane, digits = (families.build("consistency", Event((d,)), width=8) for d in (2, 64))
    assert (plane.point, plane.curriculum.last) == (flow_step, 16)
    assert (digits.point, digits.curriculum.last) == (shared_noise_step, 32)
    assert plane.loss(torch.randn(8, 2)).keys() == {"consistency", "flow"}
    digits.distil(families.build("flow_matching", Event((64,)), width=8))
    plane.distil(families.build("flow_matching", Event((2,)), width=8))
    for model, d in ((plane, 2), (digits, 64)):
        assert model.point is flow_step
        assert model.loss(torch.randn(8, d)).keys() == {"consistency"}


def gap(model, name, **options):
    """Sliced W2 to fresh data, the mean of four pairs, over that between samples of the law."""
    sample, n = datasets.load(name).sample, 10_000
    found = [sliced_w2(sample(n, 90 + k), model.draw(n, seed=k, **options)) for k in range(4)]
    floor = [sliced_w2(sample(n, 2 * k), sample(n, 2 * k + 1)) for k in range(1, 5)]
    return np.mean(found) / np.mean(floor)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["8gaussians", "moons"])
def test_one_step_is_far_better_than_a_gaussian_and_two_are_near_the_floor(name):
    model = fit(name, "consistency", progress=False)
    assert gap(model, name, steps=1) < 0.5 * gap(fit(name, "gaussian", progress=False), name)
    assert gap(model, name, steps=2) < 2


@pytest.mark.slow
def test_distilled_flow_matching_keeps_its_quality_in_one_step():
    teacher = fit("8gaussians", "flow_matching", progress=False)
    student = fit("8gaussians", "consistency", teacher=teacher, progress=False)
    assert gap(student, "8gaussians", steps=1) < 1.5 * gap(teacher, "8gaussians")
