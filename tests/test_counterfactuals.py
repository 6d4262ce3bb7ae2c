"""Chapter 04: counterfactual prompts, similarities, pseudo-labels."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from blank import blank_preset
from torch import nn

from kcdp_lib.config import RECIPES
from kcdp_lib.counterfactuals import (
    CLIEA,
    LEAST,
    TEMPERATURE,
    PseudoLabeller,
    ask_directly,
    counterfactual_loss,
    estimate_prior,
    prompts,
    similarity_probs,
    together,
    with_prior,
)
from kcdp_lib.knowledge import encode_texts, knowledge_tokens, load_text_encoder
from kcdp_lib.perception import load_kadap

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER, RELEASED = RECIPES["paper"], RECIPES["released"]
AT_RANDOM = replace(PAPER, cliea_start="random")
B, C, L, T, H, V = 4, 6, 7, 12, 64, 256


@pytest.fixture
def batch():
    torch.manual_seed(0)
    mask = torch.arange(T) < torch.tensor([[3], [12], [5], [1]])
    return dict(
        v=torch.randn(B, V),
        tokens=torch.randn(B, T, H),
        mask=mask,
        prompt_tokens=torch.randn(C, L, H),
        prompt_mask=torch.arange(L) < torch.tensor([[5], [5], [6], [5], [7], [5]]),
    )


def make(recipe=PAPER):
    torch.manual_seed(1)
    return CLIEA(V, H, recipe)


def moved(cliea):
    """Move all weights, as training does, so that none stays zero."""
    with torch.no_grad():
        for p in cliea.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return cliea


def reference(cliea, tokens, mask, prompt_tokens, prompt_mask):
    """Compute one pair at a time by torch's own attention, without padding: [B, C, H]."""
    attention = nn.MultiheadAttention(H, 8, batch_first=True)
    attention.load_state_dict(
        {
            "in_proj_weight": cliea.in_proj.weight,
            "in_proj_bias": cliea.in_proj.bias,
            "out_proj.weight": cliea.out_proj.weight,
            "out_proj.bias": cliea.out_proj.bias,
        }
    )
    rows = []
    for k, m in zip(tokens, mask, strict=True):
        for p, n in zip(prompt_tokens, prompt_mask, strict=True):
            sequence = torch.cat([p[n], k[m]])[None]
            rows.append(attention(sequence, sequence, sequence)[0].mean(1)[0])
    return torch.stack(rows).unflatten(0, (len(tokens), -1))


def test_prompts():
    assert prompts(["happy", "fear"]) == ["A happy photo of", "A fear photo of"]


def test_reading_is_self_attention_over_prompt_and_knowledge(batch):
    cliea = make(AT_RANDOM)
    v = batch.pop("v")
    expected = reference(cliea, **batch)
    torch.testing.assert_close(cliea.read(**batch), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        cliea(v, **batch),
        F.cosine_similarity(cliea.align(v)[:, None], expected, dim=-1),
        atol=1e-5,
        rtol=1e-4,
    )


