"""Chapter 02: triplets from free English.

No spaCy model can be downloaded where this is tested, so the parses are written by hand, with the
labels of spaCy's English models.
"""

import sys

import pytest
import spacy
from spacy.tokens import Doc

from kcdp_lib import triplets
from kcdp_lib.errors import KCDPError


def parse(text: str) -> Doc:
    """Parse lines of "word POS label head"; heads count from 1, and 0 is the root."""
    rows = [line.split() for line in text.strip().splitlines()]
    heads = [int(head) - 1 if head != "0" else i for i, (*_, head) in enumerate(rows)]
    words, tags, labels, _ = zip(*rows, strict=True)
    return Doc(
        spacy.blank("en").vocab,
        list(words),
        pos=list(tags),
        deps=[
            label if head != i else "ROOT"
            for i, (label, head) in enumerate(zip(labels, heads, strict=True))
        ],
        heads=heads,
    )


CASES = {
    "a man is holding a red umbrella in the rain": (
        """
        a DET det 2
        man NOUN nsubj 4
        is AUX aux 4
        holding VERB ROOT 0
        a DET det 7
        red ADJ amod 7
        umbrella NOUN dobj 4
        in ADP prep 4
        the DET det 10
        rain NOUN pobj 8""",
        [("man", "holding", "red umbrella"), ("man", "holding in", "rain")],
    ),
    "the photo of a girl with a wide smile": (
        """
        the DET det 2
        photo NOUN ROOT 0
        of ADP prep 2
        a DET det 5
        girl NOUN pobj 3
        with ADP prep 5
        a DET det 9
        wide ADJ amod 9
        smile NOUN pobj 6""",
        [("girl", "has", "wide smile")],
    ),
    "a picture of a dog sleeping": (
        """
        a DET det 2
        picture NOUN ROOT 0
        of ADP prep 2
        a DET det 5
        dog NOUN pobj 3
        sleeping VERB acl 5""",
        [("dog", "is", "sleeping")],
    ),
    "there is a cat sitting on a plate of fish": (
        """
        there PRON expl 2
        is AUX ROOT 0
        a DET det 4
        cat NOUN attr 2
        sitting VERB acl 4
        on ADP prep 5
        a DET det 8
        plate NOUN pobj 6
        of ADP prep 8
        fish NOUN pobj 9""",
        [("cat", "sitting on", "plate of fish")],
    ),
    "a woman who looks sad wipes her eyes and cries": (
        """
        a DET det 2
        woman NOUN nsubj 6
        who PRON nsubj 4
        looks VERB relcl 2
        sad ADJ acomp 4
        wipes VERB ROOT 0
        her PRON poss 8
        eyes NOUN dobj 6
        and CCONJ cc 6
        cries VERB conj 6""",
        [("woman", "looks", "sad"), ("woman", "wipes", "eyes"), ("woman", "does", "cries")],
    ),
    "a boy and a girl are surrounded by balloons": (
        """
        a DET det 2
        boy NOUN nsubjpass 7
        and CCONJ cc 2
        a DET det 5
        girl NOUN conj 2
        are AUX auxpass 7
        surrounded VERB ROOT 0
        by ADP agent 7
        balloons NOUN pobj 8""",
        [("boy and girl", "surrounded by", "balloons")],
    ),
    "he is not smiling while looking out of the window": (
        """
        he PRON nsubj 4
        is AUX aux 4
        not PART neg 4
        smiling VERB ROOT 0
        while SCONJ mark 6
        looking VERB advcl 4
        out ADP prep 6
        of ADP prep 7
        the DET det 10
        window NOUN pobj 8""",
        [("he", "is", "not smiling"), ("he", "looking out of", "window")],
    ),
    "the man wears a hat and gloves": (
        """
        the DET det 2
        man NOUN nsubj 3
        wears VERB ROOT 0
        a DET det 5
        hat NOUN dobj 3
        and CCONJ cc 5
        gloves NOUN conj 5""",
        [("man", "wears", "hat"), ("man", "wears", "gloves")],
    ),
    "snow": ("snow NOUN ROOT 0", []),
}


@pytest.mark.parametrize("sentence", CASES)
def test_triplets_of_a_parse(sentence):
    text, expected = CASES[sentence]
    doc = parse(text)
    assert doc.text.split() == sentence.split()
    assert triplets.dependency_triplets(doc) == expected


def test_the_rules_are_a_parser_like_any_other():
    assert triplets.load_parser("rules")(["a cat with a hat .", ""]) == [
        [("cat", "has", "hat")],
        [],
    ]


def test_an_installed_model_parses_captions(monkeypatch):
    """A pipeline replaces the model: every caption of a batch has its own triplets."""

    class Pipeline:
        def pipe(self, captions):
            return [parse(CASES[caption][0]) for caption in captions]

    monkeypatch.setattr(spacy, "load", lambda name, exclude: Pipeline())
    triplets.load_parser.cache_clear()
    assert triplets.load_parser("some")(list(CASES)) == [expected for _, expected in CASES.values()]
    triplets.load_parser.cache_clear()


def test_a_missing_spacy_is_a_sentence(monkeypatch):
    """The library is installed without it, unless requested."""
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(KCDPError, match="^The parser some needs spaCy, .* choose the parser"):
        triplets.load_parser("some")
