"""Pictures by name, as one split of a domain (chapter 01).

A name is a domain of the built-in world, shipped artwork (`noto`, `art-noto` and others), a real
data set, or any folder. Pictures are ordered by their contents, never by their names, so that a
method cannot read a label off a path or an order.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .. import paths, world
from ..errors import KCDPError, printable
from ..world import SIX as EMOTIONS  # the six classes, in the order used everywhere
from ..world import TAXONOMIES, Dials
from .folders import read_labels, split_folders, survey
from .images import read_images, square
from .index import NOT_THERE, inspect
from .layouts import REAL, listing
from .words import (
    CODES,
    NO_CLASS,
    SEVERAL,
    class_index,
    class_shares,
    is_number,
    note,
    plain_word,
    some,
    vocabulary,
)

# Real artwork, written by `python -m kcdp_lib.pretrain.art`.
EMOJI = "noto noto-v1 emojione fxemoji streamline twemoji"
CHARACTERS = "big-smile dylan lorelei micah personas toon-head"
ART = tuple(f"art-{name}" for name in f"{EMOJI} {CHARACTERS}".split())
DOMAINS = (*world.BENCHMARK, "noto", *ART)
SIZES = {"train": 1200, "test": 1200}  # pictures in a built-in domain's splits
SOURCE_SIDE = 128  # side in pixels of the stored built-in pictures
MOST_WORDS, MOST_LETTERS = 20, 40  # of words without a class, in counts and notes

__all__ = [
    "DOMAINS",
    "EMOTIONS",
    "Pictures",
    "REAL",
    "SIZES",
    "SOURCE_SIDE",
    "class_index",
    "concepts",
    "from_folder",
    "from_listing",
    "load",
    "overlaps",
    "read_images",
    "report",
    "square",
]


@dataclass
class Pictures:
    """One split of one domain, ordered by content.

    int64 `labels` [N] index `classes`, -1 if unknown; a target's are for reporting only. So are its
    `shares`, float32 [N, C]: how strongly people see each class, with a row sum of 1. A row is NaN
    if its picture has none, and `shares` is None if no picture has any.

    What is left out is counted by reason: unreadable files in `skipped`, listed pictures without a
    class in `of_no_class`, all else in `left_out`. `words` counts the labels that are no class of
    the taxonomy, and `notes` says what a reader should know.
    """

    name: str
    split: str
    files: list[Path]
    labels: np.ndarray
    keys: list[str]  # SHA-256 of each file's bytes
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    transductive: bool = False  # the test pictures are among the training pictures
    taxonomy: str = "six"
    of_no_class: int = 0
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    shares: np.ndarray | None = None  # [N, C]

    def __post_init__(self) -> None:
        """Set shares to None if no picture has any."""
        if self.shares is not None and np.isnan(self.shares).all():
            self.shares = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        return TAXONOMIES[self.taxonomy]

    @property
    def key(self) -> str:
        """SHA over the contents, in order.

        It is the cache key of everything computed from them.
        """
        return paths.sha(*self.keys)

    def select(self, rows: Sequence[int] | np.ndarray) -> Pictures:
        """Return the pictures of these rows [n] (ints), in that order."""
        return replace(
            self,
            files=[self.files[i] for i in rows],
            labels=self.labels[rows],
            keys=[self.keys[i] for i in rows],
            shares=None if self.shares is None else self.shares[rows],
        )

    def counts(self) -> dict[str, Any]:
        """Count the pictures and what was left out, by reason, as plain numbers and texts for JSON.

        "copies" are pictures with the same bytes as another one, in whatever class.
        """
        missing = sum(why == NOT_THERE for _, why in self.skipped)
        left_out = {
            "missing": missing,
            "unreadable": len(self.skipped) - missing,
            "no class": self.of_no_class,
            **self.left_out,
        }
        return {
            "pictures": len(self),
            "unlabelled": int((self.labels < 0).sum()),
            "copies": len(self) - len(set(self.keys)),
            "left_out": {reason: count for reason, count in left_out.items() if count},
            "words_of_no_class": self.words,
            "notes": self.notes,
        }


def load(
    name: str | Path,
    split: str,
    data_root: str | Path | None = None,
    seed: int = 0,
    size: int = SOURCE_SIDE,
    taxonomy: str = "six",
    dials: Dials = Dials(),
) -> Pictures:
    """Return the pictures of a domain, a data set or a folder (chapter 01).

    `split` is "train" or "test"; some data sets also have "val". Labels are classes of `taxonomy`,
    "six" or "eight". A built-in domain is drawn on first use, `size` pixels a side; `dials` say how
    far the built-in domains lie apart and affect nothing else.

    A real data set ("emoset", "ser30k", ...) lies in `data_root`, as it was downloaded. A folder
    may hold class folders, `metadata.jsonl`/`.csv` (Hugging Face's convention) or plain pictures,
    each also under `train/` and `test/`; without these two, all pictures are for training and the
    labelled ones are the test ("transductive").

    Relative folders are looked for in `data_root` first. A `Path`, and a text with a slash such as
    "./stickers", is always a folder. Raises KCDPError with one sentence for anything else.
    """
    choose = f"choose one of {', '.join((*DOMAINS, *REAL))}, or give a folder of pictures."
    if not isinstance(name, (str, os.PathLike)) or not str(name):
        raise KCDPError(f"{name!r} names no pictures; {choose}")
    splits = (split,) if name in REAL else SIZES  # a real data set has splits of its own
    for what, value, known in (("split", split, splits), ("taxonomy", taxonomy, TAXONOMIES)):
        if value not in tuple(known):
            raise KCDPError(f"{what}={value!r} is not known; choose one of {', '.join(known)}.")
    root = paths.resolve(data_root) if data_root else None
    if name in REAL:
        return from_listing(str(name), split, root, taxonomy)
    if name in DOMAINS:
        return built_in(str(name), split, root, seed, size, taxonomy, dials)
    folder = paths.folder_named(name, root)
    if not os.path.isdir(folder):
        raise KCDPError(f"{str(name)!r} is neither a known domain nor a folder; {choose}")
    return from_folder(folder, printable(folder.name) or str(folder), split, taxonomy)


def built_in(
    name: str, split: str, root: Path | None, seed: int, size: int, taxonomy: str, dials: Dials
) -> Pictures:
    """Return a built-in domain, drawn on first use, or shipped artwork.

    KCDPError if `root`, the folder of downloaded data sets, has a folder of that name.
    """
    if root and os.path.isdir(root / name):
        raise KCDPError(
            f"{name!r} is a built-in domain, and {root / name} is a folder of that name; write "
            f"./{name} for the folder, or give it another name."
        )
    if name in world.BENCHMARK:
        folder = world.build(name, split, SIZES[split], seed, size, dials)
    else:
        folder = Path(__file__).parent.joinpath(*name.split("-", 1))  # "art-noto-v1": art/noto-v1
    pictures = from_folder(folder, name, split, taxonomy)
    pictures.transductive = name == "noto"
    if os.path.isdir(name):
        pictures.notes.append(f"{name!r} is the built-in domain; the folder is written ./{name}")
    return pictures


def concepts(pictures: Pictures) -> list[str]:
    """Return what each of the N pictures of a domain in `ART` is called, such as "crying face".

    Characters are called by their designer's names for their parts, "micah: sad mouth" (chapter
    01). Methods must not see these names.
    """
    with (pictures.files[0].parents[1] / "metadata.csv").open(encoding="utf-8", newline="") as file:
        called = {row["file_name"]: row["concept"] for row in csv.DictReader(file)}
    return [called[f"{file.parent.name}/{file.name}"] for file in pictures.files]


def from_folder(folder: Path, name: str, split: str, taxonomy: str = "six") -> Pictures:
    """Read a folder of pictures; other files are left out and counted.

    A picture's label comes from a list, else from the nearest folder above it that names a class.
    Raises KCDPError if there is no picture.
    """
    divided = split_folders(folder)
    root = divided.get(split, folder)
    tree = survey(folder, divided, split)
    elsewhere = [other for other in divided.values() if other != root]
    labels = read_labels(tree.lists, tree.files, elsewhere)
    words, table, doubts = pick_words(tree.files, root, labels.words, taxonomy)
    pictures = from_files(tree.files, words, name, split, taxonomy, table, labels.shares)
    name_likeliest(pictures, labels.unnamed)
    pictures.transductive = not divided
    pictures.skipped += [(path, NOT_THERE) for path in labels.missing]
    unusable = Counter({"row that cannot be used": labels.unusable})
    pictures.left_out = dict(tree.left_out + unusable)
    pictures.notes += tree.notes + labels.notes + doubts
    if not len(pictures):
        about = note("files that cannot be read", [path.name for path, _ in pictures.skipped])
        about += [f"{reason} ({count})" for reason, count in pictures.left_out.items()]
        raise KCDPError(
            f"There are no pictures in {'; '.join([str(root), *about])}; give a folder with PNG, "
            "JPEG, WebP, GIF, BMP, TIFF or AVIF files, in class folders or not."
        )
    if divided or split != "test":
        return pictures
    labelled = np.flatnonzero(pictures.labels >= 0)
    if len(labelled) < len(pictures):
        pictures.left_out["no label, so not in the test"] = len(pictures) - len(labelled)
    return pictures.select(labelled)


def name_likeliest(pictures: Pictures, unnamed: Collection[Path]) -> None:
    """Label some files by their largest share, if nothing else labels them and there is no tie.

    unnamed: files whose list has shares and no label column.
    """
    for row, file in enumerate(pictures.files):
        if pictures.shares is not None and file in unnamed and pictures.labels[row] < 0:
            likeliest = np.flatnonzero(pictures.shares[row] == pictures.shares[row].max())
            if len(likeliest) == 1:
                pictures.labels[row] = likeliest[0]


def pick_words(
    files: Sequence[Path], root: Path, listed: Mapping[Path, Sequence[str]], taxonomy: str
) -> tuple[list[str | None], dict[str, int], list[str]]:
    """Return each file's word, the `vocabulary` of all words, and notes on doubtful words.

    listed: the labels of files in lists.
    """
    folders = [file.relative_to(root).parts[:-1] for file in files]
    texts = [listed.get(file, []) for file in files]
    table = vocabulary(taxonomy, {word for words in (*folders, *texts) for word in words})
    words, doubts = [], defaultdict(list)
    for file, said, above in zip(files, texts, folders, strict=True):
        word, doubt = pick_word(said, above, table)
        words.append(word)
        if doubt:
            doubts[doubt].append(file.relative_to(root).as_posix())
    about = [note(f"pictures that {doubt}", names) for doubt, names in doubts.items()]
    return words, table, [line for lines in about for line in lines]


def pick_word(
    listed: Sequence[str], folders: Sequence[str], table: Mapping[str, int]
) -> tuple[str | None, str]:
    """Return a picture's word and what is doubtful about it, "" if nothing is.

    listed: its labels in lists; folders: those above it, outermost first; table: `vocabulary`.
    Lists take precedence over folders, and the nearest folder that names a class over the others.
    """

    def label(word: str) -> int | None:
        return table.get(plain_word(word))

    def first(words: Sequence[str], otherwise: str | None) -> str | None:
        known = [word for word in words if label(word) is not None]
        classed = [word for word in known if (label(word) or 0) >= 0]
        return next(iter(classed + known), otherwise)

    said, seen = (set(map(label, words)) - {None, SEVERAL} for words in (listed, folders))
    if len(said) > 1:
        return None, "have two labels in lists, and so have none"
    if listed:
        differs = said and seen - {NO_CLASS} and not said <= seen
        doubt = "have another label in a list than by their folder; the list counts"
        return first(listed, listed[0]), doubt if differs else ""
    doubt = "lie in folders of two labels, of which the nearest class counts"
    outermost = folders[0] if folders else None
    return first(folders[::-1], outermost), doubt if len(seen) > 1 else ""


def from_listing(name: str, split: str, data_root: Path | None, taxonomy: str = "six") -> Pictures:
    """Return one split of a real data set.

    Pictures whose label is no class of the taxonomy, such as SER30K's "neutral", are left out and
    counted (a closed set). Raises KCDPError if nothing is left.
    """
    entries = listing(name, split, data_root)
    shares = dict(zip(entries.files, entries.shares, strict=bool(entries.shares)))
    table = vocabulary(taxonomy, {word for word in entries.words if word})
    pictures = from_files(entries.files, entries.words, name, split, taxonomy, table, shares)
    pictures.notes += entries.notes
    pictures.left_out = entries.left_out
    title = REAL[name].title
    if not len(pictures):
        first, why = pictures.skipped[0] if pictures.skipped else (None, None)
        about = f"; the first, {first}, is {why}" if first else ""
        raise KCDPError(
            f"None of the {len(entries.files)} pictures that {title} lists for {split!r} can be "
            f"read{about}; check that the pictures are unpacked where the list expects them."
        )
    classed = np.flatnonzero(pictures.labels >= 0)
    if not len(classed):
        raise KCDPError(
            f"None of the labels that {title} has for {split!r} is an emotion of "
            f"taxonomy={taxonomy!r}, the first is {entries.words[0]!r}; check its list, or choose "
            "the other taxonomy."
        )
    pictures.of_no_class = len(pictures) - len(classed)
    return pictures.select(classed)


def from_files(
    files: Sequence[Path],
    words: Sequence[str | None],
    name: str,
    split: str,
    taxonomy: str,
    table: Mapping[str, int],
    shares: Mapping[Path, Mapping[str, float]],
) -> Pictures:
    """Return N listed files with one word each (None: no label), in the order of their contents.

    A word without a class is no label, and is counted. Missing and unreadable files are in
    `skipped`, with the reason. `table` is the `vocabulary` of all words. shares: {word: number, 0
    or more} of the files that have a distribution (`class_shares`).
    """
    verdicts = inspect(files)
    rows = [
        (sha, file, (word or "").strip())
        for file, word in zip(files, words, strict=True)
        if (sha := verdicts[file][0])
    ]
    rows.sort(key=lambda row: row[0])
    labels = [max(table.get(plain_word(word), NO_CLASS), NO_CLASS) for _, _, word in rows]
    unlabelled = [word for (_, _, word), label in zip(rows, labels, strict=True) if label < 0]
    counted, notes = count_words(unlabelled, table, taxonomy)
    pictures = Pictures(
        name,
        split,
        [file for _, file, _ in rows],
        np.array(labels, np.int64),
        [sha for sha, _, _ in rows],
        [(file, why or "") for file in files for sha, why in [verdicts[file]] if not sha],
        taxonomy=taxonomy,
        notes=notes,
        words=counted,
        shares=np.array(
            [class_shares(shares.get(file, {}), taxonomy) for _, file, _ in rows], np.float32
        ),
    )
    codes = sorted({plain_word(word) for *_, word in rows} & CODES.keys() & table.keys())
    if codes:
        pictures.notes.append(f"{', '.join(codes)} are read as codes of emotions, as KDEF has them")
    pictures.notes += two_labels(pictures)
    return pictures


def count_words(
    words: Collection[str], table: Mapping[str, int], taxonomy: str
) -> tuple[dict[str, int], list[str]]:
    """Return {word: pictures} of words without a class, commonest first, and notes on them."""
    kinds = {
        SEVERAL: f"could be several classes of taxonomy={taxonomy!r}",
        NO_CLASS: f"are no class of taxonomy={taxonomy!r}",
    }
    counts, groups = Counter(word for word in words if word), defaultdict(list)
    for word, count in counts.most_common():
        kind = kinds.get(table.get(plain_word(word), 0), "are not known as words for emotions")
        if is_number(word):
            kind = "are numbers, and nothing says what they mean"
        groups[kind].append((word, count))
    notes = [
        f"labels that {kind} ({sum(count for _, count in group)} pictures): "
        + some([f"{word[:MOST_LETTERS]} ({count})" for word, count in group], 5)
        for kind, group in groups.items()
    ]
    common = {printable(word[:MOST_LETTERS]): n for word, n in counts.most_common(MOST_WORDS)}
    rest = sum(counts.values()) - sum(common.values())
    return common | ({"(other words)": rest} if rest else {}), list(map(printable, notes))


def two_labels(pictures: Pictures) -> list[str]:
    """Return a note on pictures that occur twice, under two classes; [] if there are none.

    Each copy keeps its label: published lists have such pairs, and nobody knows which label is
    wrong.
    """
    labels, files = defaultdict(set), defaultdict(list)
    for key, label, file in zip(pictures.keys, pictures.labels, pictures.files, strict=True):
        if label >= 0:
            labels[key].add(label)
            files[key].append(f"{file.parent.name}/{file.name}")
    double = [" = ".join(files[key]) for key, classes in labels.items() if len(classes) > 1]
    return note("pictures that lie under two classes, where each copy keeps its label", double)


def in_both(one: Pictures, other: Pictures) -> list[str]:
    """Return a note on pictures that two sets share; [] if they share none."""
    count = len(set(one.keys) & set(other.keys))
    names = [printable(f"{pictures.name} ({pictures.split})") for pictures in (one, other)]
    return [f"pictures of {names[0]} that are also in {names[1]}: {count}"] if count else []


def overlaps(
    source: Pictures, target: Pictures, source_test: Pictures, target_test: Pictures
) -> list[str]:
    """Return notes on the pictures that occur in two of a run's sets.

    The test pictures of a transductive target are training pictures by design, and cause no note.
    """
    pairs = [(source, target), (source, source_test), (source, target_test)]
    pairs += [] if target.transductive else [(target, target_test)]
    return [about for pair in pairs for about in in_both(*pair)]


def report(name: str | Path, data_root: str | Path | None = None, taxonomy: str = "six"):
    """Summarise a data set, a folder or a domain: a pandas table, and notes.

    The table has a row for each split: usable pictures, those left out by reason, those of no class
    or unlabelled, then those of each class, and copies. KCDPError as `load` raises it.
    """
    import pandas

    splits = REAL[name].splits if name in REAL else tuple(SIZES)
    sets = [load(name, split, data_root, taxonomy=taxonomy) for split in splits]
    counts = [pictures.counts() for pictures in sets]
    reasons = {"missing": 0, "unreadable": 0}
    reasons |= {reason: 0 for of in counts for reason in of["left_out"]}
    rows = {
        pictures.split: {
            "pictures": len(pictures),
            **(reasons | of["left_out"]),
            "no class": pictures.of_no_class + of["unlabelled"],
            **{word: int((pictures.labels == i).sum()) for i, word in enumerate(pictures.classes)},
            "copies": of["copies"],
        }
        for pictures, of in zip(sets, counts, strict=True)
    }
    notes = [about for pictures in sets for about in pictures.notes]
    for one, other in combinations(sets, 2):
        notes += [] if other.transductive else in_both(one, other)
    return pandas.DataFrame.from_dict(rows, orient="index"), list(dict.fromkeys(notes))
