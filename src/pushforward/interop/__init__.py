"""Models of other libraries, driven by our samplers, and our runs in the form that others read."""

from pathlib import Path
from typing import Any

from ..errors import UsageError


def load_run_or_pipeline(
    folder: str | Path, *, device: str = "auto", ema: float | None = None
) -> Any:
    """The model of a run folder, or of a folder of diffusers."""
    if any(Path(folder, name).is_file() for name in ("model_index.json", "scheduler_config.json")):
        from .diffusers import load as load_pipeline

        if ema is not None:
            raise UsageError("a pipeline of diffusers keeps no averages of weights: leave out ema")
        return load_pipeline(folder, device=device)
    from ..inference.loading import load as load_run

    return load_run(folder, device=device, ema=ema)
