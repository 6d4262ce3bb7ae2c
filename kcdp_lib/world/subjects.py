"""Draw the subject: sixteen kinds of people, animals and things around a face.

The layers are `behind`, `muzzle`, the features (`faces.py`) and `before`. Each takes the canvas,
the looks and the head's middle (x, y) and radius r. This module leaves free the eyes at
(x +- .38 r, y - .1 r), the brows above them, the nose at y + .15 r and the mouth at y + .52 r.
"""

import re
from functools import lru_cache

from .causes import SUBJECTS, Looks
from .svg import PAINT, Canvas, at, mix

HUMANS = frozenset(SUBJECTS[:6])
ANIMALS = frozenset(("cat", "dog", "bear", "rabbit", "monkey"))

SKIN = ("#fbe0cd", "#f5cba7", "#e8b48a", "#d09a6c", "#b07c52", "#8f5f3e", "#774c31")
HAIR = ("#2f2728", "#553725", "#85552f", "#b5502b", "#cf9640", "#e9c877", "#6e4a5c")
WHITE_HAIR = ("#f2f0ee", "#d9d9de", "#b9bac3")
FUR = {
    "cat": ("#f1ede4", "#a9a9b3", "#e59b4d", "#a87850", "#77707a", "#e8cfa3"),
    "dog": ("#f3ead9", "#d9a766", "#b47c4d", "#8f7560", "#a9a9b3", "#e3b98a"),
    "bear": ("#a06a40", "#8a6248", "#c58f55", "#eeeae2", "#7b6f70", "#b58a6a"),
    "rabbit": ("#f6f3ef", "#c9c4c6", "#d3ad86", "#a98768", "#8b8590", "#f0dcc0"),
    "monkey": ("#8a5a38", "#6b4a38", "#a9743f", "#77696a", "#b98d5c", "#5d4c4a"),
}
MASK = ("#f3d3ab", "#e9bf95", "#f6dfc4")
MATERIAL = {
    "robot": ("#b9c8d3", "#8fb4cc", "#d0c6ae", "#9dc7b6", "#d9a892", "#a8a6c9"),
    "egg": ("#fbf3e2", "#f3dfbf", "#e6c197", "#d6a578", "#cfe3dd"),
    "star": ("#f7cb3f", "#f9d95c", "#f2a93e", "#f29bb8", "#86bdf0", "#a5d684"),
    "ball": ("#fbd03f",) * 5 + ("#f08a8a", "#7fb8f2", "#8fd07c", "#c79ae6", "#f2a860"),
    "cup": ("#f4f1ea", *PAINT),
}
EXTRAS = {
    "girl": ("glasses", "band", "scarf"),
    "boy": ("cap", "glasses", "cap", "scarf"),
    "woman": ("glasses", "sunhat", "scarf"),
    "man": ("glasses", "hat", "scarf", "square"),
    "grandmother": ("band", "scarf"),
    "grandfather": ("glasses", "bowtie", "square"),
    "robot": ("bowtie", "cap"),
    "egg": ("bow", "cap", "square"),
    "cup": ("bow", "glasses"),
    "star": ("bow", "glasses"),
    "ball": ("cap", "bow", "glasses"),
    **{name: ("scarf", "bow", "bowtie") for name in ANIMALS},
}

