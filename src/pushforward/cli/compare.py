"""``compare``: all families on the same data with the same budget."""

from pathlib import Path
from typing import Annotated

from typer import Option

from . import options, parsing
from .options import app, expand_groups


@app.command()
@expand_groups
def compare(
    data: options.Source,
    out: Annotated[str, Option("--out", "-o", metavar="FOLDER", help="Folder of the report.")],
    families: Annotated[
        str | None,
        Option(metavar="NAMES", help="Families, separated by commas.", show_default="all"),
    ] = None,
    minutes: Annotated[float | None, Option(help="Training time per family and seed.")] = None,
    total_minutes: Annotated[float | None, Option(help="Training time in total.")] = None,
    steps: options.TrainingSteps = None,
    seeds: Annotated[int, Option(min=1, metavar="N", help="Number of seeds.")] = 1,
    *,
    columns: options.DataOptions,
    device: options.Device = "auto",
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing report.")] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
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
        condition=columns.condition,
        bounds=parsing.parse_bounds(columns.bounds),
        size=parsing.parse_size(columns.size),
        text=columns.text,
        cache=columns.cache,
        device=device,
        out=out,
        overwrite=overwrite,
        progress=not quiet,
    )
    text = f"{result.text()}\nreport: {Path(out) / 'report.html'}"
    options.print_result(result.to_json(), as_json, text)
    if failure := result.failure():
        raise failure
