"""Pictures by name: the built-in world's domains, the shipped real artwork `noto`, or any folder (chapter 01).

Everything here is ordered by the pictures' content, never by their names: a method cannot read a label off a path or an order.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps

from .. import paths
from ..errors import KCDPError
from . import render, world
from .world import EMOTIONS

BUILT_IN = ("photos", "stickers", "sketches")
DOMAINS = (*BUILT_IN, "noto")
SIZES = {"train": 1200, "test": 1200}     # pictures in a built-in domain's splits
SOURCE_SIDE = 64                          # pixels at which the built-in pictures are stored
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# words that folders and metadata use for the six emotions; anything else is an unlabelled picture
SYNONYMS = {"surprise": ("surprise", "surprised", "excitement", "awe"), "happy": ("happy", "happiness", "joy", "amusement", "contentment"),
            "disgust": ("disgust", "disgusted"), "fear": ("fear", "afraid"), "sadness": ("sadness", "sad"), "anger": ("anger", "angry")}
SIX = {word: EMOTIONS.index(emotion) for emotion, words in SYNONYMS.items() for word in words}


@dataclass
class Pictures:
    """One split of one domain, ordered by content. int64 `labels` [N] index `EMOTIONS`, -1 where unknown; a target's are for reporting only."""
    name: str
    split: str
    files: list[Path]
    labels: np.ndarray
    keys: list[str]                                                   # SHA-256 of each file's bytes
    skipped: list[tuple[Path, str]] = field(default_factory=list)     # files that could not be read, and why
    transductive: bool = False                                        # the test pictures are among the training pictures

    def __len__(self) -> int:
        return len(self.files)

    @property
    def key(self) -> str:
        """SHA over the contents, in order: the name under which what is computed from them is cached."""
        return paths.sha(*self.keys)


def load(name: str | Path, split: str, data_root: str | Path | None = None, seed: int = 0, size: int = SOURCE_SIDE) -> Pictures:
    """The pictures of a built-in domain (drawn on first use, `size` pixels a side), of `noto`, or of a folder; `split` is "train" or "test" (chapter 01).

    A folder may hold class folders, `metadata.jsonl`/`.csv` (Hugging Face's convention) or plain pictures, each also under
    `train/` and `test/`; without these two, all pictures are for training and the labelled ones are the test ("transductive").
    `data_root` is where relative folders are looked for first. Raises KCDPError with one sentence for anything else.
    """
    if split not in SIZES:
        raise KCDPError(f"split={split!r} is not known; choose one of {', '.join(SIZES)}.")
    if name in BUILT_IN:
        return replace(from_folder(build(str(name), split, seed, size), str(name), split), transductive=False)
    if name == "noto":
        return from_folder(Path(__file__).parent / "noto", "noto", split)
    folder = Path(data_root, name) if data_root and Path(data_root, name).is_dir() else paths.resolve(name)
    if not folder.is_dir():
        raise KCDPError(f"{str(name)!r} is neither a known domain nor a folder; choose one of {', '.join(DOMAINS)}, or give a folder of pictures.")
    return from_folder(folder, folder.name, split)


def from_folder(folder: Path, name: str, split: str) -> Pictures:
    """Read a folder of pictures; files that are no pictures are skipped and counted. Raises KCDPError if none is left."""
    divided = (folder / "train").is_dir() and (folder / "test").is_dir()
    root = folder / split if divided else folder
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."))
    told = metadata_labels(root)
    found, skipped = [], []
    for path in files:
        try:
            content = path.read_bytes()
            with Image.open(path) as image:
                image.load()
        except Exception as error:  # Pillow raises many kinds for broken files; each is named in `skipped`
            skipped.append((path, f"{type(error).__name__}: {error}"))
            continue
        label = told.get(path.relative_to(root).as_posix(), path.parent.name if path.parent != root else None)
        found.append((hashlib.sha256(content).hexdigest(), path, SIX.get(str(label).lower(), -1)))
    if not found:
        about = f"; {len(skipped)} files could not be read, the first is {skipped[0][0].name}" if skipped else ""
        raise KCDPError(f"There are no pictures in {root}{about}; give a folder with {', '.join(sorted(SUFFIXES))} files, in class folders or not.")
    if split == "test" and not divided:
        found = [row for row in found if row[2] >= 0]
    found.sort(key=lambda row: row[0])
    keys, kept, labels = zip(*found) if found else ((), (), ())
    return Pictures(name, split, list(kept), np.array(labels, np.int64), list(keys), skipped, transductive=not divided)


