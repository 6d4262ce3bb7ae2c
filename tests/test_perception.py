"""Chapter 03: one UNet pass, four maps with attention, LoRA, pyramid, experts."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from blank import blank_preset
from diffusers import UNet2DConditionModel
from torchvision.ops import FeaturePyramidNetwork

from kcdp_lib import KCDPError
from kcdp_lib.config import RECIPES
from kcdp_lib.latents import encode_images, load_vae
from kcdp_lib.perception import (
    CHOSEN,
    EXPERTS,
    KADAP,
    DomainNorm,
    Experts,
    StoringProcessor,
    load_kadap,
    load_trainable,
    load_unet,
    mean_of_convolution,
    pooled_pyramid,
    trainable_state_dict,
    word_attention,
)
from kcdp_lib.pretrain.stack import HIDDEN

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER, RELEASED = RECIPES["paper"], RECIPES["released"]
B, T, H = 3, 64, HIDDEN


@pytest.fixture(scope="module")
def kadap():
    torch.manual_seed(0)
    model = load_kadap(blank_preset(), PAPER, T)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_(std=0.02)  # fresh LoRA is zero and would hide what the adapters do
    return model.eval()  # or its moments would change with every pass


@pytest.fixture
def batch(kadap):
    torch.manual_seed(1)
    valid = torch.tensor(
        [[9, 5], [14, 0], [4, 20]]
    )  # caption and triplet tokens; picture 1 has no triplet
    place = torch.arange(T // 2)
    mask = torch.cat([place < valid[:, :1], place < valid[:, 1:]], 1)
    return torch.randn(B, kadap.unet.config.in_channels, 16, 16), torch.randn(B, T, H), mask


def objective(seen):
    return seen.logits.square().mean() + seen.v.mean() + seen.balance


def test_shapes_finest_map_first(kadap, batch):
    seen = kadap(*batch)
    fine, upper, lower, coarse = kadap.unet.config.block_out_channels
    assert [tuple(m.shape) for m in seen.maps] == [
        (B, fine, 16, 16),
        (B, upper + T, 8, 8),
        (B, lower + T, 4, 4),
        (B, coarse, 2, 2),
    ]
    assert (
        seen.v.shape == (B, 4 * 64)
        and seen.logits.shape == (B, 6)
        and seen.gates.shape == (B, EXPERTS)
        and seen.balance.shape == ()
    )
    assert [tuple(a.shape) for a in seen.attention] == [(B, T, 8, 8), (B, T, 4, 4)]
    assert torch.equal(seen.maps[1][:, upper:], seen.attention[0]) and torch.equal(
        seen.maps[2][:, lower:], seen.attention[1]
    )


def test_maps_are_the_plain_unets(batch):
    """Compare the features with those of an untouched diffusers UNet with its own attention."""
    latents, tokens, mask = batch
    kept, plain = {}, load_unet(blank_preset())
    for name, module in (
        ("fine", plain.up_blocks[3].attentions[2]),
        ("upper", plain.up_blocks[2].attentions[1]),
        ("lower", plain.up_blocks[1].attentions[1]),
        ("coarse", plain.up_blocks[0].resnets[1]),
    ):
        module.register_forward_hook(
            lambda m, i, o, name=name: kept.update({name: o[0] if isinstance(o, tuple) else o})
        )
    with torch.no_grad():
        plain(latents, 1, tokens, encoder_attention_mask=mask)
        maps, _ = load_kadap(blank_preset(), PAPER, T).look(*batch)
    for mine, name in zip(maps, ("fine", "upper", "lower", "coarse"), strict=True):
        torch.testing.assert_close(mine[:, : kept[name].shape[1]], kept[name], atol=1e-4, rtol=0)


def test_attention_rows_sum_to_one_and_padding_gets_nothing(kadap, batch):
    mask = batch[2]
    for attention in kadap(*batch).attention:
        torch.testing.assert_close(attention.sum(1), torch.ones_like(attention.sum(1)))
        assert (
            attention.transpose(0, 1)[~mask.T].abs().max() == 0
            and (attention.transpose(0, 1)[mask.T] > 0).all()
        )


def test_attention_is_the_mean_over_heads_and_five_layers(kadap, batch):
    """Recompute it from the inputs of each of the five layers."""
    latents, tokens, mask = batch
    grid, expected = [], []
    for name, layer in kadap.unet.named_modules():
        if name.endswith(".attn2") and name.startswith(("down_blocks.2.", "up_blocks.1.")):
            grid.append(
                layer.register_forward_hook(
                    lambda m, args, kwargs, out: expected.append(
                        probabilities(m, args[0], tokens, mask)
                    ),
                    with_kwargs=True,
                )
            )
    attention = kadap(*batch).attention[1]
    for hook in grid:
        hook.remove()
    assert len(expected) == 5
    torch.testing.assert_close(
        attention.flatten(2).transpose(1, 2), torch.stack(expected).mean(0), atol=1e-6, rtol=1e-4
    )


def probabilities(layer, hidden, tokens, mask):
    q, k = (
        part(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for part, x in ((layer.to_q, hidden), (layer.to_k, tokens))
    )
    return (
        (q @ k.mT / q.shape[-1] ** 0.5)
        .masked_fill(~mask[:, None, None], -torch.inf)
        .softmax(-1)
        .mean(1)
    )


def test_only_five_layers_a_grid_leave_the_fused_kernel(kadap):
    stored = [
        name
        for name, layer in kadap.unet.named_modules()
        if isinstance(getattr(layer, "processor", None), StoringProcessor)
    ]
    assert len(stored) == 10 and all(name.endswith("attn2") for name in stored)
    assert {".".join(name.split(".")[:2]) for name in stored} == {
        "down_blocks.1",
        "down_blocks.2",
        "up_blocks.1",
        "up_blocks.2",
    }


def test_padding_never_changes_an_output(kadap, batch):
    latents, tokens, mask = batch
    noisy = torch.where(mask[..., None], tokens, 100 * torch.randn_like(tokens))
    with torch.no_grad():
        seen, again = kadap(*batch), kadap(latents, noisy, mask)
        alone = [
            kadap(latents[i : i + 1], tokens[i : i + 1], mask[i : i + 1]) for i in range(B)
        ]  # a batch of one is trimmed differently
        cut = kadap(latents[:1], tokens[1:2], mask[1:2])
    torch.testing.assert_close(again.logits, seen.logits, atol=1e-5, rtol=0)
    for i, one in enumerate(alone):
        torch.testing.assert_close(one.logits[0], seen.logits[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.maps[1][0], seen.maps[1][i], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(cut.logits, alone[0].logits, atol=1e-4)  # other words do change them


def test_only_lora_on_attn2_fpn_and_experts_are_trained(kadap):
    trained = {name for name, p in kadap.named_parameters() if p.requires_grad}
    in_unet = {name for name in trained if name.startswith("unet.")}
    assert len(in_unet) == 16 * 4 * 2 and all(
        ".attn2." in name and ".lora_" in name for name in in_unet
    )
    assert {name.split(".")[0] for name in trained - in_unet} == {"fpn", "experts"}
    assert all(p.requires_grad for p in kadap.fpn.parameters()) and all(
        p.requires_grad for p in kadap.experts.parameters()
    )
    whole = load_kadap(blank_preset(), RELEASED, T)
    assert all(p.requires_grad for p in whole.parameters()) and not any(
        "lora" in name for name, _ in whole.named_parameters()
    )


def test_gradients_reach_everything_trained_and_nothing_frozen(kadap, batch):
    kadap.zero_grad(set_to_none=True)
    objective(kadap(*batch)).backward()
    for name, p in kadap.named_parameters():
        assert (
            (p.grad is not None and p.grad.abs().sum() > 0) if p.requires_grad else p.grad is None
        ), name


@pytest.mark.parametrize("carries", [True, False])
def test_gradient_through_the_attention_maps(batch, carries):
    """The appended probabilities alone train the queries' LoRA, unless the recipe detaches them."""
    torch.manual_seed(0)
    kadap = load_kadap(blank_preset(), replace(PAPER, attention_gradient=carries), T)
    attention = kadap(*batch).attention
    assert attention[0].requires_grad == attention[1].requires_grad == carries
    if carries:
        (attention[0] * torch.randn_like(attention[0])).sum().backward()
        grads = {
            name: p.grad
            for name, p in kadap.named_parameters()
            if "to_q.lora_B" in name and p.grad is not None
        }
        assert (
            grads[
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q.lora_B.default.weight"
            ]
            .abs()
            .max()
            > 0
        )


