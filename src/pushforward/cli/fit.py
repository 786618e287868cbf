"""``fit`` and ``compare``: the commands that train."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from .options import ConditionColumn, Device, Json, Quiet, Settings, Size, Source, app, print_result
from .parsing import parse_bounds, parse_set_options, parse_size

Bounds = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN=LOW:HIGH", help="Limits that samples respect."),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="ENCODER",
        help="How captions are read: words, bytes, minilm, or an encoder's folder.",
    ),
]
Cache = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where decoded pictures may be kept.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Rounds of training.")]


@app.command()
def fit(
    data: Annotated[str | None, typer.Argument(metavar="[DATA]", help="As everywhere.")] = None,
    family: Annotated[
        str | None,
        typer.Option("--family", "-f", help="See `families`.", show_default="flow_matching"),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="RUN", help="A new run folder.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a run.")
    ] = None,
    steps: Steps = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time instead of steps.")] = None,
    condition: ConditionColumn = None,
    bounds: Bounds = None,
    size: Size = None,
    text: Text = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A run to distil into a faster model.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="DATA", help="Data to transport to DATA, not noise.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Makes the result repeatable.", show_default="0")
    ] = None,
    device: Device = "auto",
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs, or processes, that share the work.", show_default="1"),
    ] = None,
    shard: Annotated[
        bool, typer.Option("--shard", help="Devices keep weights and optimizer in parts.")
    ] = False,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 (mixed precision).", show_default="float32"),
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Train through torch.compile.")
    ] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Images in this memory order, for some GPUs.")
    ] = False,
    watch: Annotated[
        int | None,
        typer.Option(min=0, help="How often, up to 40, to draw pictures and measure them."),
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Deep networks in less memory, but slower.")
    ] = False,
    cache: Cache = None,
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit a family to data and keep it in a run folder."""
    if (out is None) == (resume is None):
        raise UsageError("name a new run folder with --out RUN, or an old one with --resume RUN")
    if steps is not None and minutes is not None:
        raise UsageError("give --steps or --minutes, not both")
    if out == "":
        raise UsageError("--out names no folder")
    if data is None and resume is None:
        raise UsageError("there is nothing to fit: name a data set or a file")
    from .. import families
    from ..training.config import DEFAULT
    from ..training.fit import fit as run
    from ..training.processes import is_main_process
    from ..training.run import COMPLETE

    model = run(
        data,
        family,
        condition=condition,
        bounds=parse_bounds(bounds),
        size=parse_size(size),
        text=text,
        teacher=teacher,
        source=source,
        steps=steps,
        minutes=minutes,
        seed=seed,
        device=device,
        devices=devices,
        shard=shard or None,
        precision=precision,
        compile=compile_ or None,
        channels_last=channels_last or None,
        watch=watch,
        recompute=recompute or None,
        out=resume if out is None else out,
        cache=cache,
        resume=resume is not None,
        progress=not quiet,
        **parse_set_options(
            set_, run, families.family_builder(DEFAULT if family is None else family)
        ),
    )
    if not is_main_process():
        return
    folder, config = out or resume, model.config
    last, flops = dict(model.history[-1]) if model.history else {}, model.flops
    last.pop("pictures", None)
    print_result(
        {"run": str(folder), "family": model.family, "likelihood": model.likelihood.value}
        | {"parameters": model.parameters, "flops": flops}
        | {"seconds": config["seconds"], "last": last}
        | {"steps": config["steps"], "ended": config["ended"], "alarms": model.alarms},
        as_json,
        f"{model.family} fitted in {config['seconds']:.1f} s ({model.parameters:,} parameters, "
        f"{flops:,} FLOPs a datum, likelihood: {model.likelihood.value})\n"
        + ("" if config["ended"] == COMPLETE else f"{config['ended']}\n")
        + "".join(f"alarm: {text}\n" for text in model.alarms)
        + f"run folder: {folder}",
    )


@app.command()
def compare(
    data: Source,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="For the report.")],
    families: Annotated[str | None, typer.Option(help="Names, separated by commas.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time per family and seed.")] = None,
    total_minutes: Annotated[float | None, typer.Option(help="Wall time of everything.")] = None,
    steps: Steps = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 1,
    condition: ConditionColumn = None,
    bounds: Bounds = None,
    size: Size = None,
    text: Text = None,
    cache: Cache = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an old report.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit every family to the same data with the same budget, and write a report."""
    from ..comparison.compare import compare as run

    result = run(
        data,
        None if families is None else families.split(","),
        minutes=minutes,
        total_minutes=total_minutes,
        steps=steps,
        seeds=tuple(range(seeds)),
        condition=condition,
        bounds=parse_bounds(bounds),
        size=parse_size(size),
        text=text,
        cache=cache,
        device=device,
        out=out,
        overwrite=overwrite,
        progress=not quiet,
    )
    print_result(result.to_json(), as_json, f"{result.text()}\nreport: {Path(out) / 'report.html'}")
    if failure := result.failure():
        raise failure
