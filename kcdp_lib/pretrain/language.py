"""Losses on texts for both text encoders, with the sentence encoder as a teacher."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kcdp_lib import world
from kcdp_lib.pretrain import captions, sentences, texts
from kcdp_lib.pretrain.task import Drawn, Task

PAIRS = 8000  # of texts, for each kind
TEMPERATURE = 0.07  # of cosines, in every contrastive loss


class TextPool(NamedTuple):
    """Texts without pictures."""

    first: list[str]  # pairs with the same meaning ...
    second: list[str]
    single: list[str]  # ... and single texts
    ours: np.ndarray  # bool [N], over all three: whether it is a text of the built-in world

    @property
    def all(self) -> list[str]:
        """Every text [N]: the first of each pair, the second, then the single ones."""
        return [*self.first, *self.second, *self.single]


def text_pool(task: Task, drawn: Drawn) -> TextPool:
    """Draw pairs and single texts from a fixed seed, for the task's kinds of knowledge."""
    rng = np.random.default_rng([6, 13])
    both = [texts.scene_pair(rng) for _ in range(PAIRS)]
    if task.knowledge != "language":
        both += [texts.emotion_pair(rng) for _ in range(PAIRS)]
    ours = [True] * len(both)
    if task.by_language:
        chosen = rng.choice(len(drawn.about), PAIRS, p=drawn.share)
        both += [captions.pair(drawn.about[i], rng) for i in chosen]
        ours += [False] * PAIRS
    first, second = zip(*both, strict=True)
    signs = [texts.sign_text(rng) for _ in range(PAIRS // 2)]
    prompts = [
        texts.pick(rng, sentences.PROMPTS).format(texts.pick(rng, sentences.EMOTION_WORDS))
        for _ in range(PAIRS // 4)
    ]
    of_world = [*ours, *ours, *[True] * len(signs), *[False] * len(prompts)]
    return TextPool(list(first), list(second), [*signs, *prompts], np.array(of_world))


def info_nce(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the symmetric contrastive loss [] in nats of paired embeddings [B, D].

    They need not be normalised.
    """
    logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / TEMPERATURE
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def same_neighbours(own: torch.Tensor, teachers: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy [] in nats between a text's neighbours and the teacher's.

    own [N, D] and the teacher's [N, 384], each of length one.
    """
    near = (teachers @ teachers.T / 0.05).fill_diagonal_(-torch.inf).softmax(-1)
    logits = own @ own.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(len(own), dtype=torch.bool, device=own.device), -1e4)
    return F.cross_entropy(logits, near)


def taught(own: torch.Tensor, head: nn.Linear, thoughts: torch.Tensor) -> torch.Tensor:
    """Return twice the cosine distance [] of `head` of own [N, D] from the teacher's [N, 384]."""
    return 2 * (1 - F.cosine_similarity(head(own), thoughts)).mean()


class TextSide:
    """Losses of a text encoder without pictures, for both text encoders.

    encode: N texts' token ids [N, L] -> embeddings [N, D]; tokenize: texts -> ids [N, L]. Padding
    with `pad` is cut off; CoCa's must stay, because its embedding is read after it.
    """

    def __init__(self, task: Task, drawn: Drawn, tokenize: Callable, pad: int | None = None):
        self.task, self.tokenize, self.pad = task, tokenize, pad
        self.pool = text_pool(task, drawn)
        self.ids = tokenize(self.pool.all)
        self.prompts = [
            self.short(tokenize([prompt.format(word) for word in sentences.EMOTION_WORDS]))
            for prompt in sentences.PROMPTS
        ]
        if task.by_language:
            self.thoughts = sentences.embed(self.pool.all, task.work)
            self.felt = task.answers(sentences.feelings(self.pool.all, task.work), self.pool.ours)

    def short(self, ids: torch.Tensor) -> torch.Tensor:
        """Cut common padding off ids [N, L] to save time: [N, l]."""
        if self.pad is not None:
            ids = ids[:, : int((ids != self.pad).sum(1).max()) + 1]
        return ids.to(self.task.device)

    def words(self, encode: Callable, rng: np.random.Generator) -> torch.Tensor:
        """Return embeddings [W, D], of length one, of the emotion words in one of the prompts."""
        return F.normalize(encode(texts.pick(rng, self.prompts)), dim=-1)

    def loss(
        self, encode: Callable, head: nn.Linear, words: torch.Tensor, rng, batch: int
    ) -> torch.Tensor:
        """Return the loss []: contrastive on pairs, and distillation from the teacher."""
        pairs = rng.integers(len(self.pool.first), size=batch // 2)
        alone = rng.integers(len(self.pool.single), size=batch // 2)
        rows = np.concatenate(
            [pairs, pairs + len(self.pool.first), alone + 2 * len(self.pool.first)]
        )
        embedded = F.normalize(encode(self.short(self.ids[rows])), dim=-1)
        first, second, _ = embedded.split(batch // 2)
        loss = info_nce(first, second)
        if self.task.by_language:
            thoughts = self.thoughts[rows].to(self.task.device)
            felt = self.felt[rows].to(self.task.device)
            loss = loss + taught(embedded, head, thoughts)
            loss = loss + 0.5 * same_neighbours(embedded, thoughts)
            loss = loss + F.cross_entropy(embedded @ words.T / TEMPERATURE, felt)
        return loss


def people_feel(drawn: Drawn, felt: torch.Tensor) -> torch.Tensor:
    """Return shares [N, W] of emotion words for N drawings.

    Half the teacher's, `felt`, half those of the emotions that the drawing's words name, if any.
    """
    shares = felt.clone()
    for row, drawing in enumerate(drawn.about):
        named = [w for e in captions.emotions(drawing) for w in world.EMOTION_WORDS[e]]
        if named:
            columns = [sentences.EMOTION_WORDS.index(word) for word in named]
            shares[row] /= 2
            shares[row, columns] += 0.5 / len(columns)
    return shares


class Teacher:
    """The sentence encoder's targets for N pictures' captions, if the knowledge is by language.

    every: the captions of the world's pictures, `ours` of them, then those of every drawing, once
    or several times over.
    """

    def __init__(self, task: Task, every: Sequence[str], ours: int, drawn: Drawn):
        self.task = task
        if task.by_language:
            self.thoughts = sentences.embed(every, task.work)
            felt = sentences.feelings(every, task.work)
            blocks = felt[ours:].split(len(drawn.about))
            felt = torch.cat([felt[:ours], *(people_feel(drawn, block) for block in blocks)])
            self.felt = task.answers(felt, np.arange(len(every)) < ours)

    def loss(
        self, head: nn.Linear, seen: torch.Tensor, words: torch.Tensor, rows: np.ndarray
    ) -> torch.Tensor | float:
        """Return the loss [] of pictures' embeddings, seen [B, D], against captions `rows` [B].

        head as in `taught`; words [W, D] are those for emotions.
        """
        if not self.task.by_language:
            return 0.0
        thoughts = self.thoughts[rows].to(self.task.device)
        felt = self.felt[rows].to(self.task.device)
        felt_loss = F.cross_entropy(seen @ words.T / TEMPERATURE, felt)
        return taught(seen, head, thoughts) + felt_loss
