"""Joint loss and training loop, for one or several processes, resumable after a kill (chapter 05).

L = L_sup(source) + L_ccl(source) + L_ce(target, pseudo-labels) + the experts' balance term (method
chapter, eq-total).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState

from kcdp_lib import checkpoints, processes
from kcdp_lib.adapt.model import KCDP, Batch, autocast, gather, sent
from kcdp_lib.adapt.peers import Peer
from kcdp_lib.config import Config, Recipe, pick_precision
from kcdp_lib.counterfactuals import PseudoLabeller, counterfactual_loss
from kcdp_lib.paths import progress
from kcdp_lib.perception import Perception, load_trainable, trainable_state_dict
from kcdp_lib.precompute import Frozen
from kcdp_lib.tokens import used_positions

BALANCE_WEIGHT = 0.1
CONSTANT_RATE = 1e-5  # the released code's, never changed
WARM_UP = 0.1  # share of the steps in which the learning rate rises
WEIGHT_DECAY = 0.01
CLIP = 1.0  # largest gradient norm; ours, the paper gives none
SAVE_SECONDS = 300  # between two checkpoints within an epoch


@dataclass
class Trained:
    """Result of a training (chapter 05)."""

    model: KCDP
    history: list[dict]  # the numbers of every step
    pseudo_labels: np.ndarray | None  # [N] of the target, -1: none; None if unused


def source_loss(
    perception: Perception, similarities: torch.Tensor, labels: torch.Tensor, recipe: Recipe
) -> tuple[torch.Tensor, dict]:
    """Return L_sup + L_ccl + balance [] on a source batch, and its parts as tensors [] by name.

    See eq-total in the method chapter. similarities [B, C] (cosines); labels are int64 classes [B],
    or float32 shares [B, C]. Cross-entropies are means in nats, the accuracy is a share.
    """
    emotion = F.cross_entropy(perception.logits, labels)
    alignment = counterfactual_loss(similarities, labels) * (recipe.alignment != "none")
    total = recipe.source_loss_count * emotion + alignment + BALANCE_WEIGHT * perception.balance
    return total, {
        "source_loss": emotion,
        "alignment_loss": alignment,
        "balance": perception.balance,
        "source_accuracy": accuracy(perception.logits, labels),
    }


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the share [] of right predictions (chapter 05).

    Compares logits [B, C] with classes [B], or with the most probable class of shares [B, C].
    """
    classes = labels if labels.ndim == 1 else labels.argmax(-1)
    return (logits.argmax(-1) == classes).float().mean()


