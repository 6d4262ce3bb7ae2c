"""The miniatures' architectures, saved in the layouts of the real models.

These are a diffusers pipeline folder and an open_clip folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

import kcdp_lib.towers  # noqa: F401  (registers the VLM's image tower)
from kcdp_lib.pretrain import IMAGE_SIZE
from kcdp_lib.pretrain.texts import MAX_LENGTH, make_tokenizer

HIDDEN = 128  # width of the text encoder and of the UNet's cross-attention

VAE = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=16,
    block_out_channels=(24, 32, 64, 80),
    layers_per_block=1,
    norm_num_groups=8,
    sample_size=IMAGE_SIZE,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    mid_block_add_attention=False,
)
CHANNELS = (32, 64, 96, 128)  # of the UNet's levels
UNET = dict(
    sample_size=IMAGE_SIZE // 8,
    in_channels=16,
    out_channels=16,
    block_out_channels=CHANNELS,
    layers_per_block=2,
    cross_attention_dim=HIDDEN,
    attention_head_dim=(2, 4, 6, 8),  # heads of each level, 16 wide each
    norm_num_groups=8,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
)
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    skip_prk_steps=True,
    set_alpha_to_one=False,
    steps_offset=1,
)
COCA: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {
        "image_size": IMAGE_SIZE,
        "timm_model_name": "kcdp_efficient_tokens",
        "timm_pool": "",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": MAX_LENGTH,
        "width": 192,
        "heads": 6,
        "layers": 3,
        "embed_cls": True,
        "output_tokens": True,
        "hf_tokenizer_name": "local",
    },
    "multimodal_cfg": {"context_length": MAX_LENGTH, "width": 192, "heads": 6, "layers": 3},
    "custom_text": True,
}
PREPROCESS = {
    # as for the tower on ImageNet: (x - 127) / 128
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def text_config(vocab_size: int) -> CLIPTextConfig:
    """Configure the miniature of Stable Diffusion's text encoder.

    Three layers, width `HIDDEN`, at most `MAX_LENGTH` tokens.
    """
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=HIDDEN,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=1,
    )


def lay_out(folder: Path, said: Sequence[str] = ()) -> None:
    """Write everything except the weights.

    That is configs, tokenizers, scheduler, model_index.json and open_clip_config.json. The
    tokenizer is trained on the world's texts and on `said`, people's words for real drawings.
    """
    diffusion, vlm = folder / "diffusion", folder / "vlm"
    tokenizer = make_tokenizer(diffusion / "tokenizer", "<|endoftext|>", said)
    # CoCa pads with id 0, Stable Diffusion's text encoder with the end token.
    make_tokenizer(vlm, "<|pad|>", said)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    (diffusion / "model_index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    PNDMScheduler(**SCHEDULER).save_pretrained(diffusion / "scheduler")
    coca = json.loads(json.dumps(COCA))
    coca["text_cfg"]["vocab_size"] = coca["multimodal_cfg"]["vocab_size"] = len(tokenizer)
    (vlm / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": coca, "preprocess_cfg": PREPROCESS}, indent=1),
        encoding="utf-8",
    )


def new_vae() -> AutoencoderKL:
    """Build a VAE with random weights: images [B, 3, S, S] in [-1, 1] <-> [B, 16, S/8, S/8]."""
    return AutoencoderKL(**VAE)


def new_text_encoder(vocab_size: int) -> CLIPTextModel:
    """Build a text encoder with random weights.

    Token ids [B, L] -> tokens [B, L, H], with H = `HIDDEN` and L at most `MAX_LENGTH`.
    """
    return CLIPTextModel(text_config(vocab_size))


def new_unet() -> UNet2DConditionModel:
    """Build a UNet with random weights: latents [B, 16, h, w], tokens [B, L, H] -> the noise.

    Its blocks are those of Stable Diffusion, where KADAP finds its maps.
    """
    return UNet2DConditionModel(**UNET)


def new_coca(folder: Path) -> open_clip.CoCa:
    """Build the CoCa of `folder`/vlm/open_clip_config.json with random weights."""
    config = json.loads((folder / "vlm" / "open_clip_config.json").read_text(encoding="utf-8"))[
        "model_cfg"
    ]
    config.pop("custom_text")
    model = open_clip.CoCa(**config)
    # open_clip 3.3 leaves the decoder's projection uninitialised
    torch.nn.init.normal_(
        model.text_decoder.text_projection, std=config["multimodal_cfg"]["width"] ** -0.5
    )
    return model


def load_coca(folder: Path) -> open_clip.CoCa:
    """Load the CoCa that `save_coca` wrote, in evaluation mode."""
    model = new_coca(folder)
    model.load_state_dict(load_file(folder / "vlm" / "open_clip_model.safetensors"))
    return model.float().eval()


def save_coca(model: torch.nn.Module, folder: Path) -> None:
    """Write the CoCa's weights as fp16 safetensors under open_clip's file name."""
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / "vlm" / "open_clip_model.safetensors")


def save_diffusion(part: Any, name: str, folder: Path) -> None:
    """Write one part of the pipeline, as fp16 safetensors with its config.

    name: "vae", "unet" or "text_encoder".
    """
    target = folder / "diffusion" / name
    part.save_pretrained(target)
    for path in target.glob("*.safetensors"):
        state = {
            key: value.half() if value.is_floating_point() else value
            for key, value in load_file(path).items()
        }
        save_file(state, path, metadata={"format": "pt"})
