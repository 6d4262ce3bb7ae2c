"""At the foot of each notebook's page.

When its outputs were made, from which commit, with what, on what, in how many seconds.
"""

import nbformat
from docutils import nodes

NAMES = {"open_clip_torch": "open_clip"}


def foot(made: dict) -> str:
    """One line from what `book/execute.py` left in a notebook's metadata."""
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
    path = app.env.doc2path(app.env.docname)
    if not str(path).endswith(".ipynb"):
        return
    made = nbformat.read(path, as_version=4).metadata.get("kcdp")
    section = next(iter(doctree.findall(nodes.section)), None)
    if made and section is not None:
        section += nodes.paragraph("", foot(made), classes=["provenance"])


def setup(app) -> dict:
    app.connect("doctree-read", add_foot)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
