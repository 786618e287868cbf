"""Data and latents sent through a fitted model: latents, other data, images that are edited."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from . import options, parsing
from .options import app, argument, expand_groups, flag, option, print_result

if TYPE_CHECKING:
    from ..inference.fitted_model import FittedModel

ImageFile = Annotated[
    Path, option("Output: a folder, .png for one strip, .npy .npz.", "FILE", "--out", "-o")
]


@dataclass(frozen=True)
class _CommonOptions(options.ModelOptions, options.GuidanceOptions):
    condition: options.ConditionValue = None
    set_: options.Settings = None
    seed: options.Seed = 0
    quiet: options.Quiet = False
    as_json: options.Json = False

    def open(self, run: Path, out: Path) -> "FittedModel":
        """The model, once it is sure that its results can be written."""
        from ..data import writing

        writing.check_writable(out)
        return self.load(run)

    def call(self, model: "FittedModel", method: Any, /, *data: Any, **own: Any) -> tuple[Any, Any]:
        from ..progress import progress_bar

        y = model.preprocessor.parse_condition(self.condition)
        own = parsing.without_none(**own) | self.guidance_keywords(model)
        own |= parsing.parse_set_options(self.set_, method)
        with progress_bar(method.__name__, show=not self.quiet):
            return method(*data, y=y, seed=self.seed, **own), y

    def finish(
        self, model: "FittedModel", out: Path, made: Any, y: Any, like: str | None = None,
        text: str = "", **facts: Any,
    ) -> None:  # fmt: skip
        _write(model, out, made, y, like)
        known = {"rows": len(made), "file": str(out), "family": model.family} | facts
        print_result(known, self.as_json, f"{len(made)} {model.noun}s: {out}{text}")


def _write(
    model: "FittedModel", out: Path, made: Any, y: Any = None, like: str | None = None
) -> None:
    """Images that were made one by one of those in a folder, ``like``, keep their names."""
    from ..data import reading, writing

    names = writing.png_names(Path(like)) if like and reading.is_image_folder(like) else None
    extra = model.preprocessor.label_columns(y, len(made))
    writing.write_samples(out, made, white=model.white, extra=extra, names=names)


@app.command()
@expand_groups
def encode(
    run: options.RunFolder, data: options.Source, out: options.DataFile, *, common: _CommonOptions
) -> None:
    """Encode data as latents, for families that have them."""
    model = common.open(run, out)
    z, _ = common.call(model, model.encode, data)
    _write(model, out, z)
    facts = {"rows": len(z), "file": str(out), "family": model.family}
    print_result(facts, common.as_json, f"{len(z)} rows: {out}")


@app.command()
@expand_groups
def decode(
    run: options.RunFolder,
    latents: Annotated[str, argument("File written by `encode`.", "LATENTS")],
    out: options.DataFile,
    *,
    common: _CommonOptions,
) -> None:
    """Decode latents to data."""
    model = common.open(run, out)
    made, y = common.call(model, model.decode, latents)
    common.finish(model, out, made, y)


@app.command()
@expand_groups
def reconstruct(
    run: options.RunFolder, data: options.Source, out: options.DataFile, *, common: _CommonOptions
) -> None:
    """Encode and decode data, and report the RMSE."""
    from ..inference.latents import rms_difference

    model = common.open(run, out)
    made, y = common.call(model, model.reconstruct, data)
    y = model.preprocessor.read_conditions(data) if y is None else y
    error = rms_difference(model.schema, data, made)
    text = f"\nroot mean square difference from the data: {error:.3g}"
    common.finish(model, out, made, y, data, text, error=error)


@app.command()
@expand_groups
def translate(
    run: options.RunFolder,
    data: options.Source,
    out: options.DataFile,
    reverse: Annotated[bool, flag("Map target data to source data.", "--reverse")] = False,
    *,
    common: _CommonOptions,
) -> None:
    """Map source data to target data, or back."""
    model = common.open(run, out)
    made, y = common.call(model, model.translate, data, reverse=reverse)
    common.finish(model, out, made, None if reverse else y, data)


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
    common: _CommonOptions,
) -> None:
    """Interpolate between two images through the latents of a model."""
    model = common.open(run, out)
    made, y = common.call(model, model.interpolate, first, last, n=n)
    common.finish(model, out, made, y)


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
    common: _CommonOptions,
) -> None:
    """Noise and denoise images (SDEdit)."""
    model = common.open(run, out)
    own = {"strength": strength, "sampler": sampler, "steps": steps}
    made, y = common.call(model, model.edit, data, **own)
    y = model.preprocessor.read_conditions(data) if y is None else y
    common.finish(model, out, made, y, data, strength=strength)


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
    common: _CommonOptions,
) -> None:
    """Inpaint the white region of a mask, several times, and keep the rest of an image."""
    model = common.open(run, out)
    own = {"n": n, "method": method, "steps": steps}
    made, y = common.call(model, model.inpaint, image, mask, **own)
    _write(model, out, made.pictures, y)
    text = "" if n == 1 else (
        f"\nmean distance between two samples in the inpainted region: {made.diversity:.3g} "
        f"(unconditional samples: {made.unconditional:.3g})"
    )  # fmt: skip
    facts = {"samples": n, "file": str(out), "family": model.family}
    facts |= {"diversity": made.diversity, "unconditional_diversity": made.unconditional}
    print_result(facts, common.as_json, f"{n} images: {out}{text}")


@app.command()
def latent(
    run: options.RunFolder,
    out: options.FigureFile,
    data: options.OptionalSource = None,
    condition: options.ConditionValue = None,
    ema: options.Ema = None,
    as_json: options.Json = False,
) -> None:
    """Plot the latent space, with encoded data, and samples decoded from it."""
    from ..inference.loading import load
    from ..plots.figures import plot_latents

    model = load(run, device="cpu", ema=ema)
    path = plot_latents(model, out, data, model.preprocessor.parse_condition(condition))
    print_result({"file": str(path), "family": model.family}, as_json, f"figure: {path}")
