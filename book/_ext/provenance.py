"""Say at the foot of each notebook's page how its outputs were made.

It names the commit, versions, machine and seconds, and which of the results shown other code than
this checkout's made.
"""

import nbformat
from docutils import nodes
from fingerprint import named_records

from kcdp_book import results

NAMES = {"open_clip_torch": "open_clip"}


def foot(made: dict) -> str:
    """Return one line from the record that `book/execute.py` left in a notebook's metadata."""
    versions = ", ".join(
        f"{NAMES.get(name, name)} {version}" for name, version in made["versions"].items()
    )
    commit = made["commit"] or "no commit"
    changed = ", with changes" if commit.endswith("+changes") else ""
    return (
        f"Executed from commit {commit[:10]}{changed}, with {versions}, on {made['machine']}, in "
        f"{made['seconds']} seconds with {made['threads']} "
        f"thread{'s' if made['threads'] > 1 else ''} from {made['caches']} caches."
    )


def add_foot(app, doctree: nodes.document) -> None:
    """Append the foot to the page of a notebook that was executed."""
    path = app.env.doc2path(app.env.docname)
    if not str(path).endswith(".ipynb"):
        return
    notebook = nbformat.read(path, as_version=4)
    made = notebook.metadata.get("kcdp")
    section = next(iter(doctree.findall(nodes.section)), None)
    if made and section is not None:
        text = f"{foot(made)} {lines_shown(notebook)}".strip()
        section += nodes.paragraph("", text, classes=["provenance"])


def lines_shown(notebook: nbformat.NotebookNode) -> str:
    """Return sentences on the code that made the results in a notebook, lines and records."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    shown = named_records(code)
    lines, records = (
        sorted({path.stem for path in shown if path.suffix == suffix})
        for suffix in (".jsonl", ".json")
    )
    return f"{results.standing(lines)} {results.measured_earlier(records)}".strip()


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect("doctree-read", add_foot)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
