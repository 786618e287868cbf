"""What a fit is asked for, as records made at the door, and what its run folder says of it.

`FitRequest` holds all that `fit` was called with, in four parts: what the data are, how long to
train, on what, and what is kept. `RunConfig` is what became of it: the file ``config.json``.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import __version__
from ..data.transforms import Chain
from ..errors import DataError, UsageError
from ..memory import require_memory
from ..model import Event, GenerativeModel, Recipe
from ..options import check_options
from ..progress import Update

DEFAULT = "flow_matching"
AVERAGES = 8  # of weights, each as large as the model
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # of automatic mixed precision
VERSION = 1  # of ``config.json``
NEEDED = "family options recipe event transform data seed precision source condition bounds size"
LATER = ("steps", "ended", "seconds", "evaluating", "waited", "diagnoses", "watched", "averages")


@dataclass(frozen=True)
class DataSpec:
    x: Any = None
    y: Any = None
    condition: str | None = None
    bounds: dict[str, tuple[float | None, float | None]] | None = None
    size: tuple[int, int] | None = None
    text: str | None = None
    teacher: Any = None
    source: Any = None
    cache: Path | None = None


@dataclass(frozen=True)
class Budget:
    """How long to train; without either, as many steps as the family's recipe says."""

    steps: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Hardware:
    """What computes, and how; None is the default, or what a resumed run began with."""

    device: str | torch.device = "auto"
    devices: int | None = None
    shard: bool | None = None
    precision: str | None = None
    compile: bool | None = None
    channels_last: bool | None = None
    recompute: bool | None = None


@dataclass(frozen=True)
class Keeping:
    out: Path | None = None
    resume: bool = False
    seed: int | None = None
    watch: int | None = None
    save_seconds: float = 20.0
    progress: bool | Update = True


class FitRequest(NamedTuple):
    family: str | None
    data: DataSpec
    budget: Budget
    hardware: Hardware
    keeping: Keeping
    options: dict[str, Any]  # of the family, and fields of `Recipe`


@dataclass
class RunConfig:
    family: str
    options: dict[str, Any]  # of the family
    recipe: Recipe
    event: Event
    transform: Chain
    data: str  # the SHA-256
    usual: int | None = None  # steps that the family takes by itself
    minutes: float | None = None
    source: str | None = None  # the path or name of the data, where they have one
    condition: str | None = None
    bounds: dict[str, tuple[float | None, float | None]] | None = None
    size: tuple[int, int] | None = None
    text: str | None = None
    conditions: list[Any] | None = None  # the distinct ones of training, vectors or captions
    frequencies: list[float] | None = None  # of these
    teacher: dict[str, Any] | None = None  # `Teacher.to_json`
    origin: dict[str, Any] | None = None  # of the source data: `Source.to_json`
    seed: int = 0
    watch: int = 0
    devices: int = 1
    shard: bool = False
    precision: str = "float32"
    compile: bool = False
    channels_last: bool = False
    recompute: bool = False
    pushforward: str = __version__
    version: int = VERSION
    steps: int | None = None  # taken in the end; this and what follows (`LATER`) comes late
    ended: str | None = None  # how, in words
    seconds: float | None = None
    evaluating: float | None = None  # seconds of validations
    waited: float | None = None  # seconds for the disk
    diagnoses: list[str] | None = None  # what the family says of itself in the history
    watched: dict[str, Any] | None = None  # what the distance of the `SampleMonitor` is
    averages: list[list[float]] | None = None  # decay and held-out loss of each

    def to_json(self) -> dict[str, Any]:
        """``config.json``, and `FittedModel.config`; what is not yet known is left out."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {"recipe": self.recipe._asdict(), "event": list(self.event)}
        plain["transform"] = self.transform.to_json()
        return {k: v for k, v in plain.items() if v is not None or k not in LATER}

    @classmethod
    def from_request(cls, request: FitRequest, **facts: Any) -> "RunConfig":
        data, hardware, keeping = request.data, request.hardware, request.keeping
        return cls(
            minutes=request.budget.minutes,
            source=str(data.x) if isinstance(data.x, str | Path) else None,
            condition=data.condition,
            bounds=data.bounds,
            size=data.size,
            text=data.text,
            seed=keeping.seed or 0,
            watch=keeping.watch or 0,
            precision=hardware.precision or "float32",
            compile=bool(hardware.compile),
            channels_last=bool(hardware.channels_last),
            recompute=bool(hardware.recompute),
            **facts,
        )

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "RunConfig":
        """Also of earlier versions; a DataError if a later one has written it."""
        if plain.get("version", VERSION) > VERSION:
            raise DataError("the run was written by a later version of pushforward: update it")
        if missing := [name for name in NEEDED.split() if name not in plain]:
            raise DataError(f"the configuration of the run lacks {missing[0]!r}")
        known = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
        recipe = Recipe(**{k: _as_tuple(v) for k, v in plain["recipe"].items()})
        known["recipe"] = _check_recipe(recipe)
        known["transform"] = Chain.from_json(plain["transform"])
        known["event"] = Event(*map(_as_tuple, plain["event"]))
        known["size"] = _as_tuple(known.get("size"))
        if bounds := known.get("bounds"):
            known["bounds"] = {name: _as_tuple(ends) for name, ends in bounds.items()}
        return cls(**known)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def resolve_recipe(model: GenerativeModel, request: FitRequest) -> Recipe:
    changes = {k: v for k, v in request.options.items() if k in Recipe._fields}
    changes |= {} if request.budget.steps is None else {"steps": request.budget.steps}
    check_options(Recipe, changes, "training")
    recipe = _check_recipe(model.recipe._replace(**changes))
    size = 8 * recipe.batch * math.prod(model.event_shape)
    require_memory(size, f"batch={recipe.batch}", "lower it")
    return recipe


def _check_recipe(recipe: Recipe) -> Recipe:
    check_options(Recipe, recipe._asdict(), "training")
    betas = recipe.betas
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    if not pair or not all(map(_is_decay_rate, betas)):
        raise UsageError(f"betas is {betas!r}; give two numbers from 0 to 1, such as 0.9,0.99")
    if not recipe.clip:
        raise UsageError("clip is 0, which would stop all learning; for no clipping, pass clip=1e9")
    return recipe._replace(betas=(betas[0], betas[1]), ema=_check_ema(recipe.ema))


def _is_decay_rate(beta: Any) -> bool:
    return isinstance(beta, int | float) and not isinstance(beta, bool) and 0 <= beta < 1


def _check_ema(ema: Any) -> float | tuple[float, ...]:
    given = tuple(ema) if isinstance(ema, tuple | list) else (ema,)
    if not 1 <= len(given) <= AVERAGES or not all(_is_decay_rate(v) or v == 1 for v in given):
        raise UsageError(f"ema is {ema}; give a number from 0 to 1, or up to {AVERAGES} of them")
    return given if len(given) > 1 else given[0]


def microbatch_size(recipe: Recipe, devices: int) -> int:
    parts = recipe.accumulate * devices
    size, rest = divmod(recipe.batch, parts)
    if rest:
        raise UsageError(
            f"batch={recipe.batch} is not divided evenly into {parts} parts "
            f"(accumulate={recipe.accumulate}, devices={devices}); "
            f"give batch={max(size, 1) * parts}"
        )
    return size
