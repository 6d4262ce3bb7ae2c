"""Measure the numbers by which a world is frozen, before any method sees it (chapter "The world").

`python benchmarks/world.py [PART ...]` measures the parts that results/world.json lacks for the
present world:

speed      images a second at 64 pixels with all cores, the best of five rounds, and at 512
captions   the best classifier, trained on the domain's own labels, on what a perfect captioner
           could say: an upper limit for captions
causes     the same on every visible cause, fine ones included: an upper limit for pictures
pictures   a small CNN trained on labelled photos and tested in every domain, and one trained on
           labelled stickers (the oracle); no text, no pre-training

All are macro-F1 of the six classes on scenes that no classifier was trained or chosen on.
"""

import json
import os
import sys
import time
from dataclasses import astuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from torch import nn

from kcdp_book.results import FOLDER
from kcdp_lib import paths, world
from kcdp_lib.pretrain.task import draw_rows, images
from kcdp_lib.world import causes

# Rows of the pretrain split, seed 2, which contains no benchmark scene
SCENES = {"train": (0, 20_000), "validation": (20_000, 25_000), "test": (25_000, 35_000)}
TABLE = "pretrain", 2
PICTURES = {
    1200: (300, (0, 1, 2)),
    6000: (700, (0,)),
}  # training pictures -> optimizer steps and seeds; a benchmark split has 1,200
BATCH = 64
ROUNDS = 5


def macro_f1(labels, predicted) -> float:
    """Return the mean F1 of the six classes, 0 to 1."""
    return round(float(f1_score(labels, predicted, average="macro")), 4)


# ---------------------------------------------------------------- speed


def speed() -> dict:
    """Return {domain: images/s} at 64 pixels through `build`, and seconds for one picture of 512.

    Rounds are interleaved, so that a slow minute of the machine affects all domains.
    """
    rates = {domain: [] for domain in world.BENCHMARK}
    for _ in range(ROUNDS):
        for domain in world.BENCHMARK:
            started = time.perf_counter()
            world.build(domain, "pretrain", 600, seed=time.time_ns() % 2**31)
            rates[domain].append(600 / (time.perf_counter() - started))
    found = {}
    for domain in world.BENCHMARK:
        started = time.perf_counter()
        world.render(world.sample_scene("pretrain", 2, 0, domain), domain, 512)
        found[domain] = {
            "images_per_second": round(max(rates[domain])),
            "seconds_at_512": round(time.perf_counter() - started, 3),
        }
    return {"cores": os.cpu_count(), "domains": found}


# ---------------------------------------------------------------- ceilings


def table(domain: str, rows: tuple[int, int]) -> tuple[list[list[str]], list[list], np.ndarray]:
    """Return what can be said of each scene, all its visible causes, and the labels."""
    said, visible, labels = [], [], []
    for index in range(*rows):
        scene = world.sample_scene(*TABLE, index, domain)
        seen, attributes = world.shown(scene, domain), world.visible_attributes(scene, domain)
        said.append(
            [
                attributes.get(kind, "nothing")
                for kind in ("subject", "mouth", "eyes", "response", "event")
            ]
        )
        face = [
            np.nan if name.startswith("brow") and not seen.brows else value
            for name, value in zip(causes.FEATURES, astuple(seen.face), strict=True)
        ]
        visible.append([seen.response or "nothing", seen.event or "nothing", *face])
        labels.append(causes.SIX.index(world.label_of(scene.emotion)))
    return said, visible, np.array(labels)


def classifiers(words: int, total: int) -> dict:
    """Return classifiers for rows whose first `words` columns of `total` are names.

    Boosted trees and a linear model, each with natural or balanced class weights.
    """
    names = list(range(words))
    found = {}
    for weight in (None, "balanced"):
        coded = make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=99), names),
            remainder="passthrough",
        )
        trees = HistGradientBoostingClassifier(
            categorical_features=names,
            max_iter=200,
            learning_rate=0.06,
            l2_regularization=1.0,
            class_weight=weight,
            random_state=0,
        )
        found[f"trees, {weight}"] = make_pipeline(coded, trees)
        if words == total:
            found[f"linear, {weight}"] = make_pipeline(
                OneHotEncoder(handle_unknown="ignore"),
                LogisticRegression(max_iter=300, class_weight=weight),
            )
    return found


def best(tables: dict, words: int) -> dict:
    """Return the classifier with the best macro-F1 on the validation scenes.

    The result holds its name and its macro-F1 on the test scenes.
    """
    (x, y), (x_val, y_val), (x_test, y_test) = (
        (np.array(rows, dtype=object), labels) for rows, labels in tables.values()
    )
    fitted = {name: model.fit(x, y) for name, model in classifiers(words, x.shape[1]).items()}
    name = max(fitted, key=lambda name: macro_f1(y_val, fitted[name].predict(x_val)))
    return {"macro_f1": macro_f1(y_test, fitted[name].predict(x_test)), "classifier": name}


