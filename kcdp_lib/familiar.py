"""How familiar a picture is: was the vision-language model trained on anything like it?

Beside its weights may lie `familiar.safetensors`, in which `kcdp_lib.pretrain.familiar` writes down
how the image features of known pictures lie. A model without that file has no such measure.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open

from kcdp_lib.config import Preset
from kcdp_lib.loading import FAMILIAR, loading, model_key, place
from kcdp_lib.precompute import Frozen

# One known picture in a hundred is called unfamiliar, too. A smaller share would let more strange
# pictures pass, and would rest on a handful of the held-out ones.
UNFAMILIAR = 0.01


class Known(NamedTuple):
    """How the F image features of known pictures lie: a Gaussian, flat in its small directions."""

    mean: torch.Tensor  # [F]
    scale: torch.Tensor  # [F], standard deviations
    axes: torch.Tensor  # [K, F], the leading principal directions of standardised features
    spread: torch.Tensor  # [K], standard deviations along them
    rest: torch.Tensor  # [], the standard deviation along every other direction
    distances: torch.Tensor  # [Q], rising: quantiles over known pictures that are not in the fit

    def distance(self, features: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances [N], 0 or more, of pictures with image features [N, F]."""
        centred = (features - self.mean) / self.scale
        along = centred @ self.axes.T
        beside = (centred - along @ self.axes) / self.rest
        return ((along / self.spread).square().sum(1) + beside.square().sum(1)).sqrt()

    def familiarity(self, features: torch.Tensor) -> torch.Tensor:
        """The share of known pictures that are at least as far off as each of N, [N], 0 to 1."""
        nearer = torch.searchsorted(self.distances, self.distance(features))
        return (len(self.distances) - nearer) / len(self.distances)


def load_known(preset: Preset) -> Known | None:
    """What is known of the pictures that the preset's VLM was trained on; None where nothing is.

    KCDPError if the file is broken; one that belongs to other weights costs a warning.
    """
    home = preset.vlm_pretrained or preset.vlm
    with loading(f"What the vision-language model {home} has seen", home):
        path = Path(place(home), FAMILIAR)
        if not path.is_file():
            return None
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
            made_for = (file.metadata() or {}).get("vlm")
        known = Known(**tensors)
    if made_for == model_key(home):
        return known
    warnings.warn(
        f"{path} belongs to other weights and is left aside; python -m kcdp_lib.pretrain --stage "
        "familiar makes it anew.",
        stacklevel=2,
    )
    return None


def familiarity(known: Known | None, frozen: Frozen) -> np.ndarray | None:
    """For each of N pictures the share of known pictures that are at least as far off, [N], 0 to 1.

    Below `UNFAMILIAR` a picture is unlike anything that the VLM was trained on. None where that is
    not known.
    """
    if known is None or frozen.embeddings is None:
        return None
    # They begin with the image features; what follows is of the caption.
    return known.familiarity(frozen.embeddings[:][:, : len(known.mean)]).numpy()
