"""What is said of a real drawing: its people's words, and the same in the words of the world.

Unicode's "crying face" and a designer's "cry eyes" are what the built-in world calls "shedding
tears". `SIGNS` is the rule that says so; it reads names, never pictures, and knows no emotion.
"""

from __future__ import annotations

import re

import numpy as np

from kcdp_lib import datasets, world
from kcdp_lib.pretrain.drawings import Drawing
from kcdp_lib.pretrain.texts import pick
from kcdp_lib.world import causes

# (kind, phrase, what names it). Of each kind the first that is found counts.
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
# Words among people's keywords that say an emotion, as the taxonomy of six names it.
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
    """What a domain of real art calls a concept, as a drawing of the corpus is called.

    "crying face" of an emoji; "micah: sad mouth, glasses" of a character, whose designer speaks;
    "fxemoji: annoyed face" of an emoji that has a name in one set alone.
    """
    hand, _, named = re.sub(r"\d", "", concept).rpartition(": ")
    if hand in datasets.CHARACTERS.split():
        return Drawing(hand, "", "person", tuple(named.split(", ")), "character", "")
    return Drawing(hand, "", named, (), "face", "")


def signs(drawing: Drawing) -> dict[str, str]:
    """{kind: phrase}: what a drawing's names say of mouth, eyes and body, in the world's words.

    Of an emoji its name alone, for keywords say more than is there; of a character its features.
    """
    names = drawing.words if drawing.group == "character" else (drawing.label,)
    named: dict[str, str] = {}
    for kind, phrase, pattern in SIGNS:
        if kind not in named and any(re.search(pattern, name) for name in names):
            named[kind] = phrase
    return named


def who(drawing: Drawing) -> str:
    """The subject, as a caption of the world names one: "face", "cat", "woman"."""
    found = WHO.search(drawing.label)
    return found[1] if found else "face"


def emotions(drawing: Drawing) -> list[str]:
    """Classes of the six that a drawing's people name, sorted.

    Its label decides where it names one: tears of joy are joy, though "crying" is a keyword.
    """
    for named in ((drawing.label,), drawing.words):
        said = {word for text in named for word in text.split()} & EMOTION_OF.keys()
        if said:
            return sorted({EMOTION_OF[word] for word in said})
    return []


def peoples(drawing: Drawing, rng: np.random.Generator) -> str:
    """A caption in its people's words alone."""
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
    """One of the captions of a drawing.

    Half of those that show a sign are told in the world's words, with the name after it or without.
    """
    shown = signs(drawing)
    if not shown or rng.random() < 0.5:
        return peoples(drawing, rng)
    told = causes.sentence("sticker", who(drawing), shown)
    if drawing.group == "character" or rng.random() < 0.5:
        return told
    return f"{told.removesuffix(' .')} , {drawing.label} ."


def pair(drawing: Drawing, rng: np.random.Generator) -> tuple[str, str]:
    """Two texts on one drawing, no picture.

    A caption, and its keywords or a text with a word for an emotion that its people name.
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
