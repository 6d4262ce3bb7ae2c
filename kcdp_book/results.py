"""Read the committed results: one JSON line for each run in `results/`, quoted by the chapters.

The scripts in `benchmarks/` write them. Every line names what made it: the world, the frozen
models, and the code of all stages (`keys.results_code`). If that code changes and the results do
not, except for rounding, `benchmarks/same.py` shows it on a sample and `results/same.json` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from kcdp_book import lines
from kcdp_lib.checkout import code_key, commit
from kcdp_lib.config import SWITCHES, Config, read_recipe
from kcdp_lib.keys import results_code
from kcdp_lib.loading import stack_key
from kcdp_lib.paths import ROOT, atomic_write, sha
from kcdp_lib.world import Dials, world_key

FOLDER = ROOT / "results"
# the dials between the domains; "spurious" is a trap inside the source
GAPS = ("style_gap", "expression_gap", "event_gap", "prior_shift")
# entries of a line that do not say what was run, but what came out and how
MADE = ("metrics", "world", "stack", "code", "commit", "torch", "threads", "seconds")


def read(name: str) -> list[dict]:
    """Return the runs of `results/<name>.jsonl` on this checkout's world and frozen models.

    If no line is of these frozen models, the lines of the latest earlier ones are returned; the two
    are never mixed. If a run was made several times, the last line counts, but a line of the
    present code takes precedence.
    """
    path = FOLDER / f"{name}.jsonl"
    texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for row in map(json.loads, texts) if row["world"] == world_key()]
    these = [row for row in rows if of_these_weights(row)]
    rows = these or [row for row in rows if row["stack"] == rows[-1]["stack"]]
    newest: dict[str, dict] = {}
    for row in [*of_other_code(rows), *of_this_code(rows)]:
        newest[run_of(row)] = row
    order = dict.fromkeys(map(run_of, rows))
    chosen = [newest[run] for run in order]
    return [{**row, "metrics": lines.unpacked(row["metrics"])} for row in chosen]


def run_of(row: dict) -> str:
    """Return the part of a line that identifies the run, as JSON."""
    about = {name: value for name, value in row.items() if name not in MADE}
    return json.dumps(about, sort_keys=True)


@cache
def code_now() -> str:
    """Return 16 hex digits of the SHA of the code that computes results in this checkout."""
    names = ("compare", "eye", "fine_tuned", "subspace")
    here = [Path(__file__).with_name(f"{name}.py") for name in names]
    return sha(results_code(), code_key(*here, ROOT / "benchmarks" / "jobs.py"))[:16]


@cache
def first_alike(code: str | None) -> str | None:
    """Return the key of the earliest code known to compute the same as `code` (`same.json`)."""
    shown = benchmark("same") if (FOLDER / "same.json").exists() else {}
    met = {code}
    while code in shown:
        code = shown[code]["as"]
        assert code not in met, "results/same.json goes round in a circle"
        met.add(code)
    return code


def of_these_weights(row: dict) -> bool:
    """Return whether a line was made with this checkout's frozen models."""
    return row.get("stack") == stack_key(Config().sizes)


def of_this_code(rows: list[dict]) -> list[dict]:
    """Select the lines made by this checkout's code, or by the same, with its frozen models."""
    return [row for row in rows if _is_present(row)]


def of_other_code(rows: list[dict]) -> list[dict]:
    """Select the lines made by other code or frozen models, or without a code key."""
    return [row for row in rows if not _is_present(row)]


def _is_present(row: dict) -> bool:
    return first_alike(row.get("code")) == first_alike(code_now()) and of_these_weights(row)


def standing(names: Iterable[str]) -> str:
    """Return a sentence on how many of a page's lines other code or frozen models made."""
    rows = [row for name in names for row in read(name)]
    if earlier := sum(not of_these_weights(row) for row in rows):
        return (
            f"The miniature models of an earlier version made {earlier} of the {len(rows)} lines "
            'of results shown here; "make results" lists what has to run again.'
        )
    if not rows:
        return ""
    others = len(of_other_code(rows))
    if not others:
        is_one = all(row["code"] == code_now() for row in rows)
        whose = (
            "The code of this page" if is_one else "Code equal to this page's, but for rounding,"
        )
        return f"{whose} made all {len(rows)} lines of results shown here."
    return (
        f"Earlier code made {others} of the {len(rows)} lines of results shown here; "
        '"make results" lists what has to run again.'
    )


