"""Baselines that KCDP is compared with on the same test pictures (chapter 05).

They are the same model without the target or without knowledge, and predictors that train no
network.
"""

from __future__ import annotations

import gc
import json
import os
import warnings
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
from kcdp_lib.adapt.model import KCDP, autocast, evaluate, gather, without_words
from kcdp_lib.adapt.peers import PEERS
from kcdp_lib.adapt.training import Trained, train
from kcdp_lib.config import Config, Recipe
from kcdp_lib.counterfactuals import ask_directly, prompts, similarity_probs
from kcdp_lib.datasets import Pictures
from kcdp_lib.keys import stage_key
from kcdp_lib.knowledge import encode_texts, load_text_encoder
from kcdp_lib.metrics import linear_classifier
from kcdp_lib.paths import atomic_write, sha
from kcdp_lib.perception import load_kadap
from kcdp_lib.precompute import TENSORS, Frozen, freeze, without_knowledge
from kcdp_lib.shards import Rows
from kcdp_lib.tokens import knowledge_parts
from kcdp_lib.vision_language import load_vlm, zero_shot

WITHOUT_KNOWLEDGE = "source_only_no_knowledge"
VARIANTS = ("full", "source_only", WITHOUT_KNOWLEDGE)


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

    "full" and the peers also use the target's pictures, the other variants only the source.
    "source_only_no_knowledge" gets empty captions and no triplets; L_ccl stays, so that only the
    knowledge is missing. target_weight and after_epoch as in `train`, KCDPError as in `freeze`.
    """
    if variant not in ("full", *PEERS):
        target = None
    labels = taught_labels(source, config.switches)
    frozen = frozen_for(variant, source, config, device)
    labelled = teaching(labels)
    rows = torch.as_tensor(labelled)
    other = frozen_for(variant, target, config, device) if target is not None else None
    key = training_key(config, variant, source, target, device, target_weight)
    return train(
        config,
        select(frozen, rows),
        labels[labelled],
        other,
        checkpoint,
        key,
        device,
        variant.replace("_", " "),
        PEERS.get(variant),
        target_weight,
        after_epoch,
        knowledge=variant != WITHOUT_KNOWLEDGE,
    )


def taught_labels(source: Pictures, recipe: Recipe) -> np.ndarray:
    """Return the labels on which a source of N pictures trains, by the recipe's `labels`.

    int64 classes [N] (-1: none). With "soft", if some pictures have shares, float32 shares [N, C],
    one-hot for the others and zeros for no label (chapter "Mixed feelings").
    """
    if recipe.labels == "hard" or source.shares is None:
        return source.labels
    one_hot = np.eye(len(source.classes) + 1, dtype=np.float32)[source.labels][:, :-1]
    return np.where(np.isnan(source.shares), one_hot, source.shares)


def teaching(labels: np.ndarray) -> np.ndarray:
    """Return the rows, int64 [K], of `taught_labels` that hold a label (chapter 05)."""
    return np.flatnonzero(labels >= 0 if labels.ndim == 1 else labels.any(1))


def baseline(config: Config, variant: str, source: Pictures, device: str) -> Trained:
    """Train a source-only variant, or read it from the cache.

    It does not depend on the target, so it is trained once for all targets.
    """
    folder = paths.CACHE / "baselines" / training_key(config, variant, source, None, device)
    state = PartialState()
    state.wait_for_everyone()  # so that all processes see the same files
    if os.path.exists(folder / "history.json"):
        try:
            history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
            model = KCDP.from_pretrained(folder, device, config.models, config.precision)
            return Trained(model, history, None)
        except (OSError, ValueError) as error:
            warnings.warn(f"{folder} is damaged ({error}) and is made anew.", stacklevel=2)
    checkpoint = folder / "checkpoint.safetensors"
    trained = learn(config, variant, source, None, checkpoint, device)
    if state.is_main_process:
        trained.model.save_pretrained(folder)
        atomic_write(folder / "history.json", json.dumps(trained.history))
        checkpoint.unlink(missing_ok=True)
    return trained


def frozen_for(variant: str, pictures: Pictures, config: Config, device: str) -> Frozen:
    """Freeze the pictures as a variant sees them, with knowledge or `without_knowledge`.

    With the maps, if the recipe computes them once. Raises KCDPError for a set without pictures.
    """
    frozen = without_words(freeze(pictures, config.sizes, config.switches, device), config.switches)
    if variant == WITHOUT_KNOWLEDGE:
        frozen = without_knowledge(frozen, config.switches, load_text_encoder(config.sizes, device))
    if config.switches.looks_once:
        return with_maps(frozen, pictures, variant, config, device)
    return frozen


def with_maps(
    frozen: Frozen, pictures: Pictures, variant: str, config: Config, device: str
) -> Frozen:
    """Add the four maps of a UNet without adapters to the pictures, computed once.

    For a recipe that trains nothing before the maps (method chapter, eq-maps).
    """
    blocks = torch.arange(len(pictures)).split(shards.SHARD)
    knows = variant if variant == WITHOUT_KNOWLEDGE else ""
    made_by = sha(stage_key("maps", config.sizes, config.switches), knows)

    @lru_cache(1)
    def eye():
        recipe = replace(config.switches, embeddings=False)
        positions = frozen.tokens.shape[1]
        return load_kadap(config.sizes, recipe, positions, device, len(config.classes)).eval()

    @torch.no_grad()
    def look(i: int):
        batches = paths.progress(
            blocks[i].split(config.sizes.batch_size),
            f"maps of {pictures.name} {pictures.split}, {i + 1} of {len(blocks)}",
            images=config.sizes.batch_size,
        )
        with autocast(device, config.precision):
            maps = [eye().look(*gather(frozen, rows, device).for_unet)[0] for rows in batches]
        levels = enumerate(zip(*maps, strict=True))
        return {str(level): torch.cat(of_level).cpu() for level, of_level in levels}, []

    parts = shards.compute(
        [f"maps-{sha(made_by, *pictures.keys[block[0] : block[-1] + 1])}" for block in blocks], look
    )
    levels = range(len(config.sizes.backbone.maps))
    maps = [Rows([shard.tensors[str(level)] for shard in parts]) for level in levels]
    return replace(frozen, maps=maps)


def select(frozen: Frozen, rows: torch.Tensor) -> Frozen:
    """Select rows of a frozen set, int64 [n] in any order.

    The chapter "A fair comparison" holds pictures out with it.
    """
    tensors = {name: getattr(frozen, name) for name in (*TENSORS, "pooled")}
    picked = {name: tensor and tensor.select(rows) for name, tensor in tensors.items()}
    picked["maps"] = frozen.maps and [map_.select(rows) for map_ in frozen.maps]
    return Frozen(
        **picked,
        captions=[frozen.captions[i] for i in rows],
        triplets=[frozen.triplets[i] for i in rows],
    )


def majority(labels: np.ndarray, pictures: int, classes: int) -> np.ndarray:
    """Return probabilities [N, C] that always predict the source's most frequent class.

    All 0 or 1. labels [M] are the source's (-1: none); `pictures` is N, `classes` C (chapter 05).
    """
    commonest = np.bincount(labels[labels >= 0], minlength=classes).argmax()
    return np.eye(classes)[np.full(pictures, commonest)]


def caption_classifier(
    captions: Sequence[str], labels: np.ndarray, asked: Sequence[str], classes: int
) -> np.ndarray:
    """Predict probabilities [N, C] from N `asked` captions by a logistic regression (chapter 05).

    It is trained on the source's M captions and labels [M] (-1: left out), without pictures, on
    TF-IDF of words and word pairs. No class weights: every model here fits the source's own class
    shares with a plain cross-entropy.
    """
    known = np.flatnonzero(labels >= 0)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b"),
        LogisticRegression(max_iter=1000),
    )
    model.fit([captions[i] for i in known.tolist()], labels[known])
    probs = np.zeros((len(asked), classes))
    probs[:, model.classes_] = model.predict_proba(list(asked))
    return probs


def in_blocks(
    frozen: Frozen, read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """Apply `read` to the tokens and mask of N pictures, a shard at a time -> [N, ...].

    The tokens of a large data set would not fit into memory (chapter 05).
    """
    starts = range(0, len(frozen), shards.SHARD)
    blocks = (frozen[start : start + shards.SHARD] for start in starts)
    return torch.cat([read(some.tokens[:], some.mask[:]) for some in blocks]).numpy()


def knowledge_of(frozen: Frozen) -> np.ndarray:
    """Return the parts of k that the experts read, [N, 3 H] (method chapter, eq-experts)."""
    return in_blocks(frozen, knowledge_parts)


def text_encoder_probs(frozen: Frozen, config: Config, device: str) -> np.ndarray:
    """Predict probabilities [N, C] with the text encoder, zero-shot (chapter 05)."""
    text_encoder = load_text_encoder(config.sizes, device)
    prompted = encode_texts(prompts(config.classes), text_encoder)

    def read(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return similarity_probs(ask_directly(tokens, mask, *prompted))

    return in_blocks(frozen, read)


def image_and_text(frozen: Frozen) -> np.ndarray:
    """Return the VLM's embeddings of each picture and its caption, unit vectors, [N, 2 D].

    They are the features of a classifier that stands in for TGCA-PVT (paper, table of results).
    """
    images = frozen.image_embeddings[:].numpy()
    captions = vlm_embeddings(frozen)[:, -images.shape[1] :]
    return np.concatenate([images, captions], 1)


def vlm_embeddings(frozen: Frozen) -> np.ndarray:
    """Return all that the VLM knows of N pictures, [N, 4 D] (chapter "A fair comparison")."""
    assert frozen.embeddings is not None, "`freeze` and `describe` give them"
    return frozen.embeddings[:].numpy()


def standardised_probe(
    source: Frozen,
    labels: np.ndarray,
    target: Frozen,
    asked: Frozen,
    classes: int,
    seed: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Predict probabilities [N, C] for the N pictures `asked` with a linear probe.

    The features are all that the VLM knows of a picture (`vision_language.see_and_say`), each
    domain standardised by its own unlabelled training pictures. labels [M] are the source's. This
    is adaptation without a network, and hard to beat (chapter "A fair comparison"). weights, one
    for each picture of `target`, weight its averages; `share_weights` returns such weights.
    """
    of_source, of_target, of_asked = map(vlm_embeddings, (source, target, asked))
    features = StandardScaler().fit_transform(of_source)
    classify = linear_classifier(features, labels, classes, seed)
    scaler = StandardScaler().fit(of_target, sample_weight=weights)
    return classify(scaler.transform(of_asked))


