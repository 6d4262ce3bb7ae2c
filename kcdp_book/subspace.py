"""CESA: image and text in a shared subspace found by CCA, with their alignment measured by CKA.

It replaces CLIEA's learned projection by a closed form (KCDP++, the authors' later work; chapter
"What each part of the method contributes"). No more is known of KCDP++; the dimensions and the
features that are projected are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kcdp_lib.counterfactuals import similarity_probs
from kcdp_lib.precompute import Frozen

BEFORE, SHARED = 64, 16  # dimensions kept on each side, and of the subspace


@dataclass
class Subspace:
    """Predictions probs [N, C], and the CKA of image and text.

    The CKA (0 to 1) is measured on the source's training pictures, before CCA and in the subspace.
    """

    probs: np.ndarray
    cka_before: float
    cka: float


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Return the linear centred kernel alignment (Kornblith et al. 2019) of two sets of features.

    x [N, D] and y [N, M] belong to the same N pictures. 0: nothing in common; 1: the same up to
    rotation and scale.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def readings(
    tokens: torch.Tensor, mask: torch.Tensor, prompt_tokens: torch.Tensor, prompt_mask: torch.Tensor
) -> np.ndarray:
    """Return the counterfactual texts [N, C, H] without CLIEA's attention.

    Each is the mean over the tokens of [prompt_c ; k]. tokens [N, T, H], prompt_tokens [C, L, H],
    with bool masks.
    """
    said, prompts = (
        (tokens * mask[..., None]).sum(1),
        (prompt_tokens * prompt_mask[..., None]).sum(1),
    )
    return (
        (said[:, None] + prompts) / (mask.sum(1)[:, None, None] + prompt_mask.sum(1)[:, None])
    ).numpy()


def align(
    source: Frozen,
    labels: np.ndarray,
    target: Frozen,
    asked: Frozen,
    prompt_tokens: torch.Tensor,
    prompt_mask: torch.Tensor,
    interventions: bool,
) -> Subspace:
    """Fit CCA between the source pictures' VLM embeddings and the texts of their true emotions.

    The prediction for a picture of `asked` is the one of its C counterfactual texts that lies
    nearest in the subspace.

    labels [M] are the source's. Pictures are standardised by domain, the target's by its unlabelled
    training pictures. interventions: use only what the intervention on the prompt changes, that is,
    the texts minus their mean over the C prompts. Otherwise picture and text share mostly what the
    picture shows, not the emotion.
    """
    scale = {
        name: StandardScaler().fit(of.embeddings[:].numpy())
        for name, of in (("source", source), ("target", target))
    }
    taught, looked = (
        scale["source"].transform(source.embeddings[:].numpy()),
        scale["target"].transform(asked.embeddings[:].numpy()),
    )
    texts, others = (
        readings(of.tokens[:], of.mask[:], prompt_tokens, prompt_mask) for of in (source, asked)
    )
    if interventions:
        texts, others = (of - of.mean(1, keepdims=True) for of in (texts, others))
    factual = texts[np.arange(len(labels)), labels]
    image = PCA(BEFORE, random_state=0).fit(taught)
    text = make_pipeline(
        StandardScaler(),
        PCA(min(BEFORE, np.linalg.matrix_rank(factual - factual.mean(0))), random_state=0),
    ).fit(factual)
    x, y = image.transform(taught), text.transform(factual)
    shared = CCA(min(SHARED, y.shape[1]), max_iter=500).fit(x, y)
    pictures = shared.transform(image.transform(looked))
    nearest = np.stack(
        [
            _cosine(pictures, shared.transform(x[:1].repeat(len(of), 0), text.transform(of))[1])
            for of in others.swapaxes(0, 1)
        ],
        1,
    )
    return Subspace(
        similarity_probs(torch.from_numpy(nearest)).numpy(), cka(x, y), cka(*shared.transform(x, y))
    )


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(1) / (
        np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    ).clip(1e-12)
