"""The world on disk (chapter 01).

A split of a domain as an image folder with `metadata.jsonl`, Hugging Face's convention, drawn once
by all cores.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from .. import paths
from .causes import Dials, metadata, sample_scene
from .render import render

CODE = (
    "causes",
    "svg",
    "subjects",
    "faces",
    "responses",
    "events",
    "scenery",
    "render",
)  # what a picture depends on
BLOCK = 1024  # pictures handed to the workers at a time: memory does not grow with their number


def world_key() -> str:
    """The world's version: 12 hex digits of a SHA over the code that draws it, docstrings and
    comments aside.
    """
    return paths.code_key(*(f"world/{name}.py" for name in CODE))[:12]


def draw_file(
    index: int, domain: str, split: str, seed: int, size: int, dials: Dials, folder: Path
) -> str:
    """Draw picture `index` into `folder`.

    Returns its line of `metadata.jsonl`, whose label is one of the eight emotions: a taxonomy is
    chosen in reading.
    """
    scene, name = sample_scene(split, seed, index, domain, dials), f"{index:06d}.png"
    render(scene, domain, size, dials).save(folder / name, compress_level=1)
    return json.dumps({"file_name": name, "label": scene.emotion, **metadata(scene, domain, dials)})


def build(
    domain: str,
    split: str,
    count: int,
    seed: int = 0,
    size: int = 64,
    dials: Dials = Dials(),
    workers: int | None = None,
) -> Path:
    """Draw `count` pictures of a domain's split with all cores, once.

    Returns their folder: PNGs of `size` pixels a side, named by index, and `metadata.jsonl`.

    The folder appears only when it is complete. The same arguments give the same bytes on every
    run, whatever `workers` is. Raises KCDPError for an unknown domain or split, and for a dial out
    of its range.
    """
    dials = dials.check().felt_by(domain)
    about = {"domain": domain, "split": split, "seed": seed, "size": size, **asdict(dials)}
    folder = (
        paths.CACHE
        / "world"
        / world_key()
        / f"{domain}-{split}-{seed}-{size}-{count}-{paths.sha(json.dumps(about))[:8]}"
    )
    if (folder / "metadata.jsonl").exists():
        return folder
    sample_scene(split, seed, 0, domain, dials)  # bad names are told before a folder is made
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    draw = partial(
        draw_file, domain=domain, split=split, seed=seed, size=size, dials=dials, folder=part
    )
    # fork: the workers need nothing of torch, and importing it anew would cost more than the
    # drawing
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with (
        warnings.catch_warnings(),
        ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool,
        (part / "metadata.jsonl").open("w") as lines,
    ):
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of fork beside threads
        blocks = (range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))
        drawn = (line for block in blocks for line in pool.map(draw, block, chunksize=8))
        for line in paths.progress(drawn, f"drawing {domain}", count):
            lines.write(line + "\n")
    try:
        os.replace(part, folder)
    except OSError:  # another process was faster: its pictures are the same
        shutil.rmtree(part)
    return folder
