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
from ..data.reading import Samples
from ..data.schema import Schema
from ..devices import choose_device, seeded
from ..errors import DataError, UsageError
from ..inference.fitted_model import FittedModel, assemble
from ..model import GenerativeModel, Recipe
from ..networks.select import takes_tokens
from ..options import one_of, positive
from ..rng import sow
from .acceleration import hasten
from .companions import Companions
from .idle import refuse_idle, refuse_unhastened
from .minibatches import Stream
from .monitor import Watcher
from .preparation import (
    afresh,
    device_data,
    event_of,
    fingerprint,
    on_device,
    overview,
    pick,
    piece,
    recipe_from,
    recipe_of,
    seen_conditions,
    split,
)
from .processes import ALONE, Ranks
from .run import PRECISIONS, Run
from .trainer import Trainer, batches


def fresh(
    samples: Samples,
    family: str,
    options: dict[str, Any],
    steps: int | None,
    minutes: float | None,
    device: str | torch.device,
    extra: dict[str, Any],
    company: Companions | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """A run that starts from untrained weights."""
    company = company or Companions()
    positive("minutes", minutes)
    one_of("precision", extra["precision"], PRECISIONS)
    of_recipe = {k: v for k, v in options.items() if k in Recipe._fields}
    of_family = {k: v for k, v in options.items() if k not in Recipe._fields}
    samples, model = suited(samples, family, of_family, company)
    event = event_of(samples)
    refuse_idle(model, options, extra, ranks, event.condition > 0)
    recipe, fields = recipe_of(model, of_recipe, steps)
    train, _ = split(len(samples.x), extra["seed"])
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
        "data": fingerprint(samples),
    } | seen_conditions(samples, train)
    fitted = FittedModel(model, transform, samples.schema, config)
    return over(samples, fitted, recipe, device, company, ranks)


def suited(
    samples: Samples, family: str, options: dict[str, Any], company: Companions
) -> tuple[Samples, GenerativeModel]:
    """A model of the data, and the data with conditions as it takes them, tokens or none.

    Raises:
        UsageError: If there is a teacher that takes tokens, and the model takes none.
    """
    event = event_of(samples)
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
    return samples, families.build(family, event_of(samples), **options)


def resumed(
    samples: Samples,
    found: Checkpoint,
    device: str | torch.device,
    company: Companions,
    ranks: Ranks = ALONE,
) -> Run:
    """A run that goes on as if it had never stopped."""
    config = found.plain["config"]
    if fingerprint(samples) != config["data"]:
        raise DataError("the data differ from those the run was fitted to; start a new run")
    names = [column["name"] for column in found.plain["schema"]["columns"]]
    if [column.name for column in samples.schema.columns] != names:
        raise DataError("the columns are named otherwise than those the run was fitted to")
    if not {"model", "trainer"} <= found.tensors.keys():
        raise DataError("this run was saved without its trainer: it can be used, not resumed")
    known = Schema.from_json(found.plain["schema"]).condition
    samples = replace(samples, schema=replace(samples.schema, condition=known))
    fitted = assemble(config, samples.schema)
    recipe = recipe_from(config["recipe"])
    run = over(samples, fitted, recipe, device, company, ranks, prepared=True)
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


def over(
    samples: Samples,
    fitted: FittedModel,
    recipe: Recipe,
    device: str | torch.device,
    company: Companions,
    ranks: Ranks = ALONE,
    prepared: bool = False,
) -> Run:
    """Put the data and the model on the device."""
    where, config = choose_device(device), fitted.config
    config |= {"devices": ranks.count, "shard": ranks.sharded}
    size = piece(recipe, ranks.count)
    train, held = split(len(samples.x), config["seed"])
    transform, stream, told = fitted.transform, None, None
    if samples.x.nbytes > memmap.LARGE:
        stream = Stream(samples, train, size, ranks.seed(config["seed"]), where)
        data = afresh(stream, transform)
    else:
        x, told = device_data(samples, transform, where)
        data = batches(x[train], size, pick(told, train))
        data = afresh(data, transform) if transform.stochastic else data
    model = fitted.model.to(where)
    company.meet(model, where)
    if not prepared:
        prepare(model, samples, transform, train, where, told)
    trainer = Trainer(
        model.cpu() if ranks.sharded else model,  # until it is divided: the device may be too small
        recipe,
        recipe.steps if model.players() else 0,
        autocast=PRECISIONS[config["precision"]],
        ranks=ranks,
        device=where,
    )
    company.gather(model, samples, transform, train, where)
    hasten(model, config)
    refuse_unhastened(model, config)
    validation = None
    if len(held) and model.players():
        with seeded(config["seed"], where):  # dequantised alike by a resumed run
            validation = on_device(samples, transform, held, where, told)
    if not ranks.first:  # noise of its own
        sow(ranks.seed(config["seed"]), where)
    run = Run(fitted, trainer, data, validation, stream, minutes=config["minutes"])
    if times := config.get("watch"):
        if not model.players():
            raise UsageError(
                "watch looks at training, and this family has none, being fitted in one pass: "
                "leave it out"
            )
        run.watcher = Watcher(times, samples, train, held, config["seed"])
    return run


def prepare(
    model: GenerativeModel,
    samples: Samples,
    transform: transforms.Chain,
    train: np.ndarray,
    where: torch.device,
    told: Tensor | None = None,
) -> None:
    """Let the model see the data before its first step; of very many, a part."""
    if type(model).prepare is GenerativeModel.prepare and samples.x.size > memmap.MANY:
        return
    rows = overview(samples, train)
    if len(rows) < len(train) and not model.players():
        warnings.warn(
            f"the data are too many to be seen at once: fitted to {len(rows):,} of "
            f"{len(train):,}, drawn at random",
            stacklevel=2,
        )
    with torch.no_grad():
        model.prepare(*on_device(samples, transform, rows, where, told))
