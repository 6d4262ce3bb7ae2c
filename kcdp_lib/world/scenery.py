"""Draw places and letters, which do not depend on the emotion (chapter 01)."""

import numpy as np

from .svg import PAINT, Canvas, mix, pick

WALLS = ("#d8c8b0", "#b9c7c9", "#c9b3a8", "#a9b89c", "#cfd3d8", "#b7a6bd")
FLOORS = ("#8a6a4c", "#7d7468", "#9c8468", "#6f5a48")
# words without emotion, drawn without a font: strokes of each letter on a grid 2 wide and 4 high
WORDS = ("HEY", "HI", "OK", "YO", "BYE", "HMM", "SO", "UH")
STROKES = {
    "H": ("0004", "0222", "2024"),
    "E": ("20000424", "0212"),
    "Y": ("0012", "201214"),
    "I": ("1014",),
    "O": ("0020240400",),
    "K": ("0004", "200224"),
    "B": ("04001021122304", "0212"),
    "M": ("0400122024",),
    "S": ("2000022224" + "04",),
    "U": ("00042420",),
}


def place(c: Canvas, name: str, rng: np.random.Generator) -> None:
    """Draw a whole place with its clutter, over the full canvas."""
    horizon = rng.uniform(56, 72)
    {
        "room": room,
        "kitchen": kitchen,
        "library": library,
        "street": street,
        "park": park,
        "field": field,
    }[name](c, horizon, rng)


def paint(rng: np.random.Generator) -> str:
    """Draw a random colour."""
    return pick(PAINT, rng)


def backdrop(c: Canvas, horizon: float, upper: str, lower: str) -> None:
    """Draw wall and floor, or sky and ground."""
    c.rect(-5, -5, 110, horizon + 5, upper, detail=True)
    c.rect(-5, horizon, 110, 105 - horizon, lower, detail=True)


def room(c: Canvas, horizon: float, rng: np.random.Generator) -> None:
    """Draw a wall with pictures or a window, a sofa, a rug."""
    wall = pick(WALLS, rng)
    backdrop(c, horizon, wall, pick(FLOORS, rng))
    if rng.random() < 0.5:
        x = rng.uniform(5, 65)
        c.rect(x, 6, 26, 30, "#f2efe8")
        c.rect(x + 2, 8, 22, 26, "#a9d3ea", detail=True)
        c.rect(x + 12, 8, 2, 26, "#f2efe8", detail=True)
    for _ in range(rng.integers(1, 4)):
        x, y, w, h = rng.uniform(-5, 85), rng.uniform(3, 30), rng.uniform(9, 20), rng.uniform(9, 20)
        c.rect(x, y, w, h, mix(paint(rng), "#3a2a1c", 0.5))
        c.rect(x + 1.5, y + 1.5, w - 3, h - 3, mix(paint(rng), wall, 0.4), detail=True)
    x, colour = rng.uniform(-20, 60), mix(paint(rng), wall, 0.35)
    c.rect(x, horizon - 16, 48, 22, colour, 5)
    c.rect(x - 4, horizon - 6, 56, 14, mix(colour, "#1c120d", 0.15), 4)
    c.ellipse(rng.uniform(20, 80), 92, 40, 9, mix(paint(rng), "#ffffff", 0.3), detail=True)


def kitchen(c: Canvas, horizon: float, rng: np.random.Generator) -> None:
    """Draw tiles, a shelf with jars, a counter."""
    wall, wood = mix(pick(WALLS, rng), "#ffffff", 0.4), mix(paint(rng), "#8a6a4c", 0.6)
    backdrop(c, horizon, wall, mix(wood, "#2a1a10", 0.2))
    for k in range(8):
        c.line(((-5, 6 + 9 * k), (105, 6 + 9 * k)), mix(wall, "#8a8a8a", 0.35), 0.5)
        c.line(((4 + 13 * k, -5), (4 + 13 * k, horizon)), mix(wall, "#8a8a8a", 0.35), 0.5)
    shelf = rng.uniform(14, 26)
    c.rect(-5, shelf, 110, 3, wood)
    for x in np.arange(2, 98, rng.uniform(9, 14)):
        h = rng.uniform(5, 11)
        c.rect(x, shelf - h, rng.uniform(4, 8), h, paint(rng), 1.2)
    c.rect(-5, horizon - 4, 110, 6, mix(wood, "#ffffff", 0.35))


def library(c: Canvas, horizon: float, rng: np.random.Generator) -> None:
    """Draw shelves of books."""
    wood = mix("#7a5230", paint(rng), 0.15)
    backdrop(c, horizon + 12, mix(wood, "#1c120d", 0.45), pick(FLOORS, rng))
    for shelf in np.arange(12, horizon + 14, 19):
        x = -4.0
        while x < 103:
            w, h = rng.uniform(3, 6.5), rng.uniform(10, 15)
            if rng.random() < 0.88:
                c.rect(x, shelf - h, w, h, mix(paint(rng), "#4a3a2c", 0.3))
            x += w + 0.4
        c.rect(-5, shelf, 110, 2.6, wood)