def share_weights(probs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return weights [N], 0 or more, under which N pictures have the class shares [C].

    probs are the pictures' class probabilities [N, C]. Averages under these weights are what they
    would be if the classes had these shares (chapter "Results between all domains").
    """
    return (probs * shares / probs.mean(0).clip(1e-3)).sum(1)


def baseline_probs(
    config: Config, source: Pictures, test: Pictures, device: str
) -> dict[str, np.ndarray]:
    """Predict probabilities [N, C] with every baseline on the target's N test pictures, by name.

    Rows are in the pictures' order (chapter 05). With several processes, the main one returns all
    baselines, the others only those that were trained together.
    """
    # All processes call `freeze`, because they wait for each other in it.
    taught = freeze(source, config.sizes, config.switches, device)
    asked = freeze(test, config.sizes, config.switches, device)
    trained = {}
    for variant in VARIANTS[1:]:
        model = baseline(config, variant, source, device).model
        trained[variant] = evaluate(model, frozen_for(variant, test, config, device))
        # A model's hooks refer back to it: without this, memory would hold every model so far.
        del model
        gc.collect()
    if not PartialState().is_main_process:
        return trained
    others = untrained_probs(config, taught, source.labels, asked, device)
    return {"majority": others.pop("majority")} | trained | others


def untrained_probs(
    config: Config, taught: Frozen, labels: np.ndarray, asked: Frozen, device: str
) -> dict[str, np.ndarray]:
    """Predict probabilities [N, C] with the baselines that train no network, by name.

    Trained on the source `taught` and its labels [M], for the N pictures `asked` (chapter 05).
    """
    classes, seed = len(config.classes), config.seed

    def probe(features: Callable[[Frozen], np.ndarray]) -> np.ndarray:
        return linear_classifier(features(taught), labels, classes, seed)(features(asked))

    vlm = load_vlm(config.sizes, device)
    return {
        "majority": majority(labels, len(asked), classes),
        "caption_only": caption_classifier(taught.captions, labels, asked.captions, classes),
        "text_encoder": text_encoder_probs(asked, config, device),
        "knowledge_probe": probe(knowledge_of),
        "linear_probe": probe(lambda frozen: frozen.image_embeddings[:].numpy()),
        "image_and_text": probe(image_and_text),
        "zero_shot_vlm": zero_shot(vlm, asked.image_embeddings[:], config.classes).numpy(),
    }


def training_key(
    config: Config,
    variant: str,
    source: Pictures,
    target: Pictures | None,
    device: str,
    target_weight: float = 1.0,
) -> str:
    """Return the SHA of everything that a training depends on.

    That is variant, sizes, switches, seed, pictures, the source's labels, target_weight, frozen
    models, device, code and torch's version.
    """
    settings = replace(config, epochs=config.run_epochs)
    stages = stage_key("training", config.sizes, config.switches, settings)
    pictures = [pictures and pictures.key for pictures in (source, target)]
    labels = taught_labels(source, config.switches).tolist()
    about = [variant, device, torch.__version__, target_weight, pictures, labels]
    return sha(stages, json.dumps(about))
