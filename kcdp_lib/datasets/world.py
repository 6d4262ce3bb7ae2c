"""The built-in world: a causal model of pictures with an emotion (chapter 01).

    emotion -> event, facial expression, bodily response        (the causes, drawn once a scene)
    domain  -> which of them are shown, and how strongly         (`DOMAINS`)
    causes, domain, subject, light, camera -> picture            (`render.py`)

The same scene can be drawn in every domain and under every emotion, so true counterfactuals of a *picture* exist here.
Every picture is a function of (domain, split, seed, index) and nothing else.
"""
from dataclasses import asdict, dataclass, replace

import numpy as np

from ..errors import KCDPError

EMOTIONS = ("surprise", "happy", "disgust", "fear", "sadness", "anger")
SUBJECTS = ("girl", "boy", "woman", "man", "grandmother", "cat", "dog", "bear", "robot", "egg", "cup", "star")
SPLITS = {"train": 0, "test": 1, "pretrain": 2}  # "pretrain" feeds the miniature foundation models only


@dataclass(frozen=True)
class Face:
    """A facial expression. All values are at full strength; the domain's `expression` scales them towards rest."""
    curve: float = 0.0        # mouth corners, -1 down .. 1 up
    open: float = 0.0         # mouth opening, 0 .. 1
    brow_angle: float = 0.0   # -1 inner ends up .. 1 inner ends down
    brow_height: float = 0.0  # -1 low .. 1 high
    eye_open: float = 1.0     # 0 closed .. 1.5 wide
    mouth: str = "plain"      # plain, teeth, tongue or wavy


@dataclass(frozen=True)
class Scene:
    """Everything that causes one picture. `seed` fixes what is left to chance in the drawing (colours, clutter, grain)."""
    emotion: str
    subject: str
    face: Face
    event: str | None
    response: str | None
    place: str
    light: str
    seed: int


@dataclass(frozen=True)
class Domain:
    """What a domain shows: probabilities that the event and the response are visible, and the strength of the expression.

    The dials of the paper's two difficulties (introduction): emotional expression variability, and affective distribution shift with the class `prior`.
    """
    word: str                 # what a caption calls it
    event: float
    response: float
    expression: tuple[float, float]   # range of the factor on the facial expression
    head: tuple[float, float]         # range of the head's radius, as a part of the picture's side
    prior: tuple[float, ...] = (1 / 6,) * 6


DOMAINS = {
    # Photos carry the event and a subtle face; stickers the exaggerated face and the response (paper, introduction).
    "photos": Domain("photo", 0.92, 0.12, (0.25, 0.65), (0.19, 0.26)),
    "stickers": Domain("sticker", 0.06, 0.80, (0.75, 1.25), (0.29, 0.37), (0.14, 0.38, 0.08, 0.11, 0.16, 0.13)),
    # Two further styles widen what the miniature foundation models have seen; "icons" is the only one ever paired with emotion words.
    "sketches": Domain("sketch", 0.50, 0.45, (0.45, 1.00), (0.24, 0.34)),
    "icons": Domain("icon", 0.00, 0.50, (0.80, 1.20), (0.30, 0.36)),
}

# Several ways to show each emotion; some overlap on purpose (an open mouth is surprise or fear, a frown sadness, anger or disgust).
FACES = {
    "surprise": (Face(0.0, 0.9, 0.0, 0.9, 1.45), Face(0.1, 0.45, -0.1, 0.8, 1.4), Face(0.35, 0.8, 0.0, 0.8, 1.3)),
    "happy": (Face(0.9, 0.0, 0.0, 0.2, 1.0), Face(0.9, 0.7, 0.0, 0.3, 0.9), Face(0.8, 0.5, 0.0, 0.3, 0.1), Face(0.7, 0.0, 0.0, 0.1, 0.1)),
    "disgust": (Face(-0.5, 0.5, 0.5, -0.3, 0.45, "tongue"), Face(-0.5, 0.1, 0.4, -0.3, 0.4, "wavy"), Face(-0.7, 0.0, 0.5, -0.1, 0.4)),
    "fear": (Face(-0.4, 0.6, -0.7, 0.6, 1.4), Face(-0.3, 0.4, -0.8, 0.5, 1.35, "teeth"), Face(-0.2, 0.2, -0.7, 0.6, 1.3, "wavy")),
    "sadness": (Face(-0.9, 0.0, -0.8, 0.1, 0.65), Face(-0.8, 0.6, -0.8, 0.1, 0.15), Face(-0.7, 0.0, -0.6, 0.0, 0.1)),
    "anger": (Face(-0.7, 0.0, 0.9, -0.6, 0.75), Face(-0.4, 0.5, 0.9, -0.6, 0.85, "teeth"), Face(-0.6, 0.8, 0.9, -0.5, 0.9)),
}

