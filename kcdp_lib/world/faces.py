"""Draw a facial expression as eyes, brows, nose and mouth (chapter 01).

The head is around (x, y) with radius r. No function here depends on the emotion.
"""

import numpy as np

from .causes import Face
from .subjects import HUMANS
from .svg import Canvas, mix, pick, poly

IRIS = ("#4a2f1c", "#6b4a2a", "#3f6a8a", "#4d7a52", "#2c2420", "#7a5a34")
T = np.linspace(-1, 1, 13)  # along the mouth, from corner to corner


def features(
    c: Canvas,
    face: Face,
    brows: bool,
    subject: str,
    x: float,
    y: float,
    r: float,
    colour: str,
    natural: float,
    rng: np.random.Generator,
) -> None:
    """Draw the expression on a head of `colour`.

    natural: 1 for features as a camera sees them (lids, iris, lips), 0 for ink.
    """
    human = subject in HUMANS
    width = max(c.outline * 0.85, r * 0.055)
    ink = mix(c.ink, colour, 0.2 * natural)
    iris, eye_kind, side = (
        pick(IRIS, rng),
        int(rng.integers(4)),
        1.0 if rng.random() < 0.5 else -1.0,
    )
    if human and natural > 0:
        nose(c, x, y, r, colour, natural)
    if face.wrinkle > 0.15:
        wrinkles(c, face.wrinkle, x, y, r, mix(colour, "#2a1812", 0.35 + 0.4 * face.wrinkle), width)
    for s in (-1, 1):
        eye(
            c,
            face,
            s,
            x + s * r * 0.38,
            y - r * 0.10,
            r,
            colour,
            ink,
            iris,
            eye_kind,
            natural,
            width,
        )
        if brows:
            brow(
                c,
                face,
                s,
                x + s * r * 0.38,
                y - r * 0.10,
                r,
                mix(ink, "#6a4428", 0.35 * natural),
                width,
            )
    mouth(
        c,
        face,
        x,
        y + r * 0.52,
        r,
        side,
        ink,
        mix(ink, mix(colour, "#a8323a", 0.6), 0.75 * natural * human),
        width,
    )


def nose(c: Canvas, x: float, y: float, r: float, colour: str, natural: float) -> None:
    """Draw the shaded side of a nose and its wings."""
    dark = mix(colour, "#3a1d12", 0.35)
    c.path(
        f"M{x + r * 0.05:.2f} {y - r * 0.05:.2f} Q{x + r * 0.17:.2f} {y + r * 0.22:.2f} "
        f"{x + r * 0.02:.2f} {y + r * 0.26:.2f}",
        line=dark,
        width=r * 0.05,
        opacity=0.6 * natural,
    )
    c.ellipse(x, y + r * 0.24, r * 0.11, r * 0.05, dark, detail=True, opacity=0.45 * natural)


def wrinkles(
    c: Canvas, strength: float, x: float, y: float, r: float, colour: str, width: float
) -> None:
    """Draw folds across the bridge of the nose, and from its wings down to the mouth."""
    for k in (0, 1):
        h = r * (-0.02 + 0.12 * k)
        c.path(
            f"M{x - r * 0.14:.2f} {y + h:.2f} Q{x:.2f} {y + h - r * 0.09:.2f} {x + r * 0.14:.2f} "
            f"{y + h:.2f}",
            line=colour,
            width=width * 0.8,
            opacity=min(1, 0.3 + strength),
        )
    if strength > 0.45:
        for s in (-1, 1):
            c.path(
                f"M{x + s * r * 0.17:.2f} {y + r * 0.2:.2f} Q{x + s * r * 0.4:.2f} "
                f"{y + r * 0.27:.2f} {x + s * r * 0.46:.2f} {y + r * 0.48:.2f}",
                line=colour,
                width=width * 0.7,
                opacity=min(1, strength),
            )


