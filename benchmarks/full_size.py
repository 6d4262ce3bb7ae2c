"""Stable Diffusion 1.5 and CoCa ViT-L/14 with random weights, in files like the true ones.

The library loads them with the same code. They serve where sizes matter and values do not: cost,
memory, mixed precision. They take about 3.5 GB and are written once to the cache;
`python benchmarks/full_size.py` writes them and prints where.
"""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from open_clip.tokenizer import bytes_to_unicode, default_bpe
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from kcdp_lib import paths
from kcdp_lib.config import PRESETS, Preset
from kcdp_lib.pretrain.stack import SCHEDULER

VAE = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    sample_size=512,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
)
UNET = dict(
    sample_size=64,
    in_channels=4,
    out_channels=4,
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    cross_attention_dim=768,
    attention_head_dim=8,
)
TEXT = dict(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=77,
    projection_dim=768,
    bos_token_id=49406,
    eos_token_id=49407,
    pad_token_id=1,
)


def random_preset(name: str = "sd15") -> Preset:
    """Return the preset with random models of the same sizes; writes missing files (minutes)."""
    folder = paths.CACHE / "random" / name
    if not (folder / "done").exists():
        write(folder)
        (folder / "done").touch()
    return replace(
        PRESETS[name],
        diffusion=str(folder / "diffusion"),
        vlm=f"local-dir:{folder / 'vlm'}",
        vlm_pretrained=None,
    )


def write(folder: Path) -> None:
    """Write both folders, `diffusion` and `vlm`."""
    write_diffusion(folder / "diffusion")
    write_vlm(folder / "vlm")


def write_diffusion(folder: Path, vae: dict = VAE, unet: dict = UNET, text: dict = TEXT) -> None:
    """Write a pipeline of given sizes with random weights.

    As in the download, these are fp16 safetensors under diffusers' variant names.
    """
    torch.manual_seed(0)
    for name, make in (
        ("vae", lambda: AutoencoderKL(**vae)),
        ("unet", lambda: UNet2DConditionModel(**unet)),
        ("text_encoder", lambda: CLIPTextModel(CLIPTextConfig(**text))),
    ):
        make().half().save_pretrained(folder / name, variant="fp16")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    clip_tokenizer().save_pretrained(folder / "tokenizer")


def write_vlm(vlm: Path) -> None:
    """Write CoCa ViT-L/14 with random weights, in open_clip's format."""
    torch.manual_seed(0)
    config = open_clip.get_model_config("coca_ViT-L-14")
    vlm.mkdir(parents=True, exist_ok=True)
    coca = open_clip.create_model("coca_ViT-L-14")
    torch.nn.init.normal_(
        coca.text_decoder.text_projection, std=0.02
    )  # open_clip 3.3 leaves it uninitialised
    save_file(
        {
            key: value.half().contiguous() if value.is_floating_point() else value
            for key, value in coca.state_dict().items()
        },
        vlm / "open_clip_model.safetensors",
    )
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    (vlm / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std}}),
        encoding="utf-8",
    )


def clip_tokenizer() -> CLIPTokenizer:
    """Build CLIP's tokenizer of 49,408 tokens from the table in open_clip."""
    merges = gzip.open(default_bpe()).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *("".join(merge.split()) for merge in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)},
        merges=[tuple(merge.split()) for merge in merges],
        model_max_length=77,
    )


if __name__ == "__main__":
    print(random_preset().diffusion)
