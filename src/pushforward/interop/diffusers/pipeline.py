"""A folder of `diffusers` as a model: its network, told what is asked for, under our samplers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...devices import batch_offsets, choose_device, seeded_rng
from ...errors import DataError, NumericalError, UsageError
from ...files import as_folder
from ...optional import import_optional
from ...options import check_options
from ...progress import Update, terminal_bar
from ...shapes import Condition, Data
from ...theory import ode, samplers
from ...theory.denoisers import Denoiser, NetworkDenoiser, Sampler
from ...theory.guidance import Guidance, GuidedDenoiser
from .folders import load_parts, read_index
from .networks import DiffusersAutoencoder, DiffusersNetwork, condition_arguments, denoiser_shape
from .schedules import NoiseSchedule, read_scheduler
from .text_encoder import DiffusersTextEncoder

STEPS = 50
BATCH = 8  # drawn at once


class TextConditions:
    """What a pipeline has for the `Preprocessor` of a run: conditions stay as they are typed."""

    def parse_condition(self, word: str | None) -> str | None:
        return word


class Pipeline(nn.Module):
    """A network of `diffusers` with its path, and what turns its output into pictures.

    Arguments:
        network: The network as `diffusers` has it.
        schedule: What its scheduler says.
        autoencoder: The pictures of its latents, if it works on latents.
        words: The text encoder, if it is told texts.
        labels: The names of its classes, if they have names.
    """

    def __init__(
        self,
        network: Any,
        schedule: NoiseSchedule,
        *,
        autoencoder: DiffusersAutoencoder | None = None,
        words: DiffusersTextEncoder | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.autoencoder, self.words = network, autoencoder, words
        self.schedule, self.path = schedule, schedule.path
        self.labels = {
            name.strip(): int(k) for k, names in (labels or {}).items() for name in names.split(",")
        }
        config = network.config
        self.event_shape = denoiser_shape(config.get("sample_size"), config["in_channels"])
        condition_arguments(network)  # refuses what is not known

    def __repr__(self) -> str:
        return f"Pipeline({self.family}, {type(self.schedule.scheduler).__name__})"

    @property
    def family(self) -> str:
        """The class of the network."""
        return type(self.network).__name__

    @property
    def like(self) -> Tensor:
        """A weight of the network: where it is, and in which precision."""
        return next(self.network.parameters())

    def grid(self, steps: int) -> Tensor:
        """The times at which the folder's own scheduler would stop, in float64."""
        return self.schedule.grid(steps)

    def denoiser(
        self,
        c: Condition = None,
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        negative: str = "",
    ) -> Denoiser:
        """The denoiser under guidance, 0 without a condition and 1 with it alone.

        Arguments:
            c: The condition vectors that it is to be asked for.
            guidance: The scale of classifier-free guidance.
            guidance_interval: The noise levels (`Path.level`) to guide at.
            negative: What guidance leads away from, where conditions are texts.

        Raises:
            UsageError: If there is nothing to guide by, or no guidance to say more of.
        """
        if negative and self.words is None:
            raise UsageError("the network takes no text: remove negative")
        free = None if self.words is None else self.words([negative])[0]
        guide = Guidance(guidance, guidance_interval, free if negative else None)
        net = DiffusersNetwork(self.network, condition_arguments(self.network, free))
        denoiser: Denoiser = NetworkDenoiser(net, self.path, self.schedule.prediction)
        if guide.check(known=c is not None).active:
            denoiser = GuidedDenoiser(denoiser, Guidance(guidance, guidance_interval))
        return self.schedule.clipped(denoiser)

    def conditions(self, y: Any, n: int) -> Condition:
        """The condition vectors of ``n`` data: a 1, then a text's tokens or a class as one-hot.

        Raises:
            UsageError: If the network is not told such conditions.
        """
        if y is None:
            return None
        if isinstance(y, Tensor) and y.ndim == 3:
            told = y.flatten(1)
        elif self.words is not None:
            told = self.words([y] if isinstance(y, str) else [str(text) for text in y]).flatten(1)
        else:
            told = self.one_hot(y)
        if len(told) not in (1, n):
            raise DataError(f"{len(told)} conditions for {n} data; give one for each, or one")
        told = told.expand(n, -1).to(self.like.device, self.state_dtype)
        return torch.cat([told.new_ones(n, 1), told], dim=1)

    def one_hot(self, y: Any) -> Tensor:
        """Classes by number or by name as one-hot rows."""
        config = self.network.config
        count = config.get("num_class_embeds") or config.get("num_embeds_ada_norm")
        if not count:
            raise UsageError("the network takes no classes: give embeddings (a tensor of three "
                             "axes), or no condition")  # fmt: skip
        words = [y] if np.ndim(y) == 0 else list(y)
        known = [self.labels.get(str(k), k) for k in words]
        try:
            return torch.eye(count)[[range(count)[int(k)] for k in known]]
        except (IndexError, TypeError, ValueError) as error:
            raise UsageError(
                f"class {', '.join(map(str, words))[:40]} is not known; there are {count}"
            ) from error

    @property
    def state_dtype(self) -> torch.dtype:
        """The precision of states, never less than that of float32."""
        return torch.promote_types(self.like.dtype, torch.float32)

    def trajectory(
        self,
        n: int,
        c: Condition = None,
        *,
        sampler: str | Sampler | None = None,
        steps: int = STEPS,
        times: Tensor | None = None,
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        negative: str = "",
        start: Tensor | None = None,
        **options: Any,
    ) -> Iterator[Tensor]:
        """The states from noise to what the network denoises, one a step.

        Arguments:
            n: How many.
            c: Condition vectors, of `conditions`.
            sampler: A sampler or its name; by default the one with the steps of the scheduler.
            steps: Steps of the scheduler's own grid.
            times: Another grid, decreasing, such as ``pipeline.path.grid(20)``.
            guidance: The scale of classifier-free guidance.
            guidance_interval: The noise levels to guide at: 0 for data, 1 for noise.
            negative: A text that guidance leads away from.
            start: Noise of unit variance to begin with.
            options: What else the sampler takes.
        """
        sampler = sampler or self.schedule.sampler
        run = samplers.sampler_by_name(sampler) if isinstance(sampler, str) else sampler
        check_options(run, options, f"the sampler {run.__name__}")
        if run is samplers.ddpm:
            options = {"variance": self.schedule.variance} | options
        like, times = self.like, self.grid(steps) if times is None else times
        if start is None:
            start = torch.randn(n, *self.event_shape, device=like.device, dtype=self.state_dtype)
        x = self.path.scale(times[0]).to(start) * start
        denoiser = self.denoiser(c, guidance, guidance_interval, negative)
        return run(denoiser, x, times, c, **options)

    def sample(
        self,
        n: int,
        y: Any = None,
        *,
        given: Any = None,
        seed: int | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Draw ``n`` pictures of 8 bits, ``(n, height, width)`` in grey or ``(n, h, w, 3)``.

        Arguments:
            n: How many.
            y: A condition for all, or one for each: texts, classes, or a tensor of embeddings.
            given: Not possible here.
            seed: Makes the draw repeatable.
            options: Those of `trajectory`.

        Raises:
            UsageError: If the network or the sampler cannot honour an option.
            NumericalError: If a picture is not finite.
        """
        if given is not None:
            raise UsageError("given is not possible with a network of diffusers: leave it out")
        if n < 1:
            raise UsageError(f"n is {n}; ask for at least one sample")
        times, start = options.pop("times", None), options.pop("start", None)
        check_options(self.trajectory, options, self.family)
        times = self.grid(options.pop("steps", STEPS)) if times is None else times
        c, drawn = self.conditions(y, n), []
        with seeded_rng(seed, self.like.device), terminal_bar("sampling") as update:
            for i, m in batch_offsets(n, BATCH):
                known, z = (None if rows is None else rows[i : i + m] for rows in (c, start))
                states = self.trajectory(m, known, times=times, start=z, **options)
                drawn.append(
                    self.pictures(
                        ode.final_state(track_states(states, update, i / n, m / n, times))
                    )
                )
        return np.concatenate(drawn)

    def labelled(
        self, n: int, y: Any = None, **options: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """`sample`, and the text or class of each picture, as `writing.write_samples` takes it."""
        x, name = self.sample(n, y, **options), "label" if self.words is None else "caption"
        if y is None or isinstance(y, Tensor):
            return x, {}
        return x, {name: np.broadcast_to(np.atleast_1d(np.asarray(y, object)), n)}

    def pictures(self, x: Data) -> np.ndarray:
        """States at data as pictures of 8 bits."""
        x = x if self.autoencoder is None else self.autoencoder.decode(x)
        if not x.isfinite().all():
            raise NumericalError(f"{self.family} drew values that are not finite; use more steps")
        levels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        return levels.movedim(1, -1).squeeze(-1).numpy()

    white = 255  # its pictures have 8 bits
    preprocessor = TextConditions()


def track_states(
    states: Iterator[Tensor], update: Update, done: float, share: float, times: Tensor
) -> Iterator[Tensor]:
    """States as they come, each of them a part of some share of all work."""
    for k, x in enumerate(states, 1):
        update(done + share * k / (len(times) - 1), f"step {k}")
        yield x


def load(
    folder: str | Path, *, scheduler: str | Path | None = None, device: str = "auto"
) -> Pipeline | DiffusersAutoencoder:
    """The model of a folder that `save_pretrained` of `diffusers` has written.

    Arguments:
        folder: That of a pipeline; or of a network alone, which needs a scheduler; or of an
            autoencoder alone.
        scheduler: The folder of a scheduler's configuration, in place of the pipeline's own.
        device: Where it runs.

    Raises:
        MissingFile: If a folder does not exist.
        DataError: If a part is missing, broken, or of a kind that is not known here.
        Unsafe: If weights are pickled, or a part asks for code from elsewhere.
        Unavailable: If `diffusers`, or `transformers` where there is a text encoder, is missing.
    """
    import_optional("diffusers", "diffusers")
    where, found = choose_device(device), load_parts(folder, scheduler)
    vae, encoder = found.get("vae"), found.get("text_encoder")
    network = found.get("unet") or found.get("transformer")
    if vae is not None and type(vae).__name__ != "AutoencoderKL":
        raise DataError(f"{folder}: {type(vae).__name__} is not known here: take AutoencoderKL")
    autoencoder = None if vae is None else DiffusersAutoencoder(vae)
    if network is None:
        if autoencoder is None:
            raise DataError(f"{folder} holds neither a network nor an autoencoder")
        return autoencoder.to(where).eval()
    known = encoder is not None and "tokenizer" in found
    model = Pipeline(
        network,
        read_scheduler(found["scheduler"]),
        autoencoder=autoencoder,
        words=DiffusersTextEncoder(found["tokenizer"], encoder) if known else None,
        labels=read_index(as_folder(folder)).get("id2label"),
    )
    return model.to(where).eval()
