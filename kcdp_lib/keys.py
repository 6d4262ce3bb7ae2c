"""Cache keys of all that is kept: captions, latents, tokens, maps, trainings, results (chapter 02).

A run computes in stages. The result of a stage is kept under a key made of three things: the
settings that the stage reads, the code that computes it, and the keys of the stages before it. Each
setting declares which stages read it (`config.of_stage`). The code of a stage is found by following
the imports of the modules that compute it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kcdp_lib.checkout import code_key
from kcdp_lib.config import Preset, Recipe
from kcdp_lib.loading import model_key
from kcdp_lib.paths import PACKAGE, sha


class Stage(NamedTuple):
    """The modules that compute a stage, and the stages whose results it reads."""

    homes: tuple[str, ...]
    after: tuple[str, ...] = ()


STAGES = {
    "captions": Stage(("vision_language", "datasets.images", "precompute")),
    "latents": Stage(("latents", "datasets.images", "precompute")),
    "tokens": Stage(("knowledge", "precompute"), ("captions",)),
    "maps": Stage(("perception", "precompute"), ("latents", "tokens")),
    "training": Stage(("adapt.training", "adapt.baselines"), ("latents", "tokens")),
    "scores": Stage(("metrics",), ("training",)),
}

# Imports are not followed into these modules: their content enters a key by its value, such as the
# settings, the pictures and the version of the world. `precompute` only passes pictures to the
# stages; its own code counts, and what it imports belongs to the other stages.
BY_VALUE = ("config", "datasets", "errors", "keys", "paths", "world")
FOLLOWED_NO_FURTHER = ("precompute",)


def stage_key(stage: str, preset: Preset, recipe: Recipe, *further: Any) -> str:
    """Return the SHA of all that a stage's result depends on, except the pictures.

    further: dataclasses with more settings, such as the run's `Config`.
    """
    settings = [_settings(stage, part) for part in (preset, recipe, *further)]
    before = [stage_key(name, preset, recipe, *further) for name in STAGES[stage].after]
    return sha(stage, json.dumps(settings, sort_keys=True), stage_code(stage), *before)


def _settings(stage: str, record: Any) -> dict[str, Any]:
    """Return the fields that a stage reads; a model is replaced by the SHA of its files."""
    settings = {}
    for setting in fields(record):
        value = getattr(record, setting.name)
        if stage in setting.metadata["stages"]:
            is_model = setting.metadata["model"] and value is not None
            settings[setting.name] = model_key(value) if is_model else value
    return settings


@cache
def stage_code(stage: str) -> str:
    """Return the SHA of what the modules of a stage compute."""
    return code_key(*modules_of(*STAGES[stage].homes))


def results_code() -> str:
    """Return the SHA of the code of all stages, which every committed result records."""
    return sha(*map(stage_code, STAGES))


def modules_of(*homes: str) -> list[Path]:
    """Return files of modules such as "adapt.training" and of all package modules they import."""
    reached = list(homes)
    for module in reached:  # which grows meanwhile
        if module not in FOLLOWED_NO_FURTHER:
            reached += set(_imported(module)).difference(reached)
    return sorted(map(_file, reached))


def _imported(module: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports, except those of `BY_VALUE`."""
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            package = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            modules = (_module(package + alias.name) for alias in node.names)
            yield from filter(None, modules)


def _module(name: str) -> str | None:
    """Return the module that a dotted name lies in; None for other packages and `BY_VALUE`."""
    package, *parts = name.split(".")
    if package != "kcdp_lib" or not parts or parts[0] in BY_VALUE:
        return None
    while parts and not _file(".".join(parts)).exists():
        parts.pop()
    return ".".join(parts) or None


def _file(module: str) -> Path:
    """Return the file of a module of the package."""
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
