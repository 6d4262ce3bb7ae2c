"""Draw on a canvas of 100 x 100 units.

SVG shapes take their outline and shading from a style; resvg rasterises them at any size.
"""

import io
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import resvg_py
from PIL import Image

INK = "#2b2430"
PAINT = (
    "#e3574d",
    "#4d8fe3",
    "#58b368",
    "#f0b63c",
    "#9a64c8",
    "#38b6b0",
    "#ef8fb0",
    "#f4e3c1",
    "#c9d4de",
    "#ef8a3c",
)


@lru_cache(maxsize=4096)
def mix(a: str, b: str, t: float) -> str:
    """Return the colour between hex colours `a` (t = 0) and `b` (t = 1)."""
    x, y = bytes.fromhex(a[1:]), bytes.fromhex(b[1:])
    return "#" + "".join(f"{round(v + (w - v) * t):02x}" for v, w in zip(x, y, strict=True))


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """Return a random one of `options` (numpy's own choice is slow for words)."""
    return options[int(rng.random() * len(options))]


class Canvas:
    """A list of SVG shapes.

    All lengths are canvas units, x to the right, y down.

    outline: width of the ink line around shapes, 0 = none; shading: strength of the light on them,
    0 flat .. 1; ink: the line's colour. A shape with `detail=True` is a small filled mark (a pupil,
    a candle) without outline or shading.
    """

    def __init__(self, outline: float = 0.0, shading: float = 0.0, ink: str = INK):
        self.outline, self.shading, self.ink, self.shapes, self.defs = outline, shading, ink, [], {}

    def add(
        self,
        shape: str,
        fill: str = "none",
        line: str | None = None,
        width: float = 1.0,
        detail: bool = False,
        opacity: float = 1.0,
        extra: str = "",
    ) -> None:
        """Add `shape`, an SVG element without its end ("<circle cx=..").

        `line` and `width` replace the style's outline by a stroke of the shape's own.
        """
        if line is None and fill != "none" and self.outline and not detail:
            line, width = self.ink, self.outline
        if fill.startswith("#") and self.shading and not detail:
            fill = self.lit(fill)
        stroke = (
            f' stroke="{line}" stroke-width="{width:.2f}" stroke-linecap="round" '
            'stroke-linejoin="round"'
            if line
            else ""
        )
        faint = f' opacity="{opacity:.2f}"' if opacity < 1 else ""
        self.shapes.append(f'{shape} fill="{fill}"{stroke}{faint} {extra}/>')

    def lit(self, colour: str) -> str:
        """Return a gradient of `colour` with light from the upper left."""
        name, s = f"g{len(self.defs)}", self.shading
        if colour not in self.defs:
            self.defs[colour] = (
                name,
                f'<radialGradient id="{name}" cx=".36" cy=".3" r=".85"><stop offset="0" '
                f'stop-color="{mix(colour, "#ffffff", 0.3 * s)}"/>'
                f'<stop offset=".55" stop-color="{colour}"/><stop offset="1" '
                f'stop-color="{mix(colour, "#1c120d", 0.5 * s)}"/></radialGradient>',
            )
        return f"url(#{self.defs[colour][0]})"

    def circle(self, x, y, r, fill="none", **kw):
        """Add a circle around (x, y)."""
        self.add(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{r:.2f}"', fill, **kw)

    def ellipse(self, x, y, rx, ry, fill="none", **kw):
        """Add an upright ellipse around (x, y) with half axes rx and ry."""
        self.add(f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{rx:.2f}" ry="{ry:.2f}"', fill, **kw)

    def rect(self, x, y, w, h, fill="none", r=0.0, **kw):
        """Add a rectangle with its upper left corner at (x, y); r rounds the corners."""
        self.add(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" rx="{r:.2f}"',
            fill,
            **kw,
        )

    def path(self, d, fill="none", **kw):
        """Add a shape by SVG's path commands; `at` scales and moves a path."""
        self.add(f'<path d="{d}"', fill, **kw)

    def line(self, points: Iterable, colour: str, width: float, **kw):
        """Add a line through points [(x, y), ...]."""
        self.path(
            "M" + " L".join(f"{x:.2f} {y:.2f}" for x, y in points), line=colour, width=width, **kw
        )

    def group(self, attributes: str):
        """Open a group with SVG attributes (an opacity, a rotation) for the shapes up to `end`."""
        self.shapes.append(f"<g {attributes}>")

    def end(self):
        """Close the last open group."""
        self.shapes.append("</g>")

    def raster(self, size: int) -> Image.Image:
        """Return the drawing as RGBA, size x size pixels, the same bytes on every run."""
        defs = "".join(definition for _, definition in self.defs.values())
        head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
        svg = f"{head}<defs>{defs}</defs>{''.join(self.shapes)}</svg>"
        return Image.open(
            io.BytesIO(
                resvg_py.svg_to_bytes(
                    svg_string=svg, width=size, height=size, skip_system_fonts=True
                )
            ),
            formats=("PNG",),
        ).convert("RGBA")


def at(x: float, y: float, s: float, d: str) -> str:
    """Move an SVG path of absolute commands M, L, C, Q and Z to (x, y), scaled by s.

    `at(50, 50, 10, "M-1 0 Q0 -1 1 0 Z")`.
    """
    out, is_x = [], True
    for word in d.replace(",", " ").split():
        command = word[0] if word[0].isalpha() else ""
        if command:
            is_x = True
        number = word[len(command) :]
        if number:
            out.append(f"{command}{(x if is_x else y) + s * float(number):.2f}")
            is_x = not is_x
        else:
            out.append(command)
    return " ".join(out)


def poly(points) -> str:
    """Return the SVG path through points [(x, y), ...], closed."""
    return "M" + " L".join(f"{x:.2f} {y:.2f}" for x, y in points) + " Z"


def star(x, y, r, n=5, inner=0.45, turn=-np.pi / 2) -> str:
    """Return the SVG path of a star with n points around (x, y).

    Its radius is r outside and inner * r inside; turn: the first point's direction in radians.
    """
    angles = turn + np.arange(2 * n) * np.pi / n
    radii = np.where(np.arange(2 * n) % 2, r * inner, r)
    return poly(zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True))


def heart(x, y, r) -> str:
    """Return the SVG path of a heart around (x, y), about 2 r high."""
    return at(x, y, r, "M0 1 C-2 -.3 -.8 -1.4 0 -.4 C.8 -1.4 2 -.3 0 1 Z")


def drop(x, y, r) -> str:
    """Return the SVG path of a falling drop around (x, y), about 2 r high."""
    return at(x, y, r, "M0 -1.3 Q1.2 .4 0 1 Q-1.2 .4 0 -1.3 Z")
