"""Our runs as pipeline folders that `diffusers` loads without this library."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from ...data.writing import check_writable
from ...diffusion import Diffusion
from ...errors import DiskError, UsageError
from ...inference.fitted_model import FittedModel
from ...inference.loading import load
from ...networks.unet import DiffusersUNet
from ...optional import import_optional
from ...options import choose_option
from ...theory import predictions
from ...theory.ddpm_schedule import DDPMPath

PREDICTIONS = {
    predictions.noise_prediction: "epsilon",
    predictions.v_prediction: "v_prediction",
    predictions.data_prediction: "sample",
}
PIPELINES = {"ddim": "DDIM", "ddpm": "DDPM"}


def export(
    run: FittedModel | str | Path, folder: str | Path, *, y: Any = None, scheduler: str = "ddim"
) -> Path:
    """Write a run of `ddpm` with ``network="diffusers"`` as a pipeline of images.

    ``DiffusionPipeline.from_pretrained(folder)`` loads it. Nothing is approximated: the network,
    the table and the range of the images are those that were learned.

    Arguments:
        run: A fitted model, or its folder.
        folder: A new folder.
        y: The condition that all its images are to have; None leaves it open, as training does
            where it hides the condition.
        scheduler: "ddim", whose pipeline takes 50 steps by itself, or "ddpm".

    Raises:
        UsageError: If the run has another network, or a condition that it cannot have.
        FolderInUse: If the folder exists and holds something.
        DiskError: If it cannot be written.
        Unavailable: If `diffusers` is not installed.
    """
    name = choose_option("scheduler", scheduler, PIPELINES)
    path = check_writable(folder)
    fitted = run if isinstance(run, FittedModel) else load(run, device="cpu")
    net = _exportable_network(fitted)
    c = None if y is None else fitted.pipeline.tensor(fitted.schema.encode(y, 1))
    diffusers = import_optional("diffusers", "diffusers")
    pipeline = getattr(diffusers, f"{name}Pipeline")(
        unet=net.unconditioned(c).cpu(), scheduler=_build_scheduler(fitted.model, diffusers, name)
    )
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        pipeline.save_pretrained(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _exportable_network(fitted: FittedModel) -> DiffusersUNet:
    model = fitted.model
    if isinstance(model, Diffusion) and isinstance(model.denoiser.net, DiffusersUNet):
        return model.denoiser.net
    raise UsageError(
        f"diffusers has no network like that of this {fitted.family} run: fit with family ddpm and "
        "network=diffusers to export it"
    )


def _build_scheduler(model: Any, diffusers: Any, name: str) -> Any:
    path: DDPMPath = model.path
    if name == "DDPM" and not isinstance(model.variance, float):
        raise UsageError("diffusers has no network of its own for a variance: export with ddim")
    own = {"variance_type": "fixed_large" if model.variance else "fixed_small"}
    return getattr(diffusers, f"{name}Scheduler")(
        num_train_timesteps=path.steps,
        trained_betas=path.betas.tolist(),
        prediction_type=PREDICTIONS[model.denoiser.prediction],
        clip_sample=False,
        timestep_spacing="trailing",
        **own if name == "DDPM" else {},
    )
