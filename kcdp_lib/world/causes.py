"""The built-in world's causal model: structural equations with explicit noise (chapter 01).

    emotion -> event, facial expression, bodily response          (`EVENTS`, `FACES`, `RESPONSES`)
    domain and dials -> which of them are shown, and how strongly  (`DOMAINS`, `Dials`)
    all of these, looks, place, light, camera -> picture           (`render.py`)

Every cause is a function of its parents and of random numbers drawn once for a scene, from (split,
seed, index) alone. An intervention sets one cause and evaluates the rest again with the same
numbers, so only what depends on it changes: a counterfactual in Pearl's sense, for pictures.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from ..errors import KCDPError

# The world's emotions are EmoSet's eight. The paper's six classes are unions of them: awe and
# excitement are surprise, amusement and contentment are happy.
EIGHT = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
SIX = ("surprise", "happy", "disgust", "fear", "sadness", "anger")
TAXONOMIES = {"six": SIX, "eight": EIGHT}
SIX_OF = {"amusement": "happy", "awe": "surprise", "contentment": "happy", "excitement": "surprise"}
# Words for the classes of both taxonomies. The world's captions never contain them, and
# pre-training never pairs them with a picture of a benchmark domain.
EMOTION_WORDS = {
    "surprise": ("surprise", "surprised", "astonished", "amazed"),
    "happy": ("happy", "joyful", "glad", "cheerful"),
    "disgust": ("disgust", "disgusted", "nauseated", "revolted"),
    "fear": ("fear", "afraid", "scared", "terrified"),
    "sadness": ("sadness", "sad", "unhappy", "gloomy"),
    "anger": ("anger", "angry", "furious", "annoyed"),
    "amusement": ("amusement", "amused", "laughing", "entertained"),
    "contentment": ("contentment", "contented", "peaceful", "satisfied"),
    "awe": ("awe", "awed", "awestruck", "marvelling"),
    "excitement": ("excitement", "excited", "thrilled", "exhilarated"),
}

SUBJECTS = (
    "girl",
    "boy",
    "woman",
    "man",
    "grandmother",
    "grandfather",
    "cat",
    "dog",
    "bear",
    "rabbit",
    "monkey",
    "robot",
    "egg",
    "cup",
    "star",
    "ball",
)
PLACES = ("room", "street", "park", "field", "kitchen", "library")
LIGHTS = ("noon", "overcast", "golden", "dusk", "night", "lamp")
LIGHT_SHARES = (0.3, 0.2, 0.15, 0.12, 0.08, 0.15)
SPLITS = {
    "train": 0,
    "test": 1,
    "pretrain": 2,
}  # "pretrain" is for the miniature models only


@dataclass(frozen=True)
class Face:
    """A facial expression; the defaults are a face at rest."""

    curve: float = 0.0  # corners of the mouth, -1 down .. 1 up
    open: float = 0.0  # opening of the mouth, 0 .. 1
    teeth: float = 0.0  # teeth shown, 0 .. 1
    tongue: float = 0.0  # tongue out, 0 .. 1
    wobble: float = 0.0  # a wavy lip, 0 .. 1
    sneer: float = 0.0  # one side of the upper lip raised, 0 .. 1
    brow_angle: float = 0.0  # -1 inner ends up .. 1 inner ends down
    brow_height: float = 0.0  # -1 low .. 1 high
    eye_open: float = 1.0  # 0 closed .. 1.6 wide
    squint: float = 0.0  # lower lids and cheeks raised, 0 .. 1
    wrinkle: float = 0.0  # wrinkled nose, 0 .. 1
    gaze_x: float = 0.0  # -1 left .. 1 right
    gaze_y: float = 0.0  # -1 up .. 1 down


FEATURES = tuple(field.name for field in fields(Face))


def numbers(face: Face) -> np.ndarray:
    """Return a face as a vector [F], F = 13, in the order of `FEATURES`."""
    return np.array([getattr(face, name) for name in FEATURES])


REST = numbers(Face())
LOWEST = np.array([-1, 0, 0, 0, 0, 0, -1, -1, 0, 0, 0, -1, -1])
HIGHEST = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1.6, 1, 1, 1, 1])


@dataclass(frozen=True)
class Looks:
    """The subject's looks; independent of the emotion (tests/test_world.py).

    The five numbers, 0 .. 1, choose colours and accessories in `subjects.py`.
    """

    subject: str
    skin: float
    hair: float
    style: float
    cloth: float
    accessory: float


class Chance(NamedTuple):
    """All random numbers of a scene: drawn once, kept under every intervention."""

    uniform: dict[str, float]  # by the name of the cause that it decides, 0 .. 1
    manner: tuple[
        float, ...
    ]  # standard normal, the person's manner of showing an emotion, one for each of `FEATURES`
    rest: tuple[float, ...]  # standard normal, the same face at rest
    seed: int  # for the drawing: clutter, framing, grain


@dataclass(frozen=True)
class Scene:
    """All causes of one picture."""

    emotion: str  # one of `EIGHT`
    undertone: str | None  # a second emotion mixed into the face
    intensity: float  # of the emotion, 0 .. 1
    looks: Looks
    face: Face
    event: str
    response: str | None
    place: str
    light: str
    chance: Chance


def label_of(emotion: str, taxonomy: str = "six") -> str:
    """Return the class of one of EmoSet's eight emotions in a taxonomy, "six" or "eight"."""
    return SIX_OF.get(emotion, emotion) if taxonomy == "six" else emotion


