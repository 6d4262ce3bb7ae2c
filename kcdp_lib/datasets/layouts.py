"""Where the real data sets keep their pictures and labels (chapter 01).

One reader for each, from the folder as it is downloaded to a list of files and words.

A reader looks at no picture. Words are translated to classes by `class_index`, as those of any
folder are.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import KCDPError

SPLITS = ("train", "val", "test")
# SER30K numbers its classes from one and does not say what the numbers mean: this is what the
# paper's authors assume
SER30K_CLASSES = ("surprise", "happy", "disgust", "fear", "sadness", "anger", "neutral")
FI_CLASSES = (
    "amusement",
    "anger",
    "awe",
    "contentment",
    "disgust",
    "excitement",
    "fear",
    "sadness",
)
EMOTION6_CLASSES = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
CLASS_FILE = "classes.txt"  # beside SER30K's folders: its classes in their order, one a line
EMOTION6_TEST = 5  # one picture in so many is for the test: the data set has no split of its own


@dataclass
class Listing:
    """What a data set says of one split.

    Files (which may be missing) and their words (None: no label), in the order of its own list;
    notes are facts a reader should know.
    """

    files: list[Path]
    words: list[str | None]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """A data set: the folders it is usually unpacked to, what has to lie in them, its splits, and
    its reader (folder, split) -> Listing.
    """

    title: str
    folders: tuple[str, ...]
    expected: tuple[str, ...]
    splits: tuple[str, ...]
    read: Callable[[Path, str], Listing]


def read_json(path: Path):
    """The content of a JSON file; KCDPError if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KCDPError(f"{path} cannot be read as JSON ({error}); download it again.") from error


def word_of(label: int | str, names: Sequence[str], path: Path, first: int = 0) -> str:
    """A label's word: itself, or the name with that number, counted from `first`.

    KCDPError if there is none.
    """
    if not str(label).lstrip("-").isdigit():
        return str(label)
    if not 0 <= int(label) - first < len(names):
        raise KCDPError(
            f"{path} has the label {label}, but the {len(names)} classes count from {first}; check "
            "that file and the order of the classes belong together."
        )
    return names[int(label) - first]


def emoset(root: Path, split: str) -> Listing:
    """EmoSet-118K: `<split>.json` of [label, id, image, annotation] or [label, image, annotation].

    `info.json` numbers the classes, nested under "emotion" or not. KCDPError for broken files.
    """
    info = read_json(root / "info.json")
    numbers = info.get("emotion", info).get("label2idx")
    if not isinstance(numbers, dict):
        raise KCDPError(f"{root / 'info.json'} has no label2idx; download it again.")
    path, names = root / f"{split}.json", sorted(numbers, key=numbers.get)
    items = read_json(path)
    return Listing(
        [root / item[-2] for item in items], [word_of(item[0], names, path) for item in items]
    )


def ser30k(root: Path, split: str) -> Listing:
    """SER30K: `Annotations/image-level/<split>.json`; `anno` counts from 1.

    The order of the classes is `classes.txt`, else the file's `categories`, else the one that is
    assumed. KCDPError if `classes.txt` is not an order of them.
    """
    path = root / "Annotations" / "image-level" / f"{split}.json"
    told = read_json(path)
    if (root / CLASS_FILE).exists():
        names, notes = (
            (root / CLASS_FILE).read_text(encoding="utf-8").split(),
            [f"order of the classes from {CLASS_FILE}"],
        )
        if sorted(names) != sorted(SER30K_CLASSES):
            raise KCDPError(
                f"{root / CLASS_FILE} does not hold each class once; write "
                f"{', '.join(SER30K_CLASSES)} into it in the order of their numbers, one a line."
            )
    elif told.get("categories"):
        rows = told["categories"]
        names = (
            [row["name"] for row in sorted(rows, key=lambda row: row["id"])]
            if isinstance(rows[0], dict)
            else list(rows)
        )
        notes = ["order of the classes from the annotations' categories"]
    else:
        names, notes = (
            list(SER30K_CLASSES),
            [
                f"order of the classes assumed: {', '.join(SER30K_CLASSES)}; write another into "
                f"{CLASS_FILE}, one a line"
            ],
        )
    rows = told["annotations"]
    return Listing(
        [root / "Images" / row["topic"] / row["file_name"] for row in rows],
        [word_of(int(row["anno"]), names, path, first=1) for row in rows],
        notes,
    )


def fi(root: Path, split: str) -> Listing:
    """FI: `<split>.json` of [picture, number], with slashes of either kind.

    The pictures lie in the root or under the split's name.
    """
    path = root / f"{split}.json"
    rows = [(name.replace("\\", "/"), number) for name, number in read_json(path)]
    below = root / split
    files = [below / name if (below / name).exists() else root / name for name, _ in rows]
    return Listing(files, [word_of(number, FI_CLASSES, path) for _, number in rows])


