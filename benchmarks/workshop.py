"""Measure how long the parts of a workshop take a participant.

`python benchmarks/workshop.py [path] [chapters] [own]` writes results/workshop.json, which the
leader's guide shows.

path      from an existing environment to a first figure: a fresh clone, the check, the exercises,
          chapter 1 up to its first figure with another number in it
chapters  1 to 5 one after the other in one clone, from an empty cache
own       a folder of drawn faces that are not of the world: adapted to by the paper's recipe, and
          by `best` on frozen features, with the caches that the chapters left

Each has its seconds by the clock, which depend on what else the machine does, and its seconds of
processor time, which hardly do; all with one thread. Reading, typing and thinking are not included.
The entry "stick" is not made here: it was measured by hand, with the commands of the guide.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
from PIL import Image, ImageDraw

from kcdp_book import results
from kcdp_lib.paths import ROOT, atomic_write

CHAPTERS = ("01_datasets", "02_knowledge", "03_perception", "04_counterfactuals", "05_adapt")
OTHER_SCENE = ("index=3)", "index=11)")  # what the participant changes
OWN = 30  # the participant's own stickers
QUIET = ("--kernel", "python3", "--no-progress-bar", "--log-level", "ERROR")


def timed(*command: str, cwd: Path, **environment: str) -> dict[str, float]:
    """Run a command; return its seconds by the clock, and of processor time.

    CalledProcessError if it fails.
    """
    before, started = os.times(), time.perf_counter()
    subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    worked = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return {"clock": round(time.perf_counter() - started, 1), "processor": round(worked, 1)}


def python(*words: str, clone: Path, cache: Path) -> dict[str, float]:
    """Run Python in a clone as a participant does; see `timed`."""
    return timed(
        sys.executable,
        *words,
        cwd=clone,
        PYTHONPATH=str(clone),
        KCDP_CACHE=str(cache),
        KCDP_QUIET="1",
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
    )


def clone_into(folder: Path) -> dict[str, float]:
    """Clone this checkout, as committed."""
    return timed("git", "clone", "--quiet", str(ROOT), str(folder), cwd=ROOT)


def path(clone: Path, cache: Path):
    """Run and time each step from the environment to the participant's first figure."""
    yield "check", python("-m", "kcdp_book.check", clone=clone, cache=cache)
    yield "exercises", python("book/exercises.py", clone=clone, cache=cache)
    notebook = nbformat.read(clone / "exercises" / "01_datasets.ipynb", as_version=4)
    first = next(i for i, cell in enumerate(notebook.cells) if "contact_sheet" in cell.source)
    notebook.cells = notebook.cells[: first + 1]
    assert any(OTHER_SCENE[0] in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = cell.source.replace(*OTHER_SCENE)
    nbformat.write(notebook, clone / "exercises" / "first.ipynb")
    yield (
        "figure",
        python(
            "-m",
            "papermill",
            "exercises/first.ipynb",
            "exercises/first.ipynb",
            *QUIET,
            clone=clone,
            cache=cache,
        ),
    )
    outputs = nbformat.read(clone / "exercises" / "first.ipynb", as_version=4).cells[-1].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)


def chapters(clone: Path, cache: Path):
    """Run and time each chapter, with the solutions of its exercises."""
    for name in CHAPTERS:
        yield name, run_chapter(name, clone, cache)


def own(clone: Path, cache: Path):
    """Run and time the adaptation to `OWN` stickers that the world did not draw."""
    folder = clone / "my-stickers"
    folder.mkdir(exist_ok=True)
    for i in range(OWN):
        face(i).save(folder / f"{i}.png")
    for recipe in ("paper", "best, trained=heads"):
        yield (
            recipe,
            run_chapter(
                "05_adapt", clone, cache, "-p", "target", "my-stickers", "-p", "recipe", recipe
            ),
        )


def run_chapter(name: str, clone: Path, cache: Path, *parameters: str) -> dict[str, float]:
    """Run a chapter by papermill."""
    (clone / "runs").mkdir(exist_ok=True)
    return python(
        "-m",
        "papermill",
        f"notebooks/{name}.ipynb",
        "runs/out.ipynb",
        *QUIET,
        *parameters,
        clone=clone,
        cache=cache,
    )


def face(i: int) -> Image.Image:
    """Draw a round face [256 x 256], with a mouth, a colour and perhaps tears chosen by `i`."""
    picture = Image.new("RGB", (256, 256), "white")
    pen, shift = ImageDraw.Draw(picture), i % 5 * 4 - 8
    pen.ellipse(
        (40 + shift, 40, 216 + shift, 216),
        ("gold", "orange", "tomato", "lightgreen", "pink")[i % 5],
        "saddlebrown",
        5,
    )
    for x in (95 + shift, 161 + shift):
        pen.ellipse((x - 12, 95, x + 12, 125), "black")
        if i % 2:
            pen.ellipse((x - 12, 135, x + 12, 180), "deepskyblue")
    pen.arc(
        *(
            ((85 + shift, 110, 171 + shift, 185), 20, 160),
            ((85 + shift, 155, 171 + shift, 230), 200, 340),
        )[i % 3 == 0],
        "black",
        8,
    )
    return picture


PARTS: dict[str, Callable[[Path, Path], Iterator[tuple[str, dict[str, float]]]]] = {
    "path": path,
    "chapters": chapters,
    "own": own,
}


def main(names: list[str]) -> None:
    """Measure the named parts and write them beside what is there.

    They run in the order of PARTS, in one clone with one cache.
    """
    if unknown := set(names) - set(PARTS):
        sys.exit(f"There is no part {sorted(unknown)[0]!r}; choose among {', '.join(PARTS)}.")
    file = results.FOLDER / "workshop.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        clone, cache = Path(folder, "kcdp"), Path(folder, "cache")
        cloned = clone_into(clone)
        for name in [name for name in PARTS if name in names]:
            found[name] = {
                "seconds": {"clone": cloned} if name == "path" else {},
                "machine": f"{platform.machine()}, {os.cpu_count()} processors",
                **results.made(),
            }
            for step, seconds in PARTS[name](clone, cache):
                found[name]["seconds"][step] = seconds
                print(name, step, seconds, flush=True)
                atomic_write(file, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(PARTS))