# Faces that show an emotion at full intensity. A frown may be sadness, anger, disgust or fear, an
# open mouth nearly anything: brows, lids and nose decide.
FACES = {
    "amusement": (
        Face(0.8, 0.65, teeth=0.6, eye_open=0.2, squint=0.9, brow_height=0.2),
        Face(0.85, 0.35, teeth=0.9, eye_open=0.7, squint=0.8),
        Face(0.7, 0.8, tongue=0.4, eye_open=0.1, squint=0.8, brow_height=0.3),
        Face(0.6, 0.1, teeth=0.2, eye_open=0.6, squint=0.7, gaze_x=0.5),
    ),
    "awe": (
        Face(0.0, 0.7, brow_height=0.9, eye_open=1.4, gaze_y=-0.5),
        Face(0.05, 0.3, brow_height=0.8, eye_open=1.35, brow_angle=-0.1),
        Face(-0.05, 0.95, brow_height=0.95, eye_open=1.5),
        Face(0.15, 0.15, brow_height=0.7, eye_open=1.3, gaze_y=-0.7),
    ),
    "contentment": (
        Face(0.6, 0.0, eye_open=0.8, squint=0.3),
        Face(0.55, 0.0, eye_open=0.12, squint=0.4, brow_height=0.1),
        Face(0.75, 0.0, eye_open=0.9, squint=0.4, gaze_y=0.2),
        Face(0.45, 0.12, eye_open=0.7, squint=0.3),
    ),
    "excitement": (
        Face(0.7, 0.8, teeth=0.5, brow_height=0.8, eye_open=1.4),
        Face(0.8, 0.5, teeth=0.8, brow_height=0.7, eye_open=1.3),
        Face(0.5, 0.9, tongue=0.3, brow_height=0.9, eye_open=1.45),
        Face(0.6, 0.3, brow_height=0.7, eye_open=1.35, gaze_x=-0.4),
    ),
    "anger": (
        Face(-0.6, 0.0, brow_angle=0.9, brow_height=-0.6, eye_open=0.8),
        Face(-0.35, 0.5, teeth=0.9, brow_angle=0.9, brow_height=-0.6, eye_open=0.85, sneer=0.3),
        Face(-0.5, 0.85, teeth=0.3, brow_angle=0.9, brow_height=-0.5, eye_open=1.0),
        Face(-0.45, 0.05, brow_angle=0.8, brow_height=-0.7, eye_open=0.55, gaze_x=0.4),
    ),
    "disgust": (
        Face(
            -0.5,
            0.4,
            tongue=0.9,
            wrinkle=0.7,
            brow_angle=0.35,
            brow_height=-0.3,
            eye_open=0.45,
            squint=0.5,
        ),
        Face(
            -0.55,
            0.05,
            wobble=0.5,
            wrinkle=0.9,
            sneer=0.7,
            brow_angle=0.3,
            brow_height=-0.2,
            eye_open=0.5,
            squint=0.4,
            gaze_x=0.6,
        ),
        Face(
            -0.65,
            0.0,
            wrinkle=0.8,
            sneer=0.4,
            brow_angle=0.25,
            brow_height=-0.1,
            eye_open=0.35,
            squint=0.6,
        ),
        Face(
            -0.4,
            0.45,
            teeth=0.5,
            wrinkle=1.0,
            sneer=0.8,
            brow_angle=0.4,
            brow_height=-0.3,
            eye_open=0.4,
            squint=0.6,
            gaze_x=-0.5,
        ),
    ),
    "fear": (
        Face(-0.35, 0.6, brow_angle=-0.7, brow_height=0.6, eye_open=1.45),
        Face(-0.3, 0.4, teeth=0.9, brow_angle=-0.8, brow_height=0.5, eye_open=1.4),
        Face(-0.25, 0.15, wobble=0.9, brow_angle=-0.7, brow_height=0.6, eye_open=1.35, gaze_x=0.5),
        Face(-0.5, 0.05, brow_angle=-0.6, brow_height=0.5, eye_open=1.3, gaze_x=-0.6),
    ),
    "sadness": (
        Face(-0.8, 0.0, brow_angle=-0.8, brow_height=0.1, eye_open=0.65, gaze_y=0.5),
        Face(-0.75, 0.6, teeth=0.2, brow_angle=-0.8, brow_height=0.1, eye_open=0.1, squint=0.4),
        Face(-0.6, 0.0, brow_angle=-0.6, eye_open=0.12),
        Face(-0.55, 0.05, wobble=0.6, brow_angle=-0.8, brow_height=0.2, eye_open=0.8, gaze_y=0.4),
    ),
}
# standard deviations of a person's manner, for every feature at full intensity; and of the face at
# rest, which exaggeration does not scale
NOISE = np.array([0.2, 0.15, 0.18, 0.14, 0.17, 0.17, 0.22, 0.22, 0.15, 0.18, 0.18, 0.35, 0.35])
REST_NOISE = np.array([0.08, 0.03, 0, 0, 0.03, 0.03, 0.1, 0.1, 0.07, 0.06, 0.04, 0.15, 0.12])

