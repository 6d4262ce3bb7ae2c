"""Files that a run writes (chapter 05).

They are metrics.json, predictions.jsonl, model/ with its card, and figures/.

The target's labels are first read here, after all training.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate import PartialState

from kcdp_lib import cards as hub_cards
from kcdp_lib import datasets, figures, metrics
from kcdp_lib.adapt.model import KCDP, evaluate, gather
from kcdp_lib.adapt.training import Trained
from kcdp_lib.checkout import commit
from kcdp_lib.config import Config, pick_precision
from kcdp_lib.datasets import Pictures
from kcdp_lib.errors import first_line
from kcdp_lib.familiar import UNFAMILIAR, familiarity, load_known
from kcdp_lib.knowledge import Triplet, load_text_encoder, without_feelings
from kcdp_lib.paths import FREE_BYTES, ROOT, atomic_write, explained, folder_named, resolve
from kcdp_lib.perception import word_attention, word_positions
from kcdp_lib.precompute import Frozen, freeze

# packages whose versions are recorded
PACKAGES = (
    "torch torchvision diffusers transformers peft open_clip_torch scikit-learn numpy".split()
)


@dataclass
class Answers:
    """Predictions of a trained KCDP for one set of pictures."""

    pictures: Pictures
    frozen: Frozen
    probs: np.ndarray  # [N, C], rows in the pictures' order
    familiarity: np.ndarray | None = None  # [N], 0 to 1, as `Prediction` has it


def answer(model: KCDP, pictures: Pictures, config: Config, device: str, domain: str) -> Answers:
    """Freeze the pictures of a domain, "source" or "target", and predict them."""
    frozen = freeze(pictures, config.sizes, config.switches, device)
    known = familiarity(load_known(config.sizes), frozen)
    return Answers(pictures, frozen, evaluate(model, frozen, domain), known)


def summarise(
    config: Config,
    answers: dict[str, Answers],
    pseudo: np.ndarray,
    others: dict[str, np.ndarray],
    source: Pictures,
) -> dict:
    """Return the content of metrics.json without its provenance.

    `out_dir` is in the provenance, too, because the results do not depend on it.

    pseudo [N]: the target's pseudo-labels in training (-1: none); others: probabilities [N, C] of
    each baseline on the target's test pictures, {} if none of them is labelled.
    """
    seed, target = config.seed, answers["train"].pictures
    baselines, differences = {}, {}
    for name, probs in others.items():
        asked = answers["target"]
        labels = asked.pictures.labels
        scores = metrics.scores(labels, probs, config.classes, seed)
        baselines[name] = scores | shares_score(asked.pictures, probs, seed)
        differences[name] = metrics.paired_difference(labels, asked.probs, probs, seed=seed)
    return {
        "config": {name: value for name, value in config.as_dict().items() if name != "out_dir"}
        | {"epochs": config.run_epochs},
        "source": {
            "pictures": len(source),
            "skipped": len(source.skipped),
            **side_scores(answers.get("source"), config),
        },
        "target": {
            "pictures": len(target),
            "skipped": len(target.skipped),
            "transductive": bool(in_both_splits(answers)) and config.setting == "da",
            **unfamiliar(answers),
            **side_scores(answers.get("target"), config),
        },
        "baselines": baselines,
        "differences": differences,
        "pseudo_labels": metrics.pseudo_label_scores(target.labels, pseudo),
    }


def side_scores(said: Answers | None, config: Config) -> dict[str, dict]:
    """Score answers by labels, as "test", and by shares, as "distribution", if there are any."""
    if said is None:
        return {}
    pictures, scored = said.pictures, {}
    if (pictures.labels >= 0).any():
        scored["test"] = metrics.scores(pictures.labels, said.probs, config.classes, config.seed)
    return scored | shares_score(pictures, said.probs, config.seed)


def shares_score(pictures: Pictures, probs: np.ndarray, seed: int) -> dict[str, dict]:
    """Score probabilities [N, C] against the pictures' shares; {} if they have none."""
    if pictures.shares is None:
        return {}
    return {"distribution": metrics.distribution(pictures.shares, probs, seed)}


def unfamiliar(answers: dict[str, Answers]) -> dict[str, dict[str, int]]:
    """Count the target's pictures that are unlike anything that the VLM was trained on.

    A picture in both splits counts once. {} if unknown.
    """
    known, target = answers["train"].familiarity, answers.get("target")
    if known is None:
        return {}
    if target and target.familiarity is not None:
        both = in_both_splits(answers)
        new = np.array([key not in both for key in target.pictures.keys], bool)
        known = np.concatenate([known, target.familiarity[new]])
    return {"unfamiliar": {"n": int((known < UNFAMILIAR).sum()), "of": len(known)}}


