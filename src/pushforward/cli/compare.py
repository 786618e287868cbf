"""``compare`` and ``evaluate``: families, or two sets of samples, measured."""

from pathlib import Path
from typing import Annotated

from . import options, parsing
from .options import app, argument, expand_groups, flag, option


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
        device=device,
        out=out,
        overwrite=overwrite,
        progress=not quiet,
        **columns.keywords(),
    )
    text = f"{result.text()}\nreport: {Path(out) / 'report.html'}"
    options.print_result(result.to_json(), as_json, text)
    if failure := result.failure():
        raise failure


@app.command()
def evaluate(
    real: options.Source,
    generated: Annotated[str, argument("Samples.", "GENERATED")],
    metrics: Annotated[str | None, option("Metrics, separated by commas.", "NAMES")] = None,
    condition: Annotated[str | None, option("Column of classes or numbers.", "COLUMN")] = None,
    features: Annotated[
        str | None,
        option(
            "Compare images in features: classifier, efflite0, raw, a FILE, module:attribute.",
            "NETWORK",
        ),
    ] = None,
    train: Annotated[str | None, option("Training data, for the floor and copies.", "DATA")] = None,
    size: options.Size = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Compare samples with data: each metric with a 95 % interval and its real-vs-real floor."""
    from ..comparison.evaluate_sources import evaluate_sources

    estimates = evaluate_sources(
        real,
        generated,
        names=None if metrics is None else metrics.split(","),
        seed=seed,
        condition=condition,
        features=features,
        train=train,
        size=parsing.parse_size(size),
    )
    found = list(estimates.values())
    lines = [f"{'metric':28} {'value':>10} {'95 % interval':>23} {'floor':>10} {'rows':>7}"]
    lines += [
        f"{e.name:28} {e.value:>10.4g} {f'[{e.low:.4g}, {e.high:.4g}]':>23} "
        f"{e.floor:>10.4g} {e.n:>7}"
        for e in found
    ]
    for network in dict.fromkeys(e.features for e in found if e.features):
        users = ", ".join(e.name for e in found if e.features == network)
        lines.append(f"{users}: in features of {network}")
    rows = {name: estimate._asdict() for name, estimate in estimates.items()}
    options.print_result(rows, as_json, "\n".join(lines))