def street(c: Canvas, horizon: float, rng: np.random.Generator) -> None:
    """Draw houses with windows under a pale sky, a pavement, a lamp."""
    backdrop(c, horizon, mix("#b8c8d8", "#e8e0d4", rng.random()), "#77797c")
    x = -8.0
    while x < 105:
        w, h = rng.uniform(14, 24), rng.uniform(22, 58)
        wall = mix("#8b8480", paint(rng), 0.35)
        c.rect(x, horizon - h, w, h + 1, wall)
        for wy in np.arange(horizon - h + 4, horizon - 6, 9):
            for wx in np.arange(x + 3, x + w - 4, 6.5):
                c.rect(
                    wx,
                    wy,
                    3.4,
                    5,
                    "#ffe7a8" if rng.random() < 0.25 else mix(wall, "#26303c", 0.6),
                    detail=True,
                )
        x += w + rng.uniform(-1, 3)
    c.rect(-5, horizon, 110, 4, "#a5a5a4", detail=True)
    x = rng.uniform(4, 96)
    c.line(((x, horizon + 3), (x, horizon - 40)), "#3a3d42", 1.4)
    c.circle(x, horizon - 41, 2.6, "#ffeec2", detail=True)


def park(c: Canvas, horizon: float, rng: np.random.Generator) -> None:
    """Draw trees and bushes, a path in the grass."""
    backdrop(c, horizon, mix("#9fd0ee", "#e6f0f2", rng.random() * 0.6), "#6a9a4c")
    for _ in range(rng.integers(3, 7)):
        x, r = rng.uniform(-4, 104), rng.uniform(9, 20)
        green = mix("#3f7a3a", pick(("#8aa03c", "#2f5f4a", "#b58a3c"), rng), rng.random() * 0.7)
        c.rect(x - 1.6, horizon - r * 0.7, 3.2, r * 0.9, "#6a4a30")
        for dx, dy in ((-0.5, -0.9), (0.5, -1.0), (0, -1.5)):
            c.circle(x + dx * r * 0.8, horizon + dy * r, r * 0.7, green)
    x = rng.uniform(20, 80)
    c.path(
        f"M{x - 3:.1f} {horizon:.1f} L{x + 3:.1f} {horizon:.1f} L{x + 24:.1f} 105 L{x - 24:.1f} "
        "105 Z",
        "#cbb891",
        detail=True,
    )
    tufts(c, horizon, "#4f7d38", rng)


def field(c: Canvas, horizon: float, rng: np.random.Generator) -> None:
    """Draw hills, clouds, stalks."""
    backdrop(c, horizon, mix("#9fc8ee", "#f2e2c8", rng.random() * 0.5), "#b3a755")
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0, 100), rng.uniform(6, 28)
        for dx, r in ((-6, 4), (0, 6), (6, 4.4)):
            c.ellipse(x + dx, y, r * 1.2, r * 0.8, "#fbfbfa", detail=True, opacity=0.9)
    for _ in range(3):
        c.ellipse(
            rng.uniform(0, 100),
            horizon + 4,
            rng.uniform(25, 45),
            rng.uniform(8, 20),
            mix("#7f9a58", "#8aa0b8", rng.random() * 0.6),
            detail=True,
        )
    c.rect(-5, horizon, 110, 50, mix("#b3a755", "#8fae4e", rng.random()), detail=True)
    tufts(c, horizon, "#85792f", rng)


def tufts(c: Canvas, horizon: float, colour: str, rng: np.random.Generator) -> None:
    """Draw blades of grass, larger in front."""
    for _ in range(rng.integers(8, 16)):
        x, y = rng.uniform(0, 100), rng.uniform(horizon + 2, 100)
        h = 2 + 5 * (y - horizon) / (100 - horizon)
        c.line(((x - h * 0.3, y - h), (x, y), (x + h * 0.35, y - h * 0.8)), colour, 0.7)


def letters(c: Canvas, rng: np.random.Generator) -> None:
    """Draw a word that says nothing about the emotion, along the lower or the upper edge."""
    word, colour, scale = pick(WORDS, rng), paint(rng), rng.uniform(2.4, 3.2)
    x, y = 50 - (len(word) * 3 - 1) * scale / 2, 96 - 4 * scale if rng.random() < 0.7 else 4
    for width, ink in ((scale * 1.5, "#ffffff"), (scale * 0.75, mix(colour, "#000000", 0.15))):
        for k, letter in enumerate(word):
            for stroke in STROKES[letter]:
                c.line(
                    [
                        (x + (3 * k + int(a)) * scale, y + int(b) * scale)
                        for a, b in zip(stroke[::2], stroke[1::2], strict=True)
                    ],
                    ink,
                    width,
                )
