"""Drawing a scene (chapter 01): SVG, rasterised by resvg at any size, then a camera in numpy.

A drawing is built on a 100 x 100 canvas from three layers: background (place, light, event), subject (head, face, response),
and for photos a camera (blur, grain, vignette). A `Style` says how a domain draws; nothing here knows what an emotion is.
"""
import io
from dataclasses import dataclass

import numpy as np
import resvg_py
from PIL import Image, ImageFilter

from .world import DOMAINS, Face, Scene, shown

INK = "#2b2430"


@dataclass(frozen=True)
class Style:
    """How a domain draws."""
    outline: float          # stroke width on the canvas, 0 = none
    shaded: bool = False    # gradients and shadows instead of flat colour
    scenery: bool = False   # a full background
    line_art: str | None = None   # colour of the lines if nothing is filled


STYLES = {"photos": Style(0.0, shaded=True, scenery=True), "stickers": Style(2.4), "sketches": Style(1.5, line_art="#4a4a52"), "icons": Style(3.2, line_art="#f4f4f0")}

SKIN = ("#f6d3b3", "#e8b48a", "#c68a5e", "#8d5a3a", "#ffdbc4", "#a86f48")
HAIR = ("#2a1c14", "#5b3a20", "#a5652a", "#d9b25c", "#7a7a80", "#8a2f1f")
FUR = ("#d89a4e", "#8c6a4a", "#c9c2b4", "#5d5550", "#e9d2a0", "#a3724c", "#f0eadf")
PAINT = ("#e3574d", "#4d8fe3", "#58b368", "#f0b63c", "#9a64c8", "#38b6b0", "#ef8fb0", "#f4e3c1", "#c9d4de")


def mix(a: str, b: str, t: float) -> str:
    """Colour between hex colours `a` (t = 0) and `b` (t = 1)."""
    x, y = (np.array([int(c[i:i + 2], 16) for i in (1, 3, 5)]) for c in (a, b))
    return "#" + "".join(f"{int(round(v)):02x}" for v in x + (y - x) * t)


