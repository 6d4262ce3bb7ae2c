"""Compare predictors on the same frozen inputs, from a linear probe to KCDP's experts.

A linear probe of KCDP's inputs is ahead of KCDP (chapter "What each part of the method
contributes"). This script changes one thing at a time between the two, on photos to sketches and to
paintings with the development seeds. Each domain is standardised by its own training pictures, and
nothing is adapted otherwise. `python benchmarks/heads.py` takes a few minutes once the maps are
cached, and writes results/heads.json: macro-F1 of every pair and seed for

inputs       k in three parts; the same and the VLM's embeddings; both and the frozen maps; both and
             the maps of other pictures of the domain, a control
logistic     logistic regression, its regularisation chosen by cross-validation on photos
linear       one linear layer, trained like KCDP: AdamW, the preset's rate, its epochs
expert       one of KCDP's experts alone: two layers with a ReLU between them
average      four experts, each with a quarter of the vote
experts      KCDP's: a gate chooses two of four experts for each picture

Trained predictors count twice, after the preset's epochs and after three times as many.
"""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jobs import pooled_maps
from sklearn.preprocessing import StandardScaler
from torch import nn

from kcdp_book import results
from kcdp_lib import metrics, paths
from kcdp_lib.adapt.baselines import frozen_for, knowledge_of, vlm_embeddings
from kcdp_lib.adapt.run import load_all
from kcdp_lib.adapt.training import BALANCE_WEIGHT, WEIGHT_DECAY, batches, set_learning_rate
from kcdp_lib.config import Config
from kcdp_lib.perception import EXPERTS, Experts
from kcdp_lib.precompute import Frozen

TARGETS, SEEDS = ("sketches", "paintings"), (100, 101)
LONGER = 3  # times as many epochs
READ: dict[str, Callable[[Frozen], np.ndarray]] = {
    "k": knowledge_of,
    "vlm": vlm_embeddings,
    "maps": pooled_maps,
    "others' maps": lambda frozen: np.roll(pooled_maps(frozen), 1, axis=0),
}
INPUTS = (("k",), ("k", "vlm"), ("k", "vlm", "maps"), ("k", "vlm", "others' maps"))
Answer = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # x -> logits, balance


def head_of(kind: str, width: int, config: Config) -> tuple[nn.Module, Answer]:
    """Return a predictor of inputs [B, width], and its answer: logits [B, C] and balance []."""
    classes, hidden = len(config.classes), config.sizes.expert_channels
    if kind in ("linear", "expert"):
        layers = [nn.Linear(width, classes)]
        if kind == "expert":
            layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
        network = nn.Sequential(*layers)
        return network, lambda x: (network(x), torch.zeros(()))
    experts = Experts(width, hidden, classes, config.switches)

    def chosen(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, logits, _, balance = experts(x)
        return logits, balance

    def average(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gates = torch.full((len(x), EXPERTS), 1 / EXPERTS)
        z = experts.first(x).relu() / EXPERTS
        return experts.classify(z, gates), torch.zeros(())

    return experts, chosen if kind == "experts" else average


def trained(kind: str, longer: int, x: np.ndarray, labels: np.ndarray, config: Config):
    """Train a predictor as KCDP is trained; return its probabilities [M, C] of inputs [M, W]."""
    torch.manual_seed(config.seed)
    network, answer = head_of(kind, x.shape[1], config)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    inputs, answers = torch.as_tensor(x), torch.as_tensor(labels)
    epochs, steps = longer * config.run_epochs, len(labels) // config.sizes.batch_size
    order = [rows for _ in range(epochs) for rows in batches(len(labels), steps, config)]
    for step, rows in enumerate(order):
        set_learning_rate(optimizer, step, len(order), config)
        logits, balance = answer(inputs[rows])
        loss = F.cross_entropy(logits, answers[rows]) + BALANCE_WEIGHT * balance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda asked: answer(torch.as_tensor(asked))[0].softmax(-1).detach().numpy()


def heads_of(config: Config) -> dict[str, Callable]:
    """Return {name: function from inputs and labels of the source to a predictor}."""
    classes = len(config.classes)
    heads = {"logistic": partial(metrics.linear_classifier, classes=classes, seed=config.seed)}
    for kind, longer in itertools.product(("linear", "expert", "average", "experts"), (1, LONGER)):
        heads[f"{kind}, {longer * config.run_epochs} epochs"] = partial(
            trained, kind, longer, config=config
        )
    return heads


def main() -> None:
    """Train every predictor on every input, and write the scores."""
    found: dict[str, dict[str, list[float]]] = {"+".join(inputs): {} for inputs in INPUTS}
    jobs = list(itertools.product(SEEDS, TARGETS))
    for seed, target in paths.progress(jobs, "pairs"):
        config = Config(seed=seed, target=target, recipe="best, trained=heads").check()
        source, unlabelled, _, test = load_all(config)
        frozen = [frozen_for("full", one, config, "cpu") for one in (source, unlabelled, test)]
        known = {}
        for name, read in READ.items():
            taught, seen, asked = map(read, frozen)
            of_source, of_target = (StandardScaler().fit(of) for of in (taught, seen))
            known[name] = of_source.transform(taught), of_target.transform(asked)
        for inputs in INPUTS:
            taught, asked = (
                np.concatenate(of, 1).astype(np.float32)
                for of in zip(*(known[name] for name in inputs), strict=True)
            )
            for name, head in heads_of(config).items():
                probs = head(taught, source.labels)(asked)
                score = metrics.scores(test.labels, probs, config.classes, seed)["macro_f1"]
                found["+".join(inputs)].setdefault(name, []).append(score)
    for inputs, scores in found.items():
        for name, values in scores.items():
            print(f"{inputs:20} {name:20} {np.mean(values):.3f}", *(f"{f1:.3f}" for f1 in values))
    pairs = [f"photos -> {target}, seed {seed}" for seed, target in jobs]
    results.write("heads", {"pairs": pairs, "macro_f1": found})


if __name__ == "__main__":
    main()
