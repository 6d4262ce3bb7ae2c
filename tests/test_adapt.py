"""Whole runs on a miniature stack with random weights.

The tests check what is read, saved and repeated, not what is learnt.
"""

import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageSequence
from transformers import CLIPTextModel

import kcdp_lib
from kcdp_lib import (
    EMOTIONS,
    Config,
    KCDPError,
    config,
    datasets,
    figures,
    knowledge,
    metrics,
    paths,
    processes,
    vision_language,
)
from kcdp_lib.adapt import adapt, baselines, folder, load_all, peers, record, training
from kcdp_lib.adapt.__main__ import few_lines, table, verdict_lines
from kcdp_lib.adapt.model import KCDP, evaluate, gather
from kcdp_lib.counterfactuals import ask_directly, prompts, similarity_probs
from kcdp_lib.datasets import SIZES, Pictures, load
from kcdp_lib.knowledge import encode_texts, load_text_encoder
from kcdp_lib.perception import trainable_state_dict
from kcdp_lib.pretrain.blank import write_blank
from kcdp_lib.triplets import parse_triplets
from kcdp_lib.world import EIGHT, Dials

BASELINES = {
    "majority",
    "source_only",
    "source_only_no_knowledge",
    "caption_only",
    "text_encoder",
    "knowledge_probe",
    "linear_probe",
    "image_and_text",
    "zero_shot_vlm",
}
DRAW = record.drawings  # the real one; see `own_cache`
SCORE_FIELDS = {"n", "accuracy", "balanced_accuracy", "macro_f1", "per_class_recall", "confusion"}


# ---------------------------------------------------------------- a small world


def draw(seed: int) -> Image.Image:
    """Draw a picture from a seed: random disks on a random background."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3)))
    for _ in range(4):
        x, y, r = rng.integers(8, 56, 3) * (1, 1, 0.4)
        ImageDraw.Draw(picture).ellipse(
            (x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 256, 3))
        )
    return picture


def image_folder(folder, per_class: int, first_seed: int, classes=EMOTIONS):
    """Create a labelled folder with one subfolder per class."""
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            draw(first_seed + 100 * c + i).save(folder / name / f"{name}_{i}.png")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Create folders of pictures, and register the preset `blank`.

    It has tiny's sizes, random weights, and smaller pictures and batches.
    """
    root = tmp_path_factory.mktemp("adapt")
    stack = write_blank(root / "stack")
    blank = dataclasses.replace(
        config.PRESETS["tiny"],
        name="blank",
        diffusion=str(stack / "diffusion"),
        vlm=f"local-dir:{stack / 'vlm'}",
        image_size=32,
        batch_size=6,
        epochs=2,
    )
    image_folder(root / "source", 3, 0)
    image_folder(root / "target", 2, 10_000)
    (root / "bare").mkdir()
    for i in range(5):
        draw(20_000 + i).save(root / "bare" / f"{i}.png")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config.PRESETS, "blank", blank)
        yield root
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(world, finished, monkeypatch):
    """Keep the user's cache untouched; to save time, draw figures for `finished` only."""
    monkeypatch.setattr(record, "drawings", lambda *args: {})
    monkeypatch.setattr(paths, "CACHE", world / "cache")
    monkeypatch.setenv("KCDP_QUIET", "1")


def run(world, out: str, target: str = "target", **parameters) -> dict:
    return adapt(
        Config(
            **{
                "source": str(world / "source"),
                "target": str(world / target),
                "preset": "blank",
                "out_dir": str(world / out),
            }
            | parameters
        )
    )


