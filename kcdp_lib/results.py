"""Committed results: one JSON line a run in `results/`, written by the scripts in `benchmarks/` and quoted by the chapters."""
from __future__ import annotations

import json

import numpy as np

from kcdp_lib.adapt.model import stack_key
from kcdp_lib.config import SWITCHES, Config, read_recipe
from kcdp_lib.datasets import world_key
from kcdp_lib.paths import ROOT

FOLDER = ROOT / "results"


def read(name: str) -> list[dict]:
    """The runs of `results/<name>.jsonl` made with this checkout's world and miniatures; those of earlier ones stay in the file and are left out."""
    path = FOLDER / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    now = world_key(), stack_key(Config().sizes)
    return [row for row in rows if (row["world"], row["stack"]) == now]


def benchmark(name: str) -> dict:
    """What `benchmarks/<name>.py` wrote."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def macro_f1(rows: list[dict], method: str, recipe: str) -> dict[int, float]:
    """Seed -> macro-F1 on the target's test pictures (0 to 1) of one method and recipe."""
    return {row["seed"]: row["metrics"]["target.test"]["macro_f1"] for row in rows if (row["method"], row["recipe"]) == (method, recipe)}


def switch_effects(rows: list[dict]) -> dict[str, list[float]]:
    """Switch -> what setting it alone as released adds to the paper recipe's macro-F1 (-1 to 1), one number for each seed; and "all" of them together."""
    paper, found = macro_f1(rows, "kcdp", "paper"), {}
    for recipe in dict.fromkeys(row["recipe"] for row in rows if row["recipe"] != "paper"):
        changed = [switch for switch in SWITCHES if getattr(read_recipe(recipe), switch) != getattr(read_recipe("paper"), switch)]
        scores = macro_f1(rows, "kcdp", recipe)
        found[changed[0] if len(changed) == 1 else "all"] = [scores[seed] - paper[seed] for seed in sorted(scores.keys() & paper.keys())]
    return found


def standard_error(changes: dict[str, list[float]]) -> float:
    """Standard error of one entry's mean over its seeds (macro-F1, 0 to 1), from the scatter between seeds pooled over all entries: two seeds alone say too little."""
    return float(np.sqrt(np.mean([np.var(values, ddof=1) / len(values) for values in changes.values()])))
