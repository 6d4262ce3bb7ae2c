"""Where in a picture of the built-in world a cause is drawn.

The ground truth for attention to a word (chapter 03).
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
    """Where the built-in world draws the scene's "event" or "response".

    bool [size, size], enclosed holes included; all False if the domain hides it.

    The picture is drawn twice, the second time without this cause, so that everything else keeps
    its place; the region is where a channel changes by more than `visible` of 255 levels. What the
    subject covers is not in it.
    """
    whole, rest = (
        np.asarray(world.render(scene, domain, size, dials, without=left_out), dtype=int)
        for left_out in (None, cause)
    )
    return ndimage.binary_fill_holes(np.abs(whole - rest).max(-1) > visible)


def drawn_words(
    pictures: Pictures, captions: Sequence[str], triplets: Sequence[Sequence[tuple]], seed: int = 0
) -> list[dict]:
    """Words of the captions whose place in the picture is known (chapter 03).

    "gift" and "box" where a gift box is drawn and the caption says so.

    pictures: N of a built-in domain, drawn from `seed` with all dials as they are by default;
      captions and triplets: what is known of each. An entry holds `row`, `cause` ("event" or
      "response"),
    `words`, those words of its phrase that a triplet has as its object and the caption says once,
      and `region` [64, 64] bool. A scene that fills the
    picture (a beach), what covers more than half of it and what cannot be seen in it has no place
      and is left out.
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
            ]  # "of" or a second "rabbit" would lead to another place
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
