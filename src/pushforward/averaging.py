"""Moving averages of weights while they learn."""

import copy

import torch
from torch import Tensor

from .model import GenerativeModel
from .players import Player, join, learning
from .ranks import ALONE, Ranks


class Average:
    r"""An exponential moving average of a model's weights.

    .. math:: \bar\theta_k = \mu_k \bar\theta_{k-1} + (1 - \mu_k) \theta_k, \qquad
        \mu_k = \min\!\left(\mu, \frac{k}{k + 9}\right)

    Early weights are poor: the window grows with the run. Sharded, each process keeps the average
    of its own entries, and the model that has them all is made when it is asked for.

    Arguments:
        model: The model in training.
        players: Its players.
        decay: The largest decay :math:`\mu`.
        ranks: The processes that train it.
    """

    def __init__(
        self,
        model: GenerativeModel,
        players: dict[str, Player],
        decay: float,
        ranks: Ranks = ALONE,
    ) -> None:
        self.source, self.players, self.decay, self.ranks = model, players, decay, ranks
        self.kept = None if ranks.sharded else copy.deepcopy(model).eval()
        if self.kept is None:
            self.own = {name: player.own.clone() for name, player in players.items()}
        else:
            self.own = vectors(self.kept)

    def follow(self, count: int) -> None:
        """Take the weights after so many steps into account."""
        decay = min(self.decay, count / (count + 9))
        for name, average in self.own.items():
            average.lerp_(self.players[name].own, 1 - decay)

    @property
    def model(self) -> GenerativeModel:
        """The model with averaged weights; its buffers are those of the model now."""
        model = copy.deepcopy(self.source).eval() if self.kept is None else self.kept
        if self.kept is None:
            for name, vector in vectors(model).items():
                vector.copy_(self.ranks.whole(self.own[name], len(vector)))
        for a, b in zip(model.buffers(), self.source.buffers(), strict=True):
            a.copy_(b)
        return model

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from the weights of `model`."""
        model = copy.deepcopy(self.source) if self.kept is None else self.kept
        model.load_state_dict(state)
        if self.kept is None:
            for name, vector in vectors(model).items():
                self.own[name].copy_(self.ranks.own(vector))


def vectors(model: GenerativeModel) -> dict[str, Tensor]:
    """The learning parameters of each player as one vector."""
    with torch.no_grad():
        return {name: join(learning(module)) for name, module in model.players().items()}
