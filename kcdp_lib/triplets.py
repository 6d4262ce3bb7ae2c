"""Knowledge parsers: from a caption to triplets (subject, verb, object).

Chapter 02; paper, figure 2, left. `parse_triplets` uses rules and word lists for the captions of a
CoCa, and needs no model. `dependency_triplets` uses spaCy's dependency parse, for the free English
of a model such as InstructBLIP. The authors' parser (AllenNLP's OpenIE) can no longer be installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from kcdp_lib.errors import KCDPError

Triplet = tuple[str, str, str]
Parser = Callable[[Sequence[str]], list[list[Triplet]]]  # captions -> the triplets of each
RULES = "rules"


@lru_cache(maxsize=1)
def load_parser(name: str) -> Parser:
    """Load the parser of that name: "rules", or a spaCy model such as "en_core_web_sm".

    KCDPError with the command that installs it, if spaCy or its model is missing.
    """
    if name == RULES:
        return lambda captions: [parse_triplets(caption) for caption in captions]
    try:
        import spacy  # imported here, because it takes a second and the rules do not need it

        model = spacy.load(name, exclude=["ner"])
    except ModuleNotFoundError as error:
        raise KCDPError(
            f"The parser {name} needs spaCy, which is not installed; run `python -m pip install "
            f'spacy` and `python -m spacy download {name}`, or choose the parser "{RULES}".'
        ) from error
    except OSError as error:
        raise KCDPError(
            f"spaCy's model {name} is not installed; run `python -m spacy download {name}`, or "
            f'choose the parser "{RULES}".'
        ) from error
    return lambda captions: [dependency_triplets(doc) for doc in model.pipe(captions)]


# --------------------------------------------------------------------------------------- by rules

_MEDIA = (
    "photo photograph picture image sticker icon drawing sketch illustration cartoon emoji "
    "painting close-up"
).split()
_MEDIUM = (
    r"(?:(?:a|an|the|this)\s+)?(?:(?:black and white|close "
    r"up|close-up|blurry|old|small|colou?rful|cartoon|flat|pencil)\s+)*"
    rf"(?:{'|'.join(_MEDIA)}|close up)\s+(?:of|showing)\s+"
)
LEAD = re.compile(rf"^(?:{_MEDIUM})?(?:there\s+(?:is|are|was|were)\s+)?")
CLAUSES = re.compile(r"[.!?;:]+|\b(?:while|when|because|but)\b")
PHRASES = (
    "on top of",
    "in front of",
    "in the middle of",
    "next to",
    "close to",
    "out of",
    "inside of",
    "outside of",
    "away from",
)
PREPOSITIONS = set(PHRASES) | set(
    "with without at in on under over above below beside behind near by inside outside between "
    "among around through across along into onto from to toward towards "
    "against during before after beneath underneath past upon off for like as".split()
)
DETERMINERS = set("a an the his her its their my your our some this these those".split())
PARTICLES = set("up down away back together out".split())
BE = set("is are was were be been being".split())
FINITE = set(
    "has have had stands sits holds wears looks shows smiles runs rides plays walks eats flies "
    "lies hangs jumps cries laughs screams stares faces watches carries sleeps "
    "feels seems appears makes gets takes drinks talks sings dances waits points reads leans "
    "floats swims contains features stand sit hold wear look walk run play eat".split()
)
NOUNS_IN_ING = set(
    "thing something nothing anything everything morning evening wedding ceiling building clothing "
    "wing ring king string spring earring painting sibling duckling "
    "lightning pudding stocking swing".split()
)
RELATIVE = {"that", "who", "which"}
AFTER_ED = {"by", "in", "with", "on", "to", "at", "as", "into", "around"}


def parse_triplets(caption: str) -> list[Triplet]:
    """Return the (subject, verb, object) triplets of a caption, by rules and word lists alone.

    No model is needed, so this works offline and never fails (method chapter, eq-caption).

    Every phrase is attached to the subject of its clause: "a girl with a smile at a party" gives
    (girl, has, smile), (girl, at, party). Words that the rules do not understand stay in a noun
    phrase; a caption without subject and relation gives an empty list.
    """
    text = " ".join(caption.lower().split())
    found: dict[Triplet, None] = {}  # a dict as an ordered set
    subject = ""
    for clause in CLAUSES.split(text):
        triplets, subject = _parse_clause(_words(LEAD.sub("", clause.strip())), subject)
        found.update(dict.fromkeys(triplets))
    return list(found)


def _words(clause: str) -> list[str]:
    """Return words and commas; a preposition of several words is one word."""
    for phrase in PHRASES:
        clause = re.sub(rf"\b{phrase}\b", phrase.replace(" ", "_"), clause)
    return [word.replace("_", " ") for word in re.findall(r"[\w'-]+|,", clause)]


def _parse_clause(words: list[str], subject: str) -> tuple[list[Triplet], str]:
    """Return the triplets of one clause, and its subject.

    `subject` is that of the previous clause, for a clause without one ("while holding a cup").
    """
    triplets: list[Triplet] = []
    chunk: list[str] = []
    relation, is_verb, own_subject = "", False, ""

    def close() -> None:
        """End a noun phrase: it is the subject, or the object of the open relation."""
        nonlocal own_subject, chunk, is_verb
        phrase = _strip(chunk)
        subject_now = own_subject or subject
        if not relation:
            own_subject = (
                f"{own_subject} and {phrase}" if own_subject and phrase else phrase or own_subject
            )
        elif phrase and subject_now:
            triplets.append((subject_now, relation, phrase))
            is_verb = False
        elif is_verb and subject_now and relation not in BE:
            triplets.append((subject_now, "is" if _participle(relation) else "does", relation))
            is_verb = False
        chunk = []

    after_joint = True  # at the start, after a comma or after "and": a verb may stand here
    for word, following in zip(words, [*words, ""][1:], strict=True):
        has_noun = bool(_strip(chunk))
        if word in (",", "and") or (word in RELATIVE and has_noun):
            close()
            if word == "," and relation and not (own_subject or subject):
                relation = ""  # "in a field , a man ...": the subject is still to come
            after_joint = True
            continue
        if word in BE and (has_noun or after_joint):
            close()
            relation, is_verb = word, True
        elif _is_verb(
            word,
            following,
            has_noun or after_joint or (relation in BE and not chunk),
            not relation or after_joint,
        ):
            if not (relation in BE and not chunk):
                close()
            relation, is_verb = word, True
        elif (
            is_verb
            and not chunk
            and relation not in BE
            and (word in PREPOSITIONS or word in PARTICLES)
        ):
            relation = f"{relation} {word}"
        elif word in PREPOSITIONS:
            close()
            relation, is_verb = ("has" if word == "with" else word), False
        else:
            chunk.append(word)
        after_joint = False
    close()
    return triplets, own_subject or subject


def _is_verb(word: str, following: str, may_be: bool, may_be_finite: bool) -> bool:
    """Return whether `word` opens a relation.

    After a determiner or a preposition it is an adjective ("a growling dog", "with raised
    eyebrows").
    """
    if not may_be:
        return False
    if word.endswith("ing") and len(word) > 4:
        return word not in NOUNS_IN_ING
    return (word in FINITE and may_be_finite) or (word.endswith("ed") and following in AFTER_ED)


def _participle(relation: str) -> bool:
    return relation.split()[0].endswith(("ing", "ed"))


def _strip(chunk: list[str]) -> str:
    """Return the noun phrase without determiners."""
    return " ".join(word for word in chunk if word not in DETERMINERS)


# -------------------------------------------------------------------------- by a dependency parse

_SUBJECTS = {"nsubj", "nsubjpass"}
_OBJECTS = {"dobj", "dative", "attr", "acomp", "oprd"}
_MODIFIERS = {"compound", "amod", "nummod", "poss", "nmod"}


def dependency_triplets(doc) -> list[Triplet]:
    """Return the (subject, verb, object) triplets of a caption that spaCy parsed.

    Method chapter, eq-caption. doc: a `spacy.tokens.Doc` with ClearNLP's labels, as spaCy's English
    models return it. A verb joins its subject to each object and, with a preposition, to what that
    governs; a noun is joined to what its own prepositions govern. Auxiliaries are dropped ("is
    holding" is "holding"), and "with" after a noun is "has", as in the rules. A verb without an
    object gives (subject, is, verb), or "does" if it is no participle.
    """
    found: dict[Triplet, None] = {}
    for token in doc:
        if token.pos_ in ("VERB", "AUX") and token.dep_ not in ("aux", "auxpass"):
            found.update(dict.fromkeys(_of_verb(token)))
        elif token.pos_ in ("NOUN", "PROPN", "PRON") and token.lower_ not in _MEDIA:
            found.update(
                dict.fromkeys(
                    (_phrase(token), "has" if preposition == "with" else preposition, _phrase(noun))
                    for preposition, noun in _governed(token)
                    if preposition != "of"
                )
            )
    return list(found)


def _of_verb(verb) -> list[Triplet]:
    """Return the triplets of one verb."""
    words = (
        [child.lower_ for child in verb.children if child.dep_ == "neg"]
        + [verb.lower_]
        + [child.lower_ for child in verb.children if child.dep_ == "prt"]
    )
    relation, subject = " ".join(words), " and ".join(_phrase(noun) for noun in _subjects(verb))
    if not subject:
        return []
    objects = [
        (relation, _phrase(noun))
        for child in verb.children
        if child.dep_ in _OBJECTS
        for noun in _joined(child)
    ]
    objects += [
        (f"{relation} {preposition}", _phrase(noun)) for preposition, noun in _governed(verb)
    ]
    if (
        not objects
        and verb.pos_ == "VERB"
        and not any(child.dep_ == "xcomp" for child in verb.children)
    ):
        objects = [("is" if _participle(verb.lower_) else "does", relation)]
    return [(subject, *pair) for pair in objects]


def _subjects(verb) -> list:
    """Return the nouns that do what the verb says.

    They are its own subjects, the nouns it describes ("a cat sitting"), or the subjects of its
    head.
    """
    own = [noun for child in verb.children if child.dep_ in _SUBJECTS for noun in _joined(child)]
    if own and not (verb.dep_ == "relcl" and own[0].lower_ in RELATIVE):
        return _depicted(own)
    if verb.dep_ in ("relcl", "acl"):
        return _depicted(_joined(verb.head))
    if verb.dep_ in ("conj", "advcl", "xcomp") and verb.head is not verb:
        return _subjects(verb.head)
    return []


def _depicted(nouns: list) -> list:
    """Replace words for pictures by what they show: "a photo of a cat" by the cat."""
    return [
        inner
        for noun in nouns
        for inner in (
            [governed for _, governed in _governed(noun)] if noun.lower_ in _MEDIA else [noun]
        )
    ]


def _governed(head) -> list[tuple[str, object]]:
    """Return (preposition, noun) of every noun that a preposition ties to `head`.

    "out of the box" has one preposition of two words.
    """
    found = []
    for child in head.children:
        if child.dep_ in ("prep", "agent"):
            found += [
                (child.lower_, noun)
                for grand in child.children
                if grand.dep_ == "pobj"
                for noun in _joined(grand)
            ]
            found += [
                (f"{child.lower_} {preposition}", noun) for preposition, noun in _governed(child)
            ]
    return found


def _joined(noun) -> list:
    """Return a noun and all nouns that "and" adds to it."""
    return [noun] + [
        other for child in noun.children if child.dep_ == "conj" for other in _joined(child)
    ]


def _phrase(noun) -> str:
    """Return a noun with its modifiers and what "of" adds, without determiners.

    Possessives such as "her" are left out, too.
    """
    before = [
        _phrase(child)
        for child in noun.lefts
        if child.dep_ in _MODIFIERS and child.lower_ not in DETERMINERS
    ]
    after = [
        f"of {_phrase(inner)}" for preposition, inner in _governed(noun) if preposition == "of"
    ]
    return " ".join([*before, noun.lower_, *after])
