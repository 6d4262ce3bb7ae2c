"""Frozen models by name: where they are stored, how they are loaded, and their cache keys.

Every model that a preset names is loaded here, miniature or full-size (chapters 02 and 03).
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging as transformers_logging

from kcdp_lib import paths
from kcdp_lib.config import Preset, how_to_get
from kcdp_lib.errors import KCDPError, first_line

# A bar "Loading weights" for every model would fill the notebooks.
transformers_logging.disable_progress_bar()

# Statistics of a VLM's known pictures, beside its weights (`kcdp_lib.familiar`). No prediction
# depends on them, so no key does.
FAMILIAR = "familiar.safetensors"
# Errors that loaders raise for missing or broken files.
LIBRARY_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    SafetensorError,
    UnpicklingError,
)


def place(name: str) -> str:
    """Return the folder of a model: the named folder, or that commit's in the hub's cache.

    Loaders get folders only. Given a hub id, the libraries would first look for a folder of that
    name in the working directory and would ignore the commit. Nothing is downloaded.
    FileNotFoundError if the folder does not exist.
    """
    hub, revision = paths.at_revision(name)
    if revision:
        cache = constants.HF_HUB_CACHE
        folder = Path(cache, f"models--{hub.replace('/', '--')}", "snapshots", revision)
        missing = f"it is not in the hub's cache, {cache}"
    else:
        folder = Path(name.removeprefix("local-dir:"))
        missing = f"there is no folder {folder}"
    if not folder.is_dir():
        raise FileNotFoundError(missing)
    return str(folder)


def load_part(kind: Any, preset: Preset, subfolder: str) -> Any:
    """Load one model of a preset's diffusers pipeline in float32, frozen.

    KCDPError if it cannot be loaded completely.
    """
    return load_whole(
        kind,
        preset.diffusion,
        subfolder,
        subfolder=subfolder,
        variant=preset.variant,
        dtype=torch.float32,
    )


def load_whole(kind: Any, name: str, what: str, **options) -> Any:
    """Load a model of diffusers or transformers by its name (`place`), frozen and in eval mode.

    `what` names the model in messages; the options are those of `from_pretrained`. KCDPError if the
    model or one of its weights is missing or not finite, or if the weights are stored as a pickle,
    which could run code when it is loaded.
    """
    # By default, diffusers falls back to a pickle.
    with loading(f"The {what} of {name}", name):
        model, info = kind.from_pretrained(
            place(name), use_safetensors=True, output_loading_info=True, **options
        )
    if info["missing_keys"]:
        raise KCDPError(
            f"The {what} of {name} lacks {len(info['missing_keys'])} of its weights; "
            f"{how_to_get(name)}."
        )
    check_finite(model, f"The {what} of {name}", name)
    return model.eval().requires_grad_(False)


@contextmanager
def loading(what: str, name: str):
    """Turn any error of a library about missing or broken files into one KCDPError."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        sentence = f"{what} could not be loaded ({first_line(error)}); {how_to_get(name)}."
        raise KCDPError(sentence) from error


def check_finite(model: nn.Module, what: str, name: str) -> None:
    """Raise KCDPError if a weight is not finite: such a model's predictions mean nothing."""
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise KCDPError(f"{what} has weights that are not finite numbers; {how_to_get(name)}.")


def check_words(tokenizer, words: int, what: str, name: str) -> None:
    """Raise KCDPError if a tokenizer does not fit a model with that many words.

    If its files are missing, transformers silently makes an empty tokenizer or takes another one.
    """
    # Some models have a few unused embeddings.
    if not 0.9 * words <= len(tokenizer) <= words:
        raise KCDPError(
            f"The tokenizer of {what} knows {len(tokenizer)} words and the model {words}, so files "
            f"of it are missing; {how_to_get(name)}."
        )


def model_key(name: str) -> str:
    """Return the SHA of a model: over its folder's files, or over the hub id, which names a commit.

    Hidden files are left out, because `hf download --local-dir` writes its times into them. So is
    `FAMILIAR`.
    """
    folder = Path(name.removeprefix("local-dir:"))
    if paths.at_revision(name)[1] or not folder.is_dir():
        return paths.sha(name)
    parts = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        within, about = path.relative_to(folder), path.stat()
        if path.name != FAMILIAR and not any(part.startswith(".") for part in within.parts):
            parts += [within.as_posix(), _digest(path, about.st_size, about.st_mtime_ns)]
    return paths.sha(*parts)


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    """Return the SHA-256 of a file, computed once while its size and time stay the same.

    A run needs it about ten times, and the full-size models are gigabytes.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stack_key(preset: Preset) -> str:
    """Return the SHA over the frozen models that a preset names."""
    parts = [model_key(preset.diffusion), model_key(preset.vlm)]
    parts.append(str(preset.vlm_pretrained and model_key(preset.vlm_pretrained)))
    if preset.writer:
        parts += [model_key(preset.writer), preset.parser]
    return paths.sha(*parts)