class Canvas:
    """Collects SVG shapes; applies the style's fills, outlines and gradients so that the drawing code need not know the domain."""

    def __init__(self, style: Style):
        self.style, self.shapes, self.defs = style, [], []

    def add(self, shape: str, fill: str = "none", stroke: str | None = None, width: float | None = None, extra: str = "", paint: bool = False) -> None:
        """`shape` is an SVG element without its end ("<circle cx=.."); `paint` keeps the fill in line-art styles (small filled details)."""
        line = self.style.line_art
        if line:
            fill = line if paint and fill != "none" else "none"
            stroke, width = line, width or self.style.outline
        elif stroke is None and fill != "none" and self.style.outline and not paint:
            stroke, width = INK, self.style.outline
        if fill.startswith("#") and self.style.shaded and not paint:
            fill = self.gradient(fill)
        stroke_text = f' stroke="{stroke}" stroke-width="{width:.2f}" stroke-linecap="round" stroke-linejoin="round"' if stroke else ""
        self.shapes.append(f'{shape} fill="{fill}"{stroke_text} {extra}/>')

    def gradient(self, colour: str) -> str:
        """A light from the upper left over `colour`."""
        name = f"g{len(self.defs)}"
        self.defs.append(f'<radialGradient id="{name}" cx=".35" cy=".3" r=".85"><stop offset="0" stop-color="{mix(colour, "#ffffff", .25)}"/>'
                         f'<stop offset=".6" stop-color="{colour}"/><stop offset="1" stop-color="{mix(colour, "#20140f", .45)}"/></radialGradient>')
        return f"url(#{name})"

    def circle(self, x, y, r, fill="none", **kw):
        """A circle around (x, y); all lengths are in units of the canvas, 100 a side."""
        self.add(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{r:.2f}"', fill, **kw)

    def ellipse(self, x, y, rx, ry, fill="none", **kw):
        """An upright ellipse around (x, y) with half axes rx and ry."""
        self.add(f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{rx:.2f}" ry="{ry:.2f}"', fill, **kw)

    def rect(self, x, y, w, h, fill="none", r=0.0, **kw):
        """A rectangle from its upper left corner (x, y); r rounds the corners."""
        self.add(f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" rx="{r:.2f}"', fill, **kw)

    def path(self, d, fill="none", **kw):
        """A shape by SVG's path commands."""
        self.add(f'<path d="{d}"', fill, **kw)

    def group(self, attributes: str):
        """Open a group with SVG attributes (a filter, a rotation) for the shapes up to `end`."""
        self.shapes.append(f"<g {attributes}>")

    def end(self):
        """Close the group opened last."""
        self.shapes.append("</g>")


def poly(points) -> str:
    """SVG path through points [(x, y), ...], closed."""
    return "M" + " L".join(f"{x:.2f} {y:.2f}" for x, y in points) + " Z"


def star(x, y, r, n=5, inner=0.45, turn=-np.pi / 2) -> str:
    """SVG path of a star with n points around (x, y): radius r outside, inner * r inside; turn is the first point's direction in radians."""
    angles = turn + np.arange(2 * n) * np.pi / n
    radii = np.where(np.arange(2 * n) % 2, r * inner, r)
    return poly(zip(x + radii * np.cos(angles), y + radii * np.sin(angles)))


def heart(x, y, r) -> str:
    """SVG path of a heart around (x, y), about 2 r high."""
    return f"M{x} {y + r} C{x - 2 * r} {y - r * .3} {x - r * .8} {y - r * 1.4} {x} {y - r * .4} C{x + r * .8} {y - r * 1.4} {x + 2 * r} {y - r * .3} {x} {y + r} Z"


# ---------------------------------------------------------------- background and events

def background(c: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Place and light with clutter: photos only."""
    light = {"day": 0.0, "evening": 0.35, "night": 0.68}[scene.light]
    shade = lambda colour: mix(colour, "#10142a", light)
    sky = {"room": rng.choice(("#d8c8b0", "#b9c7c9", "#c9b3a8", "#a9b89c")), "street": "#b8c2cc", "park": "#9fd0ee", "field": "#b5daf2"}[scene.place]
    ground = {"room": rng.choice(("#8a6a4c", "#7d7468", "#9c8468")), "street": "#6f7276", "park": "#5f8f45", "field": "#a9a04e"}[scene.place]
    horizon = rng.uniform(55, 72)
    c.group('filter="url(#depth)"')
    c.rect(-5, -5, 110, horizon + 5, shade(sky), paint=True)
    if scene.place == "room":
        for _ in range(rng.integers(1, 4)):
            x, y = rng.uniform(0, 85), rng.uniform(2, 35)
            c.rect(x, y, rng.uniform(8, 22), rng.uniform(8, 22), shade(rng.choice(PAINT)), paint=True)
    elif scene.place == "street":
        for x in range(-5, 100, 15):
            h = rng.uniform(15, 50)
            c.rect(x, horizon - h, 14, h, shade(mix("#8b8480", rng.choice(PAINT), 0.3)), paint=True)
    else:
        for _ in range(rng.integers(2, 6)):
            x, r = rng.uniform(0, 100), rng.uniform(5, 15)
            c.circle(x, horizon - r * 0.6, r, shade(mix("#3f7a3a", rng.choice(PAINT), 0.15)), paint=True)
    c.rect(-5, horizon, 110, 105 - horizon, shade(ground), paint=True)
    for _ in range(rng.integers(2, 7)):
        c.ellipse(rng.uniform(0, 100), rng.uniform(horizon, 100), rng.uniform(2, 12), rng.uniform(1, 3), shade(mix(ground, rng.choice(PAINT), 0.4)), paint=True)
    c.end()


def event(c: Canvas, name: str, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    """Draw the event's object around (x, y) with size `s` (about the object's half height on the canvas)."""
    col = lambda: str(rng.choice(PAINT))
    if name == "gift":
        box, band = col(), col()
        c.rect(x - s, y - s * .3, 2 * s, 1.3 * s, box); c.rect(x - s * .2, y - s * .3, s * .4, 1.3 * s, band, paint=True)
        c.path(poly([(x - s, y - s * .4), (x - s * .6, y - s * 1.2), (x + s * 1.1, y - s * .8), (x + s, y - s * .4)]), box)
        for i in range(5):
            c.path(star(x + rng.uniform(-s, s), y - s * rng.uniform(.8, 1.8), s * .25, 4), "#ffd84d", paint=True)
    elif name == "fireworks":
        for _ in range(4):
            fx, fy, colour, r = rng.uniform(8, 92), rng.uniform(5, 32), col(), rng.uniform(7, 13)
            for a in np.arange(0, 2 * np.pi, np.pi / 6):
                c.path(f"M{fx + 3 * np.cos(a):.1f} {fy + 3 * np.sin(a):.1f} L{fx + r * np.cos(a):.1f} {fy + r * np.sin(a):.1f}", stroke=mix(colour, "#ffffff", .35), width=1.4)
    elif name == "hat":
        c.ellipse(x - s * .3, y - s * .9, s * .18, s * .6, "#f3f0ec"); c.ellipse(x + s * .3, y - s * .9, s * .18, s * .6, "#f3f0ec")
        c.circle(x, y - s * .3, s * .5, "#f3f0ec"); c.circle(x - s * .18, y - s * .35, s * .08, INK, paint=True); c.circle(x + s * .18, y - s * .35, s * .08, INK, paint=True)
        c.rect(x - s * .7, y, s * 1.4, s, "#2c2a36"); c.ellipse(x, y, s * 1.1, s * .22, "#3a3746"); c.rect(x - s * .7, y + s * .2, s * 1.4, s * .2, "#c23b4b", paint=True)
    elif name == "party":
        for i in range(3):
            bx, by = x + rng.uniform(-1.4, 1.4) * s, y - s * rng.uniform(2.2, 3.2)
            c.path(f"M{bx:.1f} {by:.1f} L{x:.1f} {y:.1f}", stroke="#ddd", width=.6); c.ellipse(bx, by, s * .5, s * .62, col())
        c.rect(x - s, y + s * .1, 2 * s, s * .9, "#f3d9c0"); c.rect(x - s, y + s * .1, 2 * s, s * .3, "#e987a8", paint=True)
        for i in (-.6, 0, .6):
            c.rect(x + i * s - .6, y - s * .5, 1.2, s * .6, col(), paint=True); c.ellipse(x + i * s, y - s * .65, 1, 1.8, "#ffb52e", paint=True)
    elif name == "beach":
        c.circle(rng.uniform(10, 90), rng.uniform(8, 20), 9, "#ffd84d", paint=True); c.rect(-5, 48, 110, 14, "#3f9bd8", paint=True)
        c.rect(-5, 60, 110, 45, "#ecd9a0", paint=True)
        c.path(f"M{x - s * 1.4:.1f} {y:.1f} A{s * 1.4:.1f} {s * 1.4:.1f} 0 0 1 {x + s * 1.4:.1f} {y:.1f} Z", col()); c.path(f"M{x} {y} L{x} {y + s * 1.4}", stroke="#7a5a3a", width=1.4)
    elif name == "trophy":
        c.path(f"M{x - s * .7:.1f} {y - s:.1f} L{x + s * .7:.1f} {y - s:.1f} Q{x + s * .6:.1f} {y + s * .2:.1f} {x:.1f} {y + s * .3:.1f} Q{x - s * .6:.1f} {y + s * .2:.1f} {x - s * .7:.1f} {y - s:.1f} Z", "#f2c230")
        c.circle(x - s * .75, y - s * .6, s * .3, stroke="#d09a18", width=1.6); c.circle(x + s * .75, y - s * .6, s * .3, stroke="#d09a18", width=1.6)
        c.rect(x - s * .12, y + s * .25, s * .24, s * .4, "#d09a18", paint=True); c.rect(x - s * .5, y + s * .6, s, s * .35, "#6b4a2a")
    elif name == "garbage":
        c.path(poly([(x - s * .8, y - s * .5), (x + s * .8, y - s * .5), (x + s * .6, y + s), (x - s * .6, y + s)]), "#6d7568")
        for i in (-.35, 0, .35):
            c.path(f"M{x + i * s:.1f} {y - s * .3:.1f} L{x + i * s * .85:.1f} {y + s * .8:.1f}", stroke="#4c5348", width=1)
        for _ in range(4):
            c.circle(x + rng.uniform(-.7, .7) * s, y - s * .65, s * .3, rng.choice(("#7e6a3a", "#8fa03c", "#a0764a")))
        for _ in range(5):
            fx, fy = x + rng.uniform(-1.2, 1.2) * s, y - s * rng.uniform(1.1, 2)
            c.circle(fx, fy, 1, "#1c1c1c", paint=True); c.path(f"M{fx - 1.6:.1f} {fy - 1.2:.1f} L{fx:.1f} {fy:.1f} L{fx + 1.6:.1f} {fy - 1.2:.1f}", stroke="#555", width=.5)
    elif name == "rotten":
        c.circle(x, y, s, "#8a7a34"); c.circle(x - s * .35, y + s * .2, s * .3, "#4e4422", paint=True); c.circle(x + s * .3, y - s * .3, s * .22, "#4e4422", paint=True)
        c.path(f"M{x:.1f} {y - s:.1f} L{x + s * .2:.1f} {y - s * 1.5:.1f}", stroke="#5b4326", width=1.6)
        c.path(f"M{x + s * .4:.1f} {y + s * .1:.1f} q{s * .3:.1f} {-s * .5:.1f} {s * .6:.1f} 0 q{s * .3:.1f} {s * .4:.1f} {s * .5:.1f} {-s * .2:.1f}", stroke="#dfe08a", width=2.2)
    elif name == "puddle":
        c.path(f"M{x - s * 1.5:.1f} {y + s:.1f} Q{x - s * 1.4:.1f} {y - s * .3:.1f} {x - s * .5:.1f} {y:.1f} Q{x:.1f} {y - s * 1.3:.1f} {x + s * .5:.1f} {y:.1f} Q{x + s * 1.4:.1f} {y - s * .3:.1f} {x + s * 1.5:.1f} {y + s:.1f} Z", "#7fbf2e")
        for _ in range(4):
            c.circle(x + rng.uniform(-1, 1) * s, y + rng.uniform(0, .8) * s, s * .16, "#b7e35c", paint=True)
    elif name == "monster":
        c.path(f"M{x - s * 1.2:.1f} {y + s * 1.2:.1f} L{x - s:.1f} {y - s * .8:.1f} L{x - s * .6:.1f} {y - s * 1.7:.1f} L{x - s * .2:.1f} {y - s:.1f} L{x + s * .2:.1f} {y - s:.1f} L{x + s * .6:.1f} {y - s * 1.7:.1f} L{x + s:.1f} {y - s * .8:.1f} L{x + s * 1.2:.1f} {y + s * 1.2:.1f} Z", "#1a1626", paint=True)
        for i in (-.4, .4):
            c.ellipse(x + i * s, y - s * .45, s * .2, s * .13, "#ffe14a", paint=True)
        c.path(poly([(x + i * s, y + (.1 if k % 2 else .45) * s) for k, i in enumerate(np.linspace(-.6, .6, 7))]), "#f4f1e6", paint=True)
    elif name == "spider":
        c.path(f"M{x:.1f} 0 L{x:.1f} {y:.1f}", stroke="#e8e8e8", width=.7)
        for side in (-1, 1):
            for k in range(4):
                c.path(f"M{x:.1f} {y:.1f} q{side * s * .9:.1f} {-s * (.9 - .4 * k):.1f} {side * s * 1.5:.1f} {s * (-.3 + .5 * k):.1f}", stroke="#17131c", width=1.3)
        c.circle(x, y, s * .65, "#241c2c"); c.circle(x, y + s * .7, s * .4, "#241c2c"); c.circle(x - s * .15, y + s * .75, 1, "#e33", paint=True); c.circle(x + s * .15, y + s * .75, 1, "#e33", paint=True)
    elif name == "storm":
        c.rect(-5, -5, 110, 45, "#2c3244", paint=True, extra='opacity=".75"')
        for k in range(5):
            c.ellipse(k * 24, 8, 17, 11, "#474e62", paint=True)
        for lx in (x, x - 28 if x > 50 else x + 30):
            c.path(poly([(lx, 12), (lx + 7, 12), (lx + 2, 27), (lx + 8, 27), (lx - 5, 50), (lx - 1, 32), (lx - 6, 32)]), "#fff27a", paint=True)
    elif name == "grave":
        c.path(f"M{x - s * .8:.1f} {y + s:.1f} L{x - s * .8:.1f} {y - s * .6:.1f} A{s * .8:.1f} {s * .8:.1f} 0 0 1 {x + s * .8:.1f} {y - s * .6:.1f} L{x + s * .8:.1f} {y + s:.1f} Z", "#9a9a9e")
        c.path(f"M{x:.1f} {y - s:.1f} L{x:.1f} {y + s * .1:.1f} M{x - s * .35:.1f} {y - s * .6:.1f} L{x + s * .35:.1f} {y - s * .6:.1f}", stroke="#4a4a50", width=2)
        c.ellipse(x, y + s, s * 1.3, s * .25, "#5b4a34")
    elif name == "rain":
        c.rect(-5, -5, 110, 110, "#5d6b7c", paint=True, extra='opacity=".45"')
        for dx in (-14, 0, 14):
            c.ellipse(50 + dx, 10, 14, 9, "#69707c", paint=True)
        for _ in range(26):
            rx, ry = rng.uniform(5, 95), rng.uniform(18, 95)
            c.path(f"M{rx:.1f} {ry:.1f} l-1.5 6", stroke="#a9d4f5", width=.9)
    elif name == "wilted":
        c.path(f"M{x:.1f} {y + s:.1f} Q{x:.1f} {y - s * 1.2:.1f} {x + s * .8:.1f} {y - s * .4:.1f}", stroke="#6d7a3a", width=2)
        for a in np.arange(0, 2 * np.pi, np.pi / 3):
            c.ellipse(x + s * .8 + s * .35 * np.cos(a), y - s * .1 + s * .35 * np.sin(a), s * .25, s * .25, "#9a6a78")
        c.circle(x + s * .8, y - s * .1, s * .22, "#5b4a2a", paint=True); c.path(poly([(x - s * .5, y + s * .4), (x + s * .5, y + s * .4), (x + s * .35, y + s * 1.1), (x - s * .35, y + s * 1.1)]), "#b0643c")
    elif name == "vase":
        c.path(poly([(x - s * .8, y + s), (x - s * .9, y + s * .1), (x - s * .5, y + s * .4), (x - s * .2, y - s * .2), (x + s * .2, y + s * .3), (x + s * .6, y), (x + s * .8, y + s)]), "#5a8fb8")
        for _ in range(5):
            px, py = x + rng.uniform(-1.5, 1.5) * s, y + s * rng.uniform(.7, 1.2)
            c.path(poly([(px, py), (px + s * .35, py - s * .1), (px + s * .15, py + s * .25)]), "#7fb0d4")
    elif name == "crash":
        body = col()
        c.path(poly([(x - s * 1.4, y + s * .6), (x - s * 1.4, y), (x - s * .8, y - s * .1), (x - s * .5, y - s * .7), (x + s * .5, y - s * .7), (x + s * .8, y), (x + s, y + s * .2), (x + s * .8, y + s * .6)]), body)
        c.path(poly([(x - s * .4, y - s * .1), (x - s * .25, y - s * .5), (x + s * .35, y - s * .5), (x + s * .5, y - s * .1)]), "#bfe0ef", paint=True)
        c.circle(x - s * .8, y + s * .65, s * .32, "#26262a"); c.circle(x + s * .5, y + s * .65, s * .32, "#26262a")
        for k in range(3):
            c.circle(x + s * (.9 + .2 * k), y - s * (.3 + .5 * k), s * (.25 + .1 * k), "#8b8b90", paint=True, extra='opacity=".75"')
    elif name == "graffiti":
        c.rect(x - s * 1.6, y - s * 1.6, s * 3.2, s * 2.7, "#b56b52", paint=True)
        for k in range(4):
            c.path(f"M{x - s * 1.6:.1f} {y + s * (-1 + .6 * k):.1f} h{s * 3.2:.1f}", stroke="#8d4f3c", width=.6)
        for _ in range(4):
            gx, gy = x + rng.uniform(-1.1, .7) * s, y + rng.uniform(-1.2, .5) * s
            c.path(f"M{gx:.1f} {gy:.1f} q{s * .5:.1f} {-s * .9:.1f} {s * .7:.1f} 0 t{s * .5:.1f} {s * .2:.1f}", stroke=rng.choice(("#39e06a", "#f23f9a", "#35d0f5", "#f7f03a")), width=2.6)


# ---------------------------------------------------------------- the subject

def head(c: Canvas, scene: Scene, x: float, y: float, r: float, rng: np.random.Generator, tint: str | None) -> str:
    """Body, ears, hair and head; returns the face's colour. `tint` colours the face (a green or red face)."""
    kind = scene.subject
    skin, hair, fur, cloth = (str(rng.choice(p)) for p in (SKIN, HAIR, FUR, PAINT))
    human = kind in ("girl", "boy", "woman", "man", "grandmother")
    colour = skin if human else fur if kind in ("cat", "dog", "bear") else "#f3e6cf" if kind == "egg" else str(rng.choice(PAINT))
    if tint:
        colour = mix(colour, tint, 0.6)
    c.path(f"M{x - r * .95:.1f} {y + r * 2.4:.1f} Q{x - r * .9:.1f} {y + r * .95:.1f} {x:.1f} {y + r * .9:.1f} Q{x + r * .9:.1f} {y + r * .95:.1f} {x + r * .95:.1f} {y + r * 2.4:.1f} Z",
           cloth if human else mix(colour, "#000000", .12))
    if kind == "girl":
        c.path(f"M{x - r * 1.15:.1f} {y + r * 1.1:.1f} Q{x - r * 1.4:.1f} {y - r * 1.35:.1f} {x:.1f} {y - r * 1.25:.1f} Q{x + r * 1.4:.1f} {y - r * 1.35:.1f} {x + r * 1.15:.1f} {y + r * 1.1:.1f} Z", hair)
    elif kind == "woman":
        c.circle(x, y - r * 1.2, r * .45, hair); c.circle(x, y - r * .12, r * 1.1, hair)
    elif kind == "grandmother":
        c.circle(x, y - r * .15, r * 1.12, "#d5d5da"); c.circle(x, y - r * 1.25, r * .35, "#d5d5da")
    elif kind in ("boy", "man"):
        c.circle(x - r, y + r * .1, r * .2, colour); c.circle(x + r, y + r * .1, r * .2, colour)
    elif kind == "cat":
        for side in (-1, 1):
            c.path(poly([(x + side * r * .95, y - r * .2), (x + side * r * .85, y - r * 1.35), (x + side * r * .2, y - r * .85)]), colour)
    elif kind == "dog":
        for side in (-1, 1):
            c.ellipse(x + side * r * 1.0, y + r * .05, r * .32, r * .75, mix(colour, "#2a1a10", .4))
    elif kind == "bear":
        for side in (-1, 1):
            c.circle(x + side * r * .75, y - r * .75, r * .36, colour)
    elif kind == "robot":
        c.path(f"M{x:.1f} {y - r:.1f} L{x:.1f} {y - r * 1.4:.1f}", stroke="#777", width=1.5); c.circle(x, y - r * 1.45, r * .14, "#f25c4a")
    elif kind == "cup":
        c.circle(x + r * 1.05, y + r * .1, r * .4, stroke=mix(colour, "#000000", .2), width=r * .18)
    if kind == "robot":
        c.rect(x - r, y - r * .95, 2 * r, 1.9 * r, colour, r * .25)
    elif kind == "cup":
        c.path(f"M{x - r:.1f} {y - r * .9:.1f} L{x + r:.1f} {y - r * .9:.1f} L{x + r * .85:.1f} {y + r * .95:.1f} Q{x:.1f} {y + r * 1.15:.1f} {x - r * .85:.1f} {y + r * .95:.1f} Z", colour)
        c.ellipse(x, y - r * .9, r, r * .18, "#6a4630")
    elif kind == "star":
        c.path(star(x, y, r * 1.5, 5, 0.66), colour)
    elif kind == "egg":
        c.path(f"M{x:.1f} {y - r * 1.3:.1f} C{x + r:.1f} {y - r * 1.3:.1f} {x + r * 1.2:.1f} {y + r:.1f} {x:.1f} {y + r * 1.02:.1f} C{x - r * 1.2:.1f} {y + r:.1f} {x - r:.1f} {y - r * 1.3:.1f} {x:.1f} {y - r * 1.3:.1f} Z", colour)
    else:
        c.ellipse(x, y, r, r * 1.02, colour)
    if kind in ("girl", "woman", "grandmother"):
        c.path(f"M{x - r * .98:.1f} {y - r * .2:.1f} Q{x - r * .6:.1f} {y - r * 1.25:.1f} {x:.1f} {y - r:.1f} Q{x + r * .6:.1f} {y - r * 1.25:.1f} {x + r * .98:.1f} {y - r * .2:.1f} Q{x + r * .5:.1f} {y - r * .75:.1f} {x:.1f} {y - r * .68:.1f} Q{x - r * .5:.1f} {y - r * .75:.1f} {x - r * .98:.1f} {y - r * .2:.1f} Z",
               "#d5d5da" if kind == "grandmother" else hair)
    elif kind in ("boy", "man"):
        c.path(f"M{x - r * 1.0:.1f} {y - r * .15:.1f} Q{x - r:.1f} {y - r * 1.3:.1f} {x:.1f} {y - r * 1.2:.1f} Q{x + r:.1f} {y - r * 1.3:.1f} {x + r:.1f} {y - r * .15:.1f} Q{x + r * .6:.1f} {y - r * .75:.1f} {x - r * .1:.1f} {y - r * .7:.1f} Q{x - r * .7:.1f} {y - r * .65:.1f} {x - r:.1f} {y - r * .15:.1f} Z", hair)
    elif kind == "cat":
        for side in (-1, 1):
            for k in (-.08, .1):
                c.path(f"M{x + side * r * .55:.1f} {y + r * .3:.1f} L{x + side * r * 1.15:.1f} {y + r * (.3 + 2 * k):.1f}", stroke=INK, width=.6)
    if kind in ("dog", "bear"):
        c.ellipse(x, y + r * .45, r * .52, r * .42, mix(colour, "#ffffff", .45), paint=not c.style.line_art)
    if kind in ("cat", "dog", "bear"):
        c.ellipse(x, y + r * .2, r * .13, r * .09, INK, paint=True)
    return colour


def face(c: Canvas, f: Face, scene: Scene, x: float, y: float, r: float, colour: str, rng: np.random.Generator) -> None:
    """Eyes, brows and mouth from the continuous expression; `r` is the head's radius."""
    ink = c.style.line_art or mix(INK, colour, 0.1 if not c.style.shaded else 0.0)
    w = max(c.style.outline, r * .055)
    ex, ey = r * .38, y - r * .12
    gaze = rng.uniform(-.06, .06) * r
    brow_colour = ink if c.style.line_art else mix(INK, "#7a5a3a", 0.3)
    for side in (-1, 1):
        cx = x + side * ex
        if f.eye_open < 0.3:  # a closed eye is an arc, bent up when the mouth smiles
            bend = -r * .16 if f.curve > 0 else r * .13
            c.path(f"M{cx - r * .18:.2f} {ey:.2f} Q{cx:.2f} {ey + bend:.2f} {cx + r * .18:.2f} {ey:.2f}", stroke=ink, width=w)
        else:
            h = r * .2 * f.eye_open
            if not c.style.line_art:
                c.ellipse(cx, ey, r * .19, h, "#fdfdfb", paint=True, stroke=ink, width=w * .55)
            else:
                c.ellipse(cx, ey, r * .19, h, stroke=ink, width=w * .7)
            pupil = r * (.115 if f.eye_open < 1.2 else .075)
            c.circle(cx + gaze, ey, min(pupil, h), "#1d1a24", paint=True)
        by = ey - r * (.36 + .13 * f.brow_height)
        tilt = f.brow_angle * r * .17
        c.path(f"M{cx - side * r * .21:.2f} {by + tilt:.2f} L{cx + side * r * .21:.2f} {by - tilt:.2f}", stroke=brow_colour, width=w * 1.15)
    if scene.subject == "grandmother":
        for side in (-1, 1):
            c.circle(x + side * ex, ey, r * .29, stroke=ink if c.style.line_art else "#5a5a66", width=w * .5)
    mx, my, mw = x, y + r * .52, r * .34
    lift = f.curve * r * .24
    if f.mouth == "wavy":
        c.path(f"M{mx - mw:.2f} {my:.2f} q{mw * .33:.2f} {-r * .16:.2f} {mw * .66:.2f} 0 t{mw * .66:.2f} 0 t{mw * .66:.2f} 0", stroke=ink, width=w)
        return
    if f.open > 0.15 or f.mouth != "plain":
        o = r * (.12 + .38 * f.open)
        narrow = mw * (1 - .35 * f.open * (1 - abs(f.curve)))
        top, bottom = my - o * .5 + lift * .2, my + o * .5 + lift * .2
        d = (f"M{mx - narrow:.2f} {my - lift * .55:.2f} Q{mx:.2f} {top - o * .15 + lift * .5:.2f} {mx + narrow:.2f} {my - lift * .55:.2f} "
             f"Q{mx + narrow * .8:.2f} {bottom + o * .35:.2f} {mx:.2f} {bottom + o * .3:.2f} Q{mx - narrow * .8:.2f} {bottom + o * .35:.2f} {mx - narrow:.2f} {my - lift * .55:.2f} Z")
        c.path(d, "#f6f3ee" if f.mouth == "teeth" else "#6d1f2a", paint=not c.style.line_art, stroke=ink, width=w * .8)
        if f.mouth == "teeth":
            c.path(f"M{mx - narrow * .8:.2f} {my + o * .12:.2f} h{narrow * 1.6:.2f} M{mx - narrow * .3:.2f} {top + o * .2:.2f} V{bottom + o * .1:.2f} M{mx + narrow * .3:.2f} {top + o * .2:.2f} V{bottom + o * .1:.2f}", stroke=ink, width=w * .45)
        if f.mouth == "tongue":
            c.path(f"M{mx - mw * .35:.2f} {bottom:.2f} v{r * .18:.2f} a{mw * .35:.2f} {mw * .35:.2f} 0 0 0 {mw * .7:.2f} 0 v{-r * .18:.2f} Z", "#ee6f86", paint=not c.style.line_art, stroke=ink, width=w * .6)
    else:
        c.path(f"M{mx - mw:.2f} {my - lift * .5:.2f} Q{mx:.2f} {my + lift:.2f} {mx + mw:.2f} {my - lift * .5:.2f}", stroke=ink, width=w)


TINTS = {"green": "#79b83e", "blush": None, "pallor": None}


def response(c: Canvas, name: str, x: float, y: float, r: float, rng: np.random.Generator) -> None:
    """The bodily response over the face and around the head; a green face is the head's own tint."""
    ex, ey = r * .38, y - r * .12
    if name == "tears":
        big = r * rng.uniform(.13, .2)
        for side in (-1, 1):
            for k in range(2):
                tx, ty = x + side * (ex + r * .12), ey + r * (.3 + .42 * k)
                c.path(f"M{tx:.2f} {ty - big * 1.3:.2f} Q{tx + big * 1.2:.2f} {ty + big * .4:.2f} {tx:.2f} {ty + big:.2f} Q{tx - big * 1.2:.2f} {ty + big * .4:.2f} {tx:.2f} {ty - big * 1.3:.2f} Z", "#4fb2ff", paint=True)
    elif name == "sweat":
        for dx, dy in ((-1.12, -.55), (1.12, -.5), (-1.3, .1))[: rng.integers(1, 4)]:
            tx, ty, big = x + dx * r, y + dy * r, r * .2
            c.path(f"M{tx:.2f} {ty - big * 1.5:.2f} Q{tx + big * 1.2:.2f} {ty + big * .4:.2f} {tx:.2f} {ty + big:.2f} Q{tx - big * 1.2:.2f} {ty + big * .4:.2f} {tx:.2f} {ty - big * 1.5:.2f} Z", "#8fd8ff", paint=True)
    elif name == "blush":
        for side in (-1, 1):
            c.ellipse(x + side * r * .62, y + r * .28, r * .22, r * .15, "#f2506a", paint=True, extra='opacity=".8"')
    elif name == "pallor":
        c.path(f"M{x - r * .85:.2f} {y - r * .3:.2f} Q{x:.2f} {y - r * 1.6:.2f} {x + r * .85:.2f} {y - r * .3:.2f} Q{x:.2f} {y - r * .55:.2f} {x - r * .85:.2f} {y - r * .3:.2f} Z", "#4f7fd0", paint=True, extra='opacity=".65"')
        for k in (-.4, -.13, .13, .4):
            c.path(f"M{x + k * r:.2f} {y - r * .78:.2f} v{r * .3:.2f}", stroke="#2f4f9a", width=r * .05)
    elif name == "steam":
        for side in (-1, 1):
            for k in range(3):
                c.circle(x + side * r * (1.15 + .28 * k), y - r * (.45 + .22 * k), r * (.16 + .06 * k), "#e9edf2", paint=True, stroke="#8d97a6", width=r * .05)
    elif name == "vein":
        vx, vy, s = x + r * .55, y - r * .72, r * .22
        for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            c.path(f"M{vx + sx * s * .25:.2f} {vy + sy * s:.2f} Q{vx + sx * s * .25:.2f} {vy + sy * s * .25:.2f} {vx + sx * s:.2f} {vy + sy * s * .25:.2f}", stroke="#d3202c", width=r * .1)
    elif name == "burst":
        for a in np.arange(12) * np.pi / 6 + .2:
            if -2.9 < np.arctan2(np.sin(a), np.cos(a)) < -.2 or rng.random() < .3:
                c.path(f"M{x + r * 1.4 * np.cos(a):.2f} {y + r * 1.4 * np.sin(a):.2f} L{x + r * 1.85 * np.cos(a):.2f} {y + r * 1.85 * np.sin(a):.2f}", stroke="#f5a623", width=r * .11)
    elif name == "tremble":
        for side in (-1, 1):
            for k in range(2):
                c.path(f"M{x + side * r * (1.2 + .2 * k):.2f} {y - r * .5:.2f} q{r * .12:.2f} {r * .17:.2f} 0 {r * .34:.2f} t0 {r * .34:.2f} t0 {r * .34:.2f}", stroke="#6c6c86", width=r * .07)
    elif name in ("hearts", "sparkles"):
        for dx, dy in ((-1.2, -.75), (1.2, -.7), (-1.35, .1), (1.35, .2))[: rng.integers(2, 5)]:
            s = r * rng.uniform(.2, .28)
            c.path(heart(x + dx * r, y + dy * r, s) if name == "hearts" else star(x + dx * r, y + dy * r, s * 1.3, 4, .35), "#f0405e" if name == "hearts" else "#ffd23a", paint=True)


# ---------------------------------------------------------------- the picture

def render(scene: Scene, domain: str, size: int = 64) -> Image.Image:
    """Draw `scene` as `domain` shows it: an RGB picture of `size` x `size` pixels, the same bytes on every run."""
    style, d, s = STYLES[domain], DOMAINS[domain], shown(scene, domain)
    rng = np.random.default_rng([5, scene.seed, list(DOMAINS).index(domain)])
    c = Canvas(style)
    r = 100 * rng.uniform(*d.head)
    beside = s.event not in (None, "fireworks", "beach", "rain", "storm")
    left = rng.random() < 0.5
    x = (100 - r * 1.3 if left else r * 1.3) if beside and style.scenery else 50 + rng.uniform(-8, 8) * style.scenery
    y = rng.uniform(44, 56) if style.scenery else 52 + rng.uniform(-3, 3)
    if style.scenery:
        background(c, scene, rng)
    if s.event:
        side = (rng.uniform(20, 30) if left else rng.uniform(70, 80)) if style.scenery else (15 if left else 85)
        scale = rng.uniform(11, 15) if style.scenery else 9
        event(c, s.event, side, (rng.uniform(28, 36) if s.event == "spider" else rng.uniform(56, 70)) if style.scenery else 80, scale, rng)
    c.group(f'transform="rotate({rng.uniform(-9, 9):.2f} {x:.2f} {y:.2f})"')
    if style.shaded:
        c.ellipse(x + r * .2, y + r * .25, r * 1.15, r * 1.2, "#000000", paint=True, extra='opacity=".28" filter="url(#soft)"')
    face_colour = head(c, s, x, y, r, rng, TINTS.get(s.response))
    face(c, s.face, s, x, y, r, face_colour, rng)
    if s.response:
        response(c, s.response, x, y, r, rng)
    c.end()
    pixels = rasterise(c, size)
    finish = {"photos": camera, "stickers": die_cut, "sketches": paper, "icons": plate}[domain]
    return finish(pixels, scene, size, rng)


def rasterise(c: Canvas, size: int) -> Image.Image:
    """SVG -> RGBA picture of `size` x `size`."""
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><defs><filter id="depth"><feGaussianBlur stdDeviation="1.6"/></filter>'
           f'<filter id="soft"><feGaussianBlur stdDeviation="2.5"/></filter>{"".join(c.defs)}</defs>{"".join(c.shapes)}</svg>')
    return Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True))).convert("RGBA")


