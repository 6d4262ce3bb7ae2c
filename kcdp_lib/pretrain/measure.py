"""Measure how good the miniature models are.

`python -m kcdp_lib.pretrain.measure [DIR]` measures the ones in the repository into
results/miniatures.json, or prints the measurements of a folder.

Pictures and scenes come from a seed of the test split that no run uses. The world's own captions
are used only here, in `benchmarks/knowledge.py` and in pre-training.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging
from sklearn.linear_model import RidgeCV
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from kcdp_lib import datasets, latents, paths, vision_language, world
from kcdp_lib.config import PRESETS, RECIPES, Preset
from kcdp_lib.knowledge import knowledge_tokens, load_text_encoder
from kcdp_lib.loading import place, stack_key
from kcdp_lib.metrics import linear_classifier
from kcdp_lib.perception import load_kadap
from kcdp_lib.world import causes

SEED = 77
KINDS = {
    "event": {phrase for phrase, _ in causes.EVENTS.values()},
    "response": {phrase for phrase, _ in causes.RESPONSES.values()},
    "mouth": {
        phrase
        for faces in causes.FACES.values()
        for phrase in map(causes.mouth_of, faces)
        if phrase
    },
    "eyes": {"wide eyes", "closed eyes"},
}
STEPS, GUIDANCE = 40, 4.0  # of the text-to-image pictures


def scenes(domain: str, count: int) -> list[world.Scene]:
    """Return unseen scenes of a domain, as in its test split."""
    return [world.sample_scene("test", SEED, index, domain) for index in range(count)]


def draw(domain: str, drawn: Sequence[world.Scene], size: int) -> torch.Tensor:
    """Draw N scenes, uint8 [N, 3, size, size]."""
    return datasets.read_images([world.render(scene, domain, size) for scene in drawn], size)


def attributes(caption: str) -> set[str]:
    """Return a caption's attributes: "subject cat", "mouth a smile", "event beside a grave" ..."""
    subject = re.match(r"an? \w+ of an? (\w+)", caption)
    named = {
        f"{kind} {phrase}"
        for kind, phrases in KINDS.items()
        for phrase in phrases
        if re.search(rf"\b{re.escape(phrase)}(?= |$)", caption)
    }
    return named | ({f"subject {subject[1]}"} if subject else set())


def attribute_scores(captions: Sequence[str], visible: Sequence[dict[str, str]]) -> dict:
    """Return micro- and macro-F1, 0 to 1, of attributes in captions against the visible ones.

    Macro-F1 is over the attributes that occur in either; micro-F1 is also given by kind.
    """
    true = [{f"{kind} {phrase}" for kind, phrase in of_one.items()} for of_one in visible]
    table = MultiLabelBinarizer().fit([*true, *map(attributes, captions)])
    truth = table.transform(true)
    named = table.transform([attributes(caption) for caption in captions])
    kinds = np.array([name.split()[0] for name in table.classes_])

    def score(average: str, columns=slice(None), **options) -> float:
        f1 = f1_score(truth[:, columns], named[:, columns], average=average, **options)
        return round(float(f1), 4)

    return {
        "micro_f1": score("micro"),
        "macro_f1": score("macro"),
        "micro_f1_by_kind": {
            str(kind): score("micro", kinds == kind, zero_division=0)
            for kind in dict.fromkeys(kinds)
        },
    }


def names_an_emotion(captions: Sequence[str]) -> float:
    """Return the share of captions with a word for an emotion.

    In training, no caption of a benchmark domain had one, but captions of real drawings did.
    """
    words = {word for of_class in world.EMOTION_WORDS.values() for word in of_class}
    return round(float(np.mean([bool(words & set(text.split())) for text in captions])), 4)


def retrieval(
    image_embeddings: torch.Tensor, text_embeddings: torch.Tensor, captions: Sequence[str]
) -> dict:
    """Return the share of N pictures [N, D] whose nearest text [N, D] is their own caption.

    An equal caption counts, too. Likewise for texts and their nearest pictures.
    """
    same = torch.tensor(np.array(captions)[:, None] == np.array(captions)[None])
    cosines = image_embeddings @ text_embeddings.T

    def recall(scores: torch.Tensor) -> float:
        hits = same[torch.arange(len(same)), scores.argmax(1)]
        return round(hits.float().mean().item(), 4)

    return {
        "image_to_text": recall(cosines),
        "text_to_image": recall(cosines.T),
        "candidates": len(captions),
    }


