"""CoCa's next word, computed with a cache of keys and values (chapter 02).

open_clip recomputes the whole text for each of its words. Here every layer keeps the keys and
values of the words already written, and those of the picture, which never change.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


class Layer:
    """One of open_clip's residual attention blocks, with its cache of keys and values.

    block: a layer of attention among words, or, with image_tokens [N, P, W], to a picture.
    """

    def __init__(self, block: Any, image_tokens: torch.Tensor | None = None):
        self.block = block
        self.looks = image_tokens is not None
        self.memory: list[torch.Tensor] = []  # keys and values, [N, heads, T, W / heads] each
        if image_tokens is not None:
            self.memory = self.projected(block.ln_1_kv(image_tokens), 1, 3)

    def projected(self, x: torch.Tensor, first: int, last: int) -> list[torch.Tensor]:
        """Return the projections `first` to `last` - 1 of (query, key, value).

        x [N, T, W] -> [N, heads, T, W / heads] each.
        """
        attention = self.block.attn
        weight = attention.in_proj_weight.chunk(3)[first:last]
        bias = attention.in_proj_bias.chunk(3)[first:last]
        return [
            F.linear(x, w, b).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for w, b in zip(weight, bias, strict=True)
        ]

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output for the newest word of each text, x [N, 1, W]."""
        normed = self.block.ln_1(x)
        if self.looks:
            (query,) = self.projected(normed, 0, 1)
        else:
            query, *new = self.projected(normed, 0, 3)
            known = self.memory or [part[:, :, :0] for part in new]
            self.memory = [torch.cat(pair, 2) for pair in zip(known, new, strict=True)]
        key, value = self.memory
        attended = F.scaled_dot_product_attention(query, key, value)
        attended = self.block.attn.out_proj(attended.transpose(1, 2).flatten(2))
        x = x + self.block.ls_1(attended)
        return x + self.block.ls_2(self.block.mlp(self.block.ln_2(x)))


class Decoder:
    """The text decoder of an open_clip CoCa, writing about N pictures, image_tokens [N, P, W]."""

    def __init__(self, model: Any, image_tokens: torch.Tensor):
        self.text, self.decoder = model.text, model.text_decoder
        self.layers = [Layer(block) for block in self.text.transformer.resblocks]
        for own, looking in zip(self.decoder.resblocks, self.decoder.cross_attn, strict=True):
            self.layers += [Layer(own), Layer(looking, image_tokens)]
        self.written = 0

    def scores(self, ids: torch.Tensor) -> torch.Tensor:
        """Add the newest word of each text, int64 ids [N]; return logits [N, V] of the next one."""
        x = self.text.token_embedding(ids)[:, None] + self.text.positional_embedding[self.written]
        self.written += 1
        for layer in self.layers:
            x = layer.step(x)
        return (self.decoder.ln_final(x) @ self.decoder.text_projection)[:, 0]

    def keep(self, rows: torch.Tensor) -> None:
        """Keep only some of the texts, bool rows [N]."""
        for layer in self.layers:
            layer.memory = [part[rows] for part in layer.memory]
