"""Raw data in, raw data out: fit a family, keep it in a run folder, sample it and score with it."""

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import checkpoint, families
from ..checkpoint import Checkpoint
from ..data import transforms
from ..data.schema import Schema
from ..devices import choose_device
from ..errors import DataError, FolderInUse, UsageError
from ..files import as_folder
from ..model import Event, GenerativeModel, Likelihood
from . import anomaly, editing, flops, likelihood, sampling, traversal
from . import latents as mapping
from .diagnostics import diagnose_fit as ringing
from .preprocessor import Preprocessor


@dataclass(repr=False)
class FittedModel:
    """A trained model with the data's schema around it."""

    model: GenerativeModel
    preprocessor: Preprocessor
    config: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"FittedModel({self.family}, {self.parameters:,} parameters, {self.likelihood})"

    @property
    def family(self) -> str:
        """The registry key of the family."""
        return self.config["family"]

    @property
    def schema(self) -> Schema:
        """The likeness of the data that were fitted."""
        return self.preprocessor.schema

    @property
    def transform(self) -> transforms.Chain:
        """The units of the data to the model's space, and back."""
        return self.preprocessor.transform

    @property
    def likelihood(self) -> Likelihood:
        """What kind of number `log_prob` returns without options."""
        return self.kind()

    def kind(self, **options: Any) -> Likelihood:
        """What kind of number `log_prob` returns with these options.

        A density of dequantised integers bounds their log-mass from below, by Jensen's inequality.
        """
        kind = self.model.kind(**options)
        dequantised = self.transform.stochastic and kind is not Likelihood.NONE
        return Likelihood.LOWER_BOUND if dequantised else kind

    @property
    def alarms(self) -> list[str]:
        """What the family's own diagnosis says against using the fit; empty where nothing does."""
        return list(ringing(self.history, self.config))

    @property
    def parameters(self) -> int:
        """How many numbers were learned; of a closed-form fit, how many it keeps."""
        learned = sum(p.numel() for p in self.model.parameters())
        return learned or sum(b.numel() for b in self.model.buffers())

    @property
    def white(self) -> int:
        """The level that pictures show as white."""
        return self.schema.white

    @property
    def noun(self) -> str:
        """What messages call a datum."""
        return self.schema.noun

    @property
    def flops(self) -> int:
        """Floating-point operations of one datum in the losses of training (`flops.training_flops`)."""
        return flops.training_flops(self)

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
                ``given``, what its ``complete`` takes. ``negative``, where there is guidance, is a
                condition for all of them, or one for each.

        Raises:
            UsageError: If the family cannot honour an option.
        """
        return self.labelled(n, y, given=given, seed=seed, **options)[0]

    def labelled(
        self,
        n: int,
        y: Any = None,
        *,
        given: Any = None,
        seed: int | None = None,
        **options: Any,
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """`sample`, and what is known of each datum, as `writing.write_samples` takes it in ``extra``.

        That is the condition it was drawn for, by the name that a folder of pictures keeps it by:
        "label" for classes, or "caption". Of a model without a condition nothing is known.
        """
        x, c, said = sampling.draw_samples(self, n, y, given, seed, options)
        return self.schema.restore(x, c, said), self.schema.condition_columns(c, said)

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
        return sampling.draw_samples(self, n, y, given, seed, options)[0]

    def log_prob(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> np.ndarray:
        """Log-likelihood of each datum in nats and in the units of ``x``, of kind `likelihood`.

        A density for continuous data, a mass for integers. Where the model was fitted with a
        condition and none is known, neither ``y`` nor its column, this is the law that samples
        without a condition have: the sum over the classes seen in training with their frequencies,
        or the mean over at most 64 of the numbers seen.

        Raises:
            NoLikelihood: If the family has none.
            DataError: If ``x`` does not fit the schema.
        """
        return likelihood.log_prob(self, x, y, seed, options)

    def estimated(
        self, x: Any, y: Any = None, *, seed: int = 0, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """`log_prob`, and for each datum the standard error in nats of its estimate of a trace.

        It is 0 where the trace is exact: up to 64 dimensions, or with ``probes=0``.
        """
        return likelihood.log_prob_with_error(self, x, y, seed, options)

    def encode(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> np.ndarray:
        """The latents of data, one row a datum, for families that have them.

        Raises:
            UsageError: If the family has no latents.
            DataError: If ``x`` does not fit the schema, or a condition is needed and not known.
        """
        return mapping.encode_data(self, x, y, seed, options)

    def decode(self, z: Any, y: Any = None, *, seed: int = 0, **options: Any) -> Any:
        """The data that latents stand for, in the schema of what was fitted."""
        return mapping.decode_data(self, z, y, seed, options)

    def reconstruct(self, x: Any, y: Any = None, *, seed: int = 0, **options: Any) -> Any:
        """`encode` and then `decode`: what the latents keep of the data."""
        return mapping.reconstruct_data(self, x, y, seed, options)

    def traverse(self, x: Any = None, y: Any = None, **options: Any) -> np.ndarray:
        """Move one latent at a time and decode; `latents.traverse` states the options."""
        return traversal.traverse_latents(self, x, y, **options)

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
        return mapping.translate_data(self, x, y, reverse, seed, options)

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
        """Redraw a part of a picture ``n`` times, and say how much the draws vary there.

        It is `sample` with ``given`` the rest of the picture, which is kept as it is.

        Arguments:
            x: One picture: a file, or an array.
            mask: White, or true, where it is to be redrawn (`editing.region`); of the same size.
            n: How many.
            y: Their condition, if the model was fitted with one.
            seed: Makes the draws repeatable.
            options: What the family's ``complete`` takes: ``guidance``, ``method``, ``steps``.

        Raises:
            DataError: If the mask has another size, or is all of one colour.
            UsageError: If the model was not fitted to pictures.
        """
        return editing.inpaint_image(self, x, mask, n, y, seed, options)

    def interpolate(
        self, a: Any, b: Any, n: int = 8, y: Any = None, *, seed: int = 0, **options: Any
    ) -> Any:
        """Data on the way from one datum to another through the latents, both ends included.

        The way is a great circle where latents are normal noise, as of flows and paths, and a line
        where they are others, as of a VAE. The ends are reconstructions.

        Arguments:
            a: Where to begin: one datum, or several.
            b: Where to end, as many.
            n: How many data on each way.
            y: Their condition, or a pair of them for the ends, which are mixed in between.
            seed: Of what is random.
            options: What the family's ``encode`` and ``decode`` take, such as ``tolerance``.

        Raises:
            UsageError: If the family has no latents.
        """
        return editing.interpolate_latents(self, a, b, n, y, seed, options)

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
        return editing.sdedit(self, x, y, strength, seed, options)

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
        return anomaly.score_anomalies(self, x, y, method, seed)

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
        """Anomalies among data: scores, which are flagged, and the threshold (`anomaly.flag_anomalies`).

        Arguments:
            x: Data.
            y: Their conditions.
            rate: The part of ordinary data that may be flagged by mistake.
            reference: Ordinary data the model was not fitted to, to set the threshold; without
                them the model's own draws do.
            reference_y: Their conditions; needed where those of the data are known.
            method: As in `anomaly_score`.
            seed: Of what is random.
        """
        return anomaly.flag_anomalies(
            self,
            x,
            y,
            rate=rate,
            reference=reference,
            reference_y=reference_y,
            method=method,
            seed=seed,
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError(
            "a fitted model is not pickled: use model.save(folder) and pushforward.load(folder)"
        )

    def __copy__(self) -> "FittedModel":
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "FittedModel":
        parts = (self.model, self.config, self.history)
        model, config, history = copy.deepcopy(parts, memo)
        return replace(self, model=model, config=config, history=history)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder that `load` and the command line read."""
        folder = as_folder(folder)
        with checkpoint.lock_folder(folder):
            if checkpoint.list_checkpoints(folder):
                raise FolderInUse(f"{folder} holds a run already; choose another folder")
            tensors = {"model": self.model.state_dict()}
            checkpoint.save_checkpoint(
                folder, Checkpoint(self.plain({"done": True}), tensors, self.history)
            )
        return folder

    def plain(self, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The JSON files of a checkpoint."""
        config = self.config | {"transform": self.transform.to_json()}
        return {"config": config, "schema": self.schema.to_json(), "state": state}


def build_from_config(config: dict[str, Any], schema: Schema) -> FittedModel:
    """A model with fresh weights as a configuration describes it.

    Raises:
        DataError: If it is not that of a model of such data.
    """
    chain = transforms.Chain.from_json(config["transform"])
    seen = (config.get("conditions") or (), config.get("frequencies") or ())
    preprocessor = Preprocessor(schema, chain, *seen)
    event, known = preprocessor.event(config["event"][3]), list(config["event"])
    known += [[0, 0], False] * (len(known) == 4)  # runs from before there were tokens
    if json.loads(json.dumps(event)) != known:
        raise DataError("the configuration and the schema describe different data")
    model = build_fresh_model(config, event)
    if origin := config.get("origin"):  # the rows themselves are among the weights, if it keeps any
        mapping.require_method(model, "start_from", "cannot start from data")(
            torch.zeros(origin["rows"], *model.event_shape)
        )
    return FittedModel(model, preprocessor, config)


def build_fresh_model(config: dict[str, Any], event: Event) -> GenerativeModel:
    """A model with fresh weights, and a part like its teacher if the family takes one in."""
    model = families.build(config["family"], event, **config["options"]).eval()
    teacher = (config.get("teacher") or {}).get("model")
    if teacher and (adopt := getattr(model, "adopt", None)):
        parts: list[Any] = [tuple(v) if isinstance(v, list) else v for v in teacher["event"]]
        adopt(build_fresh_model(teacher, Event(*parts)))
    return model


@contextlib.contextmanager
def run_folder_errors(folder: Path | None) -> Iterator[None]:
    """Say of a run folder that it cannot be used, whatever in it has been changed.

    Raises:
        DataError: In place of what a malformed file has led to.
    """
    try:
        yield
    except DataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{folder} does not describe a model of this version: {why}") from error


def ema_name(known: Any, ema: float) -> str:
    """What a checkpoint calls the average with a decay.

    Raises:
        UsageError: If there is none.
    """
    decays = [v for v in (known if isinstance(known, list) else [known]) if v]
    if ema not in decays:
        raise UsageError(f"no average has the decay ema={ema}; choose from {decays or 'none'}")
    number = decays.index(ema)
    return f"ema-{number}" if number else "ema"


def load(folder: str | Path, *, device: str = "auto", ema: float | None = None) -> FittedModel:
    """The model of a run folder, with the weights that were best on held-out data.

    Arguments:
        folder: Made by `fit`.
        device: Where it is to run.
        ema: Take the last weights averaged with this decay instead, one of those that it was
            fitted with.

    Raises:
        MissingFile: If the folder does not exist.
        UsageError: If there is no such average.
        DataError: If no checkpoint in it is whole.
    """
    folder = as_folder(folder)
    plain, tensors, history = checkpoint.load_checkpoint(folder)
    chosen = () if ema is None else (ema_name(plain["config"]["recipe"]["ema"], ema),)
    if chosen and not tensors.get(chosen[0]):
        raise UsageError(f"{folder} keeps no averages of weights: leave out ema")
    with run_folder_errors(folder):
        schema = Schema.from_json(plain["schema"])
        schema.restore(np.zeros((0, *schema.event)), np.zeros((0, schema.condition_length)))
        fitted = build_from_config(plain["config"], schema)
        names = chosen or ("best", "ema", "model")
        best = next(tensors[name] for name in names if tensors.get(name))
        if any(v.isnan().any() for v in best.values()):
            raise DataError(f"{folder} holds weights that are not numbers; fit again")
        try:
            fitted.model.load_state_dict(best)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    fitted.history = history
    fitted.model.to(choose_device(device))
    return fitted