# outlines in head units: (0, 0) is the head's middle, 1 its radius
CROWN = "M-1.05 0 C-1.16 -.75 -.68 -1.22 0 -1.22 C.68 -1.22 1.16 -.75 1.05 0"
FRINGES = {
    "bangs": CROWN
    + (
        " Q.94 -.42 .72 -.58 Q.55 -.74 .4 -.58 Q.2 -.72 .06 -.58 Q-.12 -.72 -.3 -.58 Q-.5 -.72 "
        "-.72 -.58 Q-.94 -.42 -1.05 0 Z"
    ),
    "side": CROWN
    + " Q.98 -.45 .74 -.62 Q.15 -.64 -.38 -.98 Q-.5 -.66 -.8 -.56 Q-.97 -.38 -1.05 0 Z",
    "middle": CROWN + " Q.98 -.46 .7 -.6 Q.2 -.7 0 -1.02 Q-.2 -.7 -.7 -.6 Q-.98 -.46 -1.05 0 Z",
    "spikes": "M-1.03 -.1 L-1.22 -.45 L-1.04 -.56 L-1.14 -.98 L-.8 -.96 L-.66 -1.34 L-.3 -1.16 "
    "L.02 -1.46 "
    "L.3 -1.17 L.7 -1.32 L.78 -.96 L1.14 -.9 L1.04 -.52 L1.22 -.4 L1.03 -.1 "
    "Q.95 -.45 .74 -.6 L.5 -.78 L.32 -.58 L.08 -.8 L-.14 -.58 L-.36 -.8 L-.72 -.58 Q-.95 -.45 "
    "-1.03 -.1 Z",
    "tuft": CROWN
    + (
        " Q.96 -.5 .74 -.66 Q.5 -.82 .2 -.66 Q-.2 -.86 -.74 -.62 Q-.97 -.44 -1.05 0 Z M-.35 -1.12 "
        "Q-.1 -1.62 .42 -1.5 Q.25 -1.35 .4 -1.1 Z"
    ),
    "short": (
        "M-1.02 -.1 L-1.04 -.62 C-.95 -1.12 -.5 -1.26 0 -1.24 C.5 -1.26 .95 -1.12 1.04 -.62 L1.02 "
        "-.1 Q.92 -.3 .88 -.56 Q.4 -.84 0 -.7 Q-.4 -.84 -.88 -.56 Q-.92 -.3 -1.02 -.1 Z"
    ),
    "quiff": (
        "M-1.02 -.1 L-1.05 -.7 C-1.2 -1.4 -.3 -1.2 .1 -1.42 C.7 -1.5 1.15 -1.2 1.04 -.62 L1.02 -.1 "
        "Q.92 -.3 .9 -.6 Q.5 -.9 0 -.84 Q-.5 -.78 -.88 -.58 Q-.92 -.3 -1.02 -.1 Z"
    ),
}
LONG_HAIR = "M-1.1 -.1 C-1.2 -1 -.7 -1.28 0 -1.28 C.7 -1.28 1.2 -1 1.1 -.1 L1.25 1.5 L-1.25 1.5 Z"
BACK_HAIR = {
    "long": LONG_HAIR,
    "wavy": LONG_HAIR,
    "bob": (
        "M-1.1 -.2 C-1.2 -1.05 -.7 -1.28 0 -1.28 C.7 -1.28 1.2 -1.05 1.1 -.2 C1.22 .3 1.36 .7 1.16 "
        ".98 Q.8 1.12 .5 .9 L-.5 .9 Q-.8 1.12 -1.16 .98 C-1.36 .7 -1.22 .3 -1.1 -.2 Z"
    ),
}
LOCKS = {
    "pigtails": "M1 -.38 C1.5 -.8 1.95 -.2 1.74 .5 Q1.62 .92 1.34 .72 C1.08 .5 1.2 0 1 -.38 Z",
    "long": "M.98 -.3 C1.12 .2 1.3 1 1.24 1.75 Q1 1.9 .72 1.72 Q.8 1 .78 .4 Z",
    "wavy": (
        "M.98 -.4 C1.35 -.1 1.05 .3 1.32 .6 C1.6 .95 1.2 1.2 1.4 1.6 Q1.15 2 .72 1.75 C.9 1.45 .6 "
        "1.2 .78 .8 Q.86 .3 .78 .2 Z"
    ),
}
CURLS = (
    (-0.95, 0.26),
    (-1.02, -0.16),
    (-0.84, -0.68),
    (-0.45, -1.02),
    (0, -1.12),
    (0.45, -1.02),
    (0.84, -0.68),
    (1.02, -0.16),
    (0.95, 0.26),
)
BROAD_HEAD = (
    "M-.97 -.2 C-1 -.9 -.6 -1.1 0 -1.1 C.6 -1.1 1 -.9 .97 -.2 C1 .35 .96 .76 .64 1 Q.4 1.12 0 1.12 "
    "Q-.4 1.12 -.64 1 C-.96 .76 -1 .35 -.97 -.2 Z"
)
BEARD = (
    "M-.99 .02 C-1.08 .85 -.66 1.38 0 1.38 C.66 1.38 1.08 .85 .99 .02 Q.84 .12 .76 .36 Q.72 .82 "
    ".42 .84 Q0 .92 -.42 .84 Q-.72 .82 -.76 .36 Q-.84 .12 -.99 .02 Z"
)
LONG_BEARD = BEARD.replace("-.66 1.38 0 1.38 C.66 1.38", "-.7 1.5 0 1.95 C.7 1.5")
MOUSTACHE = "M0 .2 Q.24 .16 .5 .36 Q.26 .33 0 .28 Q-.26 .33 -.5 .36 Q-.24 .16 0 .2 Z"
BIG_MOUSTACHE = (
    "M0 .18 Q.36 .1 .74 .44 Q.6 .5 .46 .38 Q.2 .32 0 .29 Q-.2 .32 -.46 .38 Q-.6 .5 -.74 .44 Q-.36 "
    ".1 0 .18 Z"
)
SIDE_HAIR = (
    "M.9 -.5 C1.15 -.72 1.3 -.42 1.22 -.2 C1.38 .02 1.24 .3 1.04 .28 Q.9 .2 .94 -.06 Q.96 -.3 .9 "
    "-.5 Z"
)
EARS = {
    "cat": (
        "M.24 -.78 Q.7 -1.3 .98 -1.42 Q1.14 -.8 1 -.1 Z",
        "M.52 -.8 Q.74 -1.06 .88 -1.14 Q.96 -.8 .9 -.5 Z",
    ),
    "rabbit": (
        "M.12 -.8 C0 -1.5 .2 -2.1 .5 -2.1 C.85 -2.1 .95 -1.4 .74 -.66 Z",
        "M.32 -.9 C.24 -1.45 .34 -1.88 .5 -1.88 C.68 -1.88 .74 -1.4 .6 -.8 Z",
    ),
}
DOG_EAR = "M.6 -.9 C1.15 -1 1.45 -.3 1.4 .3 Q1.36 .82 1.08 .78 Q.84 .66 .88 .1 Q.86 -.4 .6 -.9 Z"
BENT_EAR = (
    "M.12 -.8 C0 -1.4 .2 -1.8 .55 -1.82 C1.1 -1.9 1.5 -1.5 1.55 -1.05 Q1.2 -.95 .95 -1.25 Q.85 -1 "
    ".74 -.66 Z"
)
MONKEY_MASK = (
    "M0 -.42 C.28 -.78 .86 -.6 .8 -.08 Q.78 .1 .74 .22 C.9 .7 .5 .96 0 .96 C-.5 .96 -.9 .7 -.74 "
    ".22 Q-.78 .1 -.8 -.08 C-.86 -.6 -.28 -.78 0 -.42 Z"
)
STAR = (
    "M-.19 -1.39 Q0 -1.62 .19 -1.39 L.44 -1.09 Q.63 -.86 .9 -.76 L1.27 -.61 Q1.54 -.5 1.38 -.25 "
    "L1.17 .08 Q1.02 .33 1 .62 L.97 1.02 Q.95 1.31 .67 1.24 L.29 1.14 Q0 1.07 -.29"
    " 1.14 L-.67 1.24 Q-.95 1.31 -.97 1.02 L-1 .62 Q-1.02 .33 -1.17 .08 L-1.38 -.25 Q-1.54 -.5 "
    "-1.27 -.61 L-.9 -.76 Q-.63 -.86 -.44 -1.09 Z"
)
EGG = (
    "M0 -1.32 C.62 -1.32 1.08 -.4 1.06 .16 C1.04 .76 .6 1.08 0 1.08 C-.6 1.08 -1.04 .76 -1.06 .16 "
    "C-1.08 -.4 -.62 -1.32 0 -1.32 Z"
)
EGG_CUP = (
    "M-.9 .74 Q0 1.12 .9 .74 Q.86 1.5 .28 1.64 L.28 1.9 Q.6 2 .66 2.2 L-.66 2.2 Q-.6 2 -.28 1.9 "
    "L-.28 1.64 Q-.86 1.5 -.9 .74 Z"
)
MUG = "M-1.04 -.94 L1.04 -.94 L.98 .8 Q.94 1.12 .6 1.12 L-.6 1.12 Q-.94 1.12 -.98 .8 Z"
HANDLE = "M.96 -.56 C1.85 -.7 1.85 .75 .94 .62 L.95 .34 C1.42 .42 1.42 -.36 .98 -.28 Z"
CAP, VISOR = (
    "M-1.06 -.56 C-1.1 -1.5 1.1 -1.5 1.06 -.56 Q0 -.78 -1.06 -.56 Z",
    "M.1 -.72 Q1.1 -.98 1.72 -.5 Q1.4 -.46 1 -.56 Q.6 -.68 .1 -.68 Z",
)
HAT, SUNHAT = (
    "M-.82 -.66 L-.72 -1.4 Q-.3 -1.6 0 -1.46 Q.3 -1.6 .72 -1.4 L.82 -.66 Z",
    "M-.86 -.66 C-.86 -1.6 .86 -1.6 .86 -.66 Z",
)
WING = "M0 0 Q.5 -.9 1.1 -.65 Q1.25 0 1.1 .65 Q.5 .9 0 0 Z"
# marks drawn as lines of no length: every M .. L is a dot
FRECKLES = "M.56 .2 L.56 .2 M.7 .28 L.7 .28 M.78 .16 L.78 .16"
SPECKLES = (
    "M-.2 -1.06 L-.2 -1.06 M.3 -.9 L.3 -.9 M-.52 -.76 L-.52 -.76 M.74 -.5 L.74 -.5 M-.88 .1 L-.88 "
    ".1 M.88 .3 L.88 .3 M-.76 .6 L-.76 .6"
)
STRIPES, WHISKERS = (
    "M-.26 -.93 L-.2 -.7 M0 -.95 L0 -.7 M.26 -.93 L.2 -.7",
    "M.62 .34 L1.3 .22 M.62 .46 L1.3 .5",
)
CUTS = {
    "girl": ("pigtails", "long", "buns", "braids"),
    "boy": ("spikes", "tuft", "bangs", "side"),
    "woman": ("bob", "bun", "wavy", "afro"),
    "man": ("short", "quiff", "side"),
    "grandmother": ("bun", "curls"),
    "grandfather": ("sides",),
}
BEARDS = {
    "man": ("stubble", "beard", "none", "beard", "moustache"),
    "grandfather": ("long", "beard", "none"),
}
WIDTHS = {
    "girl": 1.15,
    "boy": 1.2,
    "man": 1.8,
    "grandfather": 1.6,
    "woman": 1.4,
    "grandmother": 1.4,
}  # of the shoulders
BOWS = {
    "cup": (-0.72, -1.02),
    "star": (0.34, -1.14),
    "egg": (0.1, -1.3),
    "ball": (0.5, -1),
}  # position of a bow


