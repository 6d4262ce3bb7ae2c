"""Pictures by name: the built-in world's domains, the shipped real artwork `noto`, real data sets,
or any folder (chapter 01).

Everything here is ordered by the pictures' content, never by their names: a method cannot read a
label off a path or an order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .. import paths, world
from ..errors import KCDPError
from ..world import SIX as EMOTIONS  # the six classes, and their order everywhere
from ..world import TAXONOMIES, Dials, world_key
from .images import read_images, square
from .index import NOT_THERE, inspect
from .layouts import REAL, listing

DOMAINS = (*world.BENCHMARK, "noto")
SIZES = {"train": 1200, "test": 1200}  # pictures in a built-in domain's splits
SOURCE_SIDE = 64  # pixels at which the built-in pictures are stored
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# words that folders and metadata use for EmoSet's eight emotions, and for the six classes that are
# unions of them; anything else is an unlabelled picture
EIGHT_WORDS = {
    "amusement": ("amused",),
    "awe": (),
    "contentment": (),
    "excitement": (),
    "anger": ("angry",),
    "disgust": ("disgusted",),
    "fear": ("afraid",),
    "sadness": ("sad",),
}
SIX_WORDS = {"surprise": ("surprised",), "happy": ("happiness", "joy")}


def class_index(taxonomy: str = "six") -> dict[str, int]:
    """{lower-case word: class} in a taxonomy, "six" or "eight".

    A word for a class of six that is several of eight has none there.
    """
    classes, found = TAXONOMIES[taxonomy], {}
    for emotion, words in {**EIGHT_WORDS, **SIX_WORDS}.items():
        label = world.label_of(emotion, taxonomy)
        if label in classes:
            found |= dict.fromkeys((emotion, *words), classes.index(label))
    return found


@dataclass
class Pictures:
    """One split of one domain, ordered by content. int64 `labels` [N] index `classes`, -1 where
    unknown; a target's are for reporting only.
    """

    name: str
    split: str
    files: list[Path]
    labels: np.ndarray
    keys: list[str]  # SHA-256 of each file's bytes
    skipped: list[tuple[Path, str]] = field(
        default_factory=list
    )  # files that could not be read, and why
    transductive: bool = False  # the test pictures are among the training pictures
    taxonomy: str = "six"
    of_no_class: int = 0  # listed, but of no class of this taxonomy, and so left out
    notes: list[str] = field(
        default_factory=list
    )  # what a reader of the data set's own files should know

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their numbers."""
        return TAXONOMIES[self.taxonomy]

    def select(self, rows: Sequence[int]) -> Pictures:
        """Some of the pictures, by their rows [n] (ints), in that order."""
        return replace(
            self,
            files=[self.files[i] for i in rows],
            labels=self.labels[rows],
            keys=[self.keys[i] for i in rows],
        )

    @property
    def key(self) -> str:
        """SHA over the contents, in order.

        The name under which what is computed from them is cached.
        """
        return paths.sha(*self.keys)


def load(
    name: str | Path,
    split: str,
    data_root: str | Path | None = None,
    seed: int = 0,
    size: int = SOURCE_SIDE,
    taxonomy: str = "six",
    dials: Dials = Dials(),
) -> Pictures:
    """The pictures of a built-in domain (drawn on first use, `size` pixels a side), of `noto`, of a
    real data set, or of a folder (chapter 01).

    `split` is "train" or "test"; data sets that have it know "val", too. Labels are classes of
      `taxonomy`, "six" or "eight"; `dials` say how far the built-in domains lie apart and touch
      nothing else.

    A real data set ("emoset", "ser30k", ...) lies in `data_root`, as it was downloaded. A folder
      may hold class folders, `metadata.jsonl`/`.csv` (Hugging Face's convention) or plain pictures,
      each also under
    `train/` and `test/`; without these two, all pictures are for training and the labelled ones are
      the test ("transductive").
    `data_root` is where relative folders are looked for first. Raises KCDPError with one sentence
      for anything else.
    """
    if name not in REAL and split not in SIZES:  # a real data set has splits of its own
        raise KCDPError(f"split={split!r} is not known; choose one of {', '.join(SIZES)}.")
    if taxonomy not in TAXONOMIES:
        raise KCDPError(
            f"taxonomy={taxonomy!r} is not known; choose one of {', '.join(TAXONOMIES)}."
        )
    if name in world.BENCHMARK:
        return replace(
            from_folder(
                world.build(str(name), split, SIZES[split], seed, size, dials),
                str(name),
                split,
                taxonomy,
            ),
            transductive=False,
        )
    if name == "noto":
        return from_folder(Path(__file__).parent / "noto", "noto", split, taxonomy)
    if name in REAL:
        return from_listing(str(name), split, data_root and paths.resolve(data_root), taxonomy)
    folder = (
        Path(data_root, name)
        if data_root and Path(data_root, name).is_dir()
        else paths.resolve(name)
    )
    if not folder.is_dir():
        raise KCDPError(
            f"{str(name)!r} is neither a known domain nor a folder; choose one of "
            f"{', '.join(DOMAINS)}, with data_root one of {', '.join(REAL)}, or give a folder of "
            "pictures."
        )
    return from_folder(folder, folder.name, split, taxonomy)


