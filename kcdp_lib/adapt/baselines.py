"""What KCDP is compared with, on the same test pictures.

The same model without the target or without knowledge, and answers that need no training (chapter
05).
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kcdp_lib import paths, shards
from kcdp_lib.adapt.model import KCDP, evaluate, gather
from kcdp_lib.adapt.peers import PEERS
from kcdp_lib.adapt.training import Trained, train
from kcdp_lib.config import Config
from kcdp_lib.datasets import Pictures
from kcdp_lib.keys import stage_key
from kcdp_lib.knowledge import load_text_encoder
from kcdp_lib.metrics import linear_classifier
from kcdp_lib.paths import atomic_write, sha
from kcdp_lib.perception import MAPS, load_kadap
from kcdp_lib.precompute import TENSORS, Frozen, freeze, without_knowledge
from kcdp_lib.shards import Rows
from kcdp_lib.vision_language import load_vlm, zero_shot

VARIANTS = ("full", "source_only", "source_only_no_knowledge")


def learn(
    config: Config,
    variant: str,
    source: Pictures,
    target: Pictures | None,
    checkpoint: Path,
    device: str,
    target_weight: float = 1.0,
    after_epoch: Callable | None = None,
) -> Trained:
    """Freeze the pictures and train one variant by eq-total (method chapter), or one of `PEERS`.

    "full" and the peers use the target's pictures, the others only the source.

    "source_only_no_knowledge" sees empty captions and no triplets; L_ccl stays, so that only the
    knowledge is gone. target_weight and after_epoch are `train`'s. KCDPError as `freeze` raises it.
    """
    labelled, target = source.labels >= 0, target if variant in ("full", *PEERS) else None
    frozen = frozen_for(variant, source, config, device)
    rows = torch.as_tensor(np.flatnonzero(labelled))
    other = frozen_for(variant, target, config, device) if target is not None else None
    key = training_key(config, variant, source, target, device, target_weight)
    trained = train(
        config,
        select(frozen, rows),
        source.labels[labelled],
        other,
        checkpoint,
        key,
        device,
        variant.replace("_", " "),
        PEERS.get(variant),
        target_weight,
        after_epoch,
    )
    trained.model.knowledge = variant != "source_only_no_knowledge"
    return trained


def baseline(config: Config, variant: str, source: Pictures, device: str) -> Trained:
    """A source-only variant, trained once.

    It does not depend on the target, so every further target finds it in the cache.
    """
    folder, state = (
        paths.CACHE / "baselines" / training_key(config, variant, source, None, device),
        PartialState(),
    )
    state.wait_for_everyone()  # so that all see the same: there, or not there
    if (folder / "history.json").exists():
        return Trained(
            KCDP.from_pretrained(folder, device, config.models),
            json.loads((folder / "history.json").read_text()),
            None,
        )
    checkpoint = folder / "checkpoint.safetensors"
    trained = learn(config, variant, source, None, checkpoint, device)
    if state.is_main_process:
        trained.model.save_pretrained(folder)
        atomic_write(folder / "history.json", json.dumps(trained.history))
        checkpoint.unlink(missing_ok=True)
    return trained


def frozen_for(variant: str, pictures: Pictures, config: Config, device: str) -> Frozen:
    """The pictures as this variant sees them.

    With knowledge, or as `without_knowledge` leaves them. KCDPError for a set without pictures.
    """
    frozen = freeze(pictures, config.sizes, config.switches, device)
    if variant == "source_only_no_knowledge":
        frozen = without_knowledge(frozen, config.switches, load_text_encoder(config.sizes, device))
    return (
        with_maps(frozen, pictures, variant, config, device)
        if config.switches.looks_once
        else frozen
    )


def with_maps(
    frozen: Frozen, pictures: Pictures, variant: str, config: Config, device: str
) -> Frozen:
    """The pictures with the four maps that a UNet without adapters sees (method chapter, eq-maps),
    computed once: for the recipe that trains nothing before them.
    """
    blocks = torch.arange(len(pictures)).split(shards.SHARD)
    knows = "" if variant != "source_only_no_knowledge" else variant
    made_by = sha(stage_key("maps", config.sizes, config.switches), knows)

    @lru_cache(1)
    def eye():
        return load_kadap(
            config.sizes,
            replace(config.switches, embeddings=False),
            frozen.tokens.shape[1],
            device,
            len(config.classes),
        ).eval()

    @torch.no_grad()
    def look(i: int):
        batches = paths.progress(
            blocks[i].split(config.sizes.batch_size),
            f"maps of {pictures.name} {pictures.split}, {i + 1} of {len(blocks)}",
            images=config.sizes.batch_size,
        )
        seen = [eye().look(*gather(frozen, rows, device)[:3])[0] for rows in batches]
        return {str(level): torch.cat(maps).cpu() for level, maps in enumerate(zip(*seen))}, []

    looked = shards.compute(
        [f"maps-{sha(made_by, *pictures.keys[block[0] : block[-1] + 1])}" for block in blocks],
        look,
    )
    return replace(
        frozen,
        maps=[Rows([shard.tensors[str(level)] for shard in looked]) for level in range(len(MAPS))],
    )


def select(frozen: Frozen, rows: torch.Tensor) -> Frozen:
    """Some rows of a set that `freeze` gave.

    int64 rows [n], any order (chapter "A fair comparison", which holds pictures out).
    """
    picked = {
        name: tensor and tensor.select(rows)
        for name in TENSORS
        for tensor in [getattr(frozen, name)]
    }
    picked["maps"] = frozen.maps and [map_.select(rows) for map_ in frozen.maps]
    return Frozen(
        **picked,
        captions=[frozen.captions[i] for i in rows],
        triplets=[frozen.triplets[i] for i in rows],
    )


def majority(labels: np.ndarray, pictures: int, classes: int) -> np.ndarray:
    """Probabilities [N, C], 0 or 1, that always answer the source's most frequent class.

    Labels [M] are the source's (-1: none), `pictures` is N, `classes` C (chapter 05).
    """
    return np.eye(classes)[
        np.full(pictures, np.bincount(labels[labels >= 0], minlength=classes).argmax())
    ]


def caption_classifier(
    captions: Sequence[str], labels: np.ndarray, asked: Sequence[str], classes: int
) -> np.ndarray:
    """Probabilities [N, C] for N `asked` captions by a logistic regression on the source's M
    captions and labels [M] (-1: left out); no picture is seen (chapter 05).

    TF-IDF of words and word pairs. No class weights: every model here fits the source's own class
    shares with a plain cross-entropy.
    """
    known = np.flatnonzero(labels >= 0)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b"),
        LogisticRegression(max_iter=1000),
    )
    model.fit([captions[i] for i in known], labels[known])
    probs = np.zeros((len(asked), classes))
    probs[:, model.classes_] = model.predict_proba(list(asked))
    return probs


def image_and_text(frozen: Frozen) -> np.ndarray:
    """[N, 2 D]: what the VLM sees in each picture beside what its own caption says, both as unit
    vectors; the features of a classifier in the role of TGCA-PVT (paper, table of results).
    """
    return torch.cat(
        [frozen.image_embeddings[:], frozen.embeddings[:][:, -frozen.image_embeddings.shape[1] :]],
        1,
    ).numpy()


def standardised_probe(
    source: Frozen,
    labels: np.ndarray,
    target: Frozen,
    asked: Frozen,
    classes: int,
    seed: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Probabilities [N, C] for the N pictures `asked` by a linear classifier on all that the VLM
    knows of a picture (`knowledge.embed`), each domain standardised by its own unlabelled
    training pictures; labels [M] are the source's.

    Adaptation without a network, and hard to beat (chapter "A fair comparison"). weights, one for
    each picture of `target`, say how much it counts in the averages; `share_weights` makes some.
    """
    taught, seen, looked = (of.embeddings[:].numpy() for of in (source, target, asked))
    return linear_classifier(StandardScaler().fit_transform(taught), labels, classes, seed)(
        StandardScaler().fit(seen, sample_weight=weights).transform(looked)
    )


