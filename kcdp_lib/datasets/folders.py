"""Folders of pictures: their contents, and the lists that label them (chapter 01).

No picture is opened here. Everything that is left out is counted, by reason.
"""

from __future__ import annotations

import csv
import json
import math
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path, PurePath
from typing import Any

from ..errors import KCDPError
from ..world import TAXONOMIES
from .images import SUFFIXES
from .words import NULLS, OTHERS, class_index, is_distribution, note, plain_word, some

# Names that file managers, archivers and NAS boxes create; those with a dot are hidden, too.
HIDDEN = {
    *("@eadir", "@recycle", "@tmp", "@__thumb", "#recycle", "$recycle.bin", "__macosx"),
    *("__pycache__", "desktop.ini", "lost+found", "system volume information"),
    *("thumbs", "thumbs.db", "ehthumbs.db"),
}
Row = list[tuple[str, Any]]  # columns and values
LISTS = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
LIST_ENDINGS = (".jsonl", ".csv", ".tsv")
SPLIT_FOLDERS = {"train": ("train", "training"), "test": ("test", "testing")}
SPLIT_WORDS = {"val", "valid", "validation", "dev"}.union(*SPLIT_FOLDERS.values())
# Columns of a list in order of precedence, as `_column` writes them.
FILE_COLUMNS = tuple(
    "filename file imagename imagefile image imgname img imagepath filepath path picture".split()
)
LABEL_COLUMNS = tuple("label labels emotion emotions class labelname classname category".split())
CLASSES = frozenset(word for classes in TAXONOMIES.values() for word in classes)
EMOTION_COLUMNS = OTHERS.union(*map(class_index, TAXONOMIES))


@dataclass
class Tree:
    """Contents of a folder: pictures by their endings, lists of labels, and what is left out."""

    files: list[Path] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def walk(root: Path, apart: Collection[Path] = ()) -> Tree:
    """Return everything below `root`, except in the folders `apart`, sorted by name.

    Linked folders are followed, each once. Hidden files and folders are left out, but `root` itself
    may lie in a hidden one. A folder that cannot be opened is named in the notes.
    """
    tree, unreadable, unread = Tree(), [], []
    entered = {_identity(parent) for parent in root.resolve().parents}
    folders = [root]
    links: list[Path] = []
    while folders or links:  # links last, so that files keep their paths without links
        folder = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append(f"{folder.relative_to(root).as_posix()} ({error.strerror})")
            continue
        if identity in entered:
            tree.left_out["link to a folder that is read already"] += 1
            continue
        entered.add(identity)
        for entry in entries:
            path, kind = folder / entry.name, _kind(entry)
            if path in apart:
                continue
            if entry.name.startswith(".") or entry.name.casefold() in HIDDEN:
                tree.left_out["hidden folder" if kind == "folder" else "hidden file"] += 1
            elif kind == "folder":
                (links if entry.is_symlink() else folders).append(path)
            elif kind:
                tree.left_out[kind] += 1
            elif ending(path) in SUFFIXES:
                tree.files.append(path)
            elif entry.name.casefold() in LISTS:
                tree.lists.append(path)
            else:
                tree.left_out[f"ending {ending(path)}" if ending(path) else "no ending"] += 1
                if ending(path) in LIST_ENDINGS or path.stem.casefold() == "metadata":
                    unread.append(path.relative_to(root).as_posix())
    if unreadable:
        tree.left_out["unreadable folder"] = len(unreadable)
    tree.notes += note("folders that cannot be opened", unreadable)
    tree.notes += note(f"lists that are not called {' or '.join(LISTS)}, and not read", unread)
    tree.files.sort()
    tree.lists.sort()
    return tree


def _identity(folder: Path) -> tuple[int, int]:
    about = os.stat(folder)
    return about.st_dev, about.st_ino


def _kind(entry: os.DirEntry) -> str:
    """Return the kind of an entry: "folder", "" for a file, or why it is neither."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return ""
        return "broken link" if entry.is_symlink() else "neither file nor folder"
    except OSError:  # reading the file will tell why
        return ""


def ending(path: PurePath) -> str:
    """Return a file name's ending in lower case, such as ".jpg"; "" if it has none."""
    return path.suffix.strip().lower()


def split_folders(folder: Path) -> dict[str, Path]:
    """Return {"train": its folder, "test": its folder} of a divided folder, else {}."""
    try:
        below = [name for name in os.listdir(folder) if os.path.isdir(folder / name)]
    except OSError:
        return {}
    found = {}
    for split, names in SPLIT_FOLDERS.items():
        fitting = [name for name in below if name.casefold() in names]
        if fitting:
            found[split] = folder / min(fitting, key=lambda name: (name not in SPLIT_FOLDERS, name))
    return found if len(found) == len(SPLIT_FOLDERS) else {}


