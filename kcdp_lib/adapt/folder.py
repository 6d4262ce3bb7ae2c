"""A run's own folder: only one run writes to it, and nothing of an earlier run stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kcdp_lib.config import Config
from kcdp_lib.datasets import DOMAINS
from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import folder_named

LOCK = ".lock"
# Files of a run. metrics.json is removed first: without it, no folder looks finished.
OWN_FILES = {
    "": ("metrics.json", "predictions.jsonl"),
    "model": ("model.safetensors", "config.json", "history.json", "README.md"),
    "figures": tuple(
        f"{name}.png"
        for name in ("learning_curves", "predictions", "method", "confusion", "baselines")
    ),
}


def check_apart(out: Path, config: Config) -> None:
    """Check that a run's folder lies outside its pictures and holds no run of other pictures.

    Two folders of the same name would share the folder in runs/. Raises KCDPError.
    """

    def places(source: str, target: str, root: str | None) -> list[str | Path]:
        return [name if name in DOMAINS else folder_named(name, root) for name in (source, target)]

    ours = theirs = places(config.source, config.target, config.data_root)
    with suppress(OSError, ValueError, LookupError, TypeError):
        about = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["config"]
        theirs = places(about["source"], about["target"], about.get("data_root"))
    read = [place.resolve() for place in ours if isinstance(place, Path)]
    written = (out.resolve(), (out / "figures").resolve())  # either may lie behind a link
    if any(folder.is_relative_to(place) for folder in written for place in read):
        raise KCDPError(f"{out} lies among the pictures that it is about; choose another out_dir.")
    if config.out_dir is None and theirs != ours:
        raise KCDPError(
            f"{out} holds the run of other pictures, {theirs[0]} to {theirs[1]}; move it away, or "
            "choose an out_dir."
        )


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Lock a run's folder; the lock ends with the process, however that ends.

    Raises KCDPError if another run holds the lock.
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
        with suppress(OSError):  # Windows does not remove open files
            (out / LOCK).unlink()
        lock.release()


def clear(out: Path) -> None:
    """Remove the files of an earlier run, except its checkpoint and files of other names."""
    for folder, names in OWN_FILES.items():
        for name in names:
            (out / folder / name).unlink(missing_ok=True)
        for path in (out / folder).glob("*.part*"):  # half written
            name, _, process = path.name.rpartition(".part")
            if name in names and process.isdigit():
                path.unlink(missing_ok=True)
        if folder:
            with suppress(OSError):  # it does not exist, or holds other files
                (out / folder).rmdir()
