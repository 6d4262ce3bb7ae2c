"""The words of the miniature world: captions for its pictures, text-only sentences that speak of emotions, and the tokenizer made from both."""
import json

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from ..datasets import world

MAX_LENGTH = 32


def emotion_sentence(scene: world.Scene, rng: np.random.Generator) -> str:
    """A text-only sentence that names the scene's emotion and one or two of its causes: what a reader of books knows of feelings."""
    word = rng.choice(world.EMOTION_WORDS[scene.emotion][:3])
    causes = []
    if scene.event:
        causes.append(world.EVENTS[scene.event][0])
    if scene.response:
        causes.append(world.RESPONSES[scene.response][0])
    face = world.visible_attributes(scene, "stickers").get("mouth")
    if face:
        causes.append(f"with {face}")
    rng.shuffle(causes)
    causes = causes[: rng.integers(1, 3)] if causes else []
    forms = (f"a {word} {scene.subject} {' '.join(causes)} .",
             f"the {scene.subject} {' '.join(causes)} is {word} .",
             f"a {scene.subject} feels {scene.emotion} {' '.join(causes)} .",
             f"a {scene.emotion} photo of a {scene.subject} {' '.join(causes)} .",
             f"a {scene.emotion} sticker of a {scene.subject} {' '.join(causes)} .",
             f"{scene.emotion} : {' , '.join(causes) or scene.subject} .")
    return str(forms[rng.integers(len(forms))])


def icon_caption(scene: world.Scene) -> str:
    """The caption of a picture in the style `icons`, the one style that stands beside emotion words."""
    word = world.EMOTION_WORDS[scene.emotion][scene.seed % 2]
    return world.caption(scene, "icons").replace(f" of a {scene.subject}", f" of a {word} {scene.subject}").replace(f" of an {scene.subject}", f" of a {word} {scene.subject}")


def phrase(scene: world.Scene, domain: str, rng: np.random.Generator) -> str:
    """A short text on one visible attribute ("cat with a big smile"), the form that triplets take."""
    seen = world.visible_attributes(scene, domain)
    kind = str(rng.choice([k for k in seen if k != "subject"] or ["subject"]))
    if kind == "subject":
        return f"a {scene.subject}"
    verb = {"mouth": "has", "eyes": "has", "response": "", "event": "is"}[kind]
    return f"{scene.subject} {verb} {seen[kind]}".replace("  ", " ")


def corpus(n: int = 4000, seed: int = 0) -> list[str]:
    """Captions, short phrases and text-only sentences, `n` of each kind."""
    rng, texts = np.random.default_rng([9, seed]), []
    for i in range(n):
        scene = world.sample_scene("pretrain", seed, i)
        domain = ("photos", "stickers", "sketches")[i % 3]
        texts += [world.caption(scene, domain), icon_caption(scene), emotion_sentence(scene, rng), phrase(scene, domain, rng)]
    return texts + [f"a {word} photo of" for words in world.EMOTION_WORDS.values() for word in words]


def make_tokenizer(folder, pad_token: str) -> CLIPTokenizer:
    """CLIP's byte-level BPE trained on the corpus and saved to `folder` in the real tokenizer's layout; `pad_token` has id 0 in the VLM's copy."""
    reference = CLIPTokenizer()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token="<|endoftext|>"))
    bpe.normalizer, bpe.pre_tokenizer, bpe.decoder = reference._tokenizer.normalizer, reference._tokenizer.pre_tokenizer, decoders.ByteLevel()
    specials = ["<|pad|>", "<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=1400, special_tokens=specials, end_of_word_suffix="</w>", continuing_subword_prefix="",
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    bpe.train_from_iterator(corpus(), trainer)
    state = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in state["merges"]]
    # every single byte also ends a word, as in CLIP's vocabulary, so that no text is unknown
    vocab = dict(state["vocab"])
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab.setdefault(byte + "</w>", len(vocab))
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad_token, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    tokenizer._tokenizer.model.save(str(folder))  # vocab.json and merges.txt, which the real folders have
    return tokenizer
