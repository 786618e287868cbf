"""``inpaint``, ``interpolate`` and ``edit``: images changed by a fitted model."""

from pathlib import Path
from typing import Annotated

from . import options
from .latents import print_mapped, write_mapped
from .options import app, argument, expand_groups, option

ImageFile = Annotated[
    Path, option("Output: a folder, .png for one strip, .npy .npz.", "FILE", "--out", "-o")
]


@app.command()
@expand_groups
def inpaint(
    run: options.RunFolder,
    image: Annotated[str, argument("Image file, or .npy of one.", "IMAGE")],
    mask: Annotated[str, option("Image of the same size: white is inpainted.", "MASK")],
    out: ImageFile,
    n: Annotated[int, option("Number of samples.", "N", "-n", "--number", min=1)] = 8,
    method: Annotated[
        str | None,
        option("Diffusion and flow models: moments, filter.", "NAME", show_default="auto"),
    ] = None,
    steps: options.SamplerSteps = None,
    *,
    common: options.MapOptions,
) -> None:
    """Inpaint the white region of a mask, several times, and keep the rest of an image."""
    model = common.open(run, out)
    y, keywords = common.keywords(model, model.inpaint, {"method": method, "steps": steps})
    with common.progress("inpaint"):
        made = model.inpaint(image, mask, n=n, y=y, seed=common.seed, **keywords)
    write_mapped(model, out, made.pictures, y)
    spread = "" if n == 1 else (
        f"\nmean distance between two samples in the inpainted region: {made.diversity:.3g} "
        f"(unconditional samples: {made.unconditional:.3g})"
    )  # fmt: skip
    facts = {
        "samples": n,
        "file": str(out),
        "family": model.family,
        "diversity": made.diversity,
        "unconditional_diversity": made.unconditional,
    }
    options.print_result(facts, common.as_json, f"{n} images: {out}{spread}")


@app.command()
@expand_groups
def interpolate(
    run: options.RunFolder,
    first: Annotated[str, argument("Image or data file.", "A")],
    last: Annotated[str, argument("Another, with as many rows.", "B")],
    out: ImageFile,
    n: Annotated[
        int, option("Number of points, both ends included.", "N", "-n", "--number", min=2)
    ] = 8,
    *,
    common: options.MapOptions,
) -> None:
    """Interpolate between two images through the latents of a model."""
    model = common.open(run, out)
    y, keywords = common.keywords(model, model.interpolate)
    with common.progress("interpolate"):
        made = model.interpolate(first, last, n=n, y=y, seed=common.seed, **keywords)
    write_mapped(model, out, made, y)
    print_mapped(model, out, len(made), common.as_json)


@app.command()
@expand_groups
def edit(
    run: options.RunFolder,
    data: options.Source,
    out: ImageFile,
    strength: Annotated[
        float, option("0 changes nothing, 1 ignores the image.", "X", min=0, max=1)
    ] = 0.5,
    sampler: options.Sampler = None,
    steps: options.SamplerSteps = None,
    *,
    common: options.MapOptions,
) -> None:
    """Noise and denoise images (SDEdit)."""
    model = common.open(run, out)
    y, keywords = common.keywords(model, model.edit, {"sampler": sampler, "steps": steps})
    with common.progress("edit"):
        made = model.edit(data, y=y, strength=strength, seed=common.seed, **keywords)
    write_mapped(
        model, out, made, model.preprocessor.read_conditions(data) if y is None else y, like=data
    )
    print_mapped(model, out, len(made), common.as_json, strength=strength)
