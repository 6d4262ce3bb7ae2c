"""Committed results: one JSON line a run in `results/`, written by the scripts in `benchmarks/` and
quoted by the chapters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from scipy import stats

from kcdp_lib.config import SWITCHES, Config, read_recipe
from kcdp_lib.loading import stack_key
from kcdp_lib.paths import ROOT
from kcdp_lib.world import Dials, world_key

FOLDER = ROOT / "results"
GAPS = (
    "style_gap",
    "expression_gap",
    "event_gap",
    "prior_shift",
)  # the dials between the domains; "spurious" is a trap inside the source
FIRST_WORLD = "9d24018c8058"  # of the results that the book shows beside those of this world


def read(name: str, world: str | None = None) -> list[dict]:
    """The runs of `results/<name>.jsonl` made with this checkout's world and miniatures, or with an
    earlier version of the world: all of them stay in the file.
    """
    path = FOLDER / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    now = world_key(), stack_key(Config().sizes)
    return [
        row
        for row in rows
        if (row["world"] == world if world else (row["world"], row["stack"]) == now)
    ]


def benchmark(name: str) -> dict:
    """What `benchmarks/<name>.py` wrote."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def macro_f1(
    rows: list[dict], method: str, recipe: str = "paper", pictures: str = "target.test", **told
) -> dict[int, float]:
    """Seed -> macro-F1 (0 to 1) of one method and recipe on the target's test pictures, or on
    "source.test"; `told` are further entries of the lines, such as target="noto".
    """
    wanted = {"method": method, "recipe": recipe, **told}.items()
    return {
        row["seed"]: row["metrics"][pictures]["macro_f1"] for row in rows if wanted <= row.items()
    }


def gains(rows: list[dict], target: str = "stickers") -> dict[str, list[float]]:
    """Method -> KCDP's macro-F1 minus its (-1 to 1), one number for each seed."""
    found = {}
    for method in dict.fromkeys(
        row["method"] for row in rows if row["target"] == target and row["method"] != "kcdp"
    ):
        ours, theirs = macro_f1(rows, "kcdp", target=target), macro_f1(rows, method, target=target)
        found[method] = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return found


def way_to_oracle(rows: list[dict]) -> float:
    """How much of the way from the model without target and knowledge (0) to the one taught by
    target labels (1) KCDP goes on stickers, by means over seeds.
    """
    kcdp, start, end = (
        np.mean(list(macro_f1(rows, method, target="stickers").values()))
        for method in ("kcdp", "source_only_no_knowledge", "oracle")
    )
    return float((kcdp - start) / (end - start))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of n numbers, one for each seed (Student's t, n - 1 degrees of
    freedom).
    """
    mean, error = np.mean(values), stats.sem(values)
    return (
        tuple(float(end) for end in stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error))
        if error > 0
        else (float(mean),) * 2
    )


def dial_curves(rows: list[dict]) -> dict[str, dict[float, dict[str, float]]]:
    """Dial -> where it stood, 0 to 1 -> {method: macro-F1 on the target, mean over seeds}, all
    other dials at their defaults; "all gaps" are four turned together.
    """
    found: dict[str, dict[float, dict[str, list[float]]]] = {}
    for row in rows:
        for dial in _turned(row["dials"]):
            stop = row["dials"][GAPS[0] if dial == "all gaps" else dial]
            found.setdefault(dial, {}).setdefault(stop, {}).setdefault(row["method"], []).append(
                row["metrics"]["target.test"]["macro_f1"]
            )
    return {
        dial: {
            stop: {method: float(np.mean(values)) for method, values in found[dial][stop].items()}
            for stop in sorted(found[dial])
        }
        for dial in found
    }


def _turned(dials: dict[str, float]) -> list[str]:
    """The sweeps that a setting belongs to."""
    usual = asdict(Dials())
    alone = [
        dial
        for dial in dials
        if all(dials[other] == usual[other] for other in dials if other != dial)
    ]
    together = len({dials[gap] for gap in GAPS}) == 1 and all(
        dials[other] == usual[other] for other in dials if other not in GAPS
    )
    return [*alone, *(["all gaps"] if together else [])]


def switch_effects(rows: list[dict], pictures: str = "target.test") -> dict[str, list[float]]:
    """Switch -> what setting it alone as released adds to the paper recipe's macro-F1 on the
    target's or "source.test" pictures (-1 to 1), one number for each seed; and "all" of them
    together.
    """
    paper, found = macro_f1(rows, "kcdp", "paper", pictures), {}
    for recipe in dict.fromkeys(row["recipe"] for row in rows if row["recipe"] != "paper"):
        changed = [
            switch
            for switch in SWITCHES
            if getattr(read_recipe(recipe), switch) != getattr(read_recipe("paper"), switch)
        ]
        scores = macro_f1(rows, "kcdp", recipe, pictures)
        found[changed[0] if len(changed) == 1 else "all"] = [
            scores[seed] - paper[seed] for seed in sorted(scores.keys() & paper.keys())
        ]
    return found


def standard_error(changes: dict[str, list[float]]) -> float:
    """Standard error of one entry's mean over its seeds (macro-F1, 0 to 1), from the scatter
    between seeds pooled over all entries: two seeds alone say too little.
    """
    return float(
        np.sqrt(np.mean([np.var(values, ddof=1) / len(values) for values in changes.values()]))
    )
