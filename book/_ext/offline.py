"""Make the built book independent of the network.

MathJax is put beside the pages, and files that no browser reads are removed.
"""

from importlib.metadata import files
from pathlib import Path
from shutil import copyfile

import nbformat

ROOT = Path(__file__).resolve().parents[2]
# One file that draws glyphs as SVG, because pages opened from a disk may not load fonts
MATHJAX = "tex-svg.js"
UNREAD = ("*.map", "*.ttf")  # the theme's source maps; fonts for browsers without woff2


def lay_out(app, failure: Exception | None) -> None:
    """Copy MathJax into the built site, and remove what is not read there.

    The licence is copied, too (Apache-2.0, like this book's). The theme's files of `UNREAD` kinds
    and the outputs of downloadable notebooks are removed.
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
    """Remove the outputs of the notebook behind a page's download button.

    The page shows its figures already, and a reader downloads it to run it.
    """
    notebook = nbformat.read(download, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.write(notebook, download)


def without_thebe(app, config) -> None:
    """Unload sphinx-thebe, which Jupyter Book always loads.

    These pages start no kernel, and its script, declared twice, causes an error in the browser.
    """
    for listeners in app.events.listeners.values():
        listeners[:] = [
            of for of in listeners if not of.handler.__module__.startswith("sphinx_thebe")
        ]
    app.registry.css_files[:] = [
        file for file in app.registry.css_files if file[0] != "sphinx-thebe.css"
    ]


def mathjax() -> Path:
    """Return the path of MathJax 3, as installed by pip.

    The book needs one of the package's many files, so the package's own Sphinx extension, which
    copies all, is not used.
    """
    return next(
        Path(file.locate()) for file in files("sphinx-mathjax-offline") if file.name == MATHJAX
    )


def setup(app) -> dict:
    """Called by Sphinx."""
    app.config.mathjax_path = f"mathjax/{MATHJAX}"
    # The menu would fetch files that are not here; accessible MathML works without it.
    app.config.mathjax3_config = {"options": {"enableMenu": False}}
    # A page opened from a disk may not read other pages, from which the search takes its excerpts;
    # there it lists titles alone.
    app.add_js_file(
        None,
        body='if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false',
    )
    app.connect("config-inited", without_thebe)
    app.connect("build-finished", lay_out)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
