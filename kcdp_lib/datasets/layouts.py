"""Readers of the published data sets (chapter 01).

Each returns the files and words of one data set, from the folder as it is downloaded, and opens no
picture. `words.vocabulary` translates words to classes, as for any folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from .. import paths
from ..errors import KCDPError
from .folders import Names, Unusable, ending, native, read_text, share_of, walk
from .images import SUFFIXES
from .words import is_number, note, plain_word, some

SPLITS = ("train", "val", "test")
# SER30K numbers its classes from one without naming them; the paper's authors assume this order.
SER30K_CLASSES = ("surprise", "happy", "disgust", "fear", "sadness", "anger", "neutral")
FI_CLASSES = tuple("amusement anger awe contentment disgust excitement fear sadness".split())
EMOTION6_CLASSES = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
CLASS_FILE = "classes.txt"  # beside SER30K's folders: its classes in their order, one per line
EMOTION6_TEST = 5  # one picture in five is for the test: the data set has no split of its own
# Errors that malformed files cause in a reader.
MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)


class Shifted(Unusable):
    """Reason why a row cannot be used: its number is one below or above those of the classes."""


@dataclass
class Listing:
    """Contents of one split, as the data set lists them.

    Files (which may be missing) and their words (None: no label) are in the order of its own list.
    left_out: rows and files left out, by reason; notes: facts a reader should know. shares:
    {word: number, 0 or more} of each file, [] if the data set has one word per picture.
    """

    files: list[Path]
    words: list[str | None]
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    shares: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """A data set: its usual folders, what they contain, its reader, and its splits.

    A reader returns a `Listing` for a folder and a split. In `expected`, a part in brackets may be
    missing: "Annotations/[image-level/]train.json".
    """

    title: str
    folders: tuple[str, ...]
    expected: tuple[str, ...]
    read: Callable[[Path, str], Listing]
    splits: tuple[str, ...] = ("train", "test")


def listed(
    root: Path,
    path: Path,
    rows: Iterable[Any],
    read: Callable[[Any], tuple[Sequence[str], str] | None],
    notes: Sequence[str] = (),
) -> Listing:
    """Return the listing of a split, from the rows of its list `path`.

    `read` returns for a row the possible names of its picture below `root` and its word, or None
    for a row of another split. A row that it cannot read is left out, counted and named by its
    number. KCDPError if no row can be read, or if the classes seem to count from another number.
    """
    options: list[list[str]] = []
    words: list[str | None] = []
    faults: list[str] = []
    shifted = 0
    for number, row in enumerate(rows, 1):
        try:
            if entry := read(row):
                names, word = entry
                options.append([relative(name) for name in names])
                words.append(word)
        except Unusable as error:
            faults.append(f"row {number} {error}")
            shifted += isinstance(error, Shifted)
        except MALFORMED as error:
            faults.append(f"row {number} is not as it is published, {type(error).__name__} {error}")
    if faults and not words or shifted > len(words) / 20:  # else a few wrong rows
        which = "Every label of {} may be wrong" if shifted else "No row of {} can be used"
        raise KCDPError(
            f"{which.format(path)}: {some(faults)}; check that the file is complete and belongs to "
            "these classes, or download it again."
        )
    left_out = {"row that cannot be used": len(faults)} if faults else {}
    about = note(f"rows of {path.name} that cannot be used", faults)
    return Listing(locate(root, options), words, [*notes, *about], left_out)


def relative(name: Any) -> str:
    """Return a listed file's name with plain slashes; Unusable if it is none."""
    if not isinstance(name, str) or not name.strip():
        raise Unusable("has no file name")
    native(name)  # its UnicodeEncodeError is a ValueError, and makes the row unusable
    return posixpath.normpath(name.strip().replace("\\", "/")).lstrip("/")


def locate(root: Path, options: Sequence[Sequence[str]]) -> list[Path]:
    """Return the file of each row: the first of its possible names that exists.

    If none does, a file that differs in case or Unicode form, else the last name as written.
    """
    places = [[root / native(name) for name in names] for names in options]
    there = [next(filter(os.path.exists, some_places), None) for some_places in places]
    if all(there):
        return [file for file in there if file]
    known, files = Names(walk(root).files), []
    for file, names, some_places in zip(there, options, places, strict=True):
        alike = [] if file else [path for name in names for path in known.find(root, name)]
        files.append(file or (alike[0] if len(alike) == 1 else some_places[-1]))
    return files


def place(root: Path, name: str) -> Path:
    """Return the path of `name` below `root`, whatever its case there."""
    for part in PurePath(name).parts:
        alike = []
        if not os.path.exists(root / part):
            with suppress(OSError):
                alike = [other for other in os.listdir(root) if other.casefold() == part.casefold()]
        root = root / (alike[0] if len(alike) == 1 else part)
    return root


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; KCDPError if it is none."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        raise KCDPError(f"{path} cannot be read as JSON ({error}); download it again.") from error


