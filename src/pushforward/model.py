r"""The one interface that every family implements.

A generative model is a *game*: players, each with its own parameters, and objectives that each
differentiate with respect to one player. Likelihoods, diffusions and flows are games with one
player; a GAN has two. The trainer plays the game without knowing its name.

A condition is a vector ``c`` whose first entry is 1; the zero vector says that nothing is known.
Classes follow as one-hot entries and numbers as standardised entries (`data.schema`).
"""

import abc
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .errors import NoLikelihood, UsageError
from .rng import fork_rng, seed_rng
from .shapes import Condition, Data, PerDatum, Scalar

Loss = Callable[[Data, Condition], dict[str, Scalar]]


class Likelihood(StrEnum):
    """What kind of number ``log_prob`` returns; it travels with every likelihood."""

    EXACT = "exact"  # change of variables, autoregression, closed form
    ODE = "ode"  # integrates to one up to the solver's tolerance
    LOWER_BOUND = "lower bound"  # ELBO, importance-weighted ELBO, diffusion VLB, dequantisation
    NONE = "none"


class Preprocessing(StrEnum):
    """What a family wants done to data before it sees them (`data.transforms.choose_transform`)."""

    STANDARDISE = "standardise"  # zero mean and unit variance; integers are dequantised before
    WHITEN = "whiten"  # vectors lose their linear correlations as well
    CENTRE = "centre"  # images from -1 to 1, whatever their mean and variance
    LEVELS = "levels"  # integers 0, ..., K - 1, of which log_prob is a log-mass


class Event(NamedTuple):
    """What a family must know of the data to build a model.

    Arguments:
        shape: The shape of one datum.
        condition: The length of the condition vector, 0 for none.
        levels: The number of values an entry can take when all entries are integers
            0, ..., levels - 1, otherwise 0.
        size: The number of training data, 0 if unknown.
        tokens: How many tokens end the condition vector, and their width; networks that do not
            attend to tokens are given conditions without them.
        spelled: Whether the tokens are pieces of words as bytes, which a network learns to read.
    """

    shape: tuple[int, ...]
    condition: int = 0
    levels: int = 0
    size: int = 0
    tokens: tuple[int, int] = (0, 0)
    spelled: bool = False


class Recipe(NamedTuple):
    """Default training hyperparameters; every field can be overridden in ``fit``.

    Arguments:
        steps: Rounds of the game when no budget is given.
        batch: Data per batch.
        lr: Learning rate at the top of the warm-up; it decays as a half cosine.
        betas: Adam's two decay rates.
        warmup: Steps of linear warm-up.
        ema: Largest decay of the averaged weights, or 0 for none; several, such as 0.99,0.999, keep
            as many averages, of which the best on held-out data is taken in the end.
        clip: Largest gradient norm of a player.
        decay: Decoupled weight decay.
        accumulate: Pieces that a batch is computed in, one after the other, to save memory.
    """

    steps: int = 6000
    batch: int = 512
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    ema: float | tuple[float, ...] = 0.999
    clip: float = 1.0
    decay: float = 0.0
    accumulate: int = 1


class GenerativeModel(nn.Module, abc.ABC):
    """A distribution that one can learn and sample, in its own standardised space."""

    event_shape: tuple[int, ...]
    likelihood: Likelihood
    recipe: Recipe = Recipe()
    preprocessing: Preprocessing = Preprocessing.STANDARDISE
    progress: float = 1.0  # the part of training that is behind; the trainer keeps it
    unconditional: float = 0.1  # how often training hides the condition

    @property
    def nfe(self) -> int:
        """Network evaluations that a sample takes by default."""
        return 1

    @abc.abstractmethod
    def sample(self, n: int, c: Condition = None) -> Tensor:
        """Draw ``n`` data, with shape ``(n, *event_shape)``."""

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        """Log-likelihood in nats, of the kind that ``likelihood`` names."""
        raise NoLikelihood(
            f"{type(self).__name__} has no likelihood: it can be sampled but not scored"
        )

    def estimated(self, x: Data, c: Condition = None, **options: Any) -> tuple[PerDatum, PerDatum]:
        """`log_prob`, and the standard error in nats of its estimate of a trace: 0 without one."""
        value = self.log_prob(x, c, **options)
        return value, torch.zeros_like(value)

    def kind(self, **options: Any) -> Likelihood:
        """What kind of number ``log_prob`` returns with these options."""
        return self.likelihood

    def drop_condition(self, c: Condition) -> Condition:
        """Hide some conditions in training: the distribution without one is learned too."""
        if c is None or not self.training or not self.unconditional:
            return c
        return c * (torch.rand_like(c[:, :1]) >= self.unconditional)

    def prepare(self, x: Data, c: Condition = None) -> None:
        """See all training data once before the first step: closed-form fits happen here."""

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        """Named terms whose sum a one-player model minimises."""
        raise NotImplementedError

    def validation(self, x: Data, c: Condition = None) -> Scalar | None:
        """A held-out loss that falls as the model improves, or None where the game has none."""
        return torch.stack(list(self.loss(x, c).values())).sum()

    def diagnosis(self, x: Data, c: Condition = None) -> dict[str, float]:
        """What a family can say of its own state on held-out data, such as active latents."""
        return {}

    def players(self) -> dict[str, nn.Module]:
        """The modules that learn, by name; each gets an optimizer. Empty for closed-form fits."""
        return {"model": self}

    def objectives(self) -> Iterator[tuple[str, Loss]]:
        """One round of the game: which player moves, and what it minimises.

        The trainer takes an optimizer step at every ``yield``, on a fresh batch. Code after a
        ``yield`` sees the new parameters: target networks follow here and counters tick.
        """
        yield "model", self.loss

    def stage_progress(self, count: int, steps: int) -> tuple[int, int]:
        """Rounds done and rounds in all of the present stage, of those of a whole run.

        In each stage the learning rate warms up and decays, and the average begins anew.
        """
        return count, steps

    def noise(self, *shape: int) -> Tensor:
        """Standard normal numbers on the device and in the precision of the model."""
        like = next(self.parameters(), None)
        if like is None:  # collecting a state takes as long as a small network
            state = self.state_dict(keep_vars=True).values()
            like = next(v for v in state if v.is_floating_point())
        return torch.randn(*shape, device=like.device, dtype=like.dtype)


