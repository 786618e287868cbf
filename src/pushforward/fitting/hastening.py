"""Ways to train the same network faster or in less memory: none of them changes the result."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..networks.choosing import NETWORKS


def hasten(model: nn.Module, config: dict[str, Any]) -> None:
    """Compile the networks of a model in training, change their memory order, or save activations.

    The copy of the model with averaged weights, which is kept and sampled, runs as it did.

    Arguments:
        model: The model whose losses are differentiated.
        config: That of the run, with "compile", "channels_last" and "recompute".
    """
    for network in [module for module in model.modules() if isinstance(module, NETWORKS)]:
        if config.get("channels_last") and hasattr(network, "memory_format"):
            network.memory_format = torch.channels_last
        if config.get("recompute"):
            recompute(network)
        if config.get("compile"):
            network.compile()


def recompute(network: nn.Module) -> None:
    """Keep what goes into a network's blocks, not what is inside them (Chen et al., 2016).

    Each block is computed a second time when its gradient is due. Blocks are the modules in the
    network's lists.
    """
    for blocks in [module for module in network.children() if isinstance(module, nn.ModuleList)]:
        for block in blocks:
            block.forward = partial(twice, block.forward)  # type: ignore[method-assign]


def twice(forward: Callable[..., Any], *given: Any) -> Any:
    """A block's value, computed again on the way back if there is one."""
    if not torch.is_grad_enabled():
        return forward(*given)
    return checkpoint(forward, *given, use_reentrant=False)
