"""Where in a picture of the built-in world a cause is drawn: the ground truth for attention to a word (chapter 03)."""
from __future__ import annotations

from typing import Sequence
from unittest import mock

import numpy as np
from scipy import ndimage

from . import Pictures, render, world


def drawn_region(scene: world.Scene, domain: str, cause: str, size: int = 64, visible: int = 24) -> np.ndarray:
    """Where the built-in world draws the scene's "event" or "response": bool [size, size], enclosed holes included; all False if the domain hides it.

    The picture is drawn twice, the second time with this cause taken out of the finished drawing, so that everything else keeps its place; the region is
    where a channel changes by more than `visible` of 255 levels. What the subject covers is not in it.
    """
    draw = getattr(render, cause)

    def left_out(canvas: render.Canvas, *where) -> None:
        kept = len(canvas.shapes)
        draw(canvas, *where)    # it takes its share of chance, as before
        del canvas.shapes[kept:]

    whole = np.asarray(render.render(scene, domain, size), dtype=int)
    with mock.patch.multiple(render, **{cause: left_out}, TINTS=render.TINTS if cause == "event" else {}):    # a green face is a response, too
        rest = np.asarray(render.render(scene, domain, size), dtype=int)
    return ndimage.binary_fill_holes(np.abs(whole - rest).max(-1) > visible)


def drawn_words(pictures: Pictures, captions: Sequence[str], triplets: Sequence[Sequence[tuple]], seed: int = 0) -> list[dict]:
    """Words of the captions whose place in the picture is known (chapter 03): "gift" and "box" where a gift box is drawn and the caption says so.

    pictures: N of a built-in domain, drawn from `seed`; captions and triplets: what is known of each. An entry holds `row`, `cause` ("event" or "response"),
    `words`, those words of its phrase that a triplet has as its object, and `region` [64, 64] bool. What covers more than half of a picture (a beach) or
    cannot be seen in it has no place and is left out.
    """
    found, prior = [], world.DOMAINS[pictures.name].prior
    for row, (file, caption, told) in enumerate(zip(pictures.files, captions, triplets, strict=True)):
        scene = world.sample_scene(pictures.split, seed, int(file.stem), prior)
        seen, objects = world.shown(scene, pictures.name), {word for *_, phrase in told for word in phrase.split()}
        for cause, table in (("event", world.EVENTS), ("response", world.RESPONSES)):
            phrase = table[getattr(seen, cause)][0] if getattr(seen, cause) else ""
            words = [word for word in phrase.split() if word in objects]
            if words and phrase in caption:
                found.append({"row": row, "cause": cause, "words": words, "region": drawn_region(scene, pictures.name, cause)})
    return [entry for entry in found if 0 < entry["region"].mean() <= 0.5]
