"""Check before a long run: what is missing, or what the run will cost, by a short measurement.

`python -m kcdp_lib.adapt --config FILE --check` prints the result (chapter "Full size").
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from kcdp_lib import datasets, paths
from kcdp_lib.adapt.baselines import taught_labels, teaching
from kcdp_lib.adapt.model import gather
from kcdp_lib.adapt.record import peak_memory
from kcdp_lib.adapt.run import load_all
from kcdp_lib.adapt.training import both_steps, pseudo_labeller, set_up, steps_per_epoch, update
from kcdp_lib.config import PRESETS, Config, Preset, pick_device
from kcdp_lib.datasets import Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.knowledge import load_text_encoder
from kcdp_lib.latents import load_vae
from kcdp_lib.perception import load_kadap, load_unet
from kcdp_lib.precompute import TENSORS, Frozen, describe, load_foundations
from kcdp_lib.shards import Rows
from kcdp_lib.triplets import load_parser
from kcdp_lib.vision_language import load_vlm
from kcdp_lib.writer import load_writer

STEPS = 20  # training steps to measure


def preflight(config: Config) -> tuple[list[str], bool]:
    """Return the lines to print before a run, and whether the run can start.

    They name missing weights and data, or else give pictures, disk, memory and hours.

    No training result is kept, and only the index of pictures is written. Hours are those of one
    process on this machine; several share them.
    """
    # even with a wrong parameter or data folder, the weights are checked
    wrong = _sentence(config.check)
    if config.preset not in PRESETS:
        return [str(wrong)], False
    missing = missing_weights(config.sizes)
    sets: list = []
    wrong = wrong or _sentence(lambda: sets.extend(load_all(config)))
    missing += [f"data and parameters: {wrong}"] if wrong else []
    if missing:
        return missing, False
    lines, has_room = cost(config, sets, pick_device(config.device))
    return ["weights: all there", f"data: {'; '.join(map(_about, sets))}", *lines], has_room


def missing_weights(preset: Preset) -> list[str]:
    """Return a line for each model of the preset that cannot be loaded."""
    loaders: dict[str, Callable] = {
        "UNet": partial(load_unet, preset),
        "VAE": partial(load_vae, preset),
        "text encoder": partial(load_text_encoder, preset),
        "VLM": partial(load_vlm, preset),
        "parser": partial(load_parser, preset.parser),
    }
    if preset.writer:
        loaders["writer"] = partial(load_writer, preset.writer)
    sentences = {name: _sentence(load) for name, load in loaders.items()}
    return [f"{name}: {sentence}" for name, sentence in sentences.items() if sentence]


def cost(config: Config, sets: list[Pictures], device: str) -> tuple[list[str], bool]:
    """Return lines on disk, memory and hours, and whether the disk has enough room."""
    pictures = sum(map(len, sets))
    once, (first, second) = freeze_some(config, sets, device)
    needed = pictures * statistics.mean(map(bytes_a_picture, (first, second)))
    existing = next(filter(Path.exists, (paths.CACHE, *paths.CACHE.parents)))
    free = shutil.disk_usage(existing).free
    step, peak = train_some(config, first, second, device)
    of_gpu = ""
    if device.startswith("cuda"):
        total = torch.cuda.get_device_properties(device).total_memory
        of_gpu = f" of the GPU's {total / 1e9:.1f} GB"
    taught = teaching(taught_labels(sets[0], config.switches))
    steps = steps_per_epoch(len(taught), config) * config.run_epochs
    # KCDP, and two baselines that train on one of the two domains; without a target, KCDP is one
    trainings = 2 * 0.5 + (config.setting == "da")
    lines = [
        f"disk: {needed / 1e9:.1f} GB below {paths.CACHE}, of which {free / 1e9:.1f} GB are free",
        f"memory: {peak / 1e9:.1f} GB{of_gpu}",
        f"hours: {pictures * once / 3600:.2f} for captions, tokens and latents of {pictures} "
        f"pictures ({once:.3g} s each), once; "
        f"{trainings * steps * step / 3600:.2f} for KCDP and its baselines ({steps} steps of "
        f"{step:.3g} s, by the median of {STEPS}, and half as much for trainings on one domain)",
    ]
    if needed > free:
        lines.append(
            "There is not enough room on the disk: set KCDP_CACHE to a folder on a larger one."
        )
    return lines, needed <= free


def _about(pictures: Pictures) -> str:
    """Describe a set of pictures in half a line."""
    unread = f", {len(pictures.skipped)} not readable" if pictures.skipped else ""
    return f"{pictures.name} {pictures.split} {len(pictures)}{unread}"


def freeze_some(config: Config, sets: list, device: str) -> tuple[float, list[Frozen]]:
    """Return the seconds per picture of `describe`, and its results for two batches.

    The pictures are the first of all sets in turn; the first batch is not timed. Includes the maps
    if the recipe trains nothing before them.
    """
    preset, foundations = config.sizes, load_foundations(config.sizes, device)
    eye = None
    if config.switches.looks_once:
        positions = 2 * foundations.text_encoder.tokenizer.model_max_length
        eye = load_kadap(preset, config.switches, positions, device)
    # as many of each set as the smallest one has
    in_turn = zip(*(some.files for some in sets if len(some)), strict=False)
    files = [file for several in in_turn for file in several]
    files = (files * (2 * preset.batch_size))[: 2 * preset.batch_size]
    described = []
    for batch in (files[: preset.batch_size], files[preset.batch_size :]):
        started = time.perf_counter()
        images = datasets.read_images(batch, preset.image_size)
        described.append(describe(images, foundations, config.switches))
        if eye:
            seen = gather(described[-1], torch.arange(len(batch)), device)
            with torch.no_grad():
                maps, _ = eye.look(*seen.for_unet)
            described[-1].maps = [Rows([map_.cpu()]) for map_ in maps]
    return (time.perf_counter() - started) / preset.batch_size, described


def train_some(config: Config, source: Frozen, target: Frozen, device: str) -> tuple[float, int]:
    """Return the median seconds of a training step, and the peak memory in bytes.

    Each step takes a source and a target batch of the same size and keeps all pseudo-labels.
    """
    rows = torch.arange(len(source))
    model, optimizer, accelerator = set_up(config, device)
    model.train()
    labels = rows.to(device) % len(config.classes)
    labeller = pseudo_labeller(config, labels.cpu().numpy(), target, device)
    seconds = []
    for _ in paths.progress(range(STEPS), "measuring steps", STEPS):
        started = time.perf_counter()
        both_steps(model, labeller, source, labels, rows, target, rows, 1.0, config, accelerator)
        update(optimizer, accelerator)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), peak_memory(device)


def _sentence(load: Callable) -> str | None:
    """Return the message of the KCDPError that `load` raises, or None."""
    try:
        load()
    except KCDPError as error:
        return str(error)
    return None


def bytes_a_picture(frozen: Frozen) -> float:
    """Return the bytes that the cache holds per picture, counting only tokens in use."""
    tensors: dict[str, torch.Tensor] = {name: getattr(frozen, name)[:] for name in TENSORS}
    tensors["tokens"] = tensors["tokens"][:, tensors["mask"].any(0)]
    maps = [part for map_ in frozen.maps or [] for part in map_.parts]
    return sum(tensor.nbytes for tensor in (*tensors.values(), *maps)) / len(frozen)
