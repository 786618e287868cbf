"""``evaluate``: two sets of samples compared."""

from typing import Annotated

from . import options, parsing
from .options import app, argument, option


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
