"""Moving averages of weights while they learn."""

import abc
import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..model import GenerativeModel
from .optimizer import PlayerOptimizer, flatten_parameters, trainable_parameters


class Ema(abc.ABC):
    r"""An exponential moving average of a model's weights.

    .. math:: \bar\theta_k = \mu_k \bar\theta_{k-1} + (1 - \mu_k) \theta_k, \qquad
        \mu_k = \min\!\left(\mu, \frac{k}{k + 9}\right)

    Early weights are poor: the window grows with the run.

    Arguments:
        players: The players of the model in training.
        decay: The largest decay :math:`\mu`.
        own: What this process keeps of it, as the players' `weights`.
    """

    def __init__(
        self, players: Mapping[str, PlayerOptimizer], decay: float, own: dict[str, list[Tensor]]
    ) -> None:
        self.players, self.decay, self.own = players, decay, own

    def follow(self, count: int) -> None:
        """Take the weights after so many steps into account."""
        decay = min(self.decay, count / (count + 9))
        for name, kept in self.own.items():
            for mean, weight in zip(kept, self.players[name].weights, strict=True):
                mean.lerp_(weight, 1 - decay)

    @abc.abstractmethod
    def worn(self) -> contextlib.AbstractContextManager[GenerativeModel]:
        """Within, a model with averaged weights and the buffers of now, not to be trained."""

    @abc.abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from the weights of a model, which are whole."""


class EmaModel(Ema):
    """An average that is a model of its own.

    Arguments:
        model: The model in training.
        players: Its players.
        decay: The largest decay.
    """

    def __init__(
        self, model: GenerativeModel, players: Mapping[str, PlayerOptimizer], decay: float
    ) -> None:
        self.source, self.kept = model, copy.deepcopy(model).eval()
        super().__init__(players, decay, {k: [v] for k, v in flatten_players(self.kept).items()})

    @property
    def model(self) -> GenerativeModel:
        """The model with averaged weights; its buffers are those of the model now."""
        for a, b in zip(self.kept.buffers(), self.source.buffers(), strict=True):
            a.copy_(b)
        return self.kept

    @contextlib.contextmanager
    def worn(self) -> Iterator[GenerativeModel]:
        yield self.model.eval()

    def load(self, state: dict[str, Tensor]) -> None:
        self.kept.load_state_dict(state)


def flatten_players(model: GenerativeModel) -> dict[str, Tensor]:
    """The learning parameters of each player as one vector."""
    with torch.no_grad():
        return {
            name: flatten_parameters(trainable_parameters(module))
            for name, module in model.players().items()
        }
