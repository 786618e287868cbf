"""A trained model for its user: data in, data out. Each method is one operation of this folder."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoint
from ..checkpoint import Checkpoint
from ..data.schema import Schema
from ..data.transforms import Chain
from ..errors import FolderInUse, UsageError
from ..files import as_folder
from ..model import GenerativeModel, Likelihood
from . import anomaly, diagnostics, editing, latents, likelihood, sampling
from .preprocessor import ModelPipeline, Preprocessor


@dataclass(repr=False)
class FittedModel:
    """A trained model with the preprocessor of its data."""

    model: GenerativeModel  # in its own standardised space
    preprocessor: Preprocessor
    config: dict[str, Any]  # of the fit, as the run folder has it
    history: list[dict[str, Any]] = field(default_factory=list)  # rows of the training curves

    def __repr__(self) -> str:
        return f"FittedModel({self.family}, {self.parameters:,} parameters, {self.likelihood})"

    @property
    def family(self) -> str:
        return self.config["family"]

    @property
    def pipeline(self) -> ModelPipeline:
        origin = self.config.get("origin")
        source = Preprocessor.from_json(origin) if origin else None
        return ModelPipeline(self.model, self.preprocessor, self.family, source)

    @property
    def schema(self) -> Schema:
        return self.preprocessor.schema

    @property
    def transform(self) -> Chain:
        return self.preprocessor.transform

    @property
    def likelihood(self) -> Likelihood:
        """What kind of number `log_prob` returns without options."""
        return self.kind()

    def kind(self, **options: Any) -> Likelihood:
        """What kind of number `log_prob` returns with these options.

        A density of dequantised integers bounds their log-mass from below, by Jensen's inequality.
        """
        return likelihood.likelihood_kind(self.pipeline, options)

    @property
    def alarms(self) -> list[str]:
        """What the family's own diagnosis says against using the fit; empty where nothing does."""
        return list(diagnostics.diagnose_fit(self.history, self.config))

    @property
    def parameters(self) -> int:
        """How many numbers were learned; of a closed-form fit, how many it keeps."""
        learned = sum(p.numel() for p in self.model.parameters())
        return learned or sum(b.numel() for b in self.model.buffers())

    @property
    def white(self) -> int:
        """The level that images show as white."""
        return self.schema.white

    @property
    def noun(self) -> str:
        return self.schema.noun

    @property
    def flops(self) -> int:
        """Floating-point operations of one row in the losses of training (`training_flops`)."""
        return diagnostics.training_flops(self.pipeline)

    def sample(
        self, n: int, y: Any = None, *, given: Any = None, seed: int | None = None, **options: Any
    ) -> Any:
        """Draw ``n`` samples of the same kind and schema as what was fitted.

        Arguments:
            n: How many.
            y: A condition for all of them, or one for each; None draws from those seen in training.
            given: Entries to keep fixed while the rest is drawn: ``{"age": 40}``, or data with NaN
                where entries are to be drawn, one row or ``n``.
            seed: Makes the draw repeatable.
            options: What the family's sampler takes, e.g. ``steps=20, sampler="ddim"``; with
                ``given``, what its ``complete`` takes. ``negative``, where there is guidance, is a
                condition for all of them, or one for each.

        Raises:
            UsageError: If the family cannot honour an option.
        """
        drawn = sampling.draw_samples(self.pipeline, n, y, given, seed, options)
        return self.schema.restore(*drawn)

    def labelled(
        self, n: int, y: Any = None, *, given: Any = None, seed: int | None = None, **options: Any
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """`sample`, and what is known of each sample, as `writing.write_samples` takes it.

        That is the condition it was drawn for, by the name that a folder of images keeps it by:
        "label" for classes, or "caption". Of a model without a condition nothing is known.
        """
        x, *known = sampling.draw_samples(self.pipeline, n, y, given, seed, options)
        return self.schema.restore(x, *known), self.schema.condition_columns(*known)

    def draw(
        self, n: int, y: Any = None, *, given: Any = None, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """`sample` as a float64 array with shape ``(n, *event)``, in the units of the data."""
        return sampling.draw_samples(self.pipeline, n, y, given, seed, options).x

    def log_prob(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> np.ndarray:
        """Log-likelihood of each row in nats and in the units of ``x``, of kind `likelihood`.

        A density for continuous data, a mass for integers. Where the model was fitted with a
        condition and none is known, neither ``y`` nor its column, this is the distribution of
        samples without a condition: the sum over the classes seen in training with their
        frequencies, or the mean over at most 64 of the numbers seen.

        Raises:
            NoLikelihood: If the family has none.
            DataError: If ``x`` does not fit the schema.
        """
        return likelihood.log_prob(self.pipeline, x, y, seed, options)

    def estimated(
        self, x: Any, y: Any = None, *, seed: int = 0, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """`log_prob`, and for each row the standard error in nats of its estimate of a trace.

        It is 0 where the trace is exact: up to 64 dimensions, or with ``probes=0``.
        """
        return likelihood.log_prob_with_error(self.pipeline, x, y, seed, options)

    def encode(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> np.ndarray:
        """The latents of data, one row each, for families that have them.

        Raises:
            UsageError: If the family has no latents.
            DataError: If ``x`` does not fit the schema, or a condition is needed and not known.
        """
        return latents.encode_data(self.pipeline, x, y, seed, options)

    def decode(self, z: Any, y: Any = None, *, seed: int = 0, **options: Any) -> Any:
        """The data that latents stand for, in the schema of what was fitted."""
        return latents.decode_data(self.pipeline, z, y, seed, options)

    def reconstruct(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> Any:
        """`encode` and then `decode`: what the latents keep of the data."""
        return latents.reconstruct_data(self.pipeline, x, y, seed, options)

    def traverse(self, x: Any = None, y: Any = None, **options: Any) -> np.ndarray:
        """Move one latent at a time and decode.

        Arguments:
            x: Data of which the first row gives the other latents; None puts them at 0.
            y: The condition, if the model was fitted with one.
            options: ``units``, which latents to move, all by default; ``values``, where to, from
                -3 to 3; ``seed``, of what is random.

        Returns:
            Shape ``(units, values, *event)``, in the units of the data.

        Raises:
            UsageError: If the family has no latents, or not these.
            DataError: If the condition is needed and not known.
        """
        return latents.traverse_latents(self.pipeline, x, y, **options)

    def translate(
        self, x: Any, y: Any = None, *, reverse: bool = False, seed: int = 0, **options: Any
    ) -> Any:
        """Map data of the source to data like those fitted, or back.

        Arguments:
            x: Data like the ``source`` that `fit` was given; like its data if ``reverse``.
            y: Their conditions, if the model was fitted with a condition.
            reverse: Go from the data to the source.
            seed: Of what is random.
            options: What the family's ``translate`` takes.

        Raises:
            UsageError: If the model was fitted without a source.
        """
        return latents.translate_data(self.pipeline, x, y, reverse, seed, options)

    def inpaint(
        self,
        x: Any,
        mask: Any,
        n: int = 8,
        y: Any = None,
        *,
        seed: int | None = None,
        **options: Any,
    ) -> editing.Inpainting:
        """Inpaint a part of an image ``n`` times, and say how much the samples vary there.

        It is `sample` with ``given`` the rest of the image, which is kept as it is.

        Arguments:
            x: One image: a file, or an array.
            mask: White, or true, where it is to be inpainted; of the same size. An image file, a
                .npy file, or an array, in which white begins at 128 unless all are 0 and 1.
            n: How many.
            y: Their condition, if the model was fitted with one.
            seed: Makes the samples repeatable.
            options: What the family's ``complete`` takes: ``guidance``, ``method``, ``steps``.

        Raises:
            DataError: If the mask has another size, or is all of one colour.
            UsageError: If the model was not fitted to images.
        """
        return editing.inpaint_image(self.pipeline, x, mask, n, y, seed, options)

    def interpolate(
        self, a: Any, b: Any, n: int = 8, y: Any = None, *, seed: int = 0, **options: Any
    ) -> Any:
        """Data on the way from one row to another through the latents, both ends included.

        The way is a great circle where latents are normal noise, as of flows and paths, and a line
        where they are others, as of a VAE. The ends are reconstructions.

        Arguments:
            a: Where to begin: one row, or several.
            b: Where to end, as many.
            n: How many rows on each way.
            y: Their condition, or a pair of them for the ends, which are mixed in between.
            seed: Of what is random.
            options: What the family's ``encode`` and ``decode`` take, such as ``tolerance``.

        Raises:
            UsageError: If the family has no latents.
        """
        return editing.interpolate_latents(self.pipeline, a, b, n, y, seed, options)

    def edit(
        self, x: Any, y: Any = None, *, strength: int | float = 0.5, seed: int = 0, **options: Any
    ) -> Any:
        """Add noise to data and take it away again under the model (SDEdit; Meng et al., 2022).

        Arguments:
            x: Data, perhaps rough ones, or of another kind: sketches, or another class.
            y: The condition that they are to meet, if the model was fitted with one.
            strength: From 0, which returns them, to 1, which draws afresh; in between it is a
                trade of what is kept for what is plausible.
            seed: Of the noise.
            options: What the family's sampler takes: ``sampler``, ``steps``, ``guidance``.

        Raises:
            UsageError: If the family has no path from noise to data.
        """
        return editing.sdedit(self.pipeline, x, y, strength, seed, options)

    def anomaly_score(
        self, x: Any, y: Any = None, *, method: str = "density", seed: int = 0
    ) -> np.ndarray:
        """How strange each row is, in nats; larger is stranger.

        Arguments:
            x: Data.
            y: Their conditions.
            method: "density", "typicality" or "ratio" (`anomaly` says when to use which).
            seed: Of what is random.
        """
        return anomaly.score_anomalies(self.pipeline, x, y, method, seed)

    def flag(
        self,
        x: Any,
        y: Any = None,
        *,
        rate: float = 0.01,
        reference: Any = None,
        reference_y: Any = None,
        method: str = "density",
        seed: int = 0,
    ) -> anomaly.AnomalyFlags:
        """Anomalies among data: scores, which rows are flagged, and the threshold.

        Arguments:
            x: Data.
            y: Their conditions.
            rate: The part of ordinary data that may be flagged by mistake.
            reference: Ordinary data the model was not fitted to, to set the threshold; without
                them the model's own samples do.
            reference_y: Their conditions; needed where those of the data are known.
            method: As of `anomaly_score`.
            seed: Of what is random.
        """
        ordinary = anomaly.Reference(rate, reference, reference_y)
        return anomaly.flag_anomalies(self.pipeline, x, y, ordinary, method, seed)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError(
            "a fitted model is not pickled: use model.save(folder) and pushforward.load(folder)"
        )

    def __copy__(self) -> "FittedModel":
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "FittedModel":
        model, config, history = copy.deepcopy((self.model, self.config, self.history), memo)
        return replace(self, model=model, config=config, history=history)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder that `load` and the command line read."""
        folder = as_folder(folder)
        with checkpoint.lock_folder(folder):
            if checkpoint.list_checkpoints(folder):
                raise FolderInUse(f"{folder} holds a run already; choose another folder")
            files, tensors = self.plain({"done": True}), {"model": self.model.state_dict()}
            checkpoint.save_checkpoint(folder, Checkpoint(files, tensors, self.history))
        return folder

    def plain(self, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The JSON files of a checkpoint: configuration, schema, and the trainer's state."""
        config = self.config | {"transform": self.transform.to_json()}
        return {"config": config, "schema": self.schema.to_json(), "state": state}
