"""Data to latents and back, the figure of the latents, and data to other data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    Average,
    Device,
    Guidance,
    Interval,
    Json,
    Negative,
    Quiet,
    RunFolder,
    Seed,
    Settings,
    Source,
    app,
    print_result,
)
from .parsing import guidance_options, parse_negative, parse_set_options

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help=".csv .parquet .npy .npz, a folder")
]
Given = Annotated[
    str | None,
    typer.Option("--condition", metavar="VALUE", help="The class or number of all the data."),
]


def map_data(
    run: Path, out: Path, device: str, ema: float | None, quiet: bool, method: str, *words: Any
) -> tuple[Any, Any]:
    """Load a model, call one of its methods and write what it gives: the model, and that.

    The words are what the method takes first, a condition, a seed, ``--set``, and its options.
    """
    from ..data import writing
    from ..inference.loading import load
    from ..progress import progress_bar

    writing.check_writable(out)
    model = load(run, device=device, ema=ema)
    *first, condition, seed, pairs, options = words
    call, y = getattr(model, method), model.preprocessor.parse_condition(condition)
    options = parse_negative(model, options) | parse_set_options(pairs, call)
    with progress_bar(method, show=not quiet):
        made = call(*first, y, seed=seed, **options)
    back = method == "encode" or options.get("reverse")  # to what the condition does not describe
    if y is None and method in ("edit", "reconstruct"):
        y = model.preprocessor.read_conditions(first[0])
    extra = {} if back else model.preprocessor.label_columns(y, len(made))
    writing.write_samples(
        out, made, white=model.white, extra=extra, names=output_names(method, first[0])
    )
    return model, made


def output_names(method: str, data: str) -> list[str] | None:
    """The names of a folder's pictures, where a method makes one of each."""
    from ..data import image_writer, reading

    each = method in ("edit", "reconstruct", "translate") and reading.is_image_folder(data)
    return image_writer.png_names(Path(data)) if each else None


def map_and_report(
    run: Path,
    out: Path,
    device: str,
    ema: float | None,
    quiet: bool,
    as_json: bool,
    *words: Any,
    **facts: Any,
) -> None:
    """The same, and say so, with further facts for machines."""
    model, made = map_data(run, out, device, ema, quiet, *words)
    known = {"rows": len(made), "file": str(out), "family": model.family} | facts
    noun = "row" if words[0] == "encode" else model.noun
    print_result(known, as_json, f"{len(made)} {noun}s: {out}")


@app.command()
def encode(
    run: RunFolder,
    data: Source,
    out: Out,
    condition: Given = None,
    guidance: Guidance = None,
    guidance_interval: Interval = None,
    negative: Negative = None,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the latents of data, for families that have them."""
    way = guidance_options(guidance, guidance_interval, negative)
    words = (data, condition, seed, set_, way)
    map_and_report(run, out, device, ema, quiet, as_json, "encode", *words)


@app.command()
def decode(
    run: RunFolder,
    latents: Annotated[str, typer.Argument(metavar="LATENTS", help="A file of `encode`.")],
    out: Out,
    condition: Given = None,
    guidance: Guidance = None,
    guidance_interval: Interval = None,
    negative: Negative = None,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the data that latents stand for."""
    way = guidance_options(guidance, guidance_interval, negative)
    words = (latents, condition, seed, set_, way)
    map_and_report(run, out, device, ema, quiet, as_json, "decode", *words)


@app.command()
def reconstruct(
    run: RunFolder,
    data: Source,
    out: Out,
    condition: Given = None,
    guidance: Guidance = None,
    guidance_interval: Interval = None,
    negative: Negative = None,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write data as their latents remember them, and say how far they are from what they were."""
    from ..inference.latents import rms_difference

    words = (data, condition, seed, set_, guidance_options(guidance, guidance_interval, negative))
    model, made = map_data(run, out, device, ema, quiet, "reconstruct", *words)
    error, count = rms_difference(model.schema, data, made), len(made)
    print_result(
        {"rows": count, "file": str(out), "family": model.family, "error": error},
        as_json,
        f"{count} {model.noun}s: {out}\nroot mean square difference from the data: {error:.3g}",
    )


@app.command()
def translate(
    run: RunFolder,
    data: Source,
    out: Out,
    condition: Given = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="From the data to the source.")
    ] = False,
    guidance: Guidance = None,
    guidance_interval: Interval = None,
    negative: Negative = None,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Carry data like the source of a fit to data like those fitted, or back."""
    way = {"reverse": reverse} | guidance_options(guidance, guidance_interval, negative)
    words = (data, condition, seed, set_, way)
    map_and_report(run, out, device, ema, quiet, as_json, "translate", *words)


@app.command()
def latent(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help=".png .svg .pdf")],
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="By default those of the run.")
    ] = None,
    condition: Given = None,
    ema: Average = None,
    as_json: Json = False,
) -> None:
    """Draw encoded data over the latents, and what the latents decode to."""
    from ..inference.loading import load
    from ..plots.latents import plot_latents

    model = load(run, device="cpu", ema=ema)
    path = plot_latents(model, out, data, model.preprocessor.parse_condition(condition))
    print_result({"file": str(path), "family": model.family}, as_json, f"figure: {path}")