def grids() -> list[str]:
    """Return the names of all files of lines."""
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def benchmark(name: str) -> dict:
    """Read the result of `benchmarks/<name>.py`."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def made() -> dict[str, str | int]:
    """Return what a result records of its making: world, models, code, versions."""
    return {
        "world": world_key(),
        "stack": stack_key(Config().sizes),
        "code": code_now(),
        "commit": commit(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def write(name: str, found: dict) -> None:
    """Write the result of `benchmarks/<name>.py`, and what made it."""
    atomic_write(FOLDER / f"{name}.json", json.dumps({**found, **made()}, indent=1) + "\n")


def measured_earlier(names: Iterable[str]) -> str:
    """Return a sentence on the records of `benchmarks/` that the present code did not make."""
    earlier = [f"{name}.json" for name in names if not all(map(_is_present, makers(name)))]
    if not earlier:
        return ""
    return f"Measured by earlier code, or without a note of which: {', '.join(earlier)}."


def makers(name: str) -> list[dict]:
    """Return the parts of `results/<name>.json` that say what made them; the whole, if none does.

    A record that is measured piece by piece says so for each piece.
    """
    record = benchmark(name)
    parts = [record, *(record.values() if isinstance(record, dict) else record)]
    parts += [way for part in parts if isinstance(part, dict) for way in part.values()]
    said = [part for part in parts if isinstance(part, dict) and "commit" in part]
    return said or [record]


def macro_f1(
    rows: list[dict], method: str, recipe: str = "paper", pictures: str = "target.test", **entries
) -> dict[int, float]:
    """Return seed -> macro-F1 (0 to 1) of one method and recipe.

    pictures: "target.test" or "source.test"; `entries` are further entries of the lines, such as
    target="noto".
    """
    wanted = {"method": method, "recipe": recipe, **entries}.items()
    return {
        row["seed"]: row["metrics"][pictures]["macro_f1"] for row in rows if wanted <= row.items()
    }


def gains(rows: list[dict], target: str = "stickers") -> dict[str, list[float]]:
    """Return method -> KCDP's macro-F1 minus the method's (-1 to 1), one number for each seed."""
    differences = {}
    for method in dict.fromkeys(
        row["method"] for row in rows if row["target"] == target and row["method"] != "kcdp"
    ):
        ours, theirs = macro_f1(rows, "kcdp", target=target), macro_f1(rows, method, target=target)
        differences[method] = [
            ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())
        ]
    return differences


def way_to_oracle(rows: list[dict]) -> float:
    """Return how much of the gap to a model trained on target labels KCDP closes on stickers.

    0 is the model without target and knowledge, 1 the one trained on target labels; means over
    seeds.
    """
    kcdp, start, end = (
        np.mean(list(macro_f1(rows, method, target="stickers").values()))
        for method in ("kcdp", "source_only_no_knowledge", "oracle")
    )
    return float((kcdp - start) / (end - start))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of the mean of n numbers, one for each seed.

    It is computed by Student's t with n - 1 degrees of freedom. NaN for a single number.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    mean, error = np.mean(values), stats.sem(values)
    return (
        tuple(float(end) for end in stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error))
        if error > 0
        else (float(mean),) * 2
    )


def dial_curves(rows: list[dict]) -> dict[str, dict[float, dict[str, float]]]:
    """Return dial -> setting, 0 to 1 -> {method: macro-F1 on the target, mean over seeds}.

    All other dials are at their defaults; "all gaps" are four dials turned together.
    """
    curves: dict[str, dict[float, dict[str, list[float]]]] = {}
    for row in rows:
        for dial in _turned(row["dials"]):
            stop = row["dials"][GAPS[0] if dial == "all gaps" else dial]
            curves.setdefault(dial, {}).setdefault(stop, {}).setdefault(row["method"], []).append(
                row["metrics"]["target.test"]["macro_f1"]
            )
    return {
        dial: {
            stop: {method: float(np.mean(values)) for method, values in curves[dial][stop].items()}
            for stop in sorted(curves[dial])
        }
        for dial in curves
    }


def _turned(dials: dict[str, float]) -> list[str]:
    """Return the sweeps that a setting of the dials belongs to."""
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
    """Return switch -> the change of macro-F1 when it alone is set as released.

    One number (-1 to 1) for each seed, on "target.test" or "source.test", against the paper recipe;
    "all" means all switches together.
    """
    paper, effects = macro_f1(rows, "kcdp", "paper", pictures), {}
    for recipe in dict.fromkeys(row["recipe"] for row in rows if row["recipe"] != "paper"):
        changed = [
            switch
            for switch in SWITCHES
            if getattr(read_recipe(recipe), switch) != getattr(read_recipe("paper"), switch)
        ]
        scores = macro_f1(rows, "kcdp", recipe, pictures)
        effects[changed[0] if len(changed) == 1 else "all"] = [
            scores[seed] - paper[seed] for seed in sorted(scores.keys() & paper.keys())
        ]
    return effects


def standard_error(changes: dict[str, list[float]]) -> float:
    """Return the standard error of one entry's mean over its seeds (macro-F1, 0 to 1).

    The variance between seeds is pooled over all entries, because two seeds alone say too little.
    """
    return float(
        np.sqrt(np.mean([np.var(values, ddof=1) / len(values) for values in changes.values()]))
    )
