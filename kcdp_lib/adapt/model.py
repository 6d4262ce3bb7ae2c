"""KCDP: KADAP and CLIEA together on the frozen models of one preset (chapter 05).

Models are saved and loaded without pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from kcdp_lib import datasets
from kcdp_lib.config import (
    PRESETS,
    Preset,
    Recipe,
    check_device,
    in_folder,
    pick_device,
    pick_precision,
    read_recipe,
)
from kcdp_lib.counterfactuals import CLIEA, prompts, similarity_probs, together
from kcdp_lib.datasets import EMOTIONS
from kcdp_lib.datasets.images import check_picture
from kcdp_lib.errors import KCDPError, first_line
from kcdp_lib.familiar import UNFAMILIAR, Known, familiarity, load_known
from kcdp_lib.knowledge import Triplet, encode_texts, load_text_encoder
from kcdp_lib.loading import stack_key
from kcdp_lib.paths import atomic_save, atomic_write, resolve
from kcdp_lib.perception import Perception, load_kadap, load_trainable, trainable_state_dict
from kcdp_lib.precompute import Foundations, Frozen, describe, load_foundations, without_knowledge
from kcdp_lib.shards import Rows
from kcdp_lib.tokens import used_positions
from kcdp_lib.vision_language import class_embeddings, embedding_width


@dataclass
class Prediction:
    """Result of `KCDP.predict` (chapter 05), with rows in the order of the pictures."""

    probs: np.ndarray  # [N, C] float32, columns in the order of the model's `classes`
    labels: list[str]  # the most probable emotion of each picture
    captions: list[str]
    triplets: list[list[Triplet]]
    # [N], 0 to 1: share of known pictures that are at least as far from the VLM's training data;
    # None if unknown
    familiarity: np.ndarray | None = None

    @property
    def unfamiliar(self) -> np.ndarray | None:
        """Whether each picture is unlike anything that the VLM was trained on, bool [N], or None.

        A picture is unfamiliar below `familiar.UNFAMILIAR` (chapter 05).
        """
        return None if self.familiarity is None else self.familiarity < UNFAMILIAR


class Batch(NamedTuple):
    """What is known of B pictures before training: the inputs of eq-attention to eq-cliea."""

    latents: torch.Tensor | None  # [B, Z, h, w]; None if the maps were precomputed
    tokens: torch.Tensor  # [B, T, H]
    mask: torch.Tensor  # [B, T] bool, True = a real token
    embeddings: torch.Tensor | None = None  # [B, 4 D], the VLM's
    maps: list[torch.Tensor] | None = None  # four [B, channels, h, w], see `KADAP.look`
    pooled: torch.Tensor | None = None  # [B, P], captions as vectors, for some backbones
    # int64 [n], positions with a real token in some row; None: derived from the mask
    used: torch.Tensor | None = None

    @property
    def for_unet(self) -> tuple[Any, ...]:
        """Arguments of `KADAP.look`: latents [B, Z, h, w], tokens [B, T, H], mask, pooled, used."""
        return self.latents, self.tokens, self.mask, self.pooled, self.used


class KCDP(nn.Module):
    """KADAP and CLIEA on one preset's frozen models (paper, figure 2).

    Seed torch first: LoRA, pyramid, experts and parts of CLIEA start at random.

    classes: names of the C emotions, as the prompts say them. knowledge: whether the model gets
    captions and triplets; aligned: whether CLIEA is trained, which it is not for peer methods;
    precision: of its predictions, as in `autocast`.
    Raises KCDPError if a frozen model cannot be loaded whole.
    """

    class_embeddings: torch.Tensor  # [C, D], class names as the VLM embeds them, scaled
    prompt_tokens: torch.Tensor  # [C, n, H], n <= L: no padding if CLIEA hides it
    prompt_mask: torch.Tensor  # [C, n]

    def __init__(
        self,
        preset: Preset,
        recipe: Recipe,
        device: str = "cpu",
        classes: Sequence[str] = EMOTIONS,
        knowledge: bool = True,
        aligned: bool = True,
        precision: str | None = None,
    ):
        super().__init__()
        self.preset = preset
        self.recipe = recipe
        self.device = device
        self.precision = precision
        self.classes = tuple(classes)
        self.knowledge = knowledge
        self.aligned = aligned and recipe.alignment != "none"
        self.foundations: Foundations | None = None  # loaded by the first predict()
        tokens, mask = encode_texts(prompts(self.classes), load_text_encoder(preset, device))
        self.kadap = load_kadap(
            preset,
            recipe,
            2 * tokens.shape[1],
            device,
            len(self.classes),
            embedding_width(preset) if recipe.embeddings else 0,
        )
        if recipe.embeddings or recipe.labelled_by == "vlm":
            # The first call loads the VLM, which draws random weights before it reads them; the
            # model's own initialisation must not depend on that.
            with torch.random.fork_rng(devices=[]):
                names = class_embeddings(preset, self.classes, device)
            self.register_buffer("class_embeddings", names, persistent=False)
        if recipe.cliea_masked:
            read = used_positions(mask.cpu())
            tokens, mask = tokens[:, read], mask[:, read]
        self.register_buffer("prompt_tokens", tokens, persistent=False)
        self.register_buffer("prompt_mask", mask, persistent=False)
        self.cliea = CLIEA(self.kadap.visual_width, self.kadap.text_width, recipe)
        self.to(device)

    def forward(
        self,
        latents: torch.Tensor | None,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        embeddings: torch.Tensor | None = None,
        maps: list[torch.Tensor] | None = None,
        pooled: torch.Tensor | None = None,
        used: torch.Tensor | None = None,
        domain: str = "target",
    ) -> tuple[Perception, torch.Tensor]:
        """Return perception and similarities [B, C] (cosines, eq-cliea) of an unpacked `Batch`.

        latents [B, Z, h, w] and knowledge tokens [B, T, H] with bool mask [B, T]; embeddings
        [B, 4 D], maps, pooled [B, P], used [n] and domain ("source" or "target") as in
        `KADAP.forward`. Raises KCDPError if T is not the preset's 2 L.
        """
        perception = self.kadap(latents, tokens, mask, embeddings, maps, pooled, used, domain)
        return perception, self.align(perception, tokens, mask, used)

    def align(
        self,
        perception: Perception,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        used: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return CLIEA's similarities [B, C] (cosines, eq-cliea) of a perception and the knowledge.

        tokens [B, T, H] with bool mask [B, T]; used as in `Batch`.
        """
        return self.cliea(perception.v, tokens, mask, self.prompt_tokens, self.prompt_mask, used)

    def look_at_both(
        self, source: Batch, target: Batch, used: torch.Tensor | None = None
    ) -> tuple[Batch, Batch]:
        """Add the maps to two batches, in one pass of the UNet over both.

        used: int64 [n], positions with a real token in some row of either batch.
        """
        if source.maps or self.recipe.eye == "blind":
            return source, target
        pairs = zip(source.for_unet[:4], target.for_unet[:4], strict=True)
        both: list[Any] = [None if one is None else torch.cat([one, other]) for one, other in pairs]
        maps, _ = self.kadap.look(*both, used)  # type: ignore[call-arg]  # `both` has four entries
        count = len(source.tokens)
        return (
            source._replace(maps=[map_[:count] for map_ in maps]),
            target._replace(maps=[map_[count:] for map_ in maps]),
        )

    @property
    def answers_with_cliea(self) -> bool:
        """Whether the prediction takes CLIEA's similarities into account."""
        return self.recipe.embeddings and self.aligned

    def answer(
        self,
        perception: Perception,
        similarities: torch.Tensor | None,
        embeddings: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return probabilities [B, C], those of the experts (method chapter, eq-experts).

        A recipe with the VLM's embeddings [B, 4 D] adds the VLM's zero-shot probabilities and, if
        CLIEA was trained, those of its similarities [B, C] (chapter "A fair comparison").
        """
        voices = [perception.logits.float().softmax(-1)]
        if not self.recipe.embeddings:
            return voices[0]
        voices.append(self.ask_vlm(embeddings))
        if self.answers_with_cliea:
            assert similarities is not None, "CLIEA has a voice here"
            voices.append(similarity_probs(similarities))
        return together(*voices)

    def ask_vlm(self, embeddings: torch.Tensor | None) -> torch.Tensor:
        """Return the VLM's own probabilities [B, C], zero-shot as in `vision_language.zero_shot`.

        embeddings [B, 4 D] are the VLM's, of which the first D combine picture and mirror image.
        """
        assert embeddings is not None, "pictures are frozen with what the VLM knows of them"
        width = self.class_embeddings.shape[1]
        return (embeddings[:, :width] @ self.class_embeddings.T).softmax(-1)

    def label(
        self, perception: Perception, similarities: torch.Tensor, embeddings: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the probabilities [B, C] from which the target's pseudo-labels are taken.

        By CLIEA's similarities [B, C] (method chapter, eq-pseudo), or as `labelled_by` says.
        """
        match self.recipe.labelled_by:
            case "similarities":
                return similarity_probs(similarities)
            case "answer":
                return self.answer(perception, similarities, embeddings)
            case "experts":
                return perception.logits.float().softmax(-1)
            case "vlm":
                return self.ask_vlm(embeddings)
            case unknown:
                assert_never(unknown)

    def predict(self, images: Iterable[Image.Image | str | os.PathLike]) -> Prediction:
        """Predict emotions, captions and triplets of PIL images or paths, in any iterable.

        Needs only the pictures, of any size and mode (chapter 05).

        Raises KCDPError if there is no picture, if a single one is not in a list, and for the first
        that cannot be read.
        """
        pictures, size = as_list(images), self.preset.batch_size
        seen = load_known(self.preset)
        blocks = [pictures[i : i + size] for i in range(0, len(pictures), size)]
        parts = [self._predict(block, seen) for block in blocks]
        probs = np.concatenate([part.probs for part in parts])
        known = [part.familiarity for part in parts if part.familiarity is not None]
        return Prediction(
            probs,
            self._named(probs),
            sum((part.captions for part in parts), []),
            sum((part.triplets for part in parts), []),
            np.concatenate(known) if known else None,
        )

    def _named(self, probs: np.ndarray) -> list[str]:
        """Return the most probable emotion of each picture, from probabilities [N, C]."""
        return [self.classes[i] for i in probs.argmax(1)]

    def _predict(self, images: list, seen: Known | None) -> Prediction:
        """Predict one batch; `seen` describes what the VLM was trained on."""
        pixels = datasets.read_images(images, self.preset.image_size)
        if self.foundations is None:
            self.foundations = load_foundations(self.preset, self.device)
        frozen = describe(pixels, self.foundations, self.recipe)
        known = familiarity(seen, frozen)
        frozen = without_words(frozen, self.recipe)
        if not self.knowledge:
            frozen = without_knowledge(frozen, self.recipe, self.foundations.text_encoder)
        probs = evaluate(self, frozen)
        return Prediction(probs, self._named(probs), frozen.captions, frozen.triplets, known)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the trained weights, `model.safetensors`, and their settings, `config.json`."""
        atomic_save(Path(folder) / "model.safetensors", trainable_state_dict(self))
        about = {
            "preset": self.preset.name,
            "recipe": self.recipe.name,
            "classes": list(self.classes),
            "knowledge": self.knowledge,
            "aligned": self.aligned,
            "stack": stack_key(self.preset),
        }
        atomic_write(Path(folder) / "config.json", json.dumps(about, indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | None = None,
        models: str | Path | None = None,
        precision: str | None = None,
    ) -> KCDP:
        """Load the model of a finished run, ready to predict; give `models` as in that run.

        Raises KCDPError if the folder does not hold one, or if the run had other frozen models.
        """
        if device is not None:
            check_device(str(device))
        try:
            folder = resolve(folder)
            about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            state = load_file(folder / "model.safetensors")
            preset, recipe = PRESETS[about["preset"]], read_recipe(about["recipe"])
            classes, stack = [*about["classes"]], about["stack"]
            # The first models were saved without "aligned"; all of them are aligned.
            knowledge, aligned = about["knowledge"], about.get("aligned", True)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise KCDPError(
                f"{folder} does not hold a model of this version ({first_line(error)}); give the "
                "model/ folder that adapt() wrote."
            ) from error
        preset = in_folder(preset, models)
        if stack != stack_key(preset):
            raise KCDPError(
                f"{folder} was trained on other weights of preset {preset.name} than those here; "
                "run adapt() again, give `models` as its run did, or bring back the weights it "
                "was trained on."
            )
        device = pick_device(device and str(device))
        model = cls(preset, recipe, device, classes, knowledge, aligned, precision)
        load_trainable(model, state)
        return model.eval()


def as_list(images: Iterable) -> list[Image.Image | str | os.PathLike]:
    """Return the pictures given to `predict` as a list; raises KCDPError for anything else.

    Pictures are checked one by one, so that an endless iterable of something else also ends.
    """
    # iterating would yield the letters of a text, the lines of a file
    is_alone = isinstance(images, str | bytes | os.PathLike | Image.Image)
    try:
        # A tensor of one number is an Iterable by type, but iterating over it fails.
        iter(images)
    except TypeError:
        is_alone = True
    if is_alone or hasattr(images, "read"):
        raise KCDPError(
            "predict takes several pictures at once; give a list of PIL images or paths, also for "
            "one."
        )
    pictures: list[Image.Image | str | os.PathLike] = []
    for picture in images:
        check_picture(picture)
        if isinstance(picture, Image.Image) and not all(picture.size):
            raise KCDPError(f"Picture {len(pictures)} has no pixels; leave it out.")
        # Pillow's iterators give an animation's frames as one object, which moves on
        is_frame = getattr(picture, "is_animated", False)
        pictures.append(picture.copy() if is_frame else picture)
    if not pictures:
        raise KCDPError("There is no picture to predict; give a list of PIL images or paths.")
    return pictures


def without_words(frozen: Frozen, recipe: Recipe) -> Frozen:
    """Take from the VLM's embeddings [N, 4 D] a caption that the recipe does not let KCDP read.

    Their last quarter embeds the caption (chapter "What each part of the method contributes").
    """
    if recipe.knowledge in ("both", "caption") or frozen.embeddings is None:
        return frozen
    pictures, captions = frozen.embeddings[:].tensor_split([-frozen.image_embeddings.shape[1]], 1)
    others = captions.roll(1, 0) if recipe.knowledge == "another" else torch.zeros_like(captions)
    return replace(frozen, embeddings=Rows([torch.cat([pictures, others], 1)]))


def gather(frozen: Frozen, rows: torch.Tensor, device: str) -> Batch:
    """Load some pictures, int64 rows [B], onto the device (chapter 05).

    The latents stay on disk if the maps were precomputed.
    """

    def some(rows_of: torch.Tensor | Rows) -> torch.Tensor:
        return sent(rows_of[rows], device)

    mask = frozen.mask[rows]
    return Batch(
        latents=None if frozen.maps else some(frozen.latents),
        tokens=some(frozen.tokens),
        mask=sent(mask, device),
        embeddings=None if frozen.embeddings is None else some(frozen.embeddings),
        maps=[some(map_) for map_ in frozen.maps] if frozen.maps else None,
        pooled=None if frozen.pooled is None else some(frozen.pooled),
        used=sent(used_positions(mask), device),
    )


def sent(values: torch.Tensor, device: str) -> torch.Tensor:
    """Move values [B, ...] to the device, without waiting for a GPU's copy (chapter 05)."""
    if torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def autocast(device: str, precision: str | None = None):
    """Return the context in which the networks run; losses stay outside.

    "no" is float32; None takes what `pick_precision` chooses.
    """
    chosen = pick_precision(precision, device)
    return torch.autocast(
        torch.device(device).type,
        dtype=torch.float16 if chosen == "fp16" else torch.bfloat16,
        enabled=chosen != "no",
    )


@torch.no_grad()
def evaluate(model: KCDP, frozen: Frozen, domain: str = "target") -> np.ndarray:
    """Predict probabilities [N, C] float32 of every picture, as `KCDP.answer` computes them.

    See eq-experts in the method chapter. Leaves the model in eval mode. domain: "source" or
    "target", for a recipe that standardises by domain. Several processes share the batches, and
    each returns all probabilities.
    """
    model.eval()
    state = PartialState()
    probs = torch.zeros(len(frozen), len(model.classes), device=model.device)
    batches = torch.arange(len(frozen)).split(2 * model.preset.batch_size)
    for rows in batches[state.process_index :: state.num_processes]:
        similarities = None
        with autocast(model.device, model.precision):
            batch = gather(frozen, rows, model.device)
            perception = model.kadap(*batch, domain=domain)
            if model.answers_with_cliea:
                similarities = model.align(perception, batch.tokens, batch.mask, batch.used)
        probs[rows] = model.answer(perception, similarities, batch.embeddings)
    return reduce(probs, "sum").cpu().numpy()


@torch.no_grad()
def settle(model: KCDP, frozen: Frozen) -> None:
    """Adapt at test time: standardise the target by the averages of the pictures to predict.

    They replace those that the model has from training (chapter "A fair comparison"). For a recipe
    with `domain_norm`, in the universal setting; reads no label and changes no weight. Leaves the
    model in eval mode. Raises KCDPError for a recipe without `domain_norm`.
    """
    norm = model.eval().kadap.norm
    if norm is None:
        raise KCDPError(
            f"Recipe {model.recipe.name!r} does not standardise by domain; train with "
            "domain_norm=True."
        )
    norm.forget_domain("target")
    norm.train()
    for rows in torch.arange(len(frozen)).split(2 * model.preset.batch_size):
        with autocast(model.device, model.precision):
            model.kadap(*gather(frozen, rows, model.device), domain="target")
    norm.eval()
