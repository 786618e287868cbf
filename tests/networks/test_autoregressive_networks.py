"""Autoregressive networks: who sees whom, by autograd; drawing step by step against one pass; and
the linear one against the multivariate normal.
"""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from pushforward.networks.causal import CausalConvNet, CausalTransformer, relative_position_index
from pushforward.networks.likelihoods import (
    GaussianLikelihood,
    LinearResidualLikelihood,
    MixtureLikelihood,
)
from pushforward.networks.masked import (
    FourierEntryFeatures,
    LinearAutoregression,
    MaskedPerceptron,
    ridge_covariance,
)

ORDERS = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 2, 0, 1, 4, 3]])
NETS = ("masked", "narrow", "linear", "transformer", "conv", "colour")


def net(kind, condition=2):
    """A network of six entries with large random weights, in float64."""
    if kind == "transformer":
        made = CausalTransformer(
            (2, 3), FourierEntryFeatures(2), ORDERS, condition, 4, width=16, depth=2
        )
    elif kind in ("conv", "colour"):
        shape = (2, 3) if kind == "conv" else (3, 1, 2)
        made = CausalConvNet(
            shape, FourierEntryFeatures(2), ORDERS, condition, 4, width=16, depth=2
        )
    else:
        width = 3 if kind == "narrow" else 24  # fewer units than entries: some degrees have none
        made = MaskedPerceptron(FourierEntryFeatures(2), ORDERS, condition, 4, width=width, depth=3)
    if kind == "linear":
        made = LinearAutoregression(made, condition)
        rows = torch.randn(50, 6) @ torch.randn(6, 6)
        with torch.no_grad():
            made.initialise(
                torch.zeros(6, 4), rows, torch.randn(50, condition) if condition else None
            )
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return made.double().eval()


@pytest.mark.parametrize("o", [0, 1])
@pytest.mark.parametrize("kind", NETS)
def test_parameters_depend_on_earlier_entries_and_on_nothing_else(kind, o):
    """The Jacobian is strictly triangular in the order; nothing below the diagonal is lost."""
    model, x, c = net(kind), torch.randn(1, 6).double(), torch.randn(1, 2).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: model(v, o, c), x)[0, :, :, 0]
    seen = jacobian.abs().amax(1)[ORDERS[o]][:, ORDERS[o]]
    assert (seen.triu() == 0).all()
    if kind != "narrow":
        assert (seen[1:].tril()[torch.ones(5, 6).tril().bool()] > 0).all()


@pytest.mark.parametrize("kind", NETS)
def test_every_entry_depends_on_the_condition_the_first_one_too(kind):
    model, x, c = net(kind), torch.randn(1, 6).double(), torch.randn(1, 2).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: model(x, 0, v), c)[0, :, :, 0]
    assert (jacobian.abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize("condition", [0, 2])
@pytest.mark.parametrize("o", [0, 1])
@pytest.mark.parametrize("kind", NETS)
def test_drawing_with_a_kept_state_gives_the_parameters_of_one_pass(kind, o, condition):
    """Entries not drawn yet are not looked at: they hold infinity."""
    model, x = net(kind, condition), torch.randn(7, 6).double()
    c = torch.randn(7, condition).double() if condition else None
    expected, drawn = model(x, o, c), torch.full_like(x, math.inf)
    for i, h in model.decode_steps(drawn, o, c):
        torch.testing.assert_close(h, expected[:, i], rtol=1e-11, atol=1e-11)
        drawn[:, i] = x[:, i]
    assert torch.equal(drawn, x)


@pytest.mark.parametrize("kind", NETS)
def test_an_unknown_condition_is_the_zero_vector(kind):
    model, x = net(kind), torch.randn(3, 6).double()
    torch.testing.assert_close(model(x), model(x, 0, torch.zeros(3, 2).double()))


def linear_gaussian(condition, orders=ORDERS):
    """A linear autoregression whose residuals are standard normal, and their law."""
    law, d = (
        LinearResidualLikelihood(MixtureLikelihood(GaussianLikelihood(floor=0.0), 1)),
        orders.shape[1],
    )
    inner = MaskedPerceptron(
        FourierEntryFeatures(0), orders, condition, law.law.size, width=8, depth=1
    )
    return LinearAutoregression(inner.double(), condition).double(), law, d


@pytest.mark.parametrize("condition", [0, 2])
def test_the_linear_network_is_the_multivariate_normal_in_every_order(condition):
    r"""LDL' of the covariance: :math:`\sum_i \log p(x_i \mid x_{<i}) = \log N(x \mid \mu, S)`."""
    model, law, d = linear_gaussian(condition)
    rows = (torch.randn(200, d) @ torch.randn(d, d)).double() + 3
    c = torch.randn(200, condition).double() if condition else None
    with torch.no_grad():
        model.initialise(law.initial_parameters(rows), rows, c)
        model.net.out.weight.zero_()
        mean = model.prior_mean(c, len(rows))
        normal = MultivariateNormal(mean, ridge_covariance(rows - mean))
        for o in range(len(ORDERS)):
            value = law.log_prob(model(rows, o, c), rows).sum(1)
            torch.testing.assert_close(value, normal.log_prob(rows), rtol=1e-9, atol=1e-9)
    if condition:  # and the condition's effect is the ridge regression's
        away = rows - rows.mean(0) - c @ model.effect
        torch.testing.assert_close(c.T @ away, model.effect, rtol=1e-6, atol=1e-6)


def test_a_first_order_autoregression_has_a_toeplitz_covariance():
    r"""x_i = rho x_{i-1} + noise, stationary: :math:`\Sigma_{ij} = \rho^{|i - j|}`."""
    rho, (model, law, d) = 0.7, linear_gaussian(0, torch.arange(6)[None])
    with torch.no_grad():
        model.net.initialise(law.law.initial_parameters(torch.zeros(1, d)), torch.zeros(1, d))
        model.net.out.weight.zero_()
        model.before[0] = rho * torch.eye(d).roll(1, 0).tril(-1)
        model.log_scale[0, 1:] = math.log(math.sqrt(1 - rho**2))
    x, i = torch.randn(50, d).double(), torch.arange(d)
    toeplitz = rho ** (i[:, None] - i).abs().double()
    expected = MultivariateNormal(torch.zeros(d).double(), toeplitz).log_prob(x)
    # the start of a mixture is known to single precision
    torch.testing.assert_close(law.log_prob(model(x), x).sum(1), expected, rtol=1e-6, atol=1e-6)


def test_offsets_number_the_differences_of_places():
    """Equal for equal differences, different for different ones."""
    index, shape = relative_position_index((2, 3, 4)), (2, 3, 4)
    places = torch.cartesian_prod(*[torch.arange(s) for s in shape])
    found = {}
    for i in range(24):
        for j in range(24):
            found.setdefault(tuple((places[i] - places[j]).tolist()), set()).add(int(index[i, j]))
    assert all(len(numbers) == 1 for numbers in found.values())
    assert len(set.union(*found.values())) == len(found) == 3 * 5 * 7


def test_images_taken_in_parts_have_the_parameters_of_all_forward_all():
    model, x, c = net("conv"), torch.randn(70, 6).double(), torch.randn(70, 2).double()
    with torch.no_grad():
        torch.testing.assert_close(
            model(x, 1, c), model.forward_all(x, 1, c), rtol=1e-11, atol=1e-11
        )
        torch.testing.assert_close(model(x), model.forward_all(x, 0, None), rtol=1e-11, atol=1e-11)
