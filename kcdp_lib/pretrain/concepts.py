"""What emotion people say a drawing shows: the rules behind `datasets/art/concepts.csv`.

No label is ours. Emoji that people were asked about have EmoTag1200's ratings; for the others speak
the name and the keywords of Unicode's CLDR, for characters the names that their designers gave to
mouths, eyes, brows and moods. Where these are weak, or contradict each other, there is no label.
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

# Of EmoTag's eight emotions, anticipation and trust are none of the six classes.
EMOTAG = {"joy": "happy"} | {name: name for name in SIX if name != "happy"}
# A rating decides if it is at least this high, and the next one this much lower.
HIGH, LEAD = 2 / 3, 0.2
FAINT = 0.4  # the highest rating of a face that shows hardly anything

# Words that name a class. Of the nouns and adverbs of a keyword list many name a situation: "sick",
# "oops" and "omg" are in none of these rows, because people use them for several.
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
# With one of these, nothing is certain: "wry smile", "awkward smile", "smirk".
DOUBTS = frozenset("wry ironic sarcasm sarcastic awkward smirk pucker confused hopeful".split())
ENOUGH_WORDS, MOST_OF_THEM = 2, 3 / 4

# What is called one thing and drawn or meant as another: a viewer would not be sure.
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

    label: str  # a class of six, "" where it is not certain
    shares: tuple[float, ...]  # of the six classes, their sum 1; () where nobody names one
    source: str  # "EmoTag", "CLDR" or "designers"
    reason: str  # in a few words
    scores: tuple[float, ...] = ()  # EmoTag's eight, in the order of its file


@cache
def ratings() -> dict[str, dict[str, float]]:
    """EmoTag1200's ratings, {code point, "1F600": {emotion: 0 to 1}}, in the order of its file."""
    path = Path(__file__).parent / "emotag" / "EmoTag1200-scores.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    emotions = list(rows[0])[3:]
    return {row["unicode"]: {name: float(row[name]) for name in emotions} for row in rows}


def normalised(values: Sequence[float]) -> tuple[float, ...]:
    """Shares of the six classes, with three digits; () of nothing."""
    total = sum(values)
    return tuple(round(value / total, 3) for value in values) if total else ()


def votes(texts: Iterable[str]) -> dict[str, list[str]]:
    """{class: the different words that name it}, the classes with most words first."""
    words = dict.fromkeys(word for text in texts for word in plain(text).split())
    found: dict[str, list[str]] = {}
    for word in words:
        if name := CLASS_OF.get(word):
            found.setdefault(name, []).append(word)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def doubts(texts: Iterable[str]) -> list[str]:
    """The words that make everything else uncertain."""
    return sorted(DOUBTS & {word for text in texts for word in plain(text).split()})


def about_emoji(name: str, keywords: Sequence[str], code: str, lifeless: bool) -> Said | None:
    """What people say of an emoji; None where they say of no emotion.

    code: "1F600"; lifeless: a skull, a ghost or a mask, which is meant to move whoever sees it, and
    need not show what it evokes.
    """
    said = _worded(name, keywords)
    if rated := ratings().get(code):
        said = _rated(rated, said)
    doubt = "evoked rather than shown" if lifeless else UNSURE["emoji"].get(name)
    if said and said.label and doubt:
        return said._replace(label="", reason=f"{said.reason}; {doubt}")
    return said


def _rated(rated: dict[str, float], worded: Said | None) -> Said | None:
    """By EmoTag; where two ratings are near each other, what is `worded` by CLDR may decide."""
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
    """By CLDR's words; None where fewer than two, and none of the name, name a class.

    Certain where the name names one class, or two words do, and more than three quarters of all
    words that name a class name this one.
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
    """What designers say of a character with these features, {"mouth": "sad", "eyes": "wide"}.

    Certain where all features that name a class name the same, and none is doubtful. Eyes or brows
    called angry decide over a sad mouth: anger is read from the upper half of a face.
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
    """What makes a character doubtful: words of its features, and what its set is listed for."""
    listed = UNSURE.get(name, {})
    doubtful = [text for text in features.values() if doubts([text])]
    return doubtful + [listed[value] for value in options.values() if value in listed]


def concept_of(name: str, options: dict[str, str]) -> str:
    """The name of a character's expression: "micah: sad mouth, round eyes, up eyebrows"."""
    spoken = {
        part: plain(re.sub(r"([a-z])([A-Z])", r"\1 \2", value))
        for part, value in options.items()
        if feature(part, value)
    }
    return f"{name}: {', '.join(f'{value} {part}' for part, value in spoken.items())}"
