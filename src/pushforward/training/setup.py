"""A run from a request: open, validate, schema, split, transform, batches, trainer; one pass each.

A new run starts from untrained weights, a resumed one from its last checkpoint. Random numbers are
drawn in the same order by both, so that a resumed run ends as if it had never been stopped.
"""

import warnings
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .. import families, options
from ..checkpoint import Checkpoint
from ..data import memmap, reading, transforms
from ..data.reading import Dataset
from ..data.schema import Schema
from ..errors import DataError, UsageError
from ..inference.fitted_model import FittedModel
from ..inference.loading import build_from_config, run_folder_errors
from ..inference.preprocessor import Preprocessor
from ..model import Event, GenerativeModel, Recipe
from ..networks.backbone import accelerate_networks, check_acceleration
from ..networks.select import takes_tokens
from ..rng import seed_rng, seeded_rng
from . import preparation
from .config import (
    DEFAULT,
    PRECISIONS,
    DataSpec,
    FitRequest,
    Keeping,
    RunConfig,
    microbatch_size,
    resolve_recipe,
)
from .preparation import PreparedData
from .processes import ProcessGroup
from .run import Run
from .teacher_and_source import Source, Teacher
from .trainer import Trainer
from .validation import Validation, ValidationState

if TYPE_CHECKING:
    from .monitor import SampleMonitor


class Placement(NamedTuple):
    device: torch.device
    ranks: ProcessGroup
    began: float  # `time.monotonic` at the call of `fit`


class _RunParts(NamedTuple):
    model: GenerativeModel
    samples: Dataset
    split: preparation.Split
    preprocessor: Preprocessor
    config: RunConfig
    keeping: Keeping
    teacher: Teacher | None = None
    source: Source | None = None
    stopped: Checkpoint | None = None  # that a resumed run goes on from


def new_run(request: FitRequest, place: Placement) -> Run:
    data, family = request.data, request.family or DEFAULT
    teacher = None if data.teacher is None else Teacher.load(data.teacher)
    samples = _read_samples(data, teacher)
    source = None if data.source is None else Source.read(data.source, samples.schema)
    options.choose_option("precision", request.hardware.precision or "float32", PRECISIONS)
    of_family = {k: v for k, v in request.options.items() if k not in Recipe._fields}
    samples, model, event = _build_model(samples, family, of_family, teacher)
    _check_idle_options(model, request, place.ranks, event.condition > 0)
    recipe = resolve_recipe(model, request)
    split = preparation.holdout_split(len(samples.x), request.keeping.seed or 0)
    transform = (
        transforms.choose_transform(samples.schema, samples.x, model.preprocessing, split[0])
        if teacher is None
        else teacher.transform_for(model, samples)
    )
    conditions, frequencies = preparation.tally_conditions(samples, split[0])
    config = RunConfig.from_request(
        request,
        family=family,
        options=of_family,
        recipe=recipe,
        usual=model.recipe.steps if model.players() else 0,
        event=event,
        transform=transform,
        data=preparation.data_fingerprint(samples),
        conditions=conditions,
        frequencies=frequencies,
        teacher=None if teacher is None else teacher.to_json(),
        origin=None if source is None else source.to_json(),
    )
    preprocessor = Preprocessor(samples.schema, transform, conditions or (), frequencies or ())
    parts = _RunParts(model, samples, split, preprocessor, config, request.keeping, teacher, source)
    return _build_run(parts, place)


def resume_run(request: FitRequest, stopped: Checkpoint, place: Placement) -> Run:
    folder, asked = request.keeping.out, request.data
    with run_folder_errors(folder):
        config = RunConfig.from_json(stopped.plain["config"])
    teacher = Teacher.reload(config.teacher, asked.teacher)
    x = config.source if asked.x is None else asked.x
    kept = {name: getattr(config, name) for name in ("bounds", "size", "text")}
    data = replace(asked, x=x, condition=asked.condition or config.condition, **kept)
    if data.x is None:
        raise UsageError("the run was fitted to data in memory: pass the same data again")
    source = Source.reread(config.origin, asked.source)
    samples = _read_samples(data, teacher)
    with run_folder_errors(folder):
        _check_same_data(samples, config, stopped)
        condition = Schema.from_json(stopped.plain["schema"]).condition
        samples = replace(samples, schema=replace(samples.schema, condition=condition))
        fitted = build_from_config(stopped.plain["config"], samples.schema)
        split = preparation.holdout_split(len(samples.x), config.seed)
        model, pre, keeping = fitted.model, fitted.preprocessor, request.keeping
        parts = _RunParts(model, samples, split, pre, config, keeping, teacher, source, stopped)
        run = _build_run(parts, place)
    run.extend(request.budget, stopped.plain["state"]["seconds"])
    return run


def _read_samples(data: DataSpec, teacher: Teacher | None) -> Dataset:
    if teacher is not None:
        return teacher.read_dataset(data)
    if isinstance(data.x, Dataset):
        return data.x
    asked = {name: getattr(data, name) for name in ("y", "condition", "bounds", "size", "text")}
    return reading.read_dataset(data.x, **asked, lean=True)


def _check_same_data(samples: Dataset, config: RunConfig, stopped: Checkpoint) -> None:
    if preparation.data_fingerprint(samples) != config.data:
        raise DataError("the data differ from those the run was fitted to; start a new run")
    names = [column["name"] for column in stopped.plain["schema"]["columns"]]
    if [column.name for column in samples.schema.columns] != names:
        raise DataError("the columns are named otherwise than those the run was fitted to")
    if not {"model", "trainer"} <= stopped.tensors.keys():
        raise DataError("this run was saved without its trainer: it can be used, not resumed")


