"""Before a long run: what is missing, and what the run will cost, by a short measurement (chapter
"Full size").

`python -m kcdp_lib.adapt --config FILE --check` prints it.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable

import torch

from kcdp_lib import datasets, paths
from kcdp_lib.adapt.model import gather
from kcdp_lib.adapt.record import peak_memory
from kcdp_lib.adapt.run import load_all
from kcdp_lib.adapt.training import (
    pseudo_labeller,
    set_up,
    source_step,
    steps_per_epoch,
    target_step,
    update,
)
from kcdp_lib.config import PRESETS, Config, pick_device
from kcdp_lib.errors import KCDPError
from kcdp_lib.knowledge import load_text_encoder
from kcdp_lib.latents import load_vae
from kcdp_lib.perception import load_kadap, load_unet
from kcdp_lib.precompute import TENSORS, Frozen, describe, load_foundations
from kcdp_lib.triplets import load_parser
from kcdp_lib.vision_language import load_vlm
from kcdp_lib.writer import load_writer

STEPS = 20  # measured steps of training


def preflight(config: Config) -> tuple[list[str], bool]:
    """What there is to say before the run, one line each, and whether it can be started.

    Weights and data that are missing, else pictures, disk, memory and hours.

    Nothing is trained that is kept, nothing written but the index of pictures. Hours are those of
    one process on this machine: several share them.
    """
    wrong = _sentence(
        config.check
    )  # a parameter, or the folder of a data set: the weights are looked for all the same
    if config.preset not in PRESETS:
        return [wrong], False
    preset, device = config.sizes, pick_device(config.device)
    loaders = {
        "UNet": lambda: load_unet(preset),
        "VAE": lambda: load_vae(preset),
        "text encoder": lambda: load_text_encoder(preset),
        "VLM": lambda: load_vlm(preset),
        "parser": lambda: load_parser(preset.parser),
        **({"writer": lambda: load_writer(preset.writer)} if preset.writer else {}),
    }
    missing = [
        f"{name}: {sentence}" for name, load in loaders.items() if (sentence := _sentence(load))
    ]
    found: list = []
    wrong = wrong or _sentence(lambda: found.extend(load_all(config)))
    missing += [f"data and parameters: {wrong}"] if wrong else []
    if missing:
        return missing, False
    source, target, *tests = found
    pictures = sum(len(some) for some in found)
    lines = [
        "weights: all there",
        "data: "
        + "; ".join(
            f"{some.name} {some.split} {len(some)}"
            + (f", {len(some.skipped)} not readable" if some.skipped else "")
            for some in found
        ),
    ]

    once, batches = freeze_some(config, found, device)
    needed, free = (
        pictures * statistics.mean(map(bytes_a_picture, batches)),
        shutil.disk_usage(_existing(paths.CACHE)).free,
    )
    lines.append(
        f"disk: {needed / 1e9:.1f} GB below {paths.CACHE}, of which {free / 1e9:.1f} GB are free"
    )

    step, peak = train_some(config, *batches, device)
    steps = steps_per_epoch(int((source.labels >= 0).sum()), config) * config.run_epochs
    trainings = 1 + 2 * 0.5  # KCDP, and two baselines that see one domain of the two
    total = (
        torch.cuda.get_device_properties(device).total_memory if device.startswith("cuda") else None
    )
    lines.append(
        f"memory: {peak / 1e9:.1f} GB" + (f" of the GPU's {total / 1e9:.1f} GB" if total else "")
    )
    lines.append(
        f"hours: {pictures * once / 3600:.2f} for captions, tokens and latents of {pictures} "
        f"pictures ({once:.3g} s each), once; "
        f"{trainings * steps * step / 3600:.2f} for KCDP and its baselines ({steps} steps of "
        f"{step:.3g} s, by the median of {STEPS}, and half as much for each of two baselines)"
    )
    if needed > free:
        lines.append(
            "There is not enough room on the disk: set KCDP_CACHE to a folder on a larger one."
        )
    return lines, needed <= free


def freeze_some(config: Config, sets: list, device: str) -> tuple[float, list[Frozen]]:
    """Seconds a picture of `describe`, and what it says of the first pictures of all sets in turn.

    Two batches, of which the first is not timed. With the maps, where a recipe trains nothing
    before them.
    """
    preset, foundations = config.sizes, load_foundations(config.sizes, device)
    eye = (
        load_kadap(
            preset, config.switches, 2 * foundations.text_encoder.tokenizer.model_max_length, device
        )
        if config.switches.looks_once
        else None
    )
    files = [
        file for several in zip(*(some.files for some in sets if len(some))) for file in several
    ] or sets[0].files
    files = (files * (2 * preset.batch_size))[: 2 * preset.batch_size]
    described = []
    for batch in (files[: preset.batch_size], files[preset.batch_size :]):
        started = time.perf_counter()
        described.append(
            describe(datasets.read_images(batch, preset.image_size), foundations, config.switches)
        )
        if eye:
            with torch.no_grad():
                described[-1].maps = [
                    map_.cpu()
                    for map_ in eye.look(
                        *gather(described[-1], torch.arange(len(batch)), device).for_unet
                    )[0]
                ]
    return (time.perf_counter() - started) / preset.batch_size, described


def train_some(config: Config, source: Frozen, target: Frozen, device: str) -> tuple[float, int]:
    """Median seconds of a step on a source and a target batch of one size, all pseudo-labels kept,
    and the peak of memory in bytes.
    """
    rows = torch.arange(len(source))
    model, optimizer, accelerator = set_up(config, device)
    model.train()
    labels = rows.to(device) % len(config.classes)
    labeller = pseudo_labeller(config, labels.cpu().numpy(), target, device)
    seconds = []
    for _ in paths.progress(range(STEPS), "measuring steps", STEPS):
        started = time.perf_counter()
        source_step(model, source, labels, rows, config, accelerator)
        target_step(model, labeller, target, rows, 1.0, config, accelerator)
        update(optimizer, accelerator)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), peak_memory(device)


def _sentence(load: Callable) -> str | None:
    """What a KCDPError says; None if there is none."""
    try:
        load()
    except KCDPError as error:
        return str(error)
    return None


def bytes_a_picture(frozen: Frozen) -> float:
    """Bytes that the cache will hold of a picture; of tokens those in use by some picture."""
    tensors = {name: getattr(frozen, name) for name in TENSORS}
    tensors["tokens"] = tensors["tokens"][:, frozen.mask.any(0)]
    return sum(tensor.nbytes for tensor in (*tensors.values(), *(frozen.maps or []))) / len(frozen)


def _existing(path):
    """The folder itself, or the nearest above that is there."""
    return path if path.exists() else _existing(path.parent)
