"""The miniature foundation models: what they were shown, and that the shipped folders are what they say."""
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from kcdp_lib import datasets, knowledge, paths
from kcdp_lib.config import PRESETS
from kcdp_lib.datasets import EMOTIONS, world
from kcdp_lib.pretrain import corpus, texts, train

WORDS = {word for group in world.EMOTION_WORDS.values() for word in group} | set(EMOTIONS)


def test_no_emotion_word_beside_a_picture_of_a_benchmark_domain():
    named = 0
    for job in corpus.jobs():
        found = WORDS & set(corpus.describe(job).replace(",", " ").split())
        assert not found or job[0] == "icons", (job, found)
        named += bool(found)
    assert named == corpus.SHARES["icons"] and "icons" not in datasets.DOMAINS


def test_the_corpus_shares_no_scene_with_a_benchmark_split():
    """The scenes come from a split of their own; even the drawing seeds do not meet."""
    pretrained = {world.sample_scene("pretrain", corpus.SEED, i).seed for _, i in corpus.jobs()}
    for domain in ("photos", "stickers"):
        for split in ("train", "test"):
            seeds = {world.sample_scene(split, 0, i, world.DOMAINS[domain].prior).seed for i in range(datasets.SIZES[split])}
            assert len(pretrained & seeds) <= 1      # a chance collision of 31-bit numbers, not a shared scene


def test_the_tokenizer_knows_its_words_and_survives_others(tmp_path):
    tokenizer = texts.make_tokenizer(tmp_path, "<|pad|>")
    for word in ("photo", "sticker", "tears", "happy", "disgust", "grave"):
        assert tokenizer.tokenize(word) == [f"{word}</w>"]
    assert tokenizer.decode(tokenizer("Zürich, 3 owls!")["input_ids"], skip_special_tokens=True).replace(" ", "") == "zürich,3owls!"
    assert max(len(tokenizer(text)["input_ids"]) for text in texts.corpus(500)) <= texts.MAX_LENGTH


def test_a_stage_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Killed after two of four steps and started again: the same numbers as in one go."""
    monkeypatch.setitem(train.STEPS, "vae", (4, 4))

    def run(folder, stop_at=None):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        stage = train.Stage("vae", folder, torch.nn.Linear(3, 2), "cpu", every=2)
        calls = []

        def loss(rng, batch):
            calls.append(1)
            if stop_at is not None and len(calls) > stop_at:
                raise KeyboardInterrupt
            return stage.module(torch.from_numpy(rng.normal(size=(batch, 3)).astype(np.float32))).pow(2).mean()

        try:
            stage.run(loss)
        except KeyboardInterrupt:
            return run(folder)
        return stage.module.weight.detach()

    assert torch.equal(run(tmp_path / "whole"), run(tmp_path / "killed", stop_at=3))


def test_shipped_weights_are_small_half_precision_safetensors():
    files = [path for path in paths.TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt", ".npy")]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 4
    for path in weights:
        with safe_open(path, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} <= {"F16", "I64"}


def test_shipped_weights_are_those_of_the_committed_configuration():
    config = json.loads((paths.TINY / "pretraining.json").read_text())
    assert config["corpus"] == corpus.SHARES and config["steps"] == {name: list(value) for name, value in train.STEPS.items()}


@pytest.fixture(scope="module")
def unseen():
    """Captions of 60 unseen pictures a domain, beside what is visible in them."""
    vlm, found = knowledge.load_vlm(PRESETS["tiny"]), {}
    for domain in ("photos", "stickers", "sketches"):
        scenes = [world.sample_scene("test", 77, i) for i in range(60)]
        from kcdp_lib.datasets import render
        images = torch.stack([torch.from_numpy(np.array(render.render(s, domain, 64))).permute(2, 0, 1) for s in scenes])
        found[domain] = (knowledge.caption(vlm, images), [world.visible_attributes(s, domain) for s in scenes])
    return found


@pytest.mark.parametrize("domain", ("photos", "stickers", "sketches"))
def test_the_captioner_sees(unseen, domain):
    """Micro-F1 of subject, event and response phrases on unseen pictures; the captioner was never shown these scenes."""
    captions, attributes = unseen[domain]
    phrases = [*world.SUBJECTS, *(p for p, _ in world.EVENTS.values()), *(p for p, _ in world.RESPONSES.values())]
    hit = said = visible = 0
    for text, seen in zip(captions, attributes):
        padded = f" {text} "
        for phrase in phrases:
            a, b = f" {phrase} " in padded, phrase in seen.values()
            hit, said, visible = hit + (a and b), said + a, visible + b
    assert 2 * hit / (said + visible) > 0.7
    assert not [text for text in captions if WORDS & set(text.split())]
