"""What a run leaves behind: metrics.json, predictions.jsonl, model/ with its card, and figures/
(chapter 05).

Here, when everything is trained, the target's labels are read for the first time.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate import PartialState

from kcdp_lib import cards as hub_cards
from kcdp_lib import datasets, figures, metrics
from kcdp_lib.adapt.model import KCDP, evaluate, gather
from kcdp_lib.adapt.training import Trained
from kcdp_lib.config import Config, pick_precision
from kcdp_lib.datasets import Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.knowledge import Triplet, load_text_encoder
from kcdp_lib.paths import ROOT, atomic_write
from kcdp_lib.perception import word_attention, word_positions
from kcdp_lib.precompute import Frozen, freeze

FREE_BYTES = 50_000_000  # what a run of the tiny preset may need in out_dir


@dataclass
class Answers:
    """What a trained KCDP says of one set of pictures."""

    pictures: Pictures
    frozen: Frozen
    probs: np.ndarray  # [N, C], rows in the pictures' order


def answer(
    model: KCDP, pictures: Pictures, config: Config, device: str, domain: str = "target"
) -> Answers | None:
    """Freeze and evaluate pictures of a domain, "source" or "target".

    None where there are no pictures.
    """
    if not len(pictures):
        return None
    frozen = freeze(pictures, config.sizes, config.switches, device)
    return Answers(pictures, frozen, evaluate(model, frozen, domain))


def is_labelled(said: Answers | None) -> bool:
    """Is there anything to score?"""
    return said is not None and bool((said.pictures.labels >= 0).any())


def summarise(
    config: Config,
    answers: dict[str, Answers | None],
    pseudo: np.ndarray,
    others: dict[str, np.ndarray],
    source: Pictures,
) -> dict:
    """metrics.json without its provenance.

    Where the run wrote is no part of what it computed, so `out_dir` stands there too.

    pseudo [N]: the target's pseudo-labels in training (-1: none); others: probabilities [N, C] of
    each baseline on the target's test pictures.
    """
    seed, target = config.seed, answers["train"].pictures
    scored = {
        name: {
            "test": metrics.scores(
                answers[name].pictures.labels, answers[name].probs, config.classes, seed
            )
        }
        if is_labelled(answers[name])
        else {}
        for name in ("source", "target")
    }
    results = {
        "config": {name: value for name, value in config.as_dict().items() if name != "out_dir"}
        | {"epochs": config.run_epochs},
        "source": {"pictures": len(source), "skipped": len(source.skipped), **scored["source"]},
        "target": {
            "pictures": len(target),
            "skipped": len(target.skipped),
            "transductive": bool(in_both_splits(answers)) and config.setting == "da",
            **scored["target"],
        },
        "baselines": {},
        "differences": {},
        "pseudo_labels": metrics.pseudo_label_scores(target.labels, pseudo),
    }
    if is_labelled(answers["target"]):
        labels, probs = answers["target"].pictures.labels, answers["target"].probs
        results["baselines"] = {
            name: metrics.scores(labels, other, config.classes, seed)
            for name, other in others.items()
        }
        results["differences"] = {
            name: metrics.paired_difference(labels, probs, other, seed=seed)
            for name, other in others.items()
        }
    return results


def write_run(
    out: Path,
    config: Config,
    trained: Trained,
    answers: dict[str, Answers | None],
    pseudo: np.ndarray,
    results: dict,
) -> None:
    """Write model/, predictions.jsonl and figures/ into `out`.

    Pseudo [N] are the pseudo-labels of the target's training pictures (-1: none).
    """
    trained.model.save_pretrained(out / "model")
    atomic_write(out / "model" / "history.json", json.dumps(trained.history))
    atomic_write(out / "model" / "README.md", hub_cards.of_run(config, results, commit()))
    atomic_write(
        out / "predictions.jsonl",
        "".join(
            json.dumps(row, ensure_ascii=False) + "\n" for row in prediction_rows(answers, pseudo)
        ),
    )
    for title, figure in draw(config, trained, answers, results).items():
        atomic_write(out / "figures" / f"{title}.png", figures.png(figure))


def draw(
    config: Config, trained: Trained, answers: dict[str, Answers | None], results: dict
) -> dict[str, figures.Figure]:
    """The run's figures by file name; those that need labels only where there are labels."""
    source, name = Path(config.source).name, answers["train"].pictures.name
    found = cards(trained.model, answers["target"] or answers["train"])
    rows = (
        {name: found}
        if answers["source"] is None
        else {source: cards(trained.model, answers["source"], domain="source"), name: found}
    )
    drawn = {
        "learning_curves": figures.learning_curves(trained.history, name),
        "predictions": figures.prediction_sheet(found),
        "method": figures.whole_method(
            {title: first_right(of) for title, of in rows.items()}, config.classes
        ),
    }
    tables = {
        f"{title}, test": results[part]["test"]["confusion"]
        for part, title in (("source", source), ("target", name))
        if "test" in results[part]
    }
    if tables:
        drawn["confusion"] = figures.confusion(tables, config.classes)
    if "test" in results["target"]:
        drawn["baselines"] = figures.bars(
            {"kcdp": results["target"]["test"], **results["baselines"]}, title=f"{source} → {name}"
        )
    return drawn


