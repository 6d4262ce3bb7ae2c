"""The built book loads nothing from a network.

MathJax lies beside the pages, and what a browser never reads is left out.
"""

from importlib.metadata import files
from pathlib import Path
from shutil import copyfile

import nbformat

ROOT = Path(__file__).resolve().parents[2]
# Glyphs are drawn as SVG from this one file; pages opened from a disk may not load fonts
MATHJAX = "tex-svg.js"
UNREAD = ("*.map", "*.ttf")  # for developers of the theme; for browsers without woff2


def lay_out(app, failure: Exception | None) -> None:
    """Put MathJax into the built site, and take out what nobody reads there.

    Its licence comes with it (Apache-2.0, as this book's). The theme's files of `UNREAD` kinds go,
    and so do the outputs in downloads.
    """
    if failure is None and app.builder.format == "html":
        static = Path(app.outdir, "_static")
        (static / "mathjax").mkdir(exist_ok=True)
        copyfile(mathjax(), static / "mathjax" / MATHJAX)
        copyfile(ROOT / "LICENSE", static / "mathjax" / "LICENSE")
        for unread in (file for kind in UNREAD for file in static.rglob(kind)):
            unread.unlink()
        for download in Path(app.outdir, "_sources").rglob("*.ipynb"):
            without_outputs(download)


def without_outputs(download: Path) -> None:
    """Lighten the notebook that a page's download button gives.

    Its figures are on the page already, and whoever takes it wants to run it.
    """
    notebook = nbformat.read(download, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.write(notebook, download)


def without_thebe(app, config) -> None:
    """Unload sphinx-thebe, which Jupyter Book always loads.

    Nobody starts a kernel from these pages, and its script, declared twice, is an error in the
    browser.
    """
    for listeners in app.events.listeners.values():
        listeners[:] = [
            of for of in listeners if not of.handler.__module__.startswith("sphinx_thebe")
        ]
    app.registry.css_files[:] = [
        file for file in app.registry.css_files if file[0] != "sphinx-thebe.css"
    ]


def mathjax() -> Path:
    """Where pip has put MathJax 3.

    Of the package's many ready-made files the book needs one, so its own Sphinx extension, which
    copies all, is not used.
    """
    return next(
        Path(file.locate()) for file in files("sphinx-mathjax-offline") if file.name == MATHJAX
    )


def setup(app) -> dict:
    """Called by Sphinx."""
    app.config.mathjax_path = f"mathjax/{MATHJAX}"
    # The menu would fetch parts that are not shipped. Its accessible MathML does not depend on it.
    app.config.mathjax3_config = {"options": {"enableMenu": False}}
    # A page opened from a disk may not read another one, from which the search cuts its excerpts:
    # there it lists titles alone.
    app.add_js_file(
        None,
        body='if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false',
    )
    app.connect("config-inited", without_thebe)
    app.connect("build-finished", lay_out)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
