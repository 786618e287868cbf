"""``compare``: all families on the same data with the same budget."""

from pathlib import Path
from typing import Annotated

from . import options, parsing
from .options import app, expand_groups, flag, option


@app.command()
@expand_groups
def compare(
    data: options.Source,
    out: Annotated[str, option("Folder of the report.", "FOLDER", "--out", "-o")],
    families: Annotated[
        str | None, option("Families, separated by commas.", "NAMES", show_default="all")
    ] = None,
    minutes: Annotated[float | None, option("Time per family and seed.", "MINUTES")] = None,
    total_minutes: Annotated[float | None, option("Time in total.", "MINUTES")] = None,
    steps: options.TrainingSteps = None,
    seeds: Annotated[int, option("Number of seeds.", "N", min=1)] = 1,
    *,
    columns: options.DataOptions,
    device: options.Device = "auto",
    overwrite: Annotated[bool, flag("Replace an existing report.", "--overwrite")] = False,
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
