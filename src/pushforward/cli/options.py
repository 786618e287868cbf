"""The application, the options that commands share, and what commands print."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from .. import __version__
from ..errors import PushforwardError


class CommandGroup(typer.core.TyperGroup):
    """The commands; the parser would swallow an interruption together with its message."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            stopped = PushforwardError(str(error) or "interrupted")
            stopped.code = getattr(error, "code", 130)
            raise stopped from error


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit, sample, score and compare deep generative models on your own data.",
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A built-in name, a .csv .parquet .npy .npz file, a folder of pictures.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `fit`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Makes the result repeatable.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
ConditionColumn = Annotated[
    str | None, typer.Option("--condition", metavar="COLUMN", help="Learn p(rest | COLUMN).")
]
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="PIXELS", help="Of a folder's pictures: 32, or 32x48 (h x w)."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the family or of its training."),
]
Average = Annotated[
    float | None,
    typer.Option(
        "--ema", metavar="DECAY", help="Of several averages of weights that a fit kept, this one."
    ),
]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")]
Interval = Annotated[
    str | None,
    typer.Option(
        "--guidance-interval",
        metavar="LOW,HIGH",
        help="Noise levels to guide at: 0 is data, 1 noise.",
    ),
]
Negative = Annotated[
    str | None, typer.Option(metavar="VALUE", help="A condition to be guided away from.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")]


def print_err(text: str) -> None:
    """A line for people, on stderr, so that stdout stays clean for machines."""
    print(text, file=sys.stderr)


def print_result(value: dict[str, Any], as_json: bool, text: str = "") -> None:
    """The result: one JSON object, or text."""
    print(json.dumps(json_safe(value), default=str, allow_nan=False) if as_json else text)


def json_safe(value: Any) -> Any:
    """The value with None for numbers that JSON cannot hold: NaN and the infinities."""
    if isinstance(value, dict):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_version(value: bool) -> bool:
    """Print the version and stop."""
    if value:
        print(f"pushforward {__version__}")
        raise typer.Exit
    return value


@app.callback()
def global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of every command."""
