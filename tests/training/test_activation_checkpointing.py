"""Blocks computed twice: the same gradients from less memory."""

import copy

import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.networks.backbone import accelerate_networks
from pushforward.networks.transformer import DiT
from pushforward.networks.unet import UNet

NETWORKS = {
    "unet": lambda: UNet((3, 16, 16), 3, width=16, dropout=0.1),
    "dit": lambda: DiT((3, 16, 16), 3, width=32, depth=6, dropout=0.1),
}


def peak(work):
    """The bytes that are held at once while something runs, and what it returns."""
    with torch.profiler.profile(profile_memory=True, acc_events=True) as seen:
        found = work()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most, found


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_and_the_peak_of_memory_is_lower(name):
    """Dropout hides the same entries both times; the peak falls to less than 0.7."""
    network = NETWORKS[name]()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    twice = copy.deepcopy(network)
    accelerate_networks(nn.ModuleList([twice]), recompute=True)
    x, t, c = torch.randn(8, 3, 16, 16), torch.rand(8), torch.randn(8, 3)
    gradients, peaks = [], []
    for net in (network, twice):

        def work(net=net):
            torch.manual_seed(0)
            loss = net(x, t, c).square().mean()
            return torch.autograd.grad(loss, list(net.parameters()))

        most, found = peak(work)
        gradients.append(torch.cat([g.flatten() for g in found]))
        peaks.append(most)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)
    assert peaks[1] < 0.7 * peaks[0], peaks


@pytest.mark.parametrize("family", ["flow_matching", "mean_flow"])
def test_training_with_blocks_computed_twice_ends_at_the_same_weights(family):
    x, weights = torch.randn(48, 9, 9).numpy(), []
    for recompute in (False, True):
        model = pf.fit(x, family, steps=2, batch=8, width=8, recompute=recompute, progress=False)
        weights.append(torch.cat([p.flatten() for p in model.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)
