"""The two recipes: each of the fifteen switches changes what it names, and nothing else."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blank import blank_preset

from kcdp_lib import Config, config, knowledge, precompute
from kcdp_lib.adapt import training
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.config import BEYOND, RECIPES, SWITCHES, read_recipe
from kcdp_lib.latents import encode_images, load_vae
from kcdp_lib.perception import Perception
from kcdp_lib.pretrain.stack import HIDDEN

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER, RELEASED = RECIPES["paper"], RECIPES["released"]


# -- their names


def test_switches_are_the_rows_of_the_methods_table():
    """They are the differences between the paper recipe and the released code."""
    assert SWITCHES == (
        "image_range",
        "latent_scaling",
        "trained",
        "attention_gradient",
        "knowledge_in_moe",
        "gate_renormalised",
        "balance",
        "source_loss_count",
        "triplet_text",
        "cliea_masked",
        "cliea_start",
        "domain_norm",
        "pseudo_labels",
        "learning_rate",
        "shuffled",
    )
    assert all(getattr(PAPER, switch) != getattr(RELEASED, switch) for switch in SWITCHES)
    assert Config().switches == PAPER  # the default


def test_single_switches_can_be_set():
    assert read_recipe("paper") == PAPER and read_recipe(" released ") == replace(
        RELEASED, name=" released "
    )
    text = "paper, balance=rank_std,  source_loss_count = 2, shuffled=False"
    assert Config(recipe=text).check().switches == replace(
        PAPER, name=text, balance="rank_std", source_loss_count=2, shuffled=False
    )
    assert read_recipe("released, attention_gradient=True").attention_gradient is True
    turned = read_recipe(
        "paper, " + ", ".join(f"{switch}={getattr(RELEASED, switch)}" for switch in SWITCHES)
    )
    assert replace(turned, name="released") == RELEASED


def test_best_is_the_papers_with_what_goes_beyond_it():
    """No recipe sets "heads", but it can be requested.

    The recipes "paper" and "released" agree in what goes beyond the paper.
    """
    best = RECIPES["best"]
    assert BEYOND == ("embeddings", "labels") and best == replace(
        PAPER,
        name="best",
        embeddings=True,
        labels="soft",
    )
    assert all(getattr(PAPER, switch) == getattr(RELEASED, switch) for switch in BEYOND)
    text = "best, trained=heads"
    assert (
        read_recipe(text) == replace(best, name=text, trained="heads")
        and Config(recipe=text).check().switches.trained == "heads"
    )
    assert read_recipe("paper, embeddings=True") == replace(
        PAPER, name="paper, embeddings=True", embeddings=True
    )
    assert (
        replace(
            read_recipe("best, embeddings=False, labels=hard"),
            name="paper",
        )
        == PAPER
    )
    assert read_recipe("paper, timestep=50, lora_rank=2, labelled_by=vlm") == replace(
        PAPER,
        name="paper, timestep=50, lora_rank=2, labelled_by=vlm",
        timestep=50,
        lora_rank=2,
        labelled_by="vlm",
    )
    assert read_recipe("best, pseudo_labels=priors") == replace(
        best, name="best, pseudo_labels=priors", pseudo_labels="priors"
    )


# -- what each does in one step of training

PICTURES = 8
CAPTIONS = ["a cat with a hat .", "a dog", "a girl at a party with a cake .", "a boy crying"] * 2
TRIPLETS = [
    [("cat", "has", "hat")],
    [],
    [("girl", "at", "party"), ("girl", "has", "cake")],
    [("boy", "is", "crying")],
] * 2


@dataclass
class Step:
    """One training step on eight source and eight target pictures, with what it showed."""

    model: KCDP  # after the step
    start: dict  # its parameters before
    frozen: precompute.Frozen  # of the source
    pixels: torch.Tensor  # the VAE's input for it
    encoded: torch.Tensor  # the VAE's output, before any scaling
    rows: list[int]  # the step's source pictures
    seen: Perception  # of these pictures
    total: float  # the source loss
    parts: dict  # its parts
    coverage: float  # share of kept pseudo-labels


@pytest.fixture(scope="module")
def take(one_thread, tmp_path_factory):
    """Return a function from a recipe to its `Step`, which is computed once."""
    foundations = SimpleNamespace(
        text_encoder=knowledge.load_text_encoder(blank_preset()),
        vae=load_vae(blank_preset()),
    )
    checkpoints, done = tmp_path_factory.mktemp("steps"), {}

    def frozen(recipe, seed):
        images = torch.randint(
            0,
            256,
            (PICTURES, 3, 32, 32),
            dtype=torch.uint8,
            generator=torch.Generator().manual_seed(seed),
        )
        tokens, mask = knowledge.knowledge_tokens(
            CAPTIONS, TRIPLETS, recipe, foundations.text_encoder
        )
        return precompute.Frozen(
            encode_images(foundations.vae, images, recipe),
            tokens,
            mask,
            torch.zeros(PICTURES, 1),
            CAPTIONS,
            TRIPLETS,
        )

    def step(recipe):
        settings, noted, fed = Config(preset="blank", recipe=recipe, epochs=1), [], []
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(
                config.PRESETS,
                "blank",
                replace(blank_preset(), name="blank", image_size=32, batch_size=PICTURES),
            )
            hook = foundations.vae.encoder.register_forward_pre_hook(
                lambda module, args: fed.append(args[0])
            )
            source, target = frozen(settings.switches, 0), frozen(settings.switches, 1)
            hook.remove()
            torch.manual_seed(0)
            start = KCDP(settings.sizes, settings.switches)
            gather, source_loss = training.gather, training.source_loss
            patch.setattr(
                training,
                "gather",
                lambda frozen, rows, device: (
                    noted.append(rows.tolist()) or gather(frozen, rows, device)
                ),
            )
            patch.setattr(
                training,
                "source_loss",
                lambda seen, *rest: noted.append((seen, source_loss(seen, *rest))) or noted[-1][1],
            )
            trained = training.train(
                settings,
                source,
                np.arange(PICTURES) % 6,
                target,
                checkpoints / f"{len(done)}.safetensors",
                recipe,
            )
        rows, (seen, (total, parts)), _ = noted  # source rows, source loss, target rows: one step
        with torch.no_grad():
            encoded = foundations.vae.encode(fed[0]).latent_dist.mode()
        return Step(
            trained.model,
            dict(start.named_parameters()),
            source,
            fed[0],
            encoded,
            rows,
            seen,
            total.item(),
            parts,
            trained.history[0]["coverage"],
        )

    return lambda recipe: done[recipe] if recipe in done else done.setdefault(recipe, step(recipe))


def moved(step: Step) -> dict[str, float]:
    """Return how far each parameter moved, without those that did not."""
    far = {
        name: (p - step.start[name]).abs().max().item() for name, p in step.model.named_parameters()
    }
    return {name: value for name, value in far.items() if value}


def balance(step: Step) -> str:
    """Name the formula that gives the step's balance."""
    gates = step.seen.gates.detach()
    formulas = {
        "load": gates.sum(0).var(unbiased=False) / gates.sum(0).mean() ** 2,
        "rank_std": gates.topk(2).values.sum(0).repeat(6).std(),
    }
    return ", ".join(
        name
        for name, value in formulas.items()
        if torch.allclose(value, step.parts["balance"], rtol=1e-4)
    )


