"""Operations on padded token sequences, shared by the chapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_FIXED_SHAPES = ContextVar("fixed_shapes", default=False)


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Make no shape depend on the values of a mask inside the context, as an export requires.

    Padding is kept and masked, which only takes more time.
    """
    before = _FIXED_SHAPES.set(True)
    try:
        yield
    finally:
        _FIXED_SHAPES.reset(before)


def _readable(mask: torch.Tensor) -> bool:
    """Return whether a shape may depend on the values of this mask.

    Not on a GPU, where reading them would wait for all queued work.
    """
    return mask.device.type == "cpu" and not _FIXED_SHAPES.get()


def used_positions(mask: torch.Tensor) -> torch.Tensor:
    """Return the indices of the positions that hold a real token in some row.

    bool mask [B, T] -> int64 [n], n <= T; all T with `fixed_shapes` and for a mask on a GPU.

    Padding in every row of a batch is never read, so dropping it only saves time.
    """
    if not _readable(mask):
        return torch.arange(mask.shape[1], device=mask.device)
    return mask.any(dim=0).nonzero().squeeze(1)


def attention_mask(valid: torch.Tensor) -> torch.Tensor | None:
    """Return the mask for attention over padded tokens: bool [B, T] -> [B, 1, 1, T].

    None if no token is padding, because attention without a mask is faster; never None with
    `fixed_shapes` or on a GPU.
    """
    if _readable(valid) and valid.all():
        return None
    return valid[:, None, None]


def last_token(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the last real token of each text: tokens [B, T, H], bool mask [B, T] -> [B, H].

    It is a text encoder's end token, which has read the whole text. A row without real tokens gives
    its first token.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * places).amax(1)
    return tokens.gather(1, last[:, None, None].expand(-1, 1, tokens.shape[2])).squeeze(1)


def caption_end(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the caption's end token [B, H] of k = [caption ; triplets].

    Method chapter, eq-knowledge. Tokens [B, 2 L, H] with bool mask [B, 2 L].
    """
    length = tokens.shape[1] // 2
    return last_token(tokens[:, :length], mask[:, :length])


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over the real tokens: tokens [B, T, H], bool mask [B, T] -> [B, H].

    Rows without real tokens give zeros.

    The means in eq-experts and the mean over tokens in eq-cliea (method chapter).
    """
    weights = mask.to(tokens.dtype)
    return torch.einsum("bt,bth->bh", weights, tokens) / weights.sum(1, keepdim=True).clamp(min=1)


def knowledge_parts(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Summarise k for the experts: means of caption and of triplets, and the caption's end token.

    Method chapter, eq-experts. Tokens [B, 2 L, H] with bool mask [B, 2 L] -> [B, 3 H].
    """
    halves = zip(tokens.chunk(2, 1), mask.chunk(2, 1), strict=True)
    return torch.cat([*(masked_mean(*half) for half in halves), caption_end(tokens, mask)], 1)
