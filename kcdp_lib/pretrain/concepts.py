"""The rules behind `datasets/art/concepts.csv`: the emotion that people say a drawing shows.

No label is our own judgement. Rated emoji have EmoTag1200's ratings; the label of other emoji comes
from their name and keywords in Unicode's CLDR, and a character's from its designer's names of
mouths, eyes, brows and moods. If these are weak or contradict each other, there is no label.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kcdp_lib.pretrain.drawings import feature, plain
from kcdp_lib.world import SIX

# EmoTag's anticipation and trust belong to none of the six classes
EMOTAG = {"joy": "happy"} | {name: name for name in SIX if name != "happy"}
# A rating decides if it is at least this high, and this much above the next
HIGH, LEAD = 2 / 3, 0.2
FAINT = 0.4  # the highest rating of a face that shows hardly any emotion

# Words that name a class. Many nouns and adverbs among the keywords name a situation: "sick",
# "oops" and "omg" are left out, because people use them for several classes.
WORDS = {
    "surprise": "surprise surprised shock shocked astonished amazed amazement awe stunned "
    "mindblown agape",
    "happy": "happy joy glad cheerful cheery smile smiling smiles grin grinning laugh laughing "
    "laughs giggle giggling haha hehe lol funny hilarious amusing love kiss kisses kissing "
    "celebrate celebration party partying hooray yay excited",
    "disgust": "disgust disgusted gross nasty nauseated vomit vomiting puke barf",
    "fear": "fear fearful afraid scared scary frightened terrified anxious anxiety nervous worried "
    "worry panic screaming",
    "sadness": "sad sadness cry crying tear tears sob unhappy frown frowning disappointed "
    "dejected anguished sorrow",
    "anger": "angry anger mad rage enraged furious fury pouting cursing swearing annoyed irritated "
    "scowl pissed",
}
CLASS_OF = {word: name for name, words in WORDS.items() for word in words.split()}
# Words that make every label uncertain: "wry smile", "awkward smile", "smirk"
DOUBTS = frozenset("wry ironic sarcasm sarcastic awkward smirk pucker confused hopeful".split())
ENOUGH_WORDS, MOST_OF_THEM = 2, 3 / 4

# Names that differ from what is drawn or meant, so that viewers would not be sure
UNSURE = {
    "emoji": {
        "upside-down face": "often meant as irony",
        "anxious face": "drawn as a kiss",
    },
    "lorelei": {
        **dict.fromkeys(("happy11", "happy13", "happy14", "happy17", "happy18"), "hardly a smile"),
        **dict.fromkeys(("sad01", "sad02"), "open, as in surprise"),
        **dict.fromkeys(("sad03", "sad09"), "hardly a frown"),
        **{"happy08": "a kiss or a tongue", "sad06": "clenched teeth", "sad08": "a tongue"},
    },
}


class Said(NamedTuple):
    """What people say about a concept."""

    label: str  # one of the six classes, "" if it is not certain
    shares: tuple[float, ...]  # of the six classes, with sum 1; () if nobody names one
    source: str  # "EmoTag", "CLDR" or "designers"
    reason: str  # in a few words
    scores: tuple[float, ...] = ()  # EmoTag's eight, in the order of its file


@cache
def ratings() -> dict[str, dict[str, float]]:
    """Read EmoTag1200's ratings, {code point, "1F600": {emotion: 0 to 1}}, in the file's order."""
    path = Path(__file__).parent / "emotag" / "EmoTag1200-scores.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    emotions = list(rows[0])[3:]
    return {row["unicode"]: {name: float(row[name]) for name in emotions} for row in rows}


def normalised(values: Sequence[float]) -> tuple[float, ...]:
    """Return shares of the six classes, rounded to three digits; () if all are zero."""
    total = sum(values)
    return tuple(round(value / total, 3) for value in values) if total else ()


def votes(texts: Iterable[str]) -> dict[str, list[str]]:
    """Return {class: the distinct words that name it}, the classes with most words first."""
    words = dict.fromkeys(word for text in texts for word in plain(text).split())
    found: dict[str, list[str]] = {}
    for word in words:
        if name := CLASS_OF.get(word):
            found.setdefault(name, []).append(word)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def doubts(texts: Iterable[str]) -> list[str]:
    """Return the words that make a label uncertain."""
    return sorted(DOUBTS & {word for text in texts for word in plain(text).split()})


def about_emoji(name: str, keywords: Sequence[str], code: str, lifeless: bool) -> Said | None:
    """Return what people say about an emoji; None if they name no emotion.

    code: "1F600"; lifeless: a skull, a ghost or a mask, which evokes an emotion in the viewer and
    need not show it.
    """
    said = _worded(name, keywords)
    if rated := ratings().get(code):
        said = _rated(rated, said)
    doubt = "evoked rather than shown" if lifeless else UNSURE["emoji"].get(name)
    if said and said.label and doubt:
        return said._replace(label="", reason=f"{said.reason}; {doubt}")
    return said


def _rated(rated: dict[str, float], worded: Said | None) -> Said | None:
    """Decide by EmoTag; if two ratings are close, CLDR's words (`worded`) may decide."""
    values = {EMOTAG[emotion]: rated[emotion] for emotion in EMOTAG}
    (first, high), (second, low), *_ = sorted(values.items(), key=lambda item: -item[1])
    if high <= FAINT:
        return None
    reason = f"{first} {high:.2f}, then {second} {low:.2f}"
    clear = high - low >= LEAD
    agreed = worded is not None and worded.label == first
    certain = high >= HIGH and (clear or agreed)
    if worded and certain and not clear:
        reason += f"; CLDR has {worded.reason}"
    shares = normalised([values[name] for name in SIX])
    return Said(first if certain else "", shares, "EmoTag", reason, tuple(rated.values()))


