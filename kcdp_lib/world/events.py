"""Draw what happened in a scene: one function for each event of `causes.EVENTS`.

An event fills the whole picture (`WIDE`) or is an object beside the subject.
"""

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np

from .svg import INK, Canvas, at, drop, mix, pick, poly, star

BRIGHT = ("#e3574d", "#4d8fe3", "#58b368", "#f0b63c", "#9a64c8", "#38b6b0", "#ef8fb0", "#ef8a3c")
SHADOW = "#1c120d"
SCENES: dict[str, Callable] = {}  # drawings over the whole picture, called with (canvas, rng)
THINGS: dict[str, Callable] = {}  # drawings around a point, called with (canvas, x, y, s, rng)


def scene(draw: Callable) -> Callable:
    """Register a drawing over the whole picture under its own name."""
    SCENES[draw.__name__] = draw
    return draw


def thing(draw: Callable) -> Callable:
    """Register a drawing around a point under its own name."""
    THINGS[draw.__name__] = draw
    return draw


# ---------------------------------------------------------------- parts


def two(rng: np.random.Generator) -> tuple[str, str]:
    """Return two different bright colours."""
    first = int(rng.random() * len(BRIGHT))
    return BRIGHT[first], BRIGHT[(first + 1 + int(rng.random() * (len(BRIGHT) - 1))) % len(BRIGHT)]


def veil(c: Canvas, colour: str, opacity: float = 1.0) -> None:
    """Draw a colour over the whole place."""
    c.rect(-2, -2, 104, 104, colour, detail=True, opacity=opacity)


def ground(c: Canvas, x: float, y: float, r: float) -> None:
    """Draw the shadow below an object at (x, y)."""
    c.ellipse(x, y, r, r * 0.16, SHADOW, detail=True, opacity=0.28)


def cloud(c: Canvas, x: float, y: float, r: float, colour: str, detail: bool = False) -> None:
    """Draw a cloud around (x, y), about 4 r wide."""
    c.path(
        at(
            x,
            y,
            r,
            "M-1.5 .6 C-2.3 .6 -2.2 -.4 -1.4 -.35 C-1.3 -1.15 -.5 -1.2 -.25 -.8 C.2 -1.5 1.2 -1.1 "
            "1.1 -.4 C2 -.5 2.3 .6 1.5 .6 Z",
        ),
        colour,
        detail=detail,
    )


def rosette(x: float, y: float, r: float, n: int, turn: float = 0.0) -> str:
    """Return the SVG path of a flower's n round petals around (x, y)."""
    out = ""
    for k in range(n + 1):
        a, half = turn + 2 * pi * k / n, pi / n
        notch = f"{x + 0.5 * r * cos(a + half):.2f} {y + 0.5 * r * sin(a + half):.2f}"
        wings = " ".join(
            f"{x + 1.2 * r * cos(a + w):.2f} {y + 1.2 * r * sin(a + w):.2f}"
            for w in (-half * 0.95, half * 0.95)
        )
        out += f"C{wings} {notch} " if k else f"M{notch} "
    return out + "Z"


def pair(c: Canvas, x: float, y: float, dx: float, rx: float, ry: float, colour: str) -> None:
    """Draw two small marks, dx to the left and right of (x, y), such as eyes or pupils."""
    for side in (-dx, dx):
        c.ellipse(x + side, y, rx, ry, colour, detail=True)


def tube(c: Canvas, path: str, colour: str, width: float) -> None:
    """Draw a thick round line with the style's outline, for handles and necks."""
    c.path(
        path,
        line=c.ink if c.outline else mix(colour, SHADOW, 0.4),
        width=width + (2 * c.outline if c.outline else width * 0.12),
    )
    c.path(path, line=colour, width=width)


def fly(c: Canvas, x: float, y: float, r: float) -> None:
    """Draw a fly with two raised wings."""
    pair(c, x, y - r * 0.6, r * 1.0, r * 0.8, r * 0.4, "#9fb0bd")
    c.ellipse(x, y, r * 0.75, r, "#1d1a20", detail=True)


def stink(c: Canvas, x: float, y: float, s: float, colour: str = "#8fae3a") -> None:
    """Draw a wavy line of bad smell that rises s from (x, y)."""
    c.path(at(x, y, s, "M0 0 C-.35 -.3 .35 -.6 0 -1"), line=colour, width=s * 0.2)


def beetle(c: Canvas, x: float, y: float, r: float, colour: str, turn: float) -> None:
    """Draw a beetle seen from above, its head towards the angle `turn` in degrees."""
    c.group(f'transform="rotate({turn:.0f} {x:.2f} {y:.2f})"')
    c.path(
        at(
            x,
            y,
            r,
            "M-.9 -1.1 L.9 1.1 M-1.4 0 L1.4 0 M.9 -1.1 L-.9 1.1 M-.2 -1 L-.6 -1.8 M.2 -1 L.6 -1.8",
        ),
        line="#1d1612",
        width=r * 0.24,
    )
    c.circle(x, y - r * 0.85, r * 0.45, "#1d1612", detail=True)
    c.ellipse(x, y, r * 0.8, r, colour)
    c.path(at(x, y, r, "M0 -.9 L0 1"), line="#1d1612", width=r * 0.16)
    c.ellipse(
        x - r * 0.35, y - r * 0.3, r * 0.16, r * 0.3, mix(colour, "#ffffff", 0.6), detail=True
    )
    c.end()


# ---------------------------------------------------------------- over the whole picture


@scene
def waterfall(c: Canvas, rng: np.random.Generator) -> None:
    """A wide curtain of falling water between dark cliffs, foam below."""
    veil(c, "#cfe6f2", 0.85)
    water, rock, leaf = (
        pick(("#4fb0e0", "#3fa7d6", "#5abfe0"), rng),
        pick(("#5d5a60", "#6b5a4c", "#54606a"), rng),
        pick(("#3f8f4c", "#4f9d3f"), rng),
    )
    c.path("M14 104 L14 14 Q18 6 26 8 Q50 3 74 8 Q82 6 86 14 L86 104 Z", water)
    for k in range(15):
        x, top = 17 + 4.8 * k + rng.uniform(-1, 1), rng.uniform(8, 15)
        c.line(
            ((x, top), (x, rng.uniform(62, 90))),
            "#eefaff" if k % 3 else "#2a80b8",
            rng.uniform(0.9, 2.0),
        )
    c.path("M14 15 Q18 6 26 8 Q50 3 74 8 Q82 6 86 15", line="#ffffff", width=2.4)
    c.path("M-4 104 L-4 10 L6 5 L15 8 L19 20 L14 34 L20 50 L15 66 L22 84 L18 104 Z", rock)
    c.path("M104 104 L104 10 L94 5 L85 8 L81 20 L86 34 L80 50 L85 66 L78 84 L82 104 Z", rock)
    c.path(
        "M2 24 L9 30 M8 48 L14 54 M3 66 L10 72 M98 24 L91 30 M92 48 L86 54 M97 66 L90 72",
        line=mix(rock, SHADOW, 0.45),
        width=1.4,
    )
    for x, y, r in ((4, 7, 6), (96, 7, 6), (15, 8, 3.5), (85, 8, 3.5), (2, 44, 4), (98, 54, 4)):
        c.path(rosette(x, y, r, 7, rng.random()), leaf, detail=True)
    c.path("M-4 88 Q50 82 104 88 L104 104 L-4 104 Z", "#2f86bf", detail=True)
    for x in (12, 26, 40, 60, 74, 88):
        c.ellipse(x + rng.uniform(-2, 2), 88, 10, 5.5, "#f4fcff", detail=True, opacity=0.85)


