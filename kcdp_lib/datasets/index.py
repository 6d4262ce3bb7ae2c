"""Index of the files that are pictures, with their hashes (chapter 01).

The cache remembers a readable picture until its file, Pillow or the code that reads it changes.
Unreadable files are not remembered: next time there may be permission, memory or a better decoder.
A first pass over 118,000 pictures resumes after being killed.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import PIL

from .. import paths
from ..checkout import code_key
from ..machine import processors
from . import images

NOT_THERE = "not there"
READER = paths.sha(PIL.__version__, code_key(Path(images.__file__)))
BLOCK = 1000  # pictures read between two writes to the index
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
TABLE = """CREATE TABLE IF NOT EXISTS readable
    (path BLOB PRIMARY KEY, stamp TEXT NOT NULL, reader TEXT NOT NULL, sha TEXT NOT NULL)"""


def inspect(files: Iterable[Path]) -> dict[Path, tuple[str | None, str | None]]:
    """Return {file: (SHA-256 of its bytes, None)}, or (None, why it is no picture).

    The reason is "not there" for a missing file. New files are decoded, on all cores.
    """
    stamps = {path: _stamp(path) for path in files}
    verdicts: dict[Path, tuple[str | None, str | None]]
    verdicts = {path: (None, why) for path, (stamp, why) in stamps.items() if stamp is None}
    verdicts |= {path: (sha, None) for path, sha in _remembered(stamps).items()}
    new = [path for path in stamps if path not in verdicts]
    remembering = True
    with ThreadPoolExecutor(processors()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for all threads: about odd files that Pillow reads
        starts = range(0, len(new), BLOCK)
        for start in paths.progress(starts, "reading pictures, by the thousand"):
            block = new[start : start + BLOCK]
            looked = dict(zip(block, pool.map(_look, block), strict=True))
            verdicts |= looked
            rows = [
                (os.fsencode(path.absolute()), stamps[path][0], READER, sha)
                for path, (sha, _) in looked.items()
                if sha
            ]
            remembering = remembering and _remember(rows)
    return verdicts


def _stamp(path: Path) -> tuple[str | None, str | None]:
    """Return (size and times of the last change, None), or (None, why there is no file to read)."""
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a name may hold a zero byte
        return None, NOT_THERE
    except OSError as error:
        return None, f"{type(error).__name__}: {error.strerror}"
    if not stat.S_ISREG(about.st_mode):
        return None, "no file"
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}", None


def _look(path: Path) -> tuple[str | None, str | None]:
    """Return (SHA-256 of a picture's bytes, None), or (None, why it cannot be read)."""
    try:
        content = path.read_bytes()
        images.decode(content, size=8)
    except Exception as error:  # Pillow raises many kinds; each is named in `Pictures.skipped`
        return None, f"{type(error).__name__}: {error}"
    return hashlib.sha256(content).hexdigest(), None


def _remembered(stamps: dict[Path, tuple[str | None, str | None]]) -> dict[Path, str]:
    """Return {file: SHA-256} of the files that were read before and have not changed since."""

    def find(table: sqlite3.Connection) -> dict[Path, str]:
        query = "SELECT sha FROM readable WHERE path = ? AND stamp = ? AND reader = ?"
        rows = {
            path: table.execute(query, (os.fsencode(path.absolute()), stamp, READER)).fetchone()
            for path, (stamp, _) in stamps.items()
            if stamp
        }
        return {path: row[0] for path, row in rows.items() if row}

    return _with_index(find) or {}


def _remember(rows: list[tuple[bytes, str | None, str, str]]) -> bool:
    """Write rows into the index; return False if that fails."""
    insert = "INSERT OR REPLACE INTO readable VALUES (?, ?, ?, ?)"
    return _with_index(lambda table: table.executemany(insert, rows)) is not None


def _with_index(work: Callable[[sqlite3.Connection], Any]) -> Any:
    """Return what `work` returns for the index; None if there is no usable index.

    The index only saves time. A damaged one is created anew; one that is locked, read-only or on a
    full disk is not used.
    """
    file = paths.CACHE / "pictures.sqlite"
    for _ in range(2):
        try:
            paths.CACHE.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(file, timeout=5)) as table, table:
                table.execute(TABLE)
                return work(table)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code & 0xFF not in DAMAGED:
                return None
            for ending in ("", "-journal"):  # an old journal would spoil the new index
                with suppress(OSError):
                    Path(f"{file}{ending}").unlink()
        except OSError:
            return None
    return None
