"""``data``, ``check`` and ``families``: what can be fitted, and by what."""

from pathlib import Path
from typing import Annotated, Any

from ..errors import UsageError
from . import options, parsing
from .options import app, argument, option, print_result


@app.command()
def data(
    name: Annotated[str | None, argument("Dataset name.", "[NAME]")] = None,
    out: Annotated[
        Path | None, option("Output: a data file or a folder.", "FILE", "--out", "-o")
    ] = None,
    n: Annotated[
        int | None, option("Rows of a synthetic dataset.", "N", "-n", "--number", min=1)
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """List the built-in datasets, describe one, or write it to a file."""
    from ..data import writing
    from ..data.builtin import datasets

    if name is None:
        if out is not None:
            raise UsageError(f"name the data set to write to {out}")
        sets = {key: datasets.describe(key) for key in datasets.names()}
        print_result(sets, as_json, "\n".join(f"{key:16} {text}" for key, text in sets.items()))
        return
    chosen = datasets.load(name, n, seed)
    if out is not None:
        writing.check_writable(out)
        columns, extra = datasets.dataset_columns(chosen), datasets.dataset_conditions(chosen)
        writing.write_samples(out, columns, white=chosen.white, extra=extra)
    facts = {"name": name, "shape": list(chosen.x.shape), "entropy": chosen.entropy}
    facts |= {"description": chosen.description, "file": str(out) if out else None}
    entropy = "" if chosen.entropy is None else f", entropy {chosen.entropy:.4f} nats"
    text = f"{name}: {chosen.description} {tuple(chosen.x.shape)}{entropy}"
    print_result(facts, as_json, text + (f"\nfile: {out}" if out else ""))


@app.command()
def check(
    data: options.Source,
    condition: options.ConditionColumn = None,
    size: options.Size = None,
    as_json: options.Json = False,
) -> None:
    """Validate a data file: list all that would stop a fit."""
    from ..data import image_folder, reading
    from ..errors import DataError

    source = reading.open_resized(data, parsing.parse_size(size))
    found, columns = reading.find_issues(source, condition), reading.list_columns(source)
    fatal = [p for p in found if p.fatal]
    seen = image_folder.summarise_images(data, source)
    lines = [] if seen is None else image_folder.summary_lines(seen)
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
def families(
    name: Annotated[str | None, argument("Family.", "[NAME]")] = None, as_json: options.Json = False
) -> None:
    """List the families, or describe one: what it is, its likelihood, what its options mean."""
    from .. import families as registry

    if name is not None:
        _print_family(registry.family_key(name), as_json)
        return
    listed: dict[str, dict[str, Any]] = {
        key: {"summary": registry.family_summary(key), "options": registry.family_options(key)}
        for key in registry.names()
    }
    lines = []
    for key, entry in listed.items():
        taken = ", ".join(f"{k}={v}" for k, v in entry["options"].items())
        lines += [f"{key:18} {entry['summary']}", f"{'':18} {taken or 'no options'}"]
    print_result(listed, as_json, "\n".join(lines))


def _print_family(key: str, as_json: bool) -> None:
    from .. import families as registry
    from ..model import Event

    kind = registry.build(key, Event((2,))).likelihood.value
    summary, meanings = registry.family_summary(key), registry.option_descriptions(key)
    choices = registry.family_choices(key)
    rows = [
        {"name": name, "default": value, "meaning": meanings[name], "choices": [*choices[name]]}
        for name, value in registry.family_options(key).items()
    ]
    lines = [summary, f"likelihood: {kind}", ""]
    lines += [f"{row['name']}={row['default']}: {row['meaning']}" for row in rows]
    facts = {"name": key, "summary": summary, "likelihood": kind, "options": rows}
    print_result(facts, as_json, "\n".join(lines))