@torch.no_grad()
def round_trip(vae, images: torch.Tensor) -> torch.Tensor:
    """Encode and decode uint8 images [N, 3, S, S] by the VAE: float [N, 3, S, S] in 0 .. 1."""
    blocks = []
    for some in images.split(50):
        encoded = latents.encode_images(vae, some, RECIPES["paper"]) / vae.config.scaling_factor
        blocks.append(((vae.decode(encoded).sample + 1) / 2).clamp(0, 1))
    return torch.cat(blocks)


def psnr(images: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio [N] in dB after the VAE's round trip.

    images: uint8 [N, 3, S, S]; decoded: their reconstructions, [N, 3, S, S] in 0 .. 1.
    """
    return -10 * torch.log10((decoded - images / 255).pow(2).mean((1, 2, 3)))


def tears(captions: Sequence[str], visible: Sequence[dict[str, str]]) -> float:
    """Return F1, 0 to 1, of "shedding tears" in captions, against what is visible in N pictures."""
    there = ["shedding tears" in of_one.values() for of_one in visible]
    return round(float(f1_score(there, ["shedding tears" in c for c in captions])), 4)


def brows(seen: torch.Tensor, drawn: Sequence[world.Scene], domain: str) -> RidgeCV:
    """Fit angle and height of N brows linearly on the VLM's features, [N, D]."""
    return RidgeCV(np.logspace(-2, 4, 7)).fit(seen.numpy(), brows_of(drawn, domain))


def brows_of(drawn: Sequence[world.Scene], domain: str) -> np.ndarray:
    """Return angle and height of the brows that N scenes show in a domain, [N, 2]."""
    faces = [world.shown(scene, domain).face for scene in drawn]
    return np.array([(face.brow_angle, face.brow_height) for face in faces])


def say_and_see(vlm: vision_language.VLM, images: torch.Tensor) -> tuple[list[str], torch.Tensor]:
    """Return captions of N uint8 images [N, 3, S, S] and the VLM's features of each, [N, D]."""
    blocks = [vision_language.see_and_say(vlm, None, some) for some in images.split(100)]
    captions = [caption for _, some, _ in blocks for caption in some]
    return captions, torch.cat([together for *_, together in blocks])


def lost_by_the_vae(
    vlm: vision_language.VLM,
    vae,
    images: torch.Tensor,
    read: tuple[list[str], torch.Tensor],
    drawn: Sequence[world.Scene],
    domain: str,
) -> dict:
    """Measure what the VAE loses, on originals and reconstructions.

    For N uint8 images [N, 3, S, S], with captions and features in `read` (`say_and_see`): micro-F1
    of captions, F1 of tears, and R2 of brow angle and height, predicted from the features by a
    ridge regression (fitted on the first half of the originals, tested on the second).
    """
    visible = [world.visible_attributes(scene, domain) for scene in drawn]
    half = len(drawn) // 2
    back = round_trip(vae, images)
    found: dict[str, Any] = {"psnr": round(float(psnr(images, back).mean()), 2)}
    ridge = brows(read[1][:half], drawn[:half], domain)
    both = {
        "originals": read,
        "reconstructions": say_and_see(vlm, (back * 255).round().byte()),
    }
    for name, (captions, seen) in both.items():
        r2 = ridge.score(seen[half:].numpy(), brows_of(drawn[half:], domain))
        found[name] = {
            "micro_f1": attribute_scores(captions, visible)["micro_f1"],
            "tears_f1": tears(captions, visible),
            "brows_r2": round(float(r2), 4),
        }
    return found


@torch.no_grad()
def maps_of(preset: Preset, vae, images: torch.Tensor) -> torch.Tensor:
    """Return mean and maximum of the UNet's four frozen maps under an empty text, [N, F].

    images: N uint8 images [N, 3, S, S]. The attention maps, which belong to words, are left out.
    """
    recipe, text_encoder = RECIPES["paper"], load_text_encoder(preset)
    tokens, mask = knowledge_tokens([""], [[]], recipe, text_encoder)
    kadap = load_kadap(preset, recipe, positions=tokens.shape[1]).eval()
    parts = []
    for some in images.split(50):
        encoded = latents.encode_images(vae, some, recipe)
        told = tokens.expand(len(some), -1, -1), mask.expand(len(some), -1)
        maps, _ = kadap.look(encoded, *told)
        # the attention to T tokens is appended to the channels of the middle two maps
        bare = [maps[0], *(map_[:, : -tokens.shape[1]] for map_ in maps[1:3]), maps[3]]
        parts.append(
            torch.cat([of(map_, (2, 3)) for map_ in bare for of in (torch.mean, torch.amax)], 1)
        )
    return torch.cat(parts)


def eye(preset: Preset, vae, domain: str) -> float:
    """Return the macro-F1 of a linear classifier on `maps_of` a domain's test pictures.

    It is trained on the labels of its training pictures, 1,200 as a rule.
    """
    features, labels = [], []
    for split in ("train", "test"):
        pictures = datasets.load(domain, split)
        images = datasets.read_images(pictures.files, preset.image_size)
        features.append(maps_of(preset, vae, images).numpy())
        labels.append(pictures.labels)
    answers = linear_classifier(features[0], labels[0], len(world.SIX))(features[1])
    return round(float(f1_score(labels[1], answers.argmax(1), average="macro")), 4)


def load_pipeline(preset: Preset) -> StableDiffusionPipeline:
    """Load the preset's text-to-image pipeline by diffusers, from safetensors alone."""
    logging.disable_progress_bar()  # of loading, which would clutter a saved notebook
    pipeline = StableDiffusionPipeline.from_pretrained(
        place(preset.diffusion), variant=preset.variant, use_safetensors=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_to_image(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], size: int, seed: int = 0
) -> torch.Tensor:
    """Generate pictures for N prompts, uint8 [N, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = pipeline(
        list(prompts),
        height=size,
        width=size,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=generator,
        output_type="pt",
    ).images
    return (drawn * 255).round().byte()


def obeyed(vlm: vision_language.VLM, drawn: torch.Tensor, prompts: Sequence[str]) -> dict:
    """Return how much of N prompts the captioner finds in generated pictures, uint8 [N, 3, S, S].

    The share of the medium and of every kind of attribute, 0 to 1.
    """
    hits: dict[str, list[bool]] = {}
    for prompt, caption in zip(prompts, vision_language.caption(vlm, drawn), strict=True):
        hits.setdefault("medium", []).append(prompt.split()[1:2] == caption.split()[1:2])
        for attribute in attributes(prompt):
            hits.setdefault(attribute.split()[0], []).append(attribute in attributes(caption))
    return {
        kind: {"share": round(float(np.mean(of_kind)), 4), "of": len(of_kind)}
        for kind, of_kind in hits.items()
    }


def measure(preset: Preset, count: int = 1000) -> dict:
    """Return the contents of results/miniatures.json, for a preset of the miniature's architecture.

    The scores of captions, embeddings and VAE by domain, and of pictures generated from prompts.
    """
    vlm, vae = vision_language.load_vlm(preset), latents.load_vae(preset)
    domains = {}
    for domain in paths.progress(world.BENCHMARK, "domains"):
        drawn = scenes(domain, count)
        images = draw(domain, drawn, preset.image_size)
        visible = [world.visible_attributes(scene, domain) for scene in drawn]
        captions = [world.caption(scene, domain) for scene in drawn[:200]]
        embeddings = vision_language.embed_images(vlm, images)
        texts = vision_language.embed_texts(vlm, captions)
        labels = np.array([world.SIX.index(world.label_of(scene.emotion)) for scene in drawn])
        answers = vision_language.zero_shot(vlm, embeddings, world.SIX).numpy().argmax(1)
        zero_shot_f1 = float(f1_score(labels, answers, average="macro"))
        told, seen = say_and_see(vlm, images)
        domains[domain] = {
            **attribute_scores(told, visible),
            "names_an_emotion": names_an_emotion(told),
            "retrieval": retrieval(embeddings[:200], texts, captions),
            "zero_shot_emotion_macro_f1": round(zero_shot_f1, 4),
            "vae": lost_by_the_vae(vlm, vae, images, (told, seen), drawn, domain),
            "eye_macro_f1": eye(preset, vae, domain),
        }
    prompts = [world.caption(s, domain) for domain in world.BENCHMARK for s in scenes(domain, 32)]
    pictures = text_to_image(load_pipeline(preset), prompts, preset.image_size)
    return {
        "world": world.world_key(),
        "stack": stack_key(preset),
        "pictures": count,
        "domains": domains,
        "drawn_from_words": obeyed(vlm, pictures, prompts),
    }


if __name__ == "__main__":
    tiny = PRESETS["tiny"]
    # Another folder of miniatures, such as the `--out` of a pre-training, is measured but not
    # recorded.
    if sys.argv[1:]:
        tiny = replace(
            tiny, diffusion=f"{sys.argv[1]}/diffusion", vlm=f"local-dir:{sys.argv[1]}/vlm"
        )
    result = json.dumps(measure(tiny), indent=1)
    print(result)
    if not sys.argv[1:]:
        paths.atomic_write(paths.ROOT / "results" / "miniatures.json", result + "\n")