# event -> (caption phrase, relative frequency by emotion)
EVENTS = {
    "waterfall": ("before a huge waterfall", {"awe": 2, "contentment": 0.6}),
    "rainbow": ("under a rainbow", {"awe": 1.2, "contentment": 1, "excitement": 0.3}),
    "stars": ("under falling stars", {"awe": 2, "contentment": 0.4, "sadness": 0.2}),
    "hat": ("watching a rabbit in a hat", {"awe": 1.5, "amusement": 1}),
    "gift": (
        "opening a gift box",
        {"excitement": 2, "amusement": 0.6, "contentment": 0.4, "awe": 0.3},
    ),
    "fireworks": ("under fireworks", {"excitement": 1.6, "awe": 1, "fear": 0.2}),
    "trophy": ("holding a gold trophy", {"excitement": 2, "contentment": 0.5}),
    "balloons": ("with party balloons", {"amusement": 1, "excitement": 1, "contentment": 0.4}),
    "cake": (
        "beside a birthday cake",
        {"amusement": 1.5, "contentment": 1, "excitement": 1, "sadness": 0.2},
    ),
    "jackbox": ("beside a jack in the box", {"amusement": 2, "excitement": 0.6, "fear": 0.5}),
    "beach": ("on a sunny beach", {"contentment": 2, "excitement": 0.5}),
    "teapot": ("beside a steaming teapot", {"contentment": 2, "sadness": 0.2}),
    "flowers": ("among flowers", {"contentment": 1.5, "sadness": 0.3, "awe": 0.3}),
    "crash": ("beside a crashed car", {"anger": 2, "fear": 0.7, "sadness": 0.4}),
    "vase": ("beside a broken vase", {"anger": 1.5, "sadness": 1, "fear": 0.2}),
    "graffiti": ("in front of a painted wall", {"anger": 1.6, "disgust": 0.4, "amusement": 0.3}),
    "laptop": ("beside a broken laptop", {"anger": 2, "sadness": 0.5}),
    "garbage": ("beside a garbage bin with flies", {"disgust": 3, "anger": 0.5}),
    "rotten": ("in front of a rotten apple", {"disgust": 2, "sadness": 0.2}),
    "slime": ("in front of green slime", {"disgust": 2, "amusement": 0.4, "fear": 0.3}),
    "bugs": ("in front of a plate of bugs", {"disgust": 2, "fear": 0.5}),
    "monster": ("in front of a shadow monster", {"fear": 3, "excitement": 0.2}),
    "spider": ("under a hanging spider", {"fear": 2, "disgust": 0.8}),
    "storm": ("in a lightning storm", {"fear": 2, "awe": 0.6, "sadness": 0.4, "anger": 0.2}),
    "snake": ("in front of a snake", {"fear": 2, "disgust": 0.4, "awe": 0.3}),
    "grave": ("beside a grave", {"sadness": 3, "fear": 0.5}),
    "rain": ("under a rain cloud", {"sadness": 2, "contentment": 0.2, "anger": 0.3}),
    "wilted": ("beside a wilted flower", {"sadness": 2, "disgust": 0.2}),
    "icecream": ("beside a fallen ice cream", {"sadness": 1.5, "anger": 1}),
}

