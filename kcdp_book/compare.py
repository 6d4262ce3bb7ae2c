"""Choose among trained candidates without target labels, and compare committed runs (chapter 06).

Epochs and loss weights have to be chosen without target labels, by the same rule for every method.
`certainty`, `information` and `density` measure how confident the predictions are. A method whose
loss rewards confidence predicts confidently, right or wrong; so `agreement` compares with the other
candidates, and `validation` uses labelled source pictures.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.stats import entropy

from kcdp_book.results import interval
from kcdp_lib import datasets, world
from kcdp_lib.datasets import Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.figures import NAMES
from kcdp_lib.metrics import paired_difference_over_seeds
from kcdp_lib.world.causes import Face, Shown, eyes_of, mouth_of

OTHER_SEED = 1_000_003  # seed of scenes that no run draws

# ------------------------------------------------------------------------ choosing without labels

NEIGHBOURS = 0.05  # temperature of `density`, as in its paper


def certainty(probs: np.ndarray) -> float:
    """Return minus the mean entropy, in nats, of probabilities [N, C].

    A model that predicts the same class for every picture is certain, too.
    """
    return float((probs * np.log(np.maximum(probs, 1e-9))).sum(1).mean())


def information(probs: np.ndarray) -> float:
    """Return the mutual information of picture and prediction, in nats.

    The entropy of the mean of probabilities [N, C], minus their mean entropy. It is high if
    predictions are confident and differ between pictures.
    """
    mean = probs.mean(0)
    return certainty(probs) - float((mean * np.log(np.maximum(mean, 1e-9))).sum())


def density(probs: np.ndarray) -> float:
    """Return the soft neighbourhood density (Saito et al. 2021).

    The mean entropy, in nats, of each picture's cosine similarities to the others, computed on
    probabilities [N, C]. It is high if the predictions form wide clusters.
    """
    unit = probs / np.linalg.norm(probs, axis=1, keepdims=True)
    near = unit @ unit.T / NEIGHBOURS
    np.fill_diagonal(near, -np.inf)
    near = np.exp(near - near.max(1, keepdims=True))
    near /= near.sum(1, keepdims=True)
    return float(-(near * np.log(np.maximum(near, 1e-12))).sum(1).mean())


def agreement(probs: np.ndarray, everyone: np.ndarray) -> float:
    """Return the share of pictures on which a candidate agrees with all candidates together.

    probs [N, C] are the candidate's; everyone [K, N, C] holds those of all K candidates, whose mean
    is their joint prediction.
    """
    return float((probs.argmax(1) == everyone.mean(0).argmax(1)).mean())


CRITERIA = ("certainty", "information", "density", "agreement", "validation")
CHOICE = (
    "validation"  # has the highest mean on the development pairs (`benchmarks/grid.py develop`)
)


def criteria(answers: Sequence[np.ndarray], validation: Sequence[float]) -> list[dict[str, float]]:
    """Return every criterion of every candidate, by name.

    answers: each candidate's probabilities [N, C] on the target's unlabelled pictures; validation:
    each candidate's macro-F1 on labelled source pictures that it was not trained on.
    """
    everyone = np.stack(answers)
    return [
        {
            "certainty": certainty(probs),
            "information": information(probs),
            "density": density(probs),
            "agreement": agreement(probs, everyone),
            "validation": score,
        }
        for probs, score in zip(answers, validation, strict=True)
    ]


def choose(candidates: Sequence[dict], criterion: str) -> dict:
    """Return the candidate with the largest value of a criterion; the first one if several tie."""
    return max(candidates, key=lambda candidate: candidate[criterion])


# --------------------------------------------------------------------------------- committed runs


def runs(
    rows: list[dict], method: str, recipe: str, target: str = "stickers", **entries
) -> dict[int, dict]:
    """Return seed -> line of one method and recipe on one target, sorted by seed.

    `entries` are further entries of the line, such as pictures=30. The source is photos unless they
    name another. KCDPError if a seed has several lines.
    """
    wanted = {"method": method, "recipe": recipe, "source": "photos", "target": target, **entries}
    matching = [row for row in rows if wanted == {name: row.get(name) for name in wanted}]
    by_seed = {row["seed"]: row for row in matching}
    if len(by_seed) < len(matching):
        raise KCDPError(
            f"Several lines of {method}, {recipe}, to {target} have the same seed; tell more of "
            "them, their dials or pictures."
        )
    return dict(sorted(by_seed.items()))


def everywhere(
    rows: list[dict], method: str, recipe: str, setting: str = "da"
) -> dict[tuple[str, str, int], dict]:
    """Return (source, target, seed) -> line of one method and recipe in one setting.

    This is `runs` over all pairs of domains. KCDPError if a pair and seed has several lines.
    """
    wanted = (method, recipe, setting)
    matching = [row for row in rows if (row["method"], row["recipe"], row["setting"]) == wanted]
    found = {(row["source"], row["target"], row["seed"]): row for row in matching}
    if len(found) < len(matching):
        raise KCDPError(f"Several lines of {method}, {recipe}, have the same domains and seed.")
    return found


def predictions(row: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the predicted classes [N] of a line's target test pictures."""
    return tuple(
        np.array(list(row["metrics"]["target.test"][name]), dtype=int)
        for name in ("labels", "predicted")
    )