@pytest.fixture(scope="session")
def finished(world):
    """Return the metrics and the folder of one finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CACHE", world / "cache")
        return run(world, "first"), world / "first"


def predictions(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def target_files(target: Path, rows: list[dict]) -> list[Path]:
    """The pictures of a run's predictions, which are named as seen from the target's folder."""
    assert not any(Path(row["file"]).is_absolute() for row in rows)
    return [target / row["file"] for row in rows]


def without(results: dict, *names: str) -> dict:
    return {name: value for name, value in results.items() if name not in names}


# ---------------------------------------------------------------- what a run leaves behind


def test_metrics_hold_what_is_promised(finished):
    results, folder = finished
    assert json.loads((folder / "metrics.json").read_text()) == results
    assert results["config"]["seed"] == 0 and results["config"]["epochs"] == 2
    assert {"commit", "versions", "seed", "device", "wall_seconds", "peak_memory_bytes"} <= results[
        "provenance"
    ].keys()
    assert results["source"]["test"]["n"] == 18 and results["target"]["test"]["n"] == 12
    assert results["target"]["transductive"] is True and "unfamiliar" not in results["target"]
    assert set(results["baselines"]) == BASELINES == set(results["differences"])
    for scores in (results["target"]["test"], *results["baselines"].values()):
        assert SCORE_FIELDS <= scores.keys() and np.sum(scores["confusion"]) == 12
    assert results["baselines"]["majority"]["accuracy"] == pytest.approx(1 / 6, abs=1e-6)
    assert (
        set(results["pseudo_labels"]) >= {"coverage", "accuracy"}
        and results["pseudo_labels"]["coverage"] > 0
    )


def test_predictions_hold_every_target_picture(finished):
    _, folder = finished
    rows = predictions(folder)
    assert len(rows) == 12 and {row["split"] for row in rows} == {"train+test"}
    for row in rows:
        assert row["label"] in row["file"] and sum(row["probabilities"].values()) == pytest.approx(
            1, abs=1e-4
        )
        assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].get)
        assert (
            row["pseudo_label"] in (None, *EMOTIONS)
            and isinstance(row["caption"], str)
            and isinstance(row["triplets"], list)
        )
        assert row["familiarity"] is None, "the blank stack does not know what it has seen"


def test_folder_holds_no_pickle_and_no_leftovers(finished):
    _, folder = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "metrics.json",
        "predictions.jsonl",
        "model/model.safetensors",
        "model/config.json",
        "model/history.json",
        "model/README.md",
        "figures/learning_curves.png",
        "figures/confusion.png",
        "figures/predictions.png",
        "figures/method.png",
        "figures/baselines.png",
    }


def test_saved_model_predicts_what_the_run_predicted(finished, world):
    _, folder = finished
    rows = predictions(folder)
    model = kcdp_lib.KCDP.from_pretrained(folder / "model")
    files = target_files(world / "target", rows)
    said = model.predict([*files[:5], *[Image.open(file) for file in files[5:]]])
    assert said.probs == pytest.approx(
        np.array([list(row["probabilities"].values()) for row in rows]), abs=1e-4
    )
    assert said.familiarity is None and said.unfamiliar is None
    assert said.labels == [row["predicted"] for row in rows] and said.captions == [
        row["caption"] for row in rows
    ]
    assert [[list(t) for t in triplets] for triplets in said.triplets] == [
        row["triplets"] for row in rows
    ]


def test_a_folder_without_a_model_gets_a_sentence(world):
    with pytest.raises(KCDPError, match="does not hold a model"):
        KCDP.from_pretrained(world / "source")


# ---------------------------------------------------------------- the same numbers again


def test_same_seed_gives_the_same_run_from_an_empty_cache(finished, world, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", world / "cache2")
    again = run(world, "again")
    assert without(again, "provenance") == without(finished[0], "provenance")
    assert predictions(world / "again") == predictions(finished[1])


def test_no_text_is_encoded_twice_in_a_whole_run(world, monkeypatch):
    """It covers captions, triplets, prompts and the empty text, both domains and all baselines."""
    read, forward = [], CLIPTextModel.forward

    def counted(self, input_ids, *args, **kwargs):
        read.extend(
            tuple(ids) for ids in input_ids.tolist() if ids[-1] == ids[-2]
        )  # skips texts that are cut, as two of them may agree up to the cut
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(paths, "CACHE", world / "cache-texts")
    monkeypatch.setattr(CLIPTextModel, "forward", counted)
    knowledge.load_text_encoder.cache_clear()
    run(world, "texts", epochs=1)
    assert len(read) == len(set(read)) > len(EMOTIONS)


def test_another_seed_gives_another_model(world):
    pictures = load(str(world / "source"), "train")
    models = [
        baselines.learn(
            Config(source=str(world / "source"), preset="blank", epochs=1, seed=seed),
            "source_only",
            pictures,
            None,
            world / f"seed{seed}",
            "cpu",
        ).model
        for seed in (0, 1)
    ]
    weights = [
        torch.cat([value.flatten() for value in trainable_state_dict(model).values()])
        for model in models
    ]
    assert not torch.equal(*weights)


def test_killed_run_resumes_to_the_same_numbers(finished, world, monkeypatch):
    save, steps = training.save_checkpoint, []

    def killed(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run(world, "killed")
    assert (world / "killed" / "checkpoint.safetensors").exists() and not (
        world / "killed" / "metrics.json"
    ).exists()
    monkeypatch.setattr(
        training,
        "save_checkpoint",
        lambda path, key, done, *rest: steps.append(done) or save(path, key, done, *rest),
    )
    resumed = run(world, "killed")
    assert steps == [6], "the first epoch was trained again"
    assert without(resumed, "provenance") == without(finished[0], "provenance")
    assert predictions(world / "killed") == predictions(finished[1])


def test_a_checkpoint_that_does_not_fit_is_not_used(finished, world):
    path = world / "checkpoint.safetensors"
    model = KCDP.from_pretrained(finished[1] / "model")
    accelerator = processes.accelerator("no", "cpu")
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    training.save_checkpoint(
        path, "this run", 1, [{"step": 0}], model, None, optimizer, accelerator
    )
    assert training.resume(path, "this run", model, None, optimizer, accelerator) == (
        1,
        [{"step": 0}],
    )
    assert training.resume(path, "another run", model, None, optimizer, accelerator) == (0, [])
    path.write_bytes(path.read_bytes()[:1000])
    assert training.resume(path, "this run", model, None, optimizer, accelerator) == (0, [])
    assert training.resume(
        world / "none.safetensors", "this run", model, None, optimizer, accelerator
    ) == (0, [])


# ---------------------------------------------------------------- target labels stay unseen


def test_labels_and_names_of_the_target_change_nothing(finished, world):
    """Rotate the labels, and rename every file and the folder.

    Each picture keeps its probabilities and its pseudo-label, to the last bit.
    """
    for i, file in enumerate(
        sorted((world / "target").rglob("*.png"), key=lambda file: file.read_bytes())
    ):
        moved = (
            world
            / "anders"
            / EMOTIONS[(EMOTIONS.index(file.parent.name) + 2) % 6]
            / f"{97 - i} ångström.png"
        )
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, moved)
    run(world, "blind", "anders")

    def by_content(folder, target):
        rows = predictions(folder)
        return {
            file.read_bytes(): (row["probabilities"], row["pseudo_label"], row["caption"])
            for file, row in zip(target_files(target, rows), rows, strict=True)
        }

    first = by_content(finished[1], world / "target")
    blind = by_content(world / "blind", world / "anders")
    assert len(first) == 12 and first == blind
    labels = [
        [row["label"] for row in predictions(folder)] for folder in (finished[1], world / "blind")
    ]
    assert labels[0] != labels[1], "the labels were meant to differ"


def test_universal_setting_does_not_see_the_target(finished, world):
    results, other = run(world, "uc1", setting="uc"), run(world, "uc2", "bare", setting="uc")
    assert results["source"]["test"] == other["source"]["test"]
    assert (
        results["target"]["test"] == finished[0]["baselines"]["source_only"]
        and results["pseudo_labels"]["coverage"] == 0
    )
    assert results["target"]["transductive"] is False
    # this model is no baseline of itself, and it took no pseudo-labels
    assert "source_only" not in results["baselines"] | results["differences"]
    assert "pseudo-labels" not in table(results)


def test_adapting_uses_the_target(finished, world):
    """Compare weights, not scores: on twelve pictures two models may predict the same."""

    def weights(folder):
        return trainable_state_dict(KCDP.from_pretrained(folder / "model"))

    run(world, "source-alone", setting="uc")
    run(world, "adapted-to-bare", "bare")
    adapted = weights(finished[1])
    for other in (weights(world / "source-alone"), weights(world / "adapted-to-bare")):
        assert any(not torch.equal(adapted[name], other[name]) for name in adapted)


# ---------------------------------------------------------------- baselines


def test_second_target_trains_nothing_but_itself(finished, world, monkeypatch):
    trained, train = [], baselines.train
    monkeypatch.setattr(
        baselines, "train", lambda *args, **kw: trained.append(args[7]) or train(*args, **kw)
    )
    image_folder(world / "second", 1, 30_000)
    results = run(world, "second-run", "second")
    assert trained == ["full"] and results["baselines"]["source_only"]["n"] == 6
    assert results["source"]["pictures"] == 18


def test_without_knowledge_no_word_is_read(world):
    settings = Config(source=str(world / "source"), preset="blank")
    pictures = load(str(world / "source"), "train")
    full, empty = (
        baselines.frozen_for(variant, pictures, settings, "cpu")
        for variant in ("source_only", "source_only_no_knowledge")
    )
    assert (
        torch.equal(full.latents[:], empty.latents[:])
        and set(empty.captions) == {""}
        and not any(empty.triplets)
    )
    assert torch.equal(
        empty.tokens[:], empty.tokens[:1].expand(empty.tokens.shape)
    ) and not torch.equal(full.tokens[:], empty.tokens[:])


def test_caption_classifier_reads_captions():
    captions = [
        "a cat crying",
        "a dog at a party",
        "a girl crying",
        "a boy at a party",
        "no label here",
    ]
    probs = baselines.caption_classifier(
        captions, np.array([4, 1, 4, 1, -1]), ["a man crying", "a man at a party"], 8
    )
    assert (
        probs.shape == (2, 8)
        and probs.argmax(1).tolist() == [4, 1]
        and probs.sum(1) == pytest.approx(1)
        and probs[:, 0].max() == 0
    )


def test_majority_is_the_sources():
    assert (
        baselines.majority(np.array([3, 3, 1, -1, -1, -1]), 2, 8).tolist()
        == [[0, 0, 0, 1, 0, 0, 0, 0]] * 2
    )


def test_every_baseline_gives_a_probability_to_every_class(finished, world, monkeypatch):
    """The two trained baselines come from the earlier run, so nothing is trained here."""
    monkeypatch.setattr(baselines, "train", None)
    settings = Config(source=str(world / "source"), target=str(world / "target"), preset="blank")
    source, _, _, test = load_all(settings)
    found = baselines.baseline_probs(settings, source, test, "cpu")
    assert set(found) == BASELINES
    for name, probs in found.items():
        assert (
            probs.shape == (12, 6)
            and probs.sum(1) == pytest.approx(1, abs=1e-5)
            and probs.min() >= 0
        ), name
    assert not np.allclose(found["linear_probe"], found["image_and_text"])


def test_the_knowledge_baselines_read_k_and_nothing_else(world, monkeypatch):
    """Recompute row by row: two means of real tokens, an end token, and cosines of end tokens."""
    monkeypatch.setattr(baselines.shards, "SHARD", 5)
    settings = Config(source=str(world / "source"), preset="blank")
    pictures = load(str(world / "source"), "train")
    frozen = baselines.frozen_for("full", pictures, settings, "cpu")
    length = frozen.tokens.shape[1] // 2
    expected = []
    for k, real in zip(frozen.tokens[:], frozen.mask[:], strict=True):
        caption, triplets = k[:length][real[:length]], k[length:][real[length:]]
        mean = triplets.mean(0) if len(triplets) else torch.zeros(k.shape[1])
        expected.append(torch.cat([caption.mean(0), mean, caption[-1]]))
    np.testing.assert_allclose(baselines.knowledge_of(frozen), torch.stack(expected), atol=1e-6)
    prompted = encode_texts(prompts(settings.classes), load_text_encoder(settings.sizes))
    cosines = ask_directly(frozen.tokens[:], frozen.mask[:], *prompted)
    np.testing.assert_allclose(
        baselines.text_encoder_probs(frozen, settings, "cpu"), similarity_probs(cosines), atol=1e-6
    )


def test_image_and_text_are_unit_vectors_side_by_side(world):
    settings = Config(source=str(world / "source"), preset="blank")
    pictures, vlm = load(str(world / "source"), "train"), vision_language.load_vlm(settings.sizes)
    frozen = baselines.frozen_for("full", pictures, settings, "cpu")
    features = baselines.image_and_text(frozen)
    image, text = np.split(features, 2, axis=1)
    images = datasets.read_images(pictures.files, settings.sizes.image_size)
    captions = vision_language.caption(vlm, images)  # without the feelings
    np.testing.assert_allclose(text, vision_language.embed_texts(vlm, captions).numpy(), atol=1e-5)
    assert np.array_equal(image, frozen.image_embeddings[:].numpy()) and np.linalg.norm(
        image, axis=1
    ) == pytest.approx(1, abs=1e-5) == np.linalg.norm(text, axis=1)


# ---------------------------------------------------------------- the recipe "best", and the peers

HEADS = "best, trained=heads"


@pytest.mark.parametrize("recipe", ["best", HEADS])
def test_a_best_model_predicts_what_its_run_predicted(world, monkeypatch, recipe):
    """The run read maps and embeddings from the cache; `predict` has only the pictures.

    Figures are drawn, too.
    """
    monkeypatch.setattr(record, "drawings", DRAW)
    results = run(world, recipe, recipe=recipe, epochs=1)
    rows, model = predictions(world / recipe), KCDP.from_pretrained(world / recipe / "model")
    said = model.predict(target_files(world / "target", rows))
    assert said.probs == pytest.approx(
        np.array([list(row["probabilities"].values()) for row in rows]), abs=1e-4
    ) and said.labels == [row["predicted"] for row in rows]
    assert (
        set(results["baselines"]) == BASELINES
        and results["pseudo_labels"]["coverage"] > 0
        and len(list((world / recipe / "figures").glob("*.png"))) == 5
    )
    trained = trainable_state_dict(model)
    assert {"kadap.norm.sums", "kadap.norm.weight"} <= trained.keys() and any(
        ".unet." in name for name in trained
    ) == (recipe == "best")


def test_maps_computed_once_are_those_of_the_moment(world, monkeypatch):
    settings, pictures = (
        Config(source=str(world / "source"), preset="blank", recipe=HEADS),
        load(str(world / "source"), "train"),
    )
    frozen, silent = (
        baselines.frozen_for(variant, pictures, settings, "cpu")
        for variant in ("full", "source_only_no_knowledge")
    )
    torch.manual_seed(3)
    model = KCDP(settings.sizes, settings.switches)
    evaluated = evaluate(model, frozen)
    assert evaluated == pytest.approx(
        evaluate(model, dataclasses.replace(frozen, maps=None)), abs=1e-5
    ) and not np.allclose(evaluated[0], evaluated[1], atol=1e-4)
    assert (
        evaluate(model, silent)
        == pytest.approx(evaluate(model, dataclasses.replace(silent, maps=None)), abs=1e-5)
        and not silent.embeddings[:].any()
    )
    assert not torch.allclose(frozen.maps[1][:], silent.maps[1][:]), (
        "maps are read with the knowledge"
    )
    rows = torch.tensor([5, 0, 17])
    picked = baselines.select(frozen, rows)
    assert (
        all(
            torch.equal(some[:], map_[:][rows])
            for some, map_ in zip(picked.maps, frozen.maps, strict=True)
        )
        and torch.equal(picked.embeddings[:], frozen.embeddings[rows])
        and len(picked) == 3
    )
    monkeypatch.setattr(baselines, "load_kadap", None)
    again = baselines.frozen_for("full", pictures, settings, "cpu")
    assert all(
        torch.equal(one[:], other[:]) for one, other in zip(again.maps, frozen.maps, strict=True)
    )


def test_experts_vlm_and_alignment_answer_together(world):
    """Average log-probabilities by hand, one picture at a time.

    The recipe "paper" uses the experts alone, and a peer's model leaves out the alignment.
    """
    settings, pictures = (
        Config(source=str(world / "source"), preset="blank", recipe=HEADS),
        load(str(world / "source"), "train"),
    )
    frozen = baselines.frozen_for("full", pictures, settings, "cpu")
    torch.manual_seed(3)
    model = KCDP(settings.sizes, settings.switches).eval()
    given = gather(frozen, torch.arange(4), "cpu")
    with torch.no_grad():
        seen, similarities = model(*given)
    voices = [
        seen.logits.softmax(-1),
        vision_language.zero_shot(
            vision_language.load_vlm(settings.sizes),
            given.embeddings[:, : given.embeddings.shape[1] // 4],
            EMOTIONS,
        ),
        (similarities / 0.07).softmax(-1),
    ]
    for aligned in (True, False):
        model.aligned = aligned
        for i, answer in enumerate(model.answer(seen, similarities, given.embeddings)):
            heard = [voice[i].clamp(min=1e-6).log() for voice in voices[: 2 + aligned]]
            torch.testing.assert_close(
                answer, (sum(heard) / len(heard)).softmax(-1), atol=1e-5, rtol=1e-3
            )
    model.recipe = config.RECIPES["paper"]
    torch.testing.assert_close(model.answer(seen, similarities), voices[0])


@pytest.mark.parametrize("variant", ["full", "shot", "cdan", "fixmatch"])
def test_no_method_is_handed_the_targets_labels(world, variant):
    """Train with the target's labels as they are, permuted, and removed.

    All three give the same weights.
    """
    settings, (source, target) = (
        Config(source=str(world / "source"), preset="blank", recipe=HEADS),
        (load(str(world / name), "train") for name in ("source", "target")),
    )
    assert (target.labels >= 0).all()
    targets = [
        target,
        dataclasses.replace(target, labels=(target.labels + 2) % 6),
        dataclasses.replace(target, labels=None),
    ]
    weights = [
        trainable_state_dict(
            baselines.learn(settings, variant, source, given, world / f"{variant}-{i}", "cpu").model
        )
        for i, given in enumerate(targets)
    ]
    assert all(
        torch.equal(value, other[name])
        for other in weights[1:]
        for name, value in weights[0].items()
    )


def test_a_training_is_not_taken_for_one_of_another_peer_or_weight(world):
    settings, (source, target) = (
        Config(source=str(world / "source"), preset="blank"),
        (load(str(world / name), "train") for name in ("source", "target")),
    )
    told = [(variant, weight) for variant in ("full", *peers.PEERS) for weight in (0.3, 1.0)]
    assert len(
        {
            baselines.training_key(settings, variant, source, target, "cpu", weight)
            for variant, weight in told
        }
    ) == len(told)


def test_weights_make_the_classes_of_a_domain_as_frequent_as_wished():
    labels = np.array([0] * 8 + [1] * 2)
    weights = baselines.share_weights(np.eye(3)[labels], np.array([0.5, 0.5, 0.0]))
    assert [weights[labels == c].sum() for c in (0, 1)] == pytest.approx([5, 5])
    assert baselines.share_weights(
        np.vstack([np.eye(3)[labels], np.zeros((2, 3))]), np.array([0.5, 0.5, 0.0])
    )[-2:].tolist() == [0, 0], "no class, no weight"
    unsure = baselines.share_weights(np.full((10, 3), 1 / 3), np.array([0.5, 0.5, 0.0]))
    assert unsure == pytest.approx(np.ones(10)), "who cannot tell the classes cannot weigh them"


def test_a_probe_by_weighted_averages_is_not_misled_by_frequent_classes():
    """Two classes lie left and right, and four fifths of the target on the right.

    The target's plain mean lies there, too, so the plain probe cuts through that class.
    """
    random = np.random.default_rng(0)
    source, target = np.arange(200) % 2, (np.arange(200) % 5 > 0).astype(int)
    taught, seen = (
        SimpleNamespace(
            embeddings=torch.tensor(8.0 * labels[:, None] + random.normal(size=(200, 1)))
        )
        for labels in (source, target)
    )
    plain, weighted = (
        (
            baselines.standardised_probe(taught, source, seen, seen, 2, 0, weights).argmax(1)
            == target
        ).mean()
        for weights in (None, baselines.share_weights(np.eye(2)[target], np.array([0.5, 0.5])))
    )
    assert weighted > 0.99 >= plain


def test_a_probe_of_standardised_domains_survives_another_scale():
    """The classes differ between domains only in every feature's scale and zero point.

    The plain probe fails, the standardised one does not.
    """
    random, labels = np.random.default_rng(0), np.arange(120) % 3
    source, target, asked = (4 * np.eye(3)[labels] + random.normal(size=(120, 3)) for _ in range(3))
    shifted = [
        SimpleNamespace(embeddings=torch.tensor(5 * features + [60, 0, -60]))
        for features in (target, asked)
    ]
    taught = SimpleNamespace(embeddings=torch.tensor(source))
    probs = baselines.standardised_probe(taught, labels, *shifted, 4, 0)
    plain = baselines.linear_classifier(source, labels, 4, 0)(shifted[1].embeddings.numpy())
    assert (
        probs.shape == (120, 4)
        and probs.sum(1) == pytest.approx(1)
        and (probs.argmax(1) == labels).mean() > 0.9 > 0.5 > (plain.argmax(1) == labels).mean()
    )
    one_class = SimpleNamespace(embeddings=shifted[1].embeddings[labels == 2])
    assert baselines.standardised_probe(
        taught, labels, shifted[0], one_class, 4, 0
    ) == pytest.approx(probs[labels == 2]), "by the training pictures, whatever is asked"


# ---------------------------------------------------------------- other classes, other worlds


def test_a_run_in_eight_classes(world, monkeypatch):
    monkeypatch.setattr(record, "drawings", DRAW)
    image_folder(world / "source8", 3, 60_000, EIGHT)
    image_folder(world / "target8", 1, 70_000, EIGHT)
    results = run(
        world, "eight", "target8", source=str(world / "source8"), taxonomy="eight", epochs=1
    )
    assert (
        results["config"]["taxonomy"] == "eight"
        and results["source"]["test"]["n"] == 24
        and results["target"]["test"]["n"] == 8
    )
    for scores in (results["target"]["test"], *results["baselines"].values()):
        assert tuple(scores["per_class_recall"]) == EIGHT and np.shape(scores["confusion"]) == (
            8,
            8,
        )
    rows = predictions(world / "eight")
    assert {row["label"] for row in rows} == set(EIGHT) and all(
        tuple(row["probabilities"]) == EIGHT and row["label"] in row["file"] for row in rows
    )
    assert (
        all(row["pseudo_label"] in (None, *EIGHT) for row in rows)
        and len(list((world / "eight" / "figures").glob("*.png"))) == 5
    )
    model = KCDP.from_pretrained(world / "eight" / "model")
    assert model.classes == EIGHT and len(model.prompt_tokens) == 8
    said = model.predict(target_files(world / "target8", rows))
    assert said.probs == pytest.approx(
        np.array([list(row["probabilities"].values()) for row in rows]), abs=1e-4
    ) and said.labels == [row["predicted"] for row in rows]


def test_dials_of_a_run_reach_its_pictures(monkeypatch):
    """The target's gaps change the target alone, the source's trap the source alone.

    Both hold in training and in test.
    """
    for split in SIZES:
        monkeypatch.setitem(SIZES, split, 24)
    plain, near, trap = (
        [pictures.key for pictures in load_all(Config(preset="blank", dials=dials))]
        for dials in ("", "style_gap=0.5", "spurious=1")
    )
    changed = [
        [one != other for one, other in zip(plain, keys, strict=True)] for keys in (near, trap)
    ]
    assert changed == [[False, True, False, True], [True, False, True, False]], (
        "source, target, source's test, target's test"
    )
    assert near[1] == load("stickers", "train", dials=Dials(style_gap=0.5)).key


def test_a_training_in_eight_classes_is_not_taken_for_one_in_six(world):
    pictures = load(str(world / "source"), "train")
    keys = [
        baselines.training_key(
            Config(source=str(world / "source"), preset="blank", taxonomy=taxonomy),
            "source_only",
            pictures,
            None,
            "cpu",
        )
        for taxonomy in ("six", "eight")
    ]
    assert keys[0] != keys[1]


# ---------------------------------------------------------------- shares of the classes


def told(world, shares: dict[int, list[float]], unlabelled=(), **further) -> Pictures:
    """Return the source's pictures, some with shares and some without a label."""
    pictures = load(str(world / "source"), "train")
    rows = np.full((len(pictures), 6), np.nan, np.float32)
    for row, values in shares.items():
        rows[row] = values
    labels = pictures.labels.copy()
    labels[list(unlabelled)] = -1
    return dataclasses.replace(pictures, shares=rows, labels=labels, **further)


