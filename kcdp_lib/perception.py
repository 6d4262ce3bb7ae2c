"""KADAP: knowledge-aligned diffusion affective perception (chapter 03; paper, section KADAP /
figure 2).

One pass of the diffusion model's UNet at t = 1, with the knowledge tokens k as its context, gives
four feature maps; the two middle ones get the cross-attention probabilities as further channels. A
feature pyramid pools them into v, a mixture of experts reads the emotion from v and k.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

from kcdp_lib.config import Preset, Recipe
from kcdp_lib.errors import KCDPError
from kcdp_lib.loading import load_part, loading, place
from kcdp_lib.processes import summed
from kcdp_lib.tokens import masked_mean, used_positions

EXPERTS, CHOSEN = 4, 2
DOMAINS = ("source", "target")  # of `DomainNorm`
LORA_TARGETS = r".*\.attn2\.(to_q|to_k|to_v|to_out\.0)"
# Finest first, by diffusers' names.
MAPS = (
    "up_blocks.3.attentions.2",
    "up_blocks.2.attentions.1",
    "up_blocks.1.attentions.1",
    "up_blocks.0.resnets.1",
)
# The cross-attention layers on the grids of MAPS[1] and MAPS[2]; the middle block and the finest
# grid are not used.
GRIDS = (("down_blocks.1.", "up_blocks.2."), ("down_blocks.2.", "up_blocks.1."))


@dataclass
class Perception:
    """What KADAP sees in a batch.

    V of eq-v, maps and attention of eq-maps, logits and gates of eq-experts, balance of eq-balance
    (method chapter).
    """

    v: torch.Tensor  # [B, 4 F] visual feature; with the VLM's embeddings [B, 4 F + 4 D]
    # [B, E hidden] the experts' hidden layers, weighted by the gates: the last layer of the
    # classifier is linear in it
    z: torch.Tensor
    logits: torch.Tensor  # [B, C]
    gates: torch.Tensor  # [B, E] weight of each expert, zero unless chosen
    balance: torch.Tensor  # [] balance loss of the experts
    maps: list[
        torch.Tensor
    ]  # four maps [B, channels, h, w], finest first, attention channels included
    attention: list[
        torch.Tensor
    ]  # cross-attention of the two middle maps, [B, T, h, w] each; sums to one over T


# ------------------------------------------------------------------------ the frozen image models


def load_unet(preset: Preset, device: str = "cpu") -> UNet2DConditionModel:
    """The preset's UNet in float32, frozen as in the paper's figure 2.

    KCDPError if it cannot be loaded whole.
    """
    return load_part(UNet2DConditionModel, preset, "unet").to(device)


# ------------------------------------------------------------------------------------------ KADAP


class StoringProcessor:
    """Cross-attention that keeps its probabilities A, averaged over the heads: [B, h w, T].

    The fused kernel never forms them, hence the longhand.

    Knowledge-guided cross-attention of the paper's figure 2 (method chapter, eq-attention): a row
      sums to one over the T tokens it was given.
    `attn.to_q` and its like may be plain or LoRA layers; the mask comes as diffusers' additive bias
      [B, 1, T] or not at all.
    """

    def __init__(self):
        self.listening, self.probabilities = False, None

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None
    ):
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        scores = query @ key.transpose(-1, -2) * attn.scale
        if attention_mask is not None:
            scores = scores + attention_mask[:, None]
        probabilities = scores.softmax(-1)
        # Not when gradient checkpointing computes it a second time: what is kept then, nobody takes
        # away
        if self.listening:
            self.probabilities = probabilities.mean(1)
        hidden_states = attn.to_out[0]((probabilities @ value).transpose(1, 2).flatten(2))
        return attn.to_out[1](hidden_states)


class Experts(nn.Module):
    """Mixture of experts: a gate chooses 2 of E = 4 two-layer perceptrons for each picture (method
    chapter, eq-experts; paper, figure 2, right).

    width: numbers in [v ; mean of k], 4 F + H, or 4 F in a recipe without knowledge; hidden: width
    of one expert. All experts run on the whole batch in one product; the gate's zeros do the
    choosing. At this size that is faster than sorting pictures by expert.
    """

    def __init__(self, width: int, hidden: int, classes: int, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.gate = nn.Linear(width, EXPERTS)
        self.first = nn.Linear(width, EXPERTS * hidden)
        self.second = nn.Parameter(
            torch.empty(EXPERTS, hidden, classes).uniform_(-(hidden**-0.5), hidden**-0.5)
        )
        self.bias = nn.Parameter(
            torch.empty(EXPERTS, classes).uniform_(-(hidden**-0.5), hidden**-0.5)
        )

    def forward(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """x [B, width] -> z [B, E hidden], logits [B, C] (before the softmax), gates [B, E] (0 to
        1, two not zero, together one if renormalised), balance loss [].
        """
        values, chosen = self.gate(x).softmax(-1).topk(CHOSEN)
        if self.recipe.gate_renormalised:
            values = values / values.sum(-1, keepdim=True)
        gates = torch.zeros_like(values[:, :1]).repeat(1, EXPERTS).scatter(1, chosen, values)
        z = (gates[..., None] * self.first(x).relu().unflatten(-1, (EXPERTS, -1))).flatten(1)
        logits = self.classify(z, gates)
        return z, logits, gates, balance_loss(gates, values, self.recipe, logits.shape[1])

    def classify(self, z: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """The experts' last layers: z [B, E hidden] and gates [B, E] -> logits [B, C] (method
        chapter, eq-experts).
        """
        return z @ self.second.flatten(0, 1) + gates @ self.bias


def balance_loss(
    gates: torch.Tensor, values: torch.Tensor, recipe: Recipe, classes: int
) -> torch.Tensor:
    """How unevenly the experts are used (method chapter, eq-balance). gates [B, E].

    Values [B, 2], the chosen gates in order of rank -> loss [], 0 or more.

    "load": squared coefficient of variation of the experts' total weight (Shazeer et al. 2017,
    importance loss), 0 when all weigh the same. "rank_std": standard deviation over the sums of
    rank one and rank two, repeated for every class; it only asks the two to be equal.
    """
    if recipe.balance == "load":
        load = summed(gates.sum(0))
        return load.var(unbiased=False) / load.mean().square()
    return summed(values.sum(0))[:, None].expand(-1, classes).std()


class DomainNorm(nn.Module):
    """Standardises features by the mean and variance of the domain they come from, so that a
    domain's style is not taken for its content (AdaBN, Li et al. 2018; chapter "A fair
    comparison").

    Sums that forget, and not a batch's own moments: a batch may hold a single picture. Until a
    domain has been seen in training, the source's are taken.
    """

    def __init__(self, width: int, forget: float = 0.95):
        super().__init__()
        self.forget = forget
        self.register_buffer("sums", torch.zeros(len(DOMAINS), 2, width))  # of x and of x squared
        self.register_buffer("weight", torch.zeros(len(DOMAINS)))

    def forget_domain(self, domain: str) -> None:
        """As if no picture of a domain, "source" or "target", had been seen."""
        row = DOMAINS.index(domain)
        self.sums[row], self.weight[row] = 0, 0

    def forward(self, x: torch.Tensor, domain: str) -> torch.Tensor:
        """x [B, width] of one domain, "source" or "target" -> the same shape.

        In training mode the domain's averages take note of x.
        """
        row = DOMAINS.index(domain)
        if self.training:
            noted = summed(torch.stack([torch.ones_like(x), x, x.square()]).detach().float().sum(1))
            self.sums[row] = self.forget * self.sums[row] + noted[1:]
            self.weight[row] = self.forget * self.weight[row] + noted[0, 0]
        row = row if self.weight[row] > 0 else 0
        mean, square = self.sums[row] / self.weight[row].clamp(min=1)
        return (x - mean) * (square - mean.square()).clamp(min=1e-6).rsqrt()


class KADAP(nn.Module):
    """The perception (method chapter, eq-attention to eq-balance; paper, section KADAP / figure 2).

    unet: freshly loaded, this module takes it over; positions: T = 2 L tokens of knowledge; the
    context width H is the UNet's. embedding_width: 4 D, of the VLM's embeddings, for a recipe that
    looks at them; schedule: the diffusion model's noise, for one that looks at a later t.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        positions: int,
        recipe: Recipe,
        fpn_channels: int,
        expert_channels: int,
        lora_rank: int,
        classes: int = 6,
        embedding_width: int = 0,
        schedule: DDPMScheduler | None = None,
    ):
        super().__init__()
        self.recipe, self.positions, self.schedule = recipe, positions, schedule
        self.unet = unet.requires_grad_(recipe.trained == "unet")
        self.unet.conv_norm_out, self.unet.conv_out = None, nn.Identity()  # no map lies behind them
        if recipe.trained == "lora" and recipe.eye != "blind":
            self.unet.add_adapter(
                LoraConfig(
                    r=lora_rank,
                    lora_alpha=lora_rank,
                    init_lora_weights="gaussian",
                    target_modules=LORA_TARGETS,
                )
            )
        self._stores = [self._store(grid) for grid in GRIDS]
        self._seen: dict[str, torch.Tensor] = {}
        self._listen(False)
        for name in MAPS:
            self.unet.get_submodule(name).register_forward_hook(self._keep(name))
        fine, upper, lower, coarse = unet.config.block_out_channels
        self.fpn = FeaturePyramidNetwork(
            [fine, upper + positions, lower + positions, coarse], fpn_channels
        )
        self.visual_width, self.text_width = (
            4 * fpn_channels + embedding_width * recipe.embeddings,
            unet.config.cross_attention_dim,
        )
        width = self.visual_width + self.text_width * recipe.knowledge_in_moe
        self.norm = DomainNorm(width) if recipe.domain_norm else None
        self.experts = Experts(width, expert_channels, classes, recipe)

    def _store(self, blocks: tuple[str, ...]) -> list[StoringProcessor]:
        """A storing processor for every attn2 inside `blocks`.

        All other attention keeps its fused kernel.
        """
        layers = [
            layer
            for name, layer in self.unet.named_modules()
            if name.startswith(blocks) and name.endswith(".attn2")
        ]
        for layer in layers:
            layer.set_processor(StoringProcessor())
        return [layer.processor for layer in layers]

    def _keep(self, name: str):
        def hook(module, inputs, output):
            if self._listening:
                self._seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def _listen(self, on: bool) -> None:
        self._listening = on
        for store in chain(*self._stores):
            store.listening = on

    def look(
        self, latents: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The four maps [B, channels, h, w], finest first, attention channels appended to the
        middle two; and those two attentions [B, T, h, w].

        One pass of the UNet at the recipe's t, 1 unless told otherwise (method chapter, eq-maps).
        latents [B, Z, h, w], tokens [B, T, H], bool mask [B, T] (True = a real token). Attention is
        a probability over T: zero on padding where the mask hides it, one in sum.
        """
        used = used_positions(mask)
        latents = self.noised(latents) if self.schedule else latents
        self._listen(True)
        self.unet(
            latents,
            self.recipe.timestep,
            tokens[:, used],
            encoder_attention_mask=mask[:, used],
            return_dict=False,
        )
        self._listen(False)
        maps = [self._seen.pop(name) for name in MAPS]
        attention = [
            self._attention(stores, used, map_.shape[-2:])
            for stores, map_ in zip(self._stores, maps[1:3])
        ]
        maps[1:3] = [torch.cat(pair, dim=1) for pair in zip(maps[1:3], attention)]
        return maps, attention

    def noised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, Z, h, w] with the noise that the UNet expects of them at the recipe's t.

        One fixed draw serves all pictures: what is seen of one must not depend on which others are
        looked at with it.
        """
        noise = torch.randn(latents[:1].shape, generator=torch.Generator().manual_seed(0)).to(
            latents
        )
        return self.schedule.add_noise(
            latents,
            noise.expand_as(latents),
            torch.full((len(latents),), self.recipe.timestep, device=latents.device),
        )

    def _attention(
        self, stores: list[StoringProcessor], used: torch.Tensor, grid: torch.Size
    ) -> torch.Tensor:
        """Mean over heads and the five layers of one grid, [B, T, h, w].

        Zero at the positions that were left out.
        """
        mean = (
            torch.stack([store.probabilities for store in stores])
            .mean(0)
            .transpose(1, 2)
            .unflatten(-1, grid)
        )
        mean = torch.zeros_like(mean) if self.recipe.eye == "no_attention" else mean
        for store in stores:
            store.probabilities = None  # else the graph lives until the next batch
        if not self.recipe.attention_gradient:
            mean = mean.detach()
        return mean.new_zeros(len(mean), self.positions, *grid).index_copy(1, used, mean)

    def forward(
        self,
        latents: torch.Tensor | list[torch.Tensor],
        tokens: torch.Tensor,
        mask: torch.Tensor,
        embeddings: torch.Tensor | None = None,
        domain: str = "target",
    ) -> Perception:
        """latents [B, Z, h, w], tokens [B, T, H], bool mask [B, T] (True = a real token) -> what is
        seen (method chapter, eq-maps, eq-v and eq-experts).

        In place of the latents come the four maps of `look` where they were computed before.
        embeddings [B, 4 D] are the VLM's (`knowledge.embed`), for a recipe that looks at them;
        domain, "source" or "target", matters where features are standardised. KCDPError if T is not
        the T this model was built for.
        """
        if tokens.shape[1] != self.positions:
            raise KCDPError(
                f"This model reads {self.positions} knowledge tokens a picture but got "
                f"{tokens.shape[1]}; freeze the pictures with the preset of the model."
            )
        maps, attention = (
            (latents, [])
            if isinstance(latents, list)
            else ([], [])
            if self.recipe.eye == "blind"
            else self.look(latents, tokens, mask)
        )
        pooled = (
            pooled_pyramid(self.fpn, maps)
            if maps
            else [
                tokens.new_zeros(len(tokens), len(MAPS) * self.fpn.layer_blocks[0][0].out_channels)
            ]
        )
        seen = [*pooled, *([embeddings] if self.recipe.embeddings else [])]
        known = [masked_mean(tokens, mask)] if self.recipe.knowledge_in_moe else []
        x = torch.cat([*seen, *known], dim=1)
        x = self.norm(x, domain) if self.norm else x
        return Perception(x[:, : self.visual_width], *self.experts(x), maps, attention)


def pooled_pyramid(fpn: FeaturePyramidNetwork, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """The means over all places [B, F] of the pyramid's four levels, from maps [B, channels, h, w],
    finest first (method chapter, eq-v).

    As `fpn` gives them and then averaged, but its last convolutions, most of its arithmetic, are
    never carried out: nobody looks at their places.
    """
    inner, means = None, []
    for map_, lateral, last in zip(
        maps[::-1], list(fpn.inner_blocks)[::-1], list(fpn.layer_blocks)[::-1]
    ):
        inner = (
            lateral(map_)
            if inner is None
            else lateral(map_) + F.interpolate(inner, map_.shape[-2:])
        )
        means.insert(0, mean_of_convolution(last[0], inner))
    return means


def mean_of_convolution(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The mean over all places of a 3 x 3 convolution with a border of zeros, the last of eq-v
    (method chapter): x [B, F, h, w] -> [B, F'].

    The mean of a sum is the sum of the means, so each of the nine weights meets the sum of the
    places that it sees: all but the first or the last row, or column.
    """
    rows = torch.stack([x[..., :-1, :].sum(-2), x.sum(-2), x[..., 1:, :].sum(-2)], -2)
    sums = torch.stack(
        [rows[..., :-1].sum(-1), rows.sum(-1), rows[..., 1:].sum(-1)], -1
    )  # [B, F, 3, 3]
    return (
        torch.einsum("bfyx,ofyx->bo", sums, convolution.weight) / x[0, 0].numel() + convolution.bias
    )


def load_kadap(
    preset: Preset,
    recipe: Recipe,
    positions: int,
    device: str = "cpu",
    classes: int = 6,
    embedding_width: int = 0,
) -> KADAP:
    """KADAP on the preset's UNet with fresh LoRA, FPN and experts (seed torch before). positions.

    T = 2 L, as in `Frozen.tokens`; embedding_width: 4 D.

    KCDPError if the UNet cannot be loaded whole.
    """
    unet = load_unet(preset)
    if recipe.eye == "untrained":
        with torch.random.fork_rng(
            devices=[]
        ):  # always the same weights: what was seen through them may lie in the cache
            torch.manual_seed(0)
            unet = UNet2DConditionModel.from_config(unet.config).eval().requires_grad_(False)
    schedule = None
    if recipe.timestep > 1:  # at 1 next to no noise is left
        with loading(f"The noise schedule of {preset.diffusion}", preset.diffusion):
            schedule = DDPMScheduler.from_pretrained(place(preset.diffusion), subfolder="scheduler")
    return KADAP(
        unet,
        positions,
        recipe,
        preset.fpn_channels,
        preset.expert_channels,
        recipe.lora_rank or preset.lora_rank,
        classes,
        embedding_width,
        schedule,
    ).to(device)


# -------------------------------------------------------------------------------- what is trained


def trainable_state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """Everything that training changes, by name, as in `cliea.align.weight` [H, 4 F].

    Detached copies on the CPU. The frozen weights are not in it (chapter 03).
    """
    return {
        name: value.detach().cpu().clone().contiguous() for name, value in _changing(module).items()
    }


def _changing(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters with a gradient, and the averages that `DomainNorm` keeps."""
    kept = module.state_dict(keep_vars=True)
    return {
        name: value
        for name, value in kept.items()
        if value.requires_grad or not isinstance(value, nn.Parameter)
    }


@torch.no_grad()
def load_trainable(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put back what `trainable_state_dict` gave, as in `cliea.align.weight` [H, 4 F] (chapter 03).

    KCDPError if a name or a shape differs.
    """
    trained = _changing(module)
    wrong = sorted(trained.keys() ^ state.keys()) or sorted(
        name for name, p in trained.items() if p.shape != state[name].shape
    )
    if wrong:
        raise KCDPError(
            f"The saved weights belong to another model ({len(wrong)} tensors differ, first "
            f"{wrong[0]}); load them with the preset and recipe they were trained with."
        )
    for name, p in trained.items():
        p.copy_(state[name])


# ------------------------------------------------------------------------------------- to look at


def word_attention(attention: torch.Tensor, positions: torch.Tensor, size: int) -> torch.Tensor:
    """Where one picture attends to a word (chapter 03).

    Attention [T, h, w], int64 positions [n] of the word's tokens -> [size, size] between 0 and 1.

    size in pixels; 0 and 1 are the least and the most attended place of this picture, so pictures
    cannot be compared by it.
    """
    heat = attention[positions].detach().float().sum(0)
    heat = (heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-12)
    return F.interpolate(heat[None, None], size=(size, size), mode="bilinear", align_corners=False)[
        0, 0
    ]


def word_positions(caption: str, word: str, tokenizer) -> torch.Tensor:
    """Which positions of k hold a word of the caption, its first occurrence (chapter 03).

    int64 [n], below L.

    Empty if it is not there or was cut off at L tokens.
    """
    words = caption.split()
    if word not in words:
        return torch.arange(0)
    before = words[: words.index(word)]
    start, stop = (
        len(tokenizer(" ".join(part), truncation=True)["input_ids"]) - 1
        for part in (before, [*before, word])
    )  # less the end mark
    return torch.arange(start, stop)


def word_focus(attention: torch.Tensor, positions: torch.Tensor, region) -> float:
    """How much more a word is attended to inside a region than the region's size would give
    (chapter 03).

    attention [T, h, w], int64 positions [n] of the word's tokens, region [S, S] of 0 and 1, tensor
    or array, with S a multiple of h and w. The share of the word's attention that falls inside,
    over the region's share of the picture: 1 is chance, 2 twice as much, 0 none at all. The
    attention to all tokens together is the same everywhere, so some can only be above 1 where
    others are below. NaN for an empty region or a word without positions.
    """
    heat = attention[positions].sum(0)
    inside = F.adaptive_avg_pool2d(
        torch.as_tensor(region, dtype=heat.dtype, device=heat.device)[None], heat.shape
    )[0]
    return float((heat * inside).sum() / heat.sum() / inside.mean())
