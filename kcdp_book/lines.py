"""Pack a run's scores into a short line of results, and unpack them.

Unpacked, a line would hold 4 kB, most of them true labels, which are the same for all methods of a
job. These are kept once, in `results/labels.json`, and predictions of six classes are packed two to
a letter. Recall and confusion are recomputed when the line is read.
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

LABELS = ROOT / "results" / "labels.json"  # key -> true classes of test pictures, one digit each
LETTERS = (digits + ascii_lowercase)[: len(EMOTIONS) ** 2]
COUNTED = ("confusion", "per_class_recall")


def packed(metrics: dict) -> dict:
    """Pack a run's metrics for a line of results; new labels go to `LABELS`.

    Predictions on the source's test pictures are dropped, because no comparison uses them.
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
    """Restore the metrics of a line, except for the source's predictions."""
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
    """Pack digits from 0 to 5, two to a letter."""
    even = classes + "0" * (len(classes) % 2)
    return "".join(LETTERS[int(even[i : i + 2], len(EMOTIONS))] for i in range(0, len(even), 2))


def out_of_pairs(letters: str, count: int) -> str:
    """Return the first `count` digits that `in_pairs` packed into these letters."""
    pairs = (divmod(LETTERS.index(letter), len(EMOTIONS)) for letter in letters)
    return "".join(f"{first}{second}" for first, second in pairs)[:count]


def digits_of(classes: str) -> np.ndarray:
    """Return the classes [N] of a string of N digits."""
    return np.array(list(classes), int)


@cache
def known_labels() -> dict[str, str]:
    """Read all labels that lines refer to, by key."""
    return json.loads(LABELS.read_text(encoding="utf-8")) if LABELS.exists() else {}


def labels_of(key: str) -> str:
    """Return the labels of a key; KeyError if `LABELS` does not hold them."""
    if key not in known_labels():
        known_labels.cache_clear()  # another process may have added them
    return known_labels()[key]


def remember(labels: str) -> str:
    """Return the key of these labels, and add them to `LABELS` if they are new."""
    key = sha(labels)[:8]
    if key not in known_labels():
        with FileLock(LABELS.with_suffix(".lock")):
            known_labels.cache_clear()  # another process may have added some
            known = dict(sorted({**known_labels(), key: labels}.items()))
            atomic_write(LABELS, json.dumps(known, indent=0) + "\n")
        known_labels.cache_clear()
    return key