MIXED = [0.5, 0.25, 0.25, 0, 0, 0]


def settings_of(world, labels: str, **further) -> Config:
    return Config(
        source=str(world / "source"), preset="blank", recipe=f"paper, labels={labels}", **further
    )


def test_soft_labels_are_shares_and_hard_ones_classes(world):
    pictures = told(world, {0: MIXED, 1: MIXED}, unlabelled=(1, 2))
    hard, soft = (
        baselines.taught_labels(pictures, config.read_recipe(f"paper, labels={labels}"))
        for labels in ("hard", "soft")
    )
    assert hard is pictures.labels and soft.dtype == np.float32
    assert soft[:2].tolist() == [MIXED, MIXED] and not soft[2].any()
    assert soft[3:].tolist() == np.eye(6)[pictures.labels[3:]].tolist()
    plain = dataclasses.replace(pictures, shares=None)
    assert baselines.taught_labels(plain, config.RECIPES["best"]) is plain.labels
    assert config.RECIPES["best"].labels == "soft" and config.RECIPES["paper"].labels == "hard"


def test_the_loss_of_shares_is_a_sum_over_pictures_and_classes():
    generator = torch.Generator().manual_seed(0)
    logits, similarities = (torch.randn(3, 6, generator=generator) for _ in range(2))
    shares = torch.tensor([MIXED, [0, 1.0, 0, 0, 0, 0], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]])
    seen = SimpleNamespace(logits=logits, balance=torch.tensor(2.0))
    total, parts = training.source_loss(seen, similarities, shares, config.RECIPES["best"])

    def by_hand(rows):
        sums = [
            -share * math.log(math.exp(row[c]) / sum(map(math.exp, row)))
            for row, of in zip(rows.tolist(), shares.tolist(), strict=True)
            for c, share in enumerate(of)
        ]
        return sum(sums) / 3

    emotion, alignment = by_hand(logits), by_hand(similarities / 0.07)
    assert parts["source_loss"].item() == pytest.approx(emotion, rel=1e-5)
    assert parts["alignment_loss"].item() == pytest.approx(alignment, rel=1e-5)
    assert total.item() == pytest.approx(emotion + alignment + 0.2, rel=1e-5)
    right = (logits.argmax(1) == torch.tensor([0, 1, 2])).float().mean()
    assert parts["source_accuracy"] == right
    certain, classes = (
        training.source_loss(seen, similarities, labels, config.RECIPES["best"])[0].item()
        for labels in (torch.eye(6)[[2, 1, 4]], torch.tensor([2, 1, 4]))
    )
    assert certain == pytest.approx(classes, rel=1e-6)


