"""Other methods of domain adaptation, on KCDP's own perception and knowledge.

See chapter "A fair comparison". Each method reads what KCDP's experts compute: their hidden layer z
and the logits, which are linear in z. It adds one loss to the source's cross-entropy, and perhaps a
few weights; batches, steps, optimizer and learning rates are KCDP's. To add a method, write a class
with a `forward` and enter it in `PEERS`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from kcdp_lib.perception import Experts, Perception


class Peer(nn.Module):
    """Base class of the peer methods (chapter "A fair comparison").

    experts: the experts to adapt; pictures: number N of target pictures.
    """

    source_until = 1.0  # share of the training in which the source's loss counts

    def __init__(self, experts: Experts, pictures: int):
        super().__init__()
        self.pictures = pictures
        self.classes = experts.bias.shape[1]
        self.width = experts.second.shape[0] * experts.second.shape[1]

    def forward(
        self,
        experts: Experts,
        source: Perception,
        labels: torch.Tensor,
        target: Perception,
        rows: torch.Tensor,
        done: float,
    ) -> torch.Tensor:
        """Return the method's own loss [], to minimise beside the source's cross-entropy.

        The source batch has int64 labels [B] or shares [B, C], the target batch has none; rows,
        int64 [B], are its rows among the N target pictures. done: share of the training done, 0 to
        1.
        """
        raise NotImplementedError


class AdaBN(Peer):
    """Standardisation of each domain by its own averages, and no loss (Li et al. 2018).

    It needs target pictures in training. In a recipe without `domain_norm`, it is *source only*.
    """

    def forward(self, experts, source, labels, target, rows, done):
        """Return zero []."""
        return target.logits.sum() * 0


class DANN(Peer):
    """Domain-adversarial training (Ganin et al. 2016).

    A domain classifier learns to tell the domains apart, and its reversed gradient trains the
    features to confuse it.
    """

    def __init__(self, experts: Experts, pictures: int):
        super().__init__(experts, pictures)
        self.judge = perceptron(self.width, 1)

    def forward(self, experts, source, labels, target, rows, done):
        """Return the cross-entropy [] of classifying the domain by z.

        The reversed gradient grows by the paper's schedule.
        """
        return domain_loss(self.judge, source.z, target.z, done)


class CDAN(Peer):
    """Conditional adversarial training (Long et al. 2018).

    The domain classifier reads the outer product of z and the predicted probabilities.
    """

    def __init__(self, experts: Experts, pictures: int):
        super().__init__(experts, pictures)
        self.judge = perceptron(self.width * self.classes, 1)

    def forward(self, experts, source, labels, target, rows, done):
        """Return the cross-entropy [] of classifying the domain by z and the probabilities.

        The probabilities are the predicted ones, and get no gradient from it.
        """

        def conditioned(perception: Perception) -> torch.Tensor:
            probs = perception.logits.softmax(-1).detach()
            return torch.einsum("bz,bc->bzc", perception.z, probs).flatten(1)

        return domain_loss(self.judge, conditioned(source), conditioned(target), done)


class MCC(Peer):
    """Minimum class confusion (Jin et al. 2020).

    The predictions on a target batch are trained not to confuse any two classes.
    """

    temperature = 2.5

    def forward(self, experts, source, labels, target, rows, done):
        """Return the share [] of the class correlation that lies off the diagonal.

        Pictures are weighted by the confidence of their predictions.
        """
        probs = (target.logits / self.temperature).softmax(-1)
        weight = 1 + (-entropy(probs)).exp()
        confusion = (probs * (weight * len(probs) / weight.sum()).detach()[:, None]).T @ probs
        confusion = confusion / confusion.sum(1, keepdim=True)
        return 1 - confusion.diagonal().sum() / self.classes


class MCD(Peer):
    """Maximum classifier discrepancy (Saito et al. 2018).

    Two classifiers maximise their discrepancy on target pictures, and the features minimise it. A
    reversed gradient between them replaces the paper's three alternating steps, so that this takes
    one optimizer step like every other method.
    """

    def __init__(self, experts: Experts, pictures: int):
        super().__init__(experts, pictures)
        self.other = nn.Linear(self.width, self.classes)

    def forward(self, experts, source, labels, target, rows, done):
        """Return the second classifier's cross-entropy [] on the source minus the discrepancy.

        The discrepancy is that of both classifiers on the target.
        """
        z = Reversed.apply(target.z, 1.0)
        first = experts.classify(z, target.gates.detach()).softmax(-1)
        second = self.other(z).softmax(-1)
        discrepancy = (first - second).abs().mean()
        return F.cross_entropy(self.other(source.z), labels) - discrepancy


class SHOT(Peer):
    """Source hypothesis transfer (Liang et al. 2020).

    Training sees first the source alone, then the target alone with the last layer frozen. The loss
    asks for confident predictions that vary between pictures; pseudo-labels come from the nearest
    class centre among all target pictures.
    """

    source_until = 0.5
    pseudo_weight = 0.3
    z: torch.Tensor  # [N, W] of unit length
    probs: torch.Tensor  # [N, C]

    def __init__(self, experts: Experts, pictures: int):
        super().__init__(experts, pictures)
        self.register_buffer("z", torch.zeros(pictures, self.width))
        self.register_buffer("probs", torch.zeros(pictures, self.classes))

    def forward(self, experts, source, labels, target, rows, done):
        """Return information maximisation plus cross-entropy on pseudo-labels [].

        Zero while the source is learnt.
        """
        self.z[rows] = F.normalize(target.z.detach(), dim=-1)
        self.probs[rows] = target.logits.detach().softmax(-1)
        if done < self.source_until:
            return target.logits.sum() * 0
        second, bias = experts.second.detach(), experts.bias.detach()
        logits = target.z @ second.flatten(0, 1) + target.gates @ bias
        probs = logits.softmax(-1)
        centres = F.normalize(self.probs.T @ self.z, dim=-1)
        pseudo_labels = (self.z[rows] @ centres.T).argmax(-1)
        return (
            entropy(probs).mean()
            - entropy(probs.mean(0))
            + self.pseudo_weight * F.cross_entropy(logits, pseudo_labels)
        )


class FixMatch(Peer):
    """Thresholded self-training (Sohn et al. 2020).

    A confident prediction is the label of the same picture under strong noise. The noise is dropout
    on z: pictures are encoded only once here, so cropping is impossible.
    """

    threshold, dropped = 0.95, 0.5

    def forward(self, experts, source, labels, target, rows, done):
        """Return the cross-entropy [] of noisy predictions on confident labels, mean over all."""
        confidence, pseudo_labels = target.logits.detach().softmax(-1).max(-1)
        noisy = experts.classify(F.dropout(target.z, self.dropped), target.gates)
        losses = F.cross_entropy(noisy, pseudo_labels, reduction="none")
        return (losses * (confidence >= self.threshold)).mean()


PEERS = {
    "adabn": AdaBN,
    "dann": DANN,
    "cdan": CDAN,
    "mcc": MCC,
    "mcd": MCD,
    "shot": SHOT,
    "fixmatch": FixMatch,
}


class Reversed(Function):
    """Identity in the forward pass; the backward pass reverses and scales the gradient.

    See Ganin et al. 2016.
    """

    @staticmethod
    def forward(ctx, x, strength):
        """Return x [B, W] unchanged."""
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient [B, W] times minus the strength."""
        return -ctx.strength * gradient, None


def domain_loss(
    judge: nn.Module, source: torch.Tensor, target: torch.Tensor, done: float
) -> torch.Tensor:
    """Return the domain classifier's cross-entropy [] on source [B, W] and target [M, W].

    Gradients are reversed on their way back, and both domains weigh the same (Ganin et al. 2016).
    The strength of the gradients grows from 0 to 1 as 2 / (1 + exp(-10 done)) - 1.
    """
    strength = float(2 / (1 + torch.tensor(-10 * done).exp()) - 1)
    of_source, of_target = (judge(Reversed.apply(x, strength)).squeeze(1) for x in (source, target))
    source_loss = F.binary_cross_entropy_with_logits(of_source, torch.zeros_like(of_source))
    target_loss = F.binary_cross_entropy_with_logits(of_target, torch.ones_like(of_target))
    return (source_loss + target_loss) / 2


def entropy(probs: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats of probabilities [..., C] -> [...].

    MCC (Jin et al. 2020) and SHOT (Liang et al. 2020) use it.
    """
    return -(probs * probs.clamp(min=1e-9).log()).sum(-1)


def perceptron(width: int, out: int, hidden: int = 128) -> nn.Module:
    """Return a perceptron with two layers, [B, width] -> [B, out]."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))