def option(options, value: float):
    """Return the option at `value`, 0 .. 1."""
    return options[min(int(value * len(options)), len(options) - 1)]


@lru_cache(None)
def mirrored(d: str) -> str:
    """Return a path for `at` with left and right exchanged."""
    return re.sub(r"(-?[\d.]+) (-?[\d.]+)", lambda point: f"{-float(point[1]):g} {point[2]}", d)


class Frame:
    """A canvas in a head's own units.

    (0, 0) is the head's middle and 1 its radius, for line widths, too. `pair` and `dots` draw both
    sides.
    """

    def __init__(self, c: Canvas, x: float, y: float, r: float):
        self.c, self.x, self.y, self.r = c, x, y, r

    def path(self, d, fill="none", width=0.05, **kw):
        """Draw a path of absolute commands."""
        self.c.path(at(self.x, self.y, self.r, d), fill, width=width * self.r, **kw)

    def pair(self, d, fill="none", **kw):
        """Draw a path and its mirror image."""
        self.path(d, fill, **kw)
        self.path(mirrored(d), fill, **kw)

    def oval(self, x, y, rx, ry, fill="none", width=0.05, **kw):
        """Draw an upright ellipse."""
        self.c.ellipse(
            self.x + x * self.r,
            self.y + y * self.r,
            rx * self.r,
            ry * self.r,
            fill,
            width=width * self.r,
            **kw,
        )

    def dots(self, x, y, size, fill="none", **kw):
        """Draw circles at (x, y) and (-x, y)."""
        for side in (-x, x):
            self.oval(side, y, size, size, fill, **kw)

    def rect(self, x, y, w, h, fill, r=0.0, **kw):
        """Draw a rectangle with its upper left corner at (x, y)."""
        self.c.rect(
            self.x + x * self.r, self.y + y * self.r, w * self.r, h * self.r, fill, r * self.r, **kw
        )

    def bow(self, x, y, size, fill):
        """Draw a ribbon bow around (x, y), 2.2 sizes wide."""
        Frame(self.c, self.x + x * self.r, self.y + y * self.r, size * self.r).pair(WING, fill)
        self.oval(x, y, size * 0.3, size * 0.3, fill)