@scene
def rainbow(c: Canvas, rng: np.random.Generator) -> None:
    """A rainbow of seven bands between two clouds."""
    veil(c, pick(("#9fd0f2", "#b4dcf5", "#8cc4ee"), rng), 0.7)
    middle = 60 + rng.uniform(-2, 3)
    for k, colour in enumerate(
        ("#e5413c", "#f28a30", "#f9d83c", "#52b84f", "#3b9de0", "#4a5fc8", "#9350b8")
    ):
        r = 50.5 - 3 * k
        c.path(
            f"M{50 - r:.1f} {middle + 14:.1f} L{50 - r:.1f} {middle:.1f} A{r:.1f} {r:.1f} 0 0 1 "
            f"{50 + r:.1f} {middle:.1f} L{50 + r:.1f} {middle + 14:.1f}",
            line=colour,
            width=3.3,
        )
    for x in (9, 91):
        cloud(c, x, middle + 13 + rng.uniform(-2, 2), 9.5, "#ffffff")


@scene
def stars(c: Canvas, rng: np.random.Generator) -> None:
    """Big yellow stars falling with bright tails through a night sky."""
    veil(c, pick(("#1d2457", "#2a1f5c", "#16305c"), rng), 0.92)
    dots = rng.uniform(2, 98, (26, 2))
    c.path(" ".join(f"M{x:.1f} {y:.1f} l.01 0" for x, y in dots), line="#dfe6ff", width=1.1)
    for x, y, r in (
        (15, 26, 7.5),
        (43, 15, 5.5),
        (74, 16, 7.5),
        (88, 46, 6),
        (10, 62, 6),
        (92, 76, 5),
    ):
        x, y = x + rng.uniform(-3, 3), y + rng.uniform(-3, 3)
        c.path(
            poly(
                (
                    (x - r * 0.6, y - r * 0.3),
                    (x + r * 0.35, y + r * 0.6),
                    (x + r * 2.4, y - r * 2.4),
                )
            ),
            "#9fc3ff",
            detail=True,
            opacity=0.6,
        )
        c.path(
            poly(((x - r * 0.2, y), (x + r * 0.1, y + r * 0.25), (x + r * 2, y - r * 2))),
            "#ffffff",
            detail=True,
            opacity=0.75,
        )
        c.path(star(x, y, r, 5, 0.48, rng.uniform(-2, -1)), "#ffdc4a")


@scene
def fireworks(c: Canvas, rng: np.random.Generator) -> None:
    """Coloured bursts of rays in a dark sky."""
    veil(c, pick(("#0f1433", "#1a1033", "#0d1f33"), rng), 0.88)
    colours = (
        "#ff5a5a",
        "#5ab4ff",
        "#7dff7a",
        "#ffd84a",
        "#d98aff",
        "#ff9a3c",
        "#5affea",
        "#ff7ac8",
    )
    first = int(rng.random() * len(colours))
    for k, (x, y, r) in enumerate(
        ((17, 19, 15), (50, 12, 12), (84, 20, 16), (9, 54, 11), (92, 56, 11))
    ):
        x, y, r, colour = (
            x + rng.uniform(-3, 3),
            y + rng.uniform(-2, 2),
            r * rng.uniform(0.9, 1.1),
            colours[(first + 3 * k) % len(colours)],
        )
        angles = rng.random() + np.arange(12) * np.pi / 6
        c.circle(x, y, r, colour, detail=True, opacity=0.18)
        c.path(rays(x, y, angles, r * 0.3, r * 0.8), line=colour, width=r * 0.13)
        tips = rays(x, y, angles, r * 0.98, r)
        c.path(tips, line=mix(colour, "#ffffff", 0.5), width=r * 0.19)
        c.path(star(x, y, r * 0.34, 8, 0.5), "#fffbe0", detail=True)
    for x in (14, 86):
        c.path(f"M{x} 100 Q{x + 3} 86 {x - 4} 70", line="#ffcf7a", width=0.9, opacity=0.7)


def rays(x: float, y: float, angles: np.ndarray, start: float, end: float) -> str:
    """Return a path of strokes away from (x, y), one for each angle [n] in radians."""
    strokes = (
        f"M{x + start * cos(t):.2f} {y + start * sin(t):.2f} "
        f"L{x + end * cos(t):.2f} {y + end * sin(t):.2f}"
        for t in angles
    )
    return " ".join(strokes)


@scene
def beach(c: Canvas, rng: np.random.Generator) -> None:
    """Sun, sea, sand, a palm and a parasol."""
    side = 1 if rng.random() < 0.5 else -1

    def place(x: float) -> float:
        return 50 + side * (x - 50)

    veil(c, "#8fd3f5")
    c.circle(place(80), 15, 13, "#fff0a0", detail=True, opacity=0.55)
    c.circle(place(80), 15, 9, "#ffd23c")
    c.rect(-2, 44, 104, 24, "#1f8fd0", detail=True)
    for y in (49, 55):
        c.path(f"M2 {y} h10 M20 {y + 2} h8 M74 {y} h9 M88 {y + 2} h9", line="#a8e0f7", width=1)
    c.path(
        "M-4 66 Q16 60 36 65 Q60 70 80 64 Q92 61 104 65 L104 104 L-4 104 Z", "#efd58f", detail=True
    )
    c.path("M-4 66 Q16 60 36 65 Q60 70 80 64 Q92 61 104 65", line="#ffffff", width=2.2)
    x = place(12)
    c.path(
        f"M{x - 3} 78 Q{x - 1} 50 {x + side * 2} 24 L{x + side * 2 + 3} 24 Q{x + 4} 50 {x + 3} "
        "78 Z",
        "#9a6a3c",
    )
    for dx, dy, lift in (
        (-17, 2, -9),
        (18, 2, -9),
        (-13, 16, -2),
        (15, 17, -2),
        (-4, -14, -6),
        (9, -13, -8),
    ):
        c.path(
            f"M{x} 22 Q{x + dx * 0.5:.1f} {20 + lift:.1f} {x + dx} {22 + dy} Q{x + dx * 0.4:.1f} "
            f"{25 + lift * 0.2:.1f} {x + side * 3} 25 Z",
            "#37a04e",
        )
    c.circle(x - 1, 26, 2.4, "#6b4526", detail=True)
    c.circle(x + 4, 26, 2.4, "#6b4526", detail=True)
    x, canopy = place(88), pick(("#e3574d", "#9a64c8", "#ef8a3c", "#ef5f95"), rng)
    c.line(((x, 52), (x, 88)), "#8a6a4a", 1.8)
    c.path(
        at(x, 60, 15, "M-1 0 C-.9 -1.1 .9 -1.1 1 0 Q.66 .2 .33 0 Q0 .2 -.33 0 Q-.66 .2 -1 0 Z"),
        canopy,
    )
    c.path(
        at(x, 60, 15, "M-.33 0 Q-.3 -.6 0 -.82 Q.3 -.6 .33 0 Q0 .2 -.33 0 Z"),
        "#fff6e4",
        detail=True,
    )
    c.path(star(place(14), 90, 5, 5, 0.5, rng.random()), "#ef7f4c")


