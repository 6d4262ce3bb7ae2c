"""Measure what each source of the text encoder's knowledge of emotions is worth.

`python benchmarks/knowledge.py FOLDER ...`: each folder holds a text encoder that was trained on
the generator's own table, on a sentence encoder, or on both,

    python -m kcdp_lib.pretrain --stage text --knowledge language --out FOLDER

and embeds the same captions: for the built-in world, the generator's own of unseen scenes; for real
art, those of the VLM in the repository. For each kind of knowledge and each domain,
results/knowledge.json gets

asked   macro-F1 of the six emotions, zero-shot: the class with the nearest prompts
probe   macro-F1 of a linear classifier on embeddings, trained on captions of photos (world only)

The sentence encoder itself, which no user needs, is measured as well.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kcdp_book import results
from kcdp_lib import datasets, knowledge, paths, vision_language, world
from kcdp_lib.config import PRESETS
from kcdp_lib.pretrain import measure, sentences

COUNT = 1000  # unseen scenes of each domain; the probe is trained on as many others
WORK = paths.CACHE / "pretrain"  # where the sentence encoder's package is kept
Embed = Callable[[Sequence[str]], torch.Tensor]  # N texts -> [N, D]


class Told(NamedTuple):
    """Captions and labels of N pictures."""

    captions: list[str]
    labels: np.ndarray  # int [N]


def of_folder(folder: Path) -> Embed:
    """Return a function that embeds texts by the pooled states of a folder's text encoder."""
    preset = replace(PRESETS["tiny"], diffusion=str(folder / "diffusion"))
    ((tokenizer, encoder),) = knowledge.load_text_encoder(preset).parts

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> torch.Tensor:
        ids = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        return torch.cat([encoder(some).pooler_output for some in ids.input_ids.split(256)])

    return embed


def of_scenes(domain: str, count: int) -> Told:
    """Return the world's own captions of unseen scenes."""
    scenes = measure.scenes(domain, count)
    labels = [world.SIX.index(world.label_of(scene.emotion)) for scene in scenes]
    return Told([world.caption(scene, domain) for scene in scenes], np.array(labels))


def of_art(name: str) -> Told:
    """Return the VLM's captions of a set's labelled pictures."""
    splits = [datasets.load(name, split) for split in datasets.SIZES]
    files = [file for pictures in splits for file in pictures.files]
    labels = np.concatenate([pictures.labels for pictures in splits])
    images = datasets.read_images(files, PRESETS["tiny"].image_size)
    told = vision_language.caption(vision_language.load_vlm(PRESETS["tiny"]), images)
    kept = labels >= 0
    return Told([text for text, keep in zip(told, kept, strict=True) if keep], labels[kept])


def centre(embed: Embed, words: Sequence[str]) -> torch.Tensor:
    """Return [D], of length one: the mean embedding of the prompts with a class's words."""
    prompts = [prompt.format(word) for word in words for prompt in sentences.PROMPTS]
    return F.normalize(F.normalize(embed(prompts), dim=-1).mean(0), dim=-1)


def macro_f1(labels: np.ndarray, answers: np.ndarray) -> float:
    """Return macro-F1 over the classes that occur, 0 to 1."""
    score = f1_score(labels, answers, average="macro", labels=np.unique(labels))
    return round(float(score), 4)


def worth(embed: Embed, told: dict[str, Told]) -> dict:
    """Return `asked` and `probe` of every domain."""
    embedded = {name: F.normalize(embed(of.captions), dim=-1) for name, of in told.items()}
    classes = torch.stack([centre(embed, world.EMOTION_WORDS[name]) for name in world.SIX])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(embedded["photos"][COUNT:].numpy(), told["photos"].labels[COUNT:])
    asked, probed = {}, {}
    for name, of in told.items():
        some, labels = embedded[name][:COUNT], of.labels[:COUNT]
        asked[name] = macro_f1(labels, (some @ classes.T).argmax(1).numpy())
        if name in world.BENCHMARK:
            probed[name] = macro_f1(labels, probe.predict(some.numpy()))
    return {"asked": asked, "probe": probed}


def main() -> None:
    """Measure every folder's text encoder, and the sentence encoder."""
    told = {name: of_scenes(name, COUNT) for name in world.BENCHMARK}
    told["photos"] = of_scenes("photos", 2 * COUNT)
    told |= {name: of_art(name) for name in paths.progress(datasets.ART, "captions of art")}
    found = {"sentence encoder": worth(lambda texts: sentences.embed(texts, WORK), told)}
    for folder in map(Path, sys.argv[1:]):
        about = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
        found[about["knowledge"]] = worth(of_folder(folder), told)
    for name, row in found.items():
        for kind, scores in row.items():
            print(f"{name:17} {kind:6}", *(f"{domain} {f1:.2f}" for domain, f1 in scores.items()))
    captions = {name: len(of.captions[:COUNT]) for name, of in told.items()}
    results.write("knowledge", {"captions": captions, "knowledge": found})


if __name__ == "__main__":
    main()