def word_of(label: Any, names: dict[int, str]) -> str:
    """Return a label's word: itself, or the name with that number. Unusable if there is none."""
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if label is None or label == "" or label != label:  # NaN != NaN
        raise Unusable("has no label")
    if isinstance(label, bool) or not isinstance(label, (int, float, str)):
        raise Unusable(f"has {json.dumps(label)} for a label")
    if not is_number(str(label)):
        return str(label)
    first, last = min(names), max(names)
    if float(label) not in names:
        kind = Shifted if float(label) in (first - 1, last + 1) else Unusable
        raise kind(f"has the label {label}, but the classes count from {first} to {last}")
    return names[int(float(label))]


def emoset(root: Path, split: str) -> Listing:
    """Read EmoSet-118K: `<split>.json` of [label, id, image, annotation], or without the id.

    `info.json` numbers the classes, nested under "emotion" or not. KCDPError for broken files.
    """
    info = read_json(place(root, "info.json"))
    numbers = info.get("emotion", info).get("label2idx")
    if not isinstance(numbers, dict):
        raise KCDPError(f"{root / 'info.json'} has no label2idx; download it again.")
    names = {int(number): word for word, number in numbers.items()}

    def read(item: list) -> tuple[list[str], str]:
        if not isinstance(item, list) or len(item) < 3:
            raise Unusable("is no list of label, image and annotation")
        return [item[-2]], word_of(item[0], names)

    path = place(root, f"{split}.json")
    return listed(root, path, read_json(path), read)


def ser30k(root: Path, split: str) -> Listing:
    """Read SER30K: `Annotations/image-level/<split>.json`, or `Annotations/<split>.json`.

    `anno` counts from 1. The order of the classes is `classes.txt`, else the file's `categories`,
    else `SER30K_CLASSES`. KCDPError if `classes.txt` does not hold each class once.
    """
    nested, plain = places(root, f"Annotations/[image-level/]{split}.json")
    path = nested if os.path.exists(nested) else plain
    content, class_file = read_json(path), place(root, CLASS_FILE)
    if class_file.exists():
        words = read_text(class_file).replace(",", " ").split()
        classes = [word for word in map(plain_word, words) if word]
        order = f"order of the classes from {CLASS_FILE}"
        if sorted(classes) != sorted(SER30K_CLASSES):
            raise KCDPError(
                f"{root / CLASS_FILE} does not hold each class once; write "
                f"{', '.join(SER30K_CLASSES)} into it in the order of their numbers, one a line."
            )
    elif content.get("categories"):
        classes = content["categories"]
        order = "order of the classes from the annotations' categories"
    else:
        classes = list(SER30K_CLASSES)
        order = (
            f"order of the classes assumed: {', '.join(SER30K_CLASSES)}; write another into "
            f"{CLASS_FILE}, one a line"
        )
    names = dict(enumerate(map(str, classes), 1))
    if isinstance(classes[0], dict):
        names = {one["id"]: str(one["name"]) for one in classes}

    def read(row: dict) -> tuple[list[str], str]:
        name = f"Images/{relative(row['topic'])}/{relative(row['file_name'])}"
        return [name], word_of(row.get("anno"), names)

    return listed(root, path, content["annotations"], read, [order])


def fi(root: Path, split: str) -> Listing:
    """Read FI: `<split>.json` of [picture, number], with slashes of either kind.

    The pictures lie in the root or in a folder named after the split.
    """
    path, names = place(root, f"{split}.json"), dict(enumerate(FI_CLASSES))

    def read(row: list) -> tuple[list[str], str]:
        if not isinstance(row, list) or len(row) != 2:
            raise Unusable("is no pair of picture and number")
        name = relative(row[0])
        return [f"{split}/{name}", name], word_of(row[1], names)

    return listed(root, path, read_json(path), read)


def emo8(root: Path, split: str) -> Listing:
    """Read Emo8: `<split>/<class>/<file>`."""
    folder = place(root, split)
    tree = walk(folder)
    parents = [file.relative_to(folder).parts[:-1] for file in tree.files]
    words = [parts[0] if parts else None for parts in parents]
    return Listing(tree.files, words, tree.notes, dict(tree.left_out))


def emotionroi(root: Path, split: str) -> Listing:
    """Read EmotionROI: `training_testing_split/{training,testing}.txt` of lines `<class>/<file>`.

    The pictures lie below `images`.
    """
    path = place(root, f"training_testing_split/{split}ing.txt")

    def read(line: str) -> tuple[list[str], str] | None:
        if not line.strip():
            return None
        word, slash, _ = relative(line).partition("/")
        if not slash:
            raise Unusable("has no class before its file name")
        return [f"images/{relative(line)}"], word

    return listed(root, path, read_text(path).split("\n"), read)


