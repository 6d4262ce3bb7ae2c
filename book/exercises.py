"""Make the exercise versions of the chapters.

`make exercises` writes exercises/*.ipynb, or `python book/exercises.py FOLDER`.

A chapter contains its exercises with their solutions, which are run and compared like all other
cells. This script takes the solutions out: cells tagged "solution" become empty, and the folded
answers are removed. Existing files are not changed, because somebody may have worked in them.
"""

import re
import sys
from pathlib import Path

import nbformat

from kcdp_lib.command import command

ROOT = Path(__file__).resolve().parents[1]
EXERCISE = re.compile(r"^#{2,3} (Exercise(?: \d)?: [^\n]+)$", re.MULTILINE)
SOLUTION = re.compile(r"<details>\n<summary>Solution.*?</details>\n*", re.DOTALL)
STUB = "# Your code here."
SOURCES = [
    path
    for folder in ("notebooks", "book")
    for path in sorted((ROOT / folder).glob("*.ipynb"))
    if any(EXERCISE.search(cell.source) for cell in nbformat.read(path, as_version=4).cells)
]


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook as a participant gets it: without outputs and solutions."""
    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            solved = "solution" in cell.metadata.get("tags", [])
            cell.source, cell.outputs, cell.execution_count = (
                (STUB if solved else cell.source),
                [],
                None,
            )
        else:
            cell.source = SOLUTION.sub("", cell.source).strip()
        cell.metadata = nbformat.from_dict(
            {"tags": ["parameters"]} if "parameters" in cell.metadata.get("tags", []) else {}
        )
        if cell.source:
            kept.append(cell)
    notebook.cells = kept
    notebook.metadata.pop("kcdp", None)  # the foot of a page that was run
    return notebook


def main(folder: Path) -> None:
    """Write every exercise notebook that does not exist yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        path = folder / source.name
        if path.exists():
            print(f"{path} is left as it is; delete or rename it to have it made anew.")
        else:
            nbformat.write(without_solutions(nbformat.read(source, as_version=4)), path)
            print(path)


if __name__ == "__main__":
    with command():
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "exercises")