# event -> (its caption phrase, P(event | emotion) up to a factor for each emotion that it can cause)
EVENTS = {
    "gift": ("opening a gift box", {"surprise": 3, "happy": 1.5}),
    "fireworks": ("under fireworks", {"surprise": 2, "happy": 1}),
    "hat": ("watching a rabbit in a hat", {"surprise": 3}),
    "party": ("beside a birthday cake", {"happy": 3, "surprise": 0.5}),
    "beach": ("on a sunny beach", {"happy": 2}),
    "trophy": ("holding a gold trophy", {"happy": 2, "surprise": 0.4}),
    "garbage": ("beside a garbage bin with flies", {"disgust": 3, "anger": 0.4}),
    "rotten": ("in front of a rotten apple", {"disgust": 3}),
    "puddle": ("in front of green slime", {"disgust": 2, "fear": 0.4}),
    "monster": ("in front of a shadow monster", {"fear": 3, "surprise": 0.4}),
    "spider": ("under a hanging spider", {"fear": 2.5, "disgust": 0.8}),
    "storm": ("in a lightning storm", {"fear": 2, "sadness": 0.4, "anger": 0.3}),
    "grave": ("beside a grave", {"sadness": 3, "fear": 0.5}),
    "rain": ("under a rain cloud", {"sadness": 2}),
    "wilted": ("beside a wilted flower", {"sadness": 2}),
    "vase": ("beside a broken vase", {"anger": 1.5, "sadness": 1, "surprise": 0.3}),
    "crash": ("beside a crashed car", {"anger": 2.5, "fear": 0.5}),
    "graffiti": ("in front of a painted wall", {"anger": 2, "disgust": 0.3}),
}

# response -> (its caption phrase, P(response | emotion)); what is left to one is "no response"
RESPONSES = {
    "tears": ("shedding tears", {"sadness": 0.60, "happy": 0.08, "fear": 0.10}),
    "sweat": ("dripping sweat", {"fear": 0.25, "surprise": 0.15, "disgust": 0.10, "anger": 0.06}),
    "blush": ("with red cheeks", {"happy": 0.30, "surprise": 0.10, "anger": 0.15}),
    "pallor": ("with a blue forehead", {"fear": 0.30, "sadness": 0.12, "disgust": 0.10}),
    "green": ("with a green face", {"disgust": 0.55}),
    "steam": ("blowing steam", {"anger": 0.35}),
    "vein": ("with a bulging vein", {"anger": 0.30}),
    "burst": ("surrounded by burst lines", {"surprise": 0.50, "anger": 0.04}),
    "tremble": ("trembling", {"fear": 0.25}),
    "hearts": ("surrounded by hearts", {"happy": 0.25}),
    "sparkles": ("surrounded by sparkles", {"happy": 0.20, "surprise": 0.10}),
}

PLACES = ("room", "street", "park", "field")
LIGHTS = ("day", "evening", "night")

# Words that name an emotion. None of them ever stands beside a picture of a benchmark domain (tests/test_pretrain.py).
EMOTION_WORDS = {
    "surprise": ("surprised", "amazed", "astonished", "surprise", "surprising"),
    "happy": ("happy", "joyful", "cheerful", "happiness", "pleasing"),
    "disgust": ("disgusted", "grossed", "revolted", "disgust", "disgusting"),
    "fear": ("afraid", "scared", "fearful", "fear", "scary"),
    "sadness": ("sad", "unhappy", "sorrowful", "sadness", "saddening"),
    "anger": ("angry", "furious", "mad", "anger", "annoying"),
}


def _pick(rng: np.random.Generator, weights: dict) -> str:
    p = np.array(list(weights.values()), float)
    return list(weights)[rng.choice(len(p), p=p / p.sum())]


def given(table: dict, emotion: str, rest: float = 0.0) -> dict:
    """P(cause | emotion) as {cause: weight}; `rest` fills up to one with None ("nothing")."""
    weights = {name: p[emotion] for name, (_, p) in table.items() if emotion in p}
    return {**weights, None: rest - sum(weights.values())} if rest else weights


def sample_face(rng: np.random.Generator, emotion: str) -> Face:
    """One of the emotion's prototypes with Gaussian noise on every continuous value, kept within the ranges that `Face` names."""
    face = FACES[emotion][rng.integers(len(FACES[emotion]))]
    noise = rng.normal(0, (0.15, 0.10, 0.18, 0.18, 0.10))
    return Face(float(np.clip(face.curve + noise[0], -1, 1)), float(np.clip(face.open + noise[1], 0, 1)),
                float(np.clip(face.brow_angle + noise[2], -1, 1)), float(np.clip(face.brow_height + noise[3], -1, 1)),
                float(np.clip(face.eye_open + noise[4], 0.05, 1.5)), face.mouth)