def test_hard_labels_ignore_shares_bit_for_bit(world, tmp_path):
    """Shares train uncertain pictures, which have no label, and only under "soft"."""
    target, weights, histories = load(str(world / "target"), "train"), {}, {}
    plain = told(world, {}, unlabelled=(1,))
    shared = told(world, {0: MIXED, 1: MIXED}, unlabelled=(1,))
    assert plain.shares is None and shared.shares is not None
    for name, labels, source in (
        ("hard", "hard", plain),
        ("hard, shares", "hard", shared),
        ("soft, none", "soft", plain),
        ("soft", "soft", shared),
    ):
        settings = settings_of(world, labels, epochs=1)
        trained = baselines.learn(
            settings, "full", source, target, tmp_path / f"{name}.safetensors", "cpu"
        )
        weights[name] = trainable_state_dict(trained.model)
        histories[name] = trained.history
    assert histories["hard"] == histories["hard, shares"] == histories["soft, none"]
    assert histories["hard"] != histories["soft"]
    assert len(histories["soft"]) == 18 // 6 and len(histories["hard"]) == 17 // 6
    for other in ("hard, shares", "soft, none"):
        assert all(
            torch.equal(value, weights[other][part]) for part, value in weights["hard"].items()
        )


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_are_taught_by_shares_too(world, tmp_path, name):
    source, target = told(world, {0: MIXED}), load(str(world / "target"), "train")
    settings = settings_of(world, "soft", epochs=1)
    trained = baselines.learn(settings, name, source, target, tmp_path / "peer.safetensors", "cpu")
    assert all(np.isfinite(row["source_loss"]) for row in trained.history)


