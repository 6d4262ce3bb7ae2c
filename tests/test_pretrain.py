"""The miniature foundation models.

What they were trained on, and that the shipped folders agree with their records.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open

from kcdp_book import results
from kcdp_lib import checkpoints, datasets, paths, vision_language, world
from kcdp_lib.config import PRESETS, RECIPES
from kcdp_lib.knowledge import load_text_encoder
from kcdp_lib.latents import encode_images, load_vae
from kcdp_lib.loading import stack_key
from kcdp_lib.perception import load_unet
from kcdp_lib.pretrain import (
    IMAGE_SIZE,
    coca,
    corpus,
    drawings,
    language,
    measure,
    sentences,
    stack,
    stage,
    texts,
)
from kcdp_lib.pretrain.__main__ import STAGES
from kcdp_lib.pretrain.drawings import Drawing
from kcdp_lib.pretrain.task import Task, spoken

WORDS = (
    {word for group in world.EMOTION_WORDS.values() for word in group}
    | set(world.SIX)
    | set(world.EIGHT)
)


def words_of(text: str) -> set[str]:
    return set(text.replace(",", " ").replace(":", " ").split())


def test_no_emotion_word_beside_a_picture_of_a_benchmark_domain():
    named = 0
    for job in corpus.jobs():
        found = WORDS & words_of(corpus.describe(job))
        assert not found or job[0] == "icons", (job, found)
        named += bool(found)
    assert named == corpus.SHARES["icons"] and "icons" not in datasets.DOMAINS


def test_an_icon_names_its_emotion_and_nothing_that_goes_with_it():
    """Otherwise captions would reveal how often the world shows each sign with each emotion."""
    for job in [("icons", i) for i in range(300)]:
        text, scene = corpus.describe(job), corpus.scene_of(job)
        assert measure.attributes(text.replace(text.split()[4], "", 1).replace("  ", " ")) == {
            f"subject {scene.looks.subject}"
        }
        assert text.split()[4] in {
            word
            for taxonomy in world.TAXONOMIES
            for word in world.EMOTION_WORDS[world.label_of(scene.emotion, taxonomy)]
        }


def test_the_corpus_shares_no_scene_with_a_benchmark_split():
    """The scenes come from a split of their own, and even the drawing seeds hardly coincide."""
    pretrained = {corpus.scene_of(job).chance.seed for job in corpus.jobs()}
    for domain in world.BENCHMARK:
        for split in ("train", "test"):
            seeds = {
                world.sample_scene(split, 0, i, domain).chance.seed
                for i in range(datasets.SIZES[split])
            }
            assert (
                len(pretrained & seeds) <= 1
            )  # chance collisions of 31-bit numbers, not shared scenes


def test_hearsay_sets_one_sign_beside_an_emotion_and_no_scene():
    """A text that names an emotion has at most one sign of it.

    The emotions of a sign are equally frequent: common knowledge, not the world's table.
    """
    rng, signs = (
        np.random.default_rng(0),
        [sign for table in texts.HEARSAY.values() for sign in table],
    )
    told = [texts.emotion_pair(rng) for _ in range(4000)]
    for described, named in told:
        assert not WORDS & words_of(described) and WORDS & words_of(named)
        assert sum(sign in named for sign in signs) <= 1
    heard = [texts.heard(rng) for _ in range(20_000)]
    for sign in ("beside a broken vase", "under a rainbow"):
        emotions = [emotion for _, of, emotion in heard if of == sign]
        shares = [emotions.count(e) / len(emotions) for e in set(emotions)]
        assert len(shares) == 2 and max(shares) < 0.6
    assert all(not WORDS & words_of(text) for _ in range(500) for text in texts.scene_pair(rng))


def test_the_tokenizer_numbers_its_words_alike_every_time(tmp_path):
    first, second = (texts.make_tokenizer(tmp_path / name, "<|pad|>") for name in "ab")
    assert first.get_vocab() == second.get_vocab()


def test_the_tokenizer_knows_its_words_and_survives_others(tmp_path):
    tokenizer = texts.make_tokenizer(tmp_path, "<|pad|>")
    for word in ("photo", "sticker", "tears", "happy", "disgust", "grave"):
        assert tokenizer.tokenize(word) == [f"{word}</w>"]
    assert (
        tokenizer.decode(
            tokenizer("Zürich, 3 owls!")["input_ids"], skip_special_tokens=True
        ).replace(" ", "")
        == "zürich,3owls!"
    )
    assert max(len(tokenizer(text)["input_ids"]) for text in texts.corpus(500)) <= texts.MAX_LENGTH


@pytest.mark.parametrize("budget", stage.BUDGETS)
def test_a_stage_resumes_to_the_same_weights(tmp_path, monkeypatch, budget):
    """Killed in its fourth step, it resumes after the second and ends at the same numbers."""
    monkeypatch.setitem(stage.BUDGETS[budget], "vae", stage.Plan(4, 4, 2e-3))

    def run(folder, stop_at=None):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        task = Task(folder, folder, budget=budget)
        loop = stage.Stage("vae", task, torch.nn.Linear(3, 2), every=2)
        calls = []

        def loss(rng, batch):
            calls.append(1)
            if stop_at is not None and len(calls) > stop_at:
                raise KeyboardInterrupt
            return (
                loop.module(torch.from_numpy(rng.normal(size=(batch, 3)).astype(np.float32)))
                .pow(2)
                .mean()
            )

        try:
            loop.run(loss)
        except KeyboardInterrupt:
            return run(folder)
        return loop.module.weight.detach()

    assert torch.equal(run(tmp_path / "whole"), run(tmp_path / "killed", stop_at=3))


def test_the_budget_for_a_gpu_ends_with_averaged_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(stage.BUDGETS["gpu"], "vae", stage.Plan(3, 1, 0.1))
    task, weights = Task(tmp_path, tmp_path, budget="gpu"), []
    loop = stage.Stage("vae", task, torch.nn.Linear(1, 1))

    def loss(rng, batch):
        weights.append(loop.module.weight.item())
        return loop.module(torch.ones(batch, 1)).pow(2).mean()

    loop.run(loss)
    about, tensors = checkpoints.read(loop.file)
    last = tensors["module.weight"].item()
    first, second = weights[1:]  # after the first and the second step
    expected = stage.EMA * (stage.EMA * first + (1 - stage.EMA) * second) + (1 - stage.EMA) * last
    assert loop.module.weight.item() == pytest.approx(expected) != last


@pytest.mark.slow
@pytest.mark.parametrize("budget", stage.BUDGETS)
def test_every_stage_runs_on_a_handful_of_pictures(tmp_path, monkeypatch, budget):
    """The result loads as the shipped models do. Third-party weights are random here."""
    short = {name: plan._replace(steps=2, batch=4) for name, plan in stage.BUDGETS[budget].items()}
    monkeypatch.setitem(stage.BUDGETS, budget, short)
    monkeypatch.setattr(language, "PAIRS", 16)
    rng = np.random.default_rng(0)
    shape = (128, IMAGE_SIZE, IMAGE_SIZE, 3)
    pictures = rng.integers(0, 256, shape, dtype=np.uint8)
    told = [corpus.describe(job) for job in corpus.jobs()[:128]]
    monkeypatch.setattr(corpus, "build", lambda work: (pictures, told))
    about = [
        Drawing("twemoji", str(i), "crying face", ("sad", "tear"), "face", "") for i in range(9)
    ]
    drawn = rng.integers(0, 256, (len(about), *shape[1:3], 4), dtype=np.uint8)
    monkeypatch.setattr(drawings, "build", lambda work: (drawn, about))
    imagenet = timm.create_model("tf_efficientnet_lite0").state_dict()
    monkeypatch.setattr(coca, "imagenet", lambda task: imagenet)

    torch.manual_seed(0)

    def embed(texts, work):
        return torch.nn.functional.normalize(torch.randn(len(texts), sentences.WIDTH), dim=-1)

    monkeypatch.setattr(sentences, "embed", embed)
    task = Task(tmp_path / "work", tmp_path / "out", budget=budget)
    stack.lay_out(task.out, spoken(task))
    stage.report(task)
    for name in STAGES:
        if name in short:
            STAGES[name](task)
    out = task.out
    preset = replace(
        PRESETS["tiny"], diffusion=str(out / "diffusion"), vlm=f"local-dir:{out / 'vlm'}"
    )
    images = torch.from_numpy(pictures[:2]).permute(0, 3, 1, 2)
    assert len(vision_language.caption(vision_language.load_vlm(preset), images)) == 2
    latents = encode_images(load_vae(preset), images, RECIPES["paper"])
    assert latents.shape == (2, 16, IMAGE_SIZE // 8, IMAGE_SIZE // 8)
    assert load_unet(preset) and load_text_encoder(preset)


def test_shipped_weights_are_small_half_precision_safetensors():
    files = [path for path in paths.TINY.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt", ".npy")]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in weights) <= 36e6
    assert len(weights) == 5
    for path in weights:
        with safe_open(path, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} <= {"F16", "I64"}


def test_shipped_weights_are_those_of_the_committed_configuration():
    config = json.loads((paths.TINY / "pretraining.json").read_text())
    assert config["corpus"] == corpus.SHARES and config["steps"] == {
        name: [plan.steps, plan.batch] for name, plan in stage.BUDGETS["cpu"].items()
    }
    assert (config["knowledge"], config["without"]) == ("both", [])


@pytest.fixture(scope="module")
def measured():
    """Return the committed measurement; `python -m kcdp_lib.pretrain.measure` makes it anew."""
    return results.benchmark("miniatures")


def test_the_measurement_is_of_these_weights_and_this_world(measured):
    assert (measured["world"], measured["stack"]) == (world.world_key(), stack_key(PRESETS["tiny"]))


@pytest.mark.parametrize("domain", world.BENCHMARK)
def test_the_vae_keeps_what_is_seen(measured, domain):
    """Captions of its reconstructions lose little: perception cannot see what the VAE loses.

    Five points were the aim; sketches and paintings lose six.
    """
    vae = measured["domains"][domain]["vae"]
    lost = vae["originals"]["micro_f1"] - vae["reconstructions"]["micro_f1"]
    assert lost <= (0.065 if domain in ("sketches", "paintings") else 0.05) and vae["psnr"] >= 22
    assert vae["originals"]["tears_f1"] - vae["reconstructions"]["tears_f1"] <= 0.1


def test_the_eye_sees_more_than_the_one_before_it(measured):
    """A linear classifier on its frozen maps reached .37 and .40 before; .50 was the aim."""
    eye = {name: found["eye_macro_f1"] for name, found in measured["domains"].items()}
    assert eye["photos"] >= 0.50 and eye["stickers"] >= 0.48


@pytest.mark.parametrize("domain", world.BENCHMARK)
def test_the_captioner_sees(measured, domain):
    """Captions of unseen pictures are as good as committed, and name no emotion."""
    vlm, some = vision_language.load_vlm(PRESETS["tiny"]), measure.scenes(domain, 100)
    captions = vision_language.caption(vlm, measure.draw(domain, some, PRESETS["tiny"].image_size))
    found = measure.attribute_scores(
        captions, [world.visible_attributes(scene, domain) for scene in some]
    )
    assert found["micro_f1"] == pytest.approx(measured["domains"][domain]["micro_f1"], abs=0.06)
    assert not [text for text in captions if WORDS & words_of(text)]


def test_attributes_are_read_from_a_caption():
    text = (
        "a sticker of an egg with a big smile and closed eyes , with red cheeks , watching a "
        "rabbit in a hat ."
    )
    assert measure.attributes(text) == {
        "subject egg",
        "mouth a big smile",
        "eyes closed eyes",
        "response with red cheeks",
        "event watching a rabbit in a hat",
    }
    for domain in world.BENCHMARK:
        for scene in measure.scenes(domain, 200):
            seen = world.visible_attributes(scene, domain)
            assert measure.attributes(world.caption(scene, domain)) == {
                f"{kind} {phrase}" for kind, phrase in seen.items()
            }


def test_attribute_scores_count_what_is_said_wrong_and_what_is_not_said():
    seen = [{"subject": "cat", "mouth": "a smile"}, {"subject": "dog"}]
    assert (
        measure.attribute_scores(["a photo of a cat with a smile .", "a photo of a dog ."], seen)[
            "micro_f1"
        ]
        == 1
    )
    found = measure.attribute_scores(["a photo of a cat .", "a photo of a cat ."], seen)
    assert found["micro_f1"] == pytest.approx(0.4, abs=1e-4) and found["macro_f1"] == pytest.approx(
        2 / 9, abs=1e-4
    )


def test_psnr_of_a_known_round_trip():
    """The decoder is wrong by a tenth of the range."""
    images = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    assert measure.psnr(images, images / 255 + 0.1) == pytest.approx(20.0, abs=1e-3)


def test_tears_are_counted_where_they_are_said_and_where_they_are():
    seen = [{"response": "shedding tears"}, {"response": "trembling"}, {}]
    said = ["a cat , shedding tears .", "a cat , shedding tears .", "a cat ."]
    assert measure.tears(said, seen) == pytest.approx(2 / 3, abs=1e-4)
