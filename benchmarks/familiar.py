"""Measure how often pictures are called unlike those that the miniature VLM was trained on.

Of its training pictures, the built-in domains and real drawings, about one in a hundred should be
called so; of all others, many. `python benchmarks/familiar.py [FOLDER ...]` prints, and writes into
results/familiar.json, for each kind of pictures

unfamiliar   the share whose familiarity is below `familiar.UNFAMILIAR`
auroc        how well the distance alone separates them from the built-in domains' pictures: the
             probability that a picture of this kind is further away than one of those

Each folder holds a VLM that was trained without some sets of drawings (`benchmarks/left_out.py`),
with its statistics (`--stage familiar`, with the same --without); it is tested on these sets.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
from left_out import shipped_without
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from kcdp_book import results
from kcdp_lib import datasets, paths, world
from kcdp_lib.config import PRESETS, Preset
from kcdp_lib.familiar import UNFAMILIAR, load_known
from kcdp_lib.loading import FAMILIAR, place
from kcdp_lib.pretrain.familiar import features
from kcdp_lib.vision_language import load_vlm

PRESET = PRESETS["tiny"]
COUNT = {"domain": 800, "kind": 300}  # pictures of each


def of_domain(name: str) -> np.ndarray:
    """Load test pictures of a data set, uint8 [N, S, S, 3]."""
    files = datasets.load(name, "test").files[: COUNT["domain"]]
    return datasets.read_images(files, PRESET.image_size).permute(0, 2, 3, 1).numpy()


def noise(rng: np.random.Generator, photos: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield kinds of pictures without any form, uint8 [N, S, S, 3] each."""
    shape = photos.shape
    normal = rng.normal(127.5, 64, shape)
    yield "gaussian noise", normal.clip(0, 255).astype(np.uint8)
    yield "uniform noise", rng.integers(0, 256, shape, dtype=np.uint8)
    pixels = photos.reshape(len(photos), -1, 3)
    yield "shuffled photos", np.stack([rng.permutation(one) for one in pixels]).reshape(shape)


def plain(rng: np.random.Generator, count: int, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield pictures of one colour, and gradients between two, uint8 [N, S, S, 3] each."""
    first, second = rng.integers(0, 256, (2, count, 1, 1, 3))
    one = np.broadcast_to(first, (count, size, size, 3))
    yield "one colour", one.astype(np.uint8)
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    along = ((np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2) + 0.5)[..., None]
    yield "gradients", (first * (1 - along) + second * along).round().astype(np.uint8)


def photographs(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Crop squares from the photographs in scikit-learn and matplotlib, [N, S, S, 3]."""
    portrait = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    whole = [*map(Image.fromarray, load_sample_images().images), Image.open(portrait)]
    parts = []
    for i in range(count):
        image = whole[i % len(whole)]
        side = rng.integers(96, min(image.size) + 1)
        left, top = (rng.integers(0, length - side + 1) for length in image.size)
        parts.append(image.crop((left, top, left + side, top + side)))
    return datasets.read_images(parts, size).permute(0, 2, 3, 1).numpy()


def kinds() -> Iterator[tuple[str, np.ndarray]]:
    """Yield every kind of pictures that no domain has."""
    rng, count, size = np.random.default_rng(0), COUNT["kind"], PRESET.image_size
    yield from noise(rng, of_domain("photos")[:count])
    yield from plain(rng, count, size)
    yield "photographs", photographs(rng, count, size)


class Asked:
    """A VLM with the statistics of its training pictures."""

    def __init__(self, preset: Preset):
        known = load_known(preset)
        assert known is not None, "`python -m kcdp_lib.pretrain --stage familiar` makes the file"
        self.known, self.vlm = known, load_vlm(preset)

    def look(self, pictures: np.ndarray) -> tuple[np.ndarray, dict]:
        """Return distances [N] of uint8 pictures [N, S, S, 3], and the share called unfamiliar."""
        seen = features(self.vlm, pictures)[:, : len(self.known.mean)]
        strange = (self.known.familiarity(seen) < UNFAMILIAR).float().mean().item()
        return self.known.distance(seen).numpy(), {"n": len(seen), "unfamiliar": round(strange, 4)}

    def compare(self, kinds: Iterator[tuple[str, np.ndarray]]) -> dict[str, dict]:
        """Measure the built-in domains, and compare each of some kinds with all of them."""
        found, near = {}, []
        for name in world.BENCHMARK:
            distances, found[name] = self.look(of_domain(name))
            near.append(distances)
        usual = np.concatenate(near)
        for name, pictures in paths.progress(kinds, "kinds"):
            distances, found[name] = self.look(pictures)
            is_odd = np.repeat([0, 1], [len(usual), len(distances)])
            area = roc_auc_score(is_odd, np.concatenate([usual, distances]))
            found[name]["auroc"] = round(float(area), 4)
        return found


def measure(folders: Sequence[Path]) -> dict:
    """Return the contents of results/familiar.json."""
    shown = (("real art", np.concatenate(list(map(of_domain, datasets.ART)))),)
    found = Asked(PRESET).compare(chain(shown, kinds()))
    for folder in folders:
        sets = shipped_without(folder)
        preset = replace(PRESET, vlm=f"local-dir:{folder / 'vlm'}")
        told = Asked(preset).compare((name, of_domain(f"art-{name}")) for name in sets)
        found |= {f"{name}, left out": told[name] for name in sets}
    reference = Path(place(PRESET.vlm), FAMILIAR).read_bytes()
    return {"reference": paths.sha(reference), "threshold": UNFAMILIAR, "kinds": found}


if __name__ == "__main__":
    result = measure([Path(name) for name in sys.argv[1:]])
    for kind, row in result["kinds"].items():
        area = f"{row['auroc']:.3f}" if "auroc" in row else ""
        print(f"{kind:26} {row['n']:5} {row['unfamiliar']:7.1%} {area}")
    results.write("familiar", result)
