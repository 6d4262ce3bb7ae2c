"""Make the live figure's files before the pages, if they are missing or outdated.

They are not in the repository, because they are large and repeat weights that it holds.
"""

from pathlib import Path

from sphinx.errors import ExtensionError
from sphinx.util import logging

from kcdp_book import live
from kcdp_lib.errors import KCDPError

FOLDER = Path("book", "_static", "live")


def make(app) -> None:
    """Export the model that `live_model` in _config.yml names, which takes about a minute.

    Does nothing if the files match this model and this code, or for builders other than HTML.
    ExtensionError with the reason if the model cannot be shown.
    """
    source, folder = Path(app.srcdir, app.config.live_model), Path(app.srcdir, FOLDER)
    if app.builder.format != "html" or live.is_current(source, folder):
        return
    logger = logging.getLogger(__name__)
    logger.info("exporting the live figure's model; this takes about a minute ...")
    try:
        live.export(source, folder)
    except KCDPError as error:
        raise ExtensionError(str(error)) from error


def setup(app) -> dict:
    """Called by Sphinx."""
    app.add_config_value("live_model", "results/live", "html")
    app.connect("builder-inited", make)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
