"""Choosing among trained candidates without a target label (chapter "A fair comparison"): numbers from the target's unlabelled training pictures alone, larger is better.

Epochs and weights have to be chosen somehow, and who chooses by target labels has used them. The same rule serves every method.
"""
from __future__ import annotations

from typing import Sequence

import numpy as np

NEIGHBOURS = 0.05    # temperature of `density`, its authors'


def certainty(probs: np.ndarray) -> float:
    """Minus the mean entropy, in nats, of probabilities [N, C]: sure answers. A model that always gives the same answer is sure, too."""
    return float((probs * np.log(np.maximum(probs, 1e-9))).sum(1).mean())


def information(probs: np.ndarray) -> float:
    """What an answer says about which picture was asked, in nats: the entropy of the mean of probabilities [N, C] less their mean entropy. Sure, and not always the same."""
    mean = probs.mean(0)
    return certainty(probs) - float((mean * np.log(np.maximum(mean, 1e-9))).sum())


def density(probs: np.ndarray) -> float:
    """Soft neighbourhood density (Saito et al. 2021): the mean entropy, in nats, of whom each of the probabilities [N, C] is near to, by cosine. High where answers lie in wide clusters."""
    unit = probs / np.linalg.norm(probs, axis=1, keepdims=True)
    near = unit @ unit.T / NEIGHBOURS
    np.fill_diagonal(near, -np.inf)
    near = np.exp(near - near.max(1, keepdims=True))
    near /= near.sum(1, keepdims=True)
    return float(-(near * np.log(np.maximum(near, 1e-12))).sum(1).mean())


CRITERIA = {"certainty": certainty, "information": information, "density": density}
CHOICE = "information"    # taken on the development pairs (`benchmarks/grid.py develop`)


def choose(candidates: Sequence[dict], criterion: str) -> dict:
    """The candidate whose entry of that name is largest; the first of equals."""
    return max(candidates, key=lambda candidate: candidate[criterion])
