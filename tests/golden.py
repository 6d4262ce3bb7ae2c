"""The released code's own numbers (golden tensors), and our modules with the weights they were computed with."""
import importlib.util
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from kcdp_lib.config import RECIPES
from kcdp_lib.counterfactuals import CLIEA, counterfactual_loss
from kcdp_lib.perception import EXPERTS, KADAP

FOLDER = Path(__file__).resolve().parent / "golden"
POSITIONS, FPN, HIDDEN, WIDTH = 154, 64, 128, 64
NAMES = {"in_proj.weight": "mul_attn.in_proj_weight", "in_proj.bias": "mul_attn.in_proj_bias", "out_proj.weight": "mul_attn.out_proj.weight",
         "out_proj.bias": "mul_attn.out_proj.bias", "align.weight": "v_align.weight", "align.bias": "v_align.bias"}


@lru_cache
def stored(name: str) -> dict[str, torch.Tensor]:
    """One file of the folder; fp16 is exact, so it is cast up."""
    return {key: value.float() if value.is_floating_point() else value for key, value in load_file(FOLDER / f"{name}.safetensors").items()}


@lru_cache
def rule():
    spec = importlib.util.spec_from_file_location("weights_rule", FOLDER / "weights_rule.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_unet() -> UNet2DConditionModel:
    """diffusers' UNet with every weight regenerated from its name."""
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(FOLDER / "unet"))
    norms = {name for name, module in unet.named_modules() if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm))}
    unet.load_state_dict({name: rule().weight(f"unet.{name}", p.shape, name.rpartition(".")[0] in norms) for name, p in unet.state_dict().items()})
    return unet


def stacked_experts(heads: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The released experts, one module each, as our stacked ones."""
    def of_each(part):
        return [heads[f"cls_head.moe.experts.{e}.net.{part}"] for e in range(EXPERTS)]
    return {"gate.weight": heads["cls_head.moe.gating.gate.weight"], "gate.bias": heads["cls_head.moe.gating.gate.bias"],
            "first.weight": torch.cat(of_each("0.weight")), "first.bias": torch.cat(of_each("0.bias")),
            "second": torch.stack([w.T for w in of_each("2.weight")]), "bias": torch.stack(of_each("2.bias"))}


def kadap(**switches) -> KADAP:
    model = KADAP(plain_unet(), POSITIONS, replace(RECIPES["released"], **switches), FPN, HIDDEN, lora_rank=8)
    model.fpn.load_state_dict({name.removeprefix("fpn."): value for name, value in stored("heads").items() if name.startswith("fpn.")})
    model.experts.load_state_dict(stacked_experts(stored("heads")))
    return model


def cliea(**switches) -> CLIEA:
    model = CLIEA(4 * FPN, WIDTH, replace(RECIPES["released"], **switches))
    model.load_state_dict({mine: stored("heads")[f"kalie.{theirs}"] for mine, theirs in NAMES.items()})
    return model


def step(model: KADAP, align: CLIEA) -> dict[str, torch.Tensor]:
    """One training step of the released recipe, without the optimiser: everything by the names of outputs.safetensors."""
    inputs, prompt = stored("inputs"), stored("heads")["emo_labels_emb"]
    found = {}
    for d in "st":
        tokens = inputs[f"context_{d}"]
        mask, prompt_mask = torch.ones(tokens.shape[:2], dtype=torch.bool), torch.ones(prompt.shape[:2], dtype=torch.bool)
        seen = model(inputs[f"latents_{d}"], tokens, mask)
        similarities = align(seen.v, tokens, mask, prompt, prompt_mask)
        labels = inputs["labels_s"] if d == "s" else similarities.argmax(1)
        cross_entropy = torch.nn.functional.cross_entropy(seen.logits, labels)
        moe = cross_entropy + 0.1 * seen.balance
        found |= {f"{d}.map{i}": m for i, m in enumerate(seen.maps)}
        found |= {f"{d}.pooled": seen.v, f"{d}.logits": seen.logits, f"{d}.balance_std": seen.balance, f"{d}.similarities_over_T": similarities / 0.07,
                  f"{d}.moe_loss": moe, f"{d}.t_a": align.read(tokens, mask, prompt, prompt_mask), f"{d}.v_a": align.align(seen.v), f"{d}.gates": seen.gates}
        if d == "s":
            contrast = counterfactual_loss(similarities, labels)
            found |= {"s.ce_loss": cross_entropy, "s.cliea_loss": contrast, "s.loss": moe + cross_entropy * (model.recipe.source_loss_count - 1) + contrast}
        else:
            found |= {"t.pseudo_labels": labels, "t.loss": moe}
    return found | {"total_loss": found["s.loss"] + found["t.loss"]}
