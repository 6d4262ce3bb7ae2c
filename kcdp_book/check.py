"""Check that this machine can run the workshop.

`python -m kcdp_book.check` takes half a minute and needs no network. It prints one line for each
requirement, and for each problem a sentence that says how to mend it.

The exit status is 1 if something must be mended. Only the standard library is imported at the top,
so that a missing package does not stop the other checks.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kcdp_lib.command import command
from kcdp_lib.errors import KCDPError
from kcdp_lib.machine import processors

ROOT = Path(__file__).resolve().parents[1]
PYTHON = (3, 11, 5)
DISTRIBUTION = "kcdp-cookbook"
FREE_BYTES = 2_000_000_000  # caches of all chapters and some runs
# `make adapt` needs about two thirds of this; the rest is for the browser.
MEMORY_BYTES = 3_000_000_000
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
# Packages whose versions depend on the machine: torch and what its builds bring, as in the Makefile
CHOSEN = r"torch|torchvision|triton|(?:nvidia|cuda)-.*"
INSTALL = (
    'install in this environment by `python -m pip install -c constraints.txt -e ".[book,test]"`'
)


class Finding(NamedTuple):
    """One line of the printed table."""

    what: str
    state: str  # "ok", "note" (the workshop does without) or "mend"
    said: str


# --------------------------- the checks: each returns the text to print, or raises KCDPError


def python() -> str:
    """Return the interpreter's version. KCDPError below PYTHON."""
    this, wanted = (".".join(map(str, numbers)) for numbers in (sys.version_info[:3], PYTHON))
    if sys.version_info[:3] < PYTHON:
        raise KCDPError(
            f"Python {this} is too old; install Python {wanted} or newer and make the environment "
            "with it."
        )
    return this


def packages() -> str:
    """Check that all required packages are installed in their pinned versions.

    Test tools may be missing, and torch has a check of its own. KCDPError if a package is missing
    or differs from constraints.txt.
    """
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise KCDPError(f"the project itself is not installed; {INSTALL}.") from None
    needed = [re.split(r"[^\w.-]", line)[0] for line in lines if 'extra == "test"' not in line]
    missing = [name for name in needed if version(name) is None]
    if missing:
        raise KCDPError(f"missing: {', '.join(missing)}; {INSTALL}.")
    pins = pinned()
    other = {
        name: (installed, pin)
        for name, pin in pins.items()
        if not re.fullmatch(CHOSEN, name) and (installed := version(name)) and installed != pin
    }
    if other:
        name, (installed, pin) = next(iter(other.items()))
        more = f", and {len(other) - 1} more differ" if len(other) > 1 else ""
        raise KCDPError(f"{name} is {installed} and the book was made with {pin}{more}; {INSTALL}.")
    return f"{len(needed)} needed" + (
        ", in the versions that the book was made with"
        if pins
        else "; without constraints.txt their versions were not compared"
    )


def version(name: str) -> str | None:
    """Return a package's version without a local build tag ("+cpu"); None if it is missing."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def pinned() -> dict[str, str]:
    """Return name -> version from the checkout's constraints.txt; empty outside a checkout."""
    path = ROOT / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def build() -> str:
    """Describe the build of torch and the size of the environment.

    KCDPError if torchvision is of another build and so cannot be imported.
    """
    import torch

    try:
        import torchvision
    except Exception as error:
        raise KCDPError(
            f"torch {torch.__version__} does not work with the torchvision that is installed "
            f"({str(error).splitlines()[0]}); install both by one command and from one source, at "
            "versions that belong together (see TORCH in README.md)."
        ) from None
    kind = "a build for CPUs"
    if torch.version.cuda or torch.version.hip:
        kind = "a build for GPUs"
        if not torch.cuda.is_available():
            kind += " without a GPU to use (a smaller one will do: see TORCH in README.md)"
    pin = pinned().get("torch", version("torch"))
    made = "" if version("torch") == pin else f"; the book was made with {pin}"
    return (
        f"{torch.__version__}, {kind}{made}; torchvision {torchvision.__version__} fits; "
        f"{sys.prefix} takes {size(Path(sys.prefix)) / 1e9:.1f} GB"
    )


def size(folder: Path) -> int:
    """Return the total size of all files below a folder, in bytes."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files)


def weights() -> str:
    """Load every miniature model. KCDPError, from the loader, if one cannot be loaded whole."""
    from kcdp_lib import perception

    parts = [*foundations()[:5], perception.load_unet(preset())]
    return (
        f"{sum(p.numel() for part in parts for p in parameters(part)):,} numbers in the miniature "
        "models"
    )


def picture() -> str:
    """Draw and caption one sticker and predict its emotion with untrained heads.

    This exercises all the code of a run. KCDPError if the caption makes no sense.
    """
    import torch

    from kcdp_lib import world
    from kcdp_lib.adapt import KCDP
    from kcdp_lib.config import RECIPES
    from kcdp_lib.knowledge import without_feelings

    torch.manual_seed(0)
    model = KCDP(preset(), RECIPES["paper"])
    model.foundations = foundations()
    started = time.perf_counter()
    scene = world.sample_scene("test", seed=0, index=3)
    prediction = model.predict([world.render(scene, "stickers", preset().image_size)])
    caption = prediction.captions[0]
    is_sticker = without_feelings(caption).startswith("a sticker of")
    if not is_sticker or abs(prediction.probs.sum() - 1) > 1e-3:
        raise KCDPError(
            f"a sticker was captioned {caption!r}, so the models do not compute here "
            "what they should; bring the weights back by `git checkout kcdp_lib/models`."
        )
    return f'"{caption}", in {time.perf_counter() - started:.1f} s'


def kernel() -> str:
    """Check the Jupyter kernel "python3", on which the notebooks run.

    KCDPError if it is missing or belongs to another environment.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    how = "make it this environment's by `python -m ipykernel install --sys-prefix --name python3`"
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        raise KCDPError(f'Jupyter has no kernel "python3"; {how}.') from None
    if Path(command).is_absolute() and Path(command).parent != Path(sys.executable).parent:
        raise KCDPError(f"the notebooks would run with {command}; {how}.")
    return "the notebooks run in this environment"


