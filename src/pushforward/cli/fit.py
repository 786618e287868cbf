"""``fit``: train a family on data."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import UsageError
from . import options, parsing
from .options import app, expand_groups, flag, option

if TYPE_CHECKING:
    from ..inference.fitted_model import FittedModel


@dataclass(frozen=True)
class _HardwareOptions:
    device: options.Device = "auto"
    devices: Annotated[
        int | None,
        option("Number of GPUs or CPU processes (data parallel).", "N", min=1, show_default="1"),
    ] = None
    shard: Annotated[
        bool, flag("Shard parameters, gradients and optimizer state (FSDP).", "--shard")
    ] = False
    precision: Annotated[
        str | None,
        option("float32, or bfloat16 (mixed precision).", "TYPE", show_default="float32"),
    ] = None
    compile_: Annotated[bool, flag("Use torch.compile.", "--compile")] = False
    channels_last: Annotated[
        bool, flag("channels_last memory format of images.", "--channels-last")
    ] = False
    recompute: Annotated[
        bool, flag("Activation checkpointing: less memory, about a third slower.", "--recompute")
    ] = False

    def keywords(self) -> dict[str, Any]:
        """As `fit` takes them, where None is what the user did not say."""
        given = {name.rstrip("_"): value for name, value in asdict(self).items()}
        return {name: None if value is False else value for name, value in given.items()}


def _check_run_folder(data: str | None, out: str | None, resume: Path | None) -> None:
    if (out is None) == (resume is None):
        raise UsageError("name a new run folder with --out RUN, or an old one with --resume RUN")
    if out == "":
        raise UsageError("--out names no folder")
    if data is None and resume is None:
        raise UsageError("there is nothing to fit: name a data set or a file")


@app.command()
@expand_groups
def fit(
    data: options.OptionalSource = None,
    family: Annotated[
        str | None,
        option("See `families`.", "NAME", "--family", "-f", show_default="flow_matching"),
    ] = None,
    out: Annotated[str | None, option("New run folder.", "RUN", "--out", "-o")] = None,
    resume: Annotated[Path | None, option("Resume a run.", "RUN")] = None,
    steps: options.TrainingSteps = None,
    minutes: Annotated[float | None, option("Time to train, not --steps.", "MINUTES")] = None,
    teacher: Annotated[Path | None, option("Run to distil into a faster model.", "RUN")] = None,
    source: Annotated[
        str | None, option("Source dataset for data-to-data transport.", "DATA")
    ] = None,
    watch: Annotated[
        int | None,
        option("Evaluate sample quality this many times during training (at most 40).", "N", min=0),
    ] = None,
    set_: options.Settings = None,
    seed: Annotated[int | None, option("Random seed.", "N", min=0, show_default="0")] = None,
    *,
    columns: options.DataOptions,
    hardware: _HardwareOptions,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Fit a family to data and save it as a run folder."""
    if steps is not None and minutes is not None:
        raise UsageError("give --steps or --minutes, not both")
    _check_run_folder(data, out, resume)
    from ..families import family_builder
    from ..training.config import DEFAULT
    from ..training.fit import fit as run
    from ..training.processes import is_main_process

    builder = family_builder(DEFAULT if family is None else family)
    model = run(
        data,
        family,
        teacher=teacher,
        source=source,
        steps=steps,
        minutes=minutes,
        seed=seed,
        watch=watch,
        out=resume if out is None else out,
        resume=resume is not None,
        progress=not quiet,
        **columns.keywords(),
        **hardware.keywords(),
        **parsing.parse_set_options(set_, run, builder),
    )
    if is_main_process():
        _print_fit(model, str(out or resume), as_json)


def _print_fit(model: "FittedModel", folder: str, as_json: bool) -> None:
    from ..training.run import COMPLETE

    config, flops, alarms = model.config, model.flops, model.alarms
    last = dict(model.history[-1]) if model.history else {}
    last.pop("pictures", None)
    facts: dict[str, Any] = {"run": folder, "family": model.family}
    facts |= {"likelihood": model.likelihood.value, "steps": config["steps"], "last": last}
    facts |= {"parameters": model.parameters, "flops": flops, "seconds": config["seconds"]}
    facts |= {"ended": config["ended"], "alarms": alarms}
    lines = [
        f"{model.family} fitted in {config['seconds']:.1f} s ({model.parameters:,} parameters, "
        f"{flops:,} FLOPs a sample, likelihood: {model.likelihood.value})"
    ]
    lines += [] if config["ended"] == COMPLETE else [config["ended"]]
    lines += [f"alarm: {text}" for text in alarms]
    options.print_result(facts, as_json, "\n".join([*lines, f"run folder: {folder}"]))
