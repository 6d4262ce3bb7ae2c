"""The built-in world: pictures with known causes in four domains (chapter 01).

Dials set how far the domains lie apart. `causes` is the causal model, `render` draws (with
`subjects`, `faces`, `responses`, `events`, `scenery` on `svg`), `store` writes pictures to disk.
"""

from .causes import (
    BENCHMARK,
    DOMAINS,
    EIGHT,
    EMOTION_WORDS,
    SIX,
    SOURCE,
    TAXONOMIES,
    Dials,
    Scene,
    caption,
    intervene,
    label_of,
    read_dials,
    sample_scene,
    shown,
    visible_attributes,
)
from .render import render
from .store import build, world_key

__all__ = [
    "BENCHMARK",
    "DOMAINS",
    "EIGHT",
    "EMOTION_WORDS",
    "SIX",
    "SOURCE",
    "TAXONOMIES",
    "Dials",
    "Scene",
    "build",
    "caption",
    "intervene",
    "label_of",
    "read_dials",
    "render",
    "sample_scene",
    "shown",
    "visible_attributes",
    "world_key",
]
