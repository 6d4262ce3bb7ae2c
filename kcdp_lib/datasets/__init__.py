"""Pictures by name: the built-in world's domains, the shipped real artwork `noto`, or any folder (chapter 01).

Everything here is ordered by the pictures' content, never by their names: a method cannot read a label off a path or an order.
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps

from .. import paths, world
from ..errors import KCDPError
from ..world import SIX as EMOTIONS    # the six classes, and their order everywhere
from ..world import TAXONOMIES, Dials, world_key

DOMAINS = (*world.BENCHMARK, "noto")
SIZES = {"train": 1200, "test": 1200}     # pictures in a built-in domain's splits
SOURCE_SIDE = 64                          # pixels at which the built-in pictures are stored
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# words that folders and metadata use for EmoSet's eight emotions, and for the six classes that are unions of them; anything else is an unlabelled picture
EIGHT_WORDS = {"amusement": ("amused",), "awe": (), "contentment": (), "excitement": (), "anger": ("angry",), "disgust": ("disgusted",), "fear": ("afraid",), "sadness": ("sad",)}
SIX_WORDS = {"surprise": ("surprised",), "happy": ("happiness", "joy")}


def class_index(taxonomy: str = "six") -> dict[str, int]:
    """{lower-case word: class} in a taxonomy, "six" or "eight". A word for a class of six that is several of eight has none there."""
    classes, found = TAXONOMIES[taxonomy], {}
    for emotion, words in {**EIGHT_WORDS, **SIX_WORDS}.items():
        label = world.label_of(emotion, taxonomy)
        if label in classes:
            found |= dict.fromkeys((emotion, *words), classes.index(label))
    return found


@dataclass
class Pictures:
    """One split of one domain, ordered by content. int64 `labels` [N] index `classes`, -1 where unknown; a target's are for reporting only."""
    name: str
    split: str
    files: list[Path]
    labels: np.ndarray
    keys: list[str]                                                   # SHA-256 of each file's bytes
    skipped: list[tuple[Path, str]] = field(default_factory=list)     # files that could not be read, and why
    transductive: bool = False                                        # the test pictures are among the training pictures
    taxonomy: str = "six"

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their numbers."""
        return TAXONOMIES[self.taxonomy]

    @property
    def key(self) -> str:
        """SHA over the contents, in order: the name under which what is computed from them is cached."""
        return paths.sha(*self.keys)


def load(name: str | Path, split: str, data_root: str | Path | None = None, seed: int = 0, size: int = SOURCE_SIDE, taxonomy: str = "six", dials: Dials = Dials()) -> Pictures:
    """The pictures of a built-in domain (drawn on first use, `size` pixels a side), of `noto`, or of a folder; `split` is "train" or "test" (chapter 01).

    Labels are classes of `taxonomy`, "six" or "eight"; `dials` say how far the built-in domains lie apart and touch nothing else.

    A folder may hold class folders, `metadata.jsonl`/`.csv` (Hugging Face's convention) or plain pictures, each also under
    `train/` and `test/`; without these two, all pictures are for training and the labelled ones are the test ("transductive").
    `data_root` is where relative folders are looked for first. Raises KCDPError with one sentence for anything else.
    """
    if split not in SIZES:
        raise KCDPError(f"split={split!r} is not known; choose one of {', '.join(SIZES)}.")
    if taxonomy not in TAXONOMIES:
        raise KCDPError(f"taxonomy={taxonomy!r} is not known; choose one of {', '.join(TAXONOMIES)}.")
    if name in world.BENCHMARK:
        return replace(from_folder(world.build(str(name), split, SIZES[split], seed, size, dials), str(name), split, taxonomy), transductive=False)
    if name == "noto":
        return from_folder(Path(__file__).parent / "noto", "noto", split, taxonomy)
    folder = Path(data_root, name) if data_root and Path(data_root, name).is_dir() else paths.resolve(name)
    if not folder.is_dir():
        raise KCDPError(f"{str(name)!r} is neither a known domain nor a folder; choose one of {', '.join(DOMAINS)}, or give a folder of pictures.")
    return from_folder(folder, folder.name, split, taxonomy)


def from_folder(folder: Path, name: str, split: str, taxonomy: str = "six") -> Pictures:
    """Read a folder of pictures; files that are no pictures are skipped and counted. Raises KCDPError if none is left."""
    divided = (folder / "train").is_dir() and (folder / "test").is_dir()
    root = folder / split if divided else folder
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."))
    told, index = metadata_labels(root), class_index(taxonomy)
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
        found.append((hashlib.sha256(content).hexdigest(), path, index.get(str(label).lower(), -1)))
    if not found:
        about = f"; {len(skipped)} files could not be read, the first is {skipped[0][0].name}" if skipped else ""
        raise KCDPError(f"There are no pictures in {root}{about}; give a folder with {', '.join(sorted(SUFFIXES))} files, in class folders or not.")
    if split == "test" and not divided:
        found = [row for row in found if row[2] >= 0]
    found.sort(key=lambda row: row[0])
    keys, kept, labels = zip(*found) if found else ((), (), ())
    return Pictures(name, split, list(kept), np.array(labels, np.int64), list(keys), skipped, transductive=not divided, taxonomy=taxonomy)


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
