"""Knowledge: what is said about a picture, as tokens (chapter 02; paper, figure 2, left).

Caption and triplets -> k = [caption ; triplets], by the diffusion model's own text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, assert_never

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from kcdp_lib.config import Backbone, Preset, Recipe
from kcdp_lib.loading import check_words, load_part, loading, place
from kcdp_lib.triplets import Triplet

FELT = re.compile(r"^feeling \S+ , \S+ and \S+ , ")  # what `with_feelings` puts before a caption


class EncodedText(NamedTuple):
    """One text, on the CPU: tau of eq-knowledge (method chapter)."""

    tokens: torch.Tensor  # [L, H] float32
    mask: torch.Tensor  # [L] bool, True from the start to the end token
    pooled: torch.Tensor  # [P] float32, empty unless the preset's backbone asks for it


class TextEncoder(NamedTuple):
    """The diffusion model's frozen CLIP text encoder, tau of eq-knowledge (method chapter).

    Stable Diffusion XL has two; their tokens are put side by side. The first tokenizer's
    model_max_length is L.
    """

    parts: tuple[tuple[CLIPTokenizer, Any], ...]
    backbone: Backbone
    known: dict[str, EncodedText]  # all that was encoded so far

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The first tokenizer, whose positions those of k are."""
        return self.parts[0][0]

    @property
    def model(self) -> Any:
        """The first text encoder."""
        return self.parts[0][1]

    @property
    def width(self) -> int:
        """H, the numbers in a token."""
        return sum(model.config.hidden_size for _, model in self.parts)


class Knowledge(NamedTuple):
    """k = [c ; t] of N pictures, as `knowledge_tokens` makes it (method chapter, eq-knowledge)."""

    tokens: torch.Tensor  # [N, 2 L, H] float32
    mask: torch.Tensor  # [N, 2 L] bool, True = a real token


@lru_cache(maxsize=2)  # one a device
def load_text_encoder(preset: Preset, device: str = "cpu") -> TextEncoder:
    """Tokenizers and text encoders of the preset's diffusion model, in float32.

    The last one stays loaded, and with it what it has read: in a whole run no text is encoded
    twice. KCDPError if they cannot be loaded whole.
    """
    parts: list[tuple[CLIPTokenizer, Any]] = []
    for name in preset.backbone.text_encoders:
        # The first may come without a projection; a second is there for what it pools, too.
        kind = CLIPTextModelWithProjection if parts else CLIPTextModel
        model = load_part(kind, preset, name).to(device)
        with loading(f"The tokenizer of {preset.diffusion}", preset.diffusion):
            tokenizer = CLIPTokenizer.from_pretrained(
                place(preset.diffusion),
                subfolder=name.replace("text_encoder", "tokenizer"),
                model_max_length=model.config.max_position_embeddings,
            )
        check_words(tokenizer, model.config.vocab_size, preset.diffusion, preset.diffusion)
        parts.append((tokenizer, model))
    return TextEncoder(tuple(parts), preset.backbone, known={})