def write_run(
    out: Path,
    config: Config,
    trained: Trained,
    answers: dict[str, Answers],
    pseudo: np.ndarray,
    results: dict,
) -> None:
    """Write model/ and predictions.jsonl into `out`.

    pseudo [N] are the pseudo-labels of the target's training pictures (-1: none).
    """
    trained.model.save_pretrained(out / "model")
    atomic_write(out / "model" / "history.json", json.dumps(trained.history))
    atomic_write(out / "model" / "README.md", hub_cards.of_run(config, results, commit()))
    # paths are written relative to the first of these that holds the file
    homes = (folder_named(config.target, config.data_root), resolve(config.data_root or ROOT), ROOT)
    of_pictures = prediction_rows(answers, pseudo, homes)
    rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in of_pictures]
    atomic_write(out / "predictions.jsonl", "".join(rows))


def write_figures(
    out: Path, config: Config, trained: Trained, answers: dict[str, Answers], results: dict
) -> None:
    """Draw the run's figures into figures/.

    If one cannot be drawn or written, this only warns, since all numbers are on disk by then.
    """
    for name, draw in drawings(config, trained, answers, results).items():
        try:
            with explained(out):
                atomic_write(out / "figures" / f"{name}.png", figures.png(draw()))
        except Exception as error:  # matplotlib, fonts, a full disk
            warnings.warn(
                f"The figure {name}.png is left out ({first_line(error)}); all numbers are in "
                f"{out / 'metrics.json'}.",
                stacklevel=2,
            )


def drawings(
    config: Config, trained: Trained, answers: dict[str, Answers], results: dict
) -> dict[str, Callable[[], figures.Figure]]:
    """Return the functions that draw the run's figures, by file name.

    Figures that need labels are left out if there are none.
    """
    titles = dict(zip(("source", "target"), figures.side_titles(*config.names), strict=True))
    sides = {"target": answers.get("target", answers["train"])}
    if "source" in answers:
        sides = {"source": answers["source"], **sides}

    @cache
    def side_cards(side: str) -> list[dict]:
        return cards(trained.model, sides[side], domain=side)

    def method() -> figures.Figure:
        shown = {titles[side]: first_right(side_cards(side)) for side in sides}
        return figures.whole_method(shown, config.classes)

    tables = {
        f"{title}, test": results[side]["test"]["confusion"]
        for side, title in titles.items()
        if "test" in results[side]
    }
    draw: dict[str, Callable[[], figures.Figure]] = {
        "learning_curves": lambda: figures.learning_curves(trained.history),
        "predictions": lambda: figures.prediction_sheet(side_cards("target")),
        "method": method,
    }
    if tables:
        draw["confusion"] = lambda: figures.confusion(tables, config.classes)
    if "test" in results["target"]:
        scores = {"kcdp": results["target"]["test"], **results["baselines"]}
        draw["baselines"] = lambda: figures.bars(scores, " → ".join(titles.values()))
    return draw


def prediction_rows(
    answers: dict[str, Answers], pseudo: np.ndarray, homes: Sequence[Path]
) -> Iterator[dict]:
    """Yield one row for each target picture, training pictures first.

    A file's path is relative to the first of the `homes` that holds it.

    A picture in both splits (a transductive target) comes once.

    pseudo [N] (-1: none) belongs to the N training pictures.
    """
    both, classes = in_both_splits(answers), answers["train"].pictures.classes
    train, target = answers["train"], answers.get("target")
    for key, row, label in zip(train.pictures.keys, _rows(train, homes), pseudo, strict=True):
        yield {
            **row,
            "pseudo_label": classes[label] if label >= 0 else None,
            "split": "train+test" if key in both else "train",
        }
    if target:
        for key, row in zip(target.pictures.keys, _rows(target, homes), strict=True):
            if key not in both:
                yield {**row, "pseudo_label": None, "split": "test"}


def in_both_splits(answers: dict[str, Answers]) -> set[str]:
    """Return the keys of the target pictures that are both trained on and tested on.

    If there are any, the target is transductive.
    """
    tested = answers["target"].pictures.keys if "target" in answers else ()
    return set(answers["train"].pictures.keys) & set(tested)


