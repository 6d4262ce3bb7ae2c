"""How a run's scores are kept in a line of results: without what follows from the rest of it.

A line would hold 4 kB otherwise, most of them true labels, which are the same for all methods of a
job. They are kept once, in `results/labels.json`, and predictions of six classes two a letter.
Recall and confusion are counted again when the line is read.
"""

from __future__ import annotations

import json
from functools import cache
from string import ascii_lowercase, digits

import numpy as np
from filelock import FileLock

from kcdp_lib.datasets import EMOTIONS
from kcdp_lib.metrics import confusion, recall
from kcdp_lib.paths import ROOT, atomic_write, sha

LABELS = ROOT / "results" / "labels.json"  # key -> the true classes of test pictures, a digit each
LETTERS = (digits + ascii_lowercase)[: len(EMOTIONS) ** 2]
COUNTED = ("confusion", "per_class_recall")


def packed(metrics: dict) -> dict:
    """A run's metrics as a line keeps them; labels that are new go to `LABELS`.

    Predictions of the source's test pictures go: nothing compares methods on them.
    """
    kept = {part: dict(scores) for part, scores in metrics.items() if isinstance(scores, dict)}
    for part, scores in kept.items():
        if "predicted" not in scores:
            continue
        if part == "target.test":
            scores["predicted"] = in_pairs(scores["predicted"])
            scores["labels"] = remember(scores["labels"])
        else:
            del scores["predicted"], scores["labels"]
        for name in COUNTED if part == "target.test" else COUNTED[1:]:
            del scores[name]
    return {**metrics, **kept}


def unpacked(metrics: dict) -> dict:
    """A line's metrics with all that was left out of them, but for the source's predictions."""
    whole = {part: dict(scores) for part, scores in metrics.items() if isinstance(scores, dict)}
    for scores in whole.values():
        if "predicted" in scores:
            scores["labels"] = labels_of(scores["labels"])
            scores["predicted"] = out_of_pairs(scores["predicted"], len(scores["labels"]))
            true, predicted = (digits_of(scores[name]) for name in ("labels", "predicted"))
            scores["confusion"] = confusion(true, predicted, len(EMOTIONS)).tolist()
        if "confusion" in scores and "per_class_recall" not in scores:
            scores["per_class_recall"] = recall(np.array(scores["confusion"]))
    return {**metrics, **whole}


def in_pairs(classes: str) -> str:
    """Two digits from 0 to 5 in each letter."""
    even = classes + "0" * (len(classes) % 2)
    return "".join(LETTERS[int(even[i : i + 2], len(EMOTIONS))] for i in range(0, len(even), 2))


def out_of_pairs(letters: str, count: int) -> str:
    """The digits, `count` of them, that `in_pairs` was given."""
    pairs = (divmod(LETTERS.index(letter), len(EMOTIONS)) for letter in letters)
    return "".join(f"{first}{second}" for first, second in pairs)[:count]


def digits_of(classes: str) -> np.ndarray:
    """The classes [N] that a text of N digits stands for."""
    return np.array(list(classes), int)


@cache
def known_labels() -> dict[str, str]:
    """All labels that lines refer to, by their key."""
    return json.loads(LABELS.read_text(encoding="utf-8")) if LABELS.exists() else {}


def labels_of(key: str) -> str:
    """The labels that a line refers to; KeyError if `LABELS` does not hold them."""
    if key not in known_labels():
        known_labels.cache_clear()  # another process may have added them
    return known_labels()[key]


def remember(labels: str) -> str:
    """The key of labels, which are added to `LABELS` if they are new."""
    key = sha(labels)[:8]
    if key not in known_labels():
        with FileLock(LABELS.with_suffix(".lock")):
            known_labels.cache_clear()  # another process may have added some
            known = dict(sorted({**known_labels(), key: labels}.items()))
            atomic_write(LABELS, json.dumps(known, indent=0) + "\n")
        known_labels.cache_clear()
    return key
