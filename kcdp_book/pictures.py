"""The pictures that notebooks keep: lighter than they are drawn, and as good to look at.

matplotlib's PNGs of sheets of grainy pictures would be most of this repository. They are kept as
JPEG, and drawings of lines and bars as PNG with a palette. What a notebook shows while it runs, and
what a run writes into its folder, stays as it is.
"""

import base64
import io

import nbformat
import numpy as np
from PIL import Image

KINDS = ("image/png", "image/jpeg")
COLUMN = 928  # pixels: the width of a page's column; what is wider is scaled down to it there
COLOURS = 128
VISIBLE = 0.7  # of 255: by how much a palette may change a pixel, on average
JPEG = {"quality": 80, "subsampling": "4:2:0", "optimize": True, "progressive": True}


def picture(output: nbformat.NotebookNode) -> tuple[str, bytes] | None:
    """The MIME type and the bytes of the picture in a cell's output; None if it has none."""
    data = output.get("data", {})
    return next(((kind, base64.b64decode(data[kind])) for kind in KINDS if kind in data), None)


def lighten(output: nbformat.NotebookNode) -> None:
    """Replace the PNG of an output, if it has one, by a lighter picture, in place."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    kind, content = lighter(base64.b64decode(data.pop("image/png")))
    data[kind] = base64.b64encode(content).decode()
    if "image/png" in output.metadata:  # how wide it is to be shown
        output.metadata[kind] = output.metadata.pop("image/png")


def lighter(png: bytes) -> tuple[str, bytes]:
    """MIME type and bytes of a picture: with a palette if nobody can see it, else as JPEG."""
    drawn = Image.open(io.BytesIO(png)).convert("RGB")
    few = few_colours(drawn)
    simpler = Image.open(io.BytesIO(few)).convert("RGB")
    change = np.abs(np.asarray(simpler, np.int16) - np.asarray(drawn, np.int16))
    if change.max(-1).mean() <= VISIBLE:
        return "image/png", few
    drawn.thumbnail((COLUMN, drawn.height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", **JPEG)
    return "image/jpeg", buffer.getvalue()


def few_colours(image: Image.Image) -> bytes:
    """An image as a PNG with a palette, a third of the size."""
    palette = image.convert("RGB").quantize(
        COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