def _rows(said: Answers, homes: Sequence[Path]) -> Iterator[dict]:
    """Yield what is known of each picture of a set, in their order."""
    classes, labels, known = said.pictures.classes, said.pictures.labels, said.familiarity
    for i, (file, probs) in enumerate(zip(said.pictures.files, said.probs, strict=True)):
        by_class = zip(classes, probs, strict=True)
        yield {
            "file": _short(file, homes),
            "label": classes[labels[i]] if labels[i] >= 0 else None,
            "predicted": classes[probs.argmax()],
            "probabilities": {name: round(float(p), 6) for name, p in by_class},
            "caption": said.frozen.captions[i],
            "triplets": [list(triplet) for triplet in said.frozen.triplets[i]],
            "familiarity": None if known is None else round(float(known[i]), 4),
        }


def _short(file: Path, homes: Sequence[Path]) -> str:
    """Return a file's path relative to the first folder that holds it; absolute if none does."""
    within = (file.relative_to(home) for home in homes if file.is_relative_to(home))
    return str(next(within, file))


@torch.no_grad()
def cards(model: KCDP, said: Answers, count: int = 8, domain: str = "target") -> list[dict]:
    """Return cards for `figures.prediction_sheet` and `figures.whole_method`.

    They show the first pictures of a domain, "source" or "target", by content hash, which is as
    good as a random sample.

    Each has its image [3, S, S] uint8, the attention [S, S], 0 to 1, to one word of its caption (as
    in chapter 03), CLIEA's similarities [C] and the probabilities [C].
    """
    rows = torch.arange(min(count, len(said.pictures)))
    images = datasets.read_images([said.pictures.files[i] for i in rows], model.preset.image_size)
    # precomputed maps come without their attention
    frozen = replace(said.frozen, maps=None)
    perception, similarities = model(*gather(frozen, rows, model.device), domain=domain)
    tokenizer = load_text_encoder(model.preset, "cpu").tokenizer
    shown = []
    for i, image, attention in zip(
        rows.tolist(), images, perception.attention[0].cpu(), strict=True
    ):
        word, positions = content_word(said.frozen.captions[i], said.frozen.triplets[i], tokenizer)
        label, best = said.pictures.labels[i], said.probs[i].argmax()
        shown.append(
            {
                "image": image.numpy(),
                "caption": said.frozen.captions[i],
                "triplets": said.frozen.triplets[i],
                "similarities": similarities[i].float().cpu().numpy(),
                "probs": said.probs[i],
                "predicted": model.classes[best],
                "probability": float(said.probs[i, best]),
                "label": model.classes[label] if label >= 0 else None,
                "word": word,
                "attention": word_attention(attention, positions, image.shape[-1]).numpy(),
            }
        )
    return shown


def first_right(shown: list[dict]) -> dict:
    """Return the first card whose prediction is its label.

    It shows how a right prediction comes about, not how often. Without such a card, or without
    labels, the first card is returned.
    """
    return next((card for card in shown if card["label"] == card["predicted"]), shown[0])


def content_word(caption: str, triplets: Sequence[Triplet], tokenizer) -> tuple[str, torch.Tensor]:
    """Return the most telling word of a caption, and its token positions in k, int64 [n].

    It ends the last triplet's object ("tears" in "cat, crying, big tears"), or else is the
    caption's longest. Words for feelings are left out: they have no place in a picture.
    """
    words = without_feelings(caption).split()
    named = [
        object_.split()[-1]
        for *_, object_ in triplets
        if object_.strip() and object_.split()[-1] in words
    ]
    word = named[-1] if named else max(words, key=len, default="")
    return word, word_positions(caption, word, tokenizer)


def provenance(config: Config, device: str, started: float) -> dict:
    """Return where the numbers come from, and what they cost.

    Memory is in bytes, time in seconds since `started` (as `time.time` counts).
    """
    on_gpu = torch.device(device).type == "cuda"
    cpu = f"cpu, {torch.get_num_threads()} threads"
    return {
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "seed": config.seed,
        "device": torch.cuda.get_device_name(device) if on_gpu else cpu,
        "processes": PartialState().num_processes,
        "precision": pick_precision(config.precision, device),
        "out_dir": str(config.run_dir),
        "wall_seconds": round(time.time() - started, 1),
        "peak_memory_bytes": peak_memory("cpu"),
        **({"peak_gpu_memory_bytes": peak_memory(device)} if on_gpu else {}),
    }


def peak_memory(device: str) -> int:
    """Return the peak memory of this process in bytes.

    Of the GPU's memory, or on "cpu" of the machine's.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # imported here because Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check_writable(out: Path) -> None:
    """Check before the training that the run's folder, or the cache, can be written.

    Raises OSError, which `paths.explained` turns into a sentence.
    """
    atomic_write(out / ".writable", "")
    (out / ".writable").unlink()
    if shutil.disk_usage(out).free < FREE_BYTES:
        raise OSError(errno.ENOSPC, "no space left on device", str(out))
