"""Draw the pictures of the built-in world that the miniature models are pre-trained on.

They come from a split that no benchmark uses.
"""

import os
from pathlib import Path

import numpy as np

from kcdp_lib import machine, paths, world
from kcdp_lib.checkout import code_key
from kcdp_lib.pretrain import IMAGE_SIZE, texts

SEED = 0
# Pictures of each domain
SHARES = {"photos": 10000, "stickers": 9000, "sketches": 9000, "paintings": 9000, "icons": 3000}
# All emotions equally often in every domain: pre-training need not follow a domain's class
# frequencies
DIALS = world.Dials(prior_shift=0.0)


def jobs(shares: dict[str, int] = SHARES) -> list[tuple[str, int]]:
    """Return (domain, index) of every picture, domain by domain."""
    return [(domain, index) for domain, n in shares.items() for index in range(n)]


def scene_of(job: tuple[str, int]) -> world.Scene:
    """Return the scene of one picture, from the split `pretrain`, which no benchmark shares."""
    domain, index = job
    return world.sample_scene("pretrain", SEED, index, domain, DIALS)


def draw(job: tuple[str, int]) -> np.ndarray:
    """Draw one picture, uint8 [S, S, 3], S = `IMAGE_SIZE`."""
    return np.asarray(world.render(scene_of(job), job[0], IMAGE_SIZE, DIALS))


def describe(job: tuple[str, int]) -> str:
    """Return the caption of that picture."""
    scene = scene_of(job)
    return texts.icon_caption(scene) if job[0] == "icons" else world.caption(scene, job[0], DIALS)


def key() -> str:
    """Return the cache key of the pictures, from the world and this module's code."""
    return f"{IMAGE_SIZE}-{world.world_key()}-{code_key(Path(__file__))[:12]}"


def build(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return pictures uint8 [N, S, S, 3] (memory-mapped), S = `IMAGE_SIZE`, and their captions.

    They are drawn once by all cores and kept in `folder`.
    """
    path = folder / f"pictures-{key()}.npy"
    todo = jobs()
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        shape = (len(todo), IMAGE_SIZE, IMAGE_SIZE, 3)
        pictures = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        drawn = machine.side_by_side(draw, todo)
        for i, picture in enumerate(paths.progress(drawn, "drawing the corpus", len(todo))):
            pictures[i] = picture
        pictures.flush()
        os.replace(part, path)
    return np.load(path, mmap_mode="r"), [describe(job) for job in todo]
