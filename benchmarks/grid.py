"""Grids of trainings, photos -> stickers, one JSON line a run in results/<grid>.jsonl.

`python benchmarks/grid.py GRID [SEED ...]` runs what lacks (all seeds of the grid unless told), so it may be killed, and run twice at once with other seeds.
Labels of stickers are read to score a finished run and for nothing else.

switches   the paper recipe, the released one, and the paper's with each single switch as released: what the chapter on differences shows
gain       KCDP and the same without the target's term, with more seeds: what seeing the unlabelled target adds
"""
import json
import sys
import time

import torch

from kcdp_lib import metrics, paths, results
from kcdp_lib.adapt import load_all
from kcdp_lib.adapt.baselines import learn
from kcdp_lib.adapt.model import evaluate, stack_key
from kcdp_lib.adapt.record import commit
from kcdp_lib.config import RECIPES, SWITCHES, Config
from kcdp_lib.datasets import world_key
from kcdp_lib.knowledge import freeze

VARIANTS = {"kcdp": "full", "source_only": "source_only"}
ALONE = [f"paper, {switch}={getattr(RECIPES['released'], switch)}" for switch in SWITCHES]
GRIDS = {    # (methods, recipes, seeds, epochs); the switches get half of the main job's epochs: thirty trainings are more than an hour of two cores
    "switches": (["kcdp"], ["paper", "released", *ALONE], [0, 1], 2),
    "gain": (["kcdp", "source_only"], ["paper"], [0, 1, 2, 3, 4], None),
}


def run(method: str, recipe: str, seed: int, epochs: int | None) -> dict:
    """One training and its scores."""
    config, started = Config(recipe=recipe, seed=seed, epochs=epochs).check(), time.time()
    source, target, source_test, target_test = load_all(config)
    checkpoint = paths.CACHE / "grid" / f"{paths.sha(method, recipe, str(seed), str(epochs))[:12]}.safetensors"
    trained = learn(config, VARIANTS[method], source, target, checkpoint, "cpu")
    scores = {name: metrics.scores(pictures.labels, evaluate(trained.model, freeze(pictures, config.sizes, config.switches)), seed=seed)
              for name, pictures in (("source.test", source_test), ("target.test", target_test))}
    if trained.pseudo_labels is not None:
        scores["pseudo_labels"] = metrics.pseudo_label_scores(target.labels, trained.pseudo_labels)
    checkpoint.unlink(missing_ok=True)
    return {"method": method, "recipe": recipe, "source": config.source, "target": config.target, "setting": config.setting, "seed": seed,
            "world": world_key(), "stack": stack_key(config.sizes), "metrics": scores, "epochs": config.run_epochs,
            "commit": commit(), "torch": torch.__version__, "threads": torch.get_num_threads(), "seconds": round(time.time() - started, 1)}


def main(name: str, only: list[int]) -> None:
    """Every run of a grid that lacks, seed by seed."""
    methods, recipes, seeds, epochs = GRIDS[name]
    jobs = [(method, recipe, seed) for seed in only or seeds for recipe in recipes for method in methods]
    for job in paths.progress(jobs, name):
        if job in [(row["method"], row["recipe"], row["seed"]) for row in results.read(name)]:
            continue
        row = run(*job, epochs)
        results.FOLDER.mkdir(exist_ok=True)
        with (results.FOLDER / f"{name}.jsonl").open("a") as file:    # one short write: two processes cannot mix their lines
            file.write(json.dumps(row) + "\n")
        print(f"{row['method']:12} {row['recipe']:40} seed {row['seed']}: {row['metrics']['target.test']['macro_f1']:.3f}, {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in GRIDS:
        sys.exit(f"Name a grid: {', '.join(GRIDS)}.")
    main(sys.argv[1], [int(seed) for seed in sys.argv[2:]])
