"""A run's own folder: nobody else writes there meanwhile, and nothing of an earlier run stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kcdp_lib.errors import KCDPError

LOCK = ".lock"
# What a run leaves, metrics.json first: without it, no folder looks finished.
OWN_FILES = {
    "": ("metrics.json", "predictions.jsonl"),
    "model": ("model.safetensors", "config.json", "history.json", "README.md"),
    "figures": tuple(
        f"{name}.png"
        for name in ("learning_curves", "predictions", "method", "confusion", "baselines")
    ),
}


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Hold a run's folder; the lock goes with the process, however that ends.

    KCDPError where another run holds it.
    """
    lock = FileLock(out / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise KCDPError(
            f"Another run is writing to {out}; wait for its end, or choose another out_dir."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            (out / LOCK).unlink()
        lock.release()


def clear(out: Path) -> None:
    """Remove what an earlier run left, but for its checkpoint and for files of other names."""
    for folder, names in OWN_FILES.items():
        for name in names:
            (out / folder / name).unlink(missing_ok=True)
        half_written = re.compile(rf"({'|'.join(map(re.escape, names))})\.part\d+")
        for path in (out / folder).glob("*.part*"):
            if half_written.fullmatch(path.name):
                path.unlink(missing_ok=True)
        if folder:
            with suppress(OSError):  # it is not there, or holds other files
                (out / folder).rmdir()
