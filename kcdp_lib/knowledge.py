"""Knowledge: what is said about a picture, as tokens (chapter 02; paper, figure 2, left).

The diffusion model's own text encoder encodes both parts of k = [caption ; triplets].
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

KEPT = 4096  # encoded texts that stay in memory
FELT = re.compile(r"^feeling \S+ , \S+ and \S+ , ")  # the prefix of `with_feelings`


class EncodedText(NamedTuple):
    """Encoding of one text, on the CPU: tau of eq-knowledge (method chapter)."""

    tokens: torch.Tensor  # [L, H] float32
    mask: torch.Tensor  # [L] bool, True from the start to the end token
    pooled: torch.Tensor  # [P] float32, empty unless the backbone reads it


class TextEncoder(NamedTuple):
    """The diffusion model's frozen CLIP text encoder, tau of eq-knowledge (method chapter).

    Stable Diffusion XL has two, whose tokens are concatenated along H. The first tokenizer's
    model_max_length is L.
    """

    parts: tuple[tuple[CLIPTokenizer, Any], ...]
    backbone: Backbone
    known: dict[str, EncodedText]  # all texts encoded so far

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The first tokenizer; its positions are those of k."""
        return self.parts[0][0]

    @property
    def model(self) -> Any:
        """The first text encoder."""
        return self.parts[0][1]

    @property
    def width(self) -> int:
        """H, the width of a token."""
        return sum(model.config.hidden_size for _, model in self.parts)


class Knowledge(NamedTuple):
    """k = [c ; t] of N pictures, from `knowledge_tokens` (method chapter, eq-knowledge)."""

    tokens: torch.Tensor  # [N, 2 L, H] float32
    mask: torch.Tensor  # [N, 2 L] bool, True = a real token


@lru_cache(maxsize=2)  # one per device
def load_text_encoder(preset: Preset, device: str = "cpu") -> TextEncoder:
    """Load the tokenizers and text encoders of the preset's diffusion model, in float32.

    The last one stays in memory with its latest texts, so that hardly any is encoded twice.
    KCDPError if a part cannot be loaded completely.
    """
    parts: list[tuple[CLIPTokenizer, Any]] = []
    for name in preset.backbone.text_encoders:
        # Only the second needs its projection, because only its pooled output is used.
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
    """Encode N texts: tokens [N, L, H] float32 and bool mask [N, L], on the CPU.

    This is tau of eq-knowledge (method chapter). The mask is True from the start token to the end
    token. Texts are truncated at L tokens. Texts that were encoded before are not encoded again.
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
    known.update({text: known.pop(text) for text in distinct})  # now the latest
    for text in list(known)[:-KEPT]:
        del known[text]
    return tokens[rows], mask[rows]


def _encode(texts: list[str], text_encoder: TextEncoder) -> list[EncodedText]:
    """Run one batch through every text encoder."""
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
    """Return each caption as one vector, [N, P] float32; None for a backbone that does not read it.

    See the chapter "Full size". A recipe without captions uses empty ones.
    """
    if not text_encoder.backbone.pooled_text:
        return None
    captions, _ = known_texts(captions, [[]] * len(captions), recipe)
    encode_texts(captions, text_encoder)
    return torch.stack([text_encoder.known[caption].pooled for caption in captions])


def _distinct(items: Sequence) -> tuple[list, torch.Tensor]:
    """Return the distinct items in order of appearance, and the row of each item among them."""
    places = {item: row for row, item in enumerate(dict.fromkeys(items))}
    return list(places), torch.tensor([places[item] for item in items], dtype=torch.long)


def knowledge_tokens(
    captions: Sequence[str],
    triplets: Sequence[Sequence[Triplet]],
    recipe: Recipe,
    text_encoder: TextEncoder,
) -> Knowledge:
    """Return the knowledge k = [c ; t] of N pictures, tokens [N, 2 L, H] and mask [N, 2 L].

    Method chapter, eq-knowledge; paper, figure 2, left. The caption's L tokens come first, then L
    tokens for all its triplets together. A recipe that omits captions or triplets uses empty ones.

    "spaced": each triplet is encoded alone, and each position is averaged over the triplets that
    reach it; the mask is the union of their masks, empty without triplets. "glued": triplets are
    written without spaces, and their encodings are summed, padding included; without triplets the
    caption's tokens are repeated. "glued" masks nothing, because it treats padding as text.
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
    # The sparse [N, texts] table says which picture has which triplet. One product with it sums
    # the triplets of each picture, without a [triplets, L, H] copy.
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
    """Put feelings before a caption: "feeling sad , gloomy and unhappy , a photo of a cat .".

    Method chapter, eq-caption. `felt` comes from `vision_language.feelings`. The words come first
    because the text encoder is causal: every later token can read them.
    """
    return f"feeling {felt} , {caption}"


def without_feelings(caption: str) -> str:
    """Undo `with_feelings`: return the caption as the VLM wrote it (method chapter, eq-caption)."""
    return FELT.sub("", caption)


def known_texts(
    captions: Sequence[str], triplets: Sequence[Sequence[Triplet]], recipe: Recipe
) -> tuple[Sequence[str], Sequence[Sequence[Triplet]]]:
    """Return the captions and triplets that a recipe uses (chapter "A fair comparison").

    They are unchanged, without one or both kinds, or those of each picture's neighbour.
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
    """Multiply a sparse [N, M] by [M, ...] to [N, ...]."""
    if not len(values):
        return values.new_zeros(table.shape[0], *values.shape[1:])
    return torch.sparse.mm(table, values.flatten(1)).unflatten(1, values.shape[1:])