@scene
def flowers(c: Canvas, rng: np.random.Generator) -> None:
    """Big bright flowers along both sides and in the upper corners."""
    veil(c, pick(("#cdeccb", "#e4f2c4", "#d3eee6"), rng), 0.75)
    green = pick(("#3f9d4c", "#55a83c", "#2f8f5a"), rng)
    c.path("M-4 104 L-4 58 Q14 66 18 84 Q50 90 82 84 Q86 66 104 58 L104 104 Z", green)
    c.path(
        "M8 100 Q8 70 7 42 M22 100 Q22 80 18 62 M92 100 Q92 70 93 42 M78 100 Q78 80 82 62 M-2 4 "
        "Q20 -1 46 7 M102 4 Q80 -1 54 7",
        line=mix(green, "#143018", 0.3),
        width=1.8,
    )
    petals = ("#e8403c", "#f7b52c", "#ef6fa8", "#a05fd0", "#fff4f0", "#f58a2c")
    first = int(rng.random() * len(petals))
    spots = (
        (8, 38, 9),
        (92, 38, 9),
        (19, 60, 8),
        (81, 60, 8),
        (6, 74, 9),
        (94, 74, 9),
        (21, 86, 8),
        (79, 86, 8),
        (10, 11, 10),
        (90, 11, 10),
        (30, 9, 7),
        (70, 9, 7),
        (50, 8, 5.5),
    )
    for k, (x, y, r) in enumerate(spots):
        x, y, r = x + rng.uniform(-1.5, 1.5), y + rng.uniform(-1.5, 1.5), r * rng.uniform(0.9, 1.1)
        petal = petals[(first + k * 5 // 2) % len(petals)]
        c.path(
            at(x, y, r, "M0 0 Q.9 .3 1.3 1.1 Q.4 1.1 0 0 Q-.5 1.1 -1.3 1.1 Q-.9 .3 0 0 Z"),
            mix(green, "#ffffff", 0.15),
            detail=True,
        )
        c.path(rosette(x, y, r, 5 + k % 2, rng.random() * 2), petal)
        c.circle(x, y, r * 0.3, "#8a4a1c" if petal == "#f7b52c" else "#ffd83c", detail=True)


@scene
def graffiti(c: Canvas, rng: np.random.Generator) -> None:
    """A brick wall with sprayed tags, crosses and dripping paint."""
    brick = pick(("#b5654c", "#a85a48", "#bd7a55"), rng)
    veil(c, brick)
    rows = " ".join(
        f"M-2 {8 * k} h104 " + " ".join(f"M{16 * j + 8 * (k % 2)} {8 * k} v8" for j in range(7))
        for k in range(13)
    )
    c.path(rows, line=mix(brick, "#f2e2d0", 0.38), width=0.8)
    c.path(
        "M16 0 h16 v8 h-16 Z M72 24 h16 v8 h-16 Z M0 64 h16 v8 h-16 Z M88 88 h16 v8 h-16 Z",
        mix(brick, SHADOW, 0.28),
        detail=True,
    )
    paints = ("#35e06a", "#ff3f9a", "#35d0f5", "#fff03a", "#ff8a1c", "#b46aff")
    first = int(rng.random() * len(paints))
    tag = (
        "M8 22 L15 6 L21 21 L28 6 L33 22 M38 21 L38 7 Q48 6 47 12 Q46 15 40 15 Q50 17 48 21 M66 8 "
        "Q53 7 55 14 Q56 23 66 20 L66 15 L61 15 M73 6 L70 17 L76 15 L72 24 M81 21 L90 6 L93 22 M83 "
        "17 L93 16"
    )
    marks = (
        "M4 36 L18 52 M18 36 L4 52",
        "M96 40 L82 40 L88 33 M82 40 L88 47",
        "M3 78 L9 66 L14 78 L20 67 L25 79 L3 79",
        "M94 62 Q78 56 80 70 Q82 78 90 76 Q94 74 92 70 Q88 66 86 71",
    )
    for k, (shape, width) in enumerate([(tag, 4)] + [(mark, 3.4) for mark in marks]):
        colour = paints[(first + k) % len(paints)]
        c.path(shape, line="#1c1824", width=width + 2.6)
        c.path(shape, line=colour, width=width)
    drips = " ".join(
        f"M{x} {y} v{rng.uniform(4, 10):.1f}"
        for x, y in ((8, 24), (33, 24), (48, 22), (93, 24), (4, 54), (18, 54))
    )
    c.path(drips, line=paints[first], width=1.5)


@scene
def monster(c: Canvas, rng: np.random.Generator) -> None:
    """A huge horned shadow behind the subject with glowing eyes and clawed arms."""
    veil(c, pick(("#3a2058", "#4a1f3c", "#23304f"), rng), 0.6)
    eyes, dark = pick(("#ffe14a", "#ff4a3c", "#9dff4a"), rng), "#120d1c"
    body = (
        "M10 104 L12 66 L7 70 L8 62 L1 64 L6 56 L0 52 L8 49 Q10 36 22 28 Q23 16 17 1 Q30 3 34 10 "
        "Q50 4 66 10 Q70 3 83 1 Q77 16 78 28 "
        "Q90 36 92 49 L100 52 L94 56 L99 64 L92 62 L93 70 L88 66 L90 104 Z"
    )
    c.path(body, dark, line=mix(eyes, dark, 0.45), width=2, detail=True)
    for side in (-1, 1):
        c.path(
            at(
                50 + side * 13,
                18,
                7,
                f"M{-side * 0.9} .55 L{side} -.75 Q{side * 1.1} .6 {side * 0.1} .8 Q{-side * 0.6} "
                f".85 {-side * 0.9} .55 Z",
            ),
            eyes,
            detail=True,
        )
        c.ellipse(50 + side * 14, 19, 1, 2.6, dark, detail=True)
        claws = ((7, 70, 12, 66), (1, 64, 8, 61), (0, 52, 8, 50.5))
        c.path(
            " ".join(
                poly(
                    (
                        (50 + side * (50 - tip_x), tip_y + 3),
                        (50 + side * (50 - x) - 1.4, y),
                        (50 + side * (50 - x) + 1.8, y + 1.5),
                    )
                )
                for tip_x, tip_y, x, y in claws
            ),
            "#efe9dc",
            detail=True,
        )
    teeth = [(x, 27 if k % 2 else 32) for k, x in enumerate(np.linspace(30, 70, 13))]
    c.path(poly(teeth + [(70, 26), (30, 26)]), "#efe9dc", detail=True)


@scene
def storm(c: Canvas, rng: np.random.Generator) -> None:
    """Yellow lightning out of black clouds."""
    veil(c, pick(("#1c2236", "#251f3a", "#1a2a35"), rng), 0.86)
    for x in (18 + rng.uniform(-5, 3), 82 + rng.uniform(-3, 5)):
        bolt = at(x, 44, 24, "M.1 -1.2 L-.45 .1 L-.1 .05 L-.35 1.25 L.5 -.3 L.1 -.25 L.5 -1.2 Z")
        c.path(bolt, line="#fff9c4", width=4.5, opacity=0.35)
        c.path(bolt, "#ffe63c")
    c.path("M47 14 L53 24 L48 30 L56 42", line="#fff4a0", width=1.6)
    c.path(
        "M-8 -8 L108 -8 L108 14 Q101 27 89 20 Q80 31 68 21 Q58 29 48 20 Q38 30 28 20 Q17 30 9 20 "
        "Q-4 26 -8 14 Z",
        "#39405a",
    )
    for x, y in ((14, 8), (50, 5), (86, 8)):
        cloud(c, x + rng.uniform(-4, 4), y, 8, "#565f7c", detail=True)


@scene
def rain(c: Canvas, rng: np.random.Generator) -> None:
    """One big grey cloud and blue drops below it."""
    veil(c, pick(("#8696a8", "#94a0ac", "#7c8fa6"), rng), 0.72)
    spots = [
        (7 + 12.3 * k + rng.uniform(-2, 2), 35 + 24 * row + 12 * (k % 2) + rng.uniform(-3, 3))
        for k in range(8)
        for row in range(3)
    ]
    c.path(" ".join(drop(x, y, 3.7) for x, y in spots), "#1f74dc", detail=True)
    c.path(
        " ".join(f"M{x - 1:.2f} {y + 0.5:.2f} q.1 1.6 1 2" for x, y in spots),
        line="#bfe2ff",
        width=0.8,
    )
    c.path(
        at(
            50,
            16,
            14,
            "M-2.4 .75 C-3.6 .75 -3.5 -.55 -2.3 -.5 C-2.2 -1.2 -1.2 -1.3 -.8 -.8 C-.3 -1.5 1 -1.4 "
            "1.1 -.7 C1.6 -1.2 2.5 -.9 2.4 -.3 C3.5 -.4 3.5 .75 2.4 .75 Z",
        ),
        "#c3cad4",
    )
    c.path(
        at(50, 16, 14, "M-2.6 .55 C-2 .8 -1.6 .2 -1 .45 C-.4 .75 .2 .2 .9 .5 C1.4 .7 2 .3 2.7 .5"),
        line="#8b95a3",
        width=2,
    )


# ---------------------------------------------------------------- things beside the subject


@thing
def hat(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A white rabbit looking out of a magician's hat."""
    fur, felt = (
        pick(("#fbf7f2", "#f3ead9", "#e6e9ee"), rng),
        pick(("#35304a", "#2c3550", "#3d2b42"), rng),
    )
    ground(c, x, y + s * 1.05, s * 0.95)
    c.ellipse(x, y + s * 0.12, s * 1.05, s * 0.26, mix(felt, SHADOW, 0.5))
    for side in (-1, 1):
        c.ellipse(x + side * s * 0.26, y - s * 0.95, s * 0.17, s * 0.5, fur)
        c.ellipse(x + side * s * 0.26, y - s * 0.93, s * 0.07, s * 0.34, "#f29ab0", detail=True)
    c.circle(x, y - s * 0.2, s * 0.5, fur)
    pair(c, x, y - s * 0.27, s * 0.19, s * 0.085, s * 0.1, INK)
    c.path(at(x, y, s, "M-.09 -.12 L.09 -.12 L0 0 Z"), "#ef6f90", detail=True)
    c.path(
        at(
            x,
            y,
            s,
            "M-1.05 .12 Q-.9 .36 0 .38 Q.9 .36 1.05 .12 Q1 .5 .72 .52 L.62 1.05 Q0 1.2 -.62 1.05 "
            "L-.72 .52 Q-1 .5 -1.05 .12 Z",
        ),
        felt,
    )
    c.path(
        at(x, y, s, "M-.72 .54 Q0 .68 .72 .54 L.68 .76 Q0 .9 -.68 .76 Z"),
        pick(BRIGHT, rng),
        detail=True,
    )
    c.path(
        " ".join(
            star(x + dx * s, y + dy * s, s * r, 4, 0.35)
            for dx, dy, r in ((-0.85, -0.65, 0.26), (0.85, -0.85, 0.3), (0.8, -0.2, 0.18))
        ),
        "#ffd84a",
        detail=True,
    )


@thing
def gift(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A gift box with its lid flying off and stars coming out."""
    box, band = two(rng)
    ground(c, x, y + s, s * 1.15)
    c.path(at(x, y, s, "M-.8 .05 L-1 -.9 L1 -.6 L.8 .05 Z"), "#fff3b0", detail=True, opacity=0.75)
    c.rect(x - s * 0.9, y, s * 1.8, s, box, s * 0.06)
    c.rect(x - s * 0.2, y, s * 0.4, s, band, detail=True)
    c.path(
        " ".join(
            star(x + dx * s, y + (dy + rng.uniform(-0.08, 0.08)) * s, s * r, 5, 0.45, rng.random())
            for dx, dy, r in ((-0.6, -0.3, 0.22), (0, -0.22, 0.2), (0.62, -0.18, 0.22))
        ),
        "#ffc928",
        detail=True,
    )
    c.group(f'transform="rotate({rng.uniform(10, 20):.1f} {x:.1f} {y:.1f})"')
    c.path(at(x, y, s, "M-.05 -.95 C-.9 -1.7 -.95 -.8 -.05 -.95 Z"), band)
    c.path(at(x, y, s, "M.05 -.95 C.9 -1.7 .95 -.8 .05 -.95 Z"), band)
    c.rect(x - s * 1.02, y - s * 0.92, s * 2.04, s * 0.36, mix(box, "#ffffff", 0.18), s * 0.06)
    c.rect(x - s * 0.2, y - s * 0.92, s * 0.4, s * 0.36, band, detail=True)
    c.end()


@thing
def trophy(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A gold cup with two handles on a dark foot."""
    gold, foot = (
        pick(("#f5c22b", "#f2b632", "#ffd03a"), rng),
        pick(("#6b4128", "#3c3550", "#7a2f35"), rng),
    )
    tube(
        c,
        at(x, y, s, "M-.6 -.8 C-1.5 -.9 -1.3 .05 -.45 .05 M.6 -.8 C1.5 -.9 1.3 .05 .45 .05"),
        mix(gold, "#a86a00", 0.3),
        s * 0.15,
    )
    c.path(
        at(x, y, s, "M-.14 .2 L.14 .2 L.2 .6 L.42 .7 L-.42 .7 L-.2 .6 Z"),
        mix(gold, "#a86a00", 0.25),
    )
    c.path(
        at(x, y, s, "M-.78 -1.05 L.78 -1.05 C.78 -.2 .5 .3 0 .34 C-.5 .3 -.78 -.2 -.78 -1.05 Z"),
        gold,
    )
    c.ellipse(x, y - s * 1.05, s * 0.78, s * 0.13, mix(gold, "#7a4a00", 0.35))
    c.path(star(x, y - s * 0.4, s * 0.34), "#fff6d0", detail=True)
    c.path(at(x, y, s, "M-.58 -.75 Q-.55 -.3 -.36 0"), line="#fff6d0", width=s * 0.09)
    c.rect(x - s * 0.55, y + s * 0.68, s * 1.1, s * 0.36, foot, s * 0.05)
    c.rect(x - s * 0.26, y + s * 0.77, s * 0.52, s * 0.17, gold, detail=True)


@thing
def balloons(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """Five balloons on strings tied with a bow."""
    spots = ((-0.62, -0.55), (0.62, -0.5), (-0.32, -1.0), (0.36, -1.02), (0, -0.42))
    c.path(
        " ".join(at(x, y, s, f"M{dx} {dy + 0.45} Q{dx * 0.4} .3 0 .75") for dx, dy in spots)
        + at(x, y, s, "M0 .75 Q-.15 .95 .05 1.2"),
        line="#f7f3ea",
        width=s * 0.055,
    )
    first = int(rng.random() * len(BRIGHT))
    for k, (dx, dy) in enumerate(spots):
        bx, by, colour = (
            x + (dx + rng.uniform(-0.06, 0.06)) * s,
            y + (dy + rng.uniform(-0.06, 0.06)) * s,
            BRIGHT[(first + 3 * k) % len(BRIGHT)],
        )
        c.path(
            at(
                bx,
                by,
                s,
                "M0 .5 C-.35 .4 -.45 .1 -.43 -.1 C-.4 -.6 .4 -.6 .43 -.1 C.45 .1 .35 .4 0 .5 L.09 "
                ".62 L-.09 .62 Z",
            ),
            colour,
        )
        c.ellipse(
            bx - s * 0.16, by - s * 0.2, s * 0.08, s * 0.13, "#ffffff", detail=True, opacity=0.75
        )
    c.path(
        at(x, y, s, "M0 .75 L-.28 .6 L-.28 .9 Z M0 .75 L.28 .6 L.28 .9 Z"),
        BRIGHT[first],
        detail=True,
    )


@thing
def cake(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A cake of two tiers with icing and burning candles."""
    dough, icing, candle = (
        pick(("#f2d3a0", "#a86a42", "#f7dfb8"), rng),
        pick(("#f28ab2", "#fff6ee", "#8fd3f0", "#c79aec"), rng),
        pick(BRIGHT, rng),
    )
    ground(c, x, y + s * 1.05, s * 1.25)
    c.ellipse(x, y + s * 0.95, s * 1.25, s * 0.15, "#e8edf2")
    for dx in (-0.36, 0, 0.36):
        c.rect(x + (dx - 0.075) * s, y - s * 0.95, s * 0.15, s * 0.6, candle, detail=True)
        c.path(drop(x + dx * s, y - s * 1.14, s * 0.17), "#ff9a1c", detail=True)
        c.path(drop(x + dx * s, y - s * 1.1, s * 0.08), "#fff2a0", detail=True)
    c.rect(x - s * 0.65, y - s * 0.42, s * 1.3, s * 0.6, dough, s * 0.08)
    c.path(
        at(
            x,
            y,
            s,
            "M-.68 -.45 L.68 -.45 L.68 -.2 Q.52 .02 .4 -.18 Q.22 .1 .05 -.16 Q-.14 .08 -.3 -.18 "
            "Q-.52 .06 -.68 -.2 Z",
        ),
        icing,
    )
    c.rect(x - s, y + s * 0.18, s * 2, s * 0.76, dough, s * 0.08)
    c.path(
        at(
            x,
            y,
            s,
            "M-1.03 .15 L1.03 .15 L1.03 .42 Q.85 .68 .68 .44 Q.48 .76 .3 .44 Q.06 .7 -.1 .44 Q-.34 "
            ".76 -.5 .44 Q-.8 .7 -1.03 .42 Z",
        ),
        icing,
    )
    for dx in (-0.75, -0.25, 0.25, 0.75):
        c.circle(x + dx * s, y + s * 0.76, s * 0.09, "#e3363c", detail=True)


@thing
def jackbox(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A clown on a spring that jumps out of an open box."""
    box, cap = two(rng)
    ground(c, x, y + s * 1.05, s)
    c.path(at(x, y, s, "M-.8 .4 L-1.4 -.05 L-1.3 -.22 L-.6 .32 Z"), mix(box, SHADOW, 0.25))
    c.path(
        at(x, y, s, "M-.32 .45 L.36 .3 L-.36 .17 L.36 .04 L-.32 -.08 L.2 -.2"),
        line="#4a525e",
        width=s * 0.12,
    )
    c.path(at(x, y, s, "M-.45 -.92 Q-.2 -1.6 .42 -1.6 Q.56 -1.25 .45 -.92 Z"), cap)
    c.circle(x + s * 0.45, y - s * 1.55, s * 0.16, "#fff3c4")
    for side in (-1, 1):
        c.circle(x + side * s * 0.47, y - s * 0.68, s * 0.22, "#ff7a2c")
    c.circle(x, y - s * 0.62, s * 0.46, "#ffe6cf")
    pair(c, x, y - s * 0.74, s * 0.18, s * 0.08, s * 0.11, INK)
    c.path(at(x, y, s, "M-.32 -.5 Q0 -.26 .32 -.5 Q0 -.02 -.32 -.5 Z"), "#c2262f", detail=True)
    c.circle(x, y - s * 0.59, s * 0.13, "#f0322f", detail=True)
    c.rect(x - s * 0.82, y + s * 0.34, s * 1.64, s * 0.72, box, s * 0.05)
    c.rect(x - s * 0.82, y + s * 0.36, s * 1.64, s * 0.12, mix(box, "#ffffff", 0.4), detail=True)
    c.path(star(x, y + s * 0.77, s * 0.25), "#fff3c4", detail=True)


@thing
def teapot(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A round pot with a spout, steam above it."""
    pot, dots = two(rng)
    ground(c, x, y + s * 1.02, s)
    tube(c, at(x, y, s, "M-.6 -.05 C-1.5 -.35 -1.5 .75 -.65 .62"), mix(pot, SHADOW, 0.15), s * 0.17)
    c.path(at(x, y, s, "M.5 .5 Q.95 .45 1 -.2 L1.4 -.3 Q1.25 .75 .55 .85 Z"), pot)
    c.ellipse(x, y + s * 0.36, s * 0.85, s * 0.65, pot)
    c.path(at(x, y, s, "M-.55 -.14 Q0 -.62 .55 -.14 Q0 .06 -.55 -.14 Z"), mix(pot, "#ffffff", 0.3))
    c.circle(x, y - s * 0.46, s * 0.13, dots)
    for dx, dy in ((-0.42, 0.3), (0, 0.48), (0.42, 0.3)):
        c.path(rosette(x + dx * s, y + dy * s, s * 0.17, 5), "#fff6ea", detail=True)
    c.path(at(x, y, s, "M-.62 .1 Q-.5 -.1 -.3 -.16"), line="#ffffff", width=s * 0.08, opacity=0.8)
    for dx, dy, r in ((1.2, -0.45, 0.75), (0.5, -0.62, 0.7), (-0.3, -0.7, 0.6)):
        c.path(
            at(x + dx * s, y + dy * s, s * r, "M0 0 C-.4 -.3 .4 -.6 0 -1"),
            line="#ffffff",
            width=s * 0.15,
            opacity=0.9,
        )


@thing
def crash(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A car whose front is crushed against a pole, with smoke and a flash."""
    paint = pick(("#d8403a", "#3f7fd0", "#f0b028", "#3fa06a", "#8a5bc0"), rng)
    ground(c, x, y + s * 0.92, s * 1.45)
    c.path(star(x + s * 0.95, y - s * 0.1, s * 1.05, 9, 0.66, rng.random()), "#ff9a1c")
    c.path(star(x + s * 0.95, y - s * 0.1, s * 0.75, 9, 0.55, rng.random()), "#fff07a", detail=True)
    c.rect(x + s * 1.12, y - s * 1.25, s * 0.28, s * 2.15, "#7c828c", s * 0.05)
    c.path(
        at(
            x,
            y,
            s,
            "M-1.5 .62 L-1.5 .05 Q-1.45 -.12 -1.15 -.15 L-.8 -.75 Q-.72 -.85 -.55 -.85 L.1 -.85 "
            "Q.25 -.85 .3 -.75 L.5 -.12 L.72 -.4 L.82 -.02 L1.05 -.22 L.98 .18 L1.15 .3 L1 .62 Z",
        ),
        paint,
    )
    c.path(
        at(
            x,
            y,
            s,
            "M-.9 -.12 L-.65 -.65 L-.32 -.65 L-.32 -.12 Z M-.2 -.12 L-.2 -.65 L.12 -.65 L.32 "
            "-.12 Z",
        ),
        "#cdeaf5",
        detail=True,
    )
    c.path(
        at(
            x,
            y,
            s,
            "M-.1 -.6 L.02 -.4 L-.1 -.3 L.1 -.15 M.02 -.4 L.2 -.38 M.55 .1 L.75 .2 L.68 .4 M-.26 "
            "-.1 L-.26 .55",
        ),
        line="#2b2430",
        width=s * 0.055,
    )
    for dx, dy in ((-0.9, 0.62), (0.55, 0.66)):
        c.circle(x + dx * s, y + dy * s, s * 0.31, "#2b2a30")
        c.circle(x + dx * s, y + dy * s, s * 0.13, "#c9ced6", detail=True)
    for dx, dy, r in ((0.55, -0.6, 0.2), (0.35, -0.95, 0.28), (0.6, -1.3, 0.33)):
        c.circle(x + dx * s, y + dy * s, s * r, "#6c6a72", detail=True, opacity=0.85)


@thing
def vase(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A cracked vase with pieces out of its rim, shards around it, its flower on the floor."""
    clay, flower = (
        pick(("#3f7fc4", "#38a0a8", "#7a5fc0", "#4a68c8"), rng),
        pick(("#f0506a", "#ffb02c", "#f58ac0"), rng),
    )
    inside = mix(clay, SHADOW, 0.75)
    ground(c, x, y + s * 1.05, s * 1.2)
    c.ellipse(x + s * 0.6, y + s * 1.05, s * 0.95, s * 0.14, "#9fd8f2", detail=True, opacity=0.85)
    c.path(
        at(
            x,
            y,
            s,
            "M-.5 -1.15 L.1 -1.15 L.02 -.95 L.24 -.82 L.1 -.6 L.42 -.52 C.75 -.3 .88 0 .82 .3 C.75 "
            ".65 .5 .8 .42 1.1 L-.42 1.1 "
            "C-.5 .8 -.75 .65 -.82 .3 C-.9 -.2 -.3 -.45 -.3 -.8 Q-.32 -1 -.5 -1.15 Z",
        ),
        clay,
    )
    c.path(
        at(x, y, s, "M-.83 .1 Q0 .34 .84 .1 Q.86 .3 .8 .42 Q0 .66 -.8 .42 Q-.86 .3 -.83 .1 Z"),
        "#fff6e8",
        detail=True,
    )
    c.path(
        at(
            x,
            y,
            s,
            "M.1 -.6 L-.12 -.3 L.12 -.2 L-.22 .12 L.2 .02 L.3 .3 L.5 .1 L.78 -.12 L.45 -.05 L.28 "
            "-.32 L.16 -.3 Z",
        ),
        inside,
        detail=True,
    )
    c.path(
        at(
            x,
            y,
            s,
            "M-.22 .12 L-.4 .3 L-.2 .45 L-.38 .75 M.3 .3 L.22 .55 L.4 .7 M-.12 -.3 L-.42 -.28",
        ),
        line=inside,
        width=s * 0.08,
    )
    c.path(
        at(x, y, s, "M-.62 .02 Q-.62 -.2 -.42 -.42"), line="#ffffff", width=s * 0.09, opacity=0.7
    )
    for dx, dy, r in ((-1.15, 0.95, 0.3), (0.95, 0.72, 0.32), (1.3, 0.35, 0.24)):
        c.path(star(x + dx * s, y + dy * s, s * r, 3, 0.5, rng.random() * 2), clay)
    c.path(at(x, y, s, "M.55 1.12 L1.05 1.08"), line="#3f9d4c", width=s * 0.12)
    c.path(rosette(x + s * 1.2, y + s * 1.02, s * 0.3, 6), flower, detail=True)
    c.circle(x + s * 1.2, y + s * 1.02, s * 0.11, "#ffe27a", detail=True)


@thing
def laptop(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A laptop with a cracked screen, loose keys and sparks."""
    case, screen = (
        pick(("#b9c1cc", "#8d95a3", "#d0cbc4"), rng),
        pick(("#1f5fd0", "#1a4fa8", "#2a6fc8"), rng),
    )
    ground(c, x, y + s * 1.0, s * 1.35)
    c.group(f'transform="rotate({rng.uniform(-9, -4):.1f} {x:.1f} {y + s * 0.5:.1f})"')
    c.rect(x - s * 1.1, y - s * 1.05, s * 2.2, s * 1.5, case, s * 0.12)
    c.rect(x - s * 0.96, y - s * 0.91, s * 1.92, s * 1.22, screen, detail=True)
    c.path(
        at(
            x,
            y,
            s,
            "M.96 -.91 L.1 -.35 L.35 -.2 L-.2 .05 L.05 .12 L-.3 .31 L-.12 .31 L.22 .12 L0 .03 L.52 "
            "-.22 L.3 -.36 L.96 -.7 Z",
        ),
        "#0d1020",
        detail=True,
    )
    c.path(
        at(
            x,
            y,
            s,
            "M.1 -.35 L-.4 -.62 L-.55 -.91 M.1 -.35 L.2 -.91 M-.2 .05 L-.6 -.1 L-.96 .05 M.52 -.22 "
            "L.96 -.05 M.22 .12 L.6 .31",
        ),
        line="#ffffff",
        width=s * 0.06,
    )
    c.path(
        at(x, y, s, "M-.78 -.6 L-.62 -.6 M-.78 -.38 L-.62 -.38 M-.35 -.72 Q-.55 -.49 -.35 -.26"),
        line="#ffffff",
        width=s * 0.1,
    )
    c.end()
    c.path(
        at(
            x,
            y,
            s,
            "M-1.05 .45 L1.1 .45 L1.4 .92 Q1.4 1.02 1.3 1.02 L-1.3 1.02 Q-1.4 1.02 -1.38 .92 Z",
        ),
        mix(case, "#ffffff", 0.15),
    )
    c.path(
        at(x, y, s, "M-.9 .58 L.5 .58 M-1 .72 L.1 .72 M.4 .72 L1.05 .72 M-1.08 .86 L.85 .86"),
        line="#4a4f5a",
        width=s * 0.09,
        extra=f'stroke-dasharray="{s * 0.1:.2f} {s * 0.14:.2f}"',
    )
    c.path(star(x + s * 1.15, y + s * 0.35, s * 0.5, 7, 0.55, rng.random()), "#ffd22c")
    c.path(star(x + s * 1.15, y + s * 0.35, s * 0.2, 7, 0.45), "#ffffff", detail=True)
    for dx, dy in ((1.5, 0.75), (-1.55, 0.9), (-1.35, 0.55)):
        c.rect(x + dx * s, y + dy * s, s * 0.18, s * 0.16, "#4a4f5a", s * 0.03, detail=True)
    for dx, dy, r in ((0.55, -1.2, 0.2), (0.8, -1.4, 0.16)):
        c.circle(x + dx * s, y + dy * s, s * r, "#5d5c64", detail=True, opacity=0.8)


@thing
def garbage(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """An overfull bin with its lid askew, flies above it."""
    tin = pick(("#7d8a86", "#5f7f6a", "#6f7a90"), rng)
    ground(c, x, y + s * 1.08, s * 0.9)
    c.circle(x + s * 0.35, y - s * 0.42, s * 0.36, "#3a3844")
    c.circle(x - s * 0.38, y - s * 0.36, s * 0.32, "#9a7a3c")
    c.path(at(x, y, s, "M-.35 -.3 Q-.1 -.8 .1 -.95 L.2 -.88 Q.25 -.5 .1 -.25 Z"), "#b7c84a")
    c.path(
        at(
            x,
            y,
            s,
            "M-.75 -.35 Q-.6 -.75 -.3 -.7 Q-.1 -.6 -.1 -.25 Q-.25 -.5 -.4 -.45 Q-.5 -.1 -.75 "
            "-.05 Z",
        ),
        "#f5d63c",
    )
    c.path(at(x, y, s, "M-.78 -.2 L.78 -.2 L.62 1.08 L-.62 1.08 Z"), tin)
    c.path(
        at(x, y, s, "M-.42 .05 L-.35 .95 M0 .05 L0 .95 M.42 .05 L.35 .95"),
        line=mix(tin, SHADOW, 0.5),
        width=s * 0.11,
    )
    c.rect(x - s * 0.88, y - s * 0.26, s * 1.76, s * 0.2, mix(tin, "#ffffff", 0.25), s * 0.08)
    c.path(at(x, y, s, "M.2 1.02 Q.3 .75 .42 1 L.5 1.12 L.15 1.12 Z"), "#a8c23c", detail=True)
    c.group(f'transform="rotate(58 {x + s * 1.0:.1f} {y + s * 0.75:.1f})"')
    c.path(
        at(
            x + s * 1.0,
            y + s * 0.75,
            s,
            "M-.7 .12 C-.5 -.4 .5 -.4 .7 .12 Z M-.12 -.25 L-.12 -.4 L.12 -.4 L.12 -.25 Z",
        ),
        mix(tin, "#ffffff", 0.2),
    )
    c.end()
    for dx, dy in ((-0.95, -0.85), (-0.35, -1.2), (0.45, -1.15), (1.0, -0.75)):
        fly(
            c,
            x + (dx + rng.uniform(-0.1, 0.1)) * s,
            y + (dy + rng.uniform(-0.1, 0.1)) * s,
            s * 0.13,
        )
    stink(c, x - s * 1.05, y - s * 0.05, s * 0.5)
    stink(c, x + s * 1.0, y, s * 0.5)


@thing
def rotten(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A brown apple with mould and a worm looking out of it."""
    skin, worm = (
        pick(("#8a5a2c", "#7d6230", "#94552f"), rng),
        pick(("#b6e04a", "#f2a0b4", "#e6e27a"), rng),
    )
    ground(c, x, y + s * 1.02, s * 0.9)
    c.path(at(x, y, s, "M0 -.55 Q-.05 -.95 .18 -1.2"), line="#4a3018", width=s * 0.14)
    c.path(at(x, y, s, "M.12 -.9 Q.4 -1.3 .8 -1.05 Q.6 -.7 .12 -.9 Z"), "#8a7a2c")
    c.path(
        at(
            x,
            y,
            s,
            "M0 -.6 C-.5 -.95 -1.1 -.6 -1 .1 C-.95 .7 -.55 1.1 -.25 1.02 Q0 .92 .25 1.02 C.55 1.1 "
            ".95 .7 1 .1 C1.1 -.6 .5 -.95 0 -.6 Z",
        ),
        skin,
    )
    c.path(
        at(
            x, y, s, "M-.8 .2 Q-.9 -.3 -.5 -.3 Q-.2 -.25 -.3 .05 Q-.1 .4 -.45 .5 Q-.75 .55 -.8 .2 Z"
        ),
        "#4d3a1e",
        detail=True,
    )
    c.path(
        " ".join(
            rosette(x + dx * s, y + dy * s, s * r, 6)
            for dx, dy, r in ((-0.5, 0.05, 0.24), (-0.15, 0.72, 0.17), (0.2, -0.42, 0.15))
        ),
        "#bcd0b0",
        detail=True,
    )
    c.ellipse(x + s * 0.42, y + s * 0.22, s * 0.3, s * 0.24, "#2a1a0d", detail=True)
    body = at(x, y, s, "M.4 .25 Q.6 -.2 .85 .15 Q1.05 .45 1.15 -.2")
    tube(c, body, worm, s * 0.23)
    c.circle(x + s * 1.15, y - s * 0.28, s * 0.21, worm)
    pair(c, x + s * 1.16, y - s * 0.32, s * 0.08, s * 0.05, s * 0.06, INK)
    stink(c, x - s * 0.75, y - s * 0.72, s * 0.5)
    stink(c, x - s * 0.3, y - s * 0.82, s * 0.5)


@thing
def slime(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A dripping heap of bright green slime with bubbles."""
    goo = pick(("#6fd61f", "#5ccf35", "#93dc1c"), rng)
    light, deep = mix(goo, "#ffffff", 0.55), mix(goo, "#0f4a14", 0.5)
    c.path(
        at(
            x,
            y,
            s,
            "M-1.5 .95 C-1.75 .65 -1.3 .5 -1.05 .62 C-1 .1 -.85 -.35 -.6 -.4 C-.5 -.95 .1 -1.15 "
            ".35 -.65 C.75 -.65 .85 .1 1 .55 "
            "C1.25 .45 1.7 .65 1.5 .95 C1.3 1.2 .9 1.0 .6 1.12 C.2 1.25 -.2 1.0 -.6 1.15 C-.9 1.2 "
            "-1.3 1.2 -1.5 .95 Z",
        ),
        goo,
    )
    c.path(
        at(x, y, s, "M-.45 -.05 Q-.3 .5 -.5 .7 M.05 -.2 Q.0 .3 .1 .45 M.5 .05 Q.7 .45 .6 .75"),
        line=deep,
        width=s * 0.12,
    )
    for dx, dy, r in (
        (-0.85, 0.78, 0.17),
        (0.25, 0.8, 0.2),
        (1.05, 0.78, 0.13),
        (-0.1, -1.15, 0.14),
        (0.55, -0.95, 0.1),
        (-0.7, -0.75, 0.11),
    ):
        c.circle(x + (dx + rng.uniform(-0.05, 0.05)) * s, y + dy * s, s * r, light, detail=True)
        c.circle(x + (dx + 0.02) * s, y + (dy + 0.02) * s, s * r * 0.55, goo, detail=True)
    c.path(at(x, y, s, "M-.42 -.4 Q-.28 -.75 -.02 -.78"), line="#f4ffe0", width=s * 0.14)


@thing
def bugs(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A white plate with three big beetles on it and one leaving it."""
    ground(c, x, y + s * 0.95, s * 1.3)
    c.ellipse(x, y + s * 0.2, s * 1.5, s * 0.9, "#f9f7f2")
    c.ellipse(x, y + s * 0.16, s * 1.18, s * 0.66, "#d3dae2", detail=True)
    shells = ("#8a4a1c", "#2f7a2a", "#b0241c", "#5a3a8a")
    first = int(rng.random() * len(shells))
    for k, (dx, dy, r, turn) in enumerate(
        (
            (-0.62, 0.1, 0.36, -30),
            (0.62, 0.1, 0.36, 30),
            (0.0, 0.48, 0.34, 180),
            (0.05, -0.72, 0.32, 10),
        )
    ):
        beetle(
            c,
            x + dx * s,
            y + dy * s,
            s * r,
            shells[(first + k) % len(shells)],
            turn + rng.uniform(-25, 25),
        )


@thing
def spider(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A big dark spider on a thread from above."""
    body, mark = (
        pick(("#2a2036", "#33202a", "#222c33"), rng),
        pick(("#e8322f", "#f5b52c", "#e85ad0"), rng),
    )
    c.line(((x, -2), (x, y - s * 0.5)), "#f2f0f5", 0.9)
    for side in (-1, 1):
        legs = (
            (0.75, -0.85, 1.15, -1.15),
            (1.0, -0.45, 1.5, -0.2),
            (1.0, -0.05, 1.45, 0.6),
            (0.7, 0.35, 1.05, 1.15),
        )
        c.path(
            " ".join(
                at(x, y, s, f"M0 {-0.05 + 0.1 * k} L{side * kx} {ky} L{side * ex} {ey}")
                for k, (kx, ky, ex, ey) in enumerate(legs)
            ),
            line=mix(body, "#000000", 0.2),
            width=s * 0.13,
        )
    c.circle(x, y - s * 0.2, s * 0.6, body)
    c.path(
        at(x, y, s, "M-.2 -.55 L.2 -.55 L0 -.28 L.2 -.02 L-.2 -.02 L0 -.28 Z"), mark, detail=True
    )
    c.circle(x, y + s * 0.5, s * 0.38, body)
    pair(c, x, y + s * 0.5, s * 0.16, s * 0.14, s * 0.14, "#ffffff")
    pair(c, x, y + s * 0.53, s * 0.14, s * 0.07, s * 0.07, "#d81f1f")
    c.path(
        at(x, y, s, "M-.16 .76 L-.06 .76 L-.11 .98 Z M.06 .76 L.16 .76 L.11 .98 Z"),
        "#f7f3ea",
        detail=True,
    )


@thing
def snake(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A coiled snake with a banded back that raises its head and shows its tongue."""
    skin, band = (
        ("#d2452f", "#ffd24a"),
        ("#8350bd", "#f2b8e6"),
        ("#e0812a", "#5a2c14"),
        ("#2f8a94", "#f5e27a"),
    )[int(rng.random() * 4)]
    side = 1 if rng.random() < 0.5 else -1
    c.group(f'transform="translate({x:.2f} 0) scale({side} 1) translate({-x:.2f} 0)"')
    ground(c, x, y + s * 1.02, s * 1.25)
    c.path(at(x, y, s, "M-.9 .7 Q-1.5 .75 -1.5 .25 Q-1.2 .5 -.8 .5 Z"), skin)
    for dy, rx in ((0.78, 1.15), (0.42, 0.85)):
        c.ellipse(x, y + dy * s, s * rx, s * 0.28, skin)
        c.path(
            " ".join(
                at(x, y + dy * s, s, f"M{t * rx} .02 L{t * rx * 0.97} .2")
                for t in (-0.72, -0.36, 0, 0.36, 0.72)
            ),
            line=band,
            width=s * 0.13,
        )
    neck = at(x, y, s, "M-.25 .35 C.75 .3 .75 -.2 .1 -.4 C-.5 -.58 -.45 -1.1 .15 -1.08")
    tube(c, neck, skin, s * 0.38)
    c.path(
        neck, line=band, width=s * 0.22, extra=f'stroke-dasharray="{s * 0.02:.2f} {s * 0.34:.2f}"'
    )
    c.path(
        at(x, y, s, "M.85 -1.0 L1.12 -.98 L1.35 -1.1 M1.12 -.98 L1.32 -.84"),
        line="#e8202f",
        width=s * 0.1,
    )
    c.path(
        at(
            x,
            y,
            s,
            "M-.1 -1.1 C-.1 -1.45 .5 -1.5 .9 -1.15 Q1.05 -.95 .85 -.88 C.5 -.78 -.1 -.75 -.1 "
            "-1.1 Z",
        ),
        skin,
    )
    c.ellipse(x + s * 0.4, y - s * 1.17, s * 0.13, s * 0.13, "#fff7c4", detail=True)
    c.ellipse(x + s * 0.43, y - s * 1.17, s * 0.045, s * 0.11, INK, detail=True)
    c.path(at(x, y, s, "M.35 -.93 Q.65 -.92 .9 -1.02"), line=INK, width=s * 0.05)
    c.end()


@thing
def grave(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A grey tombstone with a cross, earth and a flower before it."""
    stone = pick(("#a3a6ad", "#94989a", "#aba59c"), rng)
    carved = mix(stone, SHADOW, 0.7)
    c.path(at(x, y, s, "M-.82 1 L-.82 -.4 C-.82 -1.5 .82 -1.5 .82 -.4 L.82 1 Z"), stone)
    c.path(at(x, y, s, "M0 -.95 L0 .05 M-.32 -.62 L.32 -.62"), line=carved, width=s * 0.2)
    c.path(
        at(
            x,
            y,
            s,
            "M-.4 .6 L-.4 .22 Q-.14 .22 -.16 .34 Q-.18 .42 -.4 .41 L-.15 .6 M.0 .22 L.0 .6 M.17 .6 "
            "L.17 .22 Q.43 .22 .42 .34 Q.4 .44 .17 .43",
        ),
        line=carved,
        width=s * 0.075,
    )
    c.path(at(x, y, s, "M.82 -.2 L.6 0 L.68 .18 L.52 .34"), line=carved, width=s * 0.05)
    c.path(
        at(x, y, s, "M-1.35 1.12 Q-1.1 .72 -.5 .82 Q0 .65 .55 .82 Q1.15 .72 1.35 1.12 Z"), "#5f4630"
    )
    c.path(
        at(
            x,
            y,
            s,
            "M-1.3 1.12 L-1.25 .7 L-1.05 1.12 L-.95 .75 L-.85 1.12 Z M1.3 1.12 L1.25 .65 L1.05 "
            "1.12 L.95 .72 L.8 1.12 Z",
        ),
        "#4f8040",
        detail=True,
    )
    c.path(at(x, y, s, "M-.2 1.02 L.35 .85"), line="#3f7a3c", width=s * 0.08)
    c.path(
        rosette(x + s * 0.42, y + s * 0.84, s * 0.2, 5),
        pick(("#ffffff", "#f2d04a", "#d8404a"), rng),
        detail=True,
    )


@thing
def wilted(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A flower hanging its head over the edge of its pot and losing its petals."""
    pot, petal = (
        pick(("#c4683c", "#b0563a", "#c98a4a"), rng),
        pick(("#a8647c", "#9a6a8f", "#b0705a"), rng),
    )
    ground(c, x, y + s * 1.1, s * 0.8)
    c.path(
        at(x, y, s, "M-.15 .3 C-.2 -.6 -.15 -1.15 .3 -1.15 C.7 -1.15 .85 -.8 .85 -.45"),
        line="#7d8238",
        width=s * 0.15,
    )
    c.path(at(x, y, s, "M-.17 -.1 Q-.8 -.35 -1.0 .3 Q-.55 .3 -.17 -.1 Z"), "#9a8a3c")
    c.path(at(x, y, s, "M-.14 .05 Q.3 -.15 .4 .3 Q.05 .4 -.14 .05 Z"), "#85803a")
    c.path(
        at(
            x,
            y,
            s,
            "M.6 -.42 C.2 -.1 .25 .3 .42 .32 C.55 .3 .6 .15 .66 0 C.62 .3 .7 .52 .84 .52 C1 .52 "
            "1.06 .3 1.02 0 C1.1 .15 1.15 .3 1.28 .32 C1.45 .3 1.5 -.1 1.1 -.42 Z",
        ),
        petal,
    )
    for dx, dy in ((0.8, 1.05), (1.25, 1.0), (-1.0, 1.08)):
        c.ellipse(
            x + (dx + rng.uniform(-0.08, 0.08)) * s,
            y + dy * s,
            s * 0.2,
            s * 0.09,
            petal,
            detail=True,
        )
    c.path(at(x, y, s, "M-.62 .45 L.38 .45 L.25 1.12 L-.48 1.12 Z"), pot)
    c.rect(x - s * 0.72, y + s * 0.25, s * 1.2, s * 0.27, mix(pot, "#ffffff", 0.15), s * 0.05)


@thing
def icecream(c: Canvas, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """A cone upside down in its melting ice cream on the floor."""
    first, second = pick(("#f78fb3", "#a8e0c0", "#c9a0f0"), rng), pick(("#fff0c4", "#8a5436"), rng)
    c.path(
        at(
            x,
            y,
            s,
            "M-1.4 .95 C-1.6 .7 -1.1 .6 -.95 .72 C-.7 .5 .6 .5 .85 .7 C1.1 .55 1.6 .75 1.35 1 C1.1 "
            "1.2 .7 1.02 .4 1.15 C0 1.25 -.3 1.05 -.7 1.15 C-1 1.2 -1.2 1.15 -1.4 .95 Z",
        ),
        second,
    )
    c.path(
        at(
            x,
            y,
            s,
            "M-.95 .85 C-1.05 .2 -.6 -.1 -.05 -.1 C.6 -.1 1.0 .25 .85 .82 Q.7 1.0 .5 .85 Q.3 1.05 "
            ".05 .88 Q-.25 1.08 -.45 .88 Q-.75 1.05 -.95 .85 Z",
        ),
        first,
    )
    c.group(
        f'transform="rotate({rng.uniform(8, 24) * (1 if rng.random() < 0.5 else -1):.1f} {x:.1f} '
        f'{y + s * 0.3:.1f})"'
    )
    c.path(
        at(x, y, s, "M-.62 .12 L-.05 -1.35 Q0 -1.42 .05 -1.35 L.62 .12 Q0 .32 -.62 .12 Z"),
        "#dc9a4a",
    )
    c.path(
        at(
            x,
            y,
            s,
            "M-.42 -.35 L.25 .18 M-.22 -.85 L.5 -.12 M.42 -.35 L-.25 .18 M.22 -.85 L-.5 -.12",
        ),
        line="#a0622a",
        width=s * 0.07,
    )
    c.path(at(x, y, s, "M-.64 .05 Q0 .25 .64 .05 L.66 .2 Q0 .42 -.66 .2 Z"), "#c07e36", detail=True)
    c.end()
    for dx, dy, colour in (
        (-0.6, 0.45, "#4d8fe3"),
        (-0.2, 0.6, "#f5d63c"),
        (0.25, 0.62, "#e3574d"),
        (0.62, 0.48, "#58b368"),
        (-1.0, 0.9, "#e3574d"),
        (1.05, 0.88, "#4d8fe3"),
    ):
        c.rect(x + dx * s, y + dy * s, s * 0.17, s * 0.07, colour, s * 0.03, detail=True)


WIDE: frozenset[str] = frozenset(SCENES)


def event(c: Canvas, name: str, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """Draw event `name`: an object around (x, y) with half height about `s`.

    An event in `WIDE` covers the whole picture.
    """
    outline, c.outline = (
        c.outline,
        c.outline * 0.6,
    )  # a full outline would cover an event's small parts
    if name in SCENES:
        SCENES[name](c, rng)
    else:
        THINGS[name](c, x, y, s, rng)
    c.outline = outline