def sample_scene(split: str, seed: int, index: int, prior: tuple[float, ...] = (1 / 6,) * 6) -> Scene:
    """The causes of picture `index` of a split. Emotions follow `prior` [6]; subject, place and light are independent of them.

    Raises KCDPError for an unknown split.
    """
    if split not in SPLITS:
        raise KCDPError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    rng = np.random.default_rng([SPLITS[split], seed, index])
    emotion = EMOTIONS[int(np.searchsorted(np.cumsum(prior)[:-1], rng.random(), side="right"))]
    nuisance = dict(subject=SUBJECTS[rng.integers(len(SUBJECTS))], place=PLACES[rng.integers(4)],
                    light=LIGHTS[rng.choice(3, p=(0.6, 0.25, 0.15))], seed=int(rng.integers(2**31)))
    return Scene(emotion, face=sample_face(rng, emotion), event=_pick(rng, given(EVENTS, emotion)),
                 response=_pick(rng, given(RESPONSES, emotion, rest=1.0)), **nuisance)


def do_emotion(scene: Scene, emotion: str) -> Scene:
    """The same scene under do(emotion): subject, place and light stay; event, face and response are drawn anew (chapter 01).

    The seed of what is left to chance stays, too, but an event uses some of it up: what is drawn after it, such as a coat's colour, may differ.

    The picture itself changes. The method cannot do that: it intervenes on the prompt alone, do(P = P*) (method chapter, eq-graph).
    """
    rng = np.random.default_rng([3, scene.seed, EMOTIONS.index(emotion)])
    return replace(scene, emotion=emotion, face=sample_face(rng, emotion), event=_pick(rng, given(EVENTS, emotion)),
                   response=_pick(rng, given(RESPONSES, emotion, rest=1.0)))


def shown(scene: Scene, domain: str) -> Scene:
    """The scene as `domain` shows it: the face scaled towards rest, event and response perhaps hidden (None)."""
    d = DOMAINS[domain]
    rng = np.random.default_rng([4, scene.seed, list(DOMAINS).index(domain)])
    see_event, see_response, gain = rng.random() < d.event, rng.random() < d.response, rng.uniform(*d.expression)
    face = scene.face
    scaled = Face(float(np.clip(face.curve * gain, -1, 1)), float(np.clip(face.open * gain, 0, 1)),
                  float(np.clip(face.brow_angle * gain, -1, 1)), float(np.clip(face.brow_height * gain, -1, 1)),
                  float(np.clip(1 + (face.eye_open - 1) * gain, 0.05, 1.5)), face.mouth if gain > 0.4 else "plain")
    return replace(scene, face=scaled, event=scene.event if see_event else None, response=scene.response if see_response else None)


def visible_attributes(scene: Scene, domain: str) -> dict[str, str]:
    """What an ordinary captioner names in the picture: {kind: phrase}, kinds subject, mouth, eyes, response, event.

    Coarse on purpose: brows, gaze and the exact mouth are left to the eye (a frown may be sadness, anger or disgust).
    """
    s = shown(scene, domain)
    f = s.face
    mouth = {"teeth": "clenched teeth", "tongue": "the tongue out"}.get(f.mouth)
    if mouth is None and f.open > 0.3:
        mouth = "a big smile" if f.curve > 0.3 else "an open mouth"
    if mouth is None and abs(f.curve) > 0.2:
        mouth = f"a {'slight ' if abs(f.curve) < 0.5 else ''}{'smile' if f.curve > 0 else 'frown'}"
    eyes = "wide eyes" if f.eye_open > 1.22 else "closed eyes" if f.eye_open < 0.3 else None
    found = {"subject": s.subject, "mouth": mouth, "eyes": eyes,
             "response": s.response and RESPONSES[s.response][0], "event": s.event and EVENTS[s.event][0]}
    return {kind: phrase for kind, phrase in found.items() if phrase}


def caption(scene: Scene, domain: str) -> str:
    """One English sentence on what the picture shows, without a word that names an emotion.

    For pre-training and for tests of the captioner only: no method is ever given it.
    """
    seen = visible_attributes(scene, domain)
    face = " and ".join(seen[kind] for kind in ("mouth", "eyes") if kind in seen)
    word = DOMAINS[domain].word
    text = f"{'an' if word[0] in 'aeiou' else 'a'} {word} of {'an' if seen['subject'][0] in 'aeiou' else 'a'} {seen['subject']}"
    text += f" with {face}" if face else ""
    for kind in ("response", "event"):
        text += f" , {seen[kind]}" if kind in seen else ""
    return text + " ."


def metadata(scene: Scene, domain: str) -> dict:
    """The causes as a flat JSON record: those of the scene, and under `shown` what the domain lets through."""
    return {**asdict(scene), "shown": asdict(shown(scene, domain))}