# response -> (caption phrase, P(response | emotion) at full intensity); the remaining probability
# is "no response"
RESPONSES = {
    "tears": (
        "shedding tears",
        {"sadness": 0.42, "amusement": 0.20, "fear": 0.10, "anger": 0.05, "awe": 0.06},
    ),
    "sweat": (
        "dripping sweat",
        {
            "fear": 0.22,
            "anger": 0.06,
            "disgust": 0.12,
            "excitement": 0.08,
            "amusement": 0.06,
            "sadness": 0.05,
        },
    ),
    "blush": (
        "with red cheeks",
        {
            "contentment": 0.28,
            "amusement": 0.12,
            "excitement": 0.14,
            "awe": 0.10,
            "anger": 0.04,
            "sadness": 0.05,
        },
    ),
    "red": (
        "with a red face",
        {"anger": 0.28, "disgust": 0.06, "amusement": 0.08, "excitement": 0.04},
    ),
    "green": ("with a green face", {"disgust": 0.30, "fear": 0.07, "sadness": 0.03}),
    "pallor": (
        "with a blue forehead",
        {"fear": 0.22, "sadness": 0.14, "disgust": 0.14, "awe": 0.05},
    ),
    "steam": ("blowing steam", {"anger": 0.20, "disgust": 0.04}),
    "vein": ("with a bulging vein", {"anger": 0.12}),
    "tremble": ("trembling", {"fear": 0.18, "anger": 0.06, "excitement": 0.06, "sadness": 0.06}),
    "burst": (
        "surrounded by burst lines",
        {"awe": 0.28, "excitement": 0.22, "fear": 0.12, "anger": 0.06},
    ),
    "hearts": (
        "surrounded by hearts",
        {"contentment": 0.20, "awe": 0.09, "excitement": 0.07, "amusement": 0.04},
    ),
    "sparkles": (
        "surrounded by sparkles",
        {"excitement": 0.18, "awe": 0.18, "contentment": 0.12, "amusement": 0.04},
    ),
    "notes": ("with music notes", {"amusement": 0.16, "contentment": 0.14, "excitement": 0.06}),
    "swirls": (
        "with dizzy swirls",
        {"disgust": 0.16, "fear": 0.06, "sadness": 0.06, "amusement": 0.05},
    ),
    "scribble": ("under a dark scribble", {"anger": 0.06, "sadness": 0.12, "disgust": 0.12}),
}


