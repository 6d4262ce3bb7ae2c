"""Show outputs that a notebook glued on other pages.

{glue:figure} only shows figures of its own page, and without alternative text.
"""

from pathlib import Path

import nbformat

from kcdp_book.pictures import picture

NOTEBOOK, NAME = "notebooks/05_adapt.ipynb", "whole_method"
# Figures of other pages that the first page shows, by their names
SHOWN = {"fig-parts-inputs": "book/parts.ipynb", "fig-best-gains": "notebooks/06_compare.ipynb"}


def glued(path: Path) -> dict[str, nbformat.NotebookNode]:
    """Return a notebook's glued outputs by name, without the prefix of those not displayed."""
    named = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if about := output.get("metadata", {}).get("scrapbook"):
                data = output.data.items()
                output.data = {kind.removeprefix(about.mime_prefix): of for kind, of in data}
                named[about.name] = output
    return named


def glued_texts(path: Path) -> dict[str, str]:
    """Return a notebook's glued numbers and words by name; for a figure, its text."""
    return {name: output.data["text/plain"] for name, output in glued(path).items()}


def figure(path: Path, name: str) -> nbformat.NotebookNode:
    """Return the output that a page shows as the figure of this name; KeyError if there is none."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
            return next(output for output in cell.outputs if picture(output))
    raise KeyError(name)


def lay_beside(app) -> None:
    """Write the first page's figures to book/glued/, which git ignores.

    An unchanged file is not rewritten, so that its page need not be rebuilt. KeyError if a notebook
    lacks the figure.
    """
    outputs = {NAME: glued(Path(app.srcdir, NOTEBOOK))[NAME]}
    outputs |= {name: figure(Path(app.srcdir, path), name) for name, path in SHOWN.items()}
    folder = Path(app.srcdir, "book", "glued")
    folder.mkdir(exist_ok=True)
    for name, output in outputs.items():
        kind, content = picture(output)
        file = folder / f"{name}.{kind.removeprefix('image/')}"
        for other in set(folder.glob(f"{name}.*")) - {file}:
            other.unlink()
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect("builder-inited", lay_beside)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
