"""A backbone pre-trained on ImageNet and fine-tuned on the source, as the paper's baseline is.

The baseline, TGCA-PVT, is a pyramid vision transformer trained on one domain (chapter "A fair
comparison"). No package registry has its weights; EfficientNet-Lite0's are available
(`make corpus`), so this backbone takes that role. It sees no caption and no target.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn
from torchvision.transforms import v2

from kcdp_lib import metrics, paths

BACKBONE = "tf_efficientnet_lite0"
RATES, EPOCHS, BATCH = (3e-4, 1e-3), 12, 32


def augmentation(size: int) -> v2.Transform:
    """Return the usual random augmentation of uint8 images [3, size, size]."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.6, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.3, 0.3, 0.3, 0.05),
            v2.RandomErasing(0.25),
        ]
    )


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Scale uint8 images [N, 3, S, S] to float32, about -1 to 1, as in the backbone's pre-training.

    Channels last, like the weights of `new_backbone`, which halves the time on a CPU.
    """
    return ((images.float() - 127) / 128).contiguous(memory_format=torch.channels_last)


def new_backbone(classes: int, weights: dict[str, torch.Tensor] | None = None) -> nn.Module:
    """Build the backbone with a fresh last layer for C classes (seed torch before).

    weights: ImageNet's, {name: [N, ...]}, from timm's model for its 1,000 classes. RuntimeError if
    one is missing.
    """
    model = timm.create_model(BACKBONE, num_classes=classes, drop_rate=0.2)
    if weights:
        fresh = {name: value for name, value in model.state_dict().items() if "classifier" in name}
        model.load_state_dict(weights | fresh)
    return model.to(memory_format=torch.channels_last)


def fine_tune(
    weights: dict[str, torch.Tensor],
    images: torch.Tensor,
    labels: np.ndarray,
    held: torch.Tensor,
    held_labels: np.ndarray,
    classes: int,
    seed: int,
) -> nn.Module:
    """Train the backbone on uint8 images [N, 3, S, S] of the source with labels [N] (-1: none).

    The learning rate and the epoch are those with the best macro-F1 on other pictures of the
    source, `held` [M, 3, S, S] with held_labels [M].
    """
    best, best_score = nn.Module(), -1.0
    for rate in RATES:
        for model in epochs(weights, images, labels, classes, rate, seed):
            probs = answer(model, held)
            score = metrics.scores(held_labels, probs, [*map(str, range(classes))], 0)["macro_f1"]
            if score > best_score:
                best, best_score = copy.deepcopy(model), score
    return best


def epochs(
    weights: dict[str, torch.Tensor],
    images: torch.Tensor,
    labels: np.ndarray,
    classes: int,
    rate: float,
    seed: int,
) -> Iterator[nn.Module]:
    """Yield the model after each epoch of one training: cross-entropy, AdamW, warm-up and cosine.

    weights, uint8 images [N, 3, S, S] and labels [N] as in `fine_tune`.
    """
    torch.manual_seed(seed)
    model = new_backbone(classes, weights)
    augment = augmentation(images.shape[-1])
    rows = torch.as_tensor(np.flatnonzero(labels >= 0))
    wanted = torch.as_tensor(labels).long()
    per_epoch = max(1, len(rows) // BATCH)  # an artist's set may have fewer than a batch
    steps = EPOCHS * per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        model.train()
        batches = rows[torch.randperm(len(rows))].split(BATCH)[:per_epoch]
        for batch in paths.progress(batches, f"backbone at {rate}, {epoch + 1} of {EPOCHS}"):
            augmented = torch.stack([augment(image) for image in images[batch]])
            loss = F.cross_entropy(model(normalised(augmented)), wanted[batch], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        yield model.eval()


@torch.no_grad()
def answer(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Return probabilities [N, C] of uint8 images [N, 3, S, S]."""
    model.eval()
    parts = [model(normalised(batch)).softmax(-1) for batch in images.split(100)]
    return torch.cat(parts).numpy()


@torch.no_grad()
def with_averages_of(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return a copy with batch-norm statistics of uint8 images [N, 3, S, S], without labels.

    This is AdaBN (Li et al. 2018), adaptation without a loss.
    """
    adapted = copy.deepcopy(model)
    update_bn(map(normalised, images.split(100)), adapted)
    return adapted.eval()
