"""Networks of `diffusers` as our ``net(x, t, c)``, its autoencoders and text encoders.

A condition vector is a 1, then a text's tokens in a row or a class as one-hot; the zero vector says
that nothing is known.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import DataError, UsageError
from ...shapes import Condition, Data, Times

ConditionArguments = Callable[[Condition, int], dict[str, Tensor]]  # of n rows, by name


class DiffusersNetwork(nn.Module):
    """A network as ``net(x, t, c)``, in its own precision, whose times are timesteps."""

    def __init__(self, module: nn.Module, arguments: ConditionArguments) -> None:
        super().__init__()
        self.module, self.arguments = module, arguments

    def forward(self, x: Data, t: Times, c: Condition = None) -> Data:
        kind = next(self.module.parameters()).dtype
        known = {k: v.to(x.device) for k, v in self.arguments(c, len(x)).items()}
        known = {k: v.to(kind) if v.is_floating_point() else v for k, v in known.items()}
        y = self.module(x.to(kind), t.expand(len(x)), **known, return_dict=False)[0]
        return y[:, : x.shape[1]].to(x)  # a variance may follow


class DiffusersAutoencoder(nn.Module):
    """An `AutoencoderKL` whose latents have about unit variance."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.scale = module.config.get("scaling_factor") or 1.0
        self.shift = module.config.get("shift_factor") or 0.0

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean latents of images in [-1, 1], ``(n, channels, height, width)``."""
        kind = self.module.dtype
        return (self.module.encode(x.to(kind)).latent_dist.mode().to(x) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        return self.module.decode((z / self.scale + self.shift).to(self.module.dtype)).sample.to(z)


def denoiser_shape(size: Any, channels: int) -> tuple[int, int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or math.prod(sides) < 1:
        raise DataError(f"the network's configuration says no sample_size: {size!r}")
    return (channels, *sides)


class DiffusersTextEncoder(nn.Module):
    """A text encoder with its tokenizer: the last hidden state of each token."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder

    @torch.no_grad()
    def forward(self, texts: list[str]) -> Tensor:
        """The tokens of each text, ``(n, tokens, width)``."""
        config = self.encoder.config
        longest = min(self.tokenizer.model_max_length, config.max_position_embeddings)
        cut = self.tokenizer(texts, padding="max_length", max_length=longest, truncation=True,
                             return_tensors="pt").to(self.encoder.device)  # fmt: skip
        masked = getattr(config, "use_attention_mask", False)
        return self.encoder(cut.input_ids, cut.attention_mask if masked else None)[0]


class PipelineConditions:
    """Users' conditions as vectors: what `Preprocessor` does for our runs.

    ``labels`` are the names of classes by their numbers, several separated by commas.
    """

    def __init__(
        self, config: Any, text_encoder: DiffusersTextEncoder | None, labels: dict[str, str] | None
    ) -> None:
        self.text_encoder = text_encoder
        self.classes = config.get("num_class_embeds") or config.get("num_embeds_ada_norm") or 0
        self.labels = {
            name.strip(): int(k) for k, names in (labels or {}).items() for name in names.split(",")
        }

    def parse_condition(self, word: str | None) -> str | None:
        return word

    def label_columns(self, y: Any, n: int) -> dict[str, np.ndarray]:
        if y is None or isinstance(y, Tensor):
            return {}
        name = "label" if self.text_encoder is None else "caption"
        return {name: np.broadcast_to(np.atleast_1d(np.asarray(y, object)), n)}

    def condition_vectors(self, y: Any, n: int) -> Tensor | None:
        if y is None:
            return None
        if isinstance(y, Tensor) and y.ndim == 3:
            rows = y.flatten(1)
        elif self.text_encoder is not None:
            rows = self.text_encoder([y] if isinstance(y, str) else [str(text) for text in y])
            rows = rows.flatten(1)
        else:
            rows = self.one_hot(y)
        if len(rows) not in (1, n):
            raise DataError(f"{len(rows)} conditions for {n} data; give one for each, or one")
        return torch.cat([rows.new_ones(n, 1), rows.expand(n, -1)], dim=1)

    def one_hot(self, y: Any) -> Tensor:
        if not self.classes:
            raise UsageError(
                "the network takes no classes: give embeddings (a tensor of three axes), or no "
                "condition"
            )
        words = [y] if np.ndim(y) == 0 else list(y)
        known = [self.labels.get(str(k), k) for k in words]
        try:
            return torch.eye(self.classes)[[range(self.classes)[int(k)] for k in known]]
        except (IndexError, TypeError, ValueError) as error:
            raise UsageError(
                f"class {', '.join(map(str, words))[:40]} is not known; there are {self.classes}"
            ) from error


def no_condition(c: Condition, n: int) -> dict[str, Tensor]:
    if c is not None:
        raise UsageError("the network takes no condition: give none")
    return {}


def _class_arguments(count: int, hidden: int | None) -> ConditionArguments:
    """A class each; that of an unknown one is ``hidden``, if the network has such a class."""

    def arguments(c: Condition, n: int) -> dict[str, Tensor]:
        c = torch.zeros(n, 1 + count) if c is None else c
        known, labels = c[:, 0] > 0, c[:, 1:].argmax(1)
        if hidden is None and not known.all():
            raise UsageError(
                "the network knows no class that stands for an unknown one: give a class from 0 to "
                f"{count - 1}, and no guidance"
            )
        return {"class_labels": labels.where(known, torch.tensor(hidden or 0).to(labels))}

    return arguments


def _token_arguments(width: int, unknown: Tensor | None) -> ConditionArguments:
    """Tokens of some width each; ``unknown``, ``(count, width)``, where no condition is known."""
    hidden = torch.zeros(1, width) if unknown is None else unknown

    def arguments(c: Condition, n: int) -> dict[str, Tensor]:
        if unknown is None and (c is None or not (c[:, 0] > 0).all()):
            raise UsageError(
                "the folder has no text encoder: give embeddings as conditions, and no guidance"
            )
        if c is None:
            return {"encoder_hidden_states": hidden.expand(n, -1, -1)}
        known = c[:, 1:].unflatten(1, (-1, width))
        return {"encoder_hidden_states": known.where(c[:, :1, None] > 0, hidden.to(known))}

    return arguments


def condition_arguments(module: Any, unknown: Tensor | None = None) -> ConditionArguments:
    config, name = module.config, type(module).__name__
    into, out = config.get("in_channels"), config.get("out_channels") or config.get("in_channels")
    if out not in (into, 2 * (into or 0)):
        raise DataError(f"a network from {into} to {out} channels is none of noise and data alone")
    odd = [k for k in ("addition_embed_type", "class_embed_type") if config.get(k)]
    if name == "UNet2DModel" and not odd:
        count = config.get("num_class_embeds")
        return _class_arguments(count, None) if count else no_condition
    if name == "UNet2DConditionModel" and not odd and not config.get("num_class_embeds"):
        return _token_arguments(config["cross_attention_dim"], unknown)
    if name == "DiTTransformer2DModel":
        count = config["num_embeds_ada_norm"]
        return _class_arguments(count, count)
    why = f" with {odd[0]} {config[odd[0]]!r}" if odd else ""
    raise DataError(
        f"{name}{why} is not known here: take UNet2DModel, UNet2DConditionModel with tokens alone, "
        "or DiTTransformer2DModel"
    )
