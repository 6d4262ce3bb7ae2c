"""The training data of a pre-training stage: pictures of the world and real drawings."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from kcdp_lib import paths
from kcdp_lib.pretrain import IMAGE_SIZE, captions, corpus, drawings

# Source of the text side's knowledge of emotions: people's words for real drawings and a sentence
# encoder, the generator's own table (`texts.HEARSAY`), or both
KNOWLEDGE = ("language", "hearsay", "both")
VARIANTS = 4  # captions of each drawing


class Task(NamedTuple):
    """Training data of a stage, and where it writes."""

    work: Path  # the corpus, and checkpoints below it
    out: Path  # the finished models
    device: str = "cpu"
    knowledge: str = "both"  # one of `KNOWLEDGE`
    without: tuple[str, ...] = ()  # sets of drawings left out, for tests on them
    budget: str = "cpu"  # one of `stage.BUDGETS`

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints for this knowledge and these sets."""
        return self.work / "-".join([self.knowledge, *(f"without-{one}" for one in self.without)])

    @property
    def pictures(self) -> str:
        """Key of the world's pictures and the drawings, 12 hex digits."""
        return paths.sha(corpus.key(), drawings.key(), *self.without)[:12]

    @property
    def by_language(self) -> bool:
        """Whether the sentence encoder and people's words are used."""
        return self.knowledge != "hearsay"

    def answers(self, felt: torch.Tensor, ours: np.ndarray) -> torch.Tensor:
        """Return the target feelings of N texts: `felt` [N, W], or zeros for none.

        With both kinds of knowledge, texts of the world, `ours` [N], get theirs from hearsay.
        """
        if self.knowledge == "both":
            return felt * ~torch.from_numpy(ours)[:, None]
        return felt


class Drawn(NamedTuple):
    """Real drawings with captions."""

    pictures: np.ndarray  # uint8 RGBA [N, S, S, 4]
    about: list[drawings.Drawing]
    captions: list[list[str]]  # `VARIANTS` lists of N
    share: np.ndarray  # how often each is drawn, [N], sums to one


def read_drawings(task: Task) -> Drawn:
    """Return the drawings of all sets that are not left out, with captions from a fixed seed.

    Faces are sampled most; characters without named features, least.
    """
    pictures, about = drawings.build(task.work)
    kept = [i for i, one in enumerate(about) if one.set not in task.without]
    about = [about[i] for i in kept]
    rng = np.random.default_rng([6, 12])
    told = [[captions.caption(one, rng) for one in about] for _ in range(VARIANTS)]
    share = np.array([interest(one) for one in about])
    if task.without:
        pictures = pictures[kept]
    return Drawn(pictures, about, told, share / share.sum())


def interest(drawing: drawings.Drawing) -> float:
    """Return how often a drawing is sampled, relative to that of an object."""
    if drawing.group == "face":
        return 4.0
    if drawing.group == "character":
        return 1.0 if drawing.words else 0.25
    return 1.0


def spoken(task: Task) -> list[str]:
    """Return all texts on the real drawings, from which the tokenizer learns its words."""
    drawn = read_drawings(task)
    told = [text for variant in drawn.captions for text in variant]
    return [*told, *(" , ".join([one.label, *one.words]) for one in drawn.about)]


def mixture(task: Task) -> tuple[np.ndarray, list[str]]:
    """Return the diffusion model's training data: uint8 [N, S, S, 3] (memory-mapped), N captions.

    Every other picture of the world, then one of every drawing; kept in the task's folder. Twice as
    many pictures would take as long to encode as a thousand training steps.
    """
    pictures, told = corpus.build(task.work)
    pictures, told = pictures[::2], told[::2]
    drawn = read_drawings(task)
    every, shape = [*told, *drawn.captions[0]], (IMAGE_SIZE, IMAGE_SIZE, 3)
    path = task.checkpoints / f"mixture-{task.pictures}.uint8"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(6)
        behind = torch.from_numpy(pictures[:: len(pictures) // 64])
        part = path.with_suffix(".part")
        mixed = np.memmap(part, np.uint8, "w+", shape=(len(every), *shape))
        mixed[: len(told)] = pictures
        for rows in paths.progress(range(0, len(drawn.about), 128), "mixing"):
            some = torch.from_numpy(drawn.pictures[rows : rows + 128])
            composed = drawings.compose(some, behind, generator).permute(0, 2, 3, 1)
            start = len(told) + rows
            mixed[start : start + len(some)] = composed.round().byte().numpy()
        mixed.flush()
        os.replace(part, path)
    return np.memmap(path, np.uint8, "r", shape=(len(every), *shape)), every


def kept(task: Task, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Compute `make()` on the mixture, [N, ...], once, and keep it in the task's folder.

    The result lies on the task's device.
    """
    path = task.checkpoints / f"{name}-{task.pictures}.npy"
    if not path.exists():
        part = path.with_suffix(".part.npy")
        np.save(part, make().numpy())
        os.replace(part, path)
    return torch.from_numpy(np.load(path)).to(task.device)


def resident(task: Task, pictures: np.ndarray) -> np.ndarray | torch.Tensor:
    """Return pictures [N, ...] as they are, or on a GPU as a tensor there, read once."""
    return pictures if task.device == "cpu" else torch.from_numpy(np.array(pictures)).cuda()


def images(
    pictures: np.ndarray | torch.Tensor,
    rows: np.ndarray,
    rng: np.random.Generator,
    device: str,
    shift: int = 8,
) -> torch.Tensor:
    """Return rows [B] of the corpus, uint8 pictures [N, S, S, 3], as float images [B, 3, S, S].

    They are in [-1, 1], and all mirrored or none. With `shift`, they are also shifted by up to so
    many pixels, with a little colour jitter.
    """
    x = torch.as_tensor(pictures[np.sort(rows)]).to(device)
    x = x.permute(0, 3, 1, 2).float() / 127.5 - 1
    if rng.random() < 0.5:
        x = x.flip(3)
    if shift:
        padded = F.pad(x, (shift,) * 4, mode="replicate")
        dx, dy = rng.integers(0, 2 * shift + 1, 2)
        x = padded[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]
        gain = rng.uniform(0.8, 1.2, (len(rows), 3, 1, 1)).astype(np.float32)
        x = ((x + 1) * torch.from_numpy(gain).to(device) - 1).clamp(-1, 1)
    return x


def draw_rows(rng: np.random.Generator, n: int, batch: int) -> np.ndarray:
    """Draw B = `batch` different rows below n, int64 [B].

    They are sorted, for quick access to a memory-mapped file.
    """
    return np.sort(rng.choice(n, batch, replace=False))