def test_the_classes_frequencies_are_those_of_the_shares(world):
    settings = settings_of(world, "soft")
    shares = np.array([MIXED, [0, 0, 0, 0, 0, 1]], np.float32)
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training,
            "PseudoLabeller",
            lambda *args, source_prior: given.append(source_prior) or torch.nn.Identity(),
        )
        for labels in (shares, np.array([0, 5, 5, 5])):
            training.pseudo_labeller(settings, labels, [0] * 4, "cpu")
    assert given[0].tolist() == [0.25, 0.125, 0.125, 0, 0, 0.5]
    assert given[1].tolist() == [0.25, 0, 0, 0, 0, 0.75]


def test_a_training_on_shares_is_not_taken_for_one_on_classes(world):
    others = (told(world, {}), told(world, {0: MIXED}), told(world, {0: MIXED[::-1]}))
    keys = {
        labels: [
            baselines.training_key(settings_of(world, labels), "full", source, None, "cpu")
            for source in others
        ]
        for labels in ("hard", "soft")
    }
    assert len(set(keys["hard"])) == 1 and len({*keys["hard"], *keys["soft"]}) == 4


def test_a_run_on_real_art_is_scored_by_shares(world):
    art = {"target": "art-emojione", "out_dir": str(world / "art"), "epochs": 1}
    results = adapt(settings_of(world, "soft", **art))
    pictures, rows = load("art-emojione", "test"), predictions(world / "art")
    probs = [[*row["probabilities"].values()] for row in rows if row["split"] == "test"]
    found = results["target"]["distribution"]
    rated = int((~np.isnan(pictures.shares).any(1)).sum())
    labelled = int((pictures.labels >= 0).sum())
    assert found["n"] == rated > 10 and results["target"]["test"]["n"] == labelled
    expected = metrics.distribution(pictures.shares, np.array(probs))
    assert found["js_divergence"] == pytest.approx(expected["js_divergence"], abs=1e-5)
    low, high = found["js_divergence_interval"]
    assert 0 < low < found["js_divergence"] < high < 1
    assert all(score["distribution"]["n"] == rated for score in results["baselines"].values())
    assert "distribution" not in results["source"]
    lines = table(results).splitlines()
    (line,) = [
        line
        for line in lines
        if line.startswith(f"KCDP, from the shares of {rated} target pictures")
    ]
    assert f"divergence {found['js_divergence']:.3f} [{low:.3f}, {high:.3f}]" in line