def prediction_rows(answers: dict[str, Answers | None], pseudo: np.ndarray) -> Iterator[dict]:
    """One row for each target picture, training pictures first.

    One that is in both splits (a transductive target) comes once.

    pseudo [N] (-1: none) belongs to the N training pictures.
    """
    both, classes = in_both_splits(answers), answers["train"].pictures.classes
    for key, row, label in zip(answers["train"].pictures.keys, _rows(answers["train"]), pseudo):
        yield {
            **row,
            "pseudo_label": classes[label] if label >= 0 else None,
            "split": "train+test" if key in both else "train",
        }
    if answers["target"]:
        for key, row in zip(answers["target"].pictures.keys, _rows(answers["target"])):
            if key not in both:
                yield {**row, "pseudo_label": None, "split": "test"}


def in_both_splits(answers: dict[str, Answers | None]) -> set[str]:
    """Keys of the target pictures that are trained on and tested on.

    With any, the target is called transductive.
    """
    return set(answers["train"].pictures.keys) & set(
        answers["target"].pictures.keys if answers["target"] else ()
    )


def _rows(said: Answers) -> Iterator[dict]:
    classes = said.pictures.classes
    for i, (file, label, probs) in enumerate(
        zip(said.pictures.files, said.pictures.labels, said.probs)
    ):
        yield {
            "file": _short(file),
            "label": classes[label] if label >= 0 else None,
            "predicted": classes[probs.argmax()],
            "probabilities": {name: round(float(p), 6) for name, p in zip(classes, probs)},
            "caption": said.frozen.captions[i],
            "triplets": [list(triplet) for triplet in said.frozen.triplets[i]],
        }


def _short(file: Path) -> str:
    """A file as seen from the checkout, where it lies inside."""
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


@torch.no_grad()
def cards(model: KCDP, said: Answers, count: int = 8, domain: str = "target") -> list[dict]:
    """Cards for `figures.prediction_sheet` and `figures.whole_method`.

    The first pictures of a domain, "source" or "target", by content hash, which is as good as
    drawing lots.

    Each with its image [3, S, S] uint8, the attention [S, S], 0 to 1, to one word of its caption
    (as in chapter 03), CLIEA's similarities [C] and the probabilities [C].
    """
    rows = torch.arange(min(count, len(said.pictures)))
    images = datasets.read_images([said.pictures.files[i] for i in rows], model.preset.image_size)
    seen, similarities = model(
        *gather(replace(said.frozen, maps=None), rows, model.device), domain=domain
    )  # where maps were computed before, their attention was not kept
    tokenizer = load_text_encoder(model.preset, "cpu").tokenizer
    found = []
    for i, image, attention in zip(rows.tolist(), images, seen.attention[0].cpu()):
        word, positions = content_word(said.frozen.captions[i], said.frozen.triplets[i], tokenizer)
        label, best = said.pictures.labels[i], said.probs[i].argmax()
        found.append(
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
    return found


def first_right(found: list[dict]) -> dict:
    """The first card whose prediction is its label.

    To show how a right answer comes about, not how often. The first of all where none is, or where
    no label is known.
    """
    return next((card for card in found if card["label"] == card["predicted"]), found[0])


def content_word(caption: str, triplets: Sequence[Triplet], tokenizer) -> tuple[str, torch.Tensor]:
    """The word that ends the last triplet's object ("tears" in "cat, crying, big tears"), else the
    caption's longest; and its token positions in k, int64 [n].
    """
    words = caption.split()
    named = [
        triplet[2].split()[-1]
        for triplet in triplets
        if triplet[2].strip() and triplet[2].split()[-1] in words
    ]
    word = named[-1] if named else max(words, key=len, default="")
    return word, word_positions(caption, word, tokenizer)


def provenance(config: Config, device: str, started: float) -> dict:
    """Where the numbers come from, and what they cost, in seconds since `started` (as `time.time`
    counts) and bytes.
    """
    packages = (
        "torch",
        "torchvision",
        "diffusers",
        "transformers",
        "peft",
        "open_clip_torch",
        "scikit-learn",
        "numpy",
    )
    on_gpu = torch.device(device).type == "cuda"
    return {
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "seed": config.seed,
        "device": torch.cuda.get_device_name(device)
        if on_gpu
        else f"cpu, {torch.get_num_threads()} threads",
        "processes": PartialState().num_processes,
        "precision": pick_precision(config.precision, device),
        "out_dir": str(config.run_dir),
        "wall_seconds": round(time.time() - started, 1),
        "peak_memory_bytes": peak_memory("cpu"),
        **({"peak_gpu_memory_bytes": peak_memory(device)} if on_gpu else {}),
    }


def peak_memory(device: str) -> int:
    """The most bytes that this process ever held.

    Of the GPU's memory, or on "cpu" of the machine's.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # here, because Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def commit() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it.

    None outside a checkout.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def check_writable(out: Path) -> None:
    """Find out before the training, not after it, that the run's folder cannot be written.

    OSError, which `explained` turns into a sentence.
    """
    atomic_write(out / ".writable", "")
    (out / ".writable").unlink()
    if shutil.disk_usage(out).free < FREE_BYTES:
        raise OSError(errno.ENOSPC, "no space left on device", str(out))


@contextmanager
def explained(out: Path):
    """Turn the OSError of a full, read-only or unusable disk into a KCDPError of one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EIO,
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.ENOTDIR,
            errno.EEXIST,
        ):
            raise
        raise KCDPError(
            f"{error.filename or out} cannot be written ({error.strerror}): free some space "
            f"({FREE_BYTES // 10**6} MB are enough for preset tiny) or choose another out_dir."
        ) from error
