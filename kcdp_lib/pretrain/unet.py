"""Train the UNet: denoising, with its maps aligned with the VLM's image tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import nn
from transformers import CLIPTokenizer

from kcdp_lib.config import BACKBONES
from kcdp_lib.pretrain import stack
from kcdp_lib.pretrain.coca import seen_by
from kcdp_lib.pretrain.stage import Stage, key_of
from kcdp_lib.pretrain.task import Task, draw_rows, kept, mixture
from kcdp_lib.pretrain.vae import encode_latents

# Share of each batch with almost no noise, as in KADAP ...
CLEAN = 0.5
# ... and the shares of it, and of the rest, with a caption. Most of the clean pictures have none: a
# UNet that reads the caption need not look at the picture.
SPOKEN = (0.25, 0.8)
# Maps that KADAP reads, aligned with the VLM's image tokens, by channels
ALIGNED = dict(zip(BACKBONES["sd"].maps, stack.CHANNELS, strict=True))


class Aligned(nn.Module):
    """The UNet with heads that align its features with the VLM's (REPA, arXiv 2410.06940).

    Each map that KADAP reads gets a small projection, place by place, and a linear one of its mean
    and maximum, as KADAP pools it. Only the UNet is kept.
    """

    def __init__(self, unet: Any, width: int):
        super().__init__()
        self.unet = unet
        self.maps: dict[str, torch.Tensor] = {}
        self.places, self.wholes = nn.ModuleList(), nn.ModuleList()
        for name, channels in ALIGNED.items():
            unet.get_submodule(name).register_forward_hook(self.keep(name))
            self.places.append(
                nn.Sequential(nn.Conv2d(channels, width, 1), nn.SiLU(), nn.Conv2d(width, width, 1))
            )
            self.wholes.append(nn.Linear(2 * channels, width))

    def keep(self, name: str) -> Callable:
        """Return a hook that stores a module's map [B, C, h, w]."""

        def hook(module, inputs, output):
            self.maps[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def unlike(self, seen: torch.Tensor) -> torch.Tensor:
        """Return the cosine distance [] of the projected maps from the VLM's tokens, [B, 1 + T, D].

        The first token is the picture as a whole, the others are its T places.
        """
        side = int((seen.shape[1] - 1) ** 0.5)
        grid = seen[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        distances = []
        for name, place, whole in zip(ALIGNED, self.places, self.wholes, strict=True):
            map_ = self.maps[name]
            wanted = F.adaptive_avg_pool2d(grid, (map_.shape[2], map_.shape[3]))
            distances.append(1 - F.cosine_similarity(place(map_), wanted, dim=1).mean())
            pooled = torch.cat([map_.mean((2, 3)), map_.amax((2, 3))], 1)
            distances.append(1 - F.cosine_similarity(whole(pooled), seen[:, 0]).mean())
        return torch.stack(distances).mean()


def train_unet(task: Task) -> None:
    """Train Stable Diffusion's objective: predict the noise of scaled latents, given the caption.

    A share 1 - `SPOKEN` of the captions is empty, most of them where the picture is clean. In every
    other step the cross-attention does not see the padding, so that both recipes find a context
    that the UNet knows. Meanwhile its maps are aligned with the VLM's image tokens; a share `CLEAN`
    of the batch carries almost no noise, as in KADAP, and has this loss alone.
    """
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    pictures, told = mixture(task)
    vae = AutoencoderKL.from_pretrained(task.out / "diffusion" / "vae", use_safetensors=True)
    vae.to(task.device)
    vlm = stack.load_coca(task.out)
    latents = kept(
        task, f"latents-{key_of(vae)}", lambda: encode_latents(vae, pictures, task.device)
    )
    seen = seen_by(vlm, task, pictures)
    tokenizer = CLIPTokenizer.from_pretrained(task.out / "diffusion" / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(
        task.out / "diffusion" / "text_encoder", use_safetensors=True
    ).to(task.device)
    scheduler = DDPMScheduler(**{k: v for k, v in stack.SCHEDULER.items() if k.startswith("beta")})
    model = Aligned(stack.new_unet(), seen.shape[-1])
    model.to(memory_format=torch.channels_last)
    made_from = [key_of(part) for part in (vae, vlm.visual, text_encoder)]
    stage = Stage("unet", task, model, made_from=made_from)
    # the captions of all pictures, and last an empty one
    texts = tokenizer([*told, ""], padding="max_length", truncation=True, return_tensors="pt").to(
        task.device
    )

    def loss(rng, batch):
        rows = draw_rows(rng, len(latents), batch)
        rng.shuffle(rows)
        clean = int(CLEAN * batch)
        is_told = rng.random(batch) < np.repeat(SPOKEN, (clean, batch - clean))
        said = np.where(is_told, rows, len(told))
        with torch.no_grad():
            tokens = text_encoder(texts.input_ids[said]).last_hidden_state
        x = latents[rows].to(task.device).float() * vae.config.scaling_factor
        x = x.contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (batch,)).to(task.device)
        t[:clean] = t[:clean] // 20
        noisy = scheduler.add_noise(x, noise, t)
        mask = texts.attention_mask[said] if rng.random() < 0.5 else None
        predicted = model.unet(noisy, t, tokens, encoder_attention_mask=mask).sample
        denoising = F.mse_loss(predicted[clean:], noise[clean:])
        return denoising + model.unlike(seen[rows].float().to(task.device))

    stage.run(loss)
    stack.save_diffusion(model.unet.cpu(), "unet", task.out)
