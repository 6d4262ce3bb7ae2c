"""One run, from two names of domains to a trained model and its metrics (chapter 05)."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from kcdp_lib import datasets, paths, world
from kcdp_lib.adapt.baselines import baseline, baseline_probs, learn
from kcdp_lib.adapt.folder import check_apart, clear, owned
from kcdp_lib.adapt.record import (
    answer,
    check_writable,
    provenance,
    summarise,
    write_figures,
    write_run,
)
from kcdp_lib.config import Config, pick_device, with_parameters
from kcdp_lib.datasets import Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import atomic_write, explained, resolve


def adapt(config: Config | None = None, **parameters) -> dict:
    """Adapt to the target, compare with the baselines and return the metrics.

    See chapter 05 and eq-total. Writes the model, the predictions, the metrics and, last, the
    figures to the run's folder; files of an earlier run there are removed when training begins.

    Returns what `metrics.json` holds: plain numbers, scores between 0 and 1, seconds, bytes. Takes
    a `Config`, its parameters (`adapt(target="noto")`), or both; parameters win. A killed run
    resumes where it was a few minutes before. Under `accelerate launch` the processes share the
    work, and each returns the same. Raises KCDPError with one sentence for bad input, for a folder
    that cannot be written and for one that another run is writing to.
    """
    if not isinstance(config, Config | None):
        raise KCDPError(
            f"adapt is given a {type(config).__name__}; give a Config, or parameters by name, such "
            'as adapt(target="noto").'
        )
    config, started = with_parameters(config or Config(), parameters).check(), time.time()
    out, device = config.run_dir, pick_device(config.device)
    is_main = PartialState().is_main_process
    results = {}
    check_apart(out, config)
    with explained(out):
        if is_main:
            check_writable(out)
            check_writable(paths.CACHE)
        with owned(out) if is_main else nullcontext():
            results = _run(config, out, device, started)
    return broadcast_object_list([results])[0]


def _run(config: Config, out: Path, device: str, started: float) -> dict:
    """Make the run in a folder that it owns.

    Returns what metrics.json holds, or {} in all processes but the main one.
    """
    is_main = PartialState().is_main_process
    source, target, source_test, target_test = load_all(config)
    if is_main:
        clear(out)
    checkpoint = out / "checkpoint.safetensors"
    if config.setting == "uc":  # universal: the source alone
        trained = baseline(config, "source_only", source, device)
    else:
        trained = learn(config, "full", source, target, checkpoint, device)
    sets = {"source": source_test, "target": target_test, "train": target}
    answers = {}
    for name, pictures in sets.items():
        domain = "source" if name == "source" else "target"
        if len(pictures):
            answers[name] = answer(trained.model, pictures, config, device, domain)
    is_scored = (target_test.labels >= 0).any()
    others = baseline_probs(config, source, target_test, device) if is_scored else {}
    if config.setting == "uc":
        others.pop("source_only", None)  # it is this very model
    if not is_main:
        return {}
    pseudo = trained.pseudo_labels
    pseudo = np.full(len(target), -1) if pseudo is None else pseudo
    results = summarise(config, answers, pseudo, others, source)
    write_run(out, config, trained, answers, pseudo, results)
    results = {
        "config": results.pop("config"),
        "provenance": provenance(config, device, started),
        **results,
        "data": {
            "source": {"train": source.counts(), "test": source_test.counts()},
            "target": {"train": target.counts(), "test": target_test.counts()},
        },
    }
    atomic_write(out / "metrics.json", json.dumps(results, indent=2) + "\n")
    write_figures(out, config, trained, answers, results)
    checkpoint.unlink(missing_ok=True)
    return results


def load_all(config: Config) -> tuple[Pictures, Pictures, Pictures, Pictures]:
    """Load the training pictures of source and target, then the test pictures of both.

    Raises KCDPError if the source's labels name fewer than two emotions.
    """
    root, dials = config.data_root and resolve(config.data_root), world.read_dials(config.dials)

    def load(name: str, split: str) -> Pictures:
        return datasets.load(name, split, root, config.seed, taxonomy=config.taxonomy, dials=dials)

    source, target = load(config.source, "train"), load(config.target, "train")
    tests = load(config.source, "test"), load(config.target, "test")
    if len(np.unique(source.labels[source.labels >= 0])) < 2:
        raise KCDPError(
            f"source={config.source!r} has labelled pictures of fewer than two emotions; sort them "
            f"into folders named {', '.join(config.classes)}."
        )
    source.notes += datasets.overlaps(source, target, *tests)
    return source, target, *tests
