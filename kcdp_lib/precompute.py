"""Outputs of all frozen models, computed once per picture: captions, tokens, latents (chapter 02).

Training does not change them, so they are computed once for a set of pictures and kept in shards on
disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import NamedTuple

import torch

from kcdp_lib import paths, shards
from kcdp_lib.config import Preset, Recipe
from kcdp_lib.datasets.images import read_ahead
from kcdp_lib.errors import KCDPError
from kcdp_lib.keys import stage_key
from kcdp_lib.knowledge import (
    TextEncoder,
    knowledge_tokens,
    load_text_encoder,
    pooled_captions,
    with_feelings,
)
from kcdp_lib.latents import encode_images, load_vae
from kcdp_lib.shards import Rows
from kcdp_lib.tokens import used_positions
from kcdp_lib.triplets import Parser, Triplet, load_parser
from kcdp_lib.vision_language import VLM, feelings, load_vlm, see_and_say
from kcdp_lib.writer import Writer, load_writer

# The tensors of Frozen, without maps and pooled captions.
TENSORS = ("latents", "tokens", "mask", "image_embeddings", "embeddings")


class Foundations(NamedTuple):
    """The frozen models that read a picture before training (paper, figure 2, left)."""

    vlm: VLM
    writer: Writer | None
    parse: Parser
    text_encoder: TextEncoder
    vae: torch.nn.Module


@dataclass
class Frozen:
    """Frozen models' outputs for N pictures (method chapter, eq-caption to eq-latents).

    Rows are in the pictures' order; tensors are on the CPU or, from `freeze`, on disk.
    """

    latents: torch.Tensor | Rows  # [N, Z, h, w] float32
    tokens: torch.Tensor | Rows  # [N, 2 L, H] float32
    mask: torch.Tensor | Rows  # [N, 2 L] bool
    image_embeddings: torch.Tensor | Rows  # [N, D] float32, normalised
    captions: list[str]
    triplets: list[list[Triplet]]
    # [N, 4 D] float32, the VLM's embeddings (`see_and_say`)
    embeddings: torch.Tensor | Rows | None = None
    # four [N, channels, h, w] float32, if nothing before them is trained (`baselines.with_maps`)
    maps: list[Rows] | None = None
    # [N, P] float32, the captions as vectors, for a backbone that reads them
    pooled: torch.Tensor | Rows | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: slice) -> Frozen:
        """Return some pictures, read into memory, without maps; `frozen[:]` is all of them."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        return Frozen(
            **{
                name: part[rows]
                for name, part in parts.items()
                if part is not None and name != "maps"
            }
        )


def without_knowledge(frozen: Frozen, recipe: Recipe, text_encoder: TextEncoder) -> Frozen:
    """Return the same pictures with an empty caption and no triplets.

    A baseline of chapter 05: the model's perception without any knowledge.
    """
    one_for_all = torch.zeros(len(frozen), dtype=torch.long)
    tokens, mask = knowledge_tokens([""], [[]], recipe, text_encoder)
    pooled = pooled_captions([""], recipe, text_encoder)
    embeddings = frozen.embeddings
    if embeddings is not None:  # they are knowledge, too
        embeddings = Rows([torch.zeros_like(embeddings[:1])], index=one_for_all)
    return replace(
        frozen,
        tokens=Rows([tokens], index=one_for_all),
        mask=Rows([mask], index=one_for_all),
        captions=[""] * len(frozen),
        triplets=[[] for _ in range(len(frozen))],
        embeddings=embeddings,
        pooled=None if pooled is None else Rows([pooled], index=one_for_all),
    )


def load_foundations(preset: Preset, device: str = "cpu") -> Foundations:
    """Load all frozen models but the UNet (paper, figure 2, left).

    KCDPError if one cannot be loaded completely.
    """
    writer = load_writer(preset.writer, device) if preset.writer else None
    return Foundations(
        load_vlm(preset, device),
        writer,
        load_parser(preset.parser),
        load_text_encoder(preset, device),
        load_vae(preset, device),
    )


def describe(images: torch.Tensor, foundations: Foundations, recipe: Recipe) -> Frozen:
    """Compute the frozen outputs for uint8 images [N, 3, S, S], without the cache.

    One batch (eq-caption, eq-knowledge, eq-latents). S is the preset's image_size;
    `datasets.read_images` makes such images.
    """
    image_embeddings, written, embeddings = see_and_say(foundations.vlm, foundations.writer, images)
    felt = feelings_of(image_embeddings, foundations.vlm, foundations.writer)
    captions = captions_used(zip(written, felt, strict=True), recipe)
    triplets = foundations.parse(written)
    tokens, mask = knowledge_tokens(captions, triplets, recipe, foundations.text_encoder)
    return Frozen(
        encode_images(foundations.vae, images, recipe).cpu(),
        tokens,
        mask,
        image_embeddings,
        captions,
        triplets,
        embeddings,
        pooled=pooled_captions(captions, recipe, foundations.text_encoder),
    )


