"""Where things lie.

Every path of the project is resolved here, because papermill, nbval and the book each run in
another working directory.
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
DISK_ERRORS = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EIO EROFS EACCES EPERM ENOTDIR EEXIST ENAMETOOLONG".split()
    if hasattr(errno, name)  # Windows has no quota
}


def resolve(path: str | Path) -> Path:
    """Absolute path of `path`.

    As seen from the working directory if it exists there, else from the checkout's root.
    """
    path = Path(os.path.expanduser(path))  # pathlib's own fails for a user that is not there
    if path.is_absolute() or os.path.exists(path):
        return path.absolute()
    return ROOT / path


def _cache() -> Path:
    """The folder of all that is kept between runs: KCDP_CACHE, or one of the checkout's own."""
    named = os.environ.get("KCDP_CACHE", "").strip()
    if named:
        return resolve(named)
    in_checkout = (ROOT / "pyproject.toml").exists()
    return ROOT / ".cache" if in_checkout else Path.home() / ".cache" / "kcdp"


CACHE = _cache()


def at_revision(name: str) -> tuple[str, str | None]:
    """A model's name and the commit of its hub repository that is meant: "ORG/NAME@HASH" is both.

    A folder has None.

    One string holds the two, so that whatever is kept under a model's name (`loading.model_key`)
    is kept under its commit, too.
    """
    pinned = re.fullmatch(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", name)
    return (pinned[1], pinned[2]) if pinned else (name, None)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write `content` so that a killed run leaves the old file or the new one, never half of it.

    In text, the bytes of file names that are not UTF-8 are escaped, as JSON escapes them.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with _replaced(path) as part:
        part.write_bytes(content)


def atomic_save(path: Path, tensors: dict, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, whole or not at all, without a second copy in memory.

    OSError where the disk is full, as of any other file.
    """
    # here, because a Config needs paths and should not need torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with _replaced(path) as part:
        try:
            save_file(whole, part, metadata)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error


@contextmanager
def _replaced(path: Path):
    """A name beside `path` to write to.

    What was written there takes the place of `path`, or nothing does. An OSError names `path`: that
    of a full disk names no file by itself.
    """
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def explained(folder: Path):
    """Turn an OSError of writing to `folder`, or to the cache, into a KCDPError of one sentence.

    Which of the two it was is seen by the path in the error. Other errors pass.
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
        remedy = (
            "free some space there, or set KCDP_CACHE to another folder"
            if cached
            else f"free some space ({FREE_BYTES // 10**6} MB are enough for preset tiny) or choose "
            "another out_dir"
        )
        raise KCDPError(f"{where} cannot be written ({error.strerror}): {remedy}.") from error


def sha(*parts: bytes | str) -> str:
    """Hex SHA-256 over the parts.

    The length of each is hashed too, so that no two lists of parts collide.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@cache
def _screen() -> TextIO | None:
    """The terminal that KCDP_TERMINAL names, if it can be written."""
    try:
        return open(os.environ["KCDP_TERMINAL"], "w", encoding="utf-8")
    except (KeyError, OSError):
        return None


def progress(items: Iterable, desc: str, total: int | None = None, images: int | None = None):
    """A progress bar at a terminal or in JupyterLab.

    Silent in pipes, saved notebooks (KCDP_QUIET=1) and tests. With `images` to an item, it counts
    images and images/s. A notebook that runs without a screen of its own draws its bars on the
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