def extra(looks: Looks) -> str | None:
    """Return the accessory, or None."""
    return (
        option(EXTRAS[looks.subject], (looks.accessory - 0.7) / 0.3)
        if looks.accessory > 0.7
        else None
    )


def cloth_of(looks: Looks) -> tuple[str, str, float]:
    """Return the colours of clothes and of ribbons, and a number 0 .. 1 for the pattern."""
    k = min(int(looks.cloth * 10), 9)
    return PAINT[k], PAINT[(k + 3) % 10], looks.cloth * 10 - k


def hair_of(looks: Looks) -> tuple[str, str, str | None]:
    """Return colour and cut of a human's hair, and the beard."""
    s, cut, beards = (
        looks.subject,
        option(CUTS[looks.subject], looks.style),
        BEARDS.get(looks.subject),
    )
    if cut in ("bun", "afro") and extra(looks) == "sunhat":  # the sunhat would not fit over them
        cut = "bob"
    return (
        option(WHITE_HAIR if s.startswith("grand") else HAIR, looks.hair),
        cut,
        beards and option(beards, looks.hair * 7 % 1),
    )


def behind(
    c: Canvas,
    looks: Looks,
    x: float,
    y: float,
    r: float,
    tint: str | None = None,
    body: bool = True,
) -> str:
    """Draw the body down to y + 2.6 r, the hair behind the head, the ears and the head.

    Returns the colour around the features. `tint` colours the head.
    """
    s = looks.subject
    plain = option(
        SKIN if s in HUMANS else FUR.get(s) or MATERIAL[s],
        looks.cloth if s == "cup" else looks.skin,
    )
    colour = mix(plain, tint, 0.6) if tint else plain
    (human if s in HUMANS else animal if s in ANIMALS else thing)(
        Frame(c, x, y, r), looks, plain, colour, body
    )
    if s == "monkey":
        return mix(option(MASK, looks.hair), tint, 0.6) if tint else option(MASK, looks.hair)
    return colour


