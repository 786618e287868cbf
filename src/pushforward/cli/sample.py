"""``sample``, ``score`` and ``plot``: the commands that use a fitted model."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Average,
    Device,
    Guidance,
    Interval,
    Json,
    Negative,
    RunFolder,
    Seed,
    Settings,
    Source,
    app,
    print_result,
)
from .parsing import (
    assign_conditions,
    guidance_options,
    parse_given,
    parse_negative,
    parse_set_options,
    read_conditions,
    without_none,
)


@app.command()
def sample(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help=".csv .parquet .npy .npz, a folder")
    ],
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--number",
            min=1,
            help="How many.",
            show_default="1000, or one a condition",
        ),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--condition", metavar="VALUE", help="The class, number or caption to draw; or several."
        ),
    ] = None,
    conditions: Annotated[
        Path | None,
        typer.Option("--conditions", metavar="FILE", help="A text file with one on each line."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Keep this fixed (or FILE.npy with NaN)."),
    ] = None,
    guidance: Guidance = None,
    guidance_interval: Interval = None,
    negative: Negative = None,
    sampler: Annotated[str | None, typer.Option(help="A sampler's name.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes the draw repeatable.")] = None,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Draw samples in the schema of the data that were fitted.

    RUN may also be a pipeline's folder of diffusers, whose samples are pictures.
    """
    from ..data import writing
    from ..interop import load_run_or_pipeline

    writing.check_writable(out)
    model = load_run_or_pipeline(run, device=device, ema=ema)
    way = without_none(sampler=sampler, steps=steps) | guidance_options(
        guidance, guidance_interval, negative
    )
    options = parse_negative(model, way) | parse_set_options(set_, model.sample)
    n, words = assign_conditions(n, read_conditions(condition, conditions))
    y = (
        model.preprocessor.parse_condition(words[0])
        if len(set(words)) == 1
        else [model.preprocessor.parse_condition(w) for w in words] or None
    )
    drawn, extra = model.labelled(n, y, given=parse_given(given), seed=seed, **options)
    writing.write_samples(out, drawn, white=model.white, extra=extra)
    print_result(
        {"samples": n, "file": str(out), "family": model.family}, as_json, f"{n} samples: {out}"
    )


@app.command()
def score(
    run: RunFolder,
    data: Source,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="A row a datum, in order."),
    ] = None,
    bound: Annotated[bool, typer.Option("--bound", help="DDPM: the variational bound.")] = False,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    set_: Settings = None,
    as_json: Json = False,
) -> None:
    """Log-likelihood of each datum, in nats and in the units of the data, with its kind."""
    import math

    import numpy as np

    from ..data import reading, writing
    from ..inference.likelihood import rms_error
    from ..inference.loading import load
    from ..metrics import codecs

    if out is not None:
        writing.check_writable(out)
    model = load(run, device=device, ema=ema)
    options = parse_set_options(set_, model.log_prob) | ({"bound": True} if bound else {})
    values, errors = model.estimated(data, seed=seed, **options)
    trace = rms_error(errors)
    kind = model.kind(**options).value
    if out is not None:
        writing.write_samples(out, {"log_prob": values})
    none = int(np.isneginf(values).sum())  # rows of density 0, which leave no spread
    spread = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 > none else None
    result = {"rows": len(values), "mean": float(values.mean()), "standard_error": spread}
    margin = "" if spread is None else f" ± {spread:.3f}"
    bits = -float(values.mean()) / (math.prod(model.schema.event) * math.log(2))
    pictures = codecs.image_codec_bits(
        reading.read_with_schema(data, model.schema).x, model.schema.levels
    )
    impossible = f", of which {none} have density 0" if none else ""
    print_result(
        result
        | {
            "density_zero": none,
            "bits_per_dim": bits,
            "codecs": pictures or None,
            "trace_standard_error": trace,
            "kind": kind,
            "unit": "nats",
            "file": str(out) if out else None,
        },
        as_json,
        f"mean log-likelihood {result['mean']:.4f}{margin} nats a datum ({kind}) over "
        f"{len(values)} {model.noun}s{impossible}"
        + (f"\ntrace estimated, standard error {trace:.2g} nats a datum" if trace else "")
        + (
            f"\nbits an entry {bits:.3f}; of {codecs.format_codec_bits(pictures)}"
            if pictures
            else ""
        )
        + (f"\nscores: {out}" if out else ""),
    )


@app.command()
def plot(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help=".png .svg .pdf")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Drawn in grey with the samples.")
    ] = None,
    seed: Seed = 0,
    ema: Average = None,
    as_json: Json = False,
) -> None:
    """Draw the training curves and the samples of a run."""
    from ..inference.loading import load
    from ..plots.figures import plot_run

    model = load(run, device="cpu", ema=ema)
    path = plot_run(model, out or run / "plot.png", data=data, seed=seed)
    print_result({"file": str(path)}, as_json, f"figure: {path}")
