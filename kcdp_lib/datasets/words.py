"""Words for emotions, as folders and lists of public data sets write them (chapter 01).

Captions and prompts have words of their own: these are for labels alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache

import numpy as np

from .. import world
from ..errors import printable

# EmoSet's eight emotions and the two classes of six that are unions of them, each with what else it
# is called. A word of several rows is a class only where all of them are the same class.
WORDS = {
    "amusement": "amused amusing",
    "awe": "awed awestruck amazed amazement",
    "contentment": "content contented satisfied satisfaction",
    "excitement": "excited exciting",
    "anger": "angry rage enraged furious fury upset",
    "disgust": "disgusted disgusting revulsion shock shocked",
    "fear": "afraid fearful scared frightened terrified terror horror shock shocked",
    "sadness": "sad sorrow sorrowful unhappy grief upset",
    "surprise": "surprised suprise suprised astonished astonishment amazed amazement shock shocked",
    "happy": "happiness joy joyful joyous glad delight delighted cheerful cheerfulness",
}
# What data sets call pictures that have no emotion, or one that is no class here.
OTHERS = {
    *("neutral", "neutrality", "no emotion", "contempt", "contemptuous"),
    *("other", "others", "something else", "uncertain", "unknown", "unlabeled", "unlabelled"),
    *("none", "no face", "non face"),
}
NULLS = {"none", "null", "nan", "na", "n a"}  # how tables write that there is no label
# KDEF's, JAFFE's and CREMA-D's codes. "sa" may be many things, so they count only together.
CODES = {
    **{"an": "anger", "ang": "anger", "di": "disgust", "dis": "disgust"},
    **{"af": "fear", "fe": "fear", "fea": "fear", "ha": "happy", "hap": "happy"},
    **{"sa": "sadness", "su": "surprise", "sur": "surprise", "ne": "neutral", "neu": "neutral"},
}
ENOUGH_CODES = 3  # of different meaning, for any of them to be believed
NO_CLASS, SEVERAL = -1, -2


@lru_cache(100_000)
def plain_word(text: str) -> str:
    """A label without its dress: case, Unicode form, numbering ("01-Happy"), marks, double blanks.

    "" for what has no letter, such as a number.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub("[\u00ad\u200b-\u200f\u2060\ufeff]", "", text)  # marks that nobody sees
    return re.sub(r"[\W_]+", " ", text).strip(" 0123456789")


def is_number(text: str) -> bool:
    """Is a label a number, whose meaning only its data set knows?"""
    return not plain_word(text) and any(character.isdigit() for character in text)


def vocabulary(taxonomy: str, used: Collection[str] = ()) -> dict[str, int]:
    """{plain word: class} in a taxonomy, "six" or "eight".

    NO_CLASS (-1) for known words that are no class, SEVERAL (-2) for those that could be more than
    one. `used` are the words of a data set: codes of two or three letters are known only where it
    has several of them.
    """
    classes = world.TAXONOMIES[taxonomy]
    meanings: dict[str, set[str]] = {}
    for emotion, synonyms in WORDS.items():
        for word in (emotion, *synonyms.split()):
            meanings.setdefault(word, set()).add(world.label_of(emotion, taxonomy))
    table = dict.fromkeys(OTHERS, NO_CLASS)
    for word, (label, *others) in meanings.items():
        table[word] = SEVERAL if others or label not in classes else classes.index(label)
    codes = CODES.keys() & set(map(plain_word, used))
    if len({CODES[code] for code in codes}) >= ENOUGH_CODES:
        table |= {code: table[CODES[code]] for code in codes}
    return table


@cache
def emotion_words(taxonomy: str) -> dict[str, int]:
    """{plain word: class} of the words that are one class of a taxonomy."""
    return {word: label for word, label in vocabulary(taxonomy).items() if label >= 0}


def is_distribution(words: Collection[str]) -> bool:
    """Do words, as columns of a list have them, name every class of some taxonomy?"""
    indices = map(emotion_words, world.TAXONOMIES)
    return any(
        set(index.values()) == {index.get(word) for word in words} - {None} for index in indices
    )


def class_shares(numbers: Mapping[str, float], taxonomy: str) -> np.ndarray:
    """Shares [C] of a taxonomy's classes, their sum 1, from {word: number from 0 on}.

    Words of one class are added up; those of no class, such as "neutral", are dropped, and the rest
    is brought to the sum of 1. NaN where a class has no word, or nothing is left.
    """
    index, sums = emotion_words(taxonomy), np.full(len(world.TAXONOMIES[taxonomy]), np.nan)
    for word, number in numbers.items():
        if (label := index.get(plain_word(word))) is not None:
            sums[label] = np.nan_to_num(sums[label]) + number
    total = sums.sum()
    return sums / total if 0 < total < np.inf else np.full_like(sums, np.nan)


def some(names: Iterable[object], most: int = 3) -> str:
    """The first few of many names, for a sentence: "a, b, c and 4 more"."""
    texts = list(map(str, names))
    more = [f"{len(texts) - most} more"] if len(texts) > most else []
    return " and ".join([", ".join(texts[:most]), *more])


def note(what: str, names: Sequence[object], most: int = 3) -> list[str]:
    """A note on what is counted, "pictures that ... (7): a, b, c and 4 more"; [] if nothing is."""
    return [printable(f"{what} ({len(names)}): {some(names, most)}")] if names else []
