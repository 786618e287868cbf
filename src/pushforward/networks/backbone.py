"""What deep networks share: an order of memory, blocks that can be treated one by one, and a limit.

Weights of models that could not be trained on this machine are refused before they are made.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..memory import require_memory


class Backbone(nn.Module):
    """A network that is compiled as a whole."""

    memory_format = torch.preserve_format  # of the images inside, where there are any
    penalised = False  # whether losses hold its slope, so that they are differentiated twice


def outermost_backbones(model: nn.Module) -> list[Backbone]:
    """The deep networks of a model that are not part of another one."""
    if isinstance(model, Backbone):
        return [model]
    return [network for module in model.children() for network in outermost_backbones(module)]


def use_channels_last(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Backbone):
            module.memory_format = torch.channels_last


def outermost_blocks(network: nn.Module) -> list[nn.Module]:
    """The modules in a network's outermost lists; each is one call of its `forward`."""
    found: list[nn.Module] = []
    for module in network.children():
        found += module if isinstance(module, nn.ModuleList) else outermost_blocks(module)
    return found


TIMES = 20  # bytes a parameter takes in training: itself, its gradient, two moments, the average


class AllocationGuard(TorchFunctionMode):
    """Refuses to allocate the weights of a model that could not be trained here.

    It watches Python's calls: a mode of the dispatcher would import PyTorch's compiler, which takes
    longer than a short fit.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__()
        self.what, self.remedy, self.count = what, remedy, 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is torch.empty:
            self.count += math.prod(args if isinstance(args[0], int) else args[0])
            require_memory(TIMES * self.count, self.what, self.remedy)
        return function(*args, **(kwargs or {}))