def camera(picture: Image.Image, scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """A photo's optics: exposure, colour cast, vignette, a little blur and grain."""
    a = np.asarray(picture.convert("RGB").filter(ImageFilter.GaussianBlur(size * rng.uniform(0.0, 0.008))), np.float32) / 255
    dark = {"day": 1.0, "evening": 0.85, "night": 0.62}[scene.light]
    cast = np.array({"day": (1, 1, 1), "evening": (1.08, 0.97, 0.85), "night": (0.85, 0.93, 1.1)}[scene.light], np.float32)
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    vignette = 1 - 0.28 * (grid[:, None] ** 2 + grid[None] ** 2) * rng.uniform(0.3, 1.0)
    a = a * cast * (dark * rng.uniform(0.85, 1.12)) * vignette[..., None]
    a += rng.normal(0, rng.uniform(0.01, 0.03), (size, size, 1)) + rng.normal(0, 0.01, (size, size, 3))
    return Image.fromarray((np.clip(a, 0, 1) * 255).astype(np.uint8))


def die_cut(picture: Image.Image, scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """A sticker: white border around the drawing, a thin grey cut, on a plain sheet."""
    alpha = picture.getchannel("A").point(lambda v: 255 * (v > 96))
    border = alpha.filter(ImageFilter.MaxFilter(2 * round(size * 0.025) + 1))
    edge = border.filter(ImageFilter.MaxFilter(2 * max(1, round(size * 0.008)) + 1))
    sheet = Image.new("RGB", (size, size), rng.choice(("#ffffff", "#ffffff", "#fdf1dc", "#e6f2fb", "#f6e6f0", "#e9f5e4")))
    sheet.paste("#c3c6cc", mask=edge)
    sheet.paste("#ffffff", mask=border)
    sheet.paste(picture, mask=picture.getchannel("A"))
    return sheet


def paper(picture: Image.Image, scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """Pencil lines on paper."""
    sheet = np.full((size, size, 3), rng.uniform(0.9, 0.98), np.float32) * np.array((1, 0.99, rng.uniform(0.92, 1)), np.float32)
    ink = np.asarray(picture, np.float32) / 255
    a = sheet * (1 - ink[..., 3:]) + ink[..., :3] * ink[..., 3:] + rng.normal(0, 0.02, (size, size, 1))
    return Image.fromarray((np.clip(a, 0, 1) * 255).astype(np.uint8))


def plate(picture: Image.Image, scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """White lines on a dark plate."""
    sheet = Image.new("RGB", (size, size), rng.choice(("#23395b", "#3b2a4a", "#274036", "#4a2d2d", "#333740")))
    sheet.paste(picture, mask=picture.getchannel("A"))
    return sheet
