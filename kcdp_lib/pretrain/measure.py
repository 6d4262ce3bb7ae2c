"""How good the miniature foundation models are.

`python -m kcdp_lib.pretrain.measure [DIR]` measures the shipped ones into results/miniatures.json,
or those of a folder.

Pictures and scenes come from a seed of the test split that nothing else uses. The world's own
captions are read here, and in pre-training, and nowhere else.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from .. import datasets, latents, paths, vision_language, world
from ..config import PRESETS, RECIPES, Preset
from ..loading import stack_key
from ..world import causes

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
    """Unseen scenes of a domain, as its test split has them."""
    return [world.sample_scene("test", SEED, index, domain) for index in range(count)]


def draw(domain: str, found: Sequence[world.Scene], size: int) -> torch.Tensor:
    """uint8 pictures [N, 3, size, size] of N scenes."""
    return datasets.read_images([world.render(scene, domain, size) for scene in found], size)


def attributes(caption: str) -> set[str]:
    """The attributes a caption names: "subject cat", "mouth a smile", "event beside a grave" ..."""
    subject = re.match(r"an? \w+ of an? (\w+)", caption)
    named = {
        f"{kind} {phrase}"
        for kind, phrases in KINDS.items()
        for phrase in phrases
        if re.search(rf"\b{re.escape(phrase)}(?= |$)", caption)
    }
    return named | ({f"subject {subject[1]}"} if subject else set())


def attribute_scores(captions: Sequence[str], seen: Sequence[dict[str, str]]) -> dict:
    """Micro- and macro-F1, 0 to 1, of what captions name against `world.visible_attributes`.

    Macro over the attributes that occur in one of them, and by kind.
    """
    true = [{f"{kind} {phrase}" for kind, phrase in of_one.items()} for of_one in seen]
    table = MultiLabelBinarizer().fit([*true, *map(attributes, captions)])
    truth, named = (
        table.transform(true),
        table.transform([attributes(caption) for caption in captions]),
    )
    kinds = np.array([name.split()[0] for name in table.classes_])
    by_kind = {
        str(kind): round(
            float(
                f1_score(
                    truth[:, kinds == kind],
                    named[:, kinds == kind],
                    average="micro",
                    zero_division=0,
                )
            ),
            4,
        )
        for kind in dict.fromkeys(kinds)
    }
    return {
        "micro_f1": round(float(f1_score(truth, named, average="micro")), 4),
        "macro_f1": round(float(f1_score(truth, named, average="macro")), 4),
        "micro_f1_by_kind": by_kind,
    }


def retrieval(
    image_embeddings: torch.Tensor, text_embeddings: torch.Tensor, captions: Sequence[str]
) -> dict:
    """Share of N pictures [N, D] whose nearest text [N, D] is their own caption, or says the same,
    and the other way round.
    """
    same = torch.tensor(np.array(captions)[:, None] == np.array(captions)[None])
    near = image_embeddings @ text_embeddings.T
    hit = [
        same[torch.arange(len(same)), side.argmax(1)].float().mean().item()
        for side in (near, near.T)
    ]
    return {
        "image_to_text": round(hit[0], 4),
        "text_to_image": round(hit[1], 4),
        "candidates": len(captions),
    }


@torch.no_grad()
def psnr(vae, images: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio [N] in dB of uint8 images [N, 3, S, S] after the VAE's round trip,
    values in 0 .. 1.
    """
    encoded = latents.encode_images(vae, images, RECIPES["paper"]) / vae.config.scaling_factor
    decoded = ((vae.decode(encoded).sample + 1) / 2).clamp(0, 1)
    return -10 * torch.log10((decoded - images / 255).pow(2).mean((1, 2, 3)))


def load_pipeline(preset: Preset) -> StableDiffusionPipeline:
    """The preset's text-to-image pipeline, as diffusers loads any.

    Its weights from safetensors alone.
    """
    logging.disable_progress_bar()  # of loading: it would be debris in a saved notebook
    pipeline = StableDiffusionPipeline.from_pretrained(
        preset.diffusion, variant=preset.variant, use_safetensors=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_to_image(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], size: int, seed: int = 0
) -> torch.Tensor:
    """uint8 pictures [N, 3, size, size] drawn from noise under N prompts."""
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
    """Which of what N prompts ask for does the captioner find in the pictures drawn from them,
    uint8 [N, 3, S, S]?

    Share of the medium and of every kind of attribute, 0 to 1.
    """
    said, found = vision_language.caption(vlm, drawn), {}
    for prompt, caption in zip(prompts, said):
        found.setdefault("medium", []).append(prompt.split()[1:2] == caption.split()[1:2])
        for attribute in attributes(prompt):
            found.setdefault(attribute.split()[0], []).append(attribute in attributes(caption))
    return {
        kind: {"share": round(float(np.mean(hits)), 4), "of": len(hits)}
        for kind, hits in found.items()
    }


def measure(preset: Preset, count: int = 1000) -> dict:
    """Everything that results/miniatures.json holds, of a preset of the miniature's architecture.

    By domain what captioner, embeddings and VAE do, and what is drawn from words.
    """
    vlm, vae, found = vision_language.load_vlm(preset), latents.load_vae(preset), {}
    for domain in paths.progress(world.BENCHMARK, "domains"):
        some = scenes(domain, count)
        images, seen, told = (
            draw(domain, some, preset.image_size),
            [world.visible_attributes(s, domain) for s in some],
            [world.caption(s, domain) for s in some],
        )
        embeddings = vision_language.embed_images(vlm, images)
        labels = np.array([world.SIX.index(world.label_of(s.emotion)) for s in some])
        answered = vision_language.zero_shot(vlm, embeddings, world.SIX).numpy().argmax(1)
        found[domain] = {
            **attribute_scores(vision_language.caption(vlm, images), seen),
            "retrieval": retrieval(
                embeddings[:200], vision_language.embed_texts(vlm, told[:200]), told[:200]
            ),
            "zero_shot_emotion_macro_f1": round(
                float(f1_score(labels, answered, average="macro")), 4
            ),
            "psnr": round(float(psnr(vae, images[:200]).mean()), 2),
        }
    prompts = [world.caption(s, domain) for domain in world.BENCHMARK for s in scenes(domain, 32)]
    drawn = text_to_image(load_pipeline(preset), prompts, preset.image_size)
    return {
        "world": world.world_key(),
        "stack": stack_key(preset),
        "pictures": count,
        "domains": found,
        "drawn_from_words": obeyed(vlm, drawn, prompts),
    }


if __name__ == "__main__":
    tiny = PRESETS["tiny"]
    # Another folder of miniatures, such as one that `--out` of the pre-training names: nothing is
    # written
    if sys.argv[1:]:
        tiny = replace(
            tiny, diffusion=f"{sys.argv[1]}/diffusion", vlm=f"local-dir:{sys.argv[1]}/vlm"
        )
    result = json.dumps(measure(tiny), indent=1)
    print(result)
    if not sys.argv[1:]:
        paths.atomic_write(paths.ROOT / "results" / "miniatures.json", result + "\n")