def emotion6(root: Path, split: str) -> Listing:
    """Read Emotion6: `ground_truth.txt`, tab-separated, with or without a header.

    Columns 3 to 8 (from 0) are probabilities of six emotions and become the shares; column 9,
    "neutral", is dropped. The most probable emotion is the label; in a tie it is the first, and a
    note names the picture.

    The data set has no split: a hash of the name puts one picture in five into the test.
    """
    path, tied = place(root, "ground_truth.txt"), []
    rows_shares: list[dict[str, float]] = []

    def read(line: str) -> tuple[list[str], str] | None:
        if not line.strip():
            return None
        row = line.split("\t")
        name = relative(row[0])
        number = int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(), 16)
        if (number % EMOTION6_TEST == 0) != (split == "test"):
            return None
        shares = dict(zip(EMOTION6_CLASSES, map(share_of, row[3:9]), strict=False))
        if len(shares) < len(EMOTION6_CLASSES) or not max(shares.values()) > 0:
            raise Unusable("lacks the six probabilities of columns 3 to 8")
        best = [emotion for emotion, share in shares.items() if share == max(shares.values())]
        if len(best) > 1:
            tied.append(f"{name} ({' = '.join(best)})")
        rows_shares.append(shares)
        return [f"images/{name}"], best[0]

    lines = read_text(path).split("\n")
    if ending(PurePath(lines[0].split("\t")[0])) not in SUFFIXES:
        lines[0] = ""  # a header
    listing = listed(root, path, lines, read)
    listing.shares = rows_shares
    listing.notes += note("pictures with several likeliest emotions, which take the first", tied)
    return listing


REAL = {
    "emoset": Layout(
        "EmoSet-118K",
        ("EmoSet-118K", "EmoSet"),
        ("info.json", "train.json", "test.json", "image/"),
        emoset,
        SPLITS,
    ),
    "ser30k": Layout(
        "SER30K",
        ("SER30K", "SER_Dataset"),
        ("Images/", "Annotations/[image-level/]train.json", "Annotations/[image-level/]test.json"),
        ser30k,
        SPLITS,
    ),
    "fi": Layout("FI", ("FI",), ("train.json", "test.json"), fi),
    "emo8": Layout("Emo8", ("emo8", "Emo8"), ("train/", "test/"), emo8, SPLITS),
    "emotionroi": Layout(
        "EmotionROI",
        ("EmotionROI",),
        ("images/", "training_testing_split/training.txt", "training_testing_split/testing.txt"),
        emotionroi,
    ),
    "emotion6": Layout("Emotion6", ("Emotion6",), ("images/", "ground_truth.txt"), emotion6),
}


def places(root: Path, part: str) -> list[Path]:
    """Return the possible paths of an expected part, with and without what is in brackets."""
    names = dict.fromkeys((part.replace("[", "").replace("]", ""), re.sub(r"\[.*?\]", "", part)))
    return [place(root, name) for name in names]


def find_root(name: str, data_root: Path | None) -> Path:
    """Return the data set's folder: one of its usual names in `data_root`, or `data_root` itself.

    KCDPError says what was expected and what is missing.
    """
    layout, own = REAL[name], paths.resolve(name)
    aside = f" (a folder of your own is written ./{name})" if os.path.isdir(own) else ""
    if data_root is None:
        raise KCDPError(
            f"{layout.title} has to be downloaded by you; set data_root to the folder that holds "
            f"{layout.folders[0]}/{aside}."
        )
    names = dict.fromkeys((*layout.folders, name))
    below = [place(data_root, folder) for folder in names]
    below += [place(folder, inner) for folder in below for inner in names]  # unpacked twice
    roots = {
        root: [part for part in layout.expected if not any(map(os.path.exists, places(root, part)))]
        for root in (*filter(os.path.isdir, below), data_root)
    }
    root = next((root for root, lacking in roots.items() if not lacking), next(iter(roots)))
    if roots[root]:
        raise KCDPError(
            f"{root} is not {layout.title} as it is published: it lacks {', '.join(roots[root])}; "
            f"expected are {', '.join(layout.expected)}, in data_root or in its folder "
            f"{layout.folders[0]}/{aside}."
        )
    return root


def listing(name: str, split: str, data_root: Path | None) -> Listing:
    """Return one split's files and words as the data set lists them.

    KCDPError for an unknown split, for a folder that does not hold the data set, and for lists that
    are not of the published form.
    """
    layout = REAL[name]
    if split not in layout.splits:
        raise KCDPError(
            f"{layout.title} has no split {split!r}; choose one of {', '.join(layout.splits)}."
        )
    root = find_root(name, data_root)
    try:
        return layout.read(root, split)
    except KCDPError:
        raise
    except MALFORMED as error:
        raise KCDPError(
            f"The {split} list of {layout.title} in {root} is not as it is published "
            f"({type(error).__name__}: {error}); download it again."
        ) from error
