"""Tiny networks of diffusers with random weights, made here: nothing is downloaded."""

import json

import pytest
import torch

TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.fixture(scope="session")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="session")
def unet(diffusers):
    """A network of grey pictures of 8 x 8, or one with other sizes."""

    def tiny(**changes):
        sizes = {
            "sample_size": 8,
            "in_channels": 1,
            "out_channels": 1,
            "layers_per_block": 1,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        }
        torch.manual_seed(0)
        return diffusers.UNet2DModel(**sizes | changes).eval().requires_grad_(False)

    return tiny


@pytest.fixture(scope="session")
def stable(diffusers, tmp_path_factory):
    """The folder of a Stable-Diffusion-shaped pipeline that its own library has saved."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("stable")
    tokenizer = tiny_tokenizer(transformers, folder / "words")
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=12, projection_dim=16,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    network = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
        cross_attention_dim=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        latent_channels=4, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=16,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        **TABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    diffusers.StableDiffusionPipeline(
        unet=network, vae=vae, scheduler=scheduler, tokenizer=tokenizer,
        text_encoder=transformers.CLIPTextModel(text), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "pipeline")  # fmt: skip
    return folder / "pipeline"


def tiny_tokenizer(transformers, folder):
    """Letters alone, with and without the end of a word, and no merges."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [*letters, *(f"{a}</w>" for a in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 12}))
    return transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