@torch.no_grad()
def padding_is_read(step: Step) -> bool:
    """Return whether CLIEA's similarities depend on the padding of knowledge and prompts."""
    model, frozen, noise = step.model, step.frozen, 10.0
    _, before = model(frozen.latents, frozen.tokens, frozen.mask)
    model.prompt_tokens[~model.prompt_mask] += noise
    seen, after = model(
        frozen.latents, frozen.tokens + noise * ~frozen.mask[..., None], frozen.mask
    )
    model.prompt_tokens[~model.prompt_mask] -= noise
    return not torch.allclose(before, after, atol=1e-5)


# switch: (a fact about the step, its value under "paper", its value under "released")
FACTS = {
    "image_range": (lambda step: step.pixels.abs().max().item() <= 1, True, False),
    "latent_scaling": (
        lambda step: round((step.frozen.latents / step.encoded).median().item(), 5),
        0.18215,
        1.0,
    ),
    "trained": (
        lambda step: {
            "adapters" if ".lora_" in name else "own weights"
            for name in moved(step)
            if ".unet." in name
        },
        {"adapters"},
        {"own weights"},
    ),
    "attention_gradient": (
        lambda step: [attention.requires_grad for attention in step.seen.attention],
        [True, True],
        [False, False],
    ),
    "knowledge_in_moe": (
        lambda step: step.model.kadap.experts.gate.in_features,
        4 * 64 + 3 * HIDDEN,
        4 * 64,
    ),
    "gate_renormalised": (
        lambda step: torch.allclose(step.seen.gates.sum(1), torch.ones(len(step.rows))),
        True,
        False,
    ),
    "balance": (balance, "load", "rank_std"),
    "source_loss_count": (
        lambda step: round(
            (
                (step.total - step.parts["alignment_loss"] - 0.1 * step.parts["balance"])
                / F.cross_entropy(step.seen.logits, torch.tensor(step.rows) % 6)
            ).item(),
            3,
        ),
        1,
        2,
    ),
    # whether picture 1, which has no triplet, gets its caption twice
    "triplet_text": (
        lambda step: (step.frozen.mask.all().item(), torch.equal(*step.frozen.tokens[1].chunk(2))),
        (False, False),
        (True, True),
    ),
    "cliea_masked": (padding_is_read, False, True),
    # whether CLIEA starts at random
    "cliea_start": (
        lambda step: step.start["cliea.out_proj.weight"].any().item(),
        False,
        True,
    ),
    "domain_norm": (lambda step: step.model.kadap.norm is not None, True, False),
    "pseudo_labels": (lambda step: step.coverage, 0, 1),
    "learning_rate": (
        lambda step: float(f"{max(moved(step).values()):.0e}"),
        5e-4,
        1e-5,
    ),  # Adam's first step has the size of the rate
    "shuffled": (
        lambda step: (len(step.rows), step.rows == sorted(step.rows)),
        (PICTURES, False),
        (PICTURES // 2, True),
    ),
}


@pytest.mark.parametrize("turned", ["paper", *SWITCHES, "released"])
def test_a_switch_decides_its_own_fact_and_no_other(turned, take):
    step = take(turned if turned in RECIPES else f"paper, {turned}={getattr(RELEASED, turned)}")
    expected = {
        switch: FACTS[switch][2 if turned in (switch, "released") else 1] for switch in SWITCHES
    }
    assert {switch: FACTS[switch][0](step) for switch in SWITCHES} == expected
    assert np.isfinite(step.total) and all(p.isfinite().all() for p in step.model.parameters())


def test_cutting_the_attention_changes_the_gradient_alone(take):
    """The released code detaches the maps in a no-grad checkpoint.

    The forward numbers are the same; the weights after the step differ.
    """
    paper, cut = take("paper"), take("paper, attention_gradient=False")
    assert torch.equal(paper.seen.logits, cut.seen.logits) and paper.total == cut.total
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
    name = f"kadap.unet.{attention}.to_q.lora_B.default.weight"
    assert not torch.equal(*(dict(step.model.named_parameters())[name] for step in (paper, cut)))


def test_constant_rate_never_moves():
    optimizer, rates = torch.optim.AdamW([torch.zeros(1, requires_grad=True)]), set()
    for step in range(100):
        training.set_learning_rate(
            optimizer, step, 100, Config(recipe="paper, learning_rate=constant")
        )
        rates.add(optimizer.param_groups[0]["lr"])
    assert rates == {1e-5}
