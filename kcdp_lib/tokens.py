"""Two operations on padded token sequences, shared by the chapters."""

from __future__ import annotations

import torch


def used_positions(mask: torch.Tensor) -> torch.Tensor:
    """Indices of the positions that hold a real token in some row.

    bool mask [B, T] -> int64 [n], n <= T.

    What is padding in every row of a batch is never read, so dropping it before the arithmetic
    changes nothing but the time it takes.
    """
    return mask.any(dim=0).nonzero().squeeze(1)


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real tokens: tokens [B, T, H], bool mask [B, T] -> [B, H].

    Zeros for a row without any.

    The mean of k in eq-experts and the mean over tokens in eq-cliea (method chapter).
    """
    weights = mask.to(tokens.dtype)
    return torch.einsum("bt,bth->bh", weights, tokens) / weights.sum(1, keepdim=True).clamp(min=1)
