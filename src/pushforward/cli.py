"""The command line: it parses, calls and prints."""

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from . import __version__
from .errors import PushforwardError, UsageError


class Group(typer.core.TyperGroup):
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
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit, sample, score and compare deep generative models on your own data.",
)

Source = Annotated[
    str, typer.Argument(metavar="DATA", help="A built-in name, or a .csv .parquet .npy .npz file.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `fit`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Makes the result repeatable.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
ConditionColumn = Annotated[
    str | None, typer.Option("--condition", metavar="COLUMN", help="Learn p(rest | COLUMN).")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the family or of its training."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout stays clean for machines."""
    print(text, file=sys.stderr)


def show(value: dict[str, Any], as_json: bool, text: str = "") -> None:
    """The result: one JSON object, or text."""
    print(json.dumps(value, default=str) if as_json else text)


def literal(text: str) -> Any:
    """A value as a person types it: a number, true, false, none, or a word."""
    low = text.strip().lower()
    if low in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(low)
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def settings(pairs: list[str] | None) -> dict[str, Any]:
    """Options from ``key=value`` words."""
    options = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set takes KEY=VALUE, not {pair[:60]!r}")
        options[name] = literal(value)
    return options


def limits(pairs: list[str] | None) -> dict[str, tuple[float | None, float | None]] | None:
    """Bounds from ``column=low:high`` words; either side may be left out."""
    bounds = {}
    for pair in pairs or []:
        name, _, value = pair.rpartition("=")
        low, colon, high = value.partition(":")
        try:
            bounds[name] = (float(low) if low else None, float(high) if high else None)
        except ValueError:
            colon = ""
        if not colon or not name:
            raise UsageError(f"--bounds takes COLUMN=LOW:HIGH, not {pair[:60]!r}")
    return bounds or None


@app.command()
def fit(
    data: Annotated[str | None, typer.Argument(metavar="[DATA]", help="As everywhere.")] = None,
    family: Annotated[
        str, typer.Option("--family", "-f", help="See `families`.")
    ] = "flow_matching",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN", help="A new run folder.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a run.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Rounds of training.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time instead of steps.")] = None,
    condition: ConditionColumn = None,
    bounds: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=LOW:HIGH", help="Limits that samples respect."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit a family to data and keep it in a run folder."""
    if (out is None) == (resume is None):
        raise UsageError("name a new run folder with --out RUN, or an old one with --resume RUN")
    if steps is not None and minutes is not None:
        raise UsageError("give --steps or --minutes, not both")
    if data is None and resume is None:
        raise UsageError("there is nothing to fit: name a data set or a file")
    from .fitting import fit as run

    model = run(
        data,
        family,
        condition=condition,
        bounds=limits(bounds),
        steps=steps,
        minutes=minutes,
        seed=seed,
        device=device,
        out=out or resume,
        resume=resume is not None,
        progress=not quiet,
        **settings(set_),
    )
    folder, seconds = out or resume, model.config["seconds"]
    last = model.history[-1] if model.history else {}
    show(
        {"run": str(folder), "family": model.family, "likelihood": model.likelihood.value}
        | {"parameters": model.parameters, "seconds": seconds, "last": last},
        as_json,
        f"{model.family} fitted in {seconds:.1f} s ({model.parameters:,} parameters, likelihood: "
        f"{model.likelihood.value})\nrun folder: {folder}",
    )


@app.command()
def sample(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help=".csv .parquet .npy .npz")
    ],
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 1000,
    condition: Annotated[
        str | None,
        typer.Option("--condition", metavar="VALUE", help="The class or number to draw."),
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")] = None,
    sampler: Annotated[str | None, typer.Option(help="A sampler's name.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes the draw repeatable.")] = None,
    device: Device = "auto",
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Draw samples in the schema of the data that were fitted."""
    from .data import reading
    from .fitted import load

    reading.writable(out)
    model = load(run, device=device)
    given = {"sampler": sampler, "steps": steps, "guidance": guidance}
    options = {k: v for k, v in given.items() if v is not None} | settings(set_)
    y: Any = condition
    known = model.schema.condition
    if condition is not None and not (known and known.labels):  # classes are matched as text
        y = literal(condition)
    reading.write(out, model.sample(n, y, seed=seed, **options))
    show({"samples": n, "file": str(out), "family": model.family}, as_json, f"{n} samples: {out}")


@app.command()
def score(
    run: RunFolder,
    data: Source,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="One row a datum.")
    ] = None,
    bound: Annotated[bool, typer.Option("--bound", help="DDPM: the variational bound.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Log-likelihood of each datum, in nats and in the units of the data, with its kind."""
    import numpy as np

    from .data import reading
    from .fitted import load

    if out is not None:
        reading.writable(out)
    model = load(run, device=device)
    options = settings(set_) | ({"bound": True} if bound else {})
    values = model.log_prob(data, seed=seed, **options)
    kind = "lower bound" if bound else model.likelihood.value
    if out is not None:
        reading.write(out, {"log_prob": values})
    spread = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    result = {"rows": len(values), "mean": float(values.mean()), "standard_error": spread}
    margin = "" if spread is None else f" ± {spread:.3f}"
    show(
        result | {"kind": kind, "unit": "nats", "file": str(out) if out else None},
        as_json,
        f"mean log-likelihood {result['mean']:.4f}{margin} nats a datum ({kind}) over "
        f"{len(values)} rows" + (f"\nscores: {out}" if out else ""),
    )


@app.command()
def evaluate(
    real: Source,
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help="Samples, in a file.")],
    metrics: Annotated[str | None, typer.Option(help="Names, separated by commas.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare two sets of samples; each metric with an interval and its real-vs-real floor."""
    from .comparison import evaluate_sources

    estimates = evaluate_sources(real, generated, metrics.split(",") if metrics else None, seed)
    rows = {name: e._asdict() for name, e in estimates.items()}
    lines = [f"{'metric':28} {'value':>10} {'95 % interval':>23} {'floor':>10}"]
    lines += [
        f"{name:28} {e.value:>10.4g} {f'[{e.low:.4g}, {e.high:.4g}]':>23} {e.floor:>10.4g}"
        for name, e in estimates.items()
    ]
    show(rows, as_json, "\n".join(lines))


@app.command()
def compare(
    data: Source,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="For the report.")],
    families: Annotated[str | None, typer.Option(help="Names, separated by commas.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time per family and seed.")] = None,
    total_minutes: Annotated[float | None, typer.Option(help="Wall time of everything.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 1,
    condition: ConditionColumn = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an old report.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit every family to the same data with the same budget, and write a report."""
    from .comparison import compare as run

    result = run(
        data,
        families.split(",") if families else None,
        minutes=minutes,
        total_minutes=total_minutes,
        seeds=tuple(range(seeds)),
        condition=condition,
        device=device,
        out=out,
        overwrite=overwrite,
        progress=not quiet,
    )
    show(result.to_json(), as_json, f"{result.text()}\nreport: {out / 'report.html'}")


@app.command()
def plot(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help=".png .svg .pdf")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw the training curves and the samples of a run."""
    from .fitted import load
    from .report.figures import plot_run

    path = plot_run(load(run, device="cpu"), out or run / "plot.png", seed=seed)
    show({"file": str(path)}, as_json, f"figure: {path}")


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
    from .data import datasets, reading

    if name is None:
        sets = {key: datasets.describe(key) for key in datasets.names()}
        show(sets, as_json, "\n".join(f"{key:16} {text}" for key, text in sets.items()))
        return
    chosen = datasets.load(name, n, seed)
    if out is not None:
        reading.writable(out)
        reading.write(out, datasets.table(chosen))
    facts = {"name": name, "shape": list(chosen.x.shape), "entropy": chosen.entropy}
    facts |= {"description": chosen.description, "file": str(out) if out else None}
    entropy = "" if chosen.entropy is None else f", entropy {chosen.entropy:.4f} nats"
    text = f"{name}: {chosen.description} {tuple(chosen.x.shape)}{entropy}"
    show(facts, as_json, text + (f"\nfile: {out}" if out else ""))


@app.command()
def check(data: Source, condition: ConditionColumn = None, as_json: Json = False) -> None:
    """List everything in a data file that stands in the way of a fit, all at once."""
    from .data import reading
    from .errors import DataError

    found = reading.problems(data, condition)
    fatal = [p for p in found if p.fatal]
    lines = [f"{'error' if p.fatal else 'note'}: {p}" for p in found]
    listed = [p._asdict() for p in found]
    show(
        {"file": data, "ok": not fatal, "problems": listed},
        as_json,
        "\n".join(lines) or f"{data}: nothing stands in the way",
    )
    if fatal:
        raise DataError(f"{data}: {len(fatal)} problem(s) stand in the way of a fit, listed above")


@app.command()
def families(as_json: Json = False) -> None:
    """List the families with what each is and the options it takes."""
    from . import families as registry

    listed: dict[str, dict[str, Any]] = {
        name: {"summary": registry.summary(name), "options": registry.options(name)}
        for name in registry.names()
    }
    lines = []
    for name, entry in listed.items():
        taken = ", ".join(f"{k}={v}" for k, v in entry["options"].items())
        lines += [f"{name:18} {entry['summary']}", f"{'':18} {taken or 'no options'}"]
    show(listed, as_json, "\n".join(lines))


def print_version(value: bool) -> bool:
    """Print the version and stop."""
    if value:
        print(f"pushforward {__version__}")
        raise typer.Exit
    return value


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of every command."""


def report(code: int, message: str) -> int:
    """One line on stderr, at most 300 characters."""
    line = " ".join(message.split())
    say(f"pushforward: error: {line}"[:300])
    return code


@contextlib.contextmanager
def exit_codes(debug: bool) -> Iterator[list[int]]:
    """Turn errors into one line and an exit code."""
    code = [0]
    try:
        yield code
    except PushforwardError as error:
        if debug:
            raise
        code[0] = report(error.code, str(error))
    except KeyboardInterrupt:
        code[0] = report(130, "interrupted")
    except MemoryError:
        code[0] = report(70, "not enough memory; use fewer rows or a smaller model")
    except BrokenPipeError:
        code[0] = 141
        sys.stderr.close()
    except OSError as error:
        if debug:
            raise
        code[0] = report(74, f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        if debug:
            raise
        where = f"{type(error).__name__}: {error}"
        code[0] = report(70, f"this is a bug, please report it ({where}); --debug shows more")


def note(message: Warning | str, *_: Any) -> None:
    """A warning as one line, once."""
    line = f"pushforward: note: {' '.join(str(message).split())}"[:300]
    if line not in noted:
        noted.add(line)
        say(line)


noted: set[str] = set()


def main(arguments: list[str] | None = None) -> None:
    """The program."""
    warnings.showwarning = note  # type: ignore[assignment]  # any callable will do
    words = sys.argv[1:] if arguments is None else arguments
    with exit_codes("--debug" in words) as code:
        try:
            returned = app(words, standalone_mode=False, prog_name="pushforward")
            code[0] = returned if isinstance(returned, int) else 0
        except Exception as error:
            if not hasattr(error, "format_message"):  # not one of the parser's own
                raise
            code[0] = report(2, error.format_message())
    sys.exit(code[0])
