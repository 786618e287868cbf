"""Raw data in, raw data out: fit a family, keep it in a run folder, sample it and score with it."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import anomaly, checkpoint, completing, families, latents, mapping
from .checkpoint import Checkpoint
from .data import reading, transforms
from .data.schema import Schema
from .errors import DataError, FolderInUse, NoLikelihood, NumericalError, UsageError
from .model import Event, GenerativeModel, Likelihood
from .places import accepts, choose_device, chunks, device_of, rows_at_once, seeded


@dataclass(repr=False)
class FittedModel:
    """A trained model with the data's schema around it."""

    model: GenerativeModel
    transform: transforms.Chain
    schema: Schema
    config: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"FittedModel({self.family}, {self.parameters:,} parameters, {self.likelihood})"

    @property
    def family(self) -> str:
        """The registry key of the family."""
        return self.config["family"]

    @property
    def likelihood(self) -> Likelihood:
        """What kind of number `log_prob` returns.

        A density of dequantised integers bounds their log-mass from below, by Jensen's inequality.
        """
        if self.transform.stochastic and self.model.likelihood is not Likelihood.NONE:
            return Likelihood.LOWER_BOUND
        return self.model.likelihood

    @property
    def parameters(self) -> int:
        """How many numbers were learned; of a closed-form fit, how many it keeps."""
        learned = sum(p.numel() for p in self.model.parameters())
        return learned or sum(b.numel() for b in self.model.buffers())

    def sample(
        self,
        n: int,
        y: Any = None,
        *,
        given: Any = None,
        seed: int | None = None,
        **options: Any,
    ) -> Any:
        """Draw ``n`` data of the same kind and schema as what was fitted.

        Arguments:
            n: How many.
            y: A condition for all of them, or one for each; None draws from those seen in training.
            given: Entries to keep fixed while the rest is drawn: ``{"age": 40}``, or data with NaN
                where entries are to be drawn, one datum or ``n``.
            seed: Makes the draw repeatable.
            options: What the family's sampler takes, e.g. ``steps=20, sampler="ddim"``; with
                ``given``, what its ``complete`` takes.

        Raises:
            UsageError: If the family cannot honour an option.
        """
        return self.schema.restore(self.draw(n, y, given=given, seed=seed, **options))

    def draw(
        self,
        n: int,
        y: Any = None,
        *,
        given: Any = None,
        seed: int | None = None,
        **options: Any,
    ) -> np.ndarray:
        """`sample` as a float64 array with shape ``(n, *event)``, in the units of the data."""
        if n < 0 or int(n) != n:
            raise UsageError(f"n is {n}; ask for a whole number of samples")
        if given is not None:
            return completing.complete(self, n, given, y, seed, options)
        accepts(self.model.sample, options, self.family)
        with seeded(seed), torch.inference_mode():
            c = self.conditions(y, n)
            z = [
                self.model.sample(m, None if c is None else c[i : i + m], **options)
                for i, m in chunks(n, rows_at_once(self.model.event_shape))
            ]
            x = torch.cat(z).cpu().double() if z else torch.zeros(0, *self.model.event_shape)
            if not x.isfinite().all():
                raise NumericalError(
                    f"{self.family} drew values that are not finite; use more sampler steps"
                )
            return self.transform.inverse(x.double()).numpy()

    def typed(self, word: str | None) -> Any:
        """A condition for all data as a person types it, in the kind that the schema has."""
        if word is None or self.schema.condition is None:
            return word
        return self.schema.condition.typed(word)

    def conditions(self, y: Any, n: int) -> Tensor | None:
        """The condition vectors of ``n`` data."""
        if not self.schema.condition_length:
            if y is not None:
                raise UsageError("the model was fitted without conditions: leave y out")
            return None
        if y is not None:
            return self.vectors(self.schema.encode(y, n))
        seen = np.asarray(self.config["conditions"])  # their law in training
        return self.vectors(seen[torch.randint(len(seen), (n,)).numpy()])

    def vectors(self, c: np.ndarray) -> Tensor:
        """Encoded conditions in the precision and on the device of the model."""
        return torch.as_tensor(c, dtype=torch.get_default_dtype()).to(device_of(self.model))

    def log_prob(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> np.ndarray:
        """Log-likelihood of each datum in nats and in the units of ``x``, of kind `likelihood`.

        A density for continuous data, a mass for integers.

        Raises:
            NoLikelihood: If the family has none.
            DataError: If ``x`` does not fit the schema.
        """
        if self.likelihood is Likelihood.NONE:
            raise NoLikelihood(
                f"{self.family} has no likelihood; for densities fit e.g. normalizing_flow"
            )
        accepts(self.model.log_prob, options, self.family)
        data = reading.read_as(x, self.schema, y=y)
        rows = data.x
        with seeded(seed), torch.no_grad():
            c, values = None, []
            if self.schema.condition_length:
                c = self.vectors(self.schema.encode(data.y, len(rows)))
                if data.y is None:
                    warnings.warn(
                        "scored without the condition that the model was fitted with: this is the "
                        "law of an unknown condition, not the mixture that `sample` draws from",
                        stacklevel=2,
                    )
            for i, m in chunks(len(rows), rows_at_once(self.model.event_shape)):
                z, log_det = self.transform.forward(torch.as_tensor(rows[i : i + m]))
                value = self.model.log_prob(
                    z.to(device_of(self.model), torch.get_default_dtype()),
                    None if c is None else c[i : i + m],
                    **options,
                )
                values.append(value.cpu().double() + log_det)
        result = torch.cat(values).numpy() if values else np.zeros(0)
        if np.isnan(result).any():
            raise NumericalError(f"{self.family} returned a log-likelihood that is not a number")
        return result

    def encode(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> np.ndarray:
        """The latents of data, one row a datum, for families that have them.

        Raises:
            UsageError: If the family has no latents.
            DataError: If ``x`` does not fit the schema, or a condition is needed and not known.
        """
        return mapping.encode(self, x, y, seed, options)

    def decode(self, z: Any, y: Any = None, *, seed: int = 0, **options: Any) -> Any:
        """The data that latents stand for, in the schema of what was fitted."""
        return mapping.decode(self, z, y, seed, options)

    def reconstruct(self, x: Any, y: Any = None, *, seed: int = 0) -> Any:
        """`encode` and then `decode`: what the latents keep of the data."""
        return mapping.reconstruct(self, x, y, seed)

    def traverse(self, x: Any = None, y: Any = None, **options: Any) -> np.ndarray:
        """Move one latent at a time and decode; `latents.traverse` states the options."""
        return latents.traverse(self, x, y, **options)

    def translate(
        self, x: Any, y: Any = None, *, reverse: bool = False, seed: int = 0, **options: Any
    ) -> Any:
        """Carry data of the source to data like those fitted, or back.

        Arguments:
            x: Data like the ``source`` that `fit` was given; like its data if ``reverse``.
            y: Their conditions, if the model was fitted with a condition.
            reverse: Go from the data to the source.
            seed: Of what is random.
            options: What the family's ``translate`` takes.

        Raises:
            UsageError: If the model was fitted without a source.
        """
        return mapping.translate(self, x, y, reverse, seed, options)

    def anomaly_score(
        self, x: Any, y: Any = None, *, method: str = "density", seed: int = 0
    ) -> np.ndarray:
        """How strange each datum is, in nats; larger is stranger.

        Arguments:
            x: Data.
            y: Their conditions.
            method: "density", "typicality" or "ratio" (`anomaly` says when to use which).
            seed: Of what is random.
        """
        return anomaly.score(self, x, y, method, seed)

    def flag(
        self,
        x: Any,
        y: Any = None,
        *,
        rate: float = 0.01,
        reference: Any = None,
        method: str = "density",
        seed: int = 0,
    ) -> anomaly.Flags:
        """Anomalies among data: scores, which are flagged, and the threshold (`anomaly.flag`).

        Arguments:
            x: Data.
            y: Their conditions.
            rate: The part of ordinary data that may be flagged by mistake.
            reference: Ordinary data the model was not fitted to, to set the threshold; without
                them the model's own draws do.
            method: As in `anomaly_score`.
            seed: Of what is random.
        """
        return anomaly.flag(self, x, y, rate=rate, reference=reference, method=method, seed=seed)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder that `load` and the command line read."""
        folder = Path(folder)
        with checkpoint.lock(folder):
            if checkpoint.checkpoints(folder):
                raise FolderInUse(f"{folder} holds a run already; choose another folder")
            tensors = {"model": self.model.state_dict()}
            checkpoint.save(folder, Checkpoint(self.plain({"done": True}), tensors, self.history))
        return folder

    def plain(self, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The JSON files of a checkpoint."""
        config = self.config | {"transform": self.transform.to_json()}
        return {"config": config, "schema": self.schema.to_json(), "state": state}


def assemble(config: dict[str, Any], schema: Schema) -> FittedModel:
    """A model with fresh weights as a configuration describes it."""
    event = config["event"]
    model = families.build(
        config["family"], Event(tuple(event[0]), *event[1:]), **config["options"]
    ).eval()
    if origin := config.get("origin"):  # the rows themselves are among the weights, if it keeps any
        mapping.ability(model, "start_from", "cannot start from data")(
            torch.zeros(origin["rows"], *model.event_shape)
        )
    return FittedModel(model, transforms.Chain.from_json(config["transform"]), schema, config)


def load(folder: str | Path, *, device: str = "auto") -> FittedModel:
    """The model of a run folder.

    Raises:
        MissingFile: If the folder does not exist.
        DataError: If no checkpoint in it is whole.
    """
    plain, tensors, history = checkpoint.load(Path(folder))
    try:
        fitted = assemble(plain["config"], Schema.from_json(plain["schema"]))
        best = tensors.get("best") or tensors.get("ema") or tensors["model"]
        fitted.model.load_state_dict(best)
    except (KeyError, TypeError, RuntimeError) as error:
        why = str(error).splitlines()[0][:120]
        raise DataError(f"{folder} does not describe a model of this version: {why}") from error
    fitted.history = history
    fitted.model.to(choose_device(device))
    return fitted
