"""Run the notebooks with papermill, in order, and keep their outputs without what would differ from run to run.

`make notebooks`, or `python book/execute.py 01_datasets differences` for some of them.
"""
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "book").glob("*.ipynb"))]
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


def run(path: Path) -> None:
    """Execute one notebook from its own folder, as nbval and JupyterLab do, and write it back clean. RuntimeError if it wrote on standard error."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        papermill.execute_notebook(path, out, cwd=path.parent, kernel_name="python3", progress_bar=sys.stderr.isatty())
        notebook = clean(nbformat.read(out, as_version=4))
    check(notebook, path.name)
    nbformat.write(notebook, path)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop papermill's times and names, empty tags and the pieces into which a stream happened to be cut. Tags, and what a figure is called, are kept."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in ("tags", "mystnb") if cell.metadata.get(key)})
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    return notebook


def merged(outputs: list) -> list:
    """Neighbouring pieces of the same stream joined."""
    kept = []
    for output in outputs:
        if kept and output.output_type == "stream" and kept[-1].output_type == "stream" and kept[-1].name == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def check(notebook: nbformat.NotebookNode, name: str) -> None:
    """Refuse debris: warnings and progress bars on standard error, and paths of this machine."""
    for number, cell in enumerate(notebook.cells):
        text = str(cell.get("outputs", ""))
        if "'name': 'stderr'" in text:
            raise RuntimeError(f"{name}, cell {number} writes on standard error; mend the cause: {text[:500]}")
        if str(ROOT) in text or str(Path.home()) in text.replace(str(ROOT), ""):
            raise RuntimeError(f"{name}, cell {number} shows a path of this machine: {text[:500]}")


if __name__ == "__main__":
    for notebook in NOTEBOOKS:
        if notebook.stem in (sys.argv[1:] or [notebook.stem]):
            print(notebook.name, flush=True)
            run(notebook)
