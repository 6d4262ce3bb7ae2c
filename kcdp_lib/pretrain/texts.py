"""The texts of the miniature world.

These are captions of its pictures, text-only sentences about emotions, and the tokenizer trained on
both.
"""

import json
import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from kcdp_lib import world
from kcdp_lib.world import causes

MAX_LENGTH = 32
MEDIA = tuple(causes.DOMAINS[domain].word for domain in world.BENCHMARK)


def typical(weights: dict[str, float]) -> tuple[str, ...]:
    """Return the typical emotions of a sign, {emotion: weight} -> names.

    Their weight is at least half of the largest.
    """
    return tuple(name for name, weight in weights.items() if weight >= max(weights.values()) / 2)


def face_weights(phrase_of) -> dict[str, dict[str, float]]:
    """Return {"with " + phrase: {emotion: share of its prototype faces}}.

    phrase_of: `causes.mouth_of` or `causes.eyes_of`.
    """
    signs: dict[str, dict[str, float]] = {}
    for emotion, faces in causes.FACES.items():
        for phrase in filter(None, map(phrase_of, faces)):
            weights = signs.setdefault(f"with {phrase}", {})
            weights[emotion] = weights.get(emotion, 0) + 1 / len(faces)
    return signs


# Common knowledge of emotions: sign -> its typical emotions, without frequencies and without
# combinations of signs
HEARSAY = {
    kind: {phrase: typical(weights) for phrase, weights in table}
    for kind, table in (
        ("event", causes.EVENTS.values()),
        ("response", causes.RESPONSES.values()),
        ("mouth", face_weights(causes.mouth_of).items()),
        ("eyes", face_weights(causes.eyes_of).items()),
    )
}
# Frequency of each kind of sign in texts
KINDS = {"event": 0.4, "response": 0.4, "mouth": 0.13, "eyes": 0.07}


def pick(rng: np.random.Generator, items):
    """Draw one of `items`, each equally likely."""
    return items[rng.integers(len(items))]


def emotion_word(emotion: str, rng: np.random.Generator) -> str:
    """Draw a word for one of the world's eight emotions, or for its class of the six."""
    taxonomy = pick(rng, tuple(world.TAXONOMIES))
    return pick(rng, world.EMOTION_WORDS[world.label_of(emotion, taxonomy)])


def heard(rng: np.random.Generator) -> tuple[str, str, str]:
    """Draw (subject, sign, emotion): one sign, and one of its typical emotions.

    It belongs to no scene.
    """
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    sign = pick(rng, list(HEARSAY[kind]))
    return pick(rng, causes.SUBJECTS), sign, pick(rng, HEARSAY[kind][sign])


def as_triplet(who: str, sign: str) -> str:
    """Write a sign like a parser's triplet.

    ("cat", "with a big smile") -> "cat has big smile", ("girl", "beside a grave") -> "girl beside
    grave".
    """
    return re.sub(r"\b(a|an|the) ", "", f"{who} {re.sub('^with ', 'has ', sign)}")


def described(who: str, sign: str, rng: np.random.Generator) -> str:
    """Write a caption or triplet that contains one sign and names no emotion."""
    return pick(
        rng,
        (
            f"a {pick(rng, MEDIA)} of {causes.with_article(who)} {sign} .",
            f"a {pick(rng, MEDIA)} of {causes.with_article(who)} , {sign} .",
            as_triplet(who, sign),
        ),
    )


def hearsay(who: str, sign: str, word: str, rng: np.random.Generator) -> str:
    """Write a sentence that joins an emotion word to one sign, without a picture.

    This is what a reader of books knows about emotions.
    """
    return pick(
        rng,
        (
            f"a {word} {who} {sign} .",
            f"the {who} {sign} is {word} .",
            f"a {who} {sign} feels {word} .",
            f"{word} : {sign} .",
            f"a {word} photo of a {who} {sign} .",
        ),
    )


def emotion_pair(rng: np.random.Generator) -> tuple[str, str]:
    """Write two texts about one sign, without a picture.

    One contains the sign; the other names a typical emotion of it, with or without the sign.
    """
    who, sign, emotion = heard(rng)
    word = emotion_word(emotion, rng)
    named = pick(
        rng,
        (
            f"a {word} {pick(rng, MEDIA)} of a {who} .",
            f"a {word} {pick(rng, MEDIA)} of",
            f"a {word} {pick(rng, MEDIA)}",
            f"a {who} feels {word} .",
            f"a picture that feels {word}",
        ),
    )
    return described(who, sign, rng), named if rng.random() < 0.7 else hearsay(who, sign, word, rng)


