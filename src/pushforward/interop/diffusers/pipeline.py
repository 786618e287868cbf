"""A folder of `diffusers` as a model: its network with our samplers, and what reads and shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...devices import batch_offsets, choose_device
from ...errors import DataError, NumericalError, UsageError
from ...files import as_folder
from ...inference.preprocessor import make_guidance
from ...optional import import_optional
from ...options import check_options
from ...progress import Update, terminal_bar
from ...rng import seeded_rng
from ...shapes import Condition, Data
from ...theory import ode, samplers
from ...theory.denoisers import Denoiser, NetworkDenoiser, Sampler
from ...theory.guidance import GUIDANCE, Guidance, GuidedDenoiser
from .folders import load_parts, read_index
from .networks import (
    DiffusersAutoencoder,
    DiffusersNetwork,
    DiffusersTextEncoder,
    PipelineConditions,
    condition_arguments,
    denoiser_shape,
)
from .schedules import NoiseSchedule, read_scheduler

STEPS = 50
BATCH = 8  # drawn at once


class Pipeline(nn.Module):
    """A network of `diffusers` with its path, and what turns its output into images.

    Arguments:
        network: The network as `diffusers` has it.
        schedule: What its scheduler says.
        autoencoder: The images of its latents, if it works on latents.
        text_encoder: Where its conditions are texts.
        labels: The names of its classes, if they have names.
    """

    white = 255  # its images have 8 bits

    def __init__(
        self,
        network: Any,
        schedule: NoiseSchedule,
        *,
        autoencoder: DiffusersAutoencoder | None = None,
        text_encoder: DiffusersTextEncoder | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.autoencoder, self.text_encoder = network, autoencoder, text_encoder
        self.schedule, self.path = schedule, schedule.path
        config = network.config
        self.preprocessor = PipelineConditions(config, text_encoder, labels)
        self.event_shape = denoiser_shape(config.get("sample_size"), config["in_channels"])
        condition_arguments(network)  # refuses what is not known

    def __repr__(self) -> str:
        return f"Pipeline({self.family}, {type(self.schedule.scheduler).__name__})"

    @property
    def family(self) -> str:
        return type(self.network).__name__

    @property
    def reference_tensor(self) -> Tensor:
        return next(self.network.parameters())

    @property
    def state_dtype(self) -> torch.dtype:
        """The precision of states, never less than that of float32."""
        return torch.promote_types(self.reference_tensor.dtype, torch.float32)

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
        if negative and self.text_encoder is None:
            raise UsageError("the network takes no texts: leave negative out")
        unknown = None if self.text_encoder is None else self.text_encoder([negative])[0]
        given = {"guidance": guidance, "guidance_interval": guidance_interval}
        check_options(make_guidance, given, self.family)
        guide = Guidance(guidance, guidance_interval, unknown if negative else None)
        net = DiffusersNetwork(self.network, condition_arguments(self.network, unknown))
        denoiser: Denoiser = NetworkDenoiser(net, self.path, self.schedule.prediction)
        if guide.check(known=c is not None).active:
            denoiser = GuidedDenoiser(denoiser, Guidance(guidance, guidance_interval))
        return self.schedule.clip_denoiser(denoiser)

    def conditions(self, y: Any, n: int) -> Condition:
        """The condition vectors of ``n`` images: 1, then a text's tokens or a class as one-hot."""
        c = self.preprocessor.condition_vectors(y, n)
        return None if c is None else c.to(self.reference_tensor.device, self.state_dtype)

    def trajectory(
        self,
        n: int,
        c: Condition = None,
        *,
        sampler: str | Sampler | None = None,
        steps: int = STEPS,
        times: Tensor | None = None,
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
            start: Noise of unit variance to begin with.
            options: ``guidance``, ``guidance_interval`` and ``negative`` as in `denoiser`, and
                what else the sampler takes.
        """
        guided = {name: options.pop(name) for name in GUIDANCE if name in options}
        run = sampler or self.schedule.sampler
        run = samplers.sampler_by_name(run) if isinstance(run, str) else run
        check_options(run, options, f"the sampler {run.__name__}")
        if run is samplers.ddpm:
            options = {"variance": self.schedule.variance} | options
        times = self.grid(steps) if times is None else times
        if start is None:
            where = self.reference_tensor.device
            start = torch.randn(n, *self.event_shape, device=where, dtype=self.state_dtype)
        x = self.path.scale(times[0]).to(start) * start
        return run(self.denoiser(c, **guided), x, times, c, **options)

    def sample(
        self, n: int, y: Any = None, *, given: Any = None, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Draw ``n`` images of 8 bits, ``(n, height, width)`` in grey or ``(n, h, w, 3)``.

        Arguments:
            n: How many.
            y: A condition for all, or one for each: texts, classes, or a tensor of embeddings.
            given: Not possible here.
            seed: Makes the draw repeatable.
            options: Those of `trajectory`.

        Raises:
            UsageError: If the network or the sampler cannot honour an option.
            NumericalError: If an image is not finite.
        """
        if given is not None:
            raise UsageError("given is not possible with a network of diffusers: leave it out")
        if n < 1:
            raise UsageError(f"n is {n}; ask for at least one sample")
        times, start = options.pop("times", None), options.pop("start", None)
        check_options(self.trajectory, options, self.family)
        times = self.grid(options.pop("steps", STEPS)) if times is None else times
        c, parts = self.conditions(y, n), []
        with seeded_rng(seed, self.reference_tensor.device), terminal_bar("sampling") as update:
            for i, m in batch_offsets(n, BATCH):
                known, z = (None if rows is None else rows[i : i + m] for rows in (c, start))
                states = self.trajectory(m, known, times=times, start=z, **options)
                states = _track_states(states, update, i / n, m / n, times)
                parts.append(self.to_images(ode.final_state(states)))
        return np.concatenate(parts)

    def labelled(
        self, n: int, y: Any = None, **options: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return self.sample(n, y, **options), self.preprocessor.label_columns(y, n)

    def to_images(self, x: Data) -> np.ndarray:
        x = x if self.autoencoder is None else self.autoencoder.decode(x)
        if not x.isfinite().all():
            raise NumericalError(f"{self.family} drew values that are not finite; use more steps")
        levels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        return levels.movedim(1, -1).squeeze(-1).numpy()


def _track_states(
    states: Iterator[Tensor], update: Update, done: float, share: float, times: Tensor
) -> Iterator[Tensor]:
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
        text_encoder=DiffusersTextEncoder(found["tokenizer"], encoder) if known else None,
        labels=read_index(as_folder(folder)).get("id2label"),
    )
    return model.to(where).eval()
