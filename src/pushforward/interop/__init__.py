"""Models of other libraries, driven by our samplers, and our runs in the form that others read."""

from pathlib import Path
from typing import Any


def load(folder: str | Path, *, device: str = "auto") -> Any:
    """The model of a run folder, or of a folder of diffusers."""
    if any(Path(folder, name).is_file() for name in ("model_index.json", "scheduler_config.json")):
        from .diffusers import load as load_pipeline

        return load_pipeline(folder, device=device)
    from ..fitted import load as load_run

    return load_run(folder, device=device)