def eye(
    c: Canvas,
    face: Face,
    s: int,
    cx: float,
    cy: float,
    r: float,
    colour: str,
    ink: str,
    iris: str,
    kind: int,
    natural: float,
    width: float,
) -> None:
    """Draw one eye, s = -1 left, 1 right.

    In ink its `kind` is a black dot, a white ball or a large ball; a natural eye is an almond with
    an iris.
    """
    w = r * (0.20 if kind == 2 else 0.17)
    if face.eye_open < 0.25:  # a closed eye is an arc, bent up by raised cheeks
        bend = r * (0.13 - 0.5 * min(face.squint, 0.6))
        c.path(
            f"M{cx - w:.2f} {cy:.2f} Q{cx:.2f} {cy + bend * 1.6:.2f} {cx + w:.2f} {cy:.2f}",
            line=ink,
            width=width,
        )
        return
    up = r * 0.2 * face.eye_open * (1 - 0.12 * natural)
    down = r * 0.2 * min(face.eye_open, 1.25) * (1 - 0.75 * face.squint) * (1 - 0.12 * natural)
    white = max(natural, float(kind != 0))  # a dot eye has no white
    almond = (
        f"M{cx - w:.2f} {cy:.2f} C{cx - w:.2f} {cy - up * 1.3:.2f} {cx + w:.2f} "
        f"{cy - up * 1.3:.2f} {cx + w:.2f} {cy:.2f} "
        f"C{cx + w:.2f} {cy + down * 1.3:.2f} {cx - w:.2f} {cy + down * 1.3:.2f} {cx - w:.2f} "
        f"{cy:.2f} Z"
    )
    px, py = cx + r * 0.075 * face.gaze_x, cy + r * 0.06 * face.gaze_y - (up - down) * 0.3
    if white < 0.5:
        c.ellipse(px, py, r * 0.115, max((up + down) * 0.42, r * 0.03), ink, detail=True)
        c.circle(px - r * 0.035, py - up * 0.3, r * 0.035, "#ffffff", detail=True)
        return
    clip = f"e{len(c.shapes)}"
    c.defs[clip] = (clip, f'<clipPath id="{clip}"><path d="{almond}"/></clipPath>')
    c.path(almond, mix(colour, "#fdfcf8", white), line=ink, width=width * (0.75 - 0.3 * natural))
    c.group(f'clip-path="url(#{clip})"')
    pupil = r * (0.13 if kind == 2 else 0.11) * (1.1 if face.eye_open < 1.2 else 0.8)
    c.circle(px, py, pupil * (1 + 0.15 * natural), mix(ink, iris, natural), detail=True)
    c.circle(px, py, pupil * (1 - 0.4 * natural), "#17141c", detail=True)
    c.circle(px - pupil * 0.35, py - pupil * 0.4, pupil * 0.3, "#ffffff", detail=True)
    c.end()
    c.path(
        f"M{cx - w * 1.05:.2f} {cy:.2f} C{cx - w:.2f} {cy - up * 1.3:.2f} {cx + w:.2f} "
        f"{cy - up * 1.3:.2f} {cx + w * 1.05:.2f} {cy:.2f}",
        line=ink,
        width=width,
    )
    if face.squint > 0.3:
        c.path(
            f"M{cx - w:.2f} {cy + down + r * 0.09:.2f} Q{cx:.2f} {cy + down + r * 0.13:.2f} "
            f"{cx + w:.2f} {cy + down + r * 0.09:.2f}",
            line=mix(colour, "#2a1812", 0.4),
            width=width * 0.6,
            opacity=face.squint,
        )


def brow(
    c: Canvas, face: Face, s: int, cx: float, cy: float, r: float, colour: str, width: float
) -> None:
    """Draw one brow, s = -1 left, 1 right."""
    by, tilt = cy - r * (0.33 + 0.14 * face.brow_height), face.brow_angle * r * 0.19
    inner, outer = cx - s * r * 0.21, cx + s * r * 0.22
    c.path(
        f"M{inner:.2f} {by + tilt:.2f} Q{cx:.2f} {by - r * 0.05:.2f} {outer:.2f} "
        f"{by - tilt + r * 0.03:.2f}",
        line=colour,
        width=width * 1.35,
    )