def emo8(root: Path, split: str) -> Listing:
    """Emo8: `<split>/<class>/<file>`."""
    files = sorted(
        path
        for path in (root / split).glob("*/*")
        if path.is_file() and not path.name.startswith(".")
    )
    return Listing(files, [path.parent.name for path in files])


def emotionroi(root: Path, split: str) -> Listing:
    """EmotionROI: `training_testing_split/{training,testing}.txt` of lines `<class>/<file>`, below
    `images`.
    """
    path = root / "training_testing_split" / {"train": "training.txt", "test": "testing.txt"}[split]
    names = [
        line.strip().replace("\\", "/")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    return Listing(
        [root / "images" / name for name in names], [name.split("/")[0] for name in names]
    )


def emotion6(root: Path, split: str) -> Listing:
    """Emotion6: `ground_truth.txt`, tab-separated, probabilities of six emotions in the columns 3
    to 8 (from 0).

    The likeliest is the label; of equals the first, and a note names them.

    It has no split of its own: by a hash of its name, one picture in five is for the test.
    KCDPError for a broken line.
    """
    path = root / "ground_truth.txt"
    files, words, tied = [], [], []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t")):
            if number == 0 or not row:
                continue
            try:
                shares = [float(value) for value in row[3:9]]
                best = [
                    name
                    for name, share in zip(EMOTION6_CLASSES, shares, strict=True)
                    if share == max(shares)
                ]
            except ValueError:
                raise KCDPError(
                    f"Line {number + 1} of {path} lacks the six probabilities of columns 3 to 8; "
                    "download it again."
                ) from None
            name = row[0].strip().replace("\\", "/")
            if (int(hashlib.sha256(name.encode()).hexdigest(), 16) % EMOTION6_TEST == 0) != (
                split == "test"
            ):
                continue
            files.append(root / "images" / name)
            words.append(best[0])
            if len(best) > 1:
                tied.append(f"{name} ({' = '.join(best)})")
    notes = (
        [
            f"{len(tied)} pictures with several likeliest emotions take the first: "
            f"{', '.join(tied[:3])}{' ...' if len(tied) > 3 else ''}"
        ]
        if tied
        else []
    )
    return Listing(files, words, notes)


REAL = {
    "emoset": Layout(
        "EmoSet-118K",
        ("EmoSet-118K", "EmoSet"),
        ("info.json", "train.json", "test.json", "image/"),
        SPLITS,
        emoset,
    ),
    "ser30k": Layout(
        "SER30K",
        ("SER30K",),
        ("Images/", "Annotations/image-level/train.json", "Annotations/image-level/test.json"),
        SPLITS,
        ser30k,
    ),
    "fi": Layout("FI", ("FI",), ("train.json", "test.json"), ("train", "test"), fi),
    "emo8": Layout("Emo8", ("emo8", "Emo8"), ("train/", "test/"), SPLITS, emo8),
    "emotionroi": Layout(
        "EmotionROI",
        ("EmotionROI",),
        ("images/", "training_testing_split/training.txt", "training_testing_split/testing.txt"),
        ("train", "test"),
        emotionroi,
    ),
    "emotion6": Layout(
        "Emotion6", ("Emotion6",), ("images/", "ground_truth.txt"), ("train", "test"), emotion6
    ),
}


def find_root(name: str, data_root: Path | None) -> Path:
    """The data set's own folder: one of its usual names inside `data_root`, or `data_root` itself.

    KCDPError says what was expected, and what of it is not there.
    """
    layout = REAL[name]
    if data_root is None:
        raise KCDPError(
            f"{layout.title} has to be downloaded by you; set data_root to the folder that holds "
            f"{layout.folders[0]}/."
        )
    root = next(
        (
            data_root / folder
            for folder in dict.fromkeys((*layout.folders, name))
            if (data_root / folder).is_dir()
        ),
        data_root,
    )
    lacking = [part for part in layout.expected if not (root / part).exists()]
    if lacking:
        raise KCDPError(
            f"{root} is not {layout.title} as it is published: it lacks {', '.join(lacking)}; "
            f"expected are {', '.join(layout.expected)}, in data_root or in its folder "
            f"{layout.folders[0]}/."
        )
    return root


def listing(name: str, split: str, data_root: Path | None) -> Listing:
    """One split's files and words as the data set lists them.

    KCDPError for a split that it has not, for a folder that does not hold it, and for lists that
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
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:  # whatever a reader meets where rows or names are not what they should be
        raise KCDPError(
            f"The {split} list of {layout.title} in {root} is not as it is published "
            f"({type(error).__name__}: {error}); download it again."
        ) from error