def neckwear(f: Frame, looks: Looks) -> None:
    """Draw a scarf or a bow tie below the head."""
    colour, name = cloth_of(looks)[1], extra(looks)
    if name == "scarf":
        f.path("M.2 1.2 L.72 1.25 L.8 2.2 L.36 2.25 Z", colour)
        f.path(
            "M-.74 .78 Q0 1.2 .74 .78 Q1 1.1 .74 1.28 Q0 1.7 -.74 1.28 Q-1 1.1 -.74 .78 Z", colour
        )
    elif name == "bowtie":
        f.bow(0, 1.3, 0.38, colour)


def human(f: Frame, looks: Looks, skin: str, face: str, body: bool) -> None:
    """Draw a human without fringe, beard and accessories."""
    s, (hair, cut, _), (cloth, ribbon, pattern) = looks.subject, hair_of(looks), cloth_of(looks)
    if cut == "buns":
        f.dots(0.78, -1.06, 0.44, hair)
    elif cut == "bun":
        f.oval(0, -1.36, 0.46, 0.42, hair)
    elif cut == "curls":
        for dx, dy in CURLS:
            f.oval(dx, dy, 0.34, 0.34, hair)
    if cut in BACK_HAIR:
        f.path(BACK_HAIR[cut], hair)
    elif s not in ("boy", "man", "grandfather"):
        f.oval(
            0,
            -0.34 if cut == "afro" else -0.14,
            1.5 if cut == "afro" else 1.1,
            1.34 if cut == "afro" else 1.12,
            hair,
        )
    if body:
        w = WIDTHS[s]
        f.path(
            f"M{-w} 2.6 C{-w} 1.6 {-w * 0.8} 1.36 -.34 1.16 L.34 1.16 C{w * 0.8} 1.36 {w} 1.6 {w} "
            "2.6 Z",
            cloth,
        )
        if s in ("man", "grandfather") and pattern < 0.6:
            f.path("M-.5 1.2 L0 2.1 L.5 1.2 Z", "#f7f5f0", detail=True)
            f.path("M-.1 1.4 L.1 1.4 L.16 2.2 L0 2.4 L-.16 2.2 Z", ribbon, detail=True)
        elif pattern > 0.5:
            f.path(
                f"M{-w * 0.88} 1.75 Q0 1.9 {w * 0.88} 1.75 M{-w * 0.92} 2.15 Q0 2.3 {w * 0.92} "
                "2.15",
                line=ribbon,
                width=0.13,
            )
        f.path("M-.3 .8 L-.32 1.2 Q0 1.52 .32 1.2 L.3 .8 Z", mix(skin, "#6b3a22", 0.2))
        neckwear(f, looks)
    if cut in LOCKS:
        f.pair(LOCKS[cut], hair)
    if cut == "pigtails":
        f.dots(1.06, -0.42, 0.17, ribbon)
    elif cut == "braids":
        for k, size, colour in (
            (0.62, 0.24, hair),
            (0.96, 0.22, hair),
            (1.28, 0.19, hair),
            (1.48, 0.12, ribbon),
        ):
            f.dots(1.06, k, size, colour)
    if cut not in BACK_HAIR:
        f.dots(1, 0.06, 0.21, face)
    if s == "man":
        f.path(BROAD_HEAD, face)
    else:
        f.oval(0, 0, 1, 1.1 if s in ("grandfather", "woman") else 1.04, face)


