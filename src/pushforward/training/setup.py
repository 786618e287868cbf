"""Where runs come from: untrained weights, or the last checkpoint of a run that stopped."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__, families
from ..checkpoint import Checkpoint
from ..data import memmap, transforms
from ..data.reading import Dataset
from ..data.schema import Schema
from ..devices import choose_device, seeded_rng
from ..errors import DataError, UsageError
from ..inference.fitted_model import FittedModel
from ..inference.loading import build_from_config
from ..inference.preprocessor import Preprocessor
from ..model import GenerativeModel, Recipe
from ..networks.select import takes_tokens
from ..options import check_duration, choose_option
from ..rng import seed_rng
from .acceleration import accelerate_networks
from .companions import TeacherAndSource
from .idle import check_acceleration, check_idle_options
from .minibatches import MinibatchStream
from .monitor import SampleMonitor
from .preparation import (
    data_fingerprint,
    dequantise_stream,
    event_of_dataset,
    holdout_split,
    microbatch_size,
    preparation_rows,
    recipe_from_json,
    resolve_recipe,
    rows_on_device,
    select_rows,
    tally_conditions,
    tensors_on_device,
)
from .processes import ALONE, ProcessGroup
from .run import PRECISIONS, Run
from .trainer import Trainer, random_batches


def new_run(
    samples: Dataset,
    family: str,
    options: dict[str, Any],
    steps: int | None,
    minutes: float | None,
    device: str | torch.device,
    extra: dict[str, Any],
    company: TeacherAndSource | None = None,
    ranks: ProcessGroup = ALONE,
) -> Run:
    """A run that starts from untrained weights."""
    company = company or TeacherAndSource()
    check_duration("minutes", minutes)
    choose_option("precision", extra["precision"], PRECISIONS)
    of_recipe = {k: v for k, v in options.items() if k in Recipe._fields}
    of_family = {k: v for k, v in options.items() if k not in Recipe._fields}
    samples, model = match_tokens(samples, family, of_family, company)
    event = event_of_dataset(samples)
    check_idle_options(model, options, extra, ranks, event.condition > 0)
    recipe, fields = resolve_recipe(model, of_recipe, steps)
    train, _ = holdout_split(len(samples.x), extra["seed"])
    transform = company.transform(model, samples, train)
    config = extra | company.to_json()
    config |= {
        "pushforward": __version__,
        "family": family,
        "options": of_family,
        "recipe": fields,
        "usual": model.recipe.steps if model.players() else 0,
        "minutes": minutes,
        "event": list(event),
        "transform": transform.to_json(),
        "data": data_fingerprint(samples),
    } | tally_conditions(samples, train)
    seen = (config["conditions"] or (), config["frequencies"] or ())
    fitted = FittedModel(model, Preprocessor(samples.schema, transform, *seen), config)
    return build_run(samples, fitted, recipe, device, company, ranks)


def match_tokens(
    samples: Dataset, family: str, options: dict[str, Any], company: TeacherAndSource
) -> tuple[Dataset, GenerativeModel]:
    """A model of the data, and the data with conditions as it takes them, tokens or none.

    Raises:
        UsageError: If there is a teacher that takes tokens, and the model takes none.
    """
    event = event_of_dataset(samples)
    model = families.build(family, event, **options)
    condition = samples.schema.condition
    if not event.tokens[0] or condition is None or takes_tokens(model):
        return samples, model
    if company.teacher is not None and company.teacher.schema.condition is not None:
        raise UsageError(
            "the teacher reads captions token by token, and this network does not: take a network "
            "that does, such as the teacher's"
        )
    schema = replace(samples.schema, condition=condition.without_tokens())
    samples = replace(samples, schema=schema)
    return samples, families.build(family, event_of_dataset(samples), **options)


def resume_run(
    samples: Dataset,
    found: Checkpoint,
    device: str | torch.device,
    company: TeacherAndSource,
    ranks: ProcessGroup = ALONE,
) -> Run:
    """A run that goes on as if it had never stopped."""
    config = found.plain["config"]
    if data_fingerprint(samples) != config["data"]:
        raise DataError("the data differ from those the run was fitted to; start a new run")
    names = [column["name"] for column in found.plain["schema"]["columns"]]
    if [column.name for column in samples.schema.columns] != names:
        raise DataError("the columns are named otherwise than those the run was fitted to")
    if not {"model", "trainer"} <= found.tensors.keys():
        raise DataError("this run was saved without its trainer: it can be used, not resumed")
    known = Schema.from_json(found.plain["schema"]).condition
    samples = replace(samples, schema=replace(samples.schema, condition=known))
    fitted = build_from_config(config, samples.schema)
    recipe = recipe_from_json(config["recipe"])
    run = build_run(samples, fitted, recipe, device, company, ranks, prepared=True)
    fitted.history = found.history
    if run.watcher is not None:
        run.watcher.done = sum("pictures" in line for line in found.history)
    state = dict(found.plain["state"])
    fitted.model.load_state_dict(found.tensors["model"])
    for name, average in run.trainer.named_averages().items():
        average.load(found.tensors[name])
    run.trainer.load(found.tensors["trainer"], state)
    if run.stream is not None:
        run.stream.position = run.trainer.drawn
    run.seconds, run.first, run.best = state["seconds"], state["first"], state["best"]
    run.worse = state["worse"]
    run.evaluations, run.best_weights = state["evaluations"], found.tensors.get("best")
    return run


def build_run(
    samples: Dataset,
    fitted: FittedModel,
    recipe: Recipe,
    device: str | torch.device,
    company: TeacherAndSource,
    ranks: ProcessGroup = ALONE,
    prepared: bool = False,
) -> Run:
    """Put the data and the model on the device."""
    where, config = choose_device(device), fitted.config
    config |= {"devices": ranks.count, "shard": ranks.sharded}
    size = microbatch_size(recipe, ranks.count)
    train, held = holdout_split(len(samples.x), config["seed"])
    transform, stream, told = fitted.transform, None, None
    if samples.x.nbytes > memmap.LARGE:
        stream = MinibatchStream(samples, train, size, ranks.seed(config["seed"]), where)
        data = dequantise_stream(stream, transform)
    else:
        x, told = tensors_on_device(samples, transform, where)
        data = random_batches(x[train], size, select_rows(told, train))
        data = dequantise_stream(data, transform) if transform.stochastic else data
    model = fitted.model.to(where)
    company.meet(model, where)
    if not prepared:
        prepare_model(model, samples, transform, train, where, told)
    trainer = Trainer(
        model.cpu() if ranks.sharded else model,  # until it is divided: the device may be too small
        recipe,
        recipe.steps if model.players() else 0,
        autocast=PRECISIONS[config["precision"]],
        ranks=ranks,
        device=where,
    )
    company.gather(model, samples, transform, train, where)
    accelerate_networks(model, config)
    check_acceleration(model, config)
    validation = None
    if len(held) and model.players():
        with seeded_rng(config["seed"], where):  # dequantised alike by a resumed run
            validation = rows_on_device(samples, transform, held, where, told)
    if not ranks.first:  # noise of its own
        seed_rng(ranks.seed(config["seed"]), where)
    run = Run(fitted, trainer, data, validation, stream, minutes=config["minutes"])
    if times := config.get("watch"):
        if not model.players():
            raise UsageError(
                "watch looks at training, and this family has none, being fitted in one pass: "
                "leave it out"
            )
        run.watcher = SampleMonitor(times, samples, train, held, config["seed"])
    return run


def prepare_model(
    model: GenerativeModel,
    samples: Dataset,
    transform: transforms.Chain,
    train: np.ndarray,
    where: torch.device,
    told: Tensor | None = None,
) -> None:
    """Let the model see the data before its first step; of very many, a part."""
    if type(model).prepare is GenerativeModel.prepare and samples.x.size > memmap.MANY:
        return
    rows = preparation_rows(samples, train)
    if len(rows) < len(train) and not model.players():
        warnings.warn(
            f"the data are too many to be seen at once: fitted to {len(rows):,} of "
            f"{len(train):,}, drawn at random",
            stacklevel=2,
        )
    with torch.no_grad():
        model.prepare(*rows_on_device(samples, transform, rows, where, told))