def survey(folder: Path, divided: dict[str, Path], split: str) -> Tree:
    """Return the contents of a split of a folder, without what lies beside its `split_folders`."""
    tree = walk(divided.get(split, folder))
    if divided:
        beside = walk(folder, apart=divided.values())
        tree.lists = [path for path in beside.lists if path.parent == folder] + tree.lists
        tree.left_out += beside.left_out + Counter({"beside train/ and test/": len(beside.files)})
        tree.notes += beside.notes
        return tree
    parts = {part for file in tree.files for part in file.relative_to(folder).parts[:-1]}
    halves = sorted(part for part in parts if not SPLIT_WORDS.isdisjoint(plain_word(part).split()))
    tree.notes += note("read as one: only train/ beside test/ in the given folder divides", halves)
    return tree


# ---------------------------------------------------------------- names


def native(name: str) -> str:
    """Convert a name read as UTF-8 to what this system's locale would have read."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def plain_path(name: str) -> str:
    """Return a path without the differences between systems.

    These are case, Unicode form, slashes, "./", outer spaces, and how bytes that are not ASCII are
    read. ValueError if the name is not text.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    text = unicodedata.normalize("NFKC", text).replace("\\", "/").casefold()
    return posixpath.normpath("/".join(part.strip() for part in text.split("/")))


class Names:
    """Files by name: as written, else without the differences between systems."""

    def __init__(self, files: Iterable[Path]):
        self.exact: dict[str, Path] = {}
        self.plain: dict[str, list[Path]] = {}
        for file in files:
            self.exact[file.as_posix()] = file
            self.plain.setdefault(plain_path(file.as_posix()), []).append(file)

    def find(self, folder: Path, name: str) -> list[Path]:
        """Return the files that `name`, relative to `folder`, can mean: none, one, or several."""
        path = posixpath.join(folder.as_posix(), name)
        return [self.exact[path]] if path in self.exact else self.plain.get(plain_path(path), [])


# ---------------------------------------------------------------- lists


@dataclass
class Labels:
    """Contents of lists: each file's labels, missing files, and unusable rows.

    shares: {file: {word: number}}, 0 or more, of files with a number for every class; unnamed:
    those of them whose list has no label column.
    """

    words: dict[Path, list[str]] = field(default_factory=dict)
    shares: dict[Path, dict[str, float]] = field(default_factory=dict)
    unnamed: set[Path] = field(default_factory=set)
    missing: list[Path] = field(default_factory=list)
    unusable: int = 0
    notes: list[str] = field(default_factory=list)


class Unusable(ValueError):
    """Reason why a row of a list cannot be used, as a clause about the row."""


def read_labels(
    lists: Sequence[Path], files: Sequence[Path], elsewhere: Sequence[Path] = ()
) -> Labels:
    """Return the labels of files, from lists in Hugging Face's convention.

    A list is `metadata.jsonl`, else `.csv` or `.tsv`, beside the pictures or in a folder above.
    Rows about the folders `elsewhere` are skipped. KCDPError for a list that names no files or
    cannot be read.
    """
    labels, names = Labels(), Names(files if lists else [])
    passed = tuple(f"{plain_path(folder.as_posix())}/" for folder in elsewhere)
    used = []
    for path in lists:
        beside = [other for other in lists if other.parent == path.parent]
        first = min(beside, key=lambda other: LISTS.index(other.name.casefold()))
        if path == first:
            used.append(path)
            _read_list(path, names, passed, labels)
        else:
            labels.notes.append(f"{path.name} is not read beside {first.name}")
    covered = {path.parent for path in used}
    unlisted = [
        file.name
        for file in files
        if file not in labels.words and not covered.isdisjoint(file.parents)
    ]
    named = " or ".join(dict.fromkeys(path.name for path in used))
    labels.notes += note(f"pictures that are not in {named}", unlisted)
    labels.notes += note(f"files that are in {named} and not there", labels.missing)
    return labels


def _read_list(path: Path, names: Names, passed: tuple[str, ...], labels: Labels) -> None:
    """Add the contents of a list to `labels`."""
    rows, faults, unshared = read_rows(path), [], []
    is_json = path.suffix.lower() == ".jsonl"
    names_labels = any(column in LABEL_COLUMNS for _, row in rows for column, _ in row or [])
    for number, row in rows:
        if row is None:
            why = "is no object of JSON" if is_json else "has more fields than the header"
            faults.append(f"line {number} {why}")
            continue
        value = next(_values(row, FILE_COLUMNS), None)
        try:
            if not isinstance(value, str) or not value.strip():
                raise ValueError("no name, or one that is no text")
            name = value.strip()
            files = names.find(path.parent, name)
            place = plain_path(posixpath.join(path.parent.as_posix(), name))
        except ValueError:
            faults.append(f"line {number} has no file_name")
            continue
        if files[1:]:
            faults.append(f"line {number} ({name} may be {some(file.name for file in files)})")
        elif files:
            found = labels.words.setdefault(files[0], [])
            found += filter(None, map(label_text, _values(row, LABEL_COLUMNS)))
            try:
                if shares := row_shares(row):
                    labels.shares.setdefault(files[0], shares)
                    is_class = max(shares, key=lambda name: shares[name]) not in OTHERS
                    labels.unnamed.update(files if is_class and not names_labels else [])
            except Unusable as error:
                unshared.append(f"line {number} {error}")
        elif not place.startswith(passed):
            there = path.parent / native(name.replace("\\", "/"))
            labels.missing += [] if os.path.exists(there) else [there]
    if rows and len(faults) == len(rows):
        columns = [column for column, _ in next((row for _, row in rows if row), [])]
        advice = (
            'write one object a line, such as {"file_name": "a.png", "label": "happy"}'
            if is_json and not columns
            else f"each needs a file_name, add the column to {some(columns, 9)}"
        )
        raise KCDPError(f"No row of {path} can be used: {some(faults)}; {advice}.")
    if rows and not names_labels:
        instead = ", so the class with the largest share is the label" * bool(labels.unnamed)
        labels.notes.append(f"{path.name} has no column label or emotion{instead}")
    labels.unusable += len(faults)
    labels.notes += note(f"rows of {path.name} that cannot be used", faults)
    labels.notes += note(f"rows of {path.name} whose shares cannot be used", unshared)


