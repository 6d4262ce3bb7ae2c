"""What each switch of METHOD.md's table is worth: the paper recipe with one switch at a time as released, photos -> stickers.

`python benchmarks/switches.py [SEED ...]` (0 and 1 unless told) appends one JSON line a run to results/switches.jsonl and skips what is done, so it may be
killed, and run twice at once with other seeds. Labels of stickers are read to score a finished run and for nothing else.
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

EPOCHS = 2    # half of the main job's: thirty trainings are an hour of two cores
RESULTS = results.FOLDER / "switches.jsonl"


def recipes() -> list[str]:
    """The paper's, the released one, and the paper's with each single switch as released."""
    return ["paper", "released", *(f"paper, {switch}={getattr(RECIPES['released'], switch)}" for switch in SWITCHES)]


def run(recipe: str, seed: int) -> dict:
    """One training of KCDP and its scores."""
    config, started = Config(recipe=recipe, seed=seed, epochs=EPOCHS).check(), time.time()
    source, target, source_test, target_test = load_all(config)
    checkpoint = paths.CACHE / "switches" / f"{seed}-{paths.sha(recipe)[:12]}.safetensors"
    trained = learn(config, "full", source, target, checkpoint, "cpu")
    scores = {name: metrics.scores(pictures.labels, evaluate(trained.model, freeze(pictures, config.sizes, config.switches)), seed=seed)
              for name, pictures in (("source.test", source_test), ("target.test", target_test))}
    scores["pseudo_labels"] = metrics.pseudo_label_scores(target.labels, trained.pseudo_labels)
    checkpoint.unlink(missing_ok=True)
    return {"method": "kcdp", "recipe": recipe, "source": config.source, "target": config.target, "setting": config.setting, "seed": seed,
            "world": world_key(), "stack": stack_key(config.sizes), "metrics": scores, "epochs": config.run_epochs,
            "commit": commit(), "torch": torch.__version__, "threads": torch.get_num_threads(), "seconds": round(time.time() - started, 1)}


def main(seeds: list[int]) -> None:
    """Every run that lacks, seed by seed."""
    jobs = [(recipe, seed) for seed in seeds for recipe in recipes()]
    for job in paths.progress(jobs, "switches"):
        if job in [(row["recipe"], row["seed"]) for row in results.read("switches")]:
            continue
        row = run(*job)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:    # one short write: two processes cannot mix their lines
            file.write(json.dumps(row) + "\n")
        print(f"{row['recipe']:40} seed {row['seed']}: {row['metrics']['target.test']['macro_f1']:.3f}, {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0, 1])
