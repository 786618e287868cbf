"""``score`` and ``anomalies``: what a fitted model says of each row of data."""

import math
from typing import Annotated, Any

from . import options, parsing
from .options import app, expand_groups, flag, option


@app.command()
@expand_groups
def score(
    run: options.RunFolder,
    data: options.Source,
    out: options.ScoresFile = None,
    bound: Annotated[bool, flag("DDPM: the variational bound.", "--bound")] = False,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    *,
    weights: options.ModelOptions,
    as_json: options.Json = False,
) -> None:
    """Log-likelihood of each row in nats, in the units of the data, with its kind."""
    import numpy as np

    from ..data import reading, writing
    from ..inference.likelihood import rms_error
    from ..metrics import codecs

    if out is not None:
        writing.check_writable(out)
    model = weights.load(run)
    keywords = parsing.parse_set_options(set_, model.log_prob) | ({"bound": True} if bound else {})
    values, errors = model.estimated(data, seed=seed, **keywords)
    if out is not None:
        writing.write_samples(out, {"log_prob": values})
    none = int(np.isneginf(values).sum())  # rows of density 0, which leave no standard error
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 > none else None
    x = reading.read_with_schema(data, model.schema).x
    mean = float(values.mean())
    facts: dict[str, Any] = {"rows": len(values), "mean": mean, "standard_error": error}
    bits = -mean / (math.prod(model.schema.event) * math.log(2))
    facts |= {"density_zero": none, "bits_per_dim": bits}
    facts |= {"codecs": codecs.image_codec_bits(x, model.schema.levels) or None}
    facts |= {"trace_standard_error": rms_error(errors), "kind": model.kind(**keywords).value}
    facts |= {"unit": "nats", "file": str(out) if out else None}
    options.print_result(facts, as_json, _score_text(facts, model.noun))


def _score_text(facts: dict[str, Any], noun: str) -> str:
    from ..metrics.codecs import format_codec_bits

    margin = "" if facts["standard_error"] is None else f" ± {facts['standard_error']:.3f}"
    zero = f", of which {facts['density_zero']} have density 0" if facts["density_zero"] else ""
    lines = [
        f"mean log-likelihood {facts['mean']:.4f}{margin} nats a {noun} ({facts['kind']}) over "
        f"{facts['rows']} {noun}s{zero}"
    ]
    if trace := facts["trace_standard_error"]:
        lines.append(f"trace estimated, standard error {trace:.2g} nats a {noun}")
    if images := facts["codecs"]:
        bits = facts["bits_per_dim"]
        lines.append(f"bits per dimension {bits:.3f}; of {format_codec_bits(images)}")
    if facts["file"]:
        lines.append(f"scores: {facts['file']}")
    return "\n".join(lines)


@app.command()
@expand_groups
def anomalies(
    run: options.RunFolder,
    data: options.Source,
    out: options.ScoresFile = None,
    method: Annotated[
        str, option("density, typicality (many columns) or ratio.", "NAME")
    ] = "density",
    rate: Annotated[float, option("False-positive rate.", "RATE")] = 0.01,
    reference: Annotated[
        str | None, option("Normal data not used in training, for the threshold.", "DATA")
    ] = None,
    labels: Annotated[
        str | None, option("True labels: 1 is an anomaly, 0 is none.", "COLUMN")
    ] = None,
    seed: options.Seed = 0,
    *,
    weights: options.ModelOptions,
    flag: Annotated[float | None, option("", hidden=True)] = None,
    as_json: options.Json = False,
) -> None:
    """Anomaly scores, and flags at a calibrated false-positive rate."""
    from ..data import reading, writing
    from ..inference.anomaly import roc_auc

    rate = rate if flag is None else flag  # the old name of --rate
    if out is not None:
        writing.check_writable(out)
    model = weights.load(run)
    rows, truth = reading.split_label_column(data, labels)
    found = model.flag(rows, rate=rate, reference=reference, method=method, seed=seed)
    flags = found.flagged.astype(int)
    if out is not None:
        writing.write_samples(out, {"anomaly_score": found.score, "flagged": flags})
    area = None if truth is None else roc_auc(found.score, truth)
    normal, count = reference or "the model's own draws", int(flags.sum())
    facts: dict[str, Any] = {"rows": len(flags), "flagged": count, "threshold": found.threshold}
    facts |= {"rate": rate, "method": method, "auroc": area, "reference": normal}
    facts |= {"file": str(out) if out else None}
    lines = [
        f"{count} of {len(flags)} {model.noun}s score above {found.threshold:.4g} nats ({method}), "
        f"which {rate:.2%} of {normal} do"
    ]
    lines += [] if area is None else [f"area under the ROC curve {area:.4f}"]
    lines += [f"scores: {out}"] if out else []
    options.print_result(facts, as_json, "\n".join(lines))