def name_of(method: str) -> str:
    """Return a method's name in tables and figures, on one line."""
    return NAMES[method].replace("\n", " ")


def scores(found: dict) -> np.ndarray:
    """Return macro-F1 [N], 0 to 1, on the target's test pictures, from `runs` or `everywhere`."""
    return np.array([row["metrics"]["target.test"]["macro_f1"] for row in found.values()])


def verdict(gain: dict) -> str:
    """Format the result of `difference`: points, interval and a word."""
    mean, low, high = 100 * np.array([gain["macro_f1"], *gain["macro_f1_interval"]])
    word = "ahead" if low > 0 else "behind" if high < 0 else "no clear difference"
    return f"{mean:+5.1f} points [{low:+.1f}, {high:+.1f}]: {word}"


def difference(one: dict, other: dict) -> dict:
    """Return `metrics.paired_difference_over_seeds` of two methods, on the seeds that both have.

    one, other: what `runs` or `everywhere` returned for each.
    """
    seeds = sorted(one.keys() & other.keys())
    pairs = [(*predictions(one[seed]), predictions(other[seed])[1]) for seed in seeds]
    return paired_difference_over_seeds(
        pairs, len(one[seeds[0]]["metrics"]["target.test"]["confusion"])
    )


def summary(by_seed: dict[int, dict]) -> dict[str, float]:
    """Return a method's mean scores over seeds (0 to 1), and the interval of its macro-F1.

    by_seed: the method's `runs`. The scores are those on the target's test pictures.
    """
    scores = [row["metrics"]["target.test"] for row in by_seed.values()]
    means = {
        name: float(np.mean([of[name] for of in scores]))
        for name in ("macro_f1", "balanced_accuracy", "accuracy", "calibration_error")
    }
    low, high = interval([of["macro_f1"] for of in scores])
    return {"macro_f1": means["macro_f1"], "from": low, "to": high, **means}


def choices(rows: list[dict]) -> dict[str, list[float]]:
    """Return criterion -> macro-F1 (0 to 1) of the chosen candidates, one for each line.

    Lines without candidates are skipped. "last epoch" takes the last epoch at weight 1, or at the
    only weight. "target labels" takes the best candidate, which cannot be known without target
    labels.
    """
    chosen: dict[str, list[float]] = {}
    for candidates in (
        row["metrics"]["candidates"] for row in rows if "candidates" in row["metrics"]
    ):
        for name in CRITERIA:
            chosen.setdefault(name, []).append(choose(candidates, name)["macro_f1"])
        plain = [one for one in candidates if one["weight"] == 1.0]
        chosen.setdefault("last epoch", []).append(plain[-1]["macro_f1"])
        chosen.setdefault("target labels", []).append(choose(candidates, "macro_f1")["macro_f1"])
    return chosen


