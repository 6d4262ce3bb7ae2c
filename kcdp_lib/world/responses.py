"""Draw bodily responses over the finished face and around the head.

There is one function for each of `causes.RESPONSES`. It takes a `Frame` of the head ((0, 0) its
middle, 1 its radius) and a generator that decides number, size and place.
"""

import numpy as np

from .subjects import Frame
from .svg import Canvas, drop, heart, pick, poly, star

TINTS = {"red": "#e5452f", "green": "#79b83e"}  # the head's colour, for `subjects.behind`
WATER, WATER_LINE = "#7cc8ff", "#2f7fd0"
AROUND = (
    (-1.35, -0.75),
    (1.35, -0.8),
    (-1.5, 0.05),
    (1.5, 0.0),
    (-0.75, -1.4),
    (0.8, -1.4),
    (-1.4, 0.75),
    (1.4, 0.7),
)


def response(c: Canvas, name: str, x: float, y: float, r: float, rng: np.random.Generator) -> None:
    """Draw the response `name` over the face of a head around (x, y) with radius r."""
    DRAW[name](Frame(c, x, y, r), rng)


def inside(f: Frame, dx: float, dy: float, margin: float = 0.0) -> tuple[float, float]:
    """Return the canvas point of (dx, dy) in head units, moved into the canvas.

    A margin of `margin` head units around it stays inside, too.
    """
    low = 4 + margin * f.r
    return min(max(f.x + dx * f.r, low), 100 - low), min(max(f.y + dy * f.r, low), 100 - low)


def around(f: Frame, rng, least: int, most: int, size: float):
    """Yield (x, y, size) of `least` to `most` items around the head, in canvas units.

    Sizes vary by a quarter.
    """
    for k in rng.permutation(6 if most < 6 else 8)[: rng.integers(least, most + 1)]:
        s = size * rng.uniform(0.75, 1.25)
        yield (
            *inside(
                f,
                AROUND[k][0] + rng.uniform(-0.12, 0.12),
                AROUND[k][1] + rng.uniform(-0.12, 0.12),
                s,
            ),
            s * f.r,
        )


def tears(f: Frame, rng) -> None:
    """Streams down the cheeks, big drops below the eyes, or small ones at their outer corners."""
    kind, water = rng.integers(3), {"detail": True, "line": WATER_LINE}
    if kind == 0:
        end = rng.uniform(0.6, 0.95)
        f.pair(
            f"M.42 .12 Q.56 .2 .7 .1 Q.66 .4 .76 {end - 0.05:.2f} Q.62 {end + 0.14:.2f} .48 "
            f"{end:.2f} Q.52 .4 .42 .12 Z",
            WATER,
            opacity=0.9,
            width=0.045,
            **water,
        )
        return
    size = rng.uniform(0.2, 0.28) if kind == 1 else rng.uniform(0.13, 0.17)
    for side in (-1, 1):
        for dx, dy in (
            ((0.6, 0.38), (0.7, 0.85))[: rng.integers(1, 3)] if kind == 1 else ((0.74, 0.1),)
        ):
            f.c.path(
                drop(f.x + side * dx * f.r, f.y + dy * f.r, size * f.r),
                WATER,
                width=0.045 * f.r,
                **water,
            )


def sweat(f: Frame, rng) -> None:
    """One to four drops at the temples and on the forehead."""
    side = 1 if rng.random() < 0.5 else -1
    for dx, dy in ((0.95, -0.55), (-0.98, -0.5), (1.22, -0.05), (-1.25, 0.02))[
        : rng.integers(1, 5)
    ]:
        px, py = inside(f, side * dx, dy, 0.3)
        f.c.path(
            drop(px, py, f.r * rng.uniform(0.2, 0.28)),
            "#a8e0ff",
            detail=True,
            line=WATER_LINE,
            width=0.05 * f.r,
        )


def blush(f: Frame, rng) -> None:
    """Red cheeks, sometimes with small strokes."""
    rx, ry, strength = rng.uniform(0.22, 0.29), rng.uniform(0.14, 0.19), rng.uniform(0.55, 0.75)
    for side in (-1, 1):
        f.oval(side * 0.68, 0.28, rx, ry, "#f23d5c", detail=True, opacity=strength)
    if rng.random() < 0.4:
        for dx in (0.58, 0.68, 0.78):
            f.pair(f"M{dx + 0.04:.2f} .2 L{dx - 0.04:.2f} .36", line="#c01f40", width=0.05)


