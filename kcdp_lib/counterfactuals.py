"""CLIEA, counterfactual-enhanced language-image emotional alignment, and its pseudo-labels.

See chapter 04. Causal graph of the paper (method chapter, eq-graph): X -> K -> E -> Y, P -> E,
X -> V -> Y. The knowledge K of a picture is read once under the prompt P of every emotion; the
prompt of the true emotion is the factual one, the others are interventions P*. Contrastive learning
tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from kcdp_lib.config import Recipe
from kcdp_lib.tokens import attention_mask, caption_end, last_token, masked_mean, used_positions

PROMPT = "A {} photo of"
TEMPERATURE = 0.07
HEADS = 8
# Smallest class share assumed in either domain.
LEAST = 0.02


def prompts(classes: Sequence[str]) -> list[str]:
    """Return the emotion prompts P of the causal graph, one for each class.

    Method chapter, eq-graph; paper, section CLIEA.
    """
    return [PROMPT.format(name) for name in classes]


class CLIEA(nn.Module):
    """Similarity of a picture to its own knowledge, read under the prompt of each class.

    Method chapter, eq-cliea; paper, section CLIEA. visual_width: numbers in v (4 F, with the VLM's
    embeddings 4 F + 4 D); text_width: H of the text encoder, a multiple of the 8 heads.
    """

    def __init__(self, visual_width: int, text_width: int, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.in_proj = nn.Linear(text_width, 3 * text_width)
        self.out_proj = nn.Linear(text_width, text_width)
        self.align = nn.Linear(visual_width, text_width)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)
        # With prompts alone, the picture's knowledge must not enter.
        self.knows = recipe.cliea_start == "text_encoder" and recipe.alignment != "prompts"
        if self.knows:
            # What is learnt is added to what the text encoder knows, and starts at zero.
            nn.init.zeros_(self.out_proj.weight)
            nn.init.zeros_(self.align.weight)
            nn.init.zeros_(self.align.bias)

    def read(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        prompt_tokens: torch.Tensor,
        prompt_mask: torch.Tensor,
        used: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the texts s [B, C, H] of eq-cliea (method chapter).

        For each class c, this is self-attention over [prompt_c ; k] and then the mean over tokens.
        tokens [B, T, H] with bool mask [B, T] (True = a real token); prompt_tokens [C, L, H] with
        prompt_mask [C, L]; used as in `Batch`. Prompt and knowledge are projected once each before
        they are paired, and the mean is taken before the (linear) output projection: the same
        numbers for a sixth of the work.
        """
        if not self.recipe.cliea_masked:
            mask, prompt_mask = torch.ones_like(mask), torch.ones_like(prompt_mask)
            used = None
        if self.recipe.alignment == "prompts":
            # Without the knowledge, every picture has the same texts.
            used = torch.arange(0, device=mask.device)
        used = used_positions(mask) if used is None else used
        prompt_used = used_positions(prompt_mask)
        tokens, mask = tokens[:, used], mask[:, used]
        prompt_tokens, prompt_mask = prompt_tokens[:, prompt_used], prompt_mask[:, prompt_used]
        batch, classes, width = len(tokens), len(prompt_tokens), tokens.shape[-1]
        # [B, C, L + T, 3 H]
        pairs = torch.cat(
            [
                self.in_proj(prompt_tokens)[None].expand(batch, -1, -1, -1),
                self.in_proj(tokens)[:, None].expand(-1, classes, -1, -1),
            ],
            dim=2,
        )
        valid = torch.cat(
            [prompt_mask[None].expand(batch, -1, -1), mask[:, None].expand(-1, classes, -1)], dim=2
        ).flatten(0, 1)
        # each [B C, heads, L + T, H / heads]
        heads = pairs.flatten(0, 1).unflatten(-1, (3, HEADS, width // HEADS))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        hidden = attention_mask(valid)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=hidden)
        pooled = masked_mean(attended.transpose(1, 2).flatten(2), valid)
        return self.out_proj(pooled).unflatten(0, (batch, classes))

    def forward(
        self,
        v: torch.Tensor,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        prompt_tokens: torch.Tensor,
        prompt_mask: torch.Tensor,
        used: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the cosines [B, C] of the picture's v [B, 4 F] and its counterfactual texts.

        This is the second half of eq-cliea, before the division by the temperature; tokens, masks,
        prompts and used as in `read`. A recipe that starts from the text encoder adds the end
        tokens of caption and prompts, and so starts at the similarities of `ask_directly`.
        """
        texts = self.read(tokens, mask, prompt_tokens, prompt_mask, used)
        seen = self.align(v)
        if self.knows:
            texts = texts + last_token(prompt_tokens, prompt_mask)
            seen = seen + caption_end(tokens, mask)
        return F.cosine_similarity(seen[:, None], texts, dim=-1)


def ask_directly(
    tokens: torch.Tensor, mask: torch.Tensor, prompt_tokens: torch.Tensor, prompt_mask: torch.Tensor
) -> torch.Tensor:
    """Return the cosines [B, C] of the end tokens of captions and prompts, zero-shot.

    They are a baseline of chapter 05, and where CLIEA may start (chapter 04). tokens [B, 2 L, H]
    with bool mask [B, 2 L]; prompt_tokens [C, L, H] with prompt_mask [C, L]. If the recipe treats
    padding as text, the last position replaces the caption's end token.
    """
    prompted = last_token(prompt_tokens, prompt_mask)
    return F.cosine_similarity(caption_end(tokens, mask)[:, None], prompted, dim=-1)


def counterfactual_loss(similarities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return L_ccl of eq-ccl, cross-entropy over the counterfactual texts (method chapter).

    The temperature is 0.07. similarities [B, C] (cosines), int64 labels [B] or shares [B, C] ->
    mean loss [] in nats.
    """
    return F.cross_entropy(similarities / TEMPERATURE, labels)


def similarity_probs(similarities: torch.Tensor) -> torch.Tensor:
    """Convert cosines [B, C] to probabilities [B, C] (method chapter, eq-ccl)."""
    return (similarities.float() / TEMPERATURE).softmax(-1)


class Pseudo(NamedTuple):
    """Pseudo-labels of some target pictures (method chapter, eq-pseudo)."""

    labels: torch.Tensor  # [B] int64, the most probable emotion
    kept: torch.Tensor  # [B] bool, whether the label is trusted at this point of the training
    confidence: torch.Tensor  # [B] probability of that emotion


class PseudoLabeller(nn.Module):
    """Pseudo-labels for the target by its own similarities (method chapter, eq-pseudo; chapter 04).

    Every target picture has a row in a memory of probabilities, an exponential moving average over
    the epochs (no extra pass over the data). Nothing is kept during the warm-up. Then the most
    confident fraction *of each predicted class* is kept, growing from `keep[0]` to `keep[1]`: with
    one common threshold, easy classes might crowd out the others (chapter 04 measures it). Target
    labels are never read. Recipe `raw` keeps every current argmax from the first step. Recipe
    `priors` is the curriculum with the target's class shares estimated (`estimate_prior`), in place
    of source_prior [C], the source's. warm_up is a share of the training, keep are shares of each
    class.
    """

    memory: torch.Tensor  # [N, C]
    seen: torch.Tensor  # [N] bool, whether the memory holds the picture
    source_prior: torch.Tensor  # [C]

    def __init__(
        self,
        pictures: int,
        classes: int,
        recipe: Recipe,
        warm_up: float = 0.25,
        keep: tuple[float, float] = (0.3, 0.8),
        momentum: float = 0.5,
        source_prior: torch.Tensor | None = None,
    ):
        super().__init__()
        self.recipe, self.warm_up, self.keep = recipe, warm_up, keep
        self.momentum = 0.0 if recipe.pseudo_labels == "raw" else momentum
        self.register_buffer("memory", torch.zeros(pictures, classes))
        self.register_buffer("seen", torch.zeros(pictures, dtype=torch.bool))
        self.register_buffer("source_prior", source_prior, persistent=False)

    @torch.no_grad()
    def update(self, rows: torch.Tensor, similarities: torch.Tensor, progress: float) -> Pseudo:
        """Note the similarities [B, C] (cosines) of the pictures `rows` [B] (int64) and label them.

        progress: fraction of the training done, 0 to 1.
        """
        return self.note(rows, similarity_probs(similarities), progress)

    @torch.no_grad()
    def note(self, rows: torch.Tensor, now: torch.Tensor, progress: float) -> Pseudo:
        """Do the same as `update`, with probabilities [B, C] of any origin."""
        before = torch.where(self.seen[rows, None], self.memory[rows], now)
        self.memory[rows] = self.momentum * before + (1 - self.momentum) * now
        self.seen[rows] = True
        if self.recipe.pseudo_labels == "raw":
            confidence, labels = now.max(-1)
            return Pseudo(labels, torch.ones_like(labels, dtype=torch.bool), confidence)
        confidence, labels = self.probabilities()[rows].max(-1)
        return Pseudo(labels, confidence >= self.thresholds(progress)[labels], confidence)

    def probabilities(self) -> torch.Tensor:
        """Return the memory [N, C]; for `priors`, under the target's estimated class shares."""
        if self.recipe.pseudo_labels != "priors" or not self.seen.any():
            return self.memory
        prior = estimate_prior(self.memory[self.seen], self.source_prior)
        return with_prior(self.memory, prior, self.source_prior)

    @torch.no_grad()
    def thresholds(self, progress: float) -> torch.Tensor:
        """Return the confidence [C] from which a picture of each predicted class is kept.

        Infinite during the warm-up, and for a class that is never predicted. progress: fraction of
        the training done, 0 to 1.
        """
        classes = torch.arange(self.memory.shape[1], device=self.memory.device)
        if self.waits(progress):
            return torch.full_like(self.memory[0], torch.inf)
        first, last = self.keep
        fraction = first + (last - first) * (progress - self.warm_up) / (1 - self.warm_up)
        confidence, labels = self.probabilities().max(-1)
        of_class = self.seen & (labels == classes[:, None])
        limits = torch.where(of_class, confidence, torch.nan).nanquantile(1 - fraction, dim=1)
        return limits.nan_to_num(torch.inf)

    def waits(self, progress: float) -> bool:
        """Return whether no label is trusted yet; progress: share of the training done, 0 to 1."""
        return self.recipe.pseudo_labels != "raw" and progress < self.warm_up

    @torch.no_grad()
    def all(self, progress: float = 1.0) -> Pseudo:
        """Return the labels of all target pictures [N], from the memory.

        A picture that was never seen is not kept.
        """
        confidence, labels = self.probabilities().max(-1)
        kept = self.seen
        if self.recipe.pseudo_labels != "raw":
            kept = kept & (confidence >= self.thresholds(progress)[labels])
        return Pseudo(labels, kept, confidence)


def together(*voices: torch.Tensor) -> torch.Tensor:
    """Combine several probabilities [B, C] of the same pictures by their geometric mean.

    A confident prediction counts for more than an unsure one (chapter "A fair comparison").
    """
    return torch.stack([voice.clamp(min=1e-6).log() for voice in voices]).mean(0).softmax(-1)


def with_prior(
    probs: torch.Tensor, prior: torch.Tensor, source_prior: torch.Tensor
) -> torch.Tensor:
    """Convert probabilities [N, C] learnt under source_prior [C] to those under prior [C].

    Priors are class shares; this is Bayes' rule with another prior (Saerens et al. 2002). Source
    shares below `LEAST` count as `LEAST`: for a class that the source never shows, any doubt would
    otherwise become a certainty.
    """
    weighted = probs * prior / source_prior.clamp(min=LEAST)
    return weighted / weighted.sum(-1, keepdim=True).clamp(min=1e-12)


def estimate_prior(
    probs: torch.Tensor, source_prior: torch.Tensor, steps: int = 50, least: float = LEAST
) -> torch.Tensor:
    """Estimate the class shares [C] of unlabelled pictures from probabilities [N, C] for them.

    By EM (Saerens, Latinne and Decaestecker 2002; chapter "A fair comparison"). source_prior [C]:
    the shares on which the classifier was trained. Right if the classes look alike in both domains
    and differ only in frequency, and if the classifier is calibrated. Finally every class gets
    `least`, and the rest is shared as estimated, so that no class is ruled out.
    """
    prior = torch.full_like(source_prior, 1 / len(source_prior))
    for _ in range(steps):
        prior = with_prior(probs, prior, source_prior).mean(0)
    return (1 - least * len(prior)) * prior + least
