"""Ways to train the same network faster: compiled, or in another memory order."""

from typing import Any

import torch
from torch import nn

from ..networks.choosing import NETWORKS


def hasten(model: nn.Module, config: dict[str, Any]) -> None:
    """Compile the networks of a model in training, or change their memory order, if it says so.

    The copy of the model with averaged weights, which is kept and sampled, runs as it did.

    Arguments:
        model: The model whose losses are differentiated.
        config: That of the run, with "compile" and "channels_last".
    """
    for network in [module for module in model.modules() if isinstance(module, NETWORKS)]:
        if config.get("channels_last") and hasattr(network, "memory_format"):
            network.memory_format = torch.channels_last
        if config.get("compile"):
            network.compile()