def _build_model(
    samples: Dataset, family: str, chosen: dict[str, Any], teacher: Teacher | None
) -> tuple[Dataset, GenerativeModel, Event]:
    """The data with conditions as the model takes them, the model, and its event."""
    event = samples.schema.event_of(len(samples.x))
    model, condition = families.build(family, event, **chosen), samples.schema.condition
    if not event.tokens[0] or condition is None or takes_tokens(model):
        return samples, model, event
    if teacher is not None and teacher.fitted.schema.condition is not None:
        raise UsageError(
            "the teacher reads captions token by token, and this network does not: take a network "
            "that does, such as the teacher's"
        )
    schema = replace(samples.schema, condition=condition.without_tokens())
    samples, event = replace(samples, schema=schema), schema.event_of(len(samples.x))
    return samples, families.build(family, event, **chosen), event


def _check_idle_options(
    model: GenerativeModel, request: FitRequest, ranks: ProcessGroup, conditional: bool
) -> None:
    given = request.options
    if "unconditional" in given and not conditional:
        raise UsageError(
            "unconditional is how often the condition is dropped, and there is none: leave it out"
        )
    if model.players():
        return
    if ranks.count > 1:
        raise UsageError("devices share steps, and this family takes none: leave devices out")
    idle = [name for name in given if name in Recipe._fields]
    idle += ["precision"] * (request.hardware.precision not in (None, "float32"))
    if idle:
        warnings.warn(
            f"{', '.join(idle)}: without effect, since this family is fitted in closed form",
            stacklevel=2,
        )


def _build_run(parts: _RunParts, place: Placement) -> Run:
    model, config, stopped, ranks = parts.model, parts.config, parts.stopped, place.ranks
    config.devices, config.shard = ranks.count, ranks.sharded
    size, seed = microbatch_size(config.recipe, ranks.count), ranks.seed(config.seed)
    state = {} if stopped is None else stopped.plain["state"]
    data = PreparedData(parts.samples, parts.split, parts.preprocessor.transform, place.device)
    stream = data.open_stream(size, seed, state.get("drawn", 0)) if data.large else None
    trainer = _make_trainer(parts, data, place)
    held = None
    if len(data.held) and model.players():
        with seeded_rng(config.seed, place.device):  # dequantised alike by a resumed run
            held = data.rows(data.held)
    if not ranks.first:  # noise of its own
        seed_rng(seed, place.device)
    history, best = [], None
    if stopped is not None:
        _load_trainer(trainer, stopped)
        history, best = stopped.history, stopped.tensors.get("best")
    monitor = _make_monitor(parts, history)
    progress = ValidationState(**{f.name: state[f.name] for f in fields(ValidationState) if state})
    return Run(
        trainer=trainer,
        batches=data.random_batches(size, stream),
        validation=Validation(trainer, held, history, config, monitor, progress, best),
        preprocessor=parts.preprocessor,
        config=config,
        keeping=parts.keeping,
        started=place.began - state.get("seconds", 0.0),
        stream=stream,
        history=history,
    )


def _make_trainer(parts: _RunParts, data: PreparedData, place: Placement) -> Trainer:
    config, ranks, model = parts.config, place.ranks, parts.model.to(place.device)
    for other in (parts.teacher, parts.source):
        if other is not None:
            other.attach(model, place.device)
    if parts.stopped is None:
        _prepare_model(model, data)
    trainer = Trainer(
        model.cpu() if ranks.sharded else model,  # until it is divided: the device may be too small
        config.recipe,
        config.recipe.steps if model.players() else 0,
        autocast=PRECISIONS[config.precision],
        ranks=ranks,
        device=place.device,
    )
    if parts.source is not None:
        parts.source.couple(model, data)
    ways = {name: getattr(config, name) for name in ("compile", "channels_last", "recompute")}
    if any(ways.values()):
        check_acceleration(model, **ways)
        accelerate_networks(model, **ways)
    return trainer


def _prepare_model(model: GenerativeModel, data: PreparedData) -> None:
    if type(model).prepare is GenerativeModel.prepare and data.samples.x.size > memmap.MANY:
        return
    rows = data.overview()
    if len(rows) < len(data.train) and not model.players():
        warnings.warn(
            f"the data are too many to be seen at once: fitted to {len(rows):,} of "
            f"{len(data.train):,}, drawn at random",
            stacklevel=2,
        )
    with torch.no_grad():
        model.prepare(*data.rows(rows))


def _load_trainer(trainer: Trainer, stopped: Checkpoint) -> None:
    trainer.model.load_state_dict(stopped.tensors["model"])
    for name, average in trainer.averages_by_name().items():
        average.load(stopped.tensors[name])
    trainer.load(stopped.tensors["trainer"], stopped.plain["state"])


def _make_monitor(parts: _RunParts, history: list[dict[str, Any]]) -> "SampleMonitor | None":
    config = parts.config
    if not config.watch:
        return None
    if not parts.model.players():
        raise UsageError(
            "watch looks at training, and this family has none, being fitted in one pass: "
            "leave it out"
        )
    from .monitor import SampleMonitor  # it measures: metrics are imported for it alone

    fitted = FittedModel(parts.model, parts.preprocessor, config.to_json())
    done = sum("pictures" in line for line in history)
    return SampleMonitor(config.watch, fitted, parts.samples, parts.split, config.seed, done)
