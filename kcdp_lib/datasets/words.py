"""Words for emotions in folders and lists of public data sets (chapter 01).

They are for labels only; captions and prompts use words of their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache

import numpy as np

from .. import world
from ..errors import printable

# EmoSet's eight emotions and the two of the six classes that are unions of them, each with its
# synonyms. A word in several rows is a class only if all of them are the same class.
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
# Labels of pictures without an emotion, or with one that is no class here.
OTHERS = {
    *("neutral", "neutrality", "no emotion", "contempt", "contemptuous"),
    *("other", "others", "something else", "uncertain", "unknown", "unlabeled", "unlabelled"),
    *("none", "no face", "non face"),
}
NULLS = {"none", "null", "nan", "na", "n a"}  # how tables write a missing label
# KDEF's, JAFFE's and CREMA-D's codes. "sa" alone is ambiguous, so they count only together.
CODES = {
    **{"an": "anger", "ang": "anger", "di": "disgust", "dis": "disgust"},
    **{"af": "fear", "fe": "fear", "fea": "fear", "ha": "happy", "hap": "happy"},
    **{"sa": "sadness", "su": "surprise", "sur": "surprise", "ne": "neutral", "neu": "neutral"},
}
ENOUGH_CODES = 3  # codes of different meaning, before any of them counts
NO_CLASS, SEVERAL = -1, -2


@lru_cache(100_000)
def plain_word(text: str) -> str:
    """Return a label without case, Unicode form, numbering ("01-Happy"), marks and double spaces.

    "" for a text without a letter, such as a number.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub("[\u00ad\u200b-\u200f\u2060\ufeff]", "", text)  # invisible characters
    return re.sub(r"[\W_]+", " ", text).strip(" 0123456789")


def is_number(text: str) -> bool:
    """Return whether a label is a number, whose meaning only its data set knows."""
    return not plain_word(text) and any(character.isdigit() for character in text)


def vocabulary(taxonomy: str, used: Collection[str] = ()) -> dict[str, int]:
    """Return {plain word: class} of a taxonomy, "six" or "eight".

    NO_CLASS (-1) for known words that are no class, SEVERAL (-2) for those that could be more than
    one. `used` are the words of a data set: codes of two or three letters count only if it has
    several of them.
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
def class_index(taxonomy: str = "six") -> dict[str, int]:
    """Return {plain word: class} of a taxonomy, "six" or "eight".

    Words are in lower case and without numbering. A word for several of eight classes is left out
    of "eight".
    """
    return {word: label for word, label in vocabulary(taxonomy).items() if label >= 0}


def is_distribution(words: Collection[str]) -> bool:
    """Return whether words, as names of columns, cover every class of some taxonomy."""
    indices = map(class_index, world.TAXONOMIES)
    return any(
        set(index.values()) == {index.get(word) for word in words} - {None} for index in indices
    )


def class_shares(numbers: Mapping[str, float], taxonomy: str) -> np.ndarray:
    """Return shares [C] of a taxonomy's classes, with sum 1, from {word: number, 0 or more}.

    Words of one class are added up, words without a class, such as "neutral", are dropped, and the
    rest is scaled to the sum of 1. NaN if a class has no word, or nothing is left.
    """
    index, sums = class_index(taxonomy), np.full(len(world.TAXONOMIES[taxonomy]), np.nan)
    for word, number in numbers.items():
        if (label := index.get(plain_word(word))) is not None:
            sums[label] = np.nan_to_num(sums[label]) + number
    total = sums.sum()
    return sums / total if 0 < total < np.inf else np.full_like(sums, np.nan)


def some(names: Iterable[object], most: int = 3) -> str:
    """Join the first few of many names, for a sentence: "a, b, c and 4 more"."""
    texts = list(map(str, names))
    more = [f"{len(texts) - most} more"] if len(texts) > most else []
    return " and ".join([", ".join(texts[:most]), *more])


def note(what: str, names: Sequence[object]) -> list[str]:
    """Return a note with a count, "pictures that ... (7): a, b, c and 4 more"; [] for no names."""
    return [printable(f"{what} ({len(names)}): {some(names)}")] if names else []