def captions_used(said: Iterable[Sequence[str]], recipe: Recipe) -> list[str]:
    """Return the captions that a recipe uses, with the feelings in front or without them.

    said: pairs of a caption and its feelings (method chapter, eq-caption).
    """
    return [
        with_feelings(caption, felt) if felt and recipe.feelings else caption
        for caption, felt in said
    ]


def feelings_of(embeddings: torch.Tensor, vlm: VLM, writer: Writer | None) -> list[str]:
    """Return the feelings that N pictures evoke, from the VLM's embeddings [N, D].

    Method chapter, eq-caption. Empty with a writer, whose captions mention feelings already.
    """
    return [""] * len(embeddings) if writer else feelings(vlm, embeddings)


def freeze(
    pictures, preset: Preset, recipe: Recipe, device: str = "cpu", progress: bool = True
) -> Frozen:
    """Run `describe` on a whole set of pictures (datasets.Pictures), with a cache.

    The cache holds all that the same code computed with the same models and pictures (chapter 02).
    Captions, latents and tokens have shards of their own, so that a recipe that changes one of them
    reuses the others. Labels and file names are not used. The tensors stay on disk (`shards.Rows`).
    KCDPError for a set without pictures.
    """
    if not len(pictures.files):
        raise KCDPError(
            f"There is no picture in {pictures.name} ({pictures.split}); give a data set or folder "
            "with at least one."
        )
    blocks = [
        slice(start, start + shards.SHARD) for start in range(0, len(pictures.files), shards.SHARD)
    ]
    names = {
        kind: [f"{kind}-{paths.sha(key, *pictures.keys[block])}" for block in blocks]
        for kind, key in frozen_keys(preset, recipe).items()
    }

    def batches(i: int, what: str):
        files, size = pictures.files[blocks[i]], preset.batch_size
        some = [files[start : start + size] for start in range(0, len(files), size)]
        title = f"{what} of {pictures.name} {pictures.split}, {i + 1} of {len(blocks)}"
        shown = paths.progress(some, title, images=size) if progress else some
        return read_ahead(shown, preset.image_size)

    @lru_cache(1)
    def speakers():
        writer = load_writer(preset.writer, device) if preset.writer else None
        return load_vlm(preset, device), writer

    def captions(i: int):
        vlm, writer = speakers()
        said = [see_and_say(vlm, writer, images) for images in batches(i, "captions")]
        image_embeddings, texts, embeddings = zip(*said, strict=True)
        tensors = {
            "image_embeddings": torch.cat(image_embeddings),
            "embeddings": torch.cat(embeddings),
        }
        felt = feelings_of(tensors["image_embeddings"], vlm, writer)
        return tensors, list(zip(itertools.chain(*texts), felt, strict=True))

    @lru_cache(1)
    def vae():
        return load_vae(preset, device)

    def latents(i: int):
        parts = [encode_images(vae(), images, recipe).cpu() for images in batches(i, "latents")]
        return {"latents": torch.cat(parts)}, []

    def tokens(i: int):
        texts, text_encoder = (
            captions_used(captioned[i].texts, recipe),
            load_text_encoder(preset, device),
        )
        triplets = load_parser(preset.parser)([written for written, _ in captioned[i].texts])
        knowledge = knowledge_tokens(texts, triplets, recipe, text_encoder)
        # Positions that are padding in the whole shard, usually most of them, are not stored.
        used = used_positions(knowledge.mask)
        tensors = {"tokens": knowledge.tokens[:, used], "mask": knowledge.mask, "used": used}
        pooled = pooled_captions(texts, recipe, text_encoder)
        return tensors if pooled is None else {**tensors, "pooled": pooled}, triplets

    def rows(parts: list[shards.Shard], name: str) -> Rows:
        return Rows([shard.tensors[name] for shard in parts])

    captioned = shards.compute(names["captions"], captions)
    encoded = shards.compute(names["latents"], latents)
    known = shards.compute(names["tokens"], tokens)
    return Frozen(
        latents=rows(encoded, "latents"),
        tokens=Rows(
            [shard.tensors["tokens"] for shard in known],
            [shard.tensors["used"] for shard in known],
            known[0].tensors["mask"].shape[1],
        ),
        mask=rows(known, "mask"),
        image_embeddings=rows(captioned, "image_embeddings"),
        captions=[text for shard in captioned for text in captions_used(shard.texts, recipe)],
        triplets=[
            [tuple(triplet) for triplet in of_row] for shard in known for of_row in shard.texts
        ],
        embeddings=rows(captioned, "embeddings"),
        pooled=rows(known, "pooled") if preset.backbone.pooled_text else None,
    )


def frozen_keys(preset: Preset, recipe: Recipe) -> dict[str, str]:
    """Return the cache key of each kind of shard, without the pictures (`keys.stage_key`)."""
    return {kind: stage_key(kind, preset, recipe) for kind in ("captions", "latents", "tokens")}
