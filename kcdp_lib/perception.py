"""KADAP: knowledge-aligned diffusion affective perception (chapter 03; paper, figure 2).

One pass of the diffusion model's UNet at t = 1, with the knowledge tokens k as its context, gives
four feature maps. Cross-attention probabilities are appended to the two middle maps as channels. A
feature pyramid pools the maps into v, and a mixture of experts predicts the emotion from v and k.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import assert_never

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch import nn
from torch.amp.autocast_mode import is_autocast_available
from torchvision.ops import FeaturePyramidNetwork

from kcdp_lib.config import BACKBONES, Backbone, Preset, Recipe
from kcdp_lib.errors import KCDPError
from kcdp_lib.loading import load_part, loading, place
from kcdp_lib.processes import summed
from kcdp_lib.tokens import knowledge_parts, used_positions

EXPERTS, CHOSEN = 4, 2
DOMAINS = ("source", "target")  # rows of `DomainNorm`
# Layers that get adapters, by the recipe's `trained`
LORA_TARGETS = {
    "lora": r".*\.attn2\.(to_q|to_k|to_v|to_out\.0)",
    "lora_all": r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)"
    r"|conv[12]|proj_in|proj_out)",
}


@dataclass
class Perception:
    """Output of KADAP for a batch.

    Maps and attention of eq-maps, v of eq-v, logits and gates of eq-experts, balance of eq-balance
    (method chapter).
    """

    # [B, 4 F] visual feature; with the VLM's embeddings [B, 4 F + 4 D]
    v: torch.Tensor
    # [B, E hidden] the experts' hidden layers, weighted by the gates; input of their last layers
    z: torch.Tensor
    # [B, C]
    logits: torch.Tensor
    # [B, E] weight of each expert, zero unless chosen
    gates: torch.Tensor
    # [] balance loss of the experts
    balance: torch.Tensor
    # four maps [B, channels, h, w], finest first, attention channels included
    maps: list[torch.Tensor]
    # cross-attention of the two middle maps, [B, T, h, w] each; sums to one over T
    attention: list[torch.Tensor]


# ------------------------------------------------------------------------ the frozen image models


def load_unet(preset: Preset, device: str = "cpu") -> UNet2DConditionModel:
    """Load the preset's UNet in float32, frozen as in the paper's figure 2.

    It is stored channels last, which makes convolutions faster. KCDPError if it cannot be loaded
    completely.
    """
    unet = load_part(UNet2DConditionModel, preset, "unet")
    return unet.to(device, memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------ KADAP


class Recorder:
    """Outputs of named modules of the UNet, recorded during a pass (chapter 03).

    Outside of `recording` nothing is kept: gradient checkpointing runs modules a second time, in
    the backward pass, and what they leave then would never be released.
    """

    def __init__(self):
        self._records: dict[str, torch.Tensor] | None = None

    @contextmanager
    def recording(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the tensors [B, ...] recorded so far; release them and their graph at the end."""
        self._records = {}
        try:
            yield self._records
        finally:
            self._records = None

    def keep(self, name: str, value: torch.Tensor) -> None:
        """Record a tensor [B, ...] under a module's name."""
        if self._records is not None:
            self._records[name] = value

    def hook(self, name: str):
        """Return a forward hook that records the module's output, the first of several."""

        def keep(module, inputs, output):
            self.keep(name, output[0] if isinstance(output, tuple) else output)

        return keep


class StoringProcessor:
    """Cross-attention that records its probabilities A, averaged over the heads: [B, h w, T].

    Knowledge-guided cross-attention of the paper's figure 2 (method chapter, eq-attention): a row
    sums to one over its T tokens. The fused kernel never forms A, so the steps are written out
    here; all else is as in diffusers' `AttnProcessor`. `attn.to_q` and the other projections may be
    plain or LoRA layers; the mask is diffusers' additive bias [B, 1, T] or None.

    name: key of the probabilities in `recorder`.
    """

    def __init__(self, name: str, recorder: Recorder):
        self.name, self.recorder = name, recorder

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None
    ):
        """Attend from hidden_states [B, h w, channels] to encoder_hidden_states [B, T, H]."""
        context = encoder_hidden_states
        if attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        probabilities = attention_probabilities(attn, query, key, attention_mask)
        self.recorder.keep(self.name, probabilities.mean(1))
        output = attn.to_out[0]((probabilities @ value).transpose(1, 2).flatten(2))
        output = attn.to_out[1](output)
        if attn.residual_connection:
            output = output + hidden_states
        return output / attn.rescale_output_factor


