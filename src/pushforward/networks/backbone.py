"""What deep networks share: an order of memory, and blocks that can be treated one by one."""

import torch
from torch import nn


class Backbone(nn.Module):
    """A network that is compiled as a whole.

    Attributes:
        memory_format: The order of memory of the pictures inside, where there are any.
        penalised: Whether losses hold its slope, so that they are differentiated twice.
    """

    memory_format = torch.preserve_format
    penalised = False


def outermost_backbones(model: nn.Module) -> list[Backbone]:
    """The deep networks of a model that are not part of another one."""
    if isinstance(model, Backbone):
        return [model]
    return [network for module in model.children() for network in outermost_backbones(module)]


def use_channels_last(network: nn.Module) -> None:
    """Keep the pictures inside a network in the order of memory that PyTorch calls so."""
    for module in network.modules():
        if isinstance(module, Backbone):
            module.memory_format = torch.channels_last


def outermost_blocks(network: nn.Module) -> list[nn.Module]:
    """The modules in a network's outermost lists; each is one call of its `forward`."""
    found: list[nn.Module] = []
    for module in network.children():
        found += module if isinstance(module, nn.ModuleList) else outermost_blocks(module)
    return found
