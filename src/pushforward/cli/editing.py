"""``inpaint``, ``interpolate`` and ``edit``: pictures changed by a fitted model."""

from pathlib import Path
from typing import Annotated

import typer

from .latents import Given, map_and_report
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
from .parsing import guidance_options, parse_negative, parse_set_options, without_none

Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FILE", help="A folder, .png for one strip, .npy .npz."),
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the sampler.")]


@app.command()
def inpaint(
    run: RunFolder,
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="A picture, or .npy of one.")],
    mask: Annotated[
        str, typer.Option(metavar="MASK", help="A picture of the same size: white is redrawn.")
    ],
    out: Out,
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 8,
    condition: Given = None,
    method: Annotated[
        str | None, typer.Option(help="Of a path: moments, filter.", show_default="auto")
    ] = None,
    guidance: Guidance = None,
    guidance_interval: Interval = None,
    negative: Negative = None,
    steps: Steps = None,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Redraw what is white in a mask, several times, and keep the rest of a picture."""
    from ..data import writing
    from ..inference.loading import load
    from ..progress import progress_bar

    writing.check_writable(out)
    model = load(run, device=device, ema=ema)
    way = without_none(method=method, steps=steps) | guidance_options(
        guidance, guidance_interval, negative
    )
    options = parse_negative(model, way) | parse_set_options(set_, model.inpaint)
    with progress_bar("inpaint", show=not quiet):
        made = model.inpaint(
            picture, mask, n, model.preprocessor.parse_condition(condition), seed=seed, **options
        )
    extra = model.preprocessor.label_columns(model.preprocessor.parse_condition(condition), n)
    writing.write_samples(out, made.pictures, white=model.white, extra=extra)
    spread = "" if n == 1 else (
        f"\nmean distance between two in the part redrawn: {made.diversity:.3g} "
        f"(of free draws there: {made.unconditional:.3g})"
    )  # fmt: skip
    facts = {"diversity": made.diversity, "unconditional_diversity": made.unconditional}
    print_result(
        {"samples": n, "file": str(out), "family": model.family} | facts,
        as_json,
        f"{n} pictures: {out}{spread}",
    )


@app.command()
def interpolate(
    run: RunFolder,
    first: Annotated[str, typer.Argument(metavar="A", help="A picture, or a file of data.")],
    last: Annotated[str, typer.Argument(metavar="B", help="Another, or as many.")],
    out: Out,
    n: Annotated[
        int, typer.Option("-n", "--number", min=2, help="How many on the way, ends included.")
    ] = 8,
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
    """Go from one picture to another through the latents of a model."""
    way = guidance_options(guidance, guidance_interval, negative)
    words = (first, last, n, condition, seed, set_, way)
    map_and_report(run, out, device, ema, quiet, as_json, "interpolate", *words)


@app.command()
def edit(
    run: RunFolder,
    data: Source,
    out: Out,
    strength: Annotated[
        float, typer.Option(help="0 changes nothing, 1 draws afresh.", min=0, max=1)
    ] = 0.5,
    condition: Given = None,
    guidance: Guidance = None,
    guidance_interval: Interval = None,
    negative: Negative = None,
    sampler: Annotated[str | None, typer.Option(help="A sampler's name.")] = None,
    steps: Steps = None,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Add noise to pictures, so much as STRENGTH says, and take it away under the model."""
    options = without_none(sampler=sampler, steps=steps) | {"strength": strength}
    options |= guidance_options(guidance, guidance_interval, negative)
    words = (data, condition, seed, set_, options)
    map_and_report(run, out, device, ema, quiet, as_json, "edit", *words, strength=strength)
