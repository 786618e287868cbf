"""Spline flows: inverse, log-determinant against autograd, total mass, and zuko's own density."""

import math

import pytest
import torch

from pushforward import families
from pushforward.errors import UsageError
from pushforward.families.normalizing_flow import KINDS, build
from pushforward.model import Event
from pushforward.networks.image_flow import depth_to_space, space_to_depth
from pushforward.training.trainer import Trainer, random_batches

SPLINES = ("coupling", "autoregressive")
VECTORS = [k for k in KINDS if k != "multiscale"]
CASES = [(k, s) for k in VECTORS for s in [(2,), (5,), (2, 3)]] + [(k, (1,)) for k in SPLINES]
CASES += [("multiscale", s) for s in [(1, 2), (3, 4), (2, 4, 4), (3, 1, 1)]]
SMALL = {"width": 16, "transforms": 2, "bins": 6}
RADII = (0.5, 3.0, 7.9, 30.0, 100.0)  # inside the box of the splines, at its edge, far outside


def flow(kind, shape, condition=0, spread=None):
    """An untrained flow with large random parameters, so that its layers are far from identity.

    Affine maps multiply by up to a thousand, and a multi-scale flow has many layers, so that their
    parameters are kept where rounding is not amplified beyond what the tests can tell.
    """
    spread = spread or (0.5 if KINDS[kind].affine or kind == "multiscale" else 2.0)
    model = build(Event(shape, condition), kind=kind, **SMALL).double()
    with torch.no_grad():
        for p in model.parameters():
            inputs = p[0].numel() if p.ndim > 1 else len(p)
            p.copy_(torch.randn_like(p) / math.sqrt(max(inputs, 1)) * spread)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_decoding_inverts_encoding(kind, shape, radius):
    """To 1e-7 in float64, or 1e-8 of the size of the data: the inverse solves a quadratic, which
    loses half the digits.
    """
    model, x = flow(kind, shape, 2), radius * torch.randn(20, *shape, dtype=torch.float64)
    c = torch.randn(20, 2, dtype=torch.float64)
    close = {"rtol": 1e-7, "atol": 1e-8 * max(radius, 10.0)}
    torch.testing.assert_close(model.decode(model.encode(x, c), c), x, **close)
    torch.testing.assert_close(model.encode(model.decode(x, c), c), x, **close)


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_density_is_the_normal_one_times_autograds_jacobian(kind, shape, radius):
    model, x = flow(kind, shape, 2), radius * torch.randn(8, *shape, dtype=torch.float64)
    c, d = torch.randn(8, 2, dtype=torch.float64), math.prod(shape)
    for i in range(len(x)):
        one, given = x[[i]], c[[i]]
        jacobian = torch.autograd.functional.jacobian(lambda v, g=given: model.encode(v, g), one)
        log_det = torch.linalg.slogdet(jacobian.reshape(d, d)).logabsdet
        z = model.encode(one, given)
        expected = log_det - z.square().sum() / 2 - d / 2 * math.log(2 * math.pi)
        torch.testing.assert_close(model.log_prob(one, given)[0], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "d", "n"), [(k, 2, 501) for k in VECTORS] + [(k, 1, 20_001) for k in SPLINES]
)
def test_density_integrates_to_one(kind, d, n):
    """On [-12, 12]^d: beyond it, the splines are the identity and the mass is below 1e-30."""
    model = flow(kind, (d,), spread=0.5)
    axis = torch.linspace(-12, 12, n, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * d).view(-1, d)
    mass = sum(model.log_prob(rows).exp().sum() for rows in grid.split(16_384))
    assert (mass * (axis[1] - axis[0]) ** d).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["coupling", "autoregressive", "realnvp", "maf"])
def test_coupling_leaves_half_to_itself_and_autoregression_is_triangular(kind):
    """The Jacobian of one layer: lower triangular in its order, and for coupling also diagonal
    within each half.
    """
    model = build(Event((4,)), kind=kind, transforms=1, bins=4, width=16).double()
    x = torch.randn(1, 4, dtype=torch.float64)
    layer = model.flow.transform.transforms[0]
    order = layer.order
    jacobian = torch.autograd.functional.jacobian(lambda v: layer()(v), x)[0, :, 0]
    for i in range(4):
        for j in range(4):
            if i != j and order[i] <= order[j]:
                assert jacobian[i, j] == 0
    assert len(order.unique()) == (2 if kind in ("coupling", "realnvp") else 4)


def test_an_unknown_condition_is_the_zero_vector():
    model, x = flow("coupling", (2,), 3), torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(model.log_prob(x), model.log_prob(x, torch.zeros(5, 3).double()))


def test_gradients_are_finite_far_outside_the_box():
    model = build(Event((3,)), **SMALL)
    x = torch.tensor([[1e4, -1e4, 8.0], [-8.0, 0.0, 100.0]])
    model.loss(x)["nll"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("kind", "shape"), [("coupling", (1,)), *((k, (5,)) for k in VECTORS), ("multiscale", (4, 4))]
)
def test_a_saved_state_gives_the_same_density_in_a_fresh_model(kind, shape):
    """The random permutations are part of the state."""
    model, x = build(Event(shape), kind=kind, **SMALL), torch.randn(20, *shape)
    fresh = build(Event(shape), kind=kind, **SMALL)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))


