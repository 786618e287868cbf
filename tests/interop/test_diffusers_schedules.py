"""Our samplers against the schedulers of diffusers, state by state, on the same network."""

import math

import pytest
import torch

from pushforward.errors import DataError, UsageError
from pushforward.interop.diffusers.networks import DiffusersNetwork, no_condition
from pushforward.interop.diffusers.schedules import ClippedDenoiser, SchedulerPath, read_scheduler
from pushforward.theory import ddpm_schedule, samplers
from pushforward.theory.denoisers import NetworkDenoiser

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SPACINGS = ("leading", "trailing", "linspace")
WHOLE = {"clip_sample": False}
CASES = [
    ("DDPMScheduler", STABLE | WHOLE),
    ("DDPMScheduler", {"clip_sample": True, "clip_sample_range": 0.5}),
    ("DDPMScheduler", WHOLE | {"variance_type": "fixed_large", "prediction_type": "v_prediction"}),
    ("DDIMScheduler", STABLE | WHOLE | {"set_alpha_to_one": False, "steps_offset": 1}),
    (
        "DDIMScheduler",
        WHOLE
        | {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
        | {"timestep_spacing": "trailing"},
    ),
    (
        "DDIMScheduler",
        WHOLE
        | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        | {"timestep_spacing": "trailing"},
    ),
    *[("EulerDiscreteScheduler", STABLE | {"timestep_spacing": s}) for s in SPACINGS],
    *[("HeunDiscreteScheduler", STABLE | {"timestep_spacing": s}) for s in SPACINGS],
    *[("DPMSolverMultistepScheduler", STABLE | {"timestep_spacing": s}) for s in SPACINGS],
    ("DPMSolverMultistepScheduler", STABLE | {"final_sigmas_type": "sigma_min"}),
    ("EulerDiscreteScheduler", STABLE | {"use_karras_sigmas": True}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
]
NAMES = [f"{name[:5]}-{'-'.join(map(str, settings.values()))}" for name, settings in CASES]


def theirs(scheduler, net, x, steps):
    """The states of a scheduler after each of its steps, in units in which data are unscaled."""
    scheduler.set_timesteps(steps)
    inflated = type(scheduler).__name__.startswith(("Euler", "Heun"))
    sigmas = getattr(scheduler, "sigmas", None)  # theirs are x / alpha, and sigma / alpha
    x = x * (sigmas[0] ** 2 + 1).sqrt() if inflated else x
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, t) if inflated else x
        x = scheduler.step(net(seen, t, return_dict=False)[0], t, x).prev_sample
        yield x / (sigmas[i + 1] ** 2 + 1).sqrt() if inflated else x


def agree(scheduler, net, x, steps=20):
    """The largest relative distance of a state of ours from theirs, the noise of steps alike.

    The steps divide the table: otherwise a step of DDIM with trailing timesteps does not end where
    the next one begins.
    """
    schedule = read_scheduler(scheduler)
    denoiser = NetworkDenoiser(
        DiffusersNetwork(net, no_condition), schedule.path, schedule.prediction
    )
    denoiser = schedule.clip_denoiser(denoiser)
    run, times = samplers.sampler_by_name(schedule.sampler), schedule.grid(steps)
    options = {"variance": schedule.variance} if run is samplers.ddpm else {}
    torch.manual_seed(1)
    ours = list(run(denoiser, x, times, None, **options))
    torch.manual_seed(1)
    other = list(theirs(scheduler, net, x, steps))
    if "Heun" in type(scheduler).__name__:  # two of their steps are one, but for the last
        other = [*other[1::2], other[-1]]
    assert len(ours) == len(other) == steps
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, other))


@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_every_state_is_that_of_the_scheduler(diffusers, unet, name, settings, dtype):
    """Up to the rounding of their tables, which they keep in float32."""
    scheduler = getattr(diffusers, name)(**settings)
    assert agree(scheduler, unet().to(dtype), torch.randn(2, 1, 8, 8, dtype=dtype)) < 1e-5


def test_ddim_keeps_the_noise_where_it_clips_the_data(diffusers, unet):
    """In double precision: away from the network's own way, rounding grows from step to step."""
    scheduler = diffusers.DDIMScheduler(**STABLE, clip_sample=True)
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert agree(scheduler, unet().double(), x) < 1e-5


