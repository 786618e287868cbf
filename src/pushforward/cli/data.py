"""``data``, ``check``, ``evaluate`` and ``families``: the commands that need no model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from .options import ConditionColumn, Json, Seed, Size, Source, app, print_result
from .parsing import parse_size


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A data set.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--number", min=1, help="Rows of a synthetic set.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """List the built-in data sets, describe one, or write it to a file."""
    from ..data import writing
    from ..data.builtin import datasets

    if name is None and out is not None:
        raise UsageError(f"name the data set to write to {out}")
    if name is None:
        sets = {key: datasets.describe_dataset(key) for key in datasets.names()}
        print_result(sets, as_json, "\n".join(f"{key:16} {text}" for key, text in sets.items()))
        return
    chosen = datasets.load(name, n, seed)
    if out is not None:
        writing.check_writable(out)
        extra = datasets.dataset_conditions(chosen)
        writing.write_samples(
            out, datasets.dataset_columns(chosen), white=chosen.white, extra=extra
        )
    facts = {"name": name, "shape": list(chosen.x.shape), "entropy": chosen.entropy}
    facts |= {"description": chosen.description, "file": str(out) if out else None}
    entropy = "" if chosen.entropy is None else f", entropy {chosen.entropy:.4f} nats"
    text = f"{name}: {chosen.description} {tuple(chosen.x.shape)}{entropy}"
    print_result(facts, as_json, text + (f"\nfile: {out}" if out else ""))


@app.command()
def check(
    data: Source, condition: ConditionColumn = None, size: Size = None, as_json: Json = False
) -> None:
    """List everything in a data file that stands in the way of a fit, all at once."""
    from ..data import reading, summary
    from ..errors import DataError

    source = reading.open_resized(data, parse_size(size))
    found, columns = reading.find_issues(source, condition), reading.list_columns(source)
    fatal = [p for p in found if p.fatal]
    seen = summary.summarise_images(data, source)
    lines = [] if seen is None else summary.summary_lines(seen)
    lines += [f"{c['column']}: {c['dtype']}{c['range']}" for c in columns]
    lines += [f"{'error' if p.fatal else 'note'}: {p}" for p in found]
    lines += [] if fatal else [f"{data}: nothing stands in the way"]
    listed = [p._asdict() for p in found]
    facts = {"file": data, "ok": not fatal, "columns": columns, "problems": listed}
    facts |= {} if seen is None else {"pictures": seen}
    print_result(facts, as_json, "\n".join(lines))
    if fatal:
        raise DataError(f"{data}: {len(fatal)} problem(s) stand in the way of a fit, listed above")


@app.command()
def evaluate(
    real: Source,
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help="Samples, in a file.")],
    metrics: Annotated[str | None, typer.Option(help="Names, separated by commas.")] = None,
    condition: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A column of classes, or of numbers.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="Measure in features: classifier, efflite0, raw, a FILE, module:attribute.",
        ),
    ] = None,
    train: Annotated[
        str | None, typer.Option(metavar="DATA", help="What was fitted: for the floor, and copies.")
    ] = None,
    size: Size = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare two sets of samples; each metric with an interval and its real-vs-real floor."""
    from ..comparison.evaluate_sources import evaluate_sources

    names = None if metrics is None else metrics.split(",")
    estimates = evaluate_sources(
        real,
        generated,
        names,
        seed,
        condition,
        features=features,
        train=train,
        size=parse_size(size),
    )
    rows = {name: e._asdict() for name, e in estimates.items()}
    lines = [f"{'metric':28} {'value':>10} {'95 % interval':>23} {'floor':>10} {'rows':>7}"]
    lines += [
        f"{e.name:28} {e.value:>10.4g} {f'[{e.low:.4g}, {e.high:.4g}]':>23} "
        f"{e.floor:>10.4g} {e.n:>7}"
        for e in estimates.values()
    ]
    seen = dict.fromkeys(e.features for e in estimates.values() if e.features)
    for words in seen:
        named = ", ".join(e.name for e in estimates.values() if e.features == words)
        lines.append(f"{named}: in features of {words}")
    print_result(rows, as_json, "\n".join(lines))


@app.command()
def families(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A family.")] = None,
    as_json: Json = False,
) -> None:
    """List the families, or describe one: what it is, its likelihood, what its options mean."""
    from .. import families as registry
    from ..model import Event

    if name is not None:
        key = registry.family_key(name)
        kind = registry.build(key, Event((2,))).likelihood.value
        facts = {"name": key, "summary": registry.family_summary(key), "likelihood": kind}
        options, meanings = registry.family_options(key), registry.option_descriptions(key)
        choices = registry.family_choices(key)
        rows = [
            {"name": k, "default": v, "meaning": meanings[k], "choices": [*choices[k]]}
            for k, v in options.items()
        ]
        lines = [facts["summary"], f"likelihood: {kind}", ""]
        lines += [f"{k}={v}: {meanings[k]}" for k, v in options.items()]
        print_result(facts | {"options": rows}, as_json, "\n".join(lines))
        return
    listed: dict[str, dict[str, Any]] = {
        name: {"summary": registry.family_summary(name), "options": registry.family_options(name)}
        for name in registry.names()
    }
    lines = []
    for key, entry in listed.items():
        taken = ", ".join(f"{k}={v}" for k, v in entry["options"].items())
        lines += [f"{key:18} {entry['summary']}", f"{'':18} {taken or 'no options'}"]
    print_result(listed, as_json, "\n".join(lines))
