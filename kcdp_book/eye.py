"""Measure what pre-training is worth to the UNet as a perception model, by labels and steps.

The whole UNet is trained on the labels of one domain, with an empty text as its knowledge: once
from pre-trained weights, once from random ones. A normalised linear head reads it, so that neither
the scale of the features nor the head's learning rate decides the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kcdp_lib import paths
from kcdp_lib.config import Preset, Recipe
from kcdp_lib.perception import load_kadap

UNET_RATE, HEAD_RATE, BATCH = 5e-4, 2e-3, 32


class Eye(nn.Module):
    """Classify by the mean and the maximum of the UNet's four maps [B, channels, h, w].

    These are KADAP's maps (method chapter, eq-maps), without pyramid, experts and knowledge.
    nothing: tokens [1, T, H] and mask [1, T] of an empty text.
    """

    def __init__(
        self, preset: Preset, recipe: Recipe, nothing: Sequence[torch.Tensor], classes: int
    ):
        super().__init__()
        tokens, mask = nothing
        self.kadap = load_kadap(preset, recipe, tokens.shape[1], classes=classes)
        self.register_buffer("tokens", tokens)
        self.register_buffer("mask", mask)
        width = 2 * sum(block[0].in_channels for block in self.kadap.fpn.inner_blocks)
        self.head = nn.Sequential(nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, classes))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return logits [B, C] of latents [B, Z, h, w]."""
        tokens, mask = (of.expand(len(latents), *of.shape[1:]) for of in (self.tokens, self.mask))
        maps, _ = self.kadap.look(latents, tokens, mask)
        pooled = [torch.cat([map_.mean((2, 3)), map_.amax((2, 3))], 1) for map_ in maps]
        return self.head(torch.cat(pooled, 1))


def train(
    eye: Eye, latents: torch.Tensor, labels: np.ndarray, looks: Sequence[int], seed: int
) -> Iterator[tuple[int, Eye]]:
    """Train an `Eye` and yield it after each number of steps in `looks`; the last ends training.

    It is trained on latents [N, Z, h, w] with labels [N], mirrored in every other step, by AdamW
    with warm-up and a cosine schedule over all steps; the earlier evaluations are therefore at high
    learning rates. Every picture is shown once before any is shown again.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.as_tensor(labels).long()
    trained = [*eye.kadap.unet.parameters()], [*eye.head.parameters()]
    rates = UNET_RATE, HEAD_RATE
    groups = [{"params": some, "lr": rate} for some, rate in zip(trained, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, looks[-1], pct_start=0.1, cycle_momentum=False
    )
    waiting = torch.arange(0)
    for step in paths.progress(range(looks[-1]), f"eye on {len(labels)} labels"):
        eye.train()
        while len(waiting) < BATCH:
            order = torch.randperm(len(wanted), generator=generator)
            waiting = torch.cat([waiting, order])
        rows, waiting = waiting[:BATCH], waiting[BATCH:]
        seen = latents[rows]
        if step % 2:
            seen = seen.flip(3)
        loss = F.cross_entropy(eye(seen), wanted[rows], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*trained[0], *trained[1]], 1.0)
        optimizer.step()
        schedule.step()
        if step + 1 in looks:
            yield step + 1, eye.eval()


@torch.no_grad()
def answer(eye: Eye, latents: torch.Tensor) -> np.ndarray:
    """Return probabilities [N, C] of latents [N, Z, h, w]."""
    return torch.cat([eye(some).softmax(-1) for some in latents.split(64)]).numpy()
