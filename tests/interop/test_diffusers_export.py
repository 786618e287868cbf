"""What is exported draws the same pictures without us as with us."""

import json

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import cli
from pushforward.data import reading
from pushforward.data.transforms import choose_transform
from pushforward.errors import DataError, FolderInUse, UsageError
from pushforward.interop.diffusers import export, load
from pushforward.model import Preprocessing
from pushforward.networks.unet import DiffusersUNet
from pushforward.theory import ode, samplers

CHAIN = 10
SETTINGS = {"network": "diffusers", "width": 8, "depth": 2, "chain": CHAIN, "batch": 8}


@pytest.fixture(scope="module")
def fitted(diffusers):
    """Two steps of training and a push, so that all weights count: colours, channels first."""
    x = np.random.default_rng(0).integers(0, 256, (48, 3, 8, 8), dtype=np.uint8)
    y = np.array(["day", "night"])[np.arange(48) % 2]
    model = pf.fit(x, "ddpm", y=y, steps=2, seed=0, **SETTINGS)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model


def drawn(fitted, sampler, y, seed):
    """The pictures of our sampler on the chain, from noise as a pipeline draws it."""
    c = None if y is None else fitted.pipeline.tensor(fitted.schema.encode(y, 4))
    torch.manual_seed(seed)
    z = torch.randn(4, 3, 8, 8)
    options = {"variance": fitted.model.variance} if sampler == "ddpm" else {}
    run = samplers.sampler_by_name(sampler)(
        fitted.model.denoiser, z, fitted.model.path.chain(), c, **options
    )
    return ode.final_state(run)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
@pytest.mark.parametrize("y", [None, "day", "night"])
def test_the_pipeline_draws_from_the_same_noise_what_we_draw(
    diffusers, fitted, tmp_path, scheduler, y
):
    folder = export(fitted, tmp_path / "pipeline", y=y, scheduler=scheduler)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(3)
    theirs = pipeline(batch_size=4, num_inference_steps=CHAIN, output_type="np").images
    z = drawn(fitted, scheduler, y, seed=3)
    ours = (z / 2 + 0.5).clamp(0, 1).movedim(1, -1).numpy()
    assert np.abs(ours - theirs).max() < 1e-4
    pixels = fitted.schema.restore(fitted.transform.inverse(z).numpy())
    assert np.abs(np.moveaxis(pixels, 1, -1) - 255 * theirs).max() < 0.5 + 0.03
    assert z.std() > 0.1


def test_conditions_make_a_difference(fitted):
    a, b, c = (drawn(fitted, "ddim", y, seed=3) for y in (None, "day", "night"))
    assert min((a - b).abs().max(), (b - c).abs().max(), (a - c).abs().max()) > 1e-2


def test_what_was_exported_is_a_model_of_ours_again(fitted, tmp_path):
    again = load(export(fitted, tmp_path / "pipeline", y="day"), device="cpu")
    torch.manual_seed(3)
    start = torch.randn(4, 3, 8, 8)
    x = ode.final_state(again.trajectory(4, steps=CHAIN, sampler="ddim", start=start))
    torch.testing.assert_close(x, drawn(fitted, "ddim", "day", seed=3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("event", [(8, 8), (8, 8, 3), (3, 8, 8)])
def test_a_condition_in_the_bias_is_the_condition_as_it_was_told(diffusers, event):
    net = DiffusersUNet(event, 3, width=8, scales=2, steps=100)
    torch.nn.init.normal_(net.unet.conv_out.weight)
    x, c = torch.randn(2, *event), torch.randn(1, 3)
    told = net(x, torch.tensor(0.37), c.expand(2, -1))
    alone = net.unconditioned(c)(
        net.layout.to_channels_first(x).contiguous(), torch.tensor(36.0)
    ).sample
    torch.testing.assert_close(net.layout.from_channels_first(alone), told, rtol=1e-4, atol=1e-5)
    hidden, zero = (net(x, torch.tensor(0.37), k) for k in (None, torch.zeros(2, 3)))
    torch.testing.assert_close(hidden, zero)


@pytest.mark.parametrize("kind", ["eight bits", "levels", "floats"])
def test_pictures_fill_the_range_that_diffusers_shows(kind):
    """z / 2 + 1 / 2 of a picture is its share of the range: what a pipeline writes as pixels."""
    rng = np.random.default_rng(0)
    x, top = {
        "eight bits": (rng.integers(3, 200, (30, 8, 8), dtype=np.uint8), 255),
        "levels": (rng.integers(0, 17, (30, 8, 8), dtype=np.uint8), 16),
        "floats": (rng.permutation(np.linspace(0, 2.5, 1920)).reshape(30, 8, 8), 2.5),
    }[kind]
    samples = reading.read_dataset(x)
    chain = choose_transform(samples.schema, samples.x, Preprocessing.CENTRE)
    z, _ = chain.forward(torch.as_tensor(samples.x))
    share = (z / 2 + 0.5).clamp(0, 1).numpy()
    width = 0.5 if kind != "floats" else 1e-9  # integers are spread over one unit
    assert np.abs(share * top - x).max() <= width + 1e-6
    assert np.array_equal(samples.schema.restore(chain.inverse(z).numpy()), x) or kind == "floats"


def test_other_runs_and_folders_that_exist_are_refused(fitted, tmp_path):
    other = pf.fit(np.random.rand(40, 8, 8), "ddpm", steps=1, seed=0)
    with pytest.raises(UsageError, match="network=diffusers"):
        export(other, tmp_path / "other")
    with pytest.raises(UsageError, match="scheduler"):
        export(fitted, tmp_path / "other", scheduler="pndm")
    with pytest.raises(DataError, match="dusk"):
        export(fitted, tmp_path / "other", y="dusk")
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(FolderInUse, match="folder already"):
        export(fitted, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("shape", "settings"), [((8, 8), {"width": 12}), ((9, 9), {"depth": 2}), ((2,), {})]
)
def test_networks_that_cannot_be_are_refused_before_training(diffusers, shape, settings):
    with pytest.raises(UsageError, match="multiple of 8|no images"):
        pf.fit(np.random.rand(40, *shape), "ddpm", steps=1, **SETTINGS | settings)


def test_the_command_line_exports_a_run(diffusers, fitted, tmp_path, capsys):
    fitted.save(tmp_path / "run")
    words = ["--condition", "night", "--to", "diffusers", "--json"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "nights"), *words])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(tmp_path / "nights")
    same = export(fitted, tmp_path / "same", y="night")
    for part in ("unet", "scheduler"):
        a, b = ({p.name: p.read_bytes() for p in (f / part).iterdir()}
                for f in (tmp_path / "nights", same))  # fmt: skip
        assert a == b
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "x"), "--to", "onnx"])
    assert stop.value.code == 2
