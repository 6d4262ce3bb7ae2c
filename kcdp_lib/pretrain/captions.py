"""Captions of real drawings, in their publishers' words and in the words of the built-in world.

Unicode's "crying face" and a designer's "cry eyes" are "shedding tears" in the built-in world.
`SIGNS` holds these rules. They read names, never pictures, and contain no emotions.
"""

from __future__ import annotations

import re

import numpy as np

from kcdp_lib import datasets, world
from kcdp_lib.pretrain.drawings import Drawing
from kcdp_lib.pretrain.texts import pick
from kcdp_lib.world import causes

# (kind, phrase, pattern of its names); the first match of each kind counts
SIGNS: tuple[tuple[str, str, str], ...] = (
    ("mouth", "the tongue out", r"with tongue|tongue (mouth|out)"),
    (
        "mouth",
        "a big smile",
        r"grin|beaming|laugh|tears of joy|star struck|(big|opened|teeth|gap) smile|braces",
    ),
    (
        "mouth",
        "an open mouth",
        r"open (sad )?mouth|scream|astonished|hushed|surprised? mouth|agape|yawning",
    ),
    ("mouth", "a smile", r"smil(e|ing)(?! eyes| shadow)|smirk|(happy|kawaii|twinkle) mouth"),
    (
        "mouth",
        "a frown",
        r"frown(ing)?(?! eyebrows)|(sad|angry|concerned|unimpressed|disbelief) mouth|\bpouting\b",
    ),
    ("eyes", "wide eyes", r"(wide|surprised|big) eyes|scream|astonished|flushed"),
    ("eyes", "closed eyes", r"(closed|sleepy?|squint(ing)?) eyes|sleeping|squinting face"),
    ("response", "shedding tears", r"\bcry(ing)?\b|\btears\b|with tear\b|\bsob"),
    ("response", "dripping sweat", r"\bsweat\b(?! droplets)"),
    ("response", "blowing steam", r"\bsteam\b"),
    ("response", "with a red face", r"enraged"),
    ("response", "with a green face", r"nauseated"),
    ("response", "with red cheeks", r"flushed|blush"),
)
WHO = re.compile(
    r"\b(cat|monkey|robot|woman|man|girl|boy|baby|person|people|ghost|alien|clown|ogre|goblin)\b"
)
# Words among the keywords that name an emotion, by class of the six
FELT = {
    "happy": "happy joy joyful glad cheerful cheery laugh laughing smile smiling yay celebrate",
    "sadness": "sad cry crying sob depressed dejected heartbroken lonely grief",
    "anger": "angry anger mad rage enraged furious fury annoyed frustrated pissed fuming",
    "fear": "fear fearful scared scary afraid anxious nervous worried panic horror frightened",
    "surprise": "surprise surprised shocked shock astonished amazed wow whoa stunned unbelievable",
    "disgust": "disgust disgusted gross vomit vomiting nauseated nasty puke stink smelly ew barf",
}
EMOTION_OF = {word: emotion for emotion, words in FELT.items() for word in words.split()}


def of_concept(concept: str) -> Drawing:
    """Turn a concept of the real-art domains into a drawing as in the corpus.

    "crying face" is an emoji, "micah: sad mouth, glasses" a character with its designer's words,
    and "fxemoji: annoyed face" an emoji whose name occurs in one set only.
    """
    hand, _, named = re.sub(r"\d", "", concept).rpartition(": ")
    if hand in datasets.CHARACTERS.split():
        return Drawing(hand, "", "person", tuple(named.split(", ")), "character", "")
    return Drawing(hand, "", named, (), "face", "")


def signs(drawing: Drawing) -> dict[str, str]:
    """Return {kind: phrase}, a drawing's signs of mouth, eyes and body in the world's words.

    Of an emoji only the name counts, since keywords say more than is visible; else the features.
    """
    names = drawing.words if drawing.group == "character" else (drawing.label,)
    named: dict[str, str] = {}
    for kind, phrase, pattern in SIGNS:
        if kind not in named and any(re.search(pattern, name) for name in names):
            named[kind] = phrase
    return named


def who(drawing: Drawing) -> str:
    """Return the subject as the world's captions name it: "face", "cat", "woman"."""
    found = WHO.search(drawing.label)
    return found[1] if found else "face"


def emotions(drawing: Drawing) -> list[str]:
    """Return the classes of the six that a drawing's words name, sorted.

    The label takes precedence: tears of joy are joy, though "crying" is a keyword.
    """
    for named in ((drawing.label,), drawing.words):
        said = {word for text in named for word in text.split()} & EMOTION_OF.keys()
        if said:
            return sorted({EMOTION_OF[word] for word in said})
    return []


def peoples(drawing: Drawing, rng: np.random.Generator) -> str:
    """Write a caption in the publishers' words alone."""
    words = [word for word in drawing.words if word not in drawing.label]
    if drawing.group == "character":
        said = [word for word in words if rng.random() < 0.9]
        return " , ".join(["a sticker of a person", *said]) + " ."
    label = causes.with_article(drawing.label)
    kind = rng.random()
    if kind < 0.25 and words:
        return f"a sticker of {label} , {pick(rng, words)} ."
    if kind < 0.35 and len(words) > 1:
        one, other = rng.choice(words, 2, replace=False)
        return f"a sticker of {one} , {other} ."
    return f"a sticker of {label} ."


def caption(drawing: Drawing, rng: np.random.Generator) -> str:
    """Write one of the captions of a drawing.

    Half of those that show a sign use the world's words, with or without the drawing's name.
    """
    shown = signs(drawing)
    if not shown or rng.random() < 0.5:
        return peoples(drawing, rng)
    told = causes.sentence("sticker", who(drawing), shown)
    if drawing.group == "character" or rng.random() < 0.5:
        return told
    return f"{told.removesuffix(' .')} , {drawing.label} ."


def pair(drawing: Drawing, rng: np.random.Generator) -> tuple[str, str]:
    """Write two texts about one drawing, without a picture.

    A caption, and its keywords or a text with a word for an emotion that its words name.
    """
    felt = emotions(drawing)
    if felt and rng.random() < 0.6:
        word = pick(rng, world.EMOTION_WORDS[pick(rng, felt)])
        other = pick(
            rng,
            (
                f"a {word} sticker of",
                f"a {word} sticker",
                f"a picture that feels {word}",
                f"a {word} {who(drawing)} .",
            ),
        )
        return caption(drawing, rng), other
    some = rng.permutation(len(drawing.words))[:3]
    return (
        caption(drawing, rng),
        " , ".join([drawing.words[i] for i in some] or [drawing.label]) + " .",
    )
