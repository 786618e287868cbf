"""The networks of vectors against properties that can be said without training them."""

import pytest
import torch

from pushforward.networks.mlp import Perceptron, RandomFourierFeatures, TimeMLP


def test_waves_are_the_sine_and_cosine_of_projections_in_single_precision_under_autocast():
    """At angular frequency 30 bfloat16 would round a phase of 60 by a quarter of a radian."""
    waves, x = RandomFourierFeatures(2, 16, 30.0), 2 * torch.randn(50, 2)
    phase = x.double() @ waves.directions.double()
    exact = torch.cat([x.double(), phase.sin(), phase.cos()], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        y = waves(x)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("waves", [0, 8])
def test_an_unknown_condition_is_the_zero_vector(waves):
    x, t, zero = torch.randn(5, 3), torch.rand(5), torch.zeros(5, 4)
    net, timed = Perceptron(3, 4, 2, [8], waves=waves), TimeMLP((3,), 4, width=8, waves=waves)
    assert torch.equal(net(x), net(x, zero))
    assert torch.equal(timed(x, t), timed(x, t, zero))


def test_a_time_shared_by_the_batch_gives_what_each_datum_alone_gives():
    net, x, t = TimeMLP((3,), width=8, waves=4), torch.randn(5, 3), torch.tensor(0.3)
    torch.testing.assert_close(net(x, t), net(x, t.expand(5)))


def test_a_second_time_changes_the_output_and_where_there_is_none_costs_no_weight():
    x, t, span = torch.randn(5, 3), torch.rand(5), torch.rand(5)
    torch.manual_seed(1)
    one = TimeMLP((3,), width=8)
    torch.manual_seed(1)
    two = TimeMLP((3,), width=8, spans=True)
    assert torch.equal(one(x, t), two(x, t))
    assert not torch.equal(two(x, t), two(x, t, None, span))
    extra = sum(p.numel() for p in two.parameters()) - sum(p.numel() for p in one.parameters())
    assert extra == two.span.weight.numel()