def ceilings(what: str) -> dict:
    """Return {domain: the best classifier} on "captions" or on "causes"."""
    found = {}
    for domain in paths.progress(world.BENCHMARK, what):
        tables = {part: table(domain, rows) for part, rows in SCENES.items()}
        found[domain] = best(
            {
                part: (said if what == "captions" else visible, labels)
                for part, (said, visible, labels) in tables.items()
            },
            5 if what == "captions" else 2,
        )
    return found


# ---------------------------------------------------------------- pictures alone


def drawn(domain: str, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw pictures uint8 [N, 64, 64, 3] of a domain's split; return them and their labels [N]."""
    folder = world.build(domain, split, count)
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return np.stack([np.asarray(Image.open(folder / row["file_name"])) for row in rows]), np.array(
        [causes.SIX.index(world.label_of(row["emotion"])) for row in rows]
    )


class Tower(nn.Module):
    """A plain residual CNN: images [B, 3, S, S] -> pooled features [B, D]."""

    def __init__(self, width: int = 32, embed_dim: int = 128):
        super().__init__()
        w = (width, width * 2, width * 4)
        self.stem = nn.Sequential(
            nn.Conv2d(3, w[0], 5, 2, 2, bias=False), nn.BatchNorm2d(w[0]), nn.ReLU()
        )
        self.stages = nn.Sequential(
            *[
                Residual(*io)
                for io in (
                    (w[0], w[0], 1),
                    (w[0], w[1], 2),
                    (w[1], w[1], 1),
                    (w[1], w[2], 2),
                    (w[2], w[2], 1),
                    (w[2], w[2], 1),
                )
            ]
        )
        self.project = nn.Conv2d(w[2], embed_dim, 1)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return pooled features [B, D] of images [B, 3, S, S], S a multiple of 8 pixels."""
        tokens = self.project(self.stages(self.stem(images))).flatten(2).transpose(1, 2)
        return self.norm(tokens.mean(1) + tokens.amax(1))


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut.

    [B, C_in, H, W] -> [B, C_out, H / stride, W / stride].
    """

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.skip = (
            nn.Identity()
            if stride == 1 and c_in == c_out
            else nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [B, C_in, H, W] to [B, C_out, H / stride, W / stride], 0 or more."""
        return torch.relu(self.skip(x) + self.body(x))


class Net(nn.Module):
    """A small CNN with random initial weights: images [B, 3, S, S] -> logits [B, 6]."""

    def __init__(self):
        super().__init__()
        self.tower, self.head = Tower(width=24, embed_dim=96), nn.Linear(96, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [B, 6] of images [B, 3, S, S]."""
        return self.head(self.tower(x))


def trained(pictures: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> Net:
    """Train a CNN on pictures [N, S, S, 3] and labels [N].

    All classes have the same weight; pictures are mirrored and shifted by up to four pixels.
    """
    torch.manual_seed(seed)
    model, rng = Net(), np.random.default_rng([7, seed])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    weight = torch.tensor(1 / np.maximum(np.bincount(labels, minlength=6), 1), dtype=torch.float32)
    for _ in paths.progress(range(steps), "CNN", steps):
        rows = draw_rows(rng, len(labels), BATCH)
        loss = F.cross_entropy(
            model(images(pictures, rows, rng, "cpu", shift=4)),
            torch.from_numpy(labels[rows]),
            weight=weight,
            label_smoothing=0.05,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def predicted(model: Net, pictures: np.ndarray) -> np.ndarray:
    """Return predicted classes [N] of pictures [N, S, S, 3]."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return torch.cat([model(block.float() / 127.5 - 1).argmax(1) for block in x.split(200)]).numpy()


def picture_models() -> dict:
    """Return the macro-F1 of the CNNs.

    {training pictures: {domain of the training labels, "photos" or "stickers": {test domain:
    macro-F1, one for each seed}}}.
    """
    tests = {domain: drawn(domain, "test", 1200) for domain in world.BENCHMARK}
    found = {}
    for count, (steps, seeds) in PICTURES.items():
        scores = {taught: {domain: [] for domain in tests} for taught in (world.SOURCE, "stickers")}
        for taught, row in scores.items():
            for seed in seeds:
                model = trained(*drawn(taught, "train", count), steps, seed)
                for domain, (pictures, labels) in tests.items():
                    row[domain].append(macro_f1(labels, predicted(model, pictures)))
                print(count, taught, seed, row, flush=True)
        found[str(count)] = scores
    return found


PARTS = {
    "speed": speed,
    "captions": lambda: ceilings("captions"),
    "causes": lambda: ceilings("causes"),
    "pictures": picture_models,
}


def main(names: list[str]) -> None:
    """Measure the given parts that results/world.json lacks for the present world."""
    path, key = FOLDER / "world.json", world.world_key()
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("world") != key:
        known = {"world": key}
    for name in names:
        if name not in known:
            known[name] = PARTS[name]()
            paths.atomic_write(path, json.dumps(known, indent=1) + "\n")
        print(name, json.dumps(known[name]), flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        sys.exit(f"There is no part {unknown[0]!r}; choose among {', '.join(PARTS)}.")
    main(wanted)