def test_conditional_samples_follow_each_class():
    """Two classes, N(-1, .5^2) and N(1, .5^2), after 150 short steps: means within 0.1."""
    k = torch.randint(2, (4000,))
    x = 0.5 * torch.randn(4000, 1) + 2.0 * k[:, None] - 1
    c = torch.cat([torch.ones(4000, 1), torch.nn.functional.one_hot(k, 2).float()], 1)
    model = build(Event((1,), 3), width=16, bins=8)
    trainer = Trainer(model, model.recipe._replace(lr=1e-2, batch=256, ema=0.9), 150)
    for _ in trainer.run(random_batches(x, 256, c)):
        pass
    for j in (0, 1):
        drawn = trainer.average.sample(4000, c[k == j][:1].expand(4000, 3))
        assert drawn.mean().item() == pytest.approx(2 * j - 1, abs=0.1)
        assert drawn.std().item() == pytest.approx(0.5, abs=0.1)


def test_an_unknown_kind_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="coupling, autoregressive"):
        families.build("normalizing_flow", Event((2,)), kind="glow")


@pytest.mark.parametrize("kind", ["realnvp", "maf", "iaf"])
def test_affine_maps_of_a_line_are_refused(kind):
    """Their composition is affine: the model would be one Gaussian."""
    with pytest.raises(UsageError, match="single Gaussian"):
        build(Event((1,), 2), kind=kind)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 6, 4), (1, 5, 5), (4, 2, 2), (1, 3, 8)])
def test_a_multi_scale_flow_lets_every_entry_see_every_other(shape):
    """Each noise depends on some other pixel, each pixel moves, and no entry is lost."""
    model = flow("multiscale", shape)
    x, d = torch.randn(1, *shape, dtype=torch.float64), math.prod(shape)
    jacobian = torch.autograd.functional.jacobian(model.encode, x).reshape(d, d)
    assert torch.linalg.matrix_rank(jacobian) == d
    assert ((jacobian != 0).sum(0) > 1).all() and ((jacobian != 0).sum(1) > 1).all()


def test_a_multi_scale_flow_takes_channels_first_or_last_alike():
    first, last = flow("multiscale", (2, 4, 3)), flow("multiscale", (4, 3, 2))
    last.load_state_dict(first.state_dict())
    x = torch.randn(5, 2, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(last.log_prob(x.movedim(1, 3)), first.log_prob(x))
    z = first.encode(x).flatten(1)
    decoded = last.decode(z.view(5, 4, 3, 2))
    torch.testing.assert_close(decoded.movedim(3, 1), x, rtol=1e-6, atol=1e-6)


def test_squares_become_channels_and_back():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    y = space_to_depth(x, (2, 2))
    assert y.shape == (2, 12, 2, 3) and y[0, :4, 0, 0].tolist() == [0, 1, 6, 7]
    for square in [(2, 2), (1, 2), (2, 1)]:
        assert torch.equal(depth_to_space(space_to_depth(x, square), square), x)


def test_a_multi_scale_flow_of_vectors_is_refused():
    with pytest.raises(UsageError, match="for images"):
        build(Event((4,)), kind="multiscale")


@pytest.mark.parametrize(("kind", "passes"), [("maf", 5), ("iaf", 1), ("realnvp", 2)])
def test_decoding_takes_as_many_passes_as_the_kind_says(kind, passes):
    """Counted calls of one layer's network on five entries."""
    model = build(Event((5,)), kind=kind, width=8, transforms=1)
    layer = next(m for m in model.modules() if hasattr(m, "hyper"))
    calls = []
    layer.hyper.register_forward_hook(lambda *_: calls.append(1))
    model.decode(torch.randn(3, 5))
    assert len(calls) == passes


@pytest.mark.slow
def test_the_default_reaches_the_entropy_of_the_lessons_mixture():
    """0.3 N(-2, .5^2) + 0.7 N(2, .7^2): entropy 1.5709637 nats; the standard error is 0.006."""
    k = (torch.rand(32_768) < 0.3)[:, None]
    raw = torch.where(k, -2 + 0.5 * torch.randn(len(k), 1), 2 + 0.7 * torch.randn(len(k), 1))
    scale = math.sqrt(3.778)
    x, held_out = ((raw - 0.8) / scale).split(16_384)
    model = build(Event((1,)))
    trainer = Trainer(model, model.recipe, model.recipe.steps)
    for _ in trainer.run(random_batches(x, model.recipe.batch)):
        pass
    with torch.no_grad():
        gap = -trainer.average.log_prob(held_out).mean().item() + math.log(scale) - 1.5709637
    assert -0.02 < gap < 0.03


@pytest.mark.slow
def test_a_million_samples_are_finite():
    """The inverse spline takes a square root that rounding could make negative."""
    model = build(Event((2,)))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
        assert all(model.sample(100_000).isfinite().all() for _ in range(10))