def metadata_labels(root: Path) -> dict[str, str | None]:
    """{file name: label} from `metadata.jsonl` or `metadata.csv` in `root`; {} if there is neither. KCDPError names a broken line."""
    lines, rows = root / "metadata.jsonl", []
    if lines.exists():
        for number, line in enumerate(lines.read_text(encoding="utf-8").splitlines(), 1):
            try:
                rows.append(json.loads(line)) if line.strip() else None
            except ValueError:
                raise KCDPError(f"Line {number} of {lines} is not JSON; write one object a line, such as {{\"file_name\": \"a.png\", \"label\": \"happy\"}}.") from None
    elif (root / "metadata.csv").exists():
        import pandas
        rows = pandas.read_csv(root / "metadata.csv", dtype=str, keep_default_na=False).to_dict("records")
    if any("file_name" not in row for row in rows):
        raise KCDPError(f"Every row of the metadata in {root} needs a file_name; add the column.")
    return {row["file_name"]: row.get("label", row.get("emotion")) for row in rows}


def read_images(files: Sequence[str | Path | Image.Image], size: int) -> torch.Tensor:
    """Pictures as uint8 [N, 3, size, size]: RGB, alpha laid on white, first frame of an animation, centre-cropped to a square of `size` pixels.

    Raises KCDPError naming the first file that cannot be read.
    """
    out = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for i, file in enumerate(files):
        try:
            picture = file if isinstance(file, Image.Image) else Image.open(file)
            out[i] = torch.from_numpy(np.array(square(picture, size))).permute(2, 0, 1)
        except (OSError, ValueError, SyntaxError) as error:
            raise KCDPError(f"{file} cannot be read as a picture ({error}); remove it or convert it to PNG.") from error
    return out


def square(picture: Image.Image, size: int) -> Image.Image:
    """One picture as RGB of `size` x `size` pixels: turned as its EXIF says, on white, the middle of it. Pillow's own errors pass through."""
    picture.seek(0) if getattr(picture, "is_animated", False) else None
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode.startswith("I") or picture.mode == "F":    # 16 bits or floats: Pillow's own conversion would clip them
        values = np.asarray(picture, np.float32)
        picture = Image.fromarray(np.uint8(255 * (values - values.min()) / max(np.ptp(values), 1e-9)))
    return ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC)


# ---------------------------------------------------------------- the built-in world on disk

def draw_file(job: tuple[str, str, int, int], folder: Path, size: int) -> dict:
    """Draw one picture of (domain, split, seed, index) into `folder`; returns its row of `metadata.jsonl`."""
    domain, split, seed, index = job
    scene = world.sample_scene(split, seed, index, world.DOMAINS[domain].prior)
    name = f"{index:06d}.png"
    render.render(scene, domain, size).save(folder / name, compress_level=1)
    return {"file_name": name, "label": scene.emotion, **world.metadata(scene, domain)}


def world_key() -> str:
    """The built-in world's version: 12 hex digits of a SHA over the code that draws it (chapter 01)."""
    return paths.code_key("datasets/world.py", "datasets/render.py")[:12]


def build(domain: str, split: str, seed: int = 0, size: int = SOURCE_SIDE, count: int | None = None, workers: int | None = None) -> Path:
    """Draw a split of the built-in world with all cores, once; returns its folder (`metadata.jsonl` and PNGs of `size` pixels a side).

    The folder appears only when it is complete. The same arguments give the same bytes whatever `workers` is.
    """
    count = count or SIZES[split]
    folder = paths.CACHE / "world" / world_key() / f"{domain}-{split}-{seed}-{size}-{count}"
    if (folder / "metadata.jsonl").exists():
        return folder
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    jobs = [(domain, split, seed, index) for index in range(count)]
    # fork: the workers need nothing of torch, and importing it anew would cost more than the drawing
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with warnings.catch_warnings(), ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
        warnings.simplefilter("ignore", DeprecationWarning)    # Python 3.12 warns of fork beside threads
        rows = list(paths.progress(pool.map(partial(draw_file, folder=part, size=size), jobs, chunksize=32), f"drawing {domain}", count))
    paths.atomic_write(part / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    try:
        os.replace(part, folder)
    except OSError:      # another process was faster: its pictures are the same
        shutil.rmtree(part)
    return folder