def _worded(name: str, keywords: Sequence[str]) -> Said | None:
    """Decide by CLDR's words; None if fewer than two, and none of the name, name a class.

    The label is certain if the name names this class alone, or names none and two words name it;
    and if more than three quarters of all words that name a class name this one.
    """
    named, in_name = votes([name, *keywords]), votes([name])
    if sum(map(len, named.values())) < ENOUGH_WORDS and not in_name:
        return None
    (first, words), *_ = named.items()
    shares = normalised([len(named.get(one, ())) for one in SIX])
    total = sum(map(len, named.values()))
    enough = list(in_name) == [first] or (not in_name and len(words) >= ENOUGH_WORDS)
    clear = len(words) > MOST_OF_THEM * total
    doubt = doubts([name, *keywords])
    reason = "; ".join(f"{one}: {', '.join(some[:4])}" for one, some in named.items())
    if doubt:
        reason += f"; but {', '.join(doubt)}"
    certain = enough and clear and not doubt
    return Said(first if certain else "", shares, "CLDR", reason)


def about_character(name: str, options: dict[str, str]) -> Said:
    """Return what designers say of a character with features {"mouth": "sad", "eyes": "wide"}.

    The label is certain if all features that name a class name the same one, and none is doubtful.
    Angry eyes or brows override a sad mouth, because anger is read from the upper half of a face.
    """
    features = {part: feature(part, value) for part, value in options.items()}
    named = {part: first for part, text in features.items() for first in votes([text])}
    classes = set(named.values())
    reasons = [", ".join(features[part] for part in named)]
    upper = {named[part] for part in ("eyes", "eyebrows") if part in named}
    if named.get("mouth") == "sadness" and upper == {"anger"}:
        classes = upper
        reasons.append("the upper half of the face decides")
    if len(classes) > 1:
        reasons.append("a contradiction")
    unsure = _unsure(name, options, features)
    reasons += [f"doubtful: {', '.join(unsure)}"] if unsure else []
    certain = len(classes) == 1 and not unsure
    shares = normalised([float(one in classes) for one in SIX])
    reason = "; ".join(filter(None, reasons)) or "names no emotion"
    return Said(next(iter(classes)) if certain else "", shares, "designers", reason)


def _unsure(name: str, options: dict[str, str], features: dict[str, str]) -> list[str]:
    """Return what makes a character doubtful: words of its features, and its set's exceptions."""
    listed = UNSURE.get(name, {})
    doubtful = [text for text in features.values() if doubts([text])]
    return doubtful + [listed[value] for value in options.values() if value in listed]


def concept_of(name: str, options: dict[str, str]) -> str:
    """Return the name of a character's expression: "micah: sad mouth, round eyes, up eyebrows"."""
    spoken = {
        part: plain(re.sub(r"([a-z])([A-Z])", r"\1 \2", value))
        for part, value in options.items()
        if feature(part, value)
    }
    return f"{name}: {', '.join(f'{value} {part}' for part, value in spoken.items())}"