# ---------------------------------------------------------------- domains and dials


@dataclass(frozen=True)
class Domain:
    """What a domain shows. Its drawing style is in `render.py`."""

    word: str  # its name in captions
    prior: tuple[float, ...]  # P(emotion), in the order of `EIGHT`
    event: float  # P(the event is in the picture)
    response: float  # P(a response is in the picture, if there is one)
    strength: tuple[float, float]  # range of the factor on the expression
    bare: float  # P(no brows are drawn): simplification
    humans: float  # P(the subject is human)


EVEN = (1 / 8,) * 8
DOMAINS = {
    # Photos carry the event and a subtle face, stickers the exaggerated face and the response
    # (paper, introduction). EmoSet's eight classes are about equally frequent. Of SER30K's six, 56%
    # are happy and 1% disgust by published recalls; the rest is our guess.
    "photos": Domain("photo", EVEN, 0.90, 0.15, (0.40, 0.75), 0.0, 0.75),
    "stickers": Domain(
        "sticker",
        (0.30, 0.05, 0.26, 0.06, 0.12, 0.01, 0.06, 0.14),
        0.06,
        0.80,
        (0.90, 1.35),
        0.12,
        0.30,
    ),
    "sketches": Domain(
        "sketch",
        (0.15, 0.10, 0.15, 0.10, 0.15, 0.08, 0.12, 0.15),
        0.40,
        0.50,
        (0.65, 1.10),
        0.05,
        0.50,
    ),
    "paintings": Domain(
        "painting",
        (0.08, 0.17, 0.20, 0.08, 0.10, 0.07, 0.12, 0.18),
        0.65,
        0.25,
        (0.50, 0.90),
        0.0,
        0.65,
    ),
    # not a benchmark domain: the only one whose captions name emotions in pre-training (chapter
    # "The miniature models")
    "icons": Domain("icon", EVEN, 0.0, 0.5, (0.90, 1.20), 0.0, 0.0),
}
BENCHMARK = ("photos", "stickers", "sketches", "paintings")
SOURCE = "photos"


@dataclass(frozen=True)
class Dials:
    """How far the domains lie apart, 0 (the domain is like photos) to 1 each, and a trap.

    With the first four at 0 every domain is like photos. The default of prior_shift is 0.7, so that
    the rarest class has about fifty of 1,200 test stickers.
    """

    style_gap: float = 1.0  # rendering
    expression_gap: float = 1.0  # strength of the face, missing brows, share of human subjects
    event_gap: float = 1.0  # whether event and response are in the picture
    prior_shift: float = 0.7  # how often each emotion occurs
    spurious: float = 0.0  # share of the source's pictures whose light is set by their class

    def felt_by(self, domain: str) -> "Dials":
        """Return the dials that affect a domain, the others at their defaults.

        The trap affects only the source, the gaps only the other domains.
        """
        return Dials(spurious=self.spurious) if domain == SOURCE else replace(self, spurious=0.0)

    def check(self) -> "Dials":
        """Return self; KCDPError if a dial is not a number from 0 to 1."""
        for name, value in asdict(self).items():
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise KCDPError(f"{name}={value!r} must be a number from 0 to 1.")
        return self