# what some families can do beside sampling and scoring; further keywords are a family's own options


@runtime_checkable
class Encodes(Protocol):
    r"""A model with latents z of data x under a condition c.

    Through a flow :math:`x = T_c(z)` with :math:`z \sim \mathcal N(0, I)` both are exact inverses,
    and z has the shape of x. Of a VAE z is the posterior mean of :math:`q(z \mid x, c)`, and
    decoding gives the mean of :math:`p(x \mid z, c)`: what is lost in between is its distortion.
    """

    def encode(self, x: Data, c: Condition = None) -> Tensor: ...

    def decode(self, z: Tensor, c: Condition = None) -> Tensor: ...


@runtime_checkable
class Edits(Protocol):
    r"""A model that noises data to some level and denoises them (SDEdit; Meng et al., 2022).

    .. math:: x_t = \alpha_t x + \sigma_t \epsilon, \qquad \sigma_t / \alpha_t = \tan(\pi s / 2)

    with the strength s in [0, 1]; the reverse process then runs from t down to data under c.
    """

    def edit(self, x: Data, c: Condition = None, *, strength: float = 0.5) -> Data: ...


@runtime_checkable
class Imputes(Protocol):
    r"""A model that samples unknown entries of a row given the others, :math:`p(x_U | x_K, c)`."""

    def complete(self, n: int, x: Tensor, known: Tensor, c: Condition = None) -> Tensor | None:
        """Draw ``n`` rows whose entries are those of one row where they are known.

        None says that this model, as it is set, knows no better way than importance resampling by
        its density.

        Arguments:
            n: How many.
            x: A row, ``(*event,)``; the entries that are not known do not count.
            known: Which entries are known, ``(*event,)``.
            c: Conditions, all alike, ``(n, condition)``.
        """


@runtime_checkable
class Transports(Protocol):
    r"""A flow from the distribution of a source to that of the data, in place of one from noise.

    .. math:: x = T_c(z), \qquad z \sim p_{\text{source}}, \qquad T_c \text{ invertible}
    """

    def start_from(self, z: Data) -> None:
        """Keep rows of the source, which stand in for noise from here on."""

    def translate(self, z: Data, c: Condition = None, *, reverse: bool = False) -> Data:
        """:math:`T_c(z)`, or :math:`T_c^{-1}` of data if ``reverse``."""


@runtime_checkable
class CouplesSource(Protocol):
    """A transport that pairs more of the data than a batch with the rows of its source."""

    def gather(self, x: Data, c: Condition = None) -> None:
        """See all data, after `Transports.start_from` and before the first step."""


@runtime_checkable
class Distils(Protocol):
    """A student that learns from what a teacher maps noise to, in place of the data alone."""

    def distil(self, teacher: "GenerativeModel") -> None:
        """Learn from this teacher, whose weights stay as they are; UsageError if it is no flow."""


@runtime_checkable
class AdoptsTeacher(Protocol):
    """A model of which a part is a teacher, such as an autoencoder; no gradient reaches it."""

    def adopt(self, teacher: "GenerativeModel") -> None:
        """Take the teacher in, with its weights; UsageError if it is of another kind."""


def missing_capability(model: GenerativeModel, lack: str) -> UsageError:
    return UsageError(f"{type(model).__module__.rsplit('.', 1)[-1]} {lack}")


def count_evaluations(net: nn.Module, draw: Callable[[], Any]) -> int:
    """How often drawing calls a network; random numbers go on as before."""
    calls: list[None] = []
    hook = net.register_forward_hook(lambda *_: calls.append(None))
    device = next(net.parameters()).device
    try:
        with fork_rng(device), torch.no_grad():
            seed_rng(0, device)
            draw()
    finally:
        hook.remove()
    return len(calls)
