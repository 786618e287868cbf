"""The encoder of spelled captions: order counts, what is not there does not, once is enough."""

import pytest
import torch

from pushforward.data import captions
from pushforward.model import Event
from pushforward.networks.select import build_time_network, takes_tokens
from pushforward.networks.text_encoder import ByteEncoder
from pushforward.theory import paths, predictions
from pushforward.theory.denoisers import NetworkDenoiser
from pushforward.theory.guidance import GuidedDenoiser

COUNT, SAID = 6, ["red left of blue", "blue left of red", "one", "a b c d e f"]
SPELLED = torch.tensor(captions.encode_bytes(SAID, COUNT))


def event(shape, vector=3):
    length = vector + COUNT * captions.PIECE
    return Event(shape, length, 0, 100, (COUNT, captions.PIECE), True)


def conditions(vector=3):
    return torch.cat([torch.ones(len(SAID), vector), SPELLED], dim=1)


def test_the_order_of_words_changes_what_is_read_and_the_company_does_not():
    reader = ByteEncoder((COUNT, captions.PIECE)).eval()
    vectors, tokens = reader(SPELLED)
    assert (vectors[0] - vectors[1]).norm() > 0.01 * vectors[0].norm()
    for i in range(len(SAID)):
        vector, its = reader(SPELLED[i : i + 1])
        torch.testing.assert_close(vector[0], vectors[i])
        torch.testing.assert_close(its[0], tokens[i])
    assert tokens[..., 0].sum(1).tolist() == [4, 4, 1, 6]
    assert not tokens[2, 1:].any()


def test_a_hidden_caption_tells_nothing():
    vector, tokens = ByteEncoder((COUNT, captions.PIECE))(torch.zeros(2, COUNT * captions.PIECE))
    assert not vector.any() and not tokens.any()


@pytest.mark.parametrize(("shape", "network"), [((2,), "mlp"), ((8, 8), "unet"), ((8, 8), "dit")])
def test_networks_of_a_time_take_spelled_captions_and_read_them_once_a_grid(shape, network):
    net = build_time_network(event(shape), network=network, width=8, units=8, depth=1).eval()
    assert takes_tokens(net)
    for parameter in net.parameters():  # last layers begin at zero
        torch.nn.init.normal_(parameter, std=0.2)
    path, c = paths.LinearPath(), conditions()
    denoiser = GuidedDenoiser(NetworkDenoiser(net, path, predictions.v_prediction), 2.0)
    x, times, calls = torch.randn(len(SAID), *shape), torch.tensor([0.7, 0.4]), []
    truth = [denoiser(x, t, c) for t in times]
    assert (truth[0].x[0] - denoiser(x[[0]], times[0], c[[1]]).x[0]).abs().max() > 1e-4
    net.reader.register_forward_hook(lambda *_: calls.append(1))
    for function, estimate in zip(denoiser.estimates(times, c), truth, strict=True):
        torch.testing.assert_close(function(x).x, estimate.x, rtol=1e-4, atol=1e-5)
    assert len(calls) == 1


def test_networks_that_attend_see_the_tokens_of_a_frozen_encoder():
    frozen = Event((8, 8), 4 + 3 * 5, 0, 100, (3, 5))
    net = build_time_network(frozen, network="unet", width=8, units=8, depth=1)
    assert takes_tokens(net) and net.embed.vector == 4
    assert not takes_tokens(build_time_network(frozen, network="mlp", width=8, units=8, depth=1))