def read_dials(text: str) -> Dials:
    """Parse dials from text, "style_gap=0.5, spurious=1".

    Dials that are not named keep their defaults ("" is the default world).

    Raises KCDPError naming an unknown dial or a wrong value.
    """
    told = {}
    for part in filter(None, (part.strip() for part in str(text).split(","))):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in Dials.__dataclass_fields__:
            raise KCDPError(
                f"There is no dial {name!r}; choose among {', '.join(Dials.__dataclass_fields__)}."
            )
        try:
            told[name] = float(value)
        except ValueError:
            raise KCDPError(f"{name}={value!r} must be a number from 0 to 1.") from None
    return Dials(**told).check()


def between(a, b, t: float):
    """Interpolate from `a` (t = 0) to `b` (t = 1), for numbers and tuples of them.

    The result at 0 is exactly `a`, so that a closed gap leaves no trace.
    """
    if isinstance(a, tuple):
        return tuple(between(x, y, t) for x, y in zip(a, b, strict=True))
    return a if t == 0 else b if t == 1 else a + (b - a) * t


def _known(domain: str) -> None:
    if domain not in DOMAINS:
        raise KCDPError(
            f"There is no domain {domain!r} in the world; choose one of {', '.join(DOMAINS)}."
        )


def domain_at(name: str, dials: Dials) -> Domain:
    """Return a domain moved towards photos by the dials. KCDPError for an unknown domain."""
    _known(name)
    near, far = DOMAINS[SOURCE], DOMAINS[name]
    gaps = {
        "prior": dials.prior_shift,
        "event": dials.event_gap,
        "response": dials.event_gap,
        "strength": dials.expression_gap,
        "bare": dials.expression_gap,
        "humans": dials.expression_gap,
    }
    return replace(
        far,
        word=far.word if dials.style_gap > 0 else near.word,
        **{
            field: between(getattr(near, field), getattr(far, field), gap)
            for field, gap in gaps.items()
        },
    )


# ---------------------------------------------------------------- the structural equations

CHOICES = (
    "emotion",
    "undertone",
    "intensity",
    "way",
    "event",
    "response",
    "human",
    "subject",
    "skin",
    "hair",
    "style",
    "cloth",
    "accessory",
    "place",
    "light",
    "tie",
    "show_event",
    "show_response",
    "strength",
    "bare",
)


def chance(split: str, seed: int, index: int, domain: str = SOURCE) -> Chance:
    """Draw the random numbers of scene `index`; no two domains or splits share a scene.

    Raises KCDPError for an unknown split or domain.
    """
    if split not in SPLITS:
        raise KCDPError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    _known(domain)
    rng = np.random.default_rng([SPLITS[split], list(DOMAINS).index(domain), seed, index])
    return Chance(
        dict(zip(CHOICES, rng.random(len(CHOICES)).tolist(), strict=True)),
        tuple(rng.standard_normal(len(FEATURES)).tolist()),
        tuple(rng.standard_normal(len(FEATURES)).tolist()),
        int(rng.integers(2**31)),
    )


def choose(weights: dict, u: float):
    """Return the key at quantile u of {key: weight}."""
    total, reached = sum(weights.values()), 0.0
    for key, weight in weights.items():
        reached += weight / total
        if u < reached:
            return key
    return key


def given(table: dict, emotion: str) -> dict[str, float]:
    """Return {cause: weight} of an emotion's events or responses."""
    return {name: weights[emotion] for name, (_, weights) in table.items() if emotion in weights}


def response_given(emotion: str, intensity: float) -> dict[str | None, float]:
    """Return P(response | emotion, intensity); None is "no response".

    At intensity 0 responses are half as frequent as at 1.
    """
    shares = {name: p * (0.5 + 0.5 * intensity) for name, p in given(RESPONSES, emotion).items()}
    return {**shares, None: 1 - sum(shares.values())}