def share_weights(probs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weights [N], 0 or more, under which N pictures with class probabilities [N, C] have the class
    shares [C]: what their averages would be if their classes were as frequent as those (chapter
    "Everywhere else").
    """
    return (probs * shares / probs.mean(0).clip(1e-3)).sum(1)


def baseline_probs(
    config: Config, source: Pictures, test: Pictures, device: str
) -> dict[str, np.ndarray]:
    """Probabilities [N, C] of every baseline on the target's N test pictures, rows in their order,
    by the baseline's name (chapter 05).

    Of several processes the main one has them all, the others those that were trained together.
    """
    taught, asked = (
        freeze(pictures, config.sizes, config.switches, device) for pictures in (source, test)
    )  # by all processes: they wait for each other in it
    found = {}
    for variant in VARIANTS[1:]:
        found[variant] = evaluate(
            baseline(config, variant, source, device).model,
            frozen_for(variant, test, config, device),
        )
        # A model's hooks point back at it: without this, memory would hold every model so far
        gc.collect()
    others = (
        untrained_probs(config, taught, source.labels, asked, device)
        if PartialState().is_main_process
        else {}
    )
    return {name: probs for name, probs in others.items() if name == "majority"} | found | others


def untrained_probs(
    config: Config, taught: Frozen, labels: np.ndarray, asked: Frozen, device: str
) -> dict[str, np.ndarray]:
    """Probabilities [N, C] of the baselines in which no network is trained (chapter 05), as
    `baseline_probs` gives them: taught by the source's pictures and labels [M], for the N
    pictures `asked`.
    """
    classes, vlm = len(config.classes), load_vlm(config.sizes, device)
    found = {"majority": majority(labels, len(asked), classes)}
    found["caption_only"] = caption_classifier(taught.captions, labels, asked.captions, classes)
    found["linear_probe"] = linear_classifier(
        taught.image_embeddings[:].numpy(), labels, classes, config.seed
    )(asked.image_embeddings[:].numpy())
    found["image_and_text"] = linear_classifier(
        image_and_text(taught), labels, classes, config.seed
    )(image_and_text(asked))
    found["zero_shot_vlm"] = zero_shot(vlm, asked.image_embeddings[:], config.classes).numpy()
    return found


def training_key(
    config: Config,
    variant: str,
    source: Pictures,
    target: Pictures | None,
    device: str,
    target_weight: float = 1.0,
) -> str:
    """SHA over everything a training depends on.

    Sizes, switches, seed, pictures, source labels, frozen models, device, code and torch's version.
    """
    settings = replace(config, epochs=config.run_epochs)
    stages = stage_key("training", config.sizes, config.switches, settings)
    pictures = [pictures and pictures.key for pictures in (source, target)]
    about = [variant, device, torch.__version__, target_weight, pictures, source.labels.tolist()]
    return sha(stages, json.dumps(about))
