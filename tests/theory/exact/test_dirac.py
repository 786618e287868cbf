"""Games between two points against autograd, long runs, and optima found by descent (D4, D5)."""

import math

import pytest
import torch

from pushforward.theory import adversarial as adv
from pushforward.theory.exact import discriminator

ZERO = torch.zeros(2, dtype=torch.float64)
START = torch.tensor([0.6, 0.8], dtype=torch.float64)
STEPS = {
    "simultaneous": (discriminator.simultaneous_step, discriminator.simultaneous_eigenvalues),
    "alternating": (discriminator.alternating_step, discriminator.alternating_eigenvalues),
}


def run(step, h, steps, penalty=0.0):
    state = START
    for _ in range(steps):
        state = step(state, h, penalty)
    return state.norm().item()


@pytest.mark.parametrize("penalty", [0.0, 0.4, 1.5])
def test_players_descend_the_losses_of_the_game(penalty):
    """D4: the directions are minus the gradients of the losses, R1 included, by autograd."""
    theta, psi = (v.requires_grad_() for v in START.clone())
    data = torch.zeros(1, 1, dtype=torch.float64)
    critic = sum(adv.discriminator_loss(psi * data[:, 0], (psi * theta)[None]).values())
    critic = critic + penalty * adv.zero_centred_penalty(lambda x: psi * x[:, 0], data)
    generator = adv.saturating_loss((psi * theta)[None])
    expected = -torch.cat(
        [
            torch.autograd.grad(generator, theta, retain_graph=True)[0][None],
            torch.autograd.grad(critic, psi)[0][None],
        ]
    )
    torch.testing.assert_close(discriminator.descent_direction(START, penalty), expected)


@pytest.mark.parametrize("penalty", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", STEPS)
def test_eigenvalues_are_those_of_the_linearised_step(kind, h, penalty):
    """D4: of the Jacobian at the equilibrium, by autograd and LAPACK."""
    step, eigenvalues = STEPS[kind]
    jacobian = torch.autograd.functional.jacobian(lambda s: step(s, h, penalty), ZERO)
    found = sorted(torch.linalg.eigvals(jacobian).tolist(), key=lambda z: (z.real, z.imag))
    expected = sorted(eigenvalues(h, penalty), key=lambda z: (z.real, z.imag))
    assert found == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("h", [0.1, 0.5])
def test_simultaneous_steps_spiral_outwards_by_the_root_of_1_plus_h_squared_over_4(h):
    """D4: |lambda| > 1, so the radius of a small circle grows by |lambda| a step."""
    lengths = [abs(z) for z in discriminator.simultaneous_eigenvalues(h)]
    assert lengths == pytest.approx([math.sqrt(1 + h**2 / 4)] * 2)
    state = 1e-5 * START
    for _ in range(100):
        state = discriminator.simultaneous_step(state, h)
    assert state.norm().item() == pytest.approx(1e-5 * lengths[0] ** 100, rel=1e-6)
    assert run(discriminator.simultaneous_step, h, 1000) > 1.1


def test_alternating_steps_circle():
    """D4: |lambda| = 1, and from radius 1 the radius stays between 0.5 and 2 for 2,000 steps."""
    assert [abs(z) for z in discriminator.alternating_eigenvalues(0.5)] == pytest.approx([1, 1])
    state = START
    for _ in range(2000):
        state = discriminator.alternating_step(state, 0.1)
        assert 0.5 < state.norm() < 2


@pytest.mark.parametrize("kind", STEPS)
def test_r1_converges_at_the_rate_of_its_eigenvalues(kind):
    """D4: with gamma = 1/2 the radius falls by |lambda| a step, to nothing."""
    step, eigenvalues = STEPS[kind]
    rate = max(abs(z) for z in eigenvalues(0.2, 0.5))
    assert rate < 1
    one, two = run(step, 0.2, 300, 0.5), run(step, 0.2, 500, 0.5)
    # a rotating radius wobbles by a bounded factor about its exponential
    assert math.log(two / one) / 200 == pytest.approx(math.log(rate), rel=0.05)
    assert two < 1e-8


def descend(loss, slope, lr, steps=1000):
    s = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        (g,) = torch.autograd.grad(loss(s), s)
        s = (s - lr * g).detach().requires_grad_()
    return s.item(), -loss(s).item()


@pytest.mark.parametrize(("distance", "penalty"), [(2.0, 5.0), (10.0, 10.0), (0.5, 0.1)])
def test_penalised_optimum_is_where_descent_ends(distance, penalty):
    """D5: slope 1 + d/2 lambda, gap d + d^2/2 lambda, value d + d^2/4 lambda; 15, not 10."""
    best = discriminator.penalised_optimum(distance, penalty)
    slope, value = descend(
        lambda s: -s * distance + penalty * (s.abs() - 1) ** 2, 0.5, 0.1 / penalty
    )
    assert (slope, slope * distance, value) == pytest.approx(tuple(best), abs=1e-9)


@pytest.mark.parametrize("distance", [2.0, 30.0])
def test_the_second_optimum_has_the_wrong_sign_and_exists_for_near_points_only(distance):
    """D5: -1 + d/2 lambda for d < 2 lambda; farther points pull the slope over zero."""
    slope, _ = descend(lambda s: -s * distance + 10.0 * (s.abs() - 1) ** 2, -1.0, 0.01)
    wrong = discriminator.spurious_slope(distance, 10.0)
    expected = discriminator.penalised_optimum(distance, 10.0).slope if wrong is None else wrong
    assert slope == pytest.approx(expected, abs=1e-9)
    assert (wrong is None) == (distance >= 20)


def test_clipped_gap_is_the_best_over_the_corners_of_the_cube():
    """D5: c |Delta|_1, a linear programme over [-c, c]^d; for W1 = 5 it says 0.07."""
    corners = 0.01 * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)
    difference = torch.randn(3, dtype=torch.float64)
    best = (corners @ difference).max()
    torch.testing.assert_close(discriminator.clipped_gap(difference, 0.01), best)
    assert discriminator.clipped_gap(torch.tensor([3.0, 4.0]), 0.01).item() == pytest.approx(0.07)


def test_play_is_step_after_step():
    states = discriminator.play_game(discriminator.alternating_step, START, 0.1, 50, 0.3)
    assert states.shape == (51, 2) and torch.equal(states[0], START)
    assert states[-1].norm().item() == pytest.approx(
        run(discriminator.alternating_step, 0.1, 50, 0.3)
    )


def test_players_of_wgan_gp_descend_its_losses():
    """By autograd: the critic minimises its gap and penalty, the generator minus its value."""
    theta, psi = (v.requires_grad_() for v in START.clone())
    data = torch.zeros(1, 1, dtype=torch.float64)

    def f(x):
        return psi * x[:, 0]

    fake = theta[None, None]
    loss = -adv.critic_gap(f(data), f(fake)) + 3.0 * adv.wgan_gp_penalty(f, data)
    up = torch.stack(
        [
            torch.autograd.grad(f(fake).sum(), theta, retain_graph=True)[0],
            -torch.autograd.grad(loss, psi)[0],
        ]
    )
    torch.testing.assert_close(discriminator.wgan_gp_step(START, 0.1, 3.0), START + 0.1 * up)


def test_wgan_gp_between_two_points_never_comes_to_rest():
    late = discriminator.play_game(discriminator.wgan_gp_step, START, 0.01, 4000, 10.0)[-1000:, 0]
    assert late.abs().max() > 0.1