def test_prompts_alone_are_the_same_six_texts_for_every_picture(batch):
    cliea = make(replace(AT_RANDOM, alignment="prompts"))
    v = batch.pop("v")
    read = cliea.read(**batch)
    nothing = {**batch, "mask": torch.zeros_like(batch["mask"])}
    torch.testing.assert_close(read, reference(cliea, **nothing), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(read, read[:1].expand_as(read))
    assert not torch.allclose(
        read, make(AT_RANDOM).read(**batch), atol=1e-3
    ) and not torch.allclose(cliea(v, **batch)[0], cliea(v, **batch)[1], atol=1e-3)


def test_released_recipe_reads_the_padding_too(batch):
    cliea = make(RELEASED)
    batch.pop("v")
    everything = {
        **batch,
        "mask": torch.ones(B, T, dtype=torch.bool),
        "prompt_mask": torch.ones(C, L, dtype=torch.bool),
    }
    torch.testing.assert_close(
        cliea.read(**batch), reference(cliea, **everything), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("recipe", [PAPER, AT_RANDOM])
def test_padding_never_changes_a_similarity(recipe, batch):
    cliea = moved(make(recipe))
    expected = cliea(**batch)
    noisy = {
        **batch,
        "tokens": torch.where(
            batch["mask"][..., None], batch["tokens"], 1e3 * torch.randn(B, T, H)
        ),
        "prompt_tokens": torch.where(batch["prompt_mask"][..., None], batch["prompt_tokens"], 1e3),
    }
    torch.testing.assert_close(cliea(**noisy), expected, atol=1e-5, rtol=0)
    one_by_one = torch.cat(
        [
            cliea(
                batch["v"][i : i + 1],
                batch["tokens"][i : i + 1],
                batch["mask"][i : i + 1],
                batch["prompt_tokens"],
                batch["prompt_mask"],
            )
            for i in range(B)
        ]
    )
    torch.testing.assert_close(
        one_by_one, expected, atol=1e-5, rtol=0
    )  # a batch of one is trimmed differently


def test_similarities_are_cosines_of_the_intervened_prompt(batch):
    cliea = make(AT_RANDOM)
    similarities = cliea(**batch)
    assert similarities.shape == (B, C) and similarities.abs().max() <= 1
    torch.testing.assert_close(
        cliea(**{**batch, "v": 7 * batch["v"]}) - similarities, torch.zeros(B, C), atol=0.2, rtol=0
    )
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    swapped = {
        **batch,
        "prompt_tokens": batch["prompt_tokens"][order],
        "prompt_mask": batch["prompt_mask"][order],
    }
    torch.testing.assert_close(
        cliea(**swapped), similarities[:, order], atol=1e-6, rtol=0
    )  # only the prompt tells the classes apart
    alike = cliea(
        **{
            **batch,
            "prompt_tokens": batch["prompt_tokens"][:1].expand(C, -1, -1),
            "prompt_mask": batch["prompt_mask"][:1].expand(C, -1),
        }
    )
    torch.testing.assert_close(alike, alike[:, :1].expand(-1, C), atol=1e-6, rtol=0)
    assert (similarities - alike).abs().max() > 1e-3


def test_what_is_learnt_is_added_to_what_is_known(batch):
    cliea = moved(make())
    v = batch.pop("v")
    caption = torch.stack(
        [batch["tokens"][i, min(n, T // 2) - 1] for i, n in enumerate((3, 12, 5, 1))]
    )
    prompt = torch.stack(
        [batch["prompt_tokens"][c, n - 1] for c, n in enumerate(batch["prompt_mask"].sum(1))]
    )
    expected = F.cosine_similarity(
        (cliea.align(v) + caption)[:, None], reference(cliea, **batch) + prompt, dim=-1
    )
    torch.testing.assert_close(cliea(v, **batch), expected, atol=1e-5, rtol=1e-4)


def test_it_starts_with_what_the_text_encoder_knows(batch):
    """Similarities are cosines of end tokens, whatever v is; a loop computes them one by one."""
    v, *known = batch.values()
    similarities = make()(**batch)
    expected = torch.zeros(B, C)
    for row in range(B):
        end = min(int(batch["mask"][row].sum()), T // 2) - 1
        for c in range(C):
            asked = batch["prompt_tokens"][c, int(batch["prompt_mask"][c].sum()) - 1]
            expected[row, c] = F.cosine_similarity(batch["tokens"][row, end], asked, dim=0)
    torch.testing.assert_close(similarities, expected)
    torch.testing.assert_close(ask_directly(*known), expected)
    assert torch.equal(make()(**{**batch, "v": v + 1}), similarities)
    assert not torch.allclose(make(AT_RANDOM)(**batch), expected, atol=0.1)


@pytest.mark.parametrize("recipe", [PAPER, AT_RANDOM])
def test_loss_trains_every_part_and_learns_to_tell_the_prompts_apart(recipe, batch):
    cliea, labels = make(recipe), torch.tensor([0, 3, 5, 1])
    optimiser = torch.optim.AdamW(cliea.parameters(), 3e-3)
    first = counterfactual_loss(cliea(**batch), labels)
    torch.testing.assert_close(first, F.cross_entropy(cliea(**batch) / TEMPERATURE, labels))
    for step in range(60):
        optimiser.zero_grad()
        counterfactual_loss(cliea(**batch), labels).backward()
        # weights behind a zero layer get no gradient in the first step
        ready = step > 0 or recipe == AT_RANDOM
        assert all(not ready or p.grad.abs().sum() > 0 for p in cliea.parameters())
        optimiser.step()
    assert (
        counterfactual_loss(cliea(**batch), labels) < 0.1
        and (cliea(**batch).argmax(1) == labels).all()
    )


def test_no_loop_over_pictures(batch, operations):
    cliea = make()

    def step(pictures):
        few = {
            name: value if name.startswith("prompt") else value[torch.arange(pictures) % 2]
            for name, value in batch.items()
        }
        return operations(
            lambda: counterfactual_loss(cliea(**few), torch.arange(pictures) % C).backward()
        )

    step(2)  # the first backward pass creates the gradients, later ones add to them
    assert step(2) == step(16) > 50


@pytest.mark.parametrize("recipe", [PAPER, RELEASED])
def test_thirty_triplets_and_none_go_through_perception_and_alignment(recipe):
    """Numbers and gradients are finite, and a picture's neighbours do not affect it."""
    torch.manual_seed(0)
    encoder = load_text_encoder(blank_preset())
    many = [("cat", "has", f"hat {i}") for i in range(30)]
    tokens, mask = knowledge_tokens(
        ["a cat with thirty hats .", "a dog"], [many, []], recipe, encoder
    )
    kadap = load_kadap(blank_preset(), recipe, tokens.shape[1]).eval()
    cliea, latents = (
        CLIEA(kadap.visual_width, kadap.text_width, recipe),
        torch.randn(2, kadap.unet.config.in_channels, 8, 8),
    )

    def see(rows):
        kadap.zero_grad(set_to_none=True)
        seen = kadap(latents[rows], tokens[rows], mask[rows])
        similarities = cliea(
            seen.v, tokens[rows], mask[rows], *encode_texts(prompts(["happy", "fear"]), encoder)
        )
        (
            counterfactual_loss(similarities, torch.ones(len(similarities), dtype=torch.long))
            + seen.logits.square().sum()
            + seen.balance
        ).backward()
        assert all(
            p.grad.isfinite().all()
            for part in (kadap, cliea)
            for p in part.parameters()
            if p.grad is not None
        )
        assert kadap.fpn.layer_blocks[0][0].weight.grad.norm() > 0
        return torch.cat([seen.logits, seen.v, similarities], 1).detach()

    both = see(torch.arange(2))
    assert both.isfinite().all() and not torch.allclose(*both)
    torch.testing.assert_close(
        torch.cat([see(torch.tensor([i])) for i in range(2)]), both, atol=1e-4, rtol=1e-4
    )


# -- pseudo-labels


def similar(labels, strength):
    """Similarities whose softmax peaks at `labels`, the more so the larger `strength`."""
    return TEMPERATURE * strength[:, None] * F.one_hot(labels, 6)


def test_nothing_is_kept_during_the_warm_up():
    labeller, rows = PseudoLabeller(60, 6, PAPER, warm_up=0.25), torch.arange(60)
    labels, strength = rows % 6, torch.linspace(1, 9, 60)
    pseudo = labeller.update(rows, similar(labels, strength), progress=0.24)
    assert torch.equal(pseudo.labels, labels) and not pseudo.kept.any()
    assert labeller.update(rows, similar(labels, strength), progress=0.26).kept.any()


def test_the_surest_of_every_class_are_kept_and_more_of_them_with_time():
    """Class 0 is easy and frequent, class 1 rare and uncertain.

    A common threshold would drop class 1 altogether.
    """
    labels = torch.tensor([0] * 80 + [1] * 20)
    strength = torch.cat([torch.linspace(6, 9, 80), torch.linspace(1, 2, 20)])
    labeller, rows = (
        PseudoLabeller(100, 6, PAPER, warm_up=0.2, keep=(0.25, 0.75)),
        torch.arange(100),
    )
    coverages = []
    for progress in (0.2, 0.6, 1.0):
        kept = labeller.update(rows, similar(labels, strength), progress).kept
        share = torch.stack([kept[labels == c].float().mean() for c in (0, 1)])
        torch.testing.assert_close(share[0], share[1], atol=0.06, rtol=0)
        coverages.append(float(kept.float().mean()))
        assert strength[kept & (labels == 0)].min() > strength[~kept & (labels == 0)].max()
    torch.testing.assert_close(
        torch.tensor(coverages), torch.tensor([0.25, 0.5, 0.75]), atol=0.06, rtol=0
    )
    assert torch.equal(labeller.all().kept, kept) and torch.equal(labeller.all().labels, labels)


def test_memory_smooths_over_the_epochs():
    labeller, row = PseudoLabeller(3, 6, PAPER, momentum=0.5), torch.tensor([1])
    for _ in range(3):
        labeller.update(row, similar(torch.tensor([2]), torch.tensor([8.0])), 0.5)
    flipped = labeller.update(row, similar(torch.tensor([4]), torch.tensor([5.0])), 0.5)
    assert flipped.labels.item() == 2  # one contrary prediction does not overturn three
    assert (
        labeller.update(row, similar(torch.tensor([4]), torch.tensor([5.0])), 0.5).labels.item()
        == 4
    )
    assert labeller.seen.tolist() == [False, True, False] and not labeller.all().kept[[0, 2]].any()


def test_a_batch_labels_alike_in_any_order_and_the_state_can_be_saved():
    torch.manual_seed(0)
    similarities, order = torch.rand(40, 6) / 5, torch.randperm(40)
    straight, mixed = PseudoLabeller(40, 6, PAPER), PseudoLabeller(40, 6, PAPER)
    one = straight.update(torch.arange(40), similarities, 0.7)
    other = mixed.update(order, similarities[order], 0.7)
    assert (
        torch.equal(one.kept[order], other.kept)
        and torch.equal(one.labels[order], other.labels)
        and 0 < one.kept.sum() < 40
    )
    restored = PseudoLabeller(40, 6, PAPER)
    restored.load_state_dict(straight.state_dict())
    assert torch.equal(restored.all(0.7).kept, one.kept) and not list(straight.parameters())


def test_raw_labels_are_the_argmax_from_the_first_step():
    labeller = PseudoLabeller(4, 6, RELEASED)
    rows, first = torch.arange(4), similar(torch.tensor([0, 1, 2, 3]), torch.full((4,), 0.1))
    assert labeller.update(rows, first, 0.0).kept.all()
    later = labeller.update(rows, first.flip(0), 0.0)
    assert later.labels.tolist() == [3, 2, 1, 0] and later.kept.all()
    # what is reported is what was trained on, although the second answer was less sure
    labeller.note(rows, torch.eye(6)[[0, 0, 0, 0]] * 0.9, 0.0)
    unsure = labeller.note(rows, torch.eye(6)[[1, 2, 3, 4]] * 0.6, 0.0)
    assert torch.equal(labeller.all().labels, unsure.labels)


def test_one_picture_alone_and_similarities_without_gradient():
    labeller = PseudoLabeller(1, 6, PAPER)
    similarities = torch.rand(1, 6, requires_grad=True)
    pseudo = labeller.update(torch.tensor([0]), similarities, 1.0)
    assert pseudo.kept.all() and not pseudo.confidence.requires_grad


# -- several predictors, and class priors


def test_voices_together_are_a_geometric_mean():
    one, other = (
        torch.tensor([[0.8, 0.1, 0.1], [1.0, 0.0, 0.0]]),
        torch.tensor([[0.2, 0.6, 0.2], [0.0, 0.5, 0.5]]),
    )
    for i in range(2):
        mean = [
            (max(p, 1e-6) * max(q, 1e-6)) ** 0.5
            for p, q in zip(one[i].tolist(), other[i].tolist(), strict=True)
        ]
        torch.testing.assert_close(
            together(one, other)[i], torch.tensor([x / sum(mean) for x in mean])
        )
    torch.testing.assert_close(together(one), one.clamp(min=1e-6), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        together(one, torch.full((2, 3), 1 / 3), one), together(one, one, torch.full((2, 3), 1 / 3))
    )
    assert together(torch.tensor([[0.99, 0.01]]), torch.tensor([[0.4, 0.6]])).argmax() == 0, (
        "who is sure counts for more"
    )


SHARES, SOURCE_SHARES = (
    torch.tensor([0.45, 0.30, 0.15, 0.10]),
    torch.tensor([0.10, 0.20, 0.30, 0.40]),
)


def calibrated(shares, taught, count=4000):
    """Draw pictures [N, 2] from four overlapping Gaussians with the class shares `shares`.

    Returns the posterior by Bayes' rule under the prior `taught`, and the true classes.
    """
    random = torch.Generator().manual_seed(0)
    labels = torch.multinomial(shares, count, replacement=True, generator=random)
    centres = 1.5 * torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    x = centres[labels] + torch.randn(count, 2, generator=random)
    return (taught.log() - torch.cdist(x, centres).square() / 2).softmax(-1), labels


def test_another_prior_is_bayes_rule():
    """Predictions trained under one prior and moved to another equal those trained under it."""
    taught, labels = calibrated(SHARES, SOURCE_SHARES, 50)
    torch.testing.assert_close(
        with_prior(taught, SHARES, SOURCE_SHARES),
        calibrated(SHARES, SHARES, 50)[0],
        atol=1e-5,
        rtol=1e-4,
    )
    torch.testing.assert_close(with_prior(taught, SOURCE_SHARES, SOURCE_SHARES), taught)
    assert not with_prior(torch.zeros(1, 4), SHARES, SOURCE_SHARES).any(), (
        "nothing known of a picture stays nothing"
    )


def test_shifted_shares_are_found_again():
    """The plain mean of the predictions is far off; the estimate improves the predictions."""
    probs, labels = calibrated(SHARES, SOURCE_SHARES)
    true, found = labels.bincount() / len(labels), estimate_prior(probs, SOURCE_SHARES)
    torch.testing.assert_close(
        estimate_prior(probs, SOURCE_SHARES, least=0.0), true, atol=0.015, rtol=0
    )
    torch.testing.assert_close(found, true, atol=0.03, rtol=0)
    assert (probs.mean(0) - true).abs().max() > 0.1 and found.sum().item() == pytest.approx(
        1, abs=1e-5
    )
    right = [
        (answers.argmax(1) == labels).float().mean().item()
        for answers in (probs, with_prior(probs, found, SOURCE_SHARES))
    ]
    assert right[1] > right[0] + 0.03
    torch.testing.assert_close(
        estimate_prior(calibrated(SOURCE_SHARES, SOURCE_SHARES)[0], SOURCE_SHARES),
        SOURCE_SHARES,
        atol=0.03,
        rtol=0,
    )


def test_a_class_that_is_missing_keeps_a_small_share():
    probs, _ = calibrated(torch.tensor([0.5, 0.5, 0, 0]), SOURCE_SHARES)
    assert all(
        LEAST <= share < LEAST + 0.01 for share in estimate_prior(probs, SOURCE_SHARES)[2:].tolist()
    )
    assert estimate_prior(probs, SOURCE_SHARES, least=0.0)[2:].max() < 0.01


def test_a_class_that_the_source_never_shows_does_not_take_over():
    """Its predicted probability is small but not zero, while its source prior is zero."""
    taught = torch.tensor([0.3, 0.3, 0.4, 0.0])
    probs, labels = calibrated(taught, taught)
    probs = 0.99 * probs + 0.01 * torch.eye(4)[3]
    found = estimate_prior(probs, taught)
    torch.testing.assert_close(found, taught, atol=0.05, rtol=0)
    assert (with_prior(probs, found, taught).argmax(1) == probs.argmax(1)).float().mean() > 0.97


def test_labels_follow_the_targets_own_shares():
    """With pseudo_labels="priors", labels and confidence follow Bayes' rule.

    They come from the memory, in every update and at the end; an unseen picture does not count.
    """
    probs, labels = calibrated(SHARES, SOURCE_SHARES, 400)
    labeller = PseudoLabeller(
        401, 4, replace(PAPER, pseudo_labels="priors"), source_prior=SOURCE_SHARES
    )
    assert torch.equal(labeller.probabilities(), labeller.memory), "nothing was seen"
    pseudo = labeller.note(torch.arange(400), probs, 1.0)
    expected = with_prior(probs, estimate_prior(probs, SOURCE_SHARES), SOURCE_SHARES)
    torch.testing.assert_close(pseudo.confidence, expected.max(1).values)
    assert (
        torch.equal(pseudo.labels, expected.argmax(1))
        and torch.equal(labeller.all().labels[:400], pseudo.labels)
        and not labeller.all().kept[400]
    )
    assert (
        torch.equal(labeller.all().kept[:400], pseudo.kept)
        and 0.7 < pseudo.kept.float().mean() < 0.9
    )
    plain = PseudoLabeller(401, 4, PAPER, source_prior=SOURCE_SHARES).note(
        torch.arange(400), probs, 1.0
    )
    assert torch.equal(plain.labels, probs.argmax(1))
    assert (pseudo.labels == labels).float().mean() > (plain.labels == labels).float().mean() + 0.03


def test_similarities_are_noted_as_their_probabilities():
    similarities = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) / 5
    one, other = PseudoLabeller(5, 6, PAPER), PseudoLabeller(5, 6, PAPER)
    updated, noted = (
        one.update(torch.arange(5), similarities, 0.8),
        other.note(torch.arange(5), similarity_probs(similarities), 0.8),
    )
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(updated, noted, strict=True)
    ) and torch.equal(one.memory, other.memory)
