"""Folders of diffusers as our models: what they draw, and what is refused of them."""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from pushforward import cli, optional
from pushforward.errors import DataError, MissingFile, Unavailable, Unsafe, UsageError
from pushforward.interop import load_run_or_pipeline as load_any
from pushforward.interop.diffusers import load
from pushforward.interop.diffusers.pipeline import Pipeline
from pushforward.interop.diffusers.schedules import read_scheduler
from pushforward.theory import ode


@pytest.fixture(scope="module")
def model(stable):
    return load(stable, device="cpu")


@pytest.fixture(scope="module")
def whole(diffusers, stable):
    """The same folder as its own library runs it."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        stable, local_files_only=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, ""), (5.0, ""), (5.0, "blue")])
def test_text_to_image_draws_the_pictures_of_stable_diffusions_own_pipeline(
    model, whole, guidance, negative
):
    z, text = torch.randn(2, 4, 8, 8), ["a red circle", "night"]
    c = model.conditions(text, 2)
    ours = ode.final_state(
        model.trajectory(2, c, steps=6, guidance=guidance, negative=negative, start=z)
    )
    options = {"latents": z, "num_inference_steps": 6, "guidance_scale": guidance}
    if negative:
        options["negative_prompt"] = [negative] * 2
    theirs = whole(text, output_type="latent", **options).images
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    pixels = whole(text, output_type="np", **options).images
    assert np.abs(model.to_images(ours) - 255 * pixels).max() < 0.5 + 1e-2  # it rounds to 8 bits


@pytest.mark.parametrize(("ours", "theirs"), [("dpmpp_2m", "DPMSolverMultistep"), ("heun", "Heun")])
def test_another_sampler_draws_what_the_scheduler_of_its_name_does(
    diffusers, model, whole, ours, theirs
):
    z = torch.randn(1, 4, 8, 8)
    kind = getattr(diffusers, f"{theirs}{'' if 'Multi' in theirs else 'Discrete'}Scheduler")
    scheduler = kind.from_config(whole.scheduler.config)
    times = read_scheduler(scheduler).grid(6)
    states = model.trajectory(
        1, model.conditions("moon", 1), sampler=ours, times=times, guidance=3.0, start=z
    )
    pipeline = diffusers.StableDiffusionPipeline(
        **whole.components | {"scheduler": scheduler}, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    scheduler.set_timesteps(6)
    if ours == "heun":  # its noise is that of x / alpha
        z = z * (scheduler.sigmas[0] ** 2 + 1).sqrt() / scheduler.init_noise_sigma
    made = pipeline("moon", latents=z, num_inference_steps=6, guidance_scale=3.0,
                    output_type="latent").images  # fmt: skip
    assert (ode.final_state(states) - made).norm() < 1e-5 * made.norm()


@pytest.mark.parametrize("sampler", ["ddpm", "ipndm", "dpmpp_2s", "euler", "predictor_corrector"])
def test_every_sampler_drives_it_and_a_seed_repeats_it(model, sampler):
    options = {"steps": 4, "guidance": 2.0, "sampler": sampler}
    a, b = (model.sample(2, "a red circle", seed=3, **options) for _ in range(2))
    assert a.shape == (2, 16, 16, 3) and a.dtype == np.uint8 and np.array_equal(a, b)
    assert not np.array_equal(a, model.sample(2, "night", seed=3, **options))


def test_the_autoencoder_is_that_of_diffusers_with_latents_scaled(model, whole):
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    theirs = whole.vae.encode(x).latent_dist.mean * whole.vae.config.scaling_factor
    torch.testing.assert_close(model.autoencoder.encode(x), theirs)
    back = whole.vae.decode(theirs / whole.vae.config.scaling_factor).sample
    torch.testing.assert_close(model.autoencoder.decode(theirs), back)


def test_embeddings_are_conditions_too(model):
    embedded = model.text_encoder(["a red circle"])
    a = model.sample(1, embedded, seed=0, steps=2, guidance=2.0)
    assert np.array_equal(a, model.sample(1, "a red circle", seed=0, steps=2, guidance=2.0))


def test_a_transformer_of_classes_is_guided_away_from_its_class_of_none(diffusers, tmp_path):
    """Its own pipeline mixes both noises alike, and uses no variance, the rest of its output."""
    torch.manual_seed(0)
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=2,
        sample_size=4, patch_size=2, num_embeds_ada_norm=1000, norm_num_groups=4,
    ).eval()  # fmt: skip
    torch.nn.init.normal_(network.proj_out_2.weight, std=0.1)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    pipeline = diffusers.DiTPipeline(network, vae, scheduler)
    pipeline.save_pretrained(tmp_path / "plain")
    pipeline.set_progress_bar_config(disable=True)
    names = {"id2label": {"0": "cat, puss", "2": "dog"}}
    folder = changed(tmp_path / "plain", tmp_path / "dit", "model_index.json", names)
    model = load(folder, device="cpu")
    torch.manual_seed(4)
    theirs = pipeline([2, 0], guidance_scale=3.0, num_inference_steps=5, output_type="np").images
    torch.manual_seed(4)
    start = torch.randn(2, 4, 4, 4)
    c = model.conditions(["dog", "puss"], 2)
    ours = model.to_images(
        ode.final_state(model.trajectory(2, c, guidance=3.0, steps=5, start=start))
    )
    assert np.abs(ours - 255 * theirs).max() < 0.5 + 1e-2
    with pytest.raises(UsageError, match="class fox is"):
        model.conditions("fox", 1)
    with pytest.raises(UsageError, match="class 1000 is"):
        model.conditions(1000, 1)


def test_a_network_without_a_class_of_none_says_so(diffusers, unet):
    model = Pipeline(unet(num_class_embeds=2), read_scheduler(diffusers.DDIMScheduler()))
    assert model.sample(1, 1, steps=2, seed=0).shape == (1, 8, 8)
    for options in ({}, {"y": 1, "guidance": 2.0}):
        with pytest.raises(UsageError, match="stands for an unknown one"):
            model.sample(1, steps=2, **options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"y": ["a", "b"]}, "2 conditions for 3 data"),
        ({"given": {0: 1}}, "given"),
        ({"guidance": 2.0}, "needs a condition"),
        ({"y": "moon", "negative": "sun"}, "negative does nothing without guidance"),
        ({"y": "moon", "guidance_interval": (0.2, 0.8)}, "guidance_interval does nothing"),
        ({"sampler": "magic"}, "no sampler is called 'magic'"),
        ({"eta": 2.0}, "eta"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_cannot_be_honoured_is_refused(model, options, why):
    with pytest.raises((UsageError, DataError), match=why):
        model.sample(3, **options)


def changed(stable, folder, place, change):
    """A copy of a folder in which the JSON of one place is changed."""
    shutil.copytree(stable, folder)
    file = folder / place
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return folder


def test_pickled_weights_are_refused_with_the_code_of_unsafe_files(stable, tmp_path, capsys):
    folder = shutil.copytree(stable, tmp_path / "pickled")
    (weights,) = (folder / "unet").glob("*.safetensors")
    torch.save(safetensors.torch.load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", str(folder), "-n", "1", "-o", str(tmp_path / "out")])
    assert stop.value.code == 77 and not (tmp_path / "out").exists()
    assert "could run code" in capsys.readouterr().err


def test_code_of_the_folder_is_not_run(stable, tmp_path):
    entry = {"unet": ["my_network", "MyNetwork"]}
    folder = changed(stable, tmp_path / "a", "model_index.json", entry)
    (folder / "unet" / "my_network.py").write_text("raise SystemExit(1)")
    with pytest.raises(Unsafe, match="my_network"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("part", "kind"),
    [("text_encoder", "AutoModel"), ("tokenizer", "AutoTokenizer"), ("tokenizer", "CLIPTextModel")],
)
def test_a_part_is_of_the_kind_whose_reading_is_guarded(stable, tmp_path, part, kind):
    """AutoModel would ask whether to run code of the folder; a model as tokenizer, read pickles."""
    entry = {part: ["transformers", kind]}
    with pytest.raises(Unsafe, match=kind):
        load(changed(stable, tmp_path / "a", "model_index.json", entry), device="cpu")


@pytest.mark.parametrize("entry", [3, [], {}, "UNet2DModel"])
def test_an_entry_that_is_none_is_refused(stable, tmp_path, entry):
    with pytest.raises(DataError, match="unet is"):
        load(changed(stable, tmp_path / "a", "model_index.json", {"unet": entry}), device="cpu")


def test_broken_folders_are_refused_by_name(stable, tmp_path):
    with pytest.raises(MissingFile, match="does not exist"):
        load(tmp_path / "absent", device="cpu")
    with pytest.raises(DataError, match=r"model_index\.json"):
        load(tmp_path, device="cpu")
    strange = {"addition_embed_type": "text_time"}
    cases = {
        "unet/config.json": (strange, "does not hold|text_time"),
        "model_index.json": ({"unet": ["diffusers", "NoSuchModel"]}, "NoSuchModel"),
        "scheduler/scheduler_config.json": ({"beta_schedule": "odd"}, "odd"),
    }
    for i, (place, (change, why)) in enumerate(cases.items()):
        with pytest.raises(DataError, match=why):
            load(changed(stable, tmp_path / str(i), place, change), device="cpu")


def test_weights_that_are_missing_are_no_random_numbers(stable, tmp_path):
    folder = shutil.copytree(stable, tmp_path / "lacking")
    (file,) = (folder / "unet").glob("*.safetensors")
    weights = safetensors.torch.load_file(file)
    weights.pop("conv_in.weight")
    safetensors.torch.save_file(weights, file)
    with pytest.raises(DataError, match=r"conv_in\.weight"):
        load(folder, device="cpu")
    file.write_bytes(b"no weights")
    with pytest.raises(DataError, match="UNet2DConditionModel"):
        load(folder, device="cpu")


def test_without_the_package_the_error_says_what_to_install(stable, monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"pushforward\[diffusers\]") as refused:
        load(stable)
    assert refused.value.code == 69


def test_the_command_line_draws_pictures_of_a_text(stable, tmp_path, capsys):
    words = "--condition|a red circle|--guidance|3|--steps|3|--sampler|dpmpp-2m|--seed|1|--json"
    out = tmp_path / "pictures"
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", str(stable), "-n", "2", "-o", str(out), "--set", "negative=blue",
                  *words.split("|")])  # fmt: skip
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["family"] == "UNet2DConditionModel"
    drawn = np.stack([np.asarray(Image.open(p)) for p in sorted(out.glob("*.png"))])
    options = {"guidance": 3.0, "steps": 3, "sampler": "dpmpp_2m", "negative": "blue"}
    same = load_any(stable, device="cpu").sample(2, "a red circle", seed=1, **options)
    assert np.array_equal(drawn, same)


def test_a_network_a_scheduler_and_an_autoencoder_are_read_each_from_its_own_folder(
    diffusers, unet, whole, tmp_path, capsys
):
    network, scheduler = unet(), diffusers.HeunDiscreteScheduler(timestep_spacing="trailing")
    network.save_pretrained(tmp_path / "network")
    with pytest.raises(DataError, match="scheduler"):
        load(tmp_path / "network", device="cpu")
    scheduler.save_pretrained(tmp_path / "heun")
    apart = load(tmp_path / "network", scheduler=tmp_path / "heun", device="cpu")
    start = torch.randn(10, 1, 8, 8)
    own = Pipeline(network, read_scheduler(scheduler)).sample(10, start=start, steps=3)
    assert apart.schedule.sampler == "heun"
    assert np.array_equal(apart.sample(10, start=start, steps=3), own)
    scheduler.save_pretrained(tmp_path / "network")  # now the command line finds it beside
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", str(tmp_path / "network"), "-n", "10", "--steps", "3", "--seed", "2",
                  "-o", str(tmp_path / "x.npy")])  # fmt: skip
    assert stop.value.code == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), apart.sample(10, seed=2, steps=3))
    whole.vae.save_pretrained(tmp_path / "vae")
    z = torch.randn(1, 4, 8, 8)
    theirs = whole.vae.decode(z / whole.vae.config.scaling_factor).sample
    torch.testing.assert_close(load(tmp_path / "vae", device="cpu").decode(z), theirs)
