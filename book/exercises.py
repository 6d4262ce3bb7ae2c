"""Make the exercise versions of the chapters.

`make exercises` writes exercises/*.ipynb, or `python book/exercises.py FOLDER`.

One source: a chapter holds its exercises with their solutions, which run and are compared as
everything else. Here the solutions are taken out: cells tagged "solution" become a place to write,
and the boxes that explain them go. What is there already is left alone, for somebody may have
worked in it.
"""

import re
import sys
from pathlib import Path

import nbformat

from kcdp_lib.command import command

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for folder in ("notebooks", "book")
    for path in sorted((ROOT / folder).glob("*.ipynb"))
    if "{admonition} Exercise" in path.read_text(encoding="utf-8")
]
BOX = r"```\{admonition\} %s\n(?::class:[^\n]*\n)?(.*?)\n```\n*"
STUB = "# Your code here."


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as a participant gets it: nothing run, nothing solved.

    JupyterLab shows no boxes, so an exercise becomes a heading with its text.
    """
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
            cell.source = re.sub(BOX % r"(Solution[^\n]*)", "", cell.source, flags=re.DOTALL)
            cell.source = re.sub(
                BOX % r"(Exercise[^\n]*)", r"### \1\n\n\2\n\n", cell.source, flags=re.DOTALL
            ).strip()
        cell.metadata = nbformat.from_dict(
            {"tags": ["parameters"]} if "parameters" in cell.metadata.get("tags", []) else {}
        )
        if cell.source:
            kept.append(cell)
    notebook.cells = kept
    notebook.metadata.pop("kcdp", None)  # the foot of a page that was run
    return notebook


def main(folder: Path) -> None:
    """Write every exercise notebook that is not there yet."""
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
