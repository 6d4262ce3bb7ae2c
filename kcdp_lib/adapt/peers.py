"""Other methods of domain adaptation, on KCDP's own eye and knowledge.

Chapter "A fair comparison". Each sees what KCDP's experts see: z, their hidden layer, and the
logits, which are linear in z. It adds one loss to the source's cross-entropy, and perhaps a few
weights of its own; batches, steps, optimizer and rates are KCDP's. A new one is a class with a
`forward`, entered in `PEERS`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from kcdp_lib.perception import Experts, Perception


class Peer(nn.Module):
    """A method (chapter "A fair comparison").

    experts: those it adapts; pictures: the number N of the target's.
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
        """The method's own loss [], to minimise beside the source's cross-entropy.

        On a source batch with int64 labels [B], or shares [B, C], and a target batch without; rows,
        int64 [B], say which of the N target pictures it shows. done: the share of the training that
        has gone by, 0 to 1.
        """
        raise NotImplementedError


class AdaBN(Peer):
    """Nothing but a standardisation by each domain's own averages (Li et al. 2018).

    The target has to be met for it. Recipes without it make this *source only*.
    """

    def forward(self, experts, source, labels, target, rows, done):
        """Zero []."""
        return target.logits.sum() * 0


class DANN(Peer):
    """Domain-adversarial training (Ganin et al. 2016).

    What is seen is to leave a domain classifier guessing, whose gradient is turned round on its way
    back.
    """

    def __init__(self, experts: Experts, pictures: int):
        super().__init__(experts, pictures)
        self.judge = perceptron(self.width, 1)

    def forward(self, experts, source, labels, target, rows, done):
        """Cross-entropy [] of telling source from target by z.

        As strong as the paper's schedule says.
        """
        return domain_loss(self.judge, source.z, target.z, done)


class CDAN(Peer):
    """Conditional adversarial training (Long et al. 2018).

    The domain classifier sees z together with the answer, as their outer product.
    """

    def __init__(self, experts: Experts, pictures: int):
        super().__init__(experts, pictures)
        self.judge = perceptron(self.width * self.classes, 1)

    def forward(self, experts, source, labels, target, rows, done):
        """Cross-entropy [] of telling source from target by z and the predicted probabilities.

        These are not to be bent by it.
        """

        def conditioned(perception: Perception) -> torch.Tensor:
            probs = perception.logits.softmax(-1).detach()
            return torch.einsum("bz,bc->bzc", perception.z, probs).flatten(1)

        return domain_loss(self.judge, conditioned(source), conditioned(target), done)


class MCC(Peer):
    """Minimum class confusion (Jin et al. 2020).

    A target batch's answers are to mix no two classes up.
    """

    temperature = 2.5

    def forward(self, experts, source, labels, target, rows, done):
        """Share [] of the class correlation that is off the diagonal.

        Pictures are weighted by how sure their answers are.
        """
        probs = (target.logits / self.temperature).softmax(-1)
        weight = 1 + (-entropy(probs)).exp()
        confusion = (probs * (weight * len(probs) / weight.sum()).detach()[:, None]).T @ probs
        confusion = confusion / confusion.sum(1, keepdim=True)
        return 1 - confusion.diagonal().sum() / self.classes


class MCD(Peer):
    """Maximum classifier discrepancy (Saito et al. 2018).

    Two classifiers look for target pictures on which they differ, the features are to leave none.
    With the gradient turned round between them, in place of the paper's three steps in turn, so
    that it takes one optimizer step like everyone.
    """

    def __init__(self, experts: Experts, pictures: int):
        super().__init__(experts, pictures)
        self.other = nn.Linear(self.width, self.classes)

    def forward(self, experts, source, labels, target, rows, done):
        """Cross-entropy [] of the second classifier on the source, less both's discrepancy.

        The discrepancy is on the target.
        """
        z = Reversed.apply(target.z, 1.0)
        first = experts.classify(z, target.gates.detach()).softmax(-1)
        second = self.other(z).softmax(-1)
        discrepancy = (first - second).abs().mean()
        return F.cross_entropy(self.other(source.z), labels) - discrepancy


class SHOT(Peer):
    """Source hypothesis transfer (Liang et al. 2020).

    First the source alone, then the target alone, its last layer as the source left it. Answers are
    to be sure one by one and varied together; pseudo-labels come from the nearest of the classes'
    centres among all target pictures.
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
        """Information maximisation and cross-entropy on pseudo-labels [].

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

    A sure answer is the label of the same picture seen through strong noise. The noise is dropout
    on z: pictures are encoded once here, so there is nothing to crop.
    """

    threshold, dropped = 0.95, 0.5

    def forward(self, experts, source, labels, target, rows, done):
        """Cross-entropy [] of the noisy answers where the clear ones are sure, mean over all."""
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
    """Nothing on the way forward; on the way back the gradient, turned round and scaled.

    Ganin et al. 2016.
    """

    @staticmethod
    def forward(ctx, x, strength):
        """Hand x [B, W] on as it is."""
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        """The gradient [B, W], times minus the strength."""
        return -ctx.strength * gradient, None


def domain_loss(
    judge: nn.Module, source: torch.Tensor, target: torch.Tensor, done: float
) -> torch.Tensor:
    """Cross-entropy [] of telling source [B, W] from target [M, W], behind reversed gradients.

    Both domains are weighted alike (Ganin et al. 2016). The gradients' strength grows from 0 to 1
    as 2 / (1 + exp(-10 done)) - 1.
    """
    strength = float(2 / (1 + torch.tensor(-10 * done).exp()) - 1)
    of_source, of_target = (judge(Reversed.apply(x, strength)).squeeze(1) for x in (source, target))
    source_loss = F.binary_cross_entropy_with_logits(of_source, torch.zeros_like(of_source))
    target_loss = F.binary_cross_entropy_with_logits(of_target, torch.ones_like(of_target))
    return (source_loss + target_loss) / 2


def entropy(probs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of probabilities [..., C] -> [...].

    As MCC (Jin et al. 2020) and SHOT (Liang et al. 2020) use it.
    """
    return -(probs * probs.clamp(min=1e-9).log()).sum(-1)


def perceptron(width: int, out: int, hidden: int = 128) -> nn.Module:
    """Two layers [B, width] -> [B, out]."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))
