"""U-Nets and transformers of images against facts that can be said without training them."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pushforward.errors import UsageError
from pushforward.model import Event
from pushforward.networks.blocks import (
    Attention,
    ResidualBlock,
    TimeConditionEmbedding,
    dot_product_attention,
    group_norm,
    head_count,
)
from pushforward.networks.layout import image_layout
from pushforward.networks.mlp import TimeMLP
from pushforward.networks.select import build_time_network
from pushforward.networks.transformer import DiT, DiTBlock, sinusoidal_positions
from pushforward.networks.unet import UNet, UNetBlock

TOKENS = (3, 4)
CONDITION = 1 + 2 + 3 * 4
SHAPES = [(1, 6, 6), (5, 7), (9, 6, 3), (2, 5, 9), (1, 1)]


def net(kind, shape=(5, 7), condition=CONDITION, tokens=TOKENS, **options):
    """A small network with random weights everywhere, in float64."""
    make = {"unet": UNet, "dit": DiT}[kind]
    size = {"unet": {"width": 4, "scales": 3}, "dit": {"width": 8, "depth": 2}}[kind]
    made = make(shape, condition, tokens=tokens, **size | options).double().eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


def batch(shape=(5, 7), n=4):
    """Images, times and conditions of which some have fewer tokens than others."""
    x, t = torch.randn(n, *shape).double(), torch.rand(n).double()
    c = torch.randn(n, CONDITION).double()
    c[:, 0] = 1
    tokens = c[:, 3:].unflatten(1, TOKENS)
    tokens[..., 0] = 1
    for i in range(n):
        tokens[i, i % 4 :] = 0
    return x, t, c


KINDS = pytest.mark.parametrize("kind", ["unet", "dit"])


@KINDS
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_and_any_number_of_channels_go_in_and_come_out(kind, shape):
    x, t, c = batch(shape)
    y = net(kind, shape)(x, t, c)
    assert y.shape == x.shape and y.isfinite().all()
    everywhere = torch.autograd.functional.jacobian(lambda v: net(kind, shape)(v, t[:1]), x[:1])
    assert (everywhere.abs().flatten(1).sum(0) > 0).all() or math.prod(shape) == 1


@KINDS
def test_the_untrained_network_gives_exactly_zero(kind):
    x, t, c = (v.float() for v in batch())
    make = UNet((5, 7), CONDITION, width=8) if kind == "unet" else DiT((5, 7), CONDITION, width=8)
    assert (make(x, t, c) == 0).all()


def test_untrained_blocks_are_the_identity():
    h, e = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    assert torch.equal(UNetBlock(8, 8, 16, True, 0, 0.0)(h, e, None), h)
    tokens = torch.randn(2, 5, 8)
    assert torch.equal(DiTBlock(8, 0, 0.0)(tokens, torch.randn(2, 8), None), tokens)


@KINDS
def test_an_unknown_condition_is_the_zero_vector_and_hides_its_tokens(kind):
    x, t, c = batch()
    made = net(kind)
    nothing = made(x, t)
    torch.testing.assert_close(made(x, t, torch.zeros_like(c)), nothing, rtol=1e-12, atol=1e-12)
    assert (made(x, t, c) - nothing).abs().amax((1, 2)).min() > 1e-4


@KINDS
def test_a_token_that_is_not_there_changes_nothing_and_one_that_is_does(kind):
    x, t, c = batch()
    made, fuller = net(kind), c.clone()
    y = made(x, t, c)
    absent = fuller[:, 3:].unflatten(1, TOKENS)
    absent[..., 1:] += torch.where(absent[..., :1] == 0, 7.0, 0.0)  # whatever lies behind the mask
    torch.testing.assert_close(made(x, t, fuller), y, rtol=1e-12, atol=1e-12)
    absent[..., 0] = 1
    assert (made(x, t, fuller) - y).abs().amax((1, 2))[:3].min() > 1e-4


@KINDS
def test_the_order_of_tokens_does_not_matter(kind):
    x, t, c = batch()
    made, turned = net(kind), c.clone()
    turned[:, 3:] = c[:, 3:].unflatten(1, TOKENS).flip(1).flatten(1)
    torch.testing.assert_close(made(x, t, turned), made(x, t, c), rtol=1e-10, atol=1e-12)


@KINDS
def test_a_time_shared_by_the_batch_gives_what_each_datum_alone_gives(kind):
    x, _, c = batch()
    made, t = net(kind), torch.tensor(0.3).double()
    for known in (None, c):
        whole = made(x, t, known)
        torch.testing.assert_close(whole, made(x, t.expand(4), known), rtol=1e-10, atol=1e-12)
        alone = [made(x[i : i + 1], t, None if known is None else c[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(whole, torch.cat(alone), rtol=1e-10, atol=1e-12)


@KINDS
def test_a_second_time_changes_the_output(kind):
    x, t, c = batch()
    made = net(kind, spans=True)
    assert (made(x, t, c, t / 2) - made(x, t, c, t)).abs().max() > 1e-4
    assert net(kind)(x, t, c, t / 2).shape == x.shape


@KINDS
def test_one_datum_tells_another_nothing(kind):
    """The Jacobian of one output in all inputs of the batch is zero outside its own datum."""
    x, t, c = batch()
    made = net(kind)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(made(x, t, c)[1].sum(), x)
    assert slope[1].abs().max() > 0 and slope[[0, 2, 3]].abs().max() == 0


@KINDS
def test_forward_mode_derivatives_are_differences_of_values(kind):
    """As mean flows and the consistency of flow maps need them: in x, t and the span at once."""
    x, t, c = batch((1, 6, 6))
    made, d = net(kind, (1, 6, 6), spans=True), torch.randn(4, 1, 6, 6).double()

    def f(x, t, span):
        return made(x, t, c, span)

    one = torch.ones_like(t)
    _, rate = torch.func.jvp(f, (x, t, t / 3), (d, one, -one))
    h = 1e-6  # the fastest feature of time has a third derivative of 15,000
    ahead, behind = (f(x + s * d, t + s * one, t / 3 - s * one) for s in (h, -h))
    torch.testing.assert_close(rate, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["residual", "unet", "dit", "attention"])
def test_gradients_of_blocks_and_theirs_are_differences_of_values(kind):
    e, tokens = torch.randn(1, 4).double(), torch.randn(1, 2, 3).double()
    tokens[0, 1, 0] = 0
    block, h = {
        "residual": (ResidualBlock(2, 3, 4), torch.randn(1, 2, 3, 2)),
        "unet": (UNetBlock(4, 4, 4, True, 3, 0.0), torch.randn(1, 4, 2, 2)),
        "dit": (DiTBlock(4, 3, 0.0), torch.randn(1, 3, 4)),
        "attention": (Attention(4, 3), torch.randn(1, 3, 4)),
    }[kind]
    block, h = block.double(), h.double().requires_grad_()
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.3 * torch.randn_like(p))
    told = {"residual": (e,), "attention": (tokens,)}.get(kind, (e, tokens))
    assert torch.autograd.gradcheck(lambda h: block(h, *told), h)
    assert torch.autograd.gradgradcheck(lambda h: block(h, *told), h)


def test_attention_is_the_softmax_of_scaled_products():
    q, k, v = torch.randn(3, 2, 4, 5, 8).double()
    seen = torch.rand(2, 1, 5, 5) > 0.3
    seen[..., 0] = True
    for mask in (None, seen):
        torch.testing.assert_close(
            dot_product_attention(q, k, v, mask),
            scaled_dot_product_attention(q, k, v, attn_mask=mask),
        )
    score = torch.exp(q[0, 0, 0] @ k[0, 0].T / math.sqrt(8))
    torch.testing.assert_close(
        dot_product_attention(q, k, v)[0, 0, 0], (score / score.sum()) @ v[0, 0]
    )


@pytest.mark.parametrize("width", [4, 20, 32, 48, 64, 100, 128])
def test_heads_divide_the_width(width):
    assert width % head_count(width) == 0 and width / head_count(width) >= min(width, 32)


def test_without_positions_a_transformer_permutes_with_its_patches():
    """And with them it does not: places matter."""
    made, x = net("dit", (4, 8), condition=0, tokens=(0, 0)), torch.randn(2, 4, 8).double()
    t = torch.rand(2).double()

    def swapped(x):
        return torch.cat([x[:, :, 4:], x[:, :, :4]], dim=2)

    assert (made(swapped(x), t) - swapped(made(x, t))).abs().max() > 1e-3
    made.places.zero_()
    torch.testing.assert_close(made(swapped(x), t), swapped(made(x, t)), rtol=1e-10, atol=1e-12)


def test_positions_are_all_different_and_their_products_depend_on_offsets_only():
    p = sinusoidal_positions(5, 7, 16).double()
    products = (p @ p.T).view(5, 7, 5, 7)
    assert torch.cdist(p, p).fill_diagonal_(1).min() > 1e-3
    torch.testing.assert_close(products[0, 1, 2, 4], products[2, 3, 4, 6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", range(1, 40))
def test_groups_hold_at_least_four_channels_where_there_are_so_many(channels):
    norm = group_norm(channels)
    assert channels % norm.num_groups == 0
    assert channels // norm.num_groups >= min(channels, 4)


def test_residual_blocks_scale_and_shift_by_what_they_are_told():
    """With a second convolution that passes one pixel on, the block is silu((1 + s) n + b) + h."""
    block, h, e = ResidualBlock(4, 4, 3), torch.randn(2, 4, 5, 5), torch.randn(2, 3)
    torch.nn.init.dirac_(block.second.weight)
    torch.nn.init.zeros_(block.second.bias)
    scale, shift = (e @ block.told.weight.T)[..., None, None].chunk(2, dim=1)
    n = block.between(block.first(torch.nn.functional.silu(block.before(h))))
    expected = h + torch.nn.functional.silu((1 + scale) * n + shift)
    torch.testing.assert_close(block(h, e), expected)
    assert torch.equal(block(h), block(h, torch.zeros_like(e)))


def test_a_condition_shorter_than_its_tokens_is_refused():
    with pytest.raises(UsageError, match="cannot end in"):
        TimeConditionEmbedding(5, 8, tokens=(3, 2))
    with pytest.raises(UsageError, match="multiple of 4"):
        DiT((4, 4), width=6)


def test_parameters_are_those_that_one_counts_by_hand():
    """A transformer: patches in and out, the embedding, and blocks of 18 w^2 + 15 w."""
    w, depth, patch, channels, condition = 16, 3, 2, 3, 5
    made = DiT((channels, 8, 8), condition, width=w, depth=depth, patch=patch)
    block = (6 * w * w + 6 * w) + (3 * w * w + 3 * w + w * w + w) + (8 * w * w + 5 * w)
    ends = 2 * channels * patch**2 * w + w + channels * patch**2 + 2 * w * w + 2 * w
    embedding = 16 * w + w + w * w + w + condition * w
    assert sum(p.numel() for p in made.parameters()) == depth * block + ends + embedding


def test_networks_are_chosen_by_the_kind_of_data():
    options = {"width": 0, "units": 16, "depth": 3}
    for shape, kind in [((5,), TimeMLP), ((8, 8), TimeMLP), ((12, 12, 3), UNet)]:
        assert type(build_time_network(Event(shape), **options)) is kind
    assert type(build_time_network(Event((1, 8, 8)), network="dit", **options)) is DiT
    digits = build_time_network(Event((28, 28)), **options)
    assert 0.5e6 < sum(p.numel() for p in digits.parameters()) < 1e6
    with pytest.raises(UsageError, match="no images"):
        build_time_network(Event((5,)), network="unet", **options)
    with pytest.raises(UsageError, match="network is 'cnn'"):
        build_time_network(Event((5,)), network="cnn", **options)


@pytest.mark.parametrize(
    ("event", "shape"),
    [
        ((5, 7), (1, 5, 7)),
        ((3, 5, 7), (3, 5, 7)),
        ((5, 7, 3), (3, 5, 7)),
        ((12, 12, 1), (1, 12, 12)),
        ((1, 12, 12), (1, 12, 12)),
        ((16, 4, 4), (16, 4, 4)),
        ((3, 2, 2), (3, 2, 2)),
    ],
)
def test_channels_are_found_and_put_back_where_they_were(event, shape):
    layout, x = image_layout(event), torch.randn(2, *event)
    h = layout.to_channels_first(x)
    assert layout.shape == shape and h.shape == (2, *shape)
    assert torch.equal(layout.from_channels_first(h), x) and h.data_ptr() == x.data_ptr()
    last = len(event) == 3 and event[:2] == shape[1:]
    assert h[1, -1, 1, 0] == (x[1, 1, 0, -1] if last else x[1].view(shape)[-1, 1, 0])
    if last:
        assert h.is_contiguous(memory_format=torch.channels_last)


def test_vectors_are_no_images():
    for event in [(5,), (2, 2, 2, 2)]:
        with pytest.raises(UsageError, match="no images"):
            image_layout(event)
