"""Knowledge: what is said about a picture, as tokens (chapter 02; paper, figure 2, left).

Caption and triplets -> k = [caption ; triplets], by the diffusion model's own text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from kcdp_lib.config import Preset, Recipe
from kcdp_lib.loading import check_words, load_part, loading, place
from kcdp_lib.triplets import Triplet


class TextEncoder(NamedTuple):
    """The diffusion model's frozen CLIP text encoder, tau of eq-knowledge (method chapter).

    The tokenizer's model_max_length is L.
    """

    tokenizer: CLIPTokenizer
    model: CLIPTextModel
    known: dict[
        str, tuple[torch.Tensor, torch.Tensor]
    ]  # text -> tokens [L, H] and mask [L], of all that was encoded so far


class Knowledge(NamedTuple):
    """k = [c ; t] of N pictures, as `knowledge_tokens` makes it (method chapter, eq-knowledge)."""

    tokens: torch.Tensor  # [N, 2 L, H] float32
    mask: torch.Tensor  # [N, 2 L] bool, True = a real token


@lru_cache(maxsize=2)  # one a device
def load_text_encoder(preset: Preset, device: str = "cpu") -> TextEncoder:
    """Tokenizer and text encoder of the preset's diffusion model, in float32.

    KCDPError if they cannot be loaded whole.

    The last one stays loaded, and with it what it has read: in a whole run no text is encoded
    twice.
    """
    model = load_part(CLIPTextModel, preset, "text_encoder").to(device)
    with loading(f"The tokenizer of {preset.diffusion}", preset.diffusion):
        tokenizer = CLIPTokenizer.from_pretrained(
            place(preset.diffusion),
            subfolder="tokenizer",
            model_max_length=model.config.max_position_embeddings,
        )
    check_words(tokenizer, model.config.vocab_size, preset.diffusion, preset.diffusion)
    return TextEncoder(tokenizer, model, known={})


@torch.no_grad()
def encode_texts(
    texts: Sequence[str], text_encoder: TextEncoder, batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [N, L, H] float32 and bool mask [N, L] (True from the start to the end token) of N
    texts, on the CPU: tau of eq-knowledge (method chapter).

    What is longer than L tokens is cut. What was encoded before is not encoded again.
    """
    tokenizer, model, known = text_encoder
    distinct, rows = _distinct(texts)
    new, length = [text for text in distinct if text not in known], tokenizer.model_max_length
    for i in range(0, len(new), batch_size):
        batch = tokenizer(
            new[i : i + batch_size],
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        tokens = model(batch.input_ids.to(model.device)).last_hidden_state.float().cpu()
        known.update(zip(new[i : i + batch_size], zip(tokens, batch.attention_mask.bool())))
    if not distinct:
        return torch.zeros(0, length, model.config.hidden_size), torch.zeros(
            0, length, dtype=torch.bool
        )
    tokens, masks = zip(*(known[text] for text in distinct))
    return torch.stack(tokens)[rows], torch.stack(masks)[rows]


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
    """k = [c ; t] of N pictures, tokens [N, 2 L, H] and mask [N, 2 L] (method chapter,
    eq-knowledge; paper, figure 2, left).

    First the caption's L tokens, then the L tokens of all its triplets together. "spaced": each
    triplet is encoded alone and the encodings are averaged position by position over the triplets
    that reach it; the mask is their union, empty without triplets. "glued": written without spaces
    and summed, padding included; without triplets the caption stands in again, and nothing is
    masked, because padding is text like any other there. A recipe that leaves a part of the
    knowledge out reads an empty caption, or no triplets.
    """
    captions, triplets = told(captions, triplets, recipe)
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
        summed = torch.where(none, caption_tokens, _sparse_product(holds, tokens))
        caption_mask = reached = torch.ones_like(caption_mask)
    else:
        reach = _sparse_product(holds, mask.float())
        summed, reached = (
            _sparse_product(holds, tokens * mask[..., None]) / reach.clamp(min=1)[..., None],
            reach > 0,
        )
    return Knowledge(torch.cat([caption_tokens, summed], 1), torch.cat([caption_mask, reached], 1))


def told(
    captions: Sequence[str], triplets: Sequence[Sequence[Triplet]], recipe: Recipe
) -> tuple[Sequence[str], Sequence[Sequence[Triplet]]]:
    """What a recipe lets be known of N pictures.

    Captions and triplets as they are, or without one of them or both, or each picture's from its
    neighbour (chapter "A fair comparison").
    """
    if recipe.knowledge == "another":
        return [*captions[-1:], *captions[:-1]], [*triplets[-1:], *triplets[:-1]]
    return (
        captions if recipe.knowledge in ("both", "caption") else [""] * len(captions),
        triplets if recipe.knowledge in ("both", "triplets") else [[]] * len(triplets),
    )


def _sparse_product(table: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[N, M] sparse times [M, ...] -> [N, ...]."""
    if not len(values):
        return values.new_zeros(table.shape[0], *values.shape[1:])
    return torch.sparse.mm(table, values.flatten(1)).unflatten(1, values.shape[1:])
