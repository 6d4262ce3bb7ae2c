"""A figure that a notebook glued, as a file for another page: {glue:figure} shows those of its own page alone, and without words for who cannot see it."""
import base64
from pathlib import Path

import nbformat

PNG = "application/papermill.record/image/png"
NOTEBOOK, NAME = "notebooks/05_adapt.ipynb", "whole_method"


def lay_beside(app) -> None:
    """Write the figure to book/glued/, which git ignores; a file that is the same stays, so that its page need not be built anew. KeyError if the notebook did not glue it."""
    notebook = nbformat.read(Path(app.srcdir, NOTEBOOK), as_version=4)
    glued = {output.metadata["scrapbook"]["name"]: output.data.get(PNG) for cell in notebook.cells for output in cell.get("outputs", []) if "scrapbook" in output.get("metadata", {})}
    picture, file = base64.b64decode(glued[NAME]), Path(app.srcdir, "book", "glued", f"{NAME}.png")
    file.parent.mkdir(exist_ok=True)
    if not file.exists() or file.read_bytes() != picture:
        file.write_bytes(picture)


def setup(app) -> dict:
    app.connect("builder-inited", lay_beside)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
