"""Where runs come from: untrained weights, or the last checkpoint of a run that stopped."""

from dataclasses import replace
from typing import Any

import torch

from .. import __version__, families
from ..checkpoint import Checkpoint
from ..data.reading import Samples
from ..data.schema import Schema
from ..errors import DataError, UsageError
from ..fitted import FittedModel, assemble
from ..model import GenerativeModel, Recipe
from ..networks.choosing import takes_tokens
from ..options import positive
from ..places import choose_device, seeded
from ..training import Trainer, batches
from .companions import Companions
from .hastening import hasten
from .preparing import (
    device_data,
    event_of,
    fingerprint,
    noisy,
    pick,
    recipe_from,
    recipe_of,
    seen_conditions,
    split,
)
from .running import PRECISIONS, Run


def fresh(
    samples: Samples,
    family: str,
    options: dict[str, Any],
    steps: int | None,
    minutes: float | None,
    device: str,
    extra: dict[str, Any],
    company: Companions | None = None,
) -> Run:
    """A run that starts from untrained weights."""
    company = company or Companions()
    positive("minutes", minutes)
    families.one_of("precision", extra["precision"], PRECISIONS)
    of_recipe = {k: v for k, v in options.items() if k in Recipe._fields}
    of_family = {k: v for k, v in options.items() if k not in Recipe._fields}
    samples, model = suited(samples, family, of_family, company)
    event = event_of(samples)
    recipe, fields = recipe_of(model, of_recipe, steps)
    train, _ = split(len(samples.x), extra["seed"])
    transform = company.transform(model, samples, train)
    config = extra | company.to_json()
    config |= {
        "pushforward": __version__,
        "family": family,
        "options": of_family,
        "recipe": fields,
        "minutes": minutes,
        "event": list(event),
        "transform": transform.to_json(),
        "data": fingerprint(samples),
    } | seen_conditions(samples, train)
    fitted = FittedModel(model, transform, samples.schema, config)
    return over(samples, fitted, recipe, device, company)


def suited(
    samples: Samples, family: str, options: dict[str, Any], company: Companions
) -> tuple[Samples, GenerativeModel]:
    """A model of the data, and the data with conditions as it takes them, tokens or none.

    Raises:
        UsageError: If there is a teacher, which takes tokens, and the model takes none.
    """
    event = event_of(samples)
    model = families.build(family, event, **options)
    condition = samples.schema.condition
    if not event.tokens[0] or condition is None or takes_tokens(model):
        return samples, model
    if company.teacher is not None:
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
    device: str,
    company: Companions,
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
    run = over(samples, fitted, recipe, device, company, prepared=True)
    fitted.history = found.history
    state = dict(found.plain["state"])
    fitted.model.load_state_dict(found.tensors["model"])
    if run.trainer.average is not fitted.model:
        run.trainer.average.load_state_dict(found.tensors["ema"])
    run.trainer.load(found.tensors["trainer"], state)
    run.seconds, run.first, run.best = state["seconds"], state["first"], state["best"]
    run.worse = state["worse"]
    run.evaluations, run.best_weights = state["evaluations"], found.tensors.get("best")
    return run


def over(
    samples: Samples,
    fitted: FittedModel,
    recipe: Recipe,
    device: str,
    company: Companions,
    prepared: bool = False,
) -> Run:
    """Put the data and the model on the device."""
    where, config = choose_device(device), fitted.config
    train, held = split(len(samples.x), config["seed"])
    x, c = device_data(samples, fitted.transform, where)
    model = fitted.model.to(where)
    company.meet(model, where)
    if not prepared:
        z = fitted.transform.forward(torch.as_tensor(samples.x[train]))[0]
        with torch.no_grad():
            model.prepare(z.to(torch.get_default_dtype()).to(where), pick(c, train))
    trainer = Trainer(
        model,
        recipe,
        recipe.steps if model.players() else 0,
        autocast=PRECISIONS[config["precision"]],
    )
    hasten(model, config)
    data = batches(x[train], recipe.batch, pick(c, train))
    if fitted.transform.stochastic:
        data = noisy(data, fitted.transform)
    validation = None
    if len(held) and model.players():
        with seeded(config["seed"], where):  # dequantised alike by a resumed run
            z = fitted.transform.forward(torch.as_tensor(samples.x[held]))[0]
        validation = z.to(torch.get_default_dtype()).to(where), pick(c, held)
    return Run(fitted, trainer, data, validation, minutes=config["minutes"])