def pictures_of(row: dict) -> Pictures:
    """Load the target test pictures that a line's predictions are for, in their order.

    Pictures are ordered by content, and earlier models saw pictures of half the side, so both sizes
    are tried. KCDPError for a line of another world.
    """
    labels, _ = predictions(row)
    for side in (datasets.SOURCE_SIDE, datasets.SOURCE_SIDE // 2):
        pictures = datasets.load(row["target"], "test", seed=row["seed"], size=side)
        if np.array_equal(pictures.labels[pictures.labels >= 0], labels):
            return pictures
    raise KCDPError("The line was made on other pictures; run its grid again (`make results`).")


def difference_by_concept(one: dict, other: dict, resamples: int = 1000, seed: int = 0) -> dict:
    """Return how far one method's macro-F1 exceeds another's on real art: mean and 95% interval.

    one, other: what `everywhere` returned for each. Several artists draw the same few concepts, and
    all seeds share them; so whole concepts are resampled, with all their drawings and seeds.
    """
    asked = {}
    for key, row in one.items():
        pictures = pictures_of(row)
        called = zip(datasets.concepts(pictures), pictures.labels, strict=True)
        asked[key] = [name for name, label in called if label >= 0]
    different = sorted({name for names in asked.values() for name in names})
    draws = np.random.default_rng(seed).integers(len(different), size=(resamples, len(different)))
    counts = np.stack([np.bincount(draw, minlength=len(different)) for draw in draws])
    counts = np.concatenate([np.ones((1, len(different)), int), counts])  # first row: not resampled
    ahead = np.zeros(len(counts))
    for key, names in asked.items():
        often = counts[:, [different.index(name) for name in names]]
        for sign, row in ((1, one[key]), (-1, other[key])):
            ahead += sign * weighted_macro_f1(*predictions(row), often) / len(asked)
    low, high = np.quantile(ahead[1:], (0.025, 0.975))
    return {"macro_f1": ahead[0], "macro_f1_interval": [low, high], "concepts": len(different)}


def weighted_macro_f1(labels: np.ndarray, predicted: np.ndarray, often: np.ndarray) -> np.ndarray:
    """Return macro-F1 [R], 0 to 1, over the classes in labels [N], with weights `often` [R, N].

    A class without any weight is left out of that row's mean.
    """
    f1 = []
    for label in np.unique(labels):
        hit = often[:, (labels == label) & (predicted == label)].sum(1)
        there = often[:, labels == label].sum(1)
        either = there + often[:, predicted == label].sum(1)
        f1.append(np.where(there > 0, 2 * hit / np.maximum(either, 1), np.nan))
    return np.nanmean(f1, axis=0)


def causes(pictures: Pictures) -> list[dict]:
    """Return the world's record of each picture of a built-in domain, in order.

    It holds the emotion, the undertone, the intensity and what is shown.
    """
    lines = (
        json.loads(line)
        for line in (pictures.files[0].parent / "metadata.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    of = {line["file_name"]: line for line in lines}
    return [of[file.name] for file in pictures.files]


def ambiguity(pictures: Pictures, scenes: int = 20_000, least: int = 5) -> np.ndarray:
    """Return how little the nameable signs of each picture say about its class: [N], in nats.

    The signs are mouth, eyes, response and event of a built-in domain's picture at the default
    dials. The number is the entropy of the class among those of `scenes` other scenes that show the
    same signs: 0 if these all have one class, NaN if fewer than `least` scenes show them.
    """
    counts: dict[tuple, Counter] = defaultdict(Counter)
    for index in range(scenes):
        scene = world.sample_scene("train", OTHER_SEED, index, pictures.name)
        counts[_signs(world.shown(scene, pictures.name))][
            world.label_of(scene.emotion, pictures.taxonomy)
        ] += 1

    records = (of["shown"] for of in causes(pictures))
    alike = [
        counts[_signs(Shown(**{**record, "face": Face(**record["face"])}))] for record in records
    ]
    return np.array(
        [entropy(list(count.values())) if count.total() >= least else np.nan for count in alike]
    )


def _signs(shown: Shown) -> tuple:
    return mouth_of(shown.face), eyes_of(shown.face), shown.response, shown.event