@torch.no_grad()
def encode_texts(
    texts: Sequence[str], text_encoder: TextEncoder, batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [N, L, H] float32 and bool mask [N, L] of N texts, on the CPU.

    tau of eq-knowledge (method chapter). The mask is True from the start to the end token. What is
    longer than L tokens is cut. What was encoded before is not encoded again.
    """
    known = text_encoder.known
    distinct, rows = _distinct(texts)
    new = [text for text in distinct if text not in known]
    for i in range(0, len(new), batch_size):
        batch = new[i : i + batch_size]
        known.update(zip(batch, _encode(batch, text_encoder), strict=True))
    if not distinct:
        length = text_encoder.tokenizer.model_max_length
        no_mask = torch.zeros(0, length, dtype=torch.bool)
        return torch.zeros(0, length, text_encoder.width), no_mask
    tokens = torch.stack([known[text].tokens for text in distinct])
    mask = torch.stack([known[text].mask for text in distinct])
    return tokens[rows], mask[rows]


def _encode(texts: list[str], text_encoder: TextEncoder) -> list[EncodedText]:
    """One batch through every text encoder."""
    layer = text_encoder.backbone.text_layer
    tokens, masks, pooled = [], [], torch.zeros(len(texts), 0)
    for tokenizer, model in text_encoder.parts:
        batch = tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )
        output = model(batch.input_ids.to(model.device), output_hidden_states=layer is not None)
        states = output.last_hidden_state if layer is None else output.hidden_states[layer]
        tokens.append(states.float().cpu())
        masks.append(batch.attention_mask.bool())
        if text_encoder.backbone.pooled_text and "text_embeds" in output:
            pooled = output.text_embeds.float().cpu()
    together = zip(torch.cat(tokens, -1), masks[0], pooled, strict=True)
    return [EncodedText(*of_text) for of_text in together]


def pooled_captions(
    captions: Sequence[str], recipe: Recipe, text_encoder: TextEncoder
) -> torch.Tensor | None:
    """Each caption as one vector, [N, P] float32; None for a backbone that does not ask for it.

    For the chapter "Full size". A recipe that leaves the captions out reads empty ones.
    """
    if not text_encoder.backbone.pooled_text:
        return None
    captions, _ = known_texts(captions, [[]] * len(captions), recipe)
    encode_texts(captions, text_encoder)
    return torch.stack([text_encoder.known[caption].pooled for caption in captions])


def _distinct(items: Sequence) -> tuple[list, torch.Tensor]:
    """The different items in order of appearance, and for each item the row of its like."""
    places = {item: row for row, item in enumerate(dict.fromkeys(items))}
    return list(places), torch.tensor([places[item] for item in items], dtype=torch.long)


def knowledge_tokens(
    captions: Sequence[str],
    triplets: Sequence[Sequence[Triplet]],
    recipe: Recipe,
    text_encoder: TextEncoder,
) -> Knowledge:
    """The knowledge k = [c ; t] of N pictures, tokens [N, 2 L, H] and mask [N, 2 L].

    Method chapter, eq-knowledge; paper, figure 2, left. First the caption's L tokens, then the L
    tokens of all its triplets together. "spaced": each triplet is encoded alone and the encodings
    are averaged position by position over the triplets that reach it; the mask is their union,
    empty without triplets. "glued": written without spaces and summed, padding included; without
    triplets the caption stands in again, and nothing is masked, because padding is text like any
    other there. A recipe that leaves a part of the knowledge out reads an empty caption, or no
    triplets.
    """
    captions, triplets = known_texts(captions, triplets, recipe)
    caption_tokens, caption_mask = encode_texts(captions, text_encoder)
    glued = recipe.triplet_text == "glued"
    owners = torch.tensor(
        [row for row, of_row in enumerate(triplets) for _ in of_row], dtype=torch.long
    )
    texts, places = _distinct(
        [("" if glued else " ").join(triplet) for of_row in triplets for triplet in of_row]
    )
    tokens, mask = encode_texts(texts, text_encoder)
    # A picture's triplets are summed by one product with the sparse [N, texts] table of who holds
    # what; no [triplets, L, H] copy is made.
    holds = torch.sparse_coo_tensor(
        torch.stack([owners, places]),
        torch.ones(len(places)),
        (len(captions), len(texts)),
        check_invariants=True,
    ).coalesce()
    if glued:
        none = torch.tensor([not of_row for of_row in triplets], dtype=torch.bool)[:, None, None]
        triplet_tokens = torch.where(none, caption_tokens, _sparse_product(holds, tokens))
        caption_mask = triplet_mask = torch.ones_like(caption_mask)
    else:
        counts = _sparse_product(holds, mask.float())
        sums = _sparse_product(holds, tokens * mask[..., None])
        triplet_tokens = sums / counts.clamp(min=1)[..., None]
        triplet_mask = counts > 0
    return Knowledge(
        torch.cat([caption_tokens, triplet_tokens], 1), torch.cat([caption_mask, triplet_mask], 1)
    )


def with_feelings(caption: str, felt: str) -> str:
    """A caption behind its feelings: "feeling sad , gloomy and unhappy , a photo of a cat .".

    Method chapter, eq-caption. The words are those of `vision_language.feelings`. They come first
    because the text encoder is causal: every token that follows has read them.
    """
    return f"feeling {felt} , {caption}"


def without_feelings(caption: str) -> str:
    """The caption as the VLM wrote it, `with_feelings` undone (method chapter, eq-caption)."""
    return FELT.sub("", caption)


def known_texts(
    captions: Sequence[str], triplets: Sequence[Sequence[Triplet]], recipe: Recipe
) -> tuple[Sequence[str], Sequence[Sequence[Triplet]]]:
    """What a recipe lets be known of N pictures (chapter "A fair comparison").

    Captions and triplets as they are, or without one of them or both, or each picture's from its
    neighbour.
    """
    no_captions = [""] * len(captions)
    no_triplets: list[list[Triplet]] = [[]] * len(triplets)
    match recipe.knowledge:
        case "both":
            return captions, triplets
        case "caption":
            return captions, no_triplets
        case "triplets":
            return no_captions, triplets
        case "none":
            return no_captions, no_triplets
        case "another":
            return [*captions[-1:], *captions[:-1]], [*triplets[-1:], *triplets[:-1]]
        case unknown:
            assert_never(unknown)


def _sparse_product(table: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[N, M] sparse times [M, ...] -> [N, ...]."""
    if not len(values):
        return values.new_zeros(table.shape[0], *values.shape[1:])
    return torch.sparse.mm(table, values.flatten(1)).unflatten(1, values.shape[1:])
