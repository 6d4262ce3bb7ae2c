"""The pictures the miniature foundation models are pre-trained on: the built-in world's, from a split no benchmark uses."""
import multiprocessing
import os
from pathlib import Path

import numpy as np

from .. import paths
from ..datasets import render, world
from . import texts

SEED = 0
# pictures a style; "icons" is the only one whose captions name emotions
SHARES = {"photos": 8000, "stickers": 8000, "sketches": 4000, "icons": 4000}


def jobs(shares: dict[str, int] = SHARES) -> list[tuple[str, int]]:
    """(style, index) of every picture; no two styles share a scene."""
    styles = [style for style, n in shares.items() for _ in range(n)]
    return list(zip(styles, range(len(styles))))


def draw(job: tuple[str, int], size: int = 64) -> np.ndarray:
    """One picture of `size` pixels a side, uint8 [size, size, 3]."""
    style, index = job
    return np.asarray(render.render(world.sample_scene("pretrain", SEED, index), style, size))


def describe(job: tuple[str, int]) -> str:
    """The caption beside that picture."""
    style, index = job
    scene = world.sample_scene("pretrain", SEED, index)
    return texts.icon_caption(scene) if style == "icons" else world.caption(scene, style)


def build(folder: Path, size: int = 64) -> tuple[np.ndarray, list[str]]:
    """Pictures uint8 [N, size, size, 3] (memory-mapped) and their captions; drawn once by all cores and kept in `folder`."""
    path = folder / f"pictures-{paths.code_key('datasets/world.py', 'datasets/render.py', 'pretrain/corpus.py')[:12]}.npy"
    todo = jobs()
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        pictures = np.lib.format.open_memmap(part, "w+", np.uint8, (len(todo), size, size, 3))
        with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
            for i, picture in enumerate(paths.progress(pool.imap(draw, todo, chunksize=64), "drawing the corpus", len(todo))):
                pictures[i] = picture
        pictures.flush()
        os.replace(part, path)
    return np.load(path, mmap_mode="r"), [describe(job) for job in todo]
