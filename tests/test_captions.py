"""Captions of real drawings, and their embedding by the sentence encoder."""

import numpy as np
import pytest
import torch

from kcdp_lib import datasets, world
from kcdp_lib.pretrain import captions, corpus, drawings, language, measure, sentences, texts
from kcdp_lib.pretrain.drawings import Drawing
from kcdp_lib.pretrain.task import KNOWLEDGE, VARIANTS, Drawn, Task, mixture, read_drawings, spoken

FACE = Drawing("some", "x", "grinning face", ("happy", "smile", "face"), "face", "")
PERSON = Drawing("micah", "1", "person", ("sad mouth", "cry eyes"), "character", "")


def labelled(label: str, *words: str) -> Drawing:
    return FACE._replace(label=label, words=words)


def test_people_s_captions_hold_nothing_but_people_s_words():
    rng = np.random.default_rng(0)
    assert {captions.peoples(FACE, rng) for _ in range(200)} == {
        "a sticker of a grinning face .",
        "a sticker of a grinning face , happy .",
        "a sticker of a grinning face , smile .",
        "a sticker of happy , smile .",
        "a sticker of smile , happy .",
    }
    assert captions.peoples(labelled("angry face"), rng) == "a sticker of an angry face ."
    assert {captions.peoples(PERSON, rng) for _ in range(100)} == {
        "a sticker of a person .",
        "a sticker of a person , sad mouth .",
        "a sticker of a person , cry eyes .",
        "a sticker of a person , sad mouth , cry eyes .",
    }


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("grinning face with smiling eyes", {"mouth": "a big smile"}),
        ("kissing face with smiling eyes", {}),
        ("slightly smiling face", {"mouth": "a smile"}),
        ("frowning face with open mouth", {"mouth": "an open mouth"}),
        ("loudly crying face", {"response": "shedding tears"}),
        (
            "face with tears of joy",
            {"mouth": "a big smile", "response": "shedding tears"},
        ),
        ("squinting face with tongue", {"mouth": "the tongue out", "eyes": "closed eyes"}),
        ("angry face", {}),
        ("teardrop", {}),
    ],
)
def test_a_name_says_what_it_says_and_no_more(label, shown):
    assert captions.signs(labelled(label)) == shown


def test_features_of_a_character_are_told_in_the_world_s_words():
    assert captions.signs(PERSON) == {"mouth": "a frown", "response": "shedding tears"}
    brows = PERSON._replace(words=("frown eyebrows", "smiling eyes"))
    assert captions.signs(brows) == {}


def test_the_rule_s_phrases_are_the_world_s_own():
    for kind, phrase, _ in captions.SIGNS:
        assert phrase in measure.KINDS[kind]


def test_a_caption_in_the_world_s_words_can_be_read_like_one_of_the_world():
    rng = np.random.default_rng(0)
    told = {captions.caption(PERSON, rng) for _ in range(100)}
    assert "a sticker of a person with a frown , shedding tears ." in told
    face = {captions.caption(FACE, rng) for _ in range(100)}
    assert "a sticker of a face with a big smile , grinning face ." in face
    assert measure.attributes("a sticker of a person with a frown , shedding tears .") == {
        "subject person",
        "mouth a frown",
        "response shedding tears",
    }


def test_the_label_s_emotion_counts_before_the_keywords():
    joy = labelled("face with tears of joy", "crying", "laugh")
    assert captions.emotions(joy) == ["happy"]
    assert captions.emotions(labelled("flushed face", "amazed", "embarrassed")) == ["surprise"]
    assert captions.emotions(labelled("skull", "dead")) == []


def test_words_that_people_feel_by_are_each_of_one_class():
    words = [word for of in captions.FELT.values() for word in of.split()]
    assert len(words) == len(set(words)) and set(captions.FELT) == set(world.SIX)


def test_a_pair_names_an_emotion_that_people_gave_or_their_keywords():
    rng = np.random.default_rng(0)
    named = {captions.pair(FACE, rng)[1] for _ in range(300)}
    words = set(world.EMOTION_WORDS["happy"])
    assert {word for text in named for word in text.split()} & set(sentences.EMOTION_WORDS) <= {
        *words,
        *FACE.words,
    }
    assert any("picture that feels" in text for text in named)
    assert captions.pair(labelled("gear"), rng) == ("a sticker of a gear .", "gear .")


@pytest.fixture
def drawn():
    about = [FACE, PERSON, labelled("angry face", "rage")]
    rng = np.random.default_rng(0)
    told = [[captions.caption(one, rng) for one in about] for _ in range(VARIANTS)]
    return Drawn(np.zeros((3, 4, 4, 4), np.uint8), about, told, np.full(3, 1 / 3))