def tinted(f: Frame, rng) -> None:
    """Draw nothing, because the head itself has the colour of `TINTS`."""


def pallor(f: Frame, rng) -> None:
    """A blue forehead fading out above the eyes, with dark vertical strokes from the hairline."""
    f.c.defs["pallor"] = (
        "pallor",
        '<linearGradient id="pallor" x1="0" y1="0" x2="0" y2="1"><stop offset="0" '
        'stop-color="#2d57b8" stop-opacity=".85"/>'
        '<stop offset=".55" stop-color="#4a7bd6" stop-opacity=".55"/><stop offset="1" '
        'stop-color="#6fa0ee" stop-opacity="0"/></linearGradient>',
    )
    f.path(
        "M-.97 .1 C-1.02 -.7 -.6 -1.02 0 -1.02 C.6 -1.02 1.02 -.7 .97 .1 Z",
        "url(#pallor)",
        detail=True,
    )
    n = rng.integers(4, 7)
    for dx in np.linspace(-0.55, 0.55, n) + rng.uniform(-0.04, 0.04):
        f.path(
            f"M{dx:.2f} -.92 L{dx:.2f} {-0.66 + rng.uniform(-0.06, 0.08):.2f}",
            line="#223f8c",
            width=0.06,
        )


def steam(f: Frame, rng) -> None:
    """A jet and a cloud rising from the head on the left and right."""
    rise, size = rng.uniform(0.8, 1.3), rng.uniform(0.85, 1.15)
    puffs = [
        (*inside(f, side * dx, -0.2 - rise * dy, s * size), s * size * f.r)
        for side in (-1, 1)
        for dx, dy, s in (
            (1.12, 0, 0.1),
            (1.28, 0.1, 0.13),
            (1.5, 0.16, 0.18),
            (1.78, 0.2, 0.2),
            (1.55, 0.46, 0.22),
            (1.84, 0.5, 0.2),
            (1.68, 0.74, 0.16),
        )
    ]
    for width, colour in (
        (0.13 * f.r, "#6d7a94"),
        (0, "#f6f8fb"),
    ):  # all rims first, so that the puffs merge into a cloud
        for px, py, s in puffs:
            f.c.circle(px, py, s, colour, detail=True, line=width and colour, width=width)


def vein(f: Frame, rng) -> None:
    """The comic sign of a throbbing vein, at a corner of the forehead."""
    px, py = inside(
        f, (1 if rng.random() < 0.5 else -1) * rng.uniform(0.62, 0.8), -rng.uniform(0.85, 1), 0.3
    )
    g = Frame(f.c, px, py, f.r * rng.uniform(0.28, 0.35))
    for line, width in (("#ffffff", 0.62), ("#d0142a", 0.36)):
        g.pair("M.3 -1 Q.3 -.3 1 -.3 M.3 1 Q.3 .3 1 .3", line=line, width=width)


def tremble(f: Frame, rng) -> None:
    """One to three wavy lines on each side of the head."""
    top = rng.uniform(-0.75, -0.45)
    for k in range(rng.integers(1, 4)):
        dx = min(1.26 + 0.24 * k, (46 - abs(f.x - 50)) / f.r)
        waves = " ".join(
            f"Q{dx + (0.2 if j % 2 else -0.1):.2f} {top + 0.3 * j + 0.15:.2f} {dx + 0.05:.2f} "
            f"{top + 0.3 * (j + 1):.2f}"
            for j in range(4 - k % 2)
        )
        for line, width in (("#ffffff", 0.16), ("#3f4c78", 0.085)):
            f.pair(f"M{dx + 0.05:.2f} {top:.2f} {waves}", line=line, width=width)


