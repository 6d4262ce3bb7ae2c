"""One run: from two names of domains to a trained model and its metrics (chapter 05)."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from kcdp_lib import datasets, world
from kcdp_lib.adapt.baselines import baseline, baseline_probs, learn
from kcdp_lib.adapt.record import (
    answer,
    check_writable,
    explained,
    provenance,
    summarise,
    write_run,
)
from kcdp_lib.config import Config, pick_device
from kcdp_lib.datasets import Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import atomic_write, resolve


def adapt(config: Config | None = None, **parameters) -> dict:
    """Adapt to the target, compare with the baselines and return the metrics (chapter 05, eq-total).

    The run's folder receives the metrics, the predictions, the model and the figures.

    What is returned is what `metrics.json` holds: plain numbers, scores between 0 and 1, seconds,
    bytes. Takes a `Config`, its parameters (`adapt(target="noto")`), or both: parameters win. A run
    that was killed goes on where it was a few minutes before. Under `accelerate launch` the
    processes do it together, and each returns the same. Raises KCDPError with one sentence for bad
    input and for a folder that cannot be written.
    """
    config = replace(config or Config(), **parameters).check()
    started, out, device = time.time(), config.run_dir, pick_device(config.device)
    state = PartialState()
    with explained(out):
        if state.is_main_process:
            check_writable(out)
        source, target, source_test, target_test = load_all(config)
        checkpoint = out / "checkpoint.safetensors"
        trained = (
            learn(config, "full", source, target, checkpoint, device)
            if config.setting == "da"
            else baseline(config, "source_only", source, device)
        )
        answers = {
            name: answer(
                trained.model, pictures, config, device, "source" if name == "source" else "target"
            )
            for name, pictures in (
                ("source", source_test),
                ("target", target_test),
                ("train", target),
            )
        }
        pseudo = (
            trained.pseudo_labels if trained.pseudo_labels is not None else np.full(len(target), -1)
        )
        others = (
            baseline_probs(config, source, target_test, device)
            if (target_test.labels >= 0).any()
            else {}
        )
        results = {}
        if state.is_main_process:
            results = summarise(config, answers, pseudo, others, source)
            write_run(out, config, trained, answers, pseudo, results)
            results = {
                "config": results.pop("config"),
                "provenance": provenance(config, device, started),
                **results,
            }
            atomic_write(out / "metrics.json", json.dumps(results, indent=2) + "\n")
            checkpoint.unlink(missing_ok=True)
    return broadcast_object_list([results])[0]


def load_all(config: Config) -> tuple[Pictures, Pictures, Pictures, Pictures]:
    """Training pictures of source and target, then the test pictures of both.

    KCDPError where the source cannot teach.
    """
    root, dials = config.data_root and resolve(config.data_root), world.read_dials(config.dials)
    source, target, *tests = (
        datasets.load(name, split, root, config.seed, taxonomy=config.taxonomy, dials=dials)
        for split in ("train", "test")
        for name in (config.source, config.target)
    )
    if len(np.unique(source.labels[source.labels >= 0])) < 2:
        raise KCDPError(
            f"source={config.source!r} has labelled pictures of fewer than two emotions; sort them "
            f"into folders named {', '.join(config.classes)}."
        )
    source.notes += datasets.overlaps(source, target, *tests)
    return source, target, *tests