def test_a_set_that_is_left_out_is_seen_and_told_of_by_nobody(tmp_path, monkeypatch):
    """Neither its pictures nor its words reach a model, in any of the ways that drawings do."""
    about = [FACE, PERSON._replace(words=("sad mouth", "beard")), labelled("crying face")]
    pixels = np.stack([np.full((128, 128, 4), 255 * (one is about[1]), np.uint8) for one in about])
    world_pictures = np.full((128, 128, 128, 3), 7, np.uint8)
    monkeypatch.setattr(drawings, "build", lambda work: (pixels, about))
    monkeypatch.setattr(
        corpus, "build", lambda work: (world_pictures, ["a photo of a cat ."] * 128)
    )
    monkeypatch.setattr(language, "PAIRS", 50)
    whole = Task(tmp_path, tmp_path / "out")
    task = whole._replace(without=("micah",))
    assert whole.pictures != task.pictures and whole.checkpoints != task.checkpoints
    shown = read_drawings(task)
    assert [one.set for one in shown.about] == ["some", "some"] and not shown.pictures.any()
    said = [*spoken(task), *language.text_pool(task, shown).all]
    assert not [text for text in said if "beard" in text]
    assert [text for text in spoken(whole) if "beard" in text]
    pictures, told = mixture(task)
    assert len(pictures) == len(told) == 66 and not [text for text in told if "beard" in text]


def test_names_that_only_sound_like_a_sign_say_none():
    for name in ("spouting whale", "tear off calendar", "sweat droplets", "tongue"):
        assert not captions.signs(labelled(name)), name
    assert captions.signs(labelled("smiling face with tear"))["response"] == "shedding tears"


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
def test_each_knowledge_has_its_own_pairs(tmp_path, monkeypatch, drawn, knowledge):
    monkeypatch.setattr(language, "PAIRS", 200)
    task = Task(tmp_path, tmp_path, knowledge=knowledge)
    pool = language.text_pool(task, drawn)
    emotional = [
        any(word in text.split() for word in sentences.EMOTION_WORDS) for text in pool.second
    ]
    by_people = sum(text.startswith("a sticker of a face with a big smile") for text in pool.first)
    events = list(texts.HEARSAY["event"])
    of_world = [any(event in text for event in events) for text in pool.first]
    # the generator's table says what events make people feel, unless it is left out
    told = any(e and w for e, w in zip(emotional, of_world, strict=True))
    assert bool(by_people) == task.by_language
    assert len(pool.ours) == len(pool.all)
    assert told == (knowledge != "language")


def test_where_both_teach_the_world_is_left_to_hearsay(tmp_path):
    felt, ours = torch.full((2, 3), 1 / 3), np.array([True, False])
    both = Task(tmp_path, tmp_path, knowledge="both").answers(felt, ours)
    by_language = Task(tmp_path, tmp_path, knowledge="language").answers(felt, ours)
    assert both.sum(1).tolist() == pytest.approx([0, 1]) and torch.equal(by_language, felt)


def test_people_s_own_words_for_a_drawing_make_half_of_what_it_feels(drawn):
    felt = torch.full((3, len(sentences.EMOTION_WORDS)), 1 / len(sentences.EMOTION_WORDS))
    shares = language.people_feel(drawn, felt)
    happy = [sentences.EMOTION_WORDS.index(word) for word in world.EMOTION_WORDS["happy"]]
    assert shares.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert shares[0, happy].sum().item() == pytest.approx(0.5 + 0.5 * felt[0, happy].sum().item())


def test_feelings_are_what_a_text_says_beyond_what_texts_are_like(tmp_path, monkeypatch):
    """A word that is close to every text says nothing about any of them."""
    directions = torch.eye(sentences.WIDTH)

    def embed(some, work):
        rows = []
        for text in some:
            near = next((i for i, word in enumerate(sentences.EMOTION_WORDS) if word in text), 0)
            rows.append(directions[near] + directions[7])  # all are slightly close to word 7
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    monkeypatch.setattr(sentences, "embed", embed)
    word = sentences.EMOTION_WORDS[20]
    felt = sentences.feelings([f"a {word} cat", "a cup", "a ball"], tmp_path)
    assert felt.shape == (3, len(sentences.EMOTION_WORDS))
    assert felt.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert felt[0].argmax() == 20


def test_near_texts_are_near_where_the_teacher_says_so():
    torch.manual_seed(0)
    teachers = torch.nn.functional.normalize(torch.randn(12, 5), dim=-1)
    own = teachers.clone().requires_grad_(True)
    right = language.same_neighbours(own, teachers)
    right.backward()
    assert torch.isfinite(own.grad).all()
    assert right < language.same_neighbours(teachers[torch.randperm(12)], teachers)


def test_captions_are_punctuated_for_who_has_read_books():
    assert sentences.natural("a cat , trembling .") == "a cat, trembling."
    assert sentences.natural("a photo of an egg .") == sentences.natural("an icon of an egg .")
    assert sentences.natural("a sad photo of") == "a sad photo of"


def test_a_concept_of_real_art_is_a_drawing_of_the_corpus():
    crying = captions.of_concept("crying face")
    assert captions.signs(crying) == {"response": "shedding tears"} and crying.group == "face"
    character = captions.of_concept("micah: sad mouth, smiling eyes2")
    assert (character.group, character.words) == ("character", ("sad mouth", "smiling eyes"))
    own = captions.of_concept("streamline: amusing face")
    assert (own.group, own.label) == ("face", "amusing face")
    for name in datasets.ART:
        known = map(captions.of_concept, datasets.concepts(datasets.load(name, "train")))
        person = name.removeprefix("art-") in datasets.CHARACTERS.split()
        assert {one.group for one in known} == {"character" if person else "face"}, name
