"""Run the notebooks with papermill and keep their outputs.

`make notebooks` runs all of them in order, as many at a time as there are processors;
`python book/execute.py 01_datasets differences` runs some. Each runs in a folder of its own and
with an empty cache, so that its outputs depend on the commit alone. What would differ between runs
is removed.

--warm   use the caches that are there: quicker while one writes
--stale  run only those whose code, library, models, pinned versions or results have changed since
         they were run
"""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import torch
from fingerprint import ROOT, fingerprint, stale

from kcdp_book import pictures
from kcdp_lib.checkout import commit
from kcdp_lib.command import command
from kcdp_lib.machine import processors

NOTEBOOKS = [
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "book").glob("*.ipynb")),
]
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
KEPT = ("tags", "mystnb")  # of a cell's metadata
# Versions that are named at the foot of a page
SHOWN = ("torch", "diffusers", "open_clip_torch", "transformers", "matplotlib")


def run(path: Path, from_commit: str, caches: str) -> None:
    """Execute one notebook and write it back clean, with a record of how it was made.

    caches: "cold" or "warm". RuntimeError if it wrote on standard error.
    """
    started = time.time()
    # Another working directory than nbval's and JupyterLab's, because outputs must not depend on it
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        papermill.execute_notebook(
            path, out, cwd=folder, kernel_name="python3", progress_bar=sys.stderr.isatty()
        )
        notebook = clean(nbformat.read(out, as_version=4))
    check(notebook, path.name)
    notebook.metadata["kcdp"] = {
        "made_from": fingerprint(notebook),
        "commit": from_commit,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in SHOWN},
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "seconds": round(time.time() - started),
        "caches": caches,
    }
    nbformat.write(notebook, path)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from run to run.

    That is papermill's times and names, empty tags, and the arbitrary pieces of a stream. Tags and
    the names of figures are kept.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {name: cell.metadata[name] for name in KEPT if cell.metadata.get(name)}
        )
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
            for output in cell.outputs:
                pictures.lighten(output)
    return notebook


def merged(outputs: list) -> list:
    """Join neighbouring pieces of the same stream."""
    kept = []
    for output in outputs:
        if (
            kept
            and output.output_type == "stream"
            and kept[-1].output_type == "stream"
            and kept[-1].name == output.name
        ):
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def check(notebook: nbformat.NotebookNode, name: str) -> None:
    """Refuse text on standard error, such as warnings, and paths of this machine."""
    for number, cell in enumerate(notebook.cells):
        text = str(cell.get("outputs", ""))
        if "'name': 'stderr'" in text:
            raise RuntimeError(
                f"{name}, cell {number} writes on standard error; mend the cause: {text[:500]}"
            )
        if str(ROOT) in text or str(Path.home()) in text.replace(str(ROOT), ""):
            raise RuntimeError(f"{name}, cell {number} shows a path of this machine: {text[:500]}")


def apart(path: Path, from_commit: str, warm: bool, threads: int) -> int:
    """Run one notebook in a process of its own; return its exit status."""
    with tempfile.TemporaryDirectory() as empty:
        command = [
            sys.executable,
            __file__,
            "--this",
            str(path),
            from_commit,
            "warm" if warm else "cold",
        ]
        chosen = {"KCDP_QUIET": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        if not warm:
            chosen["KCDP_CACHE"] = empty
        environment = os.environ | chosen
        status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode
    print(f"{path.name}: {'failed' if status else 'done'}", flush=True)
    return status


def main() -> None:
    """Run the chosen notebooks side by side; status 1 if one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="notebooks without their ending; all unless told")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--stale", action="store_true")
    parser.add_argument("--this", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.this:
        path, from_commit, caches = asked.this
        return run(Path(path), from_commit, caches)
    if unknown := set(asked.names) - {path.stem for path in NOTEBOOKS}:
        parser.error(
            f"there is no notebook {', '.join(sorted(unknown))}; there are "
            f"{', '.join(path.stem for path in NOTEBOOKS)}"
        )
    wanted = [
        path
        for path in NOTEBOOKS
        if (not asked.names or path.stem in asked.names)
        and not (asked.stale and not stale(nbformat.read(path, as_version=4)))
    ]
    before = commit() or ""  # read before the first notebook is written
    cores = processors()
    workers = max(1, min(cores, len(wanted)))
    with ThreadPoolExecutor(workers) as pool:
        statuses = list(
            pool.map(lambda path: apart(path, before, asked.warm, cores // workers), wanted)
        )
    sys.exit(any(statuses))


if __name__ == "__main__":
    with command():
        main()