def lips(face: Face, r: float, side: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return offsets from the mouth's middle: xs [P], upper and lower lip's ys [P], P = 13.

    The sneer is on `side`.
    """
    roundness = face.open * (1 - min(abs(face.curve) * 1.2, 1))
    half = r * (0.33 + 0.05 * abs(face.curve)) * (1 - 0.42 * roundness)
    middle = -face.curve * r * 0.24 * (T**2 - 0.45) + face.wobble * r * 0.06 * np.sin(3 * np.pi * T)
    gap, bulge = r * 0.58 * face.open, np.sqrt(np.clip(1 - T**2, 0, 1))
    raised = face.sneer * r * 0.16 * np.exp(-(((T - 0.55 * side) / 0.4) ** 2))
    upper = middle - bulge * gap * (0.38 - 0.25 * max(face.curve, 0)) - raised
    lower = middle + bulge * gap * (0.62 - 0.15 * max(-face.curve, 0))
    return half * T, upper, lower


def mouth(
    c: Canvas,
    face: Face,
    x: float,
    y: float,
    r: float,
    side: float,
    ink: str,
    lip: str,
    width: float,
) -> None:
    """Draw the mouth: a line if closed, else a dark opening with teeth and tongue."""
    xs, upper, lower = lips(face, r, side)
    xs, upper, lower = x + xs, y + upper, y + lower
    parted = face.open > 0.07 or face.teeth > 0.45 or face.sneer > 0.5
    if parted and face.open < 0.25:  # room for clenched teeth or a bared corner
        room = (
            r
            * 0.30
            * max(face.teeth, face.sneer * 0.6)
            * (0.25 - face.open)
            / 0.25
            * np.sqrt(np.clip(1 - T**2, 0, 1))
        )
        upper, lower = upper - room * 0.4, lower + room * 0.6
    if not parted:
        c.line(zip(xs, (upper + lower) / 2, strict=True), lip, width * 1.1)
    else:
        outline = list(zip(xs, upper, strict=True)) + list(zip(xs[::-1], lower[::-1], strict=True))
        c.path(
            poly(outline),
            "#5e1a24" if face.open > 0.2 or face.teeth + face.sneer < 0.3 else "#fbf8f1",
            line=lip,
            width=width,
            detail=True,
        )
        if face.teeth > 0.12:
            share = min(1.0, face.teeth * (0.55 if face.open > 0.3 else 1.1))
            bite = upper + (lower - upper) * share
            c.path(
                poly(
                    list(zip(xs[1:-1], upper[1:-1], strict=True))
                    + list(zip(xs[-2:0:-1], bite[-2:0:-1], strict=True))
                ),
                "#fbf8f1",
                detail=True,
            )
            if share > 0.6:
                c.line(zip(xs[1:-1], (upper + bite)[1:-1] / 2, strict=True), ink, width * 0.4)
                for k in (3, 6, 9):
                    c.line(((xs[k], upper[k]), (xs[k], bite[k])), ink, width * 0.4)
        elif face.open > 0.35:
            c.ellipse(
                x,
                (lower[6] * 0.72 + upper[6] * 0.28),
                r * 0.16,
                (lower[6] - upper[6]) * 0.2,
                "#d8606c",
                detail=True,
            )
        c.line(outline + outline[:1], lip, width)
    if face.tongue > 0.2:
        top, w, h = lower[6] - r * 0.03, r * 0.15, r * 0.34 * face.tongue
        c.path(
            f"M{x - w:.2f} {top:.2f} V{top + h * 0.6:.2f} A{w:.2f} {w:.2f} 0 0 0 {x + w:.2f} "
            f"{top + h * 0.6:.2f} V{top:.2f} Z",
            "#ea6f84",
            line=lip,
            width=width * 0.7,
            detail=True,
        )
        c.line(((x, top + h * 0.1), (x, top + h * 0.6)), "#b94a60", width * 0.5)
