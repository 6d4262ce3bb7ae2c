"""Measure the time and memory of a training step and of a prediction.

`python benchmarks/cost.py [PRESET ...]` prints a table, and writes results/cost.json (all of it:
`--fresh` measures again what is there).

Each variant (a "way" in the table) runs in a process of its own, to measure its peak memory:

released       recipe "released" as the authors run it: float32, plain attention, gradient
               checkpointing, pictures and texts encoded anew in every step, each text by itself,
               one backward pass for both domains
released_bf16  the same under bfloat16 autocast (with TF32 on a GPU): the effect of precision alone
paper          recipe "paper" as this book runs it: frozen parts come from the cache, one backward
               pass for each domain; float32
paper_bf16     the same under bfloat16 autocast
..._saving     the two with gradient checkpointing, which saves memory
..._pieces     the two with the batch in two pieces (`accumulation`), which saves memory, too
..._one_pass   the two with both domains in one pass of the UNet (`one_pass`)
once           what `paper` computes once for each picture: VAE, text encoder, VLM
predict        `KCDP.predict` on the built-in stickers, captions included

Weights are random, with the sizes and folders of the true ones (`benchmarks/full_size.py`). The
cost of a step depends on them only by the length of the captions, so captions come from
benchmarks/triplets.jsonl. In `once` and `predict` the VLM writes to the end of its context, which
is the worst case.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from full_size import random_preset
from PIL import Image

from kcdp_book.results import FOLDER, made
from kcdp_lib import datasets, knowledge, paths, precompute, processes, vision_language
from kcdp_lib.adapt import training
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.adapt.record import peak_memory
from kcdp_lib.config import PRESETS, RECIPES, Config, pick_device
from kcdp_lib.counterfactuals import PseudoLabeller
from kcdp_lib.datasets import EMOTIONS
from kcdp_lib.latents import encode_images, load_vae
from kcdp_lib.perception import StoringProcessor
from kcdp_lib.precompute import Frozen
from kcdp_lib.triplets import parse_triplets

WAYS = (
    "released",
    "released_bf16",
    "paper",
    "paper_bf16",
    "paper_saving",
    "paper_bf16_saving",
    "paper_pieces",
    "paper_bf16_pieces",
    "paper_one_pass",
    "paper_bf16_one_pass",
    "once",
    "predict",
)
BATCH = {"sd15": 2, "tiny": 32}  # pictures of each domain in a step; on a GPU the preset's own
STEPS = 3  # the first is not counted; two steps where one takes minutes


class Clock:
    """Measure seconds by stage, in one dictionary for each step."""

    def __init__(self, device: str):
        self.device, self.steps = device, []

    @contextmanager
    def __call__(self, stage: str):
        """Add the seconds spent inside to a stage of this step."""
        started = self._now()
        yield
        self.steps[-1][stage] = self.steps[-1].get(stage, 0.0) + self._now() - started

    def _now(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def medians(self) -> dict[str, float]:
        """Return the median seconds of each stage, and of whole steps, without the first step."""
        counted = self.steps[1:] or self.steps
        return {
            **{stage: statistics.median(step[stage] for step in counted) for stage in counted[0]},
            "step": statistics.median(sum(step.values()) for step in counted),
        }


class Together:
    """Replace an Accelerator, and delay the backward pass until both losses are known.

    The released code does the same: it sums the two.
    """

    def __init__(self, precision: str):
        self.mixed_precision, self.losses = precision, []

    def backward(self, loss: torch.Tensor) -> None:
        """Keep one of the two losses, [] each, for later."""
        self.losses.append(loss)

    clip_grad_norm_ = staticmethod(torch.nn.utils.clip_grad_norm_)


def captions(count: int) -> tuple[list[str], list]:
    """Return captions in free English, and their triplets by the rules."""
    lines = Path(__file__).with_name("triplets.jsonl").read_text(encoding="utf-8").splitlines()
    known = [json.loads(line)["caption"] for line in lines]
    said = [known[i % len(known)] for i in range(count)]
    return said, [parse_triplets(text) for text in said]


def train_steps(preset, way: str, device: str) -> dict:
    """Return the median seconds of each stage of a training step, source and target."""
    released, precision = way.startswith("released"), "bf16" if "bf16" in way else "no"
    recipe, batch = RECIPES["released" if released else "paper"], preset.batch_size
    if way == "released_bf16" and device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    model, clock = KCDP(preset, recipe, device).train(), Clock(device)
    encoder = knowledge.load_text_encoder(preset, device)
    said, triplets = captions(2 * batch)
    images = torch.randint(
        0, 256, (2 * batch, 3, preset.image_size, preset.image_size), dtype=torch.uint8
    )
    if released or way.endswith("saving"):
        model.kadap.unet.enable_gradient_checkpointing()
    if released:
        vae = load_vae(preset, device)
        for module in model.kadap.unet.modules():
            if hasattr(module, "set_processor") and not isinstance(
                module.processor, StoringProcessor
            ):
                module.set_processor(AttnProcessor())
        accelerator = Together(precision)
    else:
        accelerator = processes.accelerator(precision, device)
        size = model.kadap.unet.config.sample_size
        latents = torch.randn(2 * batch, model.kadap.unet.config.in_channels, size, size)
        tokens, mask = knowledge.knowledge_tokens(said, triplets, recipe, encoder)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    config = Config(
        preset=preset.name,
        recipe=recipe.name,
        accumulation=2 if way.endswith("pieces") else 1,
        one_pass=way.endswith("one_pass"),
    )
    labels = torch.arange(2 * batch, device=device) % 6
    for _ in range(STEPS if not released or batch > 2 else 2):
        clock.steps.append({})
        if released:
            with clock("vae"):
                latents = torch.cat(
                    [encode_images(vae, part, recipe).cpu() for part in images.split(batch)]
                )
            with clock("text"):
                encoder.known.clear()
                knowledge.encode_texts(
                    [*said, *("".join(triplet) for of_row in triplets for triplet in of_row)],
                    encoder,
                    batch_size=1,
                )
                tokens, mask = knowledge.knowledge_tokens(said, triplets, recipe, encoder)
        frozen = Frozen(latents, tokens, mask, torch.zeros(2 * batch, 1), said, triplets)
        labeller = PseudoLabeller(2 * batch, len(EMOTIONS), recipe).to(device)
        backward = accelerator.backward
        accelerator.backward = clock("backward")(backward)
        rows, target_rows = torch.arange(2 * batch).split(batch)
        of_source = frozen, labels, rows
        of_target = frozen, target_rows, 1.0, config, accelerator
        with clock("both"):
            training.both_steps(model, labeller, *of_source, *of_target)
        accelerator.backward = backward
        step = clock.steps[-1]
        step["forward"] = step.pop("both") - step["backward"]
        if released:
            with clock("backward"):
                sum(accelerator.losses).backward()
            accelerator.losses.clear()
        with clock("optimizer"):
            training.update(optimizer, accelerator)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rest = [model, encoder.model, *([vae] if released else [])]
    return {
        "seconds": clock.medians(),
        "pictures": 2 * batch,
        "trained": trained,
        "frozen": sum(p.numel() for part in rest for p in part.parameters()) - trained,
    }


def once(preset, device: str) -> dict:
    """Return seconds per picture of what is computed once and then cached."""
    foundations, clock, recipe, batch = (
        precompute.load_foundations(preset, device),
        Clock(device),
        RECIPES["paper"],
        preset.batch_size,
    )
    images, (said, triplets) = (
        torch.randint(0, 256, (batch, 3, preset.image_size, preset.image_size), dtype=torch.uint8),
        captions(batch),
    )
    for _ in range(STEPS):
        clock.steps.append({})
        with clock("vae"):
            encode_images(foundations.vae, images, recipe)
        with clock("text"):
            foundations.text_encoder.known.clear()
            knowledge.knowledge_tokens(said, triplets, recipe, foundations.text_encoder)
        with clock("captions"):
            vision_language.see_and_say(foundations.vlm, foundations.writer, images)
    return {
        "seconds": {stage: value / batch for stage, value in clock.medians().items()},
        "pictures": 1,
    }


def predict(preset, device: str) -> dict:
    """Return seconds per picture of `KCDP.predict`, on the built-in stickers.

    The tiny preset has its true weights, so its captions have their true length.
    """
    torch.manual_seed(0)
    model, clock, count = (
        KCDP(preset, RECIPES["paper"], device).eval(),
        Clock(device),
        preset.batch_size,
    )
    pictures = [Image.open(file) for file in datasets.load("stickers", "test").files[:count]]
    for _ in range(STEPS if count > 2 else 2):
        clock.steps.append({})
        with clock("predict"):
            model.predict(pictures)
    return {"seconds": {"predict": clock.medians()["predict"] / count}, "pictures": 1}


def measure(name: str, way: str, device: str) -> dict:
    """Measure one variant of a preset in this process, so that the peak memory is its own."""
    preset = PRESETS[name] if name == "tiny" else random_preset(name)
    on_gpu = device.startswith("cuda")
    preset = preset if on_gpu else replace(preset, batch_size=BATCH[name])
    found = (
        once(preset, device)
        if way == "once"
        else predict(preset, device)
        if way == "predict"
        else train_steps(preset, way, device)
    )
    machine = (
        torch.cuda.get_device_name()
        if on_gpu
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    return {
        **found,
        "peak_bytes": peak_memory(device),
        "machine": machine,
        **made(),
    }


def table(found: dict) -> str:
    """Return a Markdown table: a row for each variant, with its ratio to the released step."""
    lines = [
        (
            "| preset | way | seconds | of which | pictures/s | times released | peak GB | trained "
            "| frozen |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, ways in found.items():
        for way, entry in ways.items():
            seconds = entry["seconds"]
            total = seconds.get("step", seconds.get("predict"))
            parts = ", ".join(
                f"{stage} {value:.3g}"
                for stage, value in seconds.items()
                if stage not in ("step", "predict")
            )
            ratio = (
                f"{ways['released']['seconds']['step'] / total:.1f}"
                if "trained" in entry and "released" in ways
                else ""
            )
            counts = [
                f"{entry[kind] / 1e6:.1f} M" if kind in entry else ""
                for kind in ("trained", "frozen")
            ]
            lines.append(
                f"| {name} | {way} | {total:.3g} | {parts} | {entry['pictures'] / total:.3g} | "
                f"{ratio} | {entry['peak_bytes'] / 1e9:.1f} | {' | '.join(counts)} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure every variant of the given presets, one after the other."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument(
        "presets", nargs="*", metavar="PRESET", help=f"of {', '.join(BATCH)}; all if none is named"
    )
    words.add_argument(
        "--one", choices=WAYS, help="measure this way alone, in this process, and print JSON"
    )
    words.add_argument(
        "--fresh", action="store_true", help="measure again what results/cost.json holds"
    )
    told, device = words.parse_args(), pick_device()
    if unknown := [name for name in told.presets if name not in BATCH]:
        words.error(f"there is no preset {unknown[0]!r} here; choose among {', '.join(BATCH)}.")
    if told.one:
        print(json.dumps(measure((told.presets or ["tiny"])[0], told.one, device)))
        return
    path = FOLDER / "cost.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in told.presets or BATCH:
        for way in WAYS:
            if told.fresh or way not in found.get(name, {}):
                ran = subprocess.run(
                    [sys.executable, __file__, name, "--one", way],
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    check=True,
                )
                found.setdefault(name, {})[way] = json.loads(ran.stdout.splitlines()[-1])
                paths.atomic_write(path, json.dumps(found, indent=1) + "\n")
                print(name, way, json.dumps(found[name][way]), file=sys.stderr, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
