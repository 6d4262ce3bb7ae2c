"""Familiarity of a picture: whether the vision-language model was trained on anything like it.

`kcdp_lib.pretrain.familiar` writes the distribution of known pictures' image features to
`familiar.safetensors`, beside the model's weights. A model without that file has no such measure.
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

# One known picture in a hundred counts as unfamiliar, too. A smaller share would let more pictures
# of other kinds pass, and would rest on a handful of the held-out ones.
UNFAMILIAR = 0.01


class Known(NamedTuple):
    """Gaussian over the F image features of known pictures, isotropic outside its main axes."""

    mean: torch.Tensor  # [F]
    scale: torch.Tensor  # [F], standard deviations
    axes: torch.Tensor  # [K, F], the leading principal directions of standardised features
    spread: torch.Tensor  # [K], standard deviations along them
    rest: torch.Tensor  # [], the standard deviation along every other direction
    distances: torch.Tensor  # [Q], ascending: quantiles over known pictures outside the fit

    def distance(self, features: torch.Tensor) -> torch.Tensor:
        """Return Mahalanobis distances [N], 0 or more, of pictures with image features [N, F]."""
        centred = (features - self.mean) / self.scale
        along = centred @ self.axes.T
        beside = (centred - along @ self.axes) / self.rest
        return ((along / self.spread).square().sum(1) + beside.square().sum(1)).sqrt()

    def familiarity(self, features: torch.Tensor) -> torch.Tensor:
        """Return the share of known pictures at least as far off as each of N, [N], 0 to 1."""
        nearer = torch.searchsorted(self.distances, self.distance(features))
        return (len(self.distances) - nearer) / len(self.distances)


def load_known(preset: Preset) -> Known | None:
    """Load what is known of the training pictures of the preset's VLM; None without a file.

    Raises KCDPError if the file is broken. A file for other weights gives a warning and None.
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
    """Return the share of known pictures at least as far off as each of N pictures, [N], 0 to 1.

    Below `UNFAMILIAR`, a picture is unlike anything that the VLM was trained on. None if this is
    not known.
    """
    if known is None or frozen.embeddings is None:
        return None
    # They begin with the image features (`vision_language.image_features`).
    return known.familiarity(frozen.embeddings[:][:, : len(known.mean)]).numpy()
