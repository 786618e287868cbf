"""``export``: a run in the form that another library reads."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Average, Json, RunFolder, app, print_result


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder.")],
    to: Annotated[str, typer.Option("--to", help="The library: diffusers.")] = "diffusers",
    condition: Annotated[
        str | None, typer.Option("--condition", metavar="VALUE", help="Of all its pictures.")
    ] = None,
    scheduler: Annotated[str, typer.Option(help="How it samples: ddim or ddpm.")] = "ddim",
    ema: Average = None,
    as_json: Json = False,
) -> None:
    """Write a run of pictures as a pipeline of `diffusers`, which needs nothing of ours."""
    from ..inference.loading import load
    from ..interop.diffusers import export
    from ..options import choose_option

    write = choose_option("to", to, {"diffusers": export})
    model = load(run, device="cpu", ema=ema)
    path = write(model, out, y=model.preprocessor.parse_condition(condition), scheduler=scheduler)
    print_result(
        {"folder": str(path), "family": model.family, "to": to}, as_json, f"pipeline: {path}"
    )