def test_no_graph_is_left_behind(kadap, batch):
    kadap(*batch)
    assert kadap.recorder._records is None


def test_wrong_number_of_tokens_is_a_sentence(kadap, batch):
    latents, tokens, mask = batch
    with pytest.raises(KCDPError, match="64 knowledge tokens"):
        kadap(latents, tokens[:, :60], mask[:, :60])


def test_merged_lora_computes_the_same(kadap, batch):
    """Merge W + B A into one matrix with peft, so that the UNet can be shipped without adapters."""
    merged = load_kadap(blank_preset(), PAPER, T).eval()
    with torch.no_grad():
        plain = merged(*batch)  # fresh adapters are zero
        load_trainable(merged, trainable_state_dict(kadap))
        before = {
            name: p.clone()
            for name, p in merged.named_parameters()
            if name.endswith("attn2.to_k.base_layer.weight")
        }
        merged.unet.fuse_lora()
        assert len(before) == 16 and not any(
            torch.equal(p, dict(merged.named_parameters())[name]) for name, p in before.items()
        )
        seen, expected = merged(*batch), kadap(*batch)
        torch.testing.assert_close(seen.logits, expected.logits, atol=1e-4, rtol=0)
        for mine, theirs, unadapted in zip(seen.maps, expected.maps, plain.maps, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
            assert (mine - unadapted).abs().max() > 1e-3  # the adapters have an effect
        merged.unet.unfuse_lora()
        torch.testing.assert_close(merged(*batch).logits, expected.logits, atol=1e-4, rtol=0)


def test_bfloat16_agrees_with_float32(kadap, batch):
    """Compare as a GPU would train: bfloat16 keeps 8 bits, so one rounding is 0.4%.

    Over the whole UNet, 2% of the largest value were measured; 5% are allowed.
    """
    kadap.zero_grad(set_to_none=True)
    full = kadap(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = kadap(*batch)
    assert half.maps[0].dtype == half.logits.dtype == torch.bfloat16
    for mine, theirs in zip(
        [half.logits, half.v, *half.maps], [full.logits, full.v, *full.maps], strict=True
    ):
        torch.testing.assert_close(
            mine.float(), theirs, atol=0.05 * theirs.abs().max().item(), rtol=0
        )
    for mine, theirs in zip(half.attention, full.attention, strict=True):
        torch.testing.assert_close(
            mine.sum(1).float(), torch.ones_like(theirs.sum(1)), atol=2**-8, rtol=0
        )
        torch.testing.assert_close(mine.float(), theirs, atol=2**-8, rtol=0)
    objective(half).backward()
    assert all(p.grad.isfinite().all() for p in kadap.parameters() if p.requires_grad)


def test_no_loop_over_pictures(kadap, batch, operations):
    """Two pictures and sixteen take the same number of torch operations, forward and backward.

    This covers maps, attention, pyramid and experts.
    """

    def step(pictures):
        latents, tokens, mask = (part[torch.arange(pictures) % 2] for part in batch)
        return operations(lambda: objective(kadap(latents, tokens, mask)).backward())

    step(2)  # the first backward pass creates the gradients, later ones add to them
    assert step(2) == step(16) > 1000
    kadap.zero_grad(set_to_none=True)


# -- experts


def test_experts_equal_a_loop_over_pictures_and_chosen_experts():
    torch.manual_seed(0)
    for recipe in (PAPER, RELEASED):
        experts, x = Experts(20, 8, 6, recipe), torch.randn(16, 20)
        z, logits, gates, _ = experts(x)
        weights = experts.first.weight.view(EXPERTS, 8, 20), experts.first.bias.view(EXPERTS, 8)
        for i in range(16):
            p = experts.gate(x[i]).softmax(-1)
            top = p.argsort(descending=True)[:CHOSEN]
            share = p[top] / p[top].sum() if recipe is PAPER else p[top]
            expected = sum(
                s
                * (
                    (weights[0][e] @ x[i] + weights[1][e]).relu() @ experts.second[e]
                    + experts.bias[e]
                )
                for s, e in zip(share, top, strict=True)
            )
            torch.testing.assert_close(logits[i], expected, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(experts.classify(z, gates), logits)
        assert (gates > 0).sum(1).tolist() == [CHOSEN] * 16
        sums = gates.sum(1)
        assert torch.allclose(sums, torch.ones(16)) if recipe is PAPER else (sums < 1).all()


def test_balance_is_least_when_the_experts_share_alike():
    experts = Experts(4, 8, 6, PAPER)
    experts.gate.weight.data.copy_(5 * torch.eye(4))
    experts.gate.bias.data.zero_()
    even = torch.eye(4) + 0.5 * torch.eye(4).roll(1, 0)  # every expert first once and second once
    assert experts(even.repeat(3, 1))[3].item() == pytest.approx(0, abs=1e-6)
    skewed = torch.cat([even, even[:1].repeat(4, 1)])
    collapsed = even[:1].repeat(8, 1)
    assert 0.01 < experts(skewed)[3] < experts(collapsed)[3]
    experts(skewed)[3].backward()
    assert experts.gate.bias.grad.abs().max() > 0
    assert torch.isfinite(experts(even[:1])[3])  # one picture alone


def test_experts_learn_to_balance():
    torch.manual_seed(0)
    experts, x = Experts(10, 8, 6, PAPER), torch.randn(64, 10)
    experts.gate.bias.data[0] = 3
    before = experts(x)[3].item()
    optimiser = torch.optim.Adam(experts.parameters(), 0.05)
    for _ in range(40):
        optimiser.zero_grad()
        experts(x)[3].backward()
        optimiser.step()
    assert experts(x)[3] < 0.1 * before


# -- standardising each domain


def test_each_domain_is_standardised_by_its_own_moments():
    """Without forgetting, they are those of all its pictures so far, whatever the batches."""
    torch.manual_seed(0)
    norm, source, target = (
        DomainNorm(5, forget=1.0).train(),
        3 * torch.randn(20, 5) + 1,
        torch.randn(12, 5) - 4,
    )
    for batch in source.split([7, 1, 12]):
        norm(batch, "source")
    for batch in target.split([1, 4, 7]):
        norm(batch, "target")
    norm.eval()
    for domain, x in (("source", source), ("target", target)):
        torch.testing.assert_close(
            norm(x, domain), (x - x.mean(0)) / x.std(0, unbiased=False), atol=1e-4, rtol=1e-4
        )
    torch.testing.assert_close(norm(source[:1], "source"), norm(source, "source")[:1])


def test_old_pictures_are_forgotten_one_by_one():
    """Their weight halves after four pictures."""
    torch.manual_seed(0)
    norm, batches, weights = (
        DomainNorm(2, forget=0.5**0.25).train(),
        torch.randn(3, 4, 2),
        torch.tensor([0.25, 0.5, 1.0]),
    )
    seen = [norm(batch, "source") for batch in batches][-1]
    mean = (weights[:, None] * batches.mean(1)).sum(0) / weights.sum()
    square = (weights[:, None] * batches.square().mean(1)).sum(0) / weights.sum()
    torch.testing.assert_close(
        seen, (batches[-1] - mean) / (square - mean**2).sqrt(), atol=1e-4, rtol=1e-4
    )


def test_the_sources_moments_hold_until_the_target_was_seen():
    torch.manual_seed(0)
    norm, source, target = DomainNorm(5).train(), torch.randn(20, 5) + 1, torch.randn(12, 5) - 4
    assert norm(source[:1], "source").isfinite().all(), "a single picture, the first"
    norm(source, "source")
    norm.eval()
    before = norm(target, "target")
    torch.testing.assert_close(before, norm(target, "source"))
    norm.train()
    norm(target, "target")
    norm.eval()
    assert not torch.allclose(norm(target, "target"), before) and torch.equal(
        norm(target, "source"), before
    )


def test_looking_changes_no_average_and_averages_have_no_gradient():
    norm, x = (
        DomainNorm(5).train(),
        torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_(),
    )
    norm(x, "source").sum().backward()
    noted = {name: value.clone() for name, value in norm.state_dict().items()}
    deviation = (x.square().mean(0) - x.mean(0).square()).sqrt().detach()
    torch.testing.assert_close(x.grad, (1 / deviation).expand(6, 5))
    norm.eval()
    norm(x + 3, "source"), norm(x, "target")
    assert all(
        torch.equal(value, noted[name]) for name, value in norm.state_dict().items()
    ) and not any(value.requires_grad for value in norm.state_dict().values())


# -- the recipe "best"

WIDTH = 20  # of the embeddings here


@pytest.fixture(scope="module")
def best():
    """Return the recipe "best" twice, with LoRA adapters and with only the heads trained."""
    kadaps = []
    for trained in ("lora", "heads"):
        torch.manual_seed(0)
        kadaps.append(
            load_kadap(
                blank_preset(), replace(RECIPES["best"], trained=trained), T, embedding_width=WIDTH
            )
        )
    return kadaps


def seen_twice(kadap, batch, embeddings):
    """Pass both domains once in training mode, then return the target in eval mode."""
    kadap.train()
    kadap(*batch, embeddings, domain="source")
    kadap(*batch, 3 * embeddings + 1, domain="target")
    with torch.no_grad():
        return kadap.eval()(*batch, embeddings, domain="target")


def test_embeddings_are_seen_beside_the_picture_and_each_domain_on_its_own_scale(best, batch):
    embeddings = torch.randn(B, WIDTH, generator=torch.Generator().manual_seed(2))
    seen = seen_twice(best[0], batch, embeddings)
    with torch.no_grad():
        as_source = best[0](*batch, embeddings, domain="source")
        others = best[0](*batch, -embeddings)
    assert seen.v.shape == (B, 4 * 64 + WIDTH) == (B, best[0].visual_width) and seen.z.shape == (
        B,
        EXPERTS * 128,
    )
    torch.testing.assert_close(seen.v[:, : 4 * 64], others.v[:, : 4 * 64])
    assert not torch.allclose(seen.v[:, 4 * 64 :], others.v[:, 4 * 64 :]) and not torch.allclose(
        seen.logits, others.logits
    )
    assert not torch.allclose(seen.v[:, 4 * 64 :], as_source.v[:, 4 * 64 :], atol=0.1)
    torch.testing.assert_close(
        as_source.v.mean(0), torch.zeros(best[0].visual_width), atol=1e-3, rtol=0
    )


def test_maps_computed_before_are_as_good_as_latents(best, batch):
    embeddings, kadap = torch.randn(B, WIDTH, generator=torch.Generator().manual_seed(2)), best[1]
    seen = seen_twice(kadap, batch, embeddings)
    with torch.no_grad():
        maps, _ = kadap.look(*batch)
        again = kadap(None, *batch[1:], embeddings, maps, domain="target")
    assert (
        torch.equal(again.logits, seen.logits)
        and torch.equal(again.v, seen.v)
        and again.attention == []
    )
    trained = kadap.train()(None, *batch[1:], embeddings, maps, domain="source")
    trained.logits.square().sum().backward()
    assert kadap.fpn.layer_blocks[0][0].weight.grad.norm() > 0
    assert not any(
        p.requires_grad or p.grad is not None for p in kadap.unet.parameters()
    ) and not any("lora" in name for name, _ in kadap.named_parameters())


def test_adapters_can_reach_all_attention_and_convolutions(batch):
    """They reach self- and cross-attention, feed-forward layers and the blocks' convolutions."""
    kadap = load_kadap(blank_preset(), replace(PAPER, trained="lora_all"), T)
    adapted = {
        name.split(".lora_")[0] for name, p in kadap.unet.named_parameters() if "lora" in name
    }
    few = load_kadap(blank_preset(), PAPER, T)
    assert adapted > {
        name.split(".lora_")[0] for name, p in few.unet.named_parameters() if "lora" in name
    }
    for kind in (".attn1.to_q", ".attn2.to_out.0", ".ff.net.2", ".conv1", ".conv2", ".proj_in"):
        assert any(name.endswith(kind) for name in adapted), kind
    kadap(*batch).logits.sum().backward()
    assert kadap.fpn.layer_blocks[0][0].weight.grad.norm() > 0


def test_averages_are_saved_with_what_is_trained(best, batch):
    embeddings, state = torch.randn(B, WIDTH, generator=torch.Generator().manual_seed(2)), {}
    seen = seen_twice(best[1], batch, embeddings)
    state = trainable_state_dict(best[1])
    assert {name.split(".")[0] for name in state} == {"fpn", "norm", "experts"} and {
        "norm.sums",
        "norm.weight",
    } <= state.keys()
    torch.manual_seed(7)
    other = load_kadap(blank_preset(), best[1].recipe, T, embedding_width=WIDTH).eval()
    load_trainable(other, state)
    with torch.no_grad():
        assert torch.equal(other(*batch, embeddings, domain="target").logits, seen.logits)
    best[1].train()(*batch, embeddings, domain="source")
    assert not torch.equal(state["norm.sums"], best[1].norm.sums) and torch.equal(
        other.norm.sums, state["norm.sums"]
    ), "copies"
    with pytest.raises(KCDPError, match="another model"):
        load_trainable(
            other, {name: value for name, value in state.items() if name != "norm.weight"}
        )


# -- ablations


def test_without_attention_maps_their_channels_are_zero_and_all_else_stays(kadap, batch):
    with torch.no_grad():
        whole, part = (
            load_kadap(blank_preset(), replace(PAPER, eye=eye), T).look(*batch)
            for eye in ("diffusion", "no_attention")
        )
    channels = kadap.unet.config.block_out_channels
    for of_whole, of_part, width in zip(whole[0], part[0], channels, strict=True):
        assert torch.equal(of_part[:, :width], of_whole[:, :width]) and not of_part[:, width:].any()
    assert all(
        of.shape == other.shape and not of.any() and other.any()
        for of, other in zip(part[1], whole[1], strict=True)
    )


def test_an_untrained_eye_is_another_and_always_the_same(batch):
    torch.manual_seed(3)
    first = load_kadap(blank_preset(), replace(PAPER, eye="untrained", trained="heads"), T)
    drawn = torch.rand(1)
    torch.manual_seed(4)
    second, trained = (
        load_kadap(blank_preset(), replace(PAPER, eye=eye, trained="heads"), T)
        for eye in ("untrained", "diffusion")
    )
    torch.manual_seed(3)
    load_kadap(blank_preset(), replace(PAPER, trained="heads"), T)
    assert torch.equal(drawn, torch.rand(1)), "the heads start as they do with the trained UNet"
    with torch.no_grad():
        looks = [kadap.look(*batch)[0][0] for kadap in (first, second, trained)]
    assert (
        torch.equal(looks[0], looks[1])
        and not torch.allclose(looks[0], looks[2], atol=1e-2)
        and not any(p.requires_grad for p in first.unet.parameters())
    )


def test_a_blind_eye_sees_nothing_but_what_was_said(batch):
    latents, tokens, mask = batch
    kadap = load_kadap(blank_preset(), replace(PAPER, eye="blind"), T).eval()
    kadap.unet = None  # it must not be used
    with torch.no_grad():
        seen, other, unsaid = (
            kadap(*batch),
            kadap(latents + 1, tokens, mask),
            kadap(latents, tokens + torch.randn_like(tokens), mask),
        )
    assert (
        seen.v.shape == (B, 4 * 64)
        and not seen.v.any()
        and torch.equal(seen.logits, other.logits)
        and not torch.allclose(seen.logits, unsaid.logits)
    )


def test_at_a_later_timestep_latents_carry_its_noise(batch):
    """The schedule sets the variance kept, all pictures share the noise, and the UNet gets t."""
    latents, told = batch[0], []
    kadap = load_kadap(blank_preset(), replace(PAPER, timestep=250), T)
    kept = kadap.schedule.alphas_cumprod[250]
    noise = kadap.noised(latents) - kept.sqrt() * latents
    assert 0.1 < kept < 0.9 and torch.allclose(noise, noise[:1].expand_as(noise), atol=1e-5)
    assert noise.std().item() == pytest.approx((1 - kept).sqrt().item(), rel=0.1) and torch.equal(
        kadap.noised(latents[1:])[0], kadap.noised(latents)[1]
    )
    kadap.unet.register_forward_pre_hook(lambda module, args: told.append((args[0], args[1])))
    with torch.no_grad():
        kadap.look(*batch)
    assert (told[0][1] == 250).all() and torch.equal(told[0][0], kadap.noised(latents))
    assert load_kadap(blank_preset(), PAPER, T).schedule is None


def test_adapters_have_the_rank_that_is_asked_for():
    ranks = [
        {
            min(p.shape)
            for name, p in load_kadap(
                blank_preset(), replace(PAPER, lora_rank=rank), T
            ).named_parameters()
            if "lora" in name
        }
        for rank in (None, 2)
    ]
    assert ranks == [{blank_preset().lora_rank}, {2}]


# -- saving and loading


def test_trainable_state_round_trip(kadap, batch):
    torch.manual_seed(5)
    other = load_kadap(blank_preset(), PAPER, T).eval()
    state = trainable_state_dict(kadap)
    assert sum(t.numel() for t in state.values()) < 0.1 * sum(p.numel() for p in kadap.parameters())
    with torch.no_grad():
        assert not torch.allclose(other(*batch).logits, kadap(*batch).logits, atol=1e-4)
        load_trainable(other, state)
        torch.testing.assert_close(other(*batch).logits, kadap(*batch).logits)
    first = next(iter(state))
    for wrong in (
        {k: v for k, v in state.items() if k != first},
        {**state, "more": state[first]},
        {**state, first: state[first][:1]},
    ):
        with pytest.raises(KCDPError, match="another model"):
            load_trainable(other, wrong)


@pytest.mark.parametrize("recipe", [PAPER, RELEASED])
def test_latents(recipe):
    vae = load_vae(blank_preset())
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    latents = encode_images(vae, images, recipe)
    assert (
        latents.shape == (2, vae.config.latent_channels, 16, 16) and latents.dtype == torch.float32
    )
    assert torch.equal(latents, encode_images(vae, images, recipe))  # the mode: no noise
    pixels = images / 255
    if recipe is PAPER:
        expected = vae.encode(2 * pixels - 1).latent_dist.mean * vae.config.scaling_factor
    else:
        mean, std = (
            torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
            torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
        )
        expected = vae.encode(((pixels - mean) / std - mean) / std).latent_dist.mean
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-4)


def test_word_attention_points_at_the_word():
    attention = torch.zeros(T, 8, 8)
    attention[5, 2, 6] = attention[6, 2, 6] = 0.4
    heat = word_attention(attention, torch.tensor([5, 6]), 64)
    assert (
        heat.shape == (64, 64)
        and 0 <= heat.min()
        and heat.max() <= 1
        and heat[20, 52] > 0.8
        and heat[50, 10] == 0
    )
    assert torch.isfinite(word_attention(attention, torch.tensor([7]), 64)).all()


def test_stable_diffusion_size_goes_through_the_same_lines(monkeypatch):
    """Run on the meta device, which computes shapes only.

    A mask has no values there, so every position counts as used.
    """
    config = dict(
        sample_size=64,
        cross_attention_dim=768,
        block_out_channels=(320, 640, 1280, 1280),
        attention_head_dim=8,
    )
    monkeypatch.setattr(
        "kcdp_lib.perception.used_positions", lambda mask: torch.arange(mask.shape[1])
    )
    with torch.device("meta"):
        kadap = KADAP(
            UNet2DConditionModel(**config),
            154,
            PAPER,
            fpn_channels=256,
            expert_channels=128,
            lora_rank=8,
        )
        seen = kadap(
            torch.empty(2, 4, 64, 64),
            torch.empty(2, 154, 768),
            torch.ones(2, 154, dtype=torch.bool),
        )
    assert [tuple(m.shape[1:]) for m in seen.maps] == [
        (320, 64, 64),
        (640 + 154, 32, 32),
        (1280 + 154, 16, 16),
        (1280, 8, 8),
    ]
    assert seen.v.shape == (2, 1024) and seen.logits.shape == (2, 6)


@pytest.mark.parametrize("size", [8, 2])
def test_the_pooled_pyramid_is_the_mean_of_the_pyramid(size):
    torch.manual_seed(0)
    fpn = FeaturePyramidNetwork([3, 5, 4, 6], 7)
    torch.nn.init.normal_(fpn.layer_blocks[1][0].bias)
    maps = [
        torch.randn(2, channels, size >> level or 1, size >> level or 1)
        for level, channels in enumerate((3, 5, 4, 6))
    ]
    for pooled, level in zip(
        pooled_pyramid(fpn, maps), fpn(OrderedDict(enumerate(maps))).values(), strict=True
    ):
        torch.testing.assert_close(pooled, level.mean((2, 3)), atol=1e-5, rtol=1e-5)


def test_a_mean_over_many_places_does_not_overflow_in_float16():
    torch.manual_seed(0)
    convolution, x = torch.nn.Conv2d(8, 4, 3, padding=1), 20 + torch.rand(2, 8, 96, 96)
    expected = mean_of_convolution(convolution, x)
    torch.testing.assert_close(expected, convolution(x).mean((2, 3)), atol=1e-3, rtol=1e-3)
    with torch.autocast("cpu", torch.float16):
        found = mean_of_convolution(convolution, x.half())
    torch.testing.assert_close(found, expected, atol=0.05, rtol=1e-2)