def expression(emotion: str, undertone: str | None, intensity: float, noise: Chance) -> Face:
    """Return one of the emotion's faces in the person's manner, scaled by intensity.

    The undertone's first face may be mixed in. Values are not clipped yet, because domains scale
    them.
    """
    ways = FACES[emotion]
    proto = numbers(ways[int(noise.uniform["way"] * len(ways))])
    if undertone:
        proto = 0.65 * proto + 0.35 * numbers(FACES[undertone][0])
    return Face(*(REST + intensity * (proto - REST + NOISE * noise.manner)).tolist())


def scene_of(noise: Chance, domain: str = SOURCE, dials: Dials = Dials(), **do) -> Scene:
    """Evaluate all causes of a picture of `domain` from its random numbers.

    `do` sets any of emotion, undertone, intensity, looks, face, event, response, place, light.
    """
    d, u = domain_at(domain, dials), noise.uniform
    emotion = do.get("emotion") or choose(dict(zip(EIGHT, d.prior, strict=True)), u["emotion"])
    others = [name for name in EIGHT if label_of(name) != label_of(emotion)]
    undertone = others[int(u["undertone"] / 0.15 * len(others))] if u["undertone"] < 0.15 else None
    intensity = do.get("intensity", 0.4 + 0.6 * u["intensity"] ** 0.6)
    kinds = SUBJECTS[:6] if u["human"] < d.humans else SUBJECTS[6:]
    looks = Looks(
        kinds[int(u["subject"] * len(kinds))],
        u["skin"],
        u["hair"],
        u["style"],
        u["cloth"],
        u["accessory"],
    )
    tied = domain == SOURCE and u["tie"] < dials.spurious
    found = dict(
        undertone=undertone,
        intensity=intensity,
        looks=looks,
        place=PLACES[int(u["place"] * len(PLACES))],
        light=LIGHTS[SIX.index(label_of(emotion))]
        if tied
        else choose(dict(zip(LIGHTS, LIGHT_SHARES, strict=True)), u["light"]),
        event=choose(given(EVENTS, emotion), u["event"]),
        response=choose(response_given(emotion, intensity), u["response"]),
    )
    found |= {
        "face": expression(emotion, do.get("undertone", undertone), intensity, noise),
        **do,
        "emotion": emotion,
    }
    return Scene(chance=noise, **found)


def sample_scene(
    split: str, seed: int, index: int, domain: str = SOURCE, dials: Dials = Dials()
) -> Scene:
    """Return scene `index` of a domain's split. KCDPError for an unknown split or domain."""
    return scene_of(chance(split, seed, index, domain), domain, dials)


def intervene(scene: Scene, **do) -> Scene:
    """Return the scene under do(emotion="anger"), do(event="grave"), do(response=None) ....

    What depends on the intervention is evaluated again with the same random numbers; all else
    stays. For do(domain), draw the scene in another domain.

    Raises KCDPError for a cause or value that does not exist.
    """
    known = {
        "emotion": EIGHT,
        "event": (*EVENTS, None),
        "response": (*RESPONSES, None),
        "place": PLACES,
        "light": LIGHTS,
        "undertone": (*EIGHT, None),
    }
    for cause, value in do.items():
        if cause not in Scene.__dataclass_fields__ or cause == "chance":
            raise KCDPError(
                f"There is no cause {cause!r}; choose among "
                f"{', '.join(name for name in Scene.__dataclass_fields__ if name != 'chance')}."
            )
        if cause in known and value not in known[cause]:
            raise KCDPError(
                f"{cause}={value!r} is not in the world; choose one of "
                f"{', '.join(map(str, known[cause]))}."
            )
    kept = {
        name: getattr(scene, name)
        for name in ("emotion", "undertone", "intensity", "looks", "place", "light")
    }
    if (
        not {"emotion", "undertone", "intensity"} & do.keys()
    ):  # no parent was set, so earlier interventions stay
        kept |= {name: getattr(scene, name) for name in ("face", "event", "response")}
    return scene_of(scene.chance, **(kept | do))