def animal(f: Frame, looks: Looks, fur: str, face: str, body: bool) -> None:
    """Draw an animal without its face."""
    s, (cloth, _, pattern) = looks.subject, cloth_of(looks)
    if body:
        f.path(
            "M-1 2.6 C-1.1 1.7 -.75 .9 0 .9 C.75 .9 1.1 1.7 1 2.6 Z",
            cloth if pattern < 0.45 else fur,
        )
        if pattern >= 0.45:
            f.oval(0, 2.2, 0.55, 0.75, mix(fur, "#fff0dc", 0.45), detail=True)
        neckwear(f, looks)
    if s in EARS:
        outside, inside = EARS[s]
        if s == "rabbit" and looks.style > 0.7:
            f.path(mirrored(outside), face)
            f.path(mirrored(inside), "#f0a9ae", detail=True)
            f.path(BENT_EAR, face)
        else:
            f.pair(outside, face)
            f.pair(inside, "#f0a9ae", detail=True)
    elif s != "dog":
        px, py, size = (0.78, -0.78, 0.38) if s == "bear" else (1.14, -0.06, 0.42)
        f.dots(px, py, size, face)
        f.dots(px, py, size * 0.58, mix(face, "#f5c9a6", 0.6), detail=True)
    f.oval(0, 0, 1.1 if s == "cat" else 1, 0.98 if s == "cat" else 1.02, face)


