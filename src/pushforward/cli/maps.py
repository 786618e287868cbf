"""Data to latents and back, the figure of the latents, and data to other data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .application import Device, Json, Quiet, RunFolder, Seed, Settings, Source, app, show
from .literals import settings

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help=".csv .parquet .npy .npz, a folder")
]
Given = Annotated[
    str | None,
    typer.Option("--condition", metavar="VALUE", help="The class or number of all the data."),
]


def carried(
    run: Path, out: Path, device: str, quiet: bool, method: str, *words: Any
) -> tuple[Any, Any]:
    """Load a model, call one of its methods and write what it gives: the model, and that.

    The words are what the method takes first, a condition, a seed, ``--set``, and its options.
    """
    from ..data import reading
    from ..fitted import load, mapping
    from ..progress import shown

    reading.writable(out)
    model = load(run, device=device)
    *first, condition, seed, pairs, options = words
    call, y = getattr(model, method), model.typed(condition)
    options = options | settings(pairs, call)
    with shown(method, show=not quiet):
        made = call(*first, y, seed=seed, **options)
    back = method == "encode" or options.get("reverse")  # to what the condition does not describe
    if y is None and method in ("edit", "reconstruct"):
        y = mapping.told(model, first[0])
    extra = {} if back else model.beside(len(made), y)
    reading.write(out, made, white=model.white, extra=extra, names=names_in(method, first[0]))
    return model, made


def names_in(method: str, data: str) -> list[str] | None:
    """The names of a folder's pictures, where a method makes one of each."""
    from ..data import filing, reading

    each = method in ("edit", "reconstruct", "translate") and reading.is_folder(data)
    return filing.kept_names(Path(data)) if each else None


def carry(
    run: Path, out: Path, device: str, quiet: bool, as_json: bool, *words: Any, **facts: Any
) -> None:
    """The same, and say so, with further facts for machines."""
    model, made = carried(run, out, device, quiet, *words)
    known = {"rows": len(made), "file": str(out), "family": model.family} | facts
    noun = "row" if words[0] == "encode" else model.noun
    show(known, as_json, f"{len(made)} {noun}s: {out}")


@app.command()
def encode(
    run: RunFolder,
    data: Source,
    out: Out,
    condition: Given = None,
    seed: Seed = 0,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the latents of data, for families that have them."""
    carry(run, out, device, quiet, as_json, "encode", data, condition, seed, set_, {})


@app.command()
def decode(
    run: RunFolder,
    latents: Annotated[str, typer.Argument(metavar="LATENTS", help="A file of `encode`.")],
    out: Out,
    condition: Given = None,
    seed: Seed = 0,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the data that latents stand for."""
    carry(run, out, device, quiet, as_json, "decode", latents, condition, seed, set_, {})


@app.command()
def reconstruct(
    run: RunFolder,
    data: Source,
    out: Out,
    condition: Given = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write data as their latents remember them, and say how far they are from what they were."""
    from ..fitted.mapping import difference

    model, made = carried(run, out, device, quiet, "reconstruct", data, condition, seed, None, {})
    error, count = difference(model.schema, data, made), len(made)
    show(
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
    seed: Seed = 0,
    device: Device = "auto",
    set_: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Carry data like the source of a fit to data like those fitted, or back."""
    way = {"reverse": reverse}
    carry(run, out, device, quiet, as_json, "translate", data, condition, seed, set_, way)


@app.command()
def latent(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help=".png .svg .pdf")],
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="By default those of the run.")
    ] = None,
    condition: Given = None,
    as_json: Json = False,
) -> None:
    """Draw encoded data over the latents, and what the latents decode to."""
    from ..fitted import load
    from ..report.latents import plot_latents

    model = load(run, device="cpu")
    path = plot_latents(model, out, data, model.typed(condition))
    show({"file": str(path), "family": model.family}, as_json, f"figure: {path}")
