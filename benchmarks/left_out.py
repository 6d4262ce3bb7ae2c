"""Measure how much the VLM understands of artists whose drawings it has never seen.

`python benchmarks/left_out.py FOLDER ...`: each folder holds a VLM that was trained without some
sets of drawings,

    python -m kcdp_lib.pretrain --stage coca --without noto micah --out FOLDER

It is tested on these sets' domains of real art. Written into results/left_out.json, beside the
results of earlier folders:

asked        macro-F1 of the six emotions, zero-shot, over classes of five pictures or more
signs        micro-F1 of the signs of mouth, eyes and body in captions, against those in the
             designers' and Unicode's names (`pretrain.captions.signs`)
"""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from kcdp_book.results import FOLDER, made
from kcdp_lib import datasets, paths, vision_language
from kcdp_lib.config import PRESETS, Preset
from kcdp_lib.pretrain import captions
from kcdp_lib.pretrain.drawings import Drawing
from kcdp_lib.pretrain.measure import KINDS

LEAST = 5  # pictures of a class, for it to count


def preset_of(folder: Path) -> Preset:
    """Return the preset `tiny` with a folder's VLM."""
    return replace(PRESETS["tiny"], vlm=f"local-dir:{folder / 'vlm'}")


def shipped_without(folder: Path) -> list[str]:
    """Return the shipped sets of real art that a folder's VLM was trained without."""
    about = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    return [name for name in about["without"] if f"art-{name}" in datasets.ART]


def asked(vlm: vision_language.VLM, name: str) -> dict:
    """Score the zero-shot predictions and captions of a set's labelled pictures, train and test."""
    splits = [datasets.load(name, split) for split in datasets.SIZES]
    files = [file for pictures in splits for file in pictures.files]
    called = [captions.of_concept(one) for part in splits for one in datasets.concepts(part)]
    labels = np.concatenate([pictures.labels for pictures in splits])
    images = datasets.read_images(files, PRESETS["tiny"].image_size)
    embeddings = vision_language.embed_images(vlm, images)
    answers = vision_language.zero_shot(vlm, embeddings, datasets.EMOTIONS).numpy().argmax(1)
    known = labels >= 0
    counts = Counter(labels[known].tolist())
    classes = [label for label, count in sorted(counts.items()) if count >= LEAST]
    return {
        "asked": f1(labels[known], answers[known], classes),
        "classes": {datasets.EMOTIONS[label]: counts[label] for label in classes},
        "of": int(known.sum()),
        "signs": signs(vision_language.caption(vlm, images), called),
    }


def f1(labels: np.ndarray, answers: np.ndarray, classes: list[int]) -> float:
    """Return macro-F1 over some classes, 0 to 1, of N labels and predictions."""
    return round(float(f1_score(labels, answers, average="macro", labels=classes)), 4)


def signs(told: list[str], drawings: list[Drawing]) -> float | None:
    """Return micro-F1, 0 to 1, of the signs that N captions name; None if no name has a sign.

    Only the kinds of sign that a name mentions count: a name that is silent about the eyes does not
    say that they are open.
    """
    pairs = [
        (phrase in text, sign == phrase)
        for text, drawing in zip(told, drawings, strict=True)
        for kind, sign in captions.signs(drawing).items()
        for phrase in KINDS[kind]
    ]
    if not pairs:
        return None
    named, there = zip(*pairs, strict=True)
    return round(float(f1_score(there, named)), 4)


def measure(folder: Path) -> dict:
    """Score a folder's VLM on the sets that it was trained without."""
    about = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    vlm = vision_language.load_vlm(preset_of(folder))
    return {
        "without": about["without"],
        "knowledge": about["knowledge"],
        "steps": about["steps"]["coca"],
        **made(),
        "sets": {name: asked(vlm, f"art-{name}") for name in shipped_without(folder)},
    }


if __name__ == "__main__":
    path = FOLDER / "left_out.json"
    runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for folder in map(Path, sys.argv[1:]):
        new = measure(folder)
        runs = [run for run in runs if run["without"] != new["without"]] + [new]
        for name, row in new["sets"].items():
            print(f"{name:20} asked {row['asked']:.3f} of {row['of']}, signs {row['signs']}")
        paths.atomic_write(path, json.dumps(runs, indent=1) + "\n")