def thing(f: Frame, looks: Looks, colour: str, face: str, body: bool) -> None:
    """Draw a robot, an egg, a cup, a star or a ball."""
    s, (cloth, ribbon, _) = looks.subject, cloth_of(looks)
    if s == "robot":
        if body:
            f.rect(-0.24, 0.8, 0.48, 0.5, "#7f8b96")
            f.rect(-0.95, 1.2, 1.9, 1.6, colour, 0.2)
            f.rect(-0.5, 1.55, 1, 0.7, mix(colour, "#1d2430", 0.55), 0.1, detail=True)
            for k, light in enumerate((cloth, ribbon, "#f4f1ea")):
                f.oval(-0.28 + 0.28 * k, 1.8, 0.1, 0.1, light, detail=True)
            neckwear(f, looks)
        for dx in (0,) if looks.style < 0.5 else (-0.6, 0.6):
            f.path(f"M{dx} -.9 L{dx} -1.36", line=f.c.ink if f.c.outline else "#7f8b96", width=0.1)
            f.oval(dx, -1.44, 0.17, 0.17, cloth)
        f.rect(-1.22, -0.3, 2.44, 0.6, "#8d99a5", 0.1)
        f.rect(-1.04, -0.98, 2.08, 2.02, face, 0.28)
    elif s == "egg":
        f.path(EGG, face)
        if body:
            f.path(EGG_CUP, cloth)
    elif s == "cup":
        if body:
            f.oval(0, 1.16, 1.5, 0.2, mix(colour, "#ffffff", 0.4))
        f.path(HANDLE, face)
        f.path(MUG, face)
        f.oval(0, -0.94, 1.04, 0.19, mix(face, "#ffffff", 0.35))
        f.oval(
            0, -0.93, 0.86, 0.12, option(("#6a4630", "#a8763e", "#8a3d2a"), looks.hair), detail=True
        )
    elif s == "star":
        f.path(STAR, face)
    else:
        f.oval(0, 0, 1.06, 1.06, face)


def muzzle(c: Canvas, looks: Looks, x: float, y: float, r: float, colour: str) -> None:
    """Draw what lies on the head and under the features.

    These are muzzles and noses of animals, beards around the mouth, freckles and speckles. `colour`
    is what `behind` returned.
    """
    s, f, light, small = (
        looks.subject,
        Frame(c, x, y, r),
        mix(colour, "#fff0dc", 0.55),
        {"detail": True},
    )
    if s in BEARDS:
        hair, _, beard = hair_of(looks)
        if beard == "stubble":
            f.path(BEARD.replace("1.38", "1.12"), hair, opacity=0.3, **small)
        elif beard in ("beard", "long"):
            f.path(LONG_BEARD if beard == "long" else BEARD, hair)
    elif s == "boy" and looks.accessory < 0.45:
        f.pair(FRECKLES, line=mix(colour, "#8a3d1a", 0.5), width=0.08)
    elif s == "cat":
        if looks.style < 0.6:
            f.path(STRIPES, line=mix(colour, "#3a2418", 0.45), width=0.11)
        f.oval(-0.22, 0.48, 0.34, 0.3, light, **small)
        f.oval(0.22, 0.48, 0.34, 0.3, light, **small)
    elif s in ("dog", "bear"):
        if s == "dog" and looks.style < 0.5:
            f.oval(0.42, -0.2, 0.42, 0.5, mix(colour, "#7a4a2a", 0.4), **small)
        f.oval(0, 0.46, 0.6, 0.48, light, **small)
        f.oval(0, 0.15, 0.2 if s == "dog" else 0.17, 0.13, "#33272a", **small)
    elif s == "rabbit":
        f.oval(0, 0.5, 0.52, 0.36, light, **small)
    elif s == "monkey":
        f.path(MONKEY_MASK, colour, **small)
        f.dots(0.07, 0.17, 0.04, "#5b3a2c", **small)
    elif s == "robot" and looks.style % 0.5 < 0.25:
        f.rect(-0.82, -0.78, 1.64, 1.62, light, 0.2, **small)
    elif s == "egg" and looks.style > 0.5:
        f.path(SPECKLES, line=mix(colour, "#7a5236", 0.55), width=0.16)
    elif s == "ball":
        f.path("M-.66 -.66 Q-.52 -.82 -.32 -.88", line=light, width=0.16)
    if s in EARS:
        f.path("M-.14 .13 Q0 .07 .14 .13 Q.08 .27 0 .28 Q-.08 .27 -.14 .13 Z", "#e0707c", **small)


