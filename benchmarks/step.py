"""Measure the seconds of one training step, a source and a target batch of the preset `tiny`.

It times the paper recipe as this book runs it, with everything frozen cached, and
`recipe="released"` with less and less cached:

released                 nothing: captions, triplets, tokens and latents anew in every step
released_captions_read   captions and triplets from a file, as in the released code, which calls its
                         text encoder for each text by itself
released_texts_batched   the same with the texts in batches

`python benchmarks/step.py` prints all and writes results/step.json. Steps alternate, so that a busy
moment affects each kind alike.
"""

import statistics
import time

import torch

from kcdp_book import results
from kcdp_lib import datasets, processes
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.adapt.training import source_step, target_step
from kcdp_lib.config import PRESETS, RECIPES, Config
from kcdp_lib.counterfactuals import PseudoLabeller
from kcdp_lib.datasets import EMOTIONS
from kcdp_lib.knowledge import encode_texts, knowledge_tokens
from kcdp_lib.latents import encode_images
from kcdp_lib.precompute import Frozen, describe, load_foundations

ROUNDS = 7
PRESET = PRESETS["tiny"]


def make_step(recipe, foundations, pixels: list[torch.Tensor], labels: torch.Tensor, look):
    """Return a function without arguments that trains one step.

    pixels: a source and a target batch, uint8 [B, 3, S, S] each; look: maps a batch's images and
    frozen features to the features that the step trains on.
    """
    model, config, accelerator = (
        KCDP(PRESET, recipe),
        Config(recipe=recipe.name),
        processes.accelerator("no", "cpu"),
    )
    labeller = PseudoLabeller(len(pixels[1]), len(EMOTIONS), recipe)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    frozen, rows = (
        [describe(images, foundations, recipe) for images in pixels],
        torch.arange(len(labels)),
    )

    def step() -> None:
        foundations.text_encoder.known.clear()
        source, target = (look(images, known) for images, known in zip(pixels, frozen, strict=True))
        source_step(model, source, labels, rows, config, accelerator)
        target_step(model, labeller, target, rows, 1.0, config, accelerator)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def encode_anew(
    images: torch.Tensor, known: Frozen, foundations, recipe, texts_a_call: int
) -> Frozen:
    """Encode a batch's latents and tokens, given its captions and triplets."""
    encode_texts(
        [*known.captions, *("".join(triplet) for of_row in known.triplets for triplet in of_row)],
        foundations.text_encoder,
        texts_a_call,
    )
    tokens, mask = knowledge_tokens(
        known.captions, known.triplets, recipe, foundations.text_encoder
    )
    return Frozen(
        encode_images(foundations.vae, images, recipe),
        tokens,
        mask,
        known.image_embeddings,
        known.captions,
        known.triplets,
    )


def measure(rounds: int = ROUNDS) -> dict:
    """Return the median seconds of each kind, and the ratio of the medians.

    The first step of each is not counted.
    """
    foundations, pictures = (
        load_foundations(PRESET),
        [datasets.load(name, "train") for name in ("photos", "stickers")],
    )
    pixels = [
        datasets.read_images(some.files[: PRESET.batch_size], PRESET.image_size)
        for some in pictures
    ]
    labels = torch.as_tensor(pictures[0].labels[: PRESET.batch_size])
    released = RECIPES["released"]
    looks = {
        "released": lambda images, known: describe(images, foundations, released),
        "released_captions_read": lambda images, known: encode_anew(
            images, known, foundations, released, texts_a_call=1
        ),
        "released_texts_batched": lambda images, known: encode_anew(
            images, known, foundations, released, texts_a_call=64
        ),
    }
    steps = {
        "paper": make_step(
            RECIPES["paper"], foundations, pixels, labels, lambda images, known: known
        ),
        **{
            name: make_step(released, foundations, pixels, labels, look)
            for name, look in looks.items()
        },
    }
    seconds = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "ratio": {name: round(value / median["paper"], 2) for name, value in median.items()},
    }


if __name__ == "__main__":
    found = measure()
    for name, seconds in found["seconds"].items():
        print(
            f"{name:23} {seconds:6.3f} s a step, {found['ratio'][name]:.2f} times the paper "
            "recipe's"
        )
    results.write("step", {**found, "batch": PRESET.batch_size})