def from_folder(folder: Path, name: str, split: str, taxonomy: str = "six") -> Pictures:
    """Read a folder of pictures; files that are no pictures are skipped and counted.

    Raises KCDPError if none is left.
    """
    divided = (folder / "train").is_dir() and (folder / "test").is_dir()
    root = folder / split if divided else folder
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    told = metadata_labels(root)
    words = [
        told.get(
            path.relative_to(root).as_posix(), path.parent.name if path.parent != root else None
        )
        for path in files
    ]
    pictures = from_files(files, words, name, split, taxonomy)
    if not len(pictures):
        about = (
            f"; {len(pictures.skipped)} files could not be read, the first is "
            f"{pictures.skipped[0][0].name}"
            if pictures.skipped
            else ""
        )
        raise KCDPError(
            f"There are no pictures in {root}{about}; give a folder with "
            f"{', '.join(sorted(SUFFIXES))} files, in class folders or not."
        )
    if split == "test" and not divided:
        pictures = pictures.select(np.flatnonzero(pictures.labels >= 0))
    return replace(pictures, transductive=not divided)


def from_listing(name: str, split: str, data_root: Path | None, taxonomy: str = "six") -> Pictures:
    """One split of a real data set.

    What it labels with no class of the taxonomy, such as SER30K's "neutral", is left out and
    counted (a closed set). Raises KCDPError if nothing is left.
    """
    told = listing(name, split, data_root)
    pictures = from_files(told.files, told.words, name, split, taxonomy)
    if not len(pictures):
        about = (
            f"; the first, {pictures.skipped[0][0]}, is {pictures.skipped[0][1]}"
            if pictures.skipped
            else ""
        )
        raise KCDPError(
            f"None of the {len(told.files)} pictures that {REAL[name].title} lists for {split!r} "
            f"can be read{about}; check that the pictures are unpacked where the list expects them."
        )
    classed = np.flatnonzero(pictures.labels >= 0)
    if not len(classed):
        raise KCDPError(
            f"None of the labels that {REAL[name].title} has for {split!r} is an emotion of "
            f"taxonomy={taxonomy!r}, the first is {told.words[0]!r}; check its list, or choose the "
            "other taxonomy."
        )
    return replace(
        pictures.select(classed), of_no_class=len(pictures) - len(classed), notes=told.notes
    )


def report(name: str | Path, data_root: str | Path | None = None, taxonomy: str = "six"):
    """What there is of a data set, a folder or a domain.

    A pandas table with a row for each split (pictures that are usable, missing, unreadable, of no
    class or unlabelled, then those of each class), and notes.

    KCDPError as `load` raises it.
    """
    import pandas

    splits = REAL[name].splits if name in REAL else tuple(SIZES)
    found = {split: load(name, split, data_root, taxonomy=taxonomy) for split in splits}
    rows = {
        split: {
            "pictures": len(of),
            "missing": sum(why == NOT_THERE for _, why in of.skipped),
            "unreadable": sum(why != NOT_THERE for _, why in of.skipped),
            "no class": of.of_no_class + int((of.labels < 0).sum()),
            **{word: int((of.labels == i).sum()) for i, word in enumerate(of.classes)},
        }
        for split, of in found.items()
    }
    return pandas.DataFrame.from_dict(rows, orient="index"), list(
        dict.fromkeys(note for of in found.values() for note in of.notes)
    )


def from_files(
    files: Sequence[Path], words: Sequence[str | None], name: str, split: str, taxonomy: str
) -> Pictures:
    """N listed files with a word each (None: no label), in the order of their contents.

    A word of no class is no label. Files that are missing or no pictures are in `skipped`, with the
    reason.
    """
    seen, index = inspect(files), class_index(taxonomy)
    found = sorted(
        (
            (seen[path][0], path, index.get(str(word).lower(), -1))
            for path, word in zip(files, words)
            if seen[path][0]
        ),
        key=lambda row: row[0],
    )
    keys, kept, labels = zip(*found) if found else ((), (), ())
    return Pictures(
        name,
        split,
        list(kept),
        np.array(labels, np.int64),
        list(keys),
        [(path, seen[path][1]) for path in files if not seen[path][0]],
        taxonomy=taxonomy,
    )


def metadata_labels(root: Path) -> dict[str, str | None]:
    """{file name: label} from `metadata.jsonl` or `metadata.csv` in `root`; {} if there is neither.

    KCDPError names a broken line.
    """
    lines, rows = root / "metadata.jsonl", []
    if lines.exists():
        for number, line in enumerate(lines.read_bytes().splitlines(), 1):
            try:
                rows += [dict(json.loads(line))] if line.strip() else []
            except (ValueError, TypeError):
                raise KCDPError(
                    f"Line {number} of {lines} is not JSON; write one object a line in UTF-8, such "
                    f'as {{"file_name": "a.png", "label": "happy"}}.'
                ) from None
    elif (root / "metadata.csv").exists():
        import pandas

        try:
            rows = pandas.read_csv(
                root / "metadata.csv", dtype=str, keep_default_na=False, index_col=False
            ).to_dict("records")
        except ValueError as error:
            raise KCDPError(
                f"{root / 'metadata.csv'} cannot be read ({str(error).strip()}); write a line with "
                "file_name and label, then one for each picture, in UTF-8."
            ) from error
    if not all(isinstance(row.get("file_name"), str) for row in rows):
        raise KCDPError(f"Every row of the metadata in {root} needs a file_name; add the column.")
    return {row["file_name"]: row.get("label", row.get("emotion")) for row in rows}