def test_sets_without_shares_have_the_scores_that_they_had(finished):
    results, _ = finished
    assert "distribution" not in json.dumps(results)
    assert "shares" not in table(results)


@pytest.mark.parametrize(
    "interval, sentence",
    [
        ((0.01, 0.2), "KCDP is better than every baseline, the best of which is 'the best'"),
        ((-0.2, -0.01), "the baseline 'the best' is better than KCDP"),
        ((-0.1, 0.1), "KCDP and the best baseline, 'the best', cannot be told apart"),
    ],
)
def test_a_run_says_what_its_table_means(interval, sentence):
    found = {
        "baselines": {"worse": {"macro_f1": 0.2}, "the_best": {"macro_f1": 0.5}},
        "differences": {
            "worse": {"macro_f1": 0.3, "macro_f1_interval": (0.2, 0.4)},
            "the_best": {"macro_f1": np.mean(interval), "macro_f1_interval": interval},
        },
    }
    low, high = interval
    assert verdict_lines(found)[1] == (
        f"{sentence}: KCDP minus it {np.mean(interval):+.3f} [{low:+.3f}, {high:+.3f}]"
    )
    assert verdict_lines({"baselines": {}}) == []


def test_few_pictures_are_warned_of():
    def said(pictures, scored):
        target = {"pictures": pictures} | ({"test": {"n": scored}} if scored else {})
        return [" ".join(line.split()[:6]) for line in few_lines({"target": target})]

    assert said(100, 100) == said(100, None) == []
    assert said(99, 42) == [
        "only 99 target pictures to adapt",
        "only 42 target pictures are scored:",
    ]


# ---------------------------------------------------------------- other inputs


def test_unlabelled_target_has_predictions_but_no_scores(world):
    results = run(world, "unlabelled", "bare", epochs=1)
    assert (
        "test" not in results["target"]
        and results["baselines"] == {}
        and results["pseudo_labels"]["accuracy"] is None
    )
    rows = predictions(world / "unlabelled")
    assert (
        len(rows) == 5
        and {row["label"] for row in rows} == {None}
        and {row["split"] for row in rows} == {"train"}
    )


def test_unlabelled_test_folder_has_predictions_but_no_scores(world):
    for split in ("train", "test"):
        (world / "divided" / split).mkdir(parents=True)
        draw(50_000 + len(split)).save(world / "divided" / split / "a.png")
    results = run(world, "divided-run", "divided", epochs=1)
    assert (
        "test" not in results["target"]
        and results["target"]["transductive"] is False
        and results["baselines"] == {}
    )
    assert [row["split"] for row in predictions(world / "divided-run")] == ["train", "test"]


def test_source_class_without_pictures(world):
    image_folder(world / "five", 2, 40_000, EMOTIONS[:5])
    assert (
        run(world, "five-run", "bare", source=str(world / "five"), epochs=1)["source"]["test"][
            "per_class_recall"
        ]["anger"]
        is None
    )


def test_a_source_of_two_pictures_a_class_has_every_baseline(world):
    image_folder(world / "two", 2, 80_000)
    assert set(run(world, "two-run", source=str(world / "two"), epochs=1)["baselines"]) == BASELINES


def test_unlabelled_source_gets_a_sentence(world):
    with pytest.raises(KCDPError, match="fewer than two emotions"):
        run(world, "nothing", "target", source=str(world / "bare"))


def test_released_recipe_runs_through_the_same_lines(world):
    results = run(world, "released", recipe="released", epochs=1)
    assert results["config"]["recipe"] == "released"
    history = json.loads((world / "released" / "model" / "history.json").read_text())
    assert {row["coverage"] for row in history} == {1.0}, (
        "raw pseudo-labels are all used from the first step"
    )


def test_runs_that_differ_write_into_different_folders():
    others = (
        {},
        {"target": "noto"},
        {"source": "sketches"},
        {"setting": "uc"},
        {"recipe": "released"},
        {"recipe": "paper, balance=rank_std"},
        {"seed": 1},
        {"taxonomy": "eight"},
        {"dials": "style_gap=0.5"},
        {"dials": "style_gap=0.5, spurious=1"},
    )
    folders = [Config(**other).run_dir for other in others]
    assert len(set(folders)) == len(folders) and all(
        folder.parent == paths.ROOT / "runs" for folder in folders
    )
    assert (
        folders[0].name == "05_adapt-stickers"
        and Config(target="my pictures").run_dir.name == "05_adapt-my pictures"
    ), "the names that `make adapt` expects"
    assert (
        folders[-1].name == "05_adapt-stickers-style_gap=0.5-spurious=1"
        and folders[-3].name == "05_adapt-stickers-eight"
    )


