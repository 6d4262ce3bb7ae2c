"""Train the VAE."""

from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from kcdp_lib import paths, world
from kcdp_lib.pretrain import IMAGE_SIZE, stack
from kcdp_lib.pretrain.stage import Stage, key_of
from kcdp_lib.pretrain.task import Task, images, mixture, resident


class Likeness(nn.Module):
    """Perceptual distance of two pictures, in features of every level of the VLM's frozen tower.

    A tear of three pixels hardly changes the squared error, but it changes the expression. Latents
    that keep what a trained tower sees are the idea of VA-VAE (arXiv 2501.01423).
    """

    def __init__(self, task: Task):
        super().__init__()
        self.trunk: Any = timm.create_model("tf_efficientnet_lite0", features_only=True)
        self.trunk.load_state_dict(stack.load_coca(task.out).visual.trunk.trunk.state_dict())
        self.trunk.requires_grad_(False).eval()
        self.trunk.to(task.device, memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean squared distance [] of normalised features of x and y [B, 3, S, S] in [-1, 1]."""
        distances = []
        x, y = (of.contiguous(memory_format=torch.channels_last) for of in (x, y))
        with torch.no_grad():
            wanted = self.trunk(x)
        for there, here in zip(wanted, self.trunk(y), strict=True):
            length = there.pow(2).mean(1, keepdim=True).add(1e-3).sqrt()
            distances.append(((there - here) / length).pow(2).mean())
        return torch.stack(distances).mean()


def train_vae(task: Task) -> None:
    """Train on reconstruction (L1 + L2, and `Likeness`) with a light KL term.

    Crops of half the side in bfloat16 come first, whole pictures in full precision in the last
    tenth. Sketches and paintings, whose lines and strokes are hardest to keep, are sampled twice as
    often. The scaling factor makes the latents' standard deviation one, as in Stable Diffusion.
    """
    pictures, told = mixture(task)
    hard = {world.causes.DOMAINS[domain].word for domain in ("sketches", "paintings")}
    share = np.array([2.0 if text.split()[1] in hard else 1.0 for text in told])
    share /= share.sum()
    vae, likeness = stack.new_vae(), Likeness(task)
    stage = Stage("vae", task, vae, made_from=[key_of(likeness.trunk)])
    there = resident(task, pictures)

    def loss(rng, batch):
        whole = stage.step >= 0.9 * stage.steps
        rows = rng.choice(len(pictures), batch // 4 if whole else batch, replace=False, p=share)
        x = images(there, rows, rng, task.device, shift=0)
        if not whole:
            left, top = rng.integers(0, IMAGE_SIZE // 2 + 1, 2)
            x = x[:, :, top : top + IMAGE_SIZE // 2, left : left + IMAGE_SIZE // 2]
        with torch.autocast(task.device, torch.bfloat16, enabled=not whole):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample.float()
        divergence = 1e-3 * posterior.kl().float().mean() / x[0].numel()
        return (x - y).abs().mean() + (x - y).pow(2).mean() + likeness(x, y) + divergence

    stage.run(loss)
    some = encode_latents(vae, pictures[:: len(pictures) // 256 + 1], task.device)
    vae.register_to_config(scaling_factor=round(1 / some.float().std().item(), 5))
    stack.save_diffusion(vae.cpu(), "vae", task.out)


@torch.no_grad()
def encode_latents(vae, pictures: np.ndarray, device: str) -> torch.Tensor:
    """Return posterior modes [N, Z, S/8, S/8], float16, of uint8 pictures [N, S, S, 3], unscaled.

    Method chapter, eq-latents with a factor of one.
    """
    modes = []
    for i in paths.progress(range(0, len(pictures), 64), "encoding"):
        block = torch.from_numpy(np.array(pictures[i : i + 64]))
        pixels = block.permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast(device, torch.bfloat16):
            modes.append(vae.encode(pixels.to(device)).latent_dist.mode().half().cpu())
    return torch.cat(modes)
