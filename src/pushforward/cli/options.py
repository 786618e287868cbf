"""The application, the options that several commands share, and what commands print.

An option is declared once, with its help: as an ``Annotated`` alias, and where several belong
together as a field of a group, a frozen dataclass whose methods say what the options do. A command
under `expand_groups` takes the group as one parameter; its parser sees the fields.
"""

import functools
import inspect
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
import typer.core

from .. import __version__
from ..errors import PushforwardError
from . import parsing

if TYPE_CHECKING:
    from ..inference.fitted_model import FittedModel

COMMANDS = (  # in the order of the help
    "fit", "sample", "score", "evaluate", "compare", "plot", "anomalies", "encode", "decode",
    "reconstruct", "latent", "interpolate", "inpaint", "edit", "translate", "families", "data",
    "check", "export", "lesson",
)  # fmt: skip


class _CommandGroup(typer.core.TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=COMMANDS.index)

    def invoke(self, ctx: Any) -> Any:
        """Run; the parser would swallow an interruption together with its message."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            stopped = PushforwardError(str(error) or "interrupted")
            stopped.code = getattr(error, "code", 130)
            raise stopped from error


app = typer.Typer(
    cls=_CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit, sample, score and compare deep generative models on your own data.",
)


def option(text: str, metavar: str | None = None, *names: str, **more: Any) -> Any:
    """An option of a command: its help, a word for its value, and spellings besides its keyword."""
    return typer.Option(*names, help=text, metavar=metavar, **more)


def flag(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text)


def argument(text: str, metavar: str, **more: Any) -> Any:
    return typer.Argument(help=text, metavar=metavar, **more)


DATA = "Dataset name, data file (.csv .parquet .npy .npz) or image folder."
Source = Annotated[str, argument(DATA, "DATA")]
OptionalSource = Annotated[str | None, argument(DATA, "[DATA]")]
RunFolder = Annotated[Path, argument("Run folder written by `fit`.", "RUN")]
DataFile = Annotated[
    Path, option(".csv .parquet .npy .npz, or a folder of images.", "FILE", "--out", "-o")
]
FIGURE = option(".png .svg .pdf.", "FILE", "--out", "-o")
FigureFile = Annotated[Path, FIGURE]
OptionalFigureFile = Annotated[Path | None, FIGURE]
ScoresFile = Annotated[Path | None, option("Output: one row per input row.", "FILE", "--out", "-o")]
Json = Annotated[bool, flag("Print one JSON object.", "--json")]
Seed = Annotated[int, option("Random seed.", "N", min=0)]
Quiet = Annotated[bool, flag("Hide the progress bar.", "--quiet", "-q")]
ConditionColumn = Annotated[str | None, option("Learn p(rest | COLUMN).", "COLUMN")]
ConditionValue = Annotated[str | None, option("Class, number or caption of all rows.", "VALUE")]
Size = Annotated[
    str | None, option("Resize the images of a folder: 32, or 32x48 (height x width).", "PIXELS")
]
Settings = Annotated[
    list[str] | None,
    option("Option of the family (see `families`), or of its training.", "KEY=VALUE", "--set"),
]
Ema = Annotated[float | None, option("Use the EMA weights with this decay.", "DECAY")]
Device = Annotated[str, option("auto, cpu, cuda, cuda:1.", "DEVICE")]
Sampler = Annotated[str | None, option("Sampler (see `families`).", "NAME")]
SamplerSteps = Annotated[int | None, option("Sampler steps.", "N", min=1)]
TrainingSteps = Annotated[int | None, option("Training steps.", "N", min=1)]


@dataclass(frozen=True)
class DataOptions:
    condition: ConditionColumn = None
    bounds: Annotated[
        list[str] | None, option("Bounds that samples respect.", "COLUMN=LOW:HIGH")
    ] = None
    size: Size = None
    text: Annotated[
        str | None,
        option("Caption encoder: words, bytes, minilm, or the folder of an encoder.", "ENCODER"),
    ] = None
    cache: Annotated[Path | None, option("Cache folder for decoded images.", "FOLDER")] = None

    def keywords(self) -> dict[str, Any]:
        bounds, size = parsing.parse_bounds(self.bounds), parsing.parse_size(self.size)
        return asdict(self) | {"bounds": bounds, "size": size}


@dataclass(frozen=True)
class ModelOptions:
    ema: Ema = None
    device: Device = "auto"

    def load(self, run: Path) -> "FittedModel":
        from ..inference.loading import load

        return load(run, device=self.device, ema=self.ema)


@dataclass(frozen=True)
class GuidanceOptions:
    guidance: Annotated[float | None, option("Classifier-free guidance scale.", "SCALE")] = None
    guidance_interval: Annotated[
        str | None, option("Noise levels to guide at: 0 is data, 1 noise.", "LOW,HIGH")
    ] = None
    negative: Annotated[str | None, option("Negative condition (prompt).", "VALUE")] = None

    def guidance_keywords(self, model: "FittedModel") -> dict[str, Any]:
        interval, negative = parsing.parse_interval(self.guidance_interval), self.negative
        y = None if negative is None else model.preprocessor.parse_condition(negative)
        return parsing.without_none(guidance=self.guidance, guidance_interval=interval, negative=y)


def expand_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes groups of options, with a keyword for each option instead.

    Where a parameter is annotated with a dataclass, the fields of the dataclass take its place in
    the signature, which is what the parser reads, and the command gets an instance made of them.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    keywords: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = groups.get(parameter.name)
        keywords += inspect.signature(group).parameters.values() if group else [parameter]

    @functools.wraps(command)
    def expanded(**values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        return command(**values)

    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in keywords]
    expanded.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    expanded.__annotations__ = {p.name: p.annotation for p in keywords}
    return expanded


def print_err(text: str) -> None:
    """Print for people, on stderr, so that stdout stays clean for machines."""
    print(text, file=sys.stderr)


def print_result(value: dict[str, Any], as_json: bool, text: str = "") -> None:
    print(json.dumps(_json_safe(value), default=str, allow_nan=False) if as_json else text)


def _json_safe(value: Any) -> Any:
    """The value with None for numbers that JSON cannot hold: NaN and the infinities."""
    if isinstance(value, dict):
        return {str(k): _json_safe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_version(value: bool) -> bool:
    if value:
        print(f"pushforward {__version__}")
        raise typer.Exit
    return value


@app.callback()
def global_options(
    debug: Annotated[bool, flag("Show the traceback of an error.", "--debug")] = False,
    version: Annotated[
        bool, option("Show the version.", None, "--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""