# ----------------------------------------------- what a picture shows, and its caption


@dataclass(frozen=True)
class Shown:
    """The visible part of a scene in a domain: the face as drawn, with clipped values.

    event and response are None if they are hidden.
    """

    face: Face
    brows: bool
    event: str | None
    response: str | None


def shown(scene: Scene, domain: str, dials: Dials = Dials()) -> Shown:
    """Return what `domain` shows of the scene."""
    d, u = domain_at(domain, dials), scene.chance.uniform
    low, high = d.strength
    drawn = (
        REST
        + (low + (high - low) * u["strength"]) * (numbers(scene.face) - REST)
        + REST_NOISE * scene.chance.rest
    )
    face = Face(*np.clip(drawn, LOWEST, HIGHEST).round(4).tolist())
    brows = bool(u["bare"] >= d.bare)
    return Shown(
        face if brows else replace(face, brow_angle=0.0, brow_height=0.0),
        brows,
        scene.event if u["show_event"] < d.event else None,
        scene.response if u["show_response"] < d.response else None,
    )


def mouth_of(face: Face) -> str | None:
    """Return the phrase for a mouth, as coarse as a captioner's; None for an ordinary one."""
    if face.tongue > 0.45:
        return "the tongue out"
    if face.open > 0.3:
        return "a big smile" if face.curve > 0.3 else "an open mouth"
    return "a smile" if face.curve > 0.25 else "a frown" if face.curve < -0.25 else None


def eyes_of(face: Face) -> str | None:
    """Return the phrase for wide or closed eyes, None for others."""
    return "wide eyes" if face.eye_open > 1.25 else "closed eyes" if face.eye_open < 0.25 else None


def visible_attributes(scene: Scene, domain: str, dials: Dials = Dials()) -> dict[str, str]:
    """Return what an ordinary captioner names in the picture.

    {kind: phrase}, kinds subject, mouth, eyes, response, event.

    It is coarse on purpose: degrees, brows, lids, nose, gaze and lip are left to the perception
    model (a frown may be sadness, anger, disgust or fear).
    """
    s = shown(scene, domain, dials)
    found = {
        "subject": scene.looks.subject,
        "mouth": mouth_of(s.face),
        "eyes": eyes_of(s.face),
        "response": s.response and RESPONSES[s.response][0],
        "event": s.event and EVENTS[s.event][0],
    }
    return {kind: phrase for kind, phrase in found.items() if phrase}


def with_article(noun: str) -> str:
    """Return a noun with its article: "a cat", "an egg"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(word: str, who: str, seen: dict[str, str]) -> str:
    """Write a caption from a medium ("photo"), a subject ("cat") and other visible attributes."""
    face = " and ".join(seen[kind] for kind in ("mouth", "eyes") if kind in seen)
    parts = [
        f"{with_article(word)} of {with_article(who)}" + (f" with {face}" if face else ""),
        *(seen[kind] for kind in ("response", "event") if kind in seen),
    ]
    return " , ".join(parts) + " ."


def caption(scene: Scene, domain: str, dials: Dials = Dials()) -> str:
    """Write one English sentence about the picture, without a word that names an emotion.

    It is for pre-training and for tests of the captioner only; no method receives it.
    """
    return sentence(
        domain_at(domain, dials).word, scene.looks.subject, visible_attributes(scene, domain, dials)
    )


def metadata(scene: Scene, domain: str, dials: Dials = Dials()) -> dict:
    """Return the causes as a JSON record.

    It holds those of the scene (`emotion` is one of `EIGHT`), and under `shown` what the domain
    shows.
    """
    causes = {name: value for name, value in asdict(scene).items() if name != "chance"}
    return {**causes, "shown": asdict(shown(scene, domain, dials))}