def _values(row: Row, columns: Sequence[str]) -> Iterator[Any]:
    """Yield the values of a row in some columns, in the columns' order, without empty ones."""
    for column in columns:
        yield from (value for name, value in row if name == column and value not in (None, ""))


def row_shares(row: Row) -> dict[str, float]:
    """Return {column: number} of the columns named after emotions, such as "happy" or "Anger".

    Columns without a class, such as "neutral", are among them. {} unless they cover every class of
    a taxonomy, or if all are empty. Unusable for a value that is not a number of 0 or more. A text
    beside them, as in a column "content", is ignored.
    """
    shares = {column: value for column, value in row if column in EMOTION_COLUMNS}
    numbers = {name: value for name, value in shares.items() if name in CLASSES or is_share(value)}
    shares = numbers if is_distribution(numbers) else shares
    if not is_distribution(shares) or all(value in (None, "") for value in shares.values()):
        return {}
    return {column: share_of(value) for column, value in shares.items()}


def is_share(value: Any) -> bool:
    """Return whether a value can be a probability or a number of votes: a number of 0 or more."""
    with suppress(ArithmeticError, TypeError, ValueError):
        return not isinstance(value, bool) and 0 <= float(value) < math.inf
    return False


def share_of(value: Any) -> float:
    """Return a probability or a number of votes; Unusable if it is not a number of 0 or more."""
    if not is_share(value):
        raise Unusable(f"has {str(value).strip()!r} for a probability")
    return float(value)


def label_text(value: Any) -> str:
    """Return a label as text; "" for none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value != value or plain_word(str(value)) in NULLS:  # NaN != NaN
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)


def read_rows(path: Path) -> list[tuple[int, Row | None]]:
    """Return (line, row) of all rows of a `.jsonl`, `.csv` or `.tsv` file.

    A row is a list of (column, value), with columns in lower case without spaces and marks; None if
    the line is no JSON object or has more fields than the header. KCDPError names what cannot be
    read.
    """
    text = read_text(path)
    rows: list[tuple[int, Row | None]]
    if path.suffix.lower() == ".jsonl":
        rows = [
            (number, _json_object(line))
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
    else:
        rows = _table(text, path)
    return [
        (number, row and [(_column(name), value) for name, value in row]) for number, row in rows
    ]


def _column(name: str) -> str:
    return plain_word(name).replace(" ", "")


def _json_object(line: str) -> Row | None:
    """Return the names and values of a JSON object; None for a line that is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return list(content.items()) if isinstance(content, dict) else None


def _table(text: str, path: Path) -> list[tuple[int, Row | None]]:
    """Return the rows of a table; its delimiter is the one under which the header names files."""
    text = re.sub(r"\A\s*(sep=.\s*\n)?", "", text)  # Excel may write the delimiter first

    def split(delimiter: str, strict: bool) -> Any:
        lines = StringIO(text, newline="")
        return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)

    def fitness(delimiter: str) -> tuple[bool, int]:
        header: list[str] = next(split(delimiter, strict=False), [])
        return any(_column(name) in FILE_COLUMNS for name in header), len(header)

    try:
        reader = split(max(",;\t|", key=fitness), strict=True)
        header: list[str] = next(reader, [])
        if not header:
            raise csv.Error("its first line is empty")
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise KCDPError(
            f"{path} cannot be read (line {reader.line_num}: {error}); write a line with file_name "
            "and label, then one for each picture, in UTF-8."
        ) from error
    return [
        (number, None if any(row[len(header) :]) else list(zip(header, row, strict=False)))
        for number, row in rows
    ]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark.

    In UTF-8, undecodable bytes are kept, as in file names. KCDPError if it cannot be opened.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KCDPError(
            f"{path} cannot be read ({error.strerror}); check that it is there and may be opened."
        ) from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "surrogateescape")
