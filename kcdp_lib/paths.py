"""Paths of the project, and files that are written completely or not at all.

Every path is resolved here, because papermill, nbval and the book each run in another working
directory.
"""

import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TextIO

from tqdm.auto import tqdm
from tqdm.std import tqdm as text_tqdm

from kcdp_lib.errors import KCDPError

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").exists() else Path.cwd()
TINY = PACKAGE / "models" / "tiny"
FREE_BYTES = 50_000_000  # what a run of the tiny preset may need in its folder
NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # not on Windows
DISK_ERRORS = NO_ROOM | {
    getattr(errno, name) for name in "EIO EROFS EACCES EPERM ENOTDIR EEXIST ENAMETOOLONG".split()
}


def resolve(path: str | Path) -> Path:
    """Return the absolute path of `path`.

    A relative path is resolved from the working directory if it exists there, else from the
    checkout's root.
    """
    path = Path(os.path.expanduser(path))  # pathlib's own fails for an unknown user
    if path.is_absolute() or os.path.exists(path):
        return path.absolute()
    return ROOT / path


def folder_named(name: str | Path, data_root: str | Path | None = None) -> Path:
    """Return the folder that a name stands for, which need not exist.

    It is the one below `data_root` if that is there, else what `resolve` returns.
    """
    below = resolve(data_root) / name if data_root else None
    return below if below and os.path.isdir(below) else resolve(name)


def _cache() -> Path:
    """Return the folder of all caches: KCDP_CACHE, else the checkout's or the user's own."""
    named = os.environ.get("KCDP_CACHE", "").strip()
    if named:
        return resolve(named)
    in_checkout = (ROOT / "pyproject.toml").exists()
    return ROOT / ".cache" if in_checkout else Path.home() / ".cache" / "kcdp"


CACHE = _cache()


def at_revision(name: str) -> tuple[str, str | None]:
    """Split "ORG/NAME@HASH" into a model's name and its hub commit; the commit of a folder is None.

    One string holds both, so that a key made from it (`loading.model_key`) depends on the commit.
    """
    pinned = re.fullmatch(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", name)
    return (pinned[1], pinned[2]) if pinned else (name, None)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write `content` so that a killed run leaves the old file or the new one, never half of it.

    In text, bytes of file names that are not UTF-8 are escaped, as in JSON.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with _replaced(path) as part:
        part.write_bytes(content)


def atomic_save(path: Path, tensors: dict, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, completely or not at all, without a copy in memory.

    OSError if the disk is full, as for any other file.
    """
    # imported here, because a Config needs paths and should not need torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with _replaced(path) as part:
        part.touch()
        mode = part.stat().st_mode
        try:
            save_file(whole, part, metadata)
            part.chmod(mode)  # `save_file` leaves a file that only its owner can read
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error


@contextmanager
def _replaced(path: Path):
    """Yield a temporary path beside `path`, and rename it to `path` if nothing fails.

    An OSError names `path`, because the one of a full disk names no file.
    """
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def explained(folder: Path):
    """Turn an OSError from writing to `folder` or the cache into a KCDPError of one sentence.

    The path in the error tells which of the two it was. Other errors pass.
    """
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename or folder))
        cached = path.is_relative_to(CACHE)
        ours = cached or path.is_relative_to(folder) or folder.is_relative_to(path)
        if not ours or (error.errno not in DISK_ERRORS and not error.filename):
            raise
        where = f"{path}, in the cache," if cached else path
        space = "free some space there, or " * (error.errno in NO_ROOM)
        other = "set KCDP_CACHE to another folder" if cached else "choose another out_dir"
        raise KCDPError(f"{where} cannot be written ({error.strerror}): {space}{other}.") from error


def sha(*parts: bytes | str) -> str:
    """Return the hex SHA-256 over the parts.

    The length of each part is hashed too, so that no two lists of parts collide.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@cache
def _screen() -> TextIO | None:
    """Return the terminal that KCDP_TERMINAL names, or None if it cannot be written."""
    try:
        return open(os.environ["KCDP_TERMINAL"], "w", encoding="utf-8")
    except (KeyError, OSError):
        return None


def progress(items: Iterable, desc: str, total: int | None = None, images: int | None = None):
    """Show a progress bar at a terminal or in JupyterLab.

    It is silent in pipes, saved notebooks (KCDP_QUIET=1) and tests. With `images` per item, it
    counts images and images/s. A notebook without a screen of its own draws its bars on the
    terminal that KCDP_TERMINAL names (`book/run.py`).
    """
    terminal = _screen()
    quiet = os.environ.get("KCDP_QUIET") == "1" or not (terminal or sys.stderr).isatty()
    bar = text_tqdm if terminal else tqdm
    return bar(
        items,
        desc=desc,
        total=total,
        disable=quiet,
        leave=False,
        file=terminal,
        **({"unit": " images", "unit_scale": images} if images else {}),
    )