def test_out_dir_that_cannot_be_written_gets_a_sentence(world, monkeypatch):
    (world / "a file").write_text("")
    with pytest.raises(KCDPError, match="cannot be written.*choose another out_dir"):
        run(world, "a file/below")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(record, "atomic_write", full)
    with pytest.raises(KCDPError, match="No space left on device.*free some space"):
        run(world, "full")


def test_little_disk_space_is_told_before_the_training(world, monkeypatch):
    monkeypatch.setattr(
        record.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1)
    )
    with pytest.raises(KCDPError, match="free some space"):
        run(world, "little")


# ---------------------------------------------------------------- parts of the loop


def test_batches_are_shuffled_and_cover_all(world):
    settings = Config(preset="blank")
    torch.manual_seed(0)
    rows = torch.cat(training.batches(24, training.steps_per_epoch(24, settings), settings))
    assert sorted(rows.tolist()) == list(range(24)) != rows.tolist()
    few = training.batches(5, 3, settings)
    assert [len(batch) for batch in few] == [2, 2, 1] and sorted(torch.cat(few).tolist()) == list(
        range(5)
    ), "no picture twice in an epoch"
    assert [len(batch) for batch in training.batches(2, 3, settings)] == [1, 1, 0]


def test_learning_rate_rises_then_falls_to_nothing():
    """All groups of parameters have the same rate."""
    config, rates = Config(), []
    top = config.sizes.learning_rate
    groups = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(2)]
    optimizer = torch.optim.AdamW(groups)
    for step in range(100):
        training.set_learning_rate(optimizer, step, 100, config)
        rate, other = (group["lr"] for group in optimizer.param_groups)
        assert rate == other
        rates.append(rate)
    assert (
        rates[0] == pytest.approx(top / 10)
        and max(rates) == pytest.approx(top)
        and rates[-1] < top / 100
    )
    assert np.all(np.diff(rates[:10]) > 0) and np.all(np.diff(rates[10:]) < 0)


def test_a_small_target_batch_weighs_by_its_pictures(finished, world):
    """Half the weight gives half the gradient in one step."""
    settings, norms = Config(target=str(world / "target"), preset="blank"), []
    frozen = baselines.frozen_for("full", load(str(world / "target"), "train"), settings, "cpu")
    for weight in (1.0, 0.5):
        model = KCDP.from_pretrained(finished[1] / "model")
        labeller = training.PseudoLabeller(len(frozen), len(EMOTIONS), model.recipe)
        assert (
            training.target_step(
                model,
                labeller,
                frozen,
                torch.arange(4),
                1.0,
                settings,
                processes.accelerator("no", "cpu"),
                weight,
            )["coverage"]
            > 0
        )
        norms.append(sum(p.grad.norm() for p in model.parameters() if p.grad is not None).item())
    assert norms[1] == pytest.approx(norms[0] / 2, rel=1e-3)


def test_target_loss_counts_trusted_labels_only():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    seen = type("Seen", (), {"logits": logits, "balance": torch.tensor(2.0)})
    labels, kept = torch.tensor([0, 1, 2, 3]), torch.tensor([True, False, False, True])
    total, emotion = training.target_loss(seen, labels, kept)
    by_hand = -(logits.log_softmax(-1)[0, 0] + logits.log_softmax(-1)[3, 3]) / 4
    assert emotion.item() == pytest.approx(by_hand.item()) and total.item() == pytest.approx(
        by_hand.item() + 0.2
    )


def test_content_word_is_found_among_the_tokens(world):
    tokenizer = knowledge.load_text_encoder(config.PRESETS["blank"]).tokenizer
    word, positions = record.content_word(
        "a sticker of a cat , crying big tears .", [("cat", "crying", "big tears")], tokenizer
    )
    assert word == "tears"
    ids = tokenizer("a sticker of a cat , crying big tears .")["input_ids"]
    assert tokenizer.decode([ids[i] for i in positions]).strip() == "tears"
    assert record.content_word("", [], tokenizer)[0] == ""
    for caption, wanted in (
        ("a photo of a cat , shedding tears .", "tears"),
        ("a photo of a cat .", "photo"),
    ):
        told = knowledge.with_feelings(caption, "terrified , nauseated and gloomy")
        assert record.content_word(told, parse_triplets(caption), tokenizer)[0] == wanted


# ---------------------------------------------------------------- the run's own folder