def attention_probabilities(
    attn, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return A of eq-attention (method chapter), [B, heads, h w, T].

    query [B, heads, h w, d], key [B, heads, T, d], additive mask [B, 1, T]. Scores and softmax are
    in float32 if the layer demands it, as in Stable Diffusion 2.1, with or without autocast.
    """
    precision = query.dtype
    if attn.upcast_attention:
        with no_autocast(query):
            scores = query.float() @ key.float().transpose(-1, -2) * attn.scale
    else:
        scores = query @ key.transpose(-1, -2) * attn.scale
    if mask is not None:
        scores = scores + mask[:, None]
    if attn.upcast_softmax:
        scores = scores.float()
    probabilities = scores.softmax(-1)
    upcast = attn.upcast_attention or attn.upcast_softmax
    return probabilities.to(precision) if upcast else probabilities


def no_autocast(x: torch.Tensor):
    """Return a context in which products with x [B, ...] keep its precision (chapter 03)."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext()


class Experts(nn.Module):
    """Mixture of experts: a gate chooses 2 of E = 4 two-layer perceptrons for each picture.

    Method chapter, eq-experts; paper, figure 2, right. width: numbers in [v ; parts of k], where v
    has 4 F, or 4 F + 4 D with the VLM's embeddings, and the parts 3 H, or none without knowledge;
    hidden: width of one expert. All experts run on the whole batch in one product, and zeros in the
    gate do the choosing. At this size that is faster than sorting pictures by expert.
    """

    def __init__(self, width: int, hidden: int, classes: int, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        bound = hidden**-0.5
        self.gate = nn.Linear(width, EXPERTS)
        self.first = nn.Linear(width, EXPERTS * hidden)
        self.second = nn.Parameter(torch.empty(EXPERTS, hidden, classes).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(EXPERTS, classes).uniform_(-bound, bound))

    def forward(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map x [B, width] to z [B, E hidden], logits [B, C], gates [B, E] and balance loss [].

        Logits are before the softmax. Gates lie in 0 to 1; two are not zero, and these sum to one
        if renormalised.
        """
        values, chosen = self.gate(x).softmax(-1).topk(CHOSEN)
        if self.recipe.gate_renormalised:
            values = values / values.sum(-1, keepdim=True)
        gates = torch.zeros_like(values[:, :1]).repeat(1, EXPERTS).scatter(1, chosen, values)
        hidden = self.first(x).relu().unflatten(-1, (EXPERTS, -1))
        z = (gates[..., None] * hidden).flatten(1)
        logits = self.classify(z, gates)
        return z, logits, gates, balance_loss(gates, values, self.recipe, logits.shape[1])

    def classify(self, z: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """Apply the experts' last layers: z [B, E hidden] and gates [B, E] -> logits [B, C].

        Method chapter, eq-experts.
        """
        return z @ self.second.flatten(0, 1) + gates @ self.bias


def balance_loss(
    gates: torch.Tensor, values: torch.Tensor, recipe: Recipe, classes: int
) -> torch.Tensor:
    """Measure how unevenly the experts are used (method chapter, eq-balance).

    gates [B, E]; values [B, 2], the chosen gates in order of rank -> loss [], 0 or more.

    "load": squared coefficient of variation of the experts' total weights (importance loss, Shazeer
    et al. 2017), 0 if all are equal. "rank_std": standard deviation of the sums over rank one and
    over rank two, repeated for every class; it only makes these two equal.
    """
    if recipe.balance == "load":
        load = summed(gates.sum(0))
        return load.var(unbiased=False) / load.mean().square()
    return summed(values.sum(0))[:, None].expand(-1, classes).std()


class DomainNorm(nn.Module):
    """Standardise features by the mean and variance of the domain they come from.

    A domain's style is then not taken for its content (AdaBN, Li et al. 2018; method chapter,
    eq-experts). The moments are running averages, because a batch may hold a single picture. A
    domain that has not occurred in training uses the source's; before any training, x is unchanged.
    forget: weight of a picture relative to the next one; 0.9984 halves it after 430 pictures.
    """

    sums: torch.Tensor  # [D, 2, W] for D domains and width W, of x and of x squared
    weight: torch.Tensor  # [D] for D domains, decayed number of pictures in the sums

    def __init__(self, width: int, forget: float = 0.9984):
        super().__init__()
        self.forget = forget
        self.register_buffer("sums", torch.zeros(len(DOMAINS), 2, width))
        self.register_buffer("weight", torch.zeros(len(DOMAINS)))

    def forget_domain(self, domain: str) -> None:
        """Reset the averages of a domain, "source" or "target"."""
        row = DOMAINS.index(domain)
        self.sums[row] = 0
        self.weight[row] = 0

    def forward(self, x: torch.Tensor, domain: str) -> torch.Tensor:
        """Standardise x [B, width], pictures of one domain, "source" or "target".

        In training mode, x also updates the domain's averages.
        """
        row = DOMAINS.index(domain)
        if self.training:
            moments = torch.stack([torch.ones_like(x), x, x.square()]).detach().float()
            totals = summed(moments.sum(1))
            kept = self.forget ** totals[0, 0]  # a batch in pieces decays like a whole one
            self.sums[row] = kept * self.sums[row] + totals[1:]
            self.weight[row] = kept * self.weight[row] + totals[0, 0]
        met = self.weight[row] > 0
        sums, weight = (torch.where(met, of[row], of[0]) for of in (self.sums, self.weight))
        mean, square = sums / weight.clamp(min=1)
        variance = torch.where(weight > 0, square - mean.square(), 1)
        return (x - mean) * variance.clamp(min=1e-6).rsqrt()


class KADAP(nn.Module):
    """Perception model of the method (paper, section KADAP and figure 2).

    Method chapter, eq-attention to eq-balance. unet: freshly loaded; this module modifies it;
    positions: T = 2 L tokens of knowledge; the context width H is the UNet's. embedding_width: 4 D,
    of the VLM's embeddings, for a recipe that uses them; schedule: the diffusion model's noise
    schedule, for a recipe with a later t. image_size: side in pixels, for a backbone that reads it.
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
        backbone: Backbone = BACKBONES["sd"],
        image_size: int = 0,
    ):
        super().__init__()
        self.recipe = recipe
        self.positions = positions
        self.schedule = schedule
        self.backbone = backbone
        self.image_size = image_size
        self.unet = unet
        self._choose_trained(lora_rank)
        # No map is taken from the output layers.
        self.unet.conv_norm_out, self.unet.conv_out = None, nn.Identity()
        self.recorder = Recorder()
        self._attention_layers = [self._record_attention(blocks) for blocks in backbone.grids]
        channels = []
        for name in backbone.maps:
            module = self.unet.get_submodule(name)
            module.register_forward_hook(self.recorder.hook(name))
            channels.append(module.out_channels)
        channels[1] += positions
        channels[2] += positions
        self.fpn = FeaturePyramidNetwork(channels, fpn_channels)
        self.pooled_width = len(channels) * fpn_channels
        self.visual_width = self.pooled_width + embedding_width * recipe.embeddings
        self.text_width = unet.config.cross_attention_dim
        width = self.visual_width + 3 * self.text_width * recipe.knowledge_in_moe
        self.norm = DomainNorm(width) if recipe.domain_norm else None
        self.experts = Experts(width, expert_channels, classes, recipe)

    def _choose_trained(self, lora_rank: int) -> None:
        """Add adapters to the UNet, or leave it trainable or frozen, as the recipe says."""
        self.unet.requires_grad_(self.recipe.trained == "unet")
        match self.recipe.trained:
            case "lora" | "lora_all" if self.recipe.eye != "blind":
                self.unet.add_adapter(
                    LoraConfig(
                        r=lora_rank,
                        lora_alpha=lora_rank,
                        init_lora_weights="gaussian",
                        target_modules=LORA_TARGETS[self.recipe.trained],
                    )
                )
            case "lora" | "lora_all" | "unet" | "heads":
                pass
            case unknown:
                assert_never(unknown)

    def _record_attention(self, blocks: tuple[str, ...]) -> list[str]:
        """Give every attn2 inside `blocks` a processor that records, and return their names.

        All other attention keeps its fused kernel.
        """
        names = []
        for name, layer in self.unet.named_modules():
            if name.startswith(blocks) and name.endswith(".attn2"):
                layer.set_processor(StoringProcessor(name, self.recorder))
                names.append(name)
        return names

    def look(
        self,
        latents: torch.Tensor,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        pooled: torch.Tensor | None = None,
        used: torch.Tensor | None = None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return four maps [B, channels, h, w], finest first, and two attentions [B, T, h, w].

        The UNet runs once at the recipe's t, 1 by default (method chapter, eq-maps). The attentions
        are also appended to the two middle maps as channels. latents [B, Z, h, w], tokens
        [B, T, H], bool mask [B, T] (True = a real token), and for some backbones pooled [B, P];
        pooled and used as in `forward`. Attention is a probability over T: it sums to one and is
        zero on padding that the mask hides.
        """
        used = used_positions(mask) if used is None else used
        if self.schedule:
            latents = self.noised(latents)
        with self.recorder.recording() as records:
            self.unet(
                latents,
                self.times(latents),
                tokens[:, used],
                encoder_attention_mask=mask[:, used],
                added_cond_kwargs=self._conditions(latents, pooled),
                return_dict=False,
            )
            maps = [records[name] for name in self.backbone.maps]
            probabilities = [
                torch.stack([records[name] for name in names]) for names in self._attention_layers
            ]
        attention = [
            self._attention(layers, used, map_.shape[-2:])
            for layers, map_ in zip(probabilities, maps[1:3], strict=True)
        ]
        maps[1:3] = [torch.cat(pair, dim=1) for pair in zip(maps[1:3], attention, strict=True)]
        return maps, attention

    def _conditions(
        self, latents: torch.Tensor, pooled: torch.Tensor | None
    ) -> dict[str, torch.Tensor] | None:
        """Return what a backbone reads beside the context: pooled text [B, P] and sizes [B, 6].

        The sizes are those of an original picture that was neither cropped nor enlarged.
        """
        if not self.backbone.pooled_text:
            return None
        if pooled is None:
            raise KCDPError(
                "This backbone also reads each caption as one vector; freeze the pictures with "
                "the preset of the model."
            )
        side = self.image_size
        sizes = latents.new_full((len(latents), 6), side)
        sizes[:, 2:4] = 0  # pixels cropped at the top and at the left
        return {"text_embeds": pooled, "time_ids": sizes}

    def times(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the recipe's t for each of the latents [B, Z, h, w], int64 [B].

        They are created on the device: copying a number from Python would make a GPU wait.
        """
        return torch.full((len(latents),), self.recipe.timestep, device=latents.device)

    def noised(self, latents: torch.Tensor) -> torch.Tensor:
        """Add to latents [B, Z, h, w] the noise that the UNet expects at the recipe's t.

        One fixed draw serves all pictures, because the maps of one must not depend on the others in
        its batch.
        """
        assert self.schedule is not None, "at t = 1 there is next to no noise"
        seeded = torch.Generator().manual_seed(0)
        noise = torch.randn(latents[:1].shape, generator=seeded).to(latents)
        times = self.times(latents)
        return self.schedule.add_noise(latents, noise.expand_as(latents), times)

    def _attention(
        self, layers: torch.Tensor, used: torch.Tensor, grid: torch.Size
    ) -> torch.Tensor:
        """Return the mean over one grid's layers [layers, B, h w, n] as [B, T, h, w].

        Positions that were left out are zero.
        """
        mean = layers.mean(0).transpose(1, 2).unflatten(-1, grid)
        mean = torch.zeros_like(mean) if self.recipe.eye == "no_attention" else mean
        if not self.recipe.attention_gradient:
            mean = mean.detach()
        return mean.new_zeros(len(mean), self.positions, *grid).index_copy(1, used, mean)

    def forward(
        self,
        latents: torch.Tensor | None,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        embeddings: torch.Tensor | None = None,
        maps: list[torch.Tensor] | None = None,
        pooled: torch.Tensor | None = None,
        used: torch.Tensor | None = None,
        domain: str = "target",
    ) -> Perception:
        """Compute the perception of B pictures (method chapter, eq-maps, eq-v and eq-experts).

        latents [B, Z, h, w], tokens [B, T, H] and bool mask [B, T] (True = a real token).
        embeddings [B, 4 D] are the VLM's (`vision_language.see_and_say`), for a recipe that uses
        them. maps: the four of `look` if computed before; then latents may be None. pooled [B, P]:
        the captions as vectors, for a backbone that reads them. used, int64 [n]: the positions with
        a real token in some row, if known. domain: "source" or "target", for a recipe that
        standardises each by its own averages. KCDPError if T is not the T this model was built for.
        """
        if tokens.shape[1] != self.positions:
            raise KCDPError(
                f"This model reads {self.positions} knowledge tokens a picture but got "
                f"{tokens.shape[1]}; freeze the pictures with the preset of the model."
            )
        attention: list[torch.Tensor] = []
        if self.recipe.eye == "blind":
            maps = []
            parts = [tokens.new_zeros(len(tokens), self.pooled_width)]
        else:
            if maps is None:
                assert latents is not None, "there is nothing to look at"
                maps, attention = self.look(latents, tokens, mask, pooled, used)
            parts = pooled_pyramid(self.fpn, maps)
        if self.recipe.embeddings:
            assert embeddings is not None, "this recipe looks at the VLM's embeddings"
            parts.append(embeddings)
        if self.recipe.knowledge_in_moe:
            parts.append(knowledge_parts(tokens, mask))
        x = torch.cat(parts, dim=1)
        x = self.norm(x, domain) if self.norm else x
        # v comes before the experts: the order in which x is used is the order in which its
        # gradients are summed, which affects rounding.
        v = x[:, : self.visual_width]
        z, logits, gates, balance = self.experts(x)
        return Perception(v, z, logits, gates, balance, maps, attention)


def pooled_pyramid(fpn: FeaturePyramidNetwork, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the means over all places [B, F] of the pyramid's levels (method chapter, eq-v).

    maps [B, channels, h, w], finest first. They equal the averaged outputs of `fpn`, but its last
    convolutions, most of its arithmetic, are never computed place by place.
    """
    inner: torch.Tensor | None = None
    means: list[torch.Tensor] = []
    levels = list(zip(maps, fpn.inner_blocks, fpn.layer_blocks, strict=True))
    for map_, lateral, last in reversed(levels):
        level = lateral(map_)
        inner = level if inner is None else level + F.interpolate(inner, map_.shape[-2:])
        means.insert(0, mean_of_convolution(last[0], inner))
    return means


def mean_of_convolution(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return the mean over all places of a 3 x 3 convolution with zero padding.

    The last step of eq-v (method chapter): x [B, F, h, w] -> [B, F']. The mean of a sum is the sum
    of the means, so each of the nine weights multiplies the sum over the places it covers: all but
    the first or the last row, or column. In float32: float16 cannot hold sums over many places.
    """
    parts = (x[..., :-1, :], x, x[..., 1:, :])
    rows = torch.stack([part.sum(-2, dtype=torch.float32) for part in parts], -2)
    # [B, F, 3, 3]
    sums = torch.stack([rows[..., :-1].sum(-1), rows.sum(-1), rows[..., 1:].sum(-1)], -1)
    with no_autocast(sums):
        products = torch.einsum("bfyx,ofyx->bo", sums, convolution.weight.float())
    means = products / x[0, 0].numel()
    return means if convolution.bias is None else means + convolution.bias


def load_kadap(
    preset: Preset,
    recipe: Recipe,
    positions: int,
    device: str = "cpu",
    classes: int = 6,
    embedding_width: int = 0,
) -> KADAP:
    """Build KADAP on the preset's UNet with fresh LoRA, FPN and experts (seed torch before).

    positions: T = 2 L, as in `Frozen.tokens`; embedding_width: 4 D. KCDPError if the UNet cannot be
    loaded completely.
    """
    unet = load_unet(preset)
    if recipe.eye == "untrained":
        # Always the same weights, because the cache may hold maps computed with them.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            unet = UNet2DConditionModel.from_config(unet.config).eval().requires_grad_(False)
    schedule = None
    if recipe.timestep > 1:  # at 1 there is next to no noise
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
        preset.backbone,
        preset.image_size,
    ).to(device)


# -------------------------------------------------------------------------------- what is trained


def trainable_state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return everything that training changes, by name, such as `cliea.align.weight` [H, 4 F].

    The tensors are detached copies on the CPU, without the frozen weights (chapter 03).
    """
    changing = _changing(module).items()
    return {name: value.detach().cpu().clone().contiguous() for name, value in changing}


def _changing(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters with a gradient, and the averages that `DomainNorm` keeps."""
    return {
        name: value
        for name, value in module.state_dict(keep_vars=True).items()
        if value.requires_grad or not isinstance(value, nn.Parameter)
    }


@torch.no_grad()
def load_trainable(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load what `trainable_state_dict` returned, such as `cliea.align.weight` [H, 4 F].

    KCDPError if a name or a shape differs (chapter 03).
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


# ---------------------------------------------------------------------------- attention to words


def word_attention(attention: torch.Tensor, positions: torch.Tensor, size: int) -> torch.Tensor:
    """Return a map of where one picture attends to a word (chapter 03).

    attention [T, h, w], int64 positions [n] of the word's tokens -> [size, size] between 0 and 1,
    size in pixels. 0 and 1 are the least and the most attended place of this picture, so maps of
    different pictures cannot be compared.
    """
    heat = attention[positions].detach().float().sum(0)
    heat = (heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-12)
    enlarged = F.interpolate(heat[None, None], (size, size), mode="bilinear", align_corners=False)
    return enlarged[0, 0]


def word_positions(caption: str, word: str, tokenizer) -> torch.Tensor:
    """Return the positions in k of the first occurrence of a word in the caption (chapter 03).

    int64 [n], below L; empty if the word is missing or was truncated at L tokens.
    """
    words = caption.split()
    if word not in words:
        return torch.arange(0)
    before = words[: words.index(word)]
    start, stop = (
        len(tokenizer(" ".join(part), truncation=True)["input_ids"])
        for part in (before, [*before, word])
    )
    # without the end token
    return torch.arange(start - 1, stop - 1)


def word_focus(attention: torch.Tensor, positions: torch.Tensor, region) -> float:
    """Return how much more a word is attended to in a region than chance predicts (chapter 03).

    attention [T, h, w], int64 positions [n] of the word's tokens, region [S, S] of 0 and 1, tensor
    or array, with S a multiple of h and w. The focus is the share of the word's attention inside
    the region, divided by the region's share of the picture: 1 is chance, 2 twice as much, 0 none
    at all. The attention to all tokens together is the same everywhere, so some words can only be
    above 1 if others are below. NaN for an empty region or a word without positions.
    """
    heat = attention[positions].sum(0)
    region = torch.as_tensor(region, dtype=heat.dtype, device=heat.device)
    inside = F.adaptive_avg_pool2d(region[None], (heat.shape[0], heat.shape[1]))[0]
    return float((heat * inside).sum() / heat.sum() / inside.mean())
