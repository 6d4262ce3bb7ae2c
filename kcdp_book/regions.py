"""Find where a cause is drawn in a picture of the built-in world.

This is the ground truth for attention to a word (chapter 03).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from kcdp_lib import world
from kcdp_lib.datasets import Pictures
from kcdp_lib.world import causes
from kcdp_lib.world.events import WIDE


def drawn_region(
    scene: world.Scene,
    domain: str,
    cause: str,
    size: int = 64,
    dials: world.Dials = world.Dials(),
    visible: int = 24,
) -> np.ndarray:
    """Return where the built-in world draws the scene's "event" or "response".

    bool [size, size], enclosed holes included; all False if the domain hides it.

    The picture is drawn twice, the second time without this cause; everything else keeps its place.
    The region is where a channel changes by more than `visible` of 255 levels, so parts that the
    subject covers are not in it.
    """
    whole, rest = (
        np.asarray(world.render(scene, domain, size, dials, without=left_out), dtype=int)
        for left_out in (None, cause)
    )
    return ndimage.binary_fill_holes(np.abs(whole - rest).max(-1) > visible)


def drawn_words(
    pictures: Pictures, captions: Sequence[str], triplets: Sequence[Sequence[tuple]], seed: int = 0
) -> list[dict]:
    """Find words of the captions whose place in the picture is known (chapter 03).

    For example "gift" and "box", if a gift box is drawn and the caption mentions it.

    pictures: N of a built-in domain, drawn from `seed` with default dials; captions and triplets:
    those of each picture. An entry holds `row`, `cause` ("event" or "response"), `words`, those
    words of its phrase that are in a triplet's object and occur once in the caption, and `region`
    [64, 64] bool. Left out are scenes that fill the picture (a beach), regions of more than half of
    it, and causes that cannot be seen.
    """
    regions = []
    for row, (file, caption, known) in enumerate(
        zip(pictures.files, captions, triplets, strict=True)
    ):
        scene = world.sample_scene(pictures.split, seed, int(file.stem), pictures.name)
        visible, objects = (
            world.shown(scene, pictures.name),
            {word for *_, phrase in known for word in phrase.split()},
        )
        for cause, table in (("event", causes.EVENTS), ("response", causes.RESPONSES)):
            name = getattr(visible, cause)
            phrase = table[name][0] if name else ""
            words = [
                word
                for word in phrase.split()
                if word in objects and caption.split().count(word) == 1
            ]  # "of" or a second "rabbit" would match another place
            if words and phrase in caption and name not in WIDE:
                regions.append(
                    {
                        "row": row,
                        "cause": cause,
                        "words": words,
                        "region": drawn_region(scene, pictures.name, cause),
                    }
                )
    return [entry for entry in regions if 0 < entry["region"].mean() <= 0.5]
