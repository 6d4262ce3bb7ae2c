"""Which files are pictures, and the hash of each.

Read once, remembered in the cache until a file changes (chapter 01). A killed first pass over
118,000 pictures goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path

from PIL import Image

from .. import paths

NOT_THERE = "not there"


def inspect(files: Iterable[Path]) -> dict[Path, tuple[str | None, str | None]]:
    """{file: (SHA-256 of its bytes, None)}, or (None, why it is no picture).

    "not there" where it is missing. Decodes what it has not seen before, on all cores.
    """
    stamps = {path: _stamp(path) for path in files}
    found = {path: (None, NOT_THERE) for path, stamp in stamps.items() if stamp is None}
    paths.CACHE.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(paths.CACHE / "pictures.sqlite", timeout=60)) as table:
        table.execute(
            "CREATE TABLE IF NOT EXISTS pictures (path TEXT PRIMARY KEY, stamp TEXT, sha TEXT, "
            "error TEXT)"
        )
        known = {}
        for path in stamps:
            row = table.execute(
                "SELECT stamp, sha, error FROM pictures WHERE path = ?", (str(path.absolute()),)
            ).fetchone()
            if row and row[0] == stamps[path]:
                known[path] = row[1:]
        todo = [path for path, stamp in stamps.items() if stamp is not None and path not in known]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in paths.progress(
                range(0, len(todo), 1000), "reading pictures, by the thousand"
            ):
                block = todo[start : start + 1000]
                seen = dict(zip(block, pool.map(_look, block)))
                table.executemany(
                    "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)",
                    [(str(path.absolute()), stamps[path], *seen[path]) for path in block],
                )
                table.commit()
                known |= seen
    return found | known


def _stamp(path: Path) -> str | None:
    """Size and time of the last change; None for what is not there."""
    try:
        about = path.stat()
    except OSError:
        return None
    return f"{about.st_size} {about.st_mtime_ns}"


def _look(path: Path) -> tuple[str | None, str | None]:
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as picture:
            picture.load()
    except (
        Exception
    ) as error:  # Pillow raises many kinds for broken files; each is named in `Pictures.skipped`
        return None, f"{type(error).__name__}: {error}"
    return hashlib.sha256(content).hexdigest(), None