def folders() -> str:
    """Check that caches and runs can be written and that the disk has room. KCDPError if not."""
    from kcdp_lib.paths import CACHE, atomic_write

    for folder, how in (
        (CACHE, "set KCDP_CACHE to a folder that you may write to"),
        (ROOT / "runs", "move the checkout to where you may write"),
    ):
        trial = folder / f".check{os.getpid()}"
        try:
            atomic_write(trial, "")
            trial.unlink()
        except OSError as error:
            raise KCDPError(f"{folder} cannot be written ({error.strerror}); {how}.") from None
    free = shutil.disk_usage(CACHE).free
    if free < FREE_BYTES:
        raise KCDPError(
            f"{free / 1e9:.1f} GB are free below {CACHE} and {FREE_BYTES / 1e9:.0f} are wanted; "
            "free some space, or set KCDP_CACHE to a folder on a larger disk."
        )
    return f"caches and runs can be written, {free / 1e9:.0f} GB are free"


def memory() -> str:
    """Return the free memory. KCDPError below MEMORY_BYTES."""
    import psutil

    free = psutil.virtual_memory().available
    if free < MEMORY_BYTES:
        raise KCDPError(
            f"{free / 1e9:.1f} GB of memory are free and {MEMORY_BYTES / 1e9:.0f} are wanted; "
            "close other programs, the browser's other windows first."
        )
    return f"{free / 1e9:.0f} GB are free"


def threads() -> str:
    """Return torch's number of threads and the number of processors."""
    import torch

    return (
        f"torch computes with {torch.get_num_threads()} threads, the machine has {os.cpu_count()} "
        f"processors and gives this process {processors()}"
    )


def device() -> str:
    """Return the device on which runs are computed by default."""
    from kcdp_lib.config import pick_device

    return f"runs are computed on {pick_device()}"


def browser() -> str:
    """Find a Chromium, which only the book's browser tests need.

    KCDPError if there is none.
    """
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not path:
        raise KCDPError("no Chromium was found; nothing in the workshop needs it.")
    return path


# ------------------------------------------------------------- helpers of `weights` and `picture`


def preset():
    """Return the miniature preset."""
    from kcdp_lib.config import PRESETS

    return PRESETS["tiny"]


@cache
def foundations():
    """Load all frozen models except the UNet, once. KCDPError if one cannot be loaded."""
    from kcdp_lib.precompute import load_foundations

    return load_foundations(preset())


def parameters(part) -> list:
    """Return the parameters of a model or of a named tuple's model; empty for a parser."""
    model = getattr(part, "model", part)
    return list(model.parameters()) if hasattr(model, "parameters") else []


# ---------------------------------------------------------------- the table

MUST: dict[str, Callable[[], str]] = {
    "Python": python,
    "packages": packages,
    "torch": build,
    "weights": weights,
    "one picture": picture,
    "Jupyter": kernel,
    "folders": folders,
    "memory": memory,
}
MAY: dict[str, Callable[[], str]] = {"threads": threads, "device": device, "browser": browser}


def look(what: str, check: Callable[[], str], otherwise: str) -> Finding:
    """Run one check and return its line, with state `otherwise` if it fails.

    Any exception becomes a sentence, because a broken installation can raise anything.
    """
    try:
        return Finding(what, "ok", check())
    except KCDPError as error:
        return Finding(what, otherwise, str(error))
    except Exception as error:
        reason = str(error).strip().splitlines() or ["no reason given"]
        return Finding(what, otherwise, f"{type(error).__name__}, {reason[0]}; {INSTALL}.")


def main() -> None:
    """Print the table, and exit with status 1 if a line says "mend"."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # before any library contacts the hub
    findings = []
    for checks, otherwise in ((MUST, "mend"), (MAY, "note")):
        for what, check in checks.items():
            finding = look(what, check, otherwise)
            print(f"{finding.state:6}{finding.what:13}{finding.said}", flush=True)
            findings.append(finding)
    wrong = sum(finding.state == "mend" for finding in findings)
    if wrong:
        print(
            f'{wrong} of {len(findings)} lines say "mend": do what they say, from above, and run '
            "this once more."
        )
        sys.exit(1)
    print("Everything that the workshop needs is there.")


if __name__ == "__main__":
    with command():
        main()
