"""Weights in parts, one on each process, gathered block by block while a loss needs them.

`fully_shard` of PyTorch does the gathering (ZeRO's third stage; Rajbhandari et al., 2020; Zhao et
al., 2023): before a block computes, its weights come together, and after it they are dropped; on
the way back again, and then its gradient is averaged and each process keeps its own part. What is
in no block is gathered for a whole step.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ..model import GenerativeModel
from ..networks.backbone import outermost_backbones, outermost_blocks
from .optimizer import Ema, PlayerOptimizer, Players


class FsdpRoot(nn.Module):
    """A model within a call of which weights are whole where they are needed."""

    def __init__(self, model: GenerativeModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[..., Any], *given: Any) -> Any:
        with warnings.catch_warnings():  # of what would happen if blocks' values were overwritten
            warnings.filterwarnings("ignore", "FSDP2-wrapped module")
            return work(*given)

    def run_alone(self, work: Callable[[], Any]) -> Any:
        """What work without gradients gives; afterwards weights are in parts again."""
        try:
            with torch.no_grad():
                return self(work)
        finally:
            cast(FSDPModule, self).reshard()

    def gather(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: _gather_tensor(tensor) for name, tensor in state.items()}


def shard_training_state(
    model: GenerativeModel, device: torch.device, players: Players, averages: list[Ema]
) -> tuple[FsdpRoot, Players, list[Ema]]:
    states = {name: player.state() for name, player in players.items()}
    root = _shard_model(model, device)
    parts = {k: _ShardedOptimizer(part, players[k].ranks) for k, part in model.players().items()}
    for name, state in states.items():
        parts[name].load(state)
    shards: list[Ema] = []
    for average in averages:
        begun = {name: kept[0] for name, kept in average.own.items()}
        shards.append(_ShardedEma(root, parts, average.decay, begun))
    return root, parts, shards


def _shard_model(model: GenerativeModel, device: torch.device) -> FsdpRoot:
    """Leave one part of each weight on this process; numbers without axes stay whole on all."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for network in outermost_backbones(model):
        # a gradient that is differentiated again needs weights that would have been dropped
        for block in () if network.penalised else outermost_blocks(network):
            fully_shard(block, mesh=mesh)
    root, single = FsdpRoot(model), {part for part in model.parameters() if not part.ndim}
    fully_shard(root, mesh=mesh, ignored_params=single)
    return root


def _local_shard(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _gather_tensor(tensor: Tensor) -> Tensor:
    """A copy of a tensor, from the parts of all processes and in main memory if it is in parts."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor.detach().clone()


def _shard_like(part: Tensor, mine: Tensor) -> Tensor:
    if not isinstance(part, DTensor):
        return mine
    return DTensor.from_local(
        mine, part.device_mesh, part.placements, shape=part.shape, stride=part.stride()
    )


class _ShardedOptimizer(PlayerOptimizer):
    @property
    def weights(self) -> list[Tensor]:
        return [_local_shard(part.detach()) for part in self.parts]

    def inputs(self) -> None:
        return None

    def collect_gradient(self, total: Tensor) -> None:
        self.gradients = []
        for part in self.parts:
            gradient = _local_shard(torch.zeros_like(part) if part.grad is None else part.grad)
            if not isinstance(part, DTensor):
                self.ranks.average(gradient)
            self.gradients.append(gradient.add_(0 * total))  # a loss that is not finite stops all
            part.grad = None  # another player's loss may leave one there

    def norm(self) -> float:
        pairs = zip(self.parts, self.gradients, strict=True)
        mine = [g for part, g in pairs if isinstance(part, DTensor) or self.ranks.first]
        square = sum((g.square().sum() for g in mine), self.moves.new_zeros(()))
        self.ranks.sum(square)
        return float(square.sqrt())

    def whole(self, kept: list[Tensor]) -> Tensor:
        shards = [_shard_like(part, mine) for part, mine in zip(self.parts, kept, strict=True)]
        return torch.cat([_gather_tensor(shard).cpu().flatten() for shard in shards])

    def split(self, vector: Tensor) -> list[Tensor]:
        sizes, found = [part.numel() for part in self.parts], []
        for part, entries in zip(self.parts, vector.split(sizes), strict=True):
            rows = entries.view(part.shape)
            if isinstance(part, DTensor):
                parts = rows.chunk(self.ranks.count)
                rows = parts[self.ranks.rank] if self.ranks.rank < len(parts) else rows[:0]
            found.append(rows.to(part.device))
        return found


class _ShardedEma(Ema):
    def __init__(
        self,
        root: FsdpRoot,
        players: dict[str, _ShardedOptimizer],
        decay: float,
        begun: dict[str, Tensor],  # the average so far, a vector for each player
    ) -> None:
        self.root, self.sharded = root, players
        own = {name: [v.clone() for v in p.split(begun[name])] for name, p in players.items()}
        super().__init__(players, decay, own)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[GenerativeModel]:
        self.exchange()
        try:
            yield self.root.model.eval()
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        for name, player in self.sharded.items():
            for weight, mean in zip(player.weights, self.own[name], strict=True):
                before = weight.clone()
                weight.copy_(mean)
                mean.copy_(before)

    def load(self, state: dict[str, Tensor]) -> None:
        names = {part: name for name, part in self.root.model.named_parameters()}
        for name, player in self.sharded.items():
            vector = torch.cat([state[names[part]].flatten() for part in player.parts])
            self.own[name] = [part.clone() for part in player.split(vector)]
