"""``anomalies``: which data a fitted model finds strange."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Average, Device, Json, RunFolder, Seed, Source, app, print_result


@app.command()
def anomalies(
    run: RunFolder,
    data: Source,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="One row a datum.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="density, typicality (many columns) or ratio.")
    ] = "density",
    flag: Annotated[
        float, typer.Option(help="The part of ordinary data that may be flagged by mistake.")
    ] = 0.01,
    reference: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Ordinary data, not fitted to, to set the threshold."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="0 or 1 for each datum: 1 is an anomaly."),
    ] = None,
    seed: Seed = 0,
    ema: Average = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score how strange each datum is, and flag the strangest at a calibrated rate."""
    from ..data import reading, writing
    from ..inference.anomaly import roc_auc
    from ..inference.loading import load

    if out is not None:
        writing.check_writable(out)
    model = load(run, device=device, ema=ema)
    rows, truth = reading.split_label_column(data, labels)
    found = model.flag(rows, rate=flag, reference=reference, method=method, seed=seed)
    if out is not None:
        columns = {"anomaly_score": found.score, "flagged": found.flagged.astype(int)}
        writing.write_samples(out, columns)
    area = None if truth is None else roc_auc(found.score, truth)
    result: dict[str, Any] = {"rows": len(found.score), "flagged": int(found.flagged.sum())}
    result |= {"threshold": found.threshold, "rate": flag, "method": method, "auroc": area}
    result |= {"reference": reference or "the model's own draws", "file": str(out) if out else None}
    area_text = "" if area is None else f"\narea under the ROC curve {area:.4f}"
    print_result(
        result,
        as_json,
        f"{result['flagged']} of {result['rows']} {model.noun}s score above "
        f"{found.threshold:.4g} nats ({method}), which {flag:.2%} of {result['reference']} do"
        + area_text
        + (f"\nscores: {out}" if out else ""),
    )