def own_files(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def used(finished, tmp_path):
    """Return the folder of a finished run with foreign files and one half-written file."""
    folder = shutil.copytree(finished[1], tmp_path / "used")
    (folder / "metrics.json.part17").write_text("{")
    for name in ("notes.txt", "figures/mine.png", "model/notes.md"):
        (folder / name).write_text("mine")
    return folder


def test_a_second_run_leaves_nothing_of_the_first(world, used):
    before = own_files(used)
    assert "figures/baselines.png" in before
    results = adapt(
        source=str(world / "source"),
        target=str(world / "bare"),
        preset="blank",
        epochs=1,
        out_dir=str(used),
    )
    after = own_files(used)
    assert set(after) == {
        *("metrics.json", "predictions.jsonl", "notes.txt", "figures/mine.png", "model/notes.md"),
        *(f"model/{name}" for name in ("model.safetensors", "config.json", "history.json")),
        "model/README.md",
    }, "no figure of the first, no lock, no checkpoint"
    assert json.loads(after["metrics.json"]) == results
    kept = {name for name in after if before[name] == after[name]}
    assert kept - {"model/config.json"} == {"notes.txt", "figures/mine.png", "model/notes.md"}


def test_bad_data_leave_an_earlier_run_as_it_is(world, used):
    before = own_files(used)
    with pytest.raises(KCDPError, match="fewer than two emotions"):
        adapt(source=str(world / "bare"), target=str(world / "target"), out_dir=str(used))
    assert own_files(used) == before


def test_a_run_that_fails_does_not_look_finished(world, used, monkeypatch):
    def broken(*args, **parameters):
        raise RuntimeError("no memory")

    monkeypatch.setattr(training, "source_step", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        adapt(
            source=str(world / "source"),
            target=str(world / "target"),
            preset="blank",
            seed=17,
            out_dir=str(used),
        )
    assert set(own_files(used)) == {"notes.txt", "figures/mine.png", "model/notes.md"}


def test_the_numbers_are_there_before_the_first_figure(world, tmp_path, monkeypatch):
    """A figure that fails costs a warning, and the others are drawn."""
    seen = []

    def broken():
        seen.extend(own_files(tmp_path))
        raise ValueError("no such glyph")

    drawn = {"method": broken, "confusion": lambda: figures.confusion({"a": [[1]]}, ["joy"])}
    monkeypatch.setattr(record, "drawings", lambda *args: drawn)
    with pytest.warns(UserWarning, match=r"method.png is left out \(no such glyph\); all numbers"):
        results = run(world, tmp_path, epochs=1)
    assert {"metrics.json", "predictions.jsonl", "model/model.safetensors"} <= set(seen)
    assert json.loads((tmp_path / "metrics.json").read_text()) == results
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["confusion.png"]


def test_a_folder_belongs_to_one_run_at_a_time(world, tmp_path):
    with folder.owned(tmp_path):
        before = own_files(tmp_path)
        with pytest.raises(
            KCDPError, match="Another run is writing to .*; wait .* another out_dir"
        ):
            run(world, tmp_path)
        with folder.owned(world):
            pass
        assert own_files(tmp_path) == before
    with folder.owned(tmp_path):
        pass
    assert not own_files(tmp_path)


def test_a_run_of_other_pictures_of_the_same_name_is_kept(tmp_path):
    one, other = (str(tmp_path / name / "images") for name in "ab")
    (tmp_path / "metrics.json").write_text(
        json.dumps({"config": {"source": "photos", "target": one}})
    )
    folder.check_apart(tmp_path, Config(target=one))
    folder.check_apart(tmp_path, Config(target=other, out_dir=str(tmp_path)))
    with pytest.raises(KCDPError, match="holds the run of other pictures, photos to .*a/images"):
        folder.check_apart(tmp_path, Config(target=other))


def test_a_run_among_its_own_pictures_is_refused(tmp_path):
    inside = tmp_path / "mine" / "run"
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for places in (
        {"target": str(tmp_path / "mine")},
        {"source": str(tmp_path / "mine")},
        {"target": "mine", "data_root": str(tmp_path)},
        {"target": str(tmp_path / "link")},
        {"target": str(tmp_path / "other" / ".." / "mine")},
    ):
        with pytest.raises(KCDPError, match="lies among the pictures"):
            folder.check_apart(inside, Config(out_dir=str(inside), **places))


def test_all_files_of_a_run_can_be_read_by_others(finished):
    files = [path for path in finished[1].rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {files[0].stat().st_mode}


HOLDER = """
import sys
from pathlib import Path
from kcdp_lib.adapt.folder import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_goes_with_a_killed_run(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=paths.ROOT,
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(KCDPError, match="Another run"), folder.owned(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with folder.owned(tmp_path):
        assert (tmp_path / folder.LOCK).exists()


def test_folders_of_one_name_have_a_panel_each(world, finished, tmp_path, monkeypatch):
    """A name that looks like mathematics, with a letter that no font has, does no harm."""
    monkeypatch.setattr(record, "drawings", DRAW)
    shown = {}
    monkeypatch.setattr(
        record.figures, "whole_method", lambda cards, classes: shown.update(cards) or sheet()
    )
    name = "a$x^2$ 图\x02" + (os.fsdecode(b"\xff") if sys.platform == "linux" else "")

    def sheet():
        return figures.learning_curves([{"step": 0, "source_loss": 1.0}])

    places = {}
    for side in ("source", "target"):
        places[side] = tmp_path / side / name
        places[side].parent.mkdir()
        shutil.copytree(world / side, places[side])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        results = run(world, tmp_path / "out", epochs=1, **places)
    assert [title.split(":")[0] for title in shown] == ["source", "target"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == results
    assert results["config"]["target"] == str(places["target"])
    rows = predictions(tmp_path / "out")
    assert all(file.exists() for file in target_files(places["target"], rows))
    assert len(list((tmp_path / "out" / "figures").iterdir())) == 5
    assert r"a\$x\^2\$" in (tmp_path / "out" / "model" / "README.md").read_text()


# ---------------------------------------------------------------- damaged caches


def test_a_damaged_baseline_is_made_anew(world, tmp_path, monkeypatch):
    shutil.copytree(world / "cache", tmp_path / "cache")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    for path in (tmp_path / "cache" / "baselines").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="baselines.* is damaged .* and is made anew"):
        results = run(world, "again")
    assert set(results["baselines"]) == BASELINES


def test_a_cache_that_cannot_be_written_is_named(world, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    with pytest.raises(KCDPError, match="cache/frozen/.*, in the cache, .* set KCDP_CACHE to"):
        baselines.shards.compute(["a"], lambda i: ({"x": torch.zeros(1)}, []))
    with pytest.raises(KCDPError, match="in the cache, .* set KCDP_CACHE to another folder"):
        load("photos", "train")


def test_a_run_notices_such_a_cache_before_it_computes(world, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr("kcdp_lib.adapt.run.load_all", lambda config: pytest.fail("too late"))
    with pytest.raises(KCDPError, match="in the cache, .* set KCDP_CACHE to another folder"):
        run(world, "early")


def test_predict_takes_any_iterable_of_pictures(world, finished):
    model = KCDP.from_pretrained(finished[1] / "model", device=torch.device("cpu"))
    files = sorted((world / "bare").glob("*.png"))
    expected = model.predict(files).labels
    for images in (
        (path for path in files),
        map(str, files),
        dict.fromkeys(files).keys(),
        np.array(list(map(str, files))),
        [Image.open(path) for path in files],
    ):
        assert model.predict(images).labels == expected
    assert sorted(model.predict(set(files)).labels) == sorted(expected)


def test_predict_answers_each_frame_of_an_animation(world, finished, tmp_path):
    model = KCDP.from_pretrained(finished[1] / "model")
    frames = [Image.open(path).convert("RGB") for path in sorted((world / "bare").glob("*.png"))]
    moving = tmp_path / "moving.webp"
    frames[0].save(moving, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(moving) as animation:
        found = model.predict(ImageSequence.Iterator(animation))
    np.testing.assert_array_equal(found.probs, model.predict(frames).probs)
    np.testing.assert_array_equal(model.predict([moving]).probs, model.predict(frames[:1]).probs)


def test_predict_refuses_before_a_model_is_loaded(world, finished):
    model = KCDP.from_pretrained(finished[1] / "model")
    for images in (None, [5], [world / "nowhere.png"], [Image.new("RGB", (0, 5))]):
        with pytest.raises(KCDPError):
            model.predict(images)
    assert model.foundations is None
