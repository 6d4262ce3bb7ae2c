"""Store the world on disk (chapter 01).

A split of a domain is an image folder with `metadata.jsonl`, Hugging Face's convention, drawn once
by all cores.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from .. import machine, paths
from ..checkout import code_key
from .causes import DOMAINS, Dials, caption, metadata, sample_scene
from .render import render

VERSION = 2  # raised whenever the pictures, captions or labels are meant to change
REFERENCE = Path(__file__).with_name("reference.json")
REFERENCE_SCENES = 60  # of each domain: enough for every event, response and subject


def world_key() -> str:
    """Return the world's version and the recorded hash of its reference pictures.

    "2-" and 12 hex digits. Code may be renamed and moved under one key; `python -m kcdp_lib.world`
    records a new one if pictures have changed, and a test compares the record with the pictures.
    """
    recorded = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return f"{recorded['version']}-{recorded['pictures'][:12]}"


def reference_hash() -> str:
    """Return the SHA of pixels, captions and causes of all domains' reference scenes."""
    parts: list[bytes | str] = []
    for domain in DOMAINS:
        for index in range(REFERENCE_SCENES):
            scene = sample_scene("test", 0, index, domain)
            parts.append(render(scene, domain, 64).tobytes())
            parts.append(caption(scene, domain))
            parts.append(json.dumps(metadata(scene, domain, Dials())))
    return paths.sha(*parts)


def record_reference() -> None:
    """Write the version and the hash of the reference pictures beside the drawing code."""
    recorded = {"version": VERSION, "pictures": reference_hash()}
    paths.atomic_write(REFERENCE, json.dumps(recorded, indent=2) + "\n")


@cache
def _drawing_code() -> str:
    """Return the SHA of the files that draw, so that no edit reuses a folder of pictures."""
    return code_key(*sorted(REFERENCE.parent.glob("*.py")))


def draw_file(
    index: int, domain: str, split: str, seed: int, size: int, dials: Dials, folder: Path
) -> str:
    """Draw picture `index` into `folder`.

    Returns its line of `metadata.jsonl`. The label there is one of the eight emotions; the taxonomy
    is chosen when it is read.
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
    run, for any number of `workers`. Raises KCDPError for an unknown domain or split, for a dial
    out of range, and if the cache cannot be written.
    """
    dials = dials.check().felt_by(domain)
    about = {"domain": domain, "split": split, "seed": seed, "size": size, **asdict(dials)}
    name = f"{domain}-{split}-{seed}-{size}-{count}-{paths.sha(json.dumps(about))[:8]}"
    folder = paths.CACHE / "world" / f"{world_key()}-{_drawing_code()[:8]}" / name
    if _is_whole(folder, count):
        return folder
    sample_scene(split, seed, 0, domain, dials)  # raises for wrong names before a folder is made
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    draw = partial(
        draw_file, domain=domain, split=split, seed=seed, size=size, dials=dials, folder=part
    )
    with paths.explained(paths.CACHE):
        try:
            part.mkdir(parents=True, exist_ok=True)
            _draw_all(draw, domain, count, part, workers)
            if folder.is_dir() and not _is_whole(folder, count):
                warnings.warn(f"{folder} is damaged and is made anew.", stacklevel=2)
                shutil.rmtree(folder)
            os.replace(part, folder)
        except OSError:
            if not _is_whole(folder, count):
                raise  # another process was faster: its pictures are the same
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _is_whole(folder: Path, count: int) -> bool:
    """Return whether a folder holds `count` pictures and lines of metadata, and no empty file."""
    try:
        sizes = [entry.stat().st_size for entry in os.scandir(folder)]
        lines = (folder / "metadata.jsonl").read_bytes().count(b"\n")
    except OSError:
        return False
    return lines == count == len(sizes) - 1 and all(sizes)


def _draw_all(draw: Callable, domain: str, count: int, part: Path, workers: int | None) -> None:
    """Draw pictures 0 to `count` - 1 by draw(index), and write the lines that it returns."""
    drawn = machine.side_by_side(draw, range(count), workers)
    with (part / "metadata.jsonl").open("w", encoding="utf-8", newline="\n") as lines:
        for line in paths.progress(drawn, f"drawing {domain}", count):
            lines.write(line + "\n")