def burst(f: Frame, rng) -> None:
    """Wedges pointing at the head from all sides except the body's.

    Wedges that would start outside the picture are left out.
    """
    n, near, length, colour = (
        rng.integers(11, 17),
        rng.uniform(1.4, 1.55),
        rng.uniform(0.4, 0.65),
        pick(("#f59a14", "#f2b705", "#ef6f2a"), rng),
    )
    near = max(1.12, min(near, 38 / f.r))  # a head that fills the picture leaves little room
    for a in np.arange(n) * 2 * np.pi / n + rng.uniform(0, 1):
        dx, dy, end = np.cos(a), np.sin(a), near + length * rng.uniform(0.8, 1.2)
        tip = f.x + near * dx * f.r, f.y + near * dy * f.r
        if dy < 0.72 and inside(f, near * dx, near * dy) == tip:
            sides = [inside(f, end * dx - k * dy, end * dy + k * dx) for k in (-0.085, 0.085)]
            f.c.path(poly([tip, *sides]), colour, detail=True, line=colour, width=0.05 * f.r)


def hearts(f: Frame, rng) -> None:
    """Two to five hearts around the head."""
    for px, py, s in around(f, rng, 2, 5, 0.3):
        f.c.path(heart(px, py, s), "#f0385a", detail=True, line="#b81f3f", width=0.05 * f.r)


def sparkles(f: Frame, rng) -> None:
    """Three to six stars of four points around the head."""
    for px, py, s in around(f, rng, 3, 6, 0.38):
        f.c.path(
            star(px, py, s, 4, 0.32), "#ffdb3d", detail=True, line="#d98a00", width=0.055 * f.r
        )


def notes(f: Frame, rng) -> None:
    """Two to four notes, single or in pairs under a beam."""
    colour = pick(("#2d2a4a", "#6a35a8", "#1f6f8f"), rng)
    for px, py, s in around(f, rng, 2, 4, 0.36):
        g = Frame(f.c, px, py, s)
        if rng.random() < 0.5:
            g.path("M-.1 .7 L-.1 -1 Q.1 -.5 .7 -.3", line=colour, width=0.24)
            g.oval(-0.4, 0.7, 0.4, 0.3, colour, detail=True)
        else:
            g.path("M-.4 .7 L-.4 -.8 L.9 -1 L.9 .5", line=colour, width=0.24)
            g.oval(-0.68, 0.7, 0.36, 0.28, colour, detail=True)
            g.oval(0.62, 0.5, 0.36, 0.28, colour, detail=True)


def swirls(f: Frame, rng) -> None:
    """Two or three spirals above and beside the head."""
    for dx, dy in ((-1.2, -1), (1.2, -1.05), (0, -1.5))[: rng.integers(2, 4)]:
        s = rng.uniform(0.26, 0.34)
        px, py = inside(f, dx, dy, s)
        t = np.linspace(0.08, 1, 22)
        a = t * 2.3 * 2 * np.pi + rng.uniform(0, 6)
        points = list(zip(px + s * f.r * t * np.cos(a), py + s * f.r * t * np.sin(a), strict=True))
        for colour, width in (("#ffffff", 0.2), ("#6b3fb0", 0.09)):
            f.c.line(points, colour, width * f.r)


def scribble(f: Frame, rng) -> None:
    """A dark tangle of loops above the head."""
    w, h, loops = rng.uniform(0.5, 0.65), rng.uniform(0.26, 0.34), rng.integers(6, 10)
    px, py = inside(f, rng.uniform(-0.25, 0.25), -1.5, h)
    t, (p, q) = np.linspace(0, 1, 10 * loops), rng.uniform(0, 6, 2)
    xs = w * (2 * t - 1) + 0.26 * np.cos(2 * np.pi * loops * t) + 0.12 * np.sin(23 * t + p)
    ys = h * np.sin(2 * np.pi * loops * t) * (0.8 + 0.3 * np.sin(31 * t + q))
    f.c.line(np.clip(np.stack([px + f.r * xs, py + f.r * ys], 1), 4, 96), "#38323f", 0.075 * f.r)


DRAW = {
    "tears": tears,
    "sweat": sweat,
    "blush": blush,
    "red": tinted,
    "green": tinted,
    "pallor": pallor,
    "steam": steam,
    "vein": vein,
    "tremble": tremble,
    "burst": burst,
    "hearts": hearts,
    "sparkles": sparkles,
    "notes": notes,
    "swirls": swirls,
    "scribble": scribble,
}