def target_loss(
    perception: Perception, labels: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return L_ce on pseudo-labels [B] plus the balance term, and L_ce alone, both [].

    See eq-total in the method chapter. Only trusted labels count, kept [B] bool. The mean is over
    the whole batch, as in FixMatch: few trusted labels weigh little.
    """
    losses = F.cross_entropy(perception.logits, labels, reduction="none")
    emotion = (losses * kept).mean()
    return emotion + BALANCE_WEIGHT * perception.balance, emotion


def train(
    config: Config,
    source: Frozen,
    labels: np.ndarray,
    target: Frozen | None,
    checkpoint: Path,
    key: str,
    device: str = "cpu",
    desc: str = "KCDP",
    peer: type[Peer] | None = None,
    target_weight: float = 1.0,
    after_epoch: Callable[[KCDP, int], None] | None = None,
    knowledge: bool = True,
) -> Trained:
    """Train on frozen source pictures with `labels`, and on the target's if given.

    labels are int64 classes [N], or float32 shares [N, C] of the classes. The target comes as
    pictures alone, without names, paths or labels.

    The loss is eq-total (method chapter), the optimizer AdamW. Every process takes its share of
    each batch (`kcdp_lib.processes`). Every epoch and every step has its seed. A checkpoint
    marked with `key` is written after each epoch and every few minutes, so a killed run resumes to
    exactly the same numbers. A peer method replaces L_ccl and L_ce; target_weight multiplies its
    loss, or L_ce. after_epoch(model, epochs done) may inspect the model; a resumed run does not
    call it for earlier epochs. knowledge: False if the pictures come without knowledge; the model
    stores this.
    """
    epochs = config.run_epochs
    torch.manual_seed(config.seed)
    model, optimizer, accelerator = set_up(config, device, knowledge, aligned=peer is None)
    labeller: PseudoLabeller | None = None
    other: Peer | None = None
    if target is not None and peer is not None:
        other = peer(model.kadap.experts, len(target)).to(device)
    elif target is not None:
        labeller = pseudo_labeller(config, labels, target, device)
    answers = torch.as_tensor(np.asarray(labels), device=device)
    answers = answers.float() if answers.ndim == 2 else answers.long()
    if other:
        optimizer.add_param_group({"params": list(other.parameters())})
    state = model, other or labeller, optimizer, accelerator
    done, history = resume(checkpoint, key, *state)
    steps = steps_per_epoch(len(source), config)

    def take(step: int, rows: torch.Tensor, target_rows: torch.Tensor) -> dict:
        """Compute the gradients of one step, and return its numbers."""
        fraction = step / (steps * epochs)
        # A target picture weighs as much as one of the source, however few there are
        share = len(target_rows) / len(rows)
        if target is None or not (other or len(target_rows)):
            return source_step(model, source, answers, rows, config, accelerator)
        both = source, answers, rows, target, target_rows, fraction
        if other:
            return peer_step(model, other, *both, accelerator, target_weight, share)
        assert labeller, "a target is given to KCDP or to a peer"
        return both_steps(model, labeller, *both, config, accelerator, target_weight * share)

    saved = time.monotonic()
    for epoch in range(done // steps, epochs):
        torch.manual_seed(config.seed + 1_000_003 * (epoch + 1))
        order = batches(len(source), steps, config)
        target_order = None if target is None else batches(len(target), steps, config)
        model.train()
        last = (epoch + 1) * steps
        for step in progress(
            range(max(done, epoch * steps), last), f"{desc}, epoch {epoch + 1} of {epochs}"
        ):
            # so that a step's random numbers, as of FixMatch's views, are those of a resumed run
            torch.manual_seed(config.seed + 2_000_003 * (step + 1))
            set_learning_rate(optimizer, step, steps * epochs, config)
            rows = order[step % steps]
            target_rows = rows[:0] if target_order is None else target_order[step % steps]
            history.append({"step": step, **take(step, rows, target_rows)})
            update(optimizer, accelerator)
            due = step + 1 == last or time.monotonic() - saved > SAVE_SECONDS
            if due and accelerator.is_main_process:
                fetch(history)
                save_checkpoint(checkpoint, key, step + 1, history, *state)
                saved = time.monotonic()
        if after_epoch:
            after_epoch(model, epoch + 1)
    pseudo_labels = None
    if labeller is not None:
        final = labeller.all(1.0)
        pseudo_labels = torch.where(final.kept, final.labels, -1).cpu().numpy()
    fetch(history)
    return Trained(model.eval(), history, pseudo_labels)


def fetch(history: list[dict]) -> None:
    """Replace numbers of steps that are still on the device by floats, in place.

    NaN becomes None. All numbers are fetched together, each once: waiting for every single one
    would keep a GPU from working ahead.
    """
    waiting = [
        (row, name) for row in history for name, value in row.items() if torch.is_tensor(value)
    ]
    if not waiting:
        return
    values = torch.stack([row[name] for row, name in waiting]).tolist()
    for (row, name), value in zip(waiting, values, strict=True):
        row[name] = None if math.isnan(value) else value


def set_up(
    config: Config, device: str, knowledge: bool = True, aligned: bool = True
) -> tuple[KCDP, torch.optim.Optimizer, Accelerator]:
    """Return a fresh model (seed torch first), an optimizer of its trained weights, and Accelerate.

    Accelerate has the run's precision; knowledge and aligned as in `KCDP`. Raises KCDPError if a
    frozen model cannot be loaded whole.
    """
    precision = pick_precision(config.precision, device)
    model = KCDP(
        config.sizes, config.switches, device, config.classes, knowledge, aligned, precision
    )
    if config.checkpointing:
        # diffusers' checkpointing is not reentrant, so maps taken inside keep their gradient
        model.kadap.unet.enable_gradient_checkpointing()
    accelerator = processes.accelerator(precision, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=WEIGHT_DECAY, fused=True)
    return model, accelerator.prepare(optimizer), accelerator


def pseudo_labeller(
    config: Config, labels: np.ndarray, target: Frozen, device: str
) -> PseudoLabeller:
    """Return the target's labeller, which knows the class shares of the source's labels.

    The labels are classes [N] or shares [N, C] (method chapter, eq-pseudo).
    """
    classes = len(config.classes)
    counts = np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(0)
    shares = counts / len(labels)
    prior = torch.as_tensor(shares, dtype=torch.float32)
    return PseudoLabeller(len(target), classes, config.switches, source_prior=prior).to(device)


def of_source(
    model: KCDP, batch: Batch, labels: torch.Tensor, config: Config, accelerator: Accelerator
) -> tuple[torch.Tensor, dict]:
    """Return the source's loss [] on a batch, and its parts (method chapter, eq-total).

    labels: int64 classes [B], or float32 shares [B, C].
    """
    with autocast(model.device, accelerator.mixed_precision):
        perception, similarities = model(*batch, domain="source")
    return source_loss(_float(perception), similarities.float(), labels, config.switches)


def of_target(
    model: KCDP,
    labeller: PseudoLabeller,
    batch: Batch,
    rows: torch.Tensor,
    done: float,
    accelerator: Accelerator,
) -> tuple[torch.Tensor, dict]:
    """Label a target batch, int64 rows [B]; return its loss [], and the parts as tensors [].

    See eq-pseudo and eq-total in the method chapter. Without a trusted label the loss is zero.
    done: fraction of the training, 0 to 1.
    """
    with autocast(model.device, accelerator.mixed_precision):
        perception, similarities = model(*batch)
    opinion = model.label(perception, similarities, batch.embeddings).detach()
    (everyones, probs), mine = processes.gathered(sent(rows, model.device), opinion)
    # Every process notes all predictions, so that their memories stay the same.
    pseudo = labeller.note(everyones, probs, done)
    total, emotion = target_loss(_float(perception), pseudo.labels[mine], pseudo.kept[mine])
    coverage = pseudo.kept[mine].float().mean()
    return total * pseudo.kept.any(), {"target_loss": emotion, "coverage": coverage}


def source_step(
    model: KCDP,
    source: Frozen,
    answers: torch.Tensor,
    rows: torch.Tensor,
    config: Config,
    accelerator: Accelerator,
) -> dict:
    """Compute the gradients of the source's loss on int64 rows [B]; return its parts, tensors [].

    See eq-total in the method chapter. answers: int64 classes [N] or float32 shares [N, C] of all N
    source pictures.
    """
    sums: dict[str, torch.Tensor] = {}
    for piece, share in processes.shares(rows, config.accumulation):
        batch = gather(source, piece, model.device)
        labels = answers[sent(piece, model.device)]
        total, parts = of_source(model, batch, labels, config, accelerator)
        accelerator.backward(share * total)
        add(sums, parts, share)
    return means(sums)


def target_step(
    model: KCDP,
    labeller: PseudoLabeller,
    target: Frozen,
    rows: torch.Tensor,
    done: float,
    config: Config,
    accelerator: Accelerator,
    weight: float = 1.0,
) -> dict:
    """Label one target batch, int64 rows [B], and add the gradients of its loss.

    See eq-pseudo and eq-total in the method chapter. While no label is trusted, there is no
    backward pass. done: fraction of the training, 0 to 1; weight: of this loss, the batch's size
    over the source batch's, so that a picture weighs the same in both domains. A small target that
    is repeated at full weight would confirm its own first mistakes. Returns L_ce (NaN if no label
    is trusted) and the share of trusted labels, tensors [].
    """
    sums: dict[str, torch.Tensor] = {}
    for piece, share in processes.shares(rows, config.accumulation):
        batch = gather(target, piece, model.device)
        total, parts = of_target(model, labeller, batch, piece, done, accelerator)
        if not labeller.waits(done):
            accelerator.backward(weight * share * total)
        add(sums, parts, share)
    return means(sums)


def both_steps(
    model: KCDP,
    labeller: PseudoLabeller,
    source: Frozen,
    answers: torch.Tensor,
    rows: torch.Tensor,
    target: Frozen,
    target_rows: torch.Tensor,
    done: float,
    config: Config,
    accelerator: Accelerator,
    weight: float = 1.0,
) -> dict:
    """Take `source_step` and `target_step`, on int64 rows [B] of the source and target_rows [M].

    See eq-total in the method chapter. With `one_pass`, the UNet runs once for both domains as soon
    as target labels are trusted, if both batches have the same number of pieces. The numbers are
    the same except for rounding; it takes less time if a batch does not fill the device, and more
    memory.
    """
    pieces = processes.shares(rows, config.accumulation)
    target_pieces = processes.shares(target_rows, config.accumulation)
    together = config.one_pass and len(pieces) == len(target_pieces)
    if not together or labeller.waits(done):
        numbers = source_step(model, source, answers, rows, config, accelerator)
        return numbers | target_step(
            model, labeller, target, target_rows, done, config, accelerator, weight
        )
    sums: dict[str, torch.Tensor] = {}
    for (piece, share), (target_piece, target_share) in zip(pieces, target_pieces, strict=True):
        batch = gather(source, piece, model.device)
        target_batch = gather(target, target_piece, model.device)
        used = used_positions(torch.cat([source.mask[piece], target.mask[target_piece]]))
        with autocast(model.device, accelerator.mixed_precision):
            batch, target_batch = model.look_at_both(batch, target_batch, sent(used, model.device))
        labels = answers[sent(piece, model.device)]
        total, parts = of_source(model, batch, labels, config, accelerator)
        add(sums, parts, share)
        loss, parts = of_target(model, labeller, target_batch, target_piece, done, accelerator)
        add(sums, parts, target_share)
        accelerator.backward(share * total + weight * target_share * loss)
    return means(sums)


def means(sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the means of a batch's parts [] over all processes (chapter "Full size").

    L_ce is NaN if no label of the target was trusted.
    """
    numbers = processes.mean_of(sums)
    if "coverage" in numbers:
        trusted = numbers["coverage"] > 0
        numbers["target_loss"] = torch.where(trusted, numbers["target_loss"], torch.nan)
    return numbers


def add(sums: dict[str, torch.Tensor], parts: dict[str, torch.Tensor], share: float) -> None:
    """Add a share of each part [] of a piece to the sums over its batch (chapter "Full size")."""
    for name, value in parts.items():
        sums[name] = sums.get(name, 0.0) + share * value.detach()


def peer_step(
    model: KCDP,
    peer: Peer,
    source: Frozen,
    answers: torch.Tensor,
    rows: torch.Tensor,
    target: Frozen,
    target_rows: torch.Tensor,
    done: float,
    accelerator: Accelerator,
    weight: float = 1.0,
    share: float = 1.0,
) -> dict:
    """Compute the gradients of a peer method's step (chapter "A fair comparison").

    The loss is the source's cross-entropy, the experts' balance, and `weight` times the peer's own,
    on int64 rows [B] of the source and target_rows [M], perhaps none. share: M / B, which
    multiplies all terms of the target. One process, whole batches.
    """
    with autocast(model.device, accelerator.mixed_precision):
        perception = model.kadap(*gather(source, rows, model.device), domain="source")
        adapted = None
        if len(target_rows):
            batch = gather(target, target_rows, model.device)
            adapted = model.kadap(*batch, domain="target")
    labels = answers[sent(rows, model.device)]
    emotion = F.cross_entropy(perception.logits.float(), labels)
    total, own = emotion + BALANCE_WEIGHT * perception.balance, emotion.new_zeros(())
    if done >= peer.source_until:
        # The last layer gets no gradient at all: with a zero gradient, the optimizer's moments
        # would still move it.
        total = 0 * perception.z.sum()
    if adapted:
        own = peer(
            model.kadap.experts,
            _float(perception),
            labels,
            _float(adapted),
            sent(target_rows, model.device),
            done,
        )
        total = total + share * weight * own + share * BALANCE_WEIGHT * adapted.balance
    accelerator.backward(total)
    return {
        "source_loss": emotion.detach(),
        "peer_loss": own.detach(),
        "source_accuracy": accuracy(perception.logits, labels),
    }


def update(optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    """Take one optimizer step on the gradients of a whole batch, and clear them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    processes.average_gradients(parameters)
    accelerator.clip_grad_norm_(parameters, CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _float(perception: Perception) -> Perception:
    """Return a perception in float32 for the losses, whatever the network's precision."""
    parts = {name: getattr(perception, name).float() for name in ("z", "logits", "balance")}
    return dataclasses.replace(perception, **parts)


def steps_per_epoch(pictures: int, config: Config) -> int:
    """Return the number of whole batches in one pass over the source.

    It does not depend on the target's size, so that every variant takes the same steps.
    """
    usable = pictures if config.switches.shuffled else max(1, pictures // 2)
    return max(1, usable // config.sizes.batch_size)


def batches(pictures: int, steps: int, config: Config) -> list[torch.Tensor]:
    """Return the rows of one epoch's batches, int64 [B] each.

    They are shuffled or in stored order, as the recipe says (chapter "Paper, released code and this
    book"). No picture occurs twice in an epoch: fewer pictures than `steps` full batches are spread
    over the steps, at least one for each process, and the last batches may be empty.
    """
    usable = pictures if config.switches.shuffled else max(1, pictures // 2)
    rows = torch.randperm(usable) if config.switches.shuffled else torch.arange(usable)
    full = steps * config.sizes.batch_size
    if usable >= full:
        return list(rows[:full].split(config.sizes.batch_size))
    filled = min(steps, max(1, usable // PartialState().num_processes))
    return [*rows.tensor_split(filled), *[rows[:0]] * (steps - filled)]


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, total: int, config: Config
) -> None:
    """Set the learning rate of a step, as the recipe says.

    Either linear warm-up to the preset's rate and cosine decay by step, or one constant rate.
    """
    warm = max(1, round(WARM_UP * total))
    share = (step + 1) / warm
    if step >= warm:
        share = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    is_constant = config.switches.learning_rate == "constant"
    rate = CONSTANT_RATE if is_constant else share * config.sizes.learning_rate
    for group in optimizer.param_groups:
        group["lr"] = rate


def save_checkpoint(
    path: Path,
    key: str,
    steps: int,
    history: list[dict],
    model: KCDP,
    labeller: PseudoLabeller | Peer | None,
    optimizer,
    accelerator: Accelerator,
) -> None:
    """Write what `resume` needs to continue exactly (`kcdp_lib.checkpoints`)."""
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}
    about = {
        "key": key,
        "steps": str(steps),
        "history": json.dumps(history),
        "scaler": json.dumps(scaler),
    }
    labels = labeller.state_dict() if labeller else {}
    checkpoints.save(path, about, optimizer, model=trainable_state_dict(model), labels=labels)


def resume(
    path: Path,
    key: str,
    model: KCDP,
    labeller: PseudoLabeller | Peer | None,
    optimizer,
    accelerator: Accelerator,
) -> tuple[int, list[dict]]:
    """Load the checkpoint if it belongs to this very training.

    Returns the steps done and their history (0 and [] if there is none).
    """
    about, tensors = checkpoints.read(path)
    if about.get("key") != key:
        return 0, []
    load_trainable(model, checkpoints.part_of(tensors, "model"))
    if labeller is not None:
        labeller.load_state_dict(checkpoints.part_of(tensors, "labels"))
    checkpoints.restore_optimizer(optimizer, tensors)
    if accelerator.scaler:
        accelerator.scaler.load_state_dict(json.loads(about["scaler"]))
    return int(about["steps"]), json.loads(about["history"])
