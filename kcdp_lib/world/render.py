"""Draw a picture from its causes (chapter 01).

Three layers of SVG (place, event, subject) are lit, composed, and finished as a photo, a die-cut
sticker, a pencil sketch or a painting.

A domain's drawing style is a `Style`, a list of numbers; the dial `style_gap` moves them from the
photos' to the domain's own. All lengths are in canvas units or relative to the picture's side, so a
picture looks the same at every size.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from . import scenery
from .causes import SOURCE, Dials, Scene, between, shown
from .events import WIDE, event
from .faces import features
from .responses import TINTS, response
from .subjects import before, behind, muzzle
from .svg import PAINT, Canvas, mix, pick


@dataclass(frozen=True)
class Style:
    """A drawing style; shares are 0 .. 1."""

    outline: float  # width of the ink line, canvas units
    flat_light: float  # strength of the gradient on every shape
    relief: float  # share of the light that models head and body as round, and of their shadow
    natural: float  # share of the camera's view of features, as opposed to ink
    scenery: float  # opacity of the place behind the subject
    optics: float  # depth blur, grain, vignette, colour of the light
    cut: float  # white border of a die-cut sticker
    pencil: float  # share of pencil and hatching in place of colour
    brush: float  # size of brush strokes
    vivid: float  # saturation, 1 = unchanged
    head: tuple[float, float]  # range of the head's radius
    sway: float  # how far the head may be from the middle
    body: float  # P(shoulders are drawn)
    letters: float  # P(a word is written)
    object_size: float  # of the event's object


STYLES = {
    "photos": Style(
        0.0, 0.9, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.95, (21.0, 28.0), 9.0, 1.0, 0.0, 13.0
    ),
    "stickers": Style(
        2.1, 0.3, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.1, (26.0, 34.0), 2.0, 0.5, 0.12, 9.5
    ),
    "sketches": Style(
        1.2, 0.6, 0.35, 0.1, 0.45, 0.0, 0.0, 1.0, 0.0, 1.0, (24.0, 32.0), 5.0, 0.8, 0.0, 11.0
    ),
    "paintings": Style(
        0.0, 0.9, 0.8, 0.55, 1.0, 0.25, 0.0, 0.0, 1.0, 1.35, (22.0, 30.0), 7.0, 1.0, 0.0, 13.0
    ),
    "icons": Style(
        2.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (27.0, 33.0), 2.0, 0.0, 0.0, 9.5
    ),
}
STYLE_FIELDS = tuple(field.name for field in fields(Style))
SHEETS = ("#ffffff", "#ffffff", "#fdf1dc", "#e6f2fb", "#f6e6f0", "#e9f5e4", "#ececf4")

# light -> (colour, brightness, direction towards the light, strength of the direction)
LIGHT = {
    "noon": ((1.0, 1.0, 0.98), 1.0, (-0.3, -0.8), 0.8),
    "overcast": ((0.96, 0.99, 1.03), 0.9, (0.0, -0.5), 0.35),
    "golden": ((1.14, 0.98, 0.78), 0.95, (-0.9, -0.3), 1.0),
    "dusk": ((0.97, 0.85, 1.02), 0.74, (0.8, -0.3), 0.7),
    "night": ((0.72, 0.84, 1.15), 0.55, (0.5, -0.7), 0.8),
    "lamp": ((1.15, 0.95, 0.70), 0.82, (0.8, -0.6), 1.1),
}


def style_of(domain: str, gap: float, rng: np.random.Generator) -> Style:
    """Return the domain's style for one picture, moved towards the photos' by 1 - gap.

    Stickers vary among themselves, as if by several makers.
    """
    far, maker = STYLES[domain], rng.random(4)
    if domain == "stickers":  # thick, thin or no ink; flat or shaded; cut out or not
        changed = dict(
            outline=(0.0, 1.4, 2.1, 2.7)[int(maker[0] * 4)],
            flat_light=(0.0, 0.35, 0.8)[int(maker[1] * 3)],
            cut=float(maker[2] < 0.7),
            vivid=0.9 + 0.4 * maker[3],
        )
        far = replace(far, **changed)
    near = STYLES[SOURCE]
    return Style(
        **{name: between(getattr(near, name), getattr(far, name), gap) for name in STYLE_FIELDS}
    )


@lru_cache(maxsize=4)
def fractal(size: int) -> np.ndarray:
    """Return a seamless tile of fractal noise, float32 [size, size].

    It has mean 0 and standard deviation 1, and is the same at every size except for the finest
    detail.
    """
    rng, total = np.random.default_rng(11), np.zeros((size, size), np.float32)
    for cells, weight in ((4, 1.0), (8, 0.7), (16, 0.5), (32, 0.35), (64, 0.25)):
        total += weight * ndimage.zoom(
            rng.standard_normal((cells, cells)).astype(np.float32),
            size / cells,
            order=3,
            mode="grid-wrap",
            grid_mode=True,
        )
    return (total - total.mean()) / total.std()


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return fractal noise [size, size], a different part of the tile for every picture."""
    return np.roll(fractal(size), tuple((rng.random(2) * size).astype(int)), (0, 1))


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Blur [S, S] or [S, S, C] float32 by a Gaussian of sigma pixels."""
    spread = (sigma, sigma, 0)[: values.ndim]
    return ndimage.gaussian_filter(values, spread, mode="nearest", truncate=2.5)


def relief(alpha: np.ndarray, toward: tuple[float, float], size: int) -> np.ndarray:
    """Return the light on a silhouette inflated like a cushion: alpha [S, S] -> factor [S, S].

    The factor is around 1; `toward` points to the light.
    """
    height = blur(alpha, size * 0.055) + 0.6 * blur(alpha, size * 0.02)
    dy, dx = np.gradient(height, 100 / size)
    return 1 - 5.5 * (
        dx * toward[0] + dy * toward[1]
    )  # the gradient points inwards, and a side that faces the light points outwards


def render(
    scene: Scene, domain: str, size: int = 64, dials: Dials = Dials(), without: str | None = None
) -> Image.Image:
    """Draw `scene` as `domain` shows it.

    An RGB picture of size x size pixels, the same bytes on every run.

    `without` removes "event" or "response" from the finished composition. All else keeps its place,
    so that the difference shows where the cause is drawn (chapter 03).
    """
    seen = shown(scene, domain, dials)
    frame, look, clutter, finish = (
        np.random.default_rng([key, scene.chance.seed]) for key in range(4)
    )  # separate, so that the layers' random numbers are independent
    style = style_of(domain, dials.style_gap, frame)
    x, y, r, side = framing(style, seen.event, frame)
    tone = light_of(scene, style)

    picture = background(scene, seen.event, style, size, clutter)
    if seen.event:
        c = Canvas(style.outline, style.flat_light)
        ex, ey, s = place_of_event(seen.event, style, side, frame)
        if without != "event":
            event(c, seen.event, ex, ey, s, np.random.default_rng([4, scene.chance.seed]))
        layer = pixels(c, size)
        if seen.event not in WIDE:
            picture = shadow(picture, layer, style, tone, size)
        picture = over(picture, layer)
    c = Canvas(style.outline, style.flat_light)
    c.group(f'transform="rotate({frame.uniform(-9, 9):.2f} {x:.2f} {y:.2f})"')
    told = seen.response if without != "response" else None
    colour = behind(c, scene.looks, x, y, r, TINTS.get(told), body=frame.random() < style.body)
    muzzle(c, scene.looks, x, y, r, colour)
    features(c, seen.face, seen.brows, scene.looks.subject, x, y, r, colour, style.natural, look)
    before(c, scene.looks, x, y, r, colour)
    if told:
        response(c, told, x, y, r, np.random.default_rng([5, scene.chance.seed]))
    c.end()
    if frame.random() < style.letters:
        scenery.letters(c, frame)
    subject = pixels(c, size)
    picture = shadow(picture, subject, style, tone, size)
    if style.relief:
        subject[..., :3] *= (
            1
            + style.relief
            * (relief(subject[..., 3], tone.toward, size) * (1 + 0.03 * texture(size, look)) - 1)[
                ..., None
            ]
        )
    if style.cut:
        picture = cut_out(picture, subject[..., 3], style.cut, size)
    picture = over(picture, subject)
    if style.scenery and clutter.random() < 0.3:
        picture = occluder(picture, style, size, clutter)
    return finished(picture, subject[..., 3:], style, tone, size, finish)


@dataclass(frozen=True)
class Tone:
    """The light of one picture."""

    colour: np.ndarray  # [C], factors on red, green and blue
    brightness: float
    toward: tuple[float, float]  # direction towards the light, x and y


def light_of(scene: Scene, style: Style) -> Tone:
    """Return the light, as far as the style shows it."""
    colour, brightness, toward, directed = LIGHT[scene.light]
    return Tone(
        1 + style.optics * (np.array(colour, np.float32) - 1),
        1 + style.optics * (brightness - 1),
        (toward[0] * directed, toward[1] * directed),
    )


def framing(
    style: Style, seen_event: str | None, rng: np.random.Generator
) -> tuple[float, float, float, int]:
    """Return middle and radius of the head, and the side of the event's object, -1 or 1 (right)."""
    where, side = rng.uniform(-1, 1, 3), 1 if rng.random() < 0.5 else -1
    low, high = style.head
    r = low + (high - low) * (where[2] + 1) / 2
    x = 50 + style.sway * where[0]
    if seen_event not in (
        None,
        *WIDE,
    ):  # a photographer leaves room for the object, a designer does not
        x = between(50.0, 50 - side * (50 - r * 1.3), style.scenery)
    return x, 50 + style.sway * 0.5 * where[1], r, side


