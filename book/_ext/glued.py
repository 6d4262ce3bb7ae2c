"""What a notebook glued, for other pages.

{glue:figure} shows the figures of its own page alone, and without words for who cannot see them.
"""

import base64
from pathlib import Path

import nbformat

PREFIX = "application/papermill.record/"
NOTEBOOK, NAME = "notebooks/05_adapt.ipynb", "whole_method"


def glued(path: Path, kind: str) -> dict[str, str]:
    """What a notebook glued, by name.

    Figures in base64 with kind "image/png", numbers and words, and what a figure is called, with
    "text/plain".
    """
    outputs = [
        output
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if "scrapbook" in output.get("metadata", {})
    ]
    return {
        output.metadata.scrapbook.name: output.data[PREFIX + kind]
        for output in outputs
        if PREFIX + kind in output.data
    }


def lay_beside(app) -> None:
    """Write the figure to book/glued/, which git ignores.

    A file that is the same stays, so that its page need not be built anew. KeyError if the notebook
    did not glue it.
    """
    picture, file = (
        base64.b64decode(glued(Path(app.srcdir, NOTEBOOK), "image/png")[NAME]),
        Path(app.srcdir, "book", "glued", f"{NAME}.png"),
    )
    file.parent.mkdir(exist_ok=True)
    if not file.exists() or file.read_bytes() != picture:
        file.write_bytes(picture)


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect("builder-inited", lay_beside)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
