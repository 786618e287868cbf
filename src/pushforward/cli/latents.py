"""Data to latents and back, the figure of the latents, and data to other data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from . import options
from .options import app, argument, expand_groups, flag

if TYPE_CHECKING:
    from ..inference.fitted_model import FittedModel


def write_mapped(
    model: "FittedModel", out: Path, made: Any, y: Any = None, *, like: str | None = None
) -> None:
    """Write what a model made, its condition beside it.

    Arguments:
        model: What made it.
        out: A file or a folder.
        made: In the schema of the data, or of the latents.
        y: The condition of all, or of each; None if it describes none of them.
        like: The data that it was made of one by one; a folder's images keep their names.
    """
    from ..data import reading, writing

    folder = like is not None and reading.is_image_folder(like)
    names = writing.png_names(Path(str(like))) if folder else None
    extra = model.preprocessor.label_columns(y, len(made))
    writing.write_samples(out, made, white=model.white, extra=extra, names=names)


def print_mapped(
    model: "FittedModel", out: Path, rows: int, as_json: bool, text: str = "", **facts: Any
) -> None:
    """Say what was written, with further facts for machines."""
    known = {"rows": rows, "file": str(out), "family": model.family} | facts
    options.print_result(known, as_json, f"{rows} {model.noun}s: {out}{text}")


@app.command()
@expand_groups
def encode(
    run: options.RunFolder,
    data: options.Source,
    out: options.DataFile,
    *,
    common: options.MapOptions,
) -> None:
    """Encode data as latents, for families that have them."""
    model = common.open(run, out)
    y, keywords = common.keywords(model, model.encode)
    with common.progress("encode"):
        z = model.encode(data, y=y, seed=common.seed, **keywords)
    write_mapped(model, out, z)
    facts = {"rows": len(z), "file": str(out), "family": model.family}
    options.print_result(facts, common.as_json, f"{len(z)} rows: {out}")


@app.command()
@expand_groups
def decode(
    run: options.RunFolder,
    latents: Annotated[str, argument("File written by `encode`.", "LATENTS")],
    out: options.DataFile,
    *,
    common: options.MapOptions,
) -> None:
    """Decode latents to data."""
    model = common.open(run, out)
    y, keywords = common.keywords(model, model.decode)
    with common.progress("decode"):
        made = model.decode(latents, y=y, seed=common.seed, **keywords)
    write_mapped(model, out, made, y)
    print_mapped(model, out, len(made), common.as_json)


@app.command()
@expand_groups
def reconstruct(
    run: options.RunFolder,
    data: options.Source,
    out: options.DataFile,
    *,
    common: options.MapOptions,
) -> None:
    """Encode and decode data, and report the RMSE."""
    from ..inference.latents import rms_difference

    model = common.open(run, out)
    y, keywords = common.keywords(model, model.reconstruct)
    with common.progress("reconstruct"):
        made = model.reconstruct(data, y=y, seed=common.seed, **keywords)
    write_mapped(
        model, out, made, model.preprocessor.read_conditions(data) if y is None else y, like=data
    )
    error = rms_difference(model.schema, data, made)
    text = f"\nroot mean square difference from the data: {error:.3g}"
    print_mapped(model, out, len(made), common.as_json, text, error=error)


@app.command()
@expand_groups
def translate(
    run: options.RunFolder,
    data: options.Source,
    out: options.DataFile,
    reverse: Annotated[bool, flag("Map target data to source data.", "--reverse")] = False,
    *,
    common: options.MapOptions,
) -> None:
    """Map source data to target data, or back."""
    model = common.open(run, out)
    y, keywords = common.keywords(model, model.translate)
    with common.progress("translate"):
        made = model.translate(data, y=y, reverse=reverse, seed=common.seed, **keywords)
    write_mapped(model, out, made, None if reverse else y, like=data)
    print_mapped(model, out, len(made), common.as_json)


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
    options.print_result({"file": str(path), "family": model.family}, as_json, f"figure: {path}")