def phrase(scene: world.Scene, domain: str, rng: np.random.Generator) -> str:
    """Write one visible attribute of a scene like a triplet ("cat has big smile")."""
    attributes = world.visible_attributes(scene, domain)
    subject = attributes.pop("subject")
    kind = pick(rng, list(attributes) or ["subject"])
    if kind == "subject":
        return f"a {subject}"
    sign = attributes[kind]
    return as_triplet(subject, f"with {sign}" if kind in ("mouth", "eyes") else sign)


def scene_pair(rng: np.random.Generator) -> tuple[str, str]:
    """Write two texts about one scene, without a picture and without emotion words.

    One is its caption in one domain; the other its caption or an attribute in another.
    """
    scene = world.sample_scene("pretrain", 1, int(rng.integers(200_000)))
    first, second = pick(rng, world.BENCHMARK), pick(rng, world.BENCHMARK)
    caption = world.caption(scene, first)
    if rng.random() < 0.5:
        return caption, world.caption(scene, second)
    return caption, phrase(scene, second, rng)


def sign_text(rng: np.random.Generator) -> str:
    """Write a short text that contains one sign and names no emotion, or the sign alone."""
    who, sign, _ = heard(rng)
    return described(who, sign, rng) if rng.random() < 0.8 else sign


def icon_caption(scene: world.Scene) -> str:
    """Write the caption of an icon: an emotion word, and no sign of the emotion.

    Only this style has emotion words in its captions.
    """
    taxonomy = list(world.TAXONOMIES)[scene.chance.seed % 2]
    words = world.EMOTION_WORDS[world.label_of(scene.emotion, taxonomy)]
    return f"an icon of a {words[scene.chance.seed // 2 % len(words)]} {scene.looks.subject} ."


def corpus(n: int = 4000, seed: int = 0) -> list[str]:
    """Write captions, short phrases and text-only sentences, `n` of each kind."""
    rng, texts = np.random.default_rng([9, seed]), []
    for i in range(n):
        scene = world.sample_scene("pretrain", seed, i)
        texts += [
            world.caption(scene, world.BENCHMARK[i % 4]),
            icon_caption(scene),
            *emotion_pair(rng),
            phrase(scene, world.BENCHMARK[i % 4], rng),
        ]
    words = [word for of_class in world.EMOTION_WORDS.values() for word in of_class]
    return texts + [f"a {word} photo of" for word in words]


def make_tokenizer(folder, pad_token: str, said: Sequence[str] = ()) -> CLIPTokenizer:
    """Train CLIP's byte-level BPE on the corpus and on `said`, and save it to `folder`.

    It has the real tokenizer's layout; `pad_token` has id 0 in the VLM's copy.
    """
    reference = CLIPTokenizer()
    bpe = Tokenizer(
        models.BPE(
            end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token="<|endoftext|>"
        )
    )
    bpe.normalizer = reference._tokenizer.normalizer
    bpe.pre_tokenizer = reference._tokenizer.pre_tokenizer
    bpe.decoder = decoders.ByteLevel()
    # The end must not have id 2: like early CLIPs, transformers then pools the token with the
    # largest id, which could be any rare word.
    specials = ["<|pad|>", "<|endoftext|>", "<|startoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=2800,
        special_tokens=specials,
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*corpus(), *said], trainer)
    state = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in state["merges"]]
    # Numbered like CLIP's: bytes, bytes that end a word (so that no text is unknown), merges. The
    # trainer numbers the second kind differently in every process.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*specials, *letters, *(f"{letter}</w>" for letter in letters)]
    words += ["".join(merge) for merge in merges]
    vocab = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = CLIPTokenizer(
        vocab=vocab, merges=merges, pad_token=pad_token, model_max_length=MAX_LENGTH
    )
    tokenizer.save_pretrained(folder)
    # vocab.json and merges.txt, as in the real folders
    tokenizer._tokenizer.model.save(str(folder))
    return tokenizer
