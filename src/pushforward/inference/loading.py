"""Models from run folders, and models with fresh weights as a configuration describes them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import checkpoint, families
from ..data.schema import Schema
from ..data.transforms import Chain
from ..devices import choose_device
from ..errors import DataError, UsageError
from ..files import as_folder
from ..model import AdoptsTeacher, Event, GenerativeModel, Transports, missing_capability
from .fitted_model import FittedModel
from .preprocessor import Preprocessor


def build_from_config(config: dict[str, Any], schema: Schema) -> FittedModel:
    chain = Chain.from_json(config["transform"])
    seen = (config.get("conditions") or (), config.get("frequencies") or ())
    if schema.condition is not None and not all(seen):
        raise DataError("the configuration lacks the conditions of training")
    preprocessor = Preprocessor(schema, chain, *seen)
    event, known = schema.event_of(config["event"][3]), list(config["event"])
    known += [[0, 0], False] * (len(known) == 4)  # runs from before there were tokens
    if json.loads(json.dumps(event)) != known:
        raise DataError("the configuration and the schema describe different data")
    model = _build_fresh_model(config, event)
    if origin := config.get("origin"):  # the rows themselves are among the weights, if it keeps any
        if not isinstance(model, Transports):
            raise missing_capability(model, "cannot start from data")
        model.start_from(torch.zeros(origin["rows"], *model.event_shape))
    return FittedModel(model, preprocessor, config)


def _build_fresh_model(config: dict[str, Any], event: Event) -> GenerativeModel:
    model = families.build(config["family"], event, **config["options"]).eval()
    teacher = (config.get("teacher") or {}).get("model")
    if teacher and isinstance(model, AdoptsTeacher):
        parts: list[Any] = [tuple(v) if isinstance(v, list) else v for v in teacher["event"]]
        model.adopt(_build_fresh_model(teacher, Event(*parts)))
    return model


@contextlib.contextmanager
def run_folder_errors(folder: Path | None) -> Iterator[None]:
    """A DataError about the run folder in place of what a malformed file has led to."""
    try:
        yield
    except DataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{folder} does not describe a model of this version: {why}") from error


def _ema_name(known: Any, ema: float) -> str:
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
    chosen = () if ema is None else (_ema_name(plain["config"]["recipe"]["ema"], ema),)
    if chosen and not tensors.get(chosen[0]):
        raise UsageError(f"{folder} keeps no averages of weights: leave out ema")
    with run_folder_errors(folder):
        schema = Schema.from_json(plain["schema"])
        schema.restore(np.zeros((0, *schema.event)), np.zeros((0, schema.condition_length)))
        fitted = build_from_config(plain["config"], schema)
        names = chosen or ("best", "ema", "model")
        best = next(tensors[name] for name in names if tensors.get(name))
        if any(v.isnan().any() for v in best.values()):
            raise DataError(f"{folder} contains NaN weights; fit again")
        try:
            fitted.model.load_state_dict(best)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    fitted.history = history
    fitted.model.to(choose_device(device))
    return fitted