def place_of_event(
    name: str, style: Style, side: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return middle and size of the event's object.

    It is beside the subject in a place, and small at its foot on a plain sheet.
    """
    a, b, c = rng.uniform(-1, 1, 3)
    high = 32.0 if name == "spider" else 64 + 6 * b
    return (
        between(50 + 36.0 * side, 50 + side * (26 + 4 * a), style.scenery),
        between(82.0, high, style.scenery),
        style.object_size * (1 + 0.15 * c),
    )


def pixels(c: Canvas, size: int, coarse: bool = False) -> np.ndarray:
    """Rasterise the canvas as float32 [S, S, 4], 0 .. 1.

    `coarse` draws half the pixels, which is faster and enough for a layer that will be blurred.
    """
    drawn = (
        c.raster(size // 2).resize((size, size), Image.Resampling.BICUBIC)
        if coarse
        else c.raster(size)
    )
    return np.asarray(drawn, np.float32) / 255


def over(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Lay an RGBA layer [S, S, 4] over a picture [S, S, 3]."""
    alpha = layer[..., 3:]
    return picture * (1 - alpha) + layer[..., :3] * alpha


def flat(colour: str, size: int) -> np.ndarray:
    """Return a picture [S, S, 3] of one hex colour."""
    return np.broadcast_to(
        np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255, (size, size, 3)
    ).copy()


def background(
    scene: Scene, seen_event: str | None, style: Style, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the place, out of focus, over a plain sheet [S, S, 3]."""
    sheet = flat(pick(SHEETS, rng), size)
    if not style.scenery:
        return sheet
    c = Canvas(
        style.outline * 0.6
    )  # flat, because gradients take most of the time and would be out of focus
    scenery.place(c, scene.place, rng)
    place = pixels(c, size, coarse=style.optics > 0)[..., :3] * (
        1 + 0.07 * style.relief * texture(size, rng)[..., None]
    )
    if style.optics:
        place = blur(place, size * 0.017 * style.optics)
    return sheet + style.scenery * (place - sheet)


def shadow(
    picture: np.ndarray, layer: np.ndarray, style: Style, tone: Tone, size: int
) -> np.ndarray:
    """Cast the shadow of a layer [S, S, 4] on the picture [S, S, 3] behind it."""
    if not style.relief:
        return picture
    dx, dy = (-direction * size * 0.05 for direction in tone.toward)
    dark = ndimage.shift(blur(layer[..., 3], size * 0.025), (dy, dx), order=1, mode="nearest")
    return picture * (1 - 0.45 * style.relief * dark)[..., None]


def cut_out(picture: np.ndarray, alpha: np.ndarray, strength: float, size: int) -> np.ndarray:
    """Draw the white border of a die-cut sticker, and the thin grey line of the cut.

    Both are drawn on a picture [S, S, 3], around the sticker's alpha [S, S].
    """
    solid = alpha > 0.4
    reach = ndimage.distance_transform_edt(~solid).astype(np.float32) * (
        100 / size
    )  # distance from the drawing in canvas units

    def soft(edge: float) -> np.ndarray:
        return np.clip((edge - reach) * size / 100 + 0.5, 0, 1)[..., None] * strength

    picture = picture * (1 - soft(4.4)) + 0.72 * soft(4.4)
    return picture * (1 - soft(3.4)) + soft(3.4)


def occluder(picture: np.ndarray, style: Style, size: int, rng: np.random.Generator) -> np.ndarray:
    """Add an object close to the camera, out of focus, at the edge of a picture [S, S, 3].

    It never covers the face.
    """
    colour = flat(mix(pick(PAINT, rng), "#2a2620", 0.45), size)
    x, y = 50 + (1 if rng.random() < 0.5 else -1) * rng.uniform(38, 56), rng.uniform(88, 104)
    wide, high = rng.uniform(14, 24), rng.uniform(9, 16)
    line = (np.arange(size, dtype=np.float32) + 0.5) * (100 / size)
    depth = 1 - np.hypot(
        (line[None] - x) / wide, (line[:, None] - y) / high
    )  # 1 in the middle, 0 on the edge
    alpha = (np.clip(depth * 2.5 + 0.5, 0, 1) * 0.9 * style.scenery)[..., None]
    return picture * (1 - alpha) + colour * alpha


def finished(
    picture: np.ndarray,
    subject: np.ndarray,
    style: Style,
    tone: Tone,
    size: int,
    rng: np.random.Generator,
) -> Image.Image:
    """Apply brush, pencil, colours and camera to a picture [S, S, 3], and convert to eight bits.

    Each as far as the style has it. The subject [S, S, 1] gets a finer brush.
    """
    if style.brush:
        picture = painted(picture, style.brush * (1 - 0.5 * subject), size, rng)
    if style.pencil:
        picture = pencilled(picture, style.pencil, size, rng)
    grey = picture.mean(-1, keepdims=True)
    picture = grey + (picture - grey) * style.vivid
    if style.optics:
        picture = photographed(picture * tone.colour * tone.brightness, style.optics, size, rng)
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def photographed(
    picture: np.ndarray, strength: float, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Apply a camera's exposure, softness, vignette and grain to a picture [S, S, 3]."""
    exposure, softness, corner, iso = rng.random(4)
    picture = blur(picture, strength * size * (0.002 + 0.004 * softness)) * (
        1 + strength * 0.25 * (exposure - 0.5)
    )
    line = np.linspace(-1, 1, size, dtype=np.float32)
    picture = (
        picture
        * (1 - strength * (0.05 + 0.2 * corner) * (line[:, None] ** 2 + line[None] ** 2))[..., None]
    )
    cells = min(
        size, 160
    )  # grain has a size of its own: at 512 pixels it is not finer than the film's
    grain = rng.standard_normal((cells, cells, 1)).astype(np.float32) + 0.5 * rng.standard_normal(
        (cells, cells, 3)
    ).astype(np.float32)
    if cells < size:
        grain = ndimage.zoom(grain, (size / cells, size / cells, 1), order=1)
    return picture + strength * (0.004 + 0.014 * iso) * grain


def warped(picture: np.ndarray, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Move every pixel of a picture [S, S, 3] by smooth noise, up to about `reach` pixels.

    This imitates an unsteady hand.
    """
    size = len(picture)
    rows, columns = np.indices((size, size))
    dy, dx = (np.rint(reach * texture(size, rng)).astype(int) for _ in range(2))
    return picture[np.clip(rows + dy, 0, size - 1), np.clip(columns + dx, 0, size - 1)]


def painted(
    picture: np.ndarray, strength: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Turn a picture [S, S, 3] into brush strokes of a limited palette on canvas.

    strength [S, S, 1], 0 .. 1, sets how far. It uses Kuwahara's filter: of four neighbouring
    squares the one with the least variance gives the colour.
    """
    reach = max(1, round(size * 0.014))
    mean, luma = (
        ndimage.uniform_filter(picture, (reach + 1, reach + 1, 1), mode="nearest"),
        picture.mean(-1),
    )
    spread = (
        ndimage.uniform_filter(luma**2, reach + 1, mode="nearest")
        - ndimage.uniform_filter(luma, reach + 1, mode="nearest") ** 2
    )
    half = (reach + 1) // 2
    moved = [(dy, dx) for dy in (-half, half) for dx in (-half, half)]

    def shifted(plane: np.ndarray, step: tuple[int, int]) -> np.ndarray:
        padding = ((half, half), (half, half), (0, 0))[: plane.ndim]
        padded = np.pad(plane, padding, mode="edge")
        return padded[half + step[0] :, half + step[1] :][:size, :size]

    calm = np.argmin([shifted(spread, step) for step in moved], 0)
    strokes = np.choose(calm[..., None], [shifted(mean, step) for step in moved])
    strokes = warped(strokes, size * 0.004, rng)
    strokes = picture + strength * (0.5 * strokes + 0.5 * np.round(strokes * 9) / 9 - picture)
    weave = (
        texture(size, rng) * 0.03
        + 0.02 * np.sin(np.arange(size) * 2 * np.pi * 100 / (2.2 * size))[:, None]
    )
    return strokes * (1 + strength * weave[..., None]).astype(np.float32) + strength * np.float32(
        0.02
    ) * np.array((1, 0.5, -0.5), np.float32)


def pencilled(
    picture: np.ndarray, strength: float, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Turn a picture [S, S, 3] into graphite on paper.

    Contours stay dark, colours fade, shade becomes hatching.
    """
    picture = warped(picture, size * 0.004, rng)
    luma = picture.mean(-1, keepdims=True)
    line = np.arange(size, dtype=np.float32) * (100 / size)
    angle, gap = rng.uniform(0.5, 1.0), rng.uniform(4.6, 6.2)  # wide enough for 64 pixels
    strokes = 0.5 + 0.5 * np.sin((line[:, None] * angle + line[None]) * 2 * np.pi / gap)[..., None]
    shade = np.clip((0.72 - luma) * 1.4, 0, 1)
    ink = np.clip((0.32 - luma) * 3.2, 0, 1)
    graphite = 0.95 - np.maximum(0.45 * shade * strokes, 0.72 * ink) - 0.06 * (1 - luma)
    tint = rng.uniform(0.0, 0.25)
    drawn = (
        graphite
        + tint * (picture - luma)
        + 0.018 * texture(size, rng)[..., None]
        + np.array((0.0, -0.005, -0.02 * rng.random()), np.float32)
    )
    return picture + strength * (drawn - picture)