def before(c: Canvas, looks: Looks, x: float, y: float, r: float, colour: str) -> None:
    """Draw what lies over the features.

    These are fringe, moustache, hanging ears, whiskers, glasses, hats and bows. `colour` is what
    `behind` returned.
    """
    s, f, name = looks.subject, Frame(c, x, y, r), extra(looks)
    if s in HUMANS:
        hair, cut, beard = hair_of(looks)
        thin = {
            "detail": True,
            "line": c.ink if c.outline else None,
        }  # a sticker's full outline would reach the mouth
        if s == "grandfather":
            f.pair(SIDE_HAIR, hair)
            f.path(BIG_MOUSTACHE, hair, **thin)
        else:
            flat = "short" if name in ("cap", "hat") else "middle" if s == "grandmother" else cut
            f.path(
                FRINGES[
                    flat
                    if flat in FRINGES
                    else option(("middle", "side", "bangs"), looks.style * 4 % 1)
                ],
                hair,
            )
        if beard == "moustache":
            f.path(MOUSTACHE, hair, **thin)
        if s in ("woman", "grandmother"):
            f.dots(1.02, 0.42, 0.11, "#f2c33c" if looks.cloth < 0.5 else "#e9eef2")
        if s == "girl" and cut == "long":
            f.bow(0.62, -1.08, 0.4, cloth_of(looks)[1])
    elif s == "dog":
        f.pair(DOG_EAR, mix(colour, "#4a2c1a", 0.45))
    elif s in EARS:
        f.pair(WHISKERS, line=c.ink, width=0.045, opacity=0.75)
    elif s == "monkey" and looks.style < 0.6:
        f.path(
            "M-.3 -.94 Q-.2 -1.3 -.02 -1.22 Q.1 -1.42 .34 -1.3 Q.24 -1.1 .3 -.94 Q0 -1.04 -.3 -.94 "
            "Z",
            option(FUR["monkey"], looks.skin),
        )
    headwear(f, looks)


def headwear(f: Frame, looks: Looks) -> None:
    """Draw glasses, a hat, a hair band or a bow; a grandmother always has glasses."""
    s, name, ribbon = looks.subject, extra(looks), cloth_of(looks)[1]
    if name in ("glasses", "square") or s == "grandmother":
        rim = {"line": f.c.ink if looks.cloth < 0.5 else "#7a4b2c", "width": 0.065}
        if name == "square":
            f.pair("M.06 -.38 L.74 -.38 L.68 .2 L.14 .2 Z", **rim)
        else:
            f.dots(0.38, -0.1, 0.31, **rim)
        f.pair("M0 -.18 L.07 -.14 M.7 -.16 L.98 -.24", **rim)
    if name == "cap":
        f.path(CAP, ribbon)
        f.path(VISOR, mix(ribbon, "#1d2430", 0.25))
    elif name in ("hat", "sunhat"):
        shape, felt, w = (HAT, "#8b6f57", 1.3) if name == "hat" else (SUNHAT, "#efd9a0", 1.75)
        f.oval(0, -0.72, w, 0.15, felt)
        f.path(shape, felt)
        f.path("M-.8 -.82 L.8 -.82", line=ribbon, width=0.17)
    elif name == "band":
        f.path("M-.95 -.72 C-.7 -1.3 .7 -1.3 .95 -.72", line=ribbon, width=0.17)
    elif name == "bow":
        f.bow(*BOWS.get(s, (0.62, -0.86)), 0.36, ribbon)