def test_where_a_scheduler_cuts_timesteps_to_whole_ones_ours_stay_at_the_noise(diffusers, unet):
    """With Karras' levels DPMSolverMultistep tells the network another time than that of x_t."""
    scheduler = diffusers.DPMSolverMultistepScheduler(**STABLE, use_karras_sigmas=True)
    schedule, x = read_scheduler(scheduler), torch.randn(2, 1, 8, 8)
    assert 1e-5 < agree(scheduler, unet(), x) < 1e-2
    times = schedule.grid(20)
    ratio = schedule.path.sigma(times) / schedule.path.alpha(times)
    torch.testing.assert_close(ratio[:-1].float(), scheduler.sigmas[:-1], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize(
    ("settings", "betas"),
    [
        ({"beta_schedule": "linear"}, ddpm_schedule.linear_betas(1000)),
        (STABLE, torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2),
        ({"beta_schedule": "squaredcos_cap_v2"}, ddpm_schedule.cosine_betas(1000)),
    ],
    ids=["linear", "scaled_linear", "cosine"],
)
def test_the_path_is_that_of_the_papers_tables(diffusers, name, settings, betas):
    """Theirs are float32 products of a thousand numbers: each rounds by up to 6e-8."""
    path = read_scheduler(getattr(diffusers, name)(**settings)).path
    exact = ddpm_schedule.DDPMPath(betas)
    nodes = exact.chain()[:-1]
    torch.testing.assert_close(path.alpha(nodes), exact.alpha(nodes), rtol=6e-5, atol=1e-9)
    torch.testing.assert_close(path.sigma(nodes), exact.sigma(nodes), rtol=1e-3, atol=0.0)
    assert path.network_time(nodes.float()).tolist() == list(range(999, -1, -1))


def test_a_path_that_ends_in_pure_noise_falls_all_the_way():
    bar = torch.tensor([0.9, 0.5, 0.001, 0.0])
    path = SchedulerPath(bar)
    ends = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    found = path.alpha(ends).square()
    torch.testing.assert_close(found[:3], bar[:3].double(), rtol=1e-12, atol=0.0)
    assert 0 < found[3] < 1e-9


def test_a_clipped_denoiser_agrees_with_the_state(diffusers, unet):
    """Whatever is clipped, x_t = alpha x + sigma eps."""
    schedule = read_scheduler(diffusers.DDPMScheduler(clip_sample_range=0.3))
    inner = NetworkDenoiser(
        DiffusersNetwork(unet(), no_condition), schedule.path, schedule.prediction
    )
    x_t, t = torch.randn(3, 1, 8, 8), torch.tensor([0.2, 0.5, 0.9])
    x, eps = ClippedDenoiser(inner, 0.3)(x_t, t)
    assert x.abs().max() == pytest.approx(0.3)
    torch.testing.assert_close(schedule.path.interpolate(x, eps, t), x_t)


def test_a_grid_that_the_scheduler_cannot_make_is_refused(diffusers):
    with pytest.raises(UsageError, match="2000 steps"):
        read_scheduler(diffusers.DDIMScheduler()).grid(2000)
    with pytest.raises(UsageError, match="times"):
        read_scheduler(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)).grid(
            10
        )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("EDMEulerScheduler", {}),
        ("DDPMScheduler", {"thresholding": True}),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}),
    ],
)
def test_schedulers_that_mean_something_else_are_refused(diffusers, name, settings):
    with pytest.raises(DataError, match=name):
        read_scheduler(getattr(diffusers, name)(**settings))


def test_flow_matching_is_the_linear_path_and_its_velocity(diffusers):
    schedule = read_scheduler(diffusers.FlowMatchEulerDiscreteScheduler())
    t = torch.tensor(0.3)
    assert [float(z) for z in schedule.path(t)] == pytest.approx([0.7, 0.3])
    assert [float(z) for z in schedule.prediction(schedule.path, t)] == [-1.0, 1.0]
    assert float(schedule.path.network_time(t)) == pytest.approx(300)
    assert math.isclose(float(schedule.grid(10)[0]), 1.0)
