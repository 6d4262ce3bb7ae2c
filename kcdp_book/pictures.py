"""Compress the pictures that notebooks keep, without a visible difference.

matplotlib's PNGs of grainy pictures would make up most of this repository. They are kept as JPEG;
drawings of lines and bars stay PNG, with a palette. Figures that a running notebook shows, or that
a run writes into its folder, are not changed.
"""

import base64
import io

import nbformat
import numpy as np
from PIL import Image

KINDS = ("image/png", "image/jpeg")
COLUMN = 928  # pixels: the width of a page's column, to which wider pictures are scaled
COLOURS = 128
VISIBLE = 0.7  # of 255: the largest mean change of a pixel by which a palette is accepted
JPEG = {"quality": 80, "subsampling": "4:2:0", "optimize": True, "progressive": True}


def picture(output: nbformat.NotebookNode) -> tuple[str, bytes] | None:
    """Return the MIME type and the bytes of the picture in a cell's output; None if it has none."""
    data = output.get("data", {})
    return next(((kind, base64.b64decode(data[kind])) for kind in KINDS if kind in data), None)


def lighten(output: nbformat.NotebookNode) -> None:
    """Replace the PNG of an output, if it has one, by a smaller picture, in place."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    kind, content = lighter(base64.b64decode(data.pop("image/png")))
    data[kind] = base64.b64encode(content).decode()
    if "image/png" in output.metadata:  # the width at which it is shown
        output.metadata[kind] = output.metadata.pop("image/png")


def lighter(png: bytes) -> tuple[str, bytes]:
    """Return MIME type and bytes: a PNG with a palette if that is not visible, else a JPEG."""
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
    """Encode an image as a PNG with a palette, a third of the size."""
    palette = image.convert("RGB").quantize(
        COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
