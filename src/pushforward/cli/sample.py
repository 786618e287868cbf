"""``sample``, ``plot`` and ``export``: what is made of a fitted model."""

from pathlib import Path
from typing import Annotated

from . import options, parsing
from .options import app, expand_groups, option

DEFAULT_NUMBER = "1000, or one per condition"


@app.command()
@expand_groups
def sample(
    run: options.RunFolder,
    out: options.DataFile,
    n: Annotated[
        int | None,
        option("Number of samples.", "N", "-n", "--number", min=1, show_default=DEFAULT_NUMBER),
    ] = None,
    condition: Annotated[
        list[str] | None, option("Class, number or caption to sample; repeatable.", "VALUE")
    ] = None,
    conditions: Annotated[
        Path | None, option("Text file with one condition on each line.", "FILE")
    ] = None,
    given: Annotated[
        list[str] | None,
        option("Observed values to condition on (or FILE.npy, NaN where unknown).", "COLUMN=VALUE"),
    ] = None,
    sampler: options.Sampler = None,
    steps: options.SamplerSteps = None,
    *,
    guided: options.GuidanceOptions,
    set_: options.Settings = None,
    seed: Annotated[int | None, option("Random seed.", "N", min=0)] = None,
    weights: options.ModelOptions,
    as_json: options.Json = False,
) -> None:
    """Draw samples in the schema of the training data.

    RUN may also be the folder of a diffusers pipeline, whose samples are images.
    """
    from ..data import writing
    from ..interop import load_run_or_pipeline

    writing.check_writable(out)
    model = load_run_or_pipeline(run, device=weights.device, ema=weights.ema)
    keywords = parsing.without_none(sampler=sampler, steps=steps) | guided.guidance_keywords(model)
    keywords |= parsing.parse_set_options(set_, model.sample)
    n, words = parsing.assign_conditions(n, parsing.read_conditions(condition, conditions))
    parse = model.preprocessor.parse_condition
    y = parse(words[0]) if len(set(words)) == 1 else [parse(word) for word in words] or None
    drawn, extra = model.labelled(n, y=y, given=parsing.parse_given(given), seed=seed, **keywords)
    writing.write_samples(out, drawn, white=model.white, extra=extra)
    facts = {"samples": n, "file": str(out), "family": model.family}
    options.print_result(facts, as_json, f"{n} samples: {out}")


@app.command()
def plot(
    run: options.RunFolder,
    out: options.OptionalFigureFile = None,
    data: Annotated[str | None, option("Data to show in grey with the samples.", "DATA")] = None,
    seed: options.Seed = 0,
    ema: options.Ema = None,
    as_json: options.Json = False,
) -> None:
    """Plot the training curves and samples of a run."""
    from ..inference.loading import load
    from ..plots.figures import plot_run

    path = plot_run(load(run, device="cpu", ema=ema), out or run / "plot.png", data=data, seed=seed)
    options.print_result({"file": str(path)}, as_json, f"figure: {path}")


@app.command()
def export(
    run: options.RunFolder,
    out: Annotated[Path, option("New folder.", "FOLDER", "--out", "-o")],
    to: Annotated[str, option("Library: diffusers.", "LIBRARY")] = "diffusers",
    condition: options.ConditionValue = None,
    scheduler: Annotated[str, option("Scheduler: ddim or ddpm.", "NAME")] = "ddim",
    ema: options.Ema = None,
    as_json: options.Json = False,
) -> None:
    """Export an image model as a `diffusers` pipeline, which does not need this library."""
    from ..inference.loading import load
    from ..interop.diffusers import export as export_pipeline
    from ..options import choose_option

    write = choose_option("to", to, {"diffusers": export_pipeline})
    model = load(run, device="cpu", ema=ema)
    path = write(model, out, y=model.preprocessor.parse_condition(condition), scheduler=scheduler)
    facts = {"folder": str(path), "family": model.family, "to": to}
    options.print_result(facts, as_json, f"pipeline: {path}")
