"""Compare the library with golden tensors that the authors' released code computed.

`python -m tests.golden DIR [--name-prefix P]`, from the checkout's root, compares any folder with
the layout of tests/golden (see its README) tensor by tensor under recipe "released";
tests/test_golden.py calls the same function. All sizes come from the folder's files; none of its
code is run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import zlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from kcdp_lib import KCDPError, knowledge
from kcdp_lib.adapt.training import BALANCE_WEIGHT, source_loss, target_loss
from kcdp_lib.config import RECIPES
from kcdp_lib.counterfactuals import CLIEA, TEMPERATURE, PseudoLabeller, counterfactual_loss
from kcdp_lib.errors import first_line
from kcdp_lib.perception import CHOSEN, EXPERTS, KADAP, Experts

FOLDER = Path(__file__).resolve().parent / "golden"
COLUMNS = ("released", "attached")  # gradients without and with those through the attention maps
FORWARD, ATTENTION, GRADIENT, EXACT = 1e-4, 1e-6, 1e-3, 0.0
# A smaller norm is an exact zero (float64 leaves 1e-15) and is compared absolutely; see
# `Folder.floor`.
ZERO = 1e-9
KALIE = {
    "in_proj.weight": "mul_attn.in_proj_weight",
    "in_proj.bias": "mul_attn.in_proj_bias",
    "out_proj.weight": "mul_attn.out_proj.weight",
    "out_proj.bias": "mul_attn.out_proj.bias",
    "align.weight": "v_align.weight",
    "align.bias": "v_align.bias",
}


@dataclass
class Line:
    """One comparison.

    The difference is NaN or infinite where numbers or shapes cannot be compared, and such a line is
    not ok.
    """

    name: str
    shape: tuple
    difference: float
    tolerance: float
    measure: str

    @property
    def ok(self) -> bool:
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.name:<90} {str(list(self.shape)):<20} {self.difference:9.2e} {self.measure:<8} "
            f" tolerance {self.tolerance:.1e}  {'ok' if self.ok else 'FAIL'}"
        )


def line(name: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> Line:
    """Compare by the largest absolute difference; a tolerance of 0 demands equality."""
    alike = found.shape == expected.shape
    difference = (
        (found.detach().double() - expected.double()).abs().max().item()
        if alike and expected.numel()
        else 0.0
        if alike
        else float("inf")
    )
    return Line(
        name, tuple(expected.shape), difference, tolerance, "absolute" if tolerance else "exact"
    )


def gradient_line(
    name: str, found: torch.Tensor | None, expected: torch.Tensor, floor: float
) -> Line:
    """Compare by the largest difference relative to the largest expected number.

    Where zero is expected, the difference is absolute, against `floor`. A missing gradient counts
    as zero.
    """
    scale = expected.abs().max().item()
    absolute = line(name, torch.zeros_like(expected) if found is None else found, expected, floor)
    return (
        absolute
        if scale < ZERO
        else replace(
            absolute, difference=absolute.difference / scale, tolerance=GRADIENT, measure="relative"
        )
    )


class Stored(dict):
    """The contents of one file.

    It records which names were read, so that the others are reported as not compared. A missing
    name raises KCDPError.
    """

    def __init__(self, file: Path, values: dict):
        super().__init__(values)
        self.file, self.asked = file, set()

    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)

    def __missing__(self, name):
        raise KCDPError(
            f"{self.file} lacks {name}; give a folder of golden tensors as its README.md describes "
            "it."
        )


def rule(prefix: str = ""):
    """Load our own weights_rule.py as a fresh module.

    `prefix` enters a name's checksum; otherwise the rule sees names without it.
    """
    spec = importlib.util.spec_from_file_location("weights_rule", FOLDER / "weights_rule.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.values = lambda name, shape: np.random.RandomState(
        zlib.crc32((prefix + name).encode())
    ).standard_normal(tuple(shape))
    return module


class Folder:
    """A folder of golden tensors, and the library's modules with its weights and sizes."""

    TENSORS = ("heads", "inputs", "text_pieces", "outputs", "units", "grads")

    def __init__(self, path: Path | str, prefix: str = ""):
        self.path, self.rule = Path(path), rule(prefix)
        if not self.path.is_dir():
            raise KCDPError(
                f"{path} is not a folder; give a folder of golden tensors, such as tests/golden."
            )
        self.heads, self.inputs, self.text_pieces, self.outputs, self.units, self.grads = (
            self._tensors(f"{name}.safetensors") for name in self.TENSORS
        )
        self.config, self.all_norms = self._json("unet/config.json"), self._json("grad_norms.json")
        self.all_norms.asked.add("columns")  # names of the two columns
        self.norms, self.unit_norms = (
            Stored(self.all_norms.file, self.all_norms[part])
            for part in ("total_loss_grad_norms", "unit_grad_norms")
        )
        for column in COLUMNS:
            if not any(name.startswith(f"{column}/") for name in self.grads):
                self.grads[f"{column}/..."]  # raises KCDPError
        if (t := self.inputs["timestep"].flatten().tolist()) != [RECIPES["released"].timestep]:
            raise KCDPError(
                f"{self.inputs.file} asks for timestep {t}; the library looks at t = "
                f"{RECIPES['released'].timestep}."
            )
        experts = len(
            {name.split(".")[3] for name in self.heads if name.startswith("cls_head.moe.experts.")}
        )
        if experts != EXPERTS:
            raise KCDPError(
                f"{self.heads.file} holds {experts} experts; the library has {EXPERTS}."
            )

    def _tensors(self, name: str) -> Stored:
        """Read a file of tensors and cast float16, which is exact here, to float32."""
        try:
            return Stored(
                self.path / name,
                {
                    key: value.float() if value.is_floating_point() else value.long()
                    for key, value in load_file(self.path / name).items()
                },
            )
        except (OSError, SafetensorError) as error:
            raise KCDPError(
                f"{self.path / name} cannot be read ({first_line(error)}); give a folder of golden "
                "tensors, such as tests/golden."
            ) from error

    def _json(self, name: str) -> Stored:
        try:
            return Stored(self.path / name, json.loads((self.path / name).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise KCDPError(
                f"{self.path / name} cannot be read ({first_line(error)}); give a folder of golden "
                "tensors, such as tests/golden."
            ) from error

    @property
    def classes(self) -> int:
        return len(self.heads["emo_labels_emb"])

    @property
    def expert_width(self) -> int:
        return len(self.heads["cls_head.moe.experts.0.net.0.weight"])

    def unet(self) -> UNet2DConditionModel:
        """Return diffusers' UNet with every weight regenerated from its name."""
        unet = UNet2DConditionModel.from_config(dict(self.config))
        norms = {
            name
            for name, module in unet.named_modules()
            if isinstance(module, (nn.GroupNorm, nn.LayerNorm))
        }
        unet.load_state_dict(
            {
                name: self.rule.weight(f"unet.{name}", p.shape, name.rpartition(".")[0] in norms)
                for name, p in unet.state_dict().items()
            }
        )
        return unet

    def kadap(self, unet: UNet2DConditionModel, attention_gradient: bool) -> KADAP:
        recipe = replace(RECIPES["released"], attention_gradient=attention_gradient)
        width = len(self.heads["fpn.layer_blocks.0.0.weight"])
        model = KADAP(
            unet,
            self.inputs["context_s"].shape[1],
            recipe,
            width,
            self.expert_width,
            lora_rank=1,
            classes=self.classes,
        )
        model.fpn.load_state_dict(
            {
                name.removeprefix("fpn."): self.heads[name]
                for name in self.heads
                if name.startswith("fpn.")
            }
        )
        model.experts = self.experts()
        return model

    def experts(self) -> Experts:
        """Return our stacked `Experts` with the weights of the released ones, one module each."""

        def of_each(part):
            return [self.heads[f"cls_head.moe.experts.{e}.net.{part}"] for e in range(EXPERTS)]

        gate = self.heads["cls_head.moe.gating.gate.weight"]
        model = Experts(gate.shape[1], self.expert_width, self.classes, RECIPES["released"])
        model.load_state_dict(
            {
                "gate.weight": gate,
                "gate.bias": self.heads["cls_head.moe.gating.gate.bias"],
                "first.weight": torch.cat(of_each("0.weight")),
                "first.bias": torch.cat(of_each("0.bias")),
                "second": torch.stack([w.T for w in of_each("2.weight")]),
                "bias": torch.stack(of_each("2.bias")),
            }
        )
        return model

    def cliea(self) -> CLIEA:
        text_width, visual_width = self.heads["kalie.v_align.weight"].shape
        model = CLIEA(visual_width, text_width, RECIPES["released"])
        model.load_state_dict(
            {mine: self.heads[f"kalie.{theirs}"] for mine, theirs in KALIE.items()}
        )
        return model

    def knowledge(self, d: str) -> knowledge.Knowledge:
        """Build the context of domain `d` from the stored encodings, as the library does.

        A text's name stands for the text.
        """
        pieces = self.text_pieces
        length, width = next(iter(pieces.values())).shape

        def encode(texts, text_encoder, *_):
            # The mask marks only the first position: "glued" must use all of them nonetheless.
            tokens = torch.cat(
                [torch.zeros(0, length, width), *(pieces[text][None] for text in texts)]
            )
            return tokens, (torch.arange(length) < 1).expand(len(texts), -1)

        batch = range(len(self.inputs[f"latents_{d}"]))
        numbers = [
            sorted(int(n) for name in pieces for n in re.findall(rf"{d}\.triple{i}\.(\d+)$", name))
            for i in batch
        ]
        triplets = [
            [(f"{d}.", f"triple{i}", f".{n}") for n in of_row] for i, of_row in enumerate(numbers)
        ]
        with mock.patch.object(knowledge, "encode_texts", encode):
            return knowledge.knowledge_tokens(
                [f"{d}.caption{i}" for i in batch], triplets, RECIPES["released"], None
            )

    def floor(self, column: int) -> float:
        """Bound what float32 leaves of an exact zero, where rounded terms cancel.

        The column's largest norm bounds the terms, times 4 for their sum.

        In tests/golden that is 2e-5; the zeros come out below 1e-6, and the smallest nonzero norm
        is 4e-3.
        """
        return (
            4
            * torch.finfo(torch.float32).eps
            * max(pair[column] or 0.0 for pair in self.norms.values())
        )


def expert_grads(experts: Experts, name: str) -> dict[str, torch.Tensor]:
    """Return the gradients under the released names."""
    mine, hidden = (
        {part: p.grad for part, p in experts.named_parameters()},
        len(experts.first.bias) // EXPERTS,
    )
    found = {f"{name}.gating.gate.{part}": mine[f"gate.{part}"] for part in ("weight", "bias")}
    for e in range(EXPERTS):
        rows = slice(e * hidden, (e + 1) * hidden)
        parts = {
            "0.weight": mine["first.weight"][rows],
            "0.bias": mine["first.bias"][rows],
            "2.weight": mine["second"][e].T,
            "2.bias": mine["bias"][e],
        }
        found |= {f"{name}.experts.{e}.net.{part}": grad for part, grad in parts.items()}
    return found


def cliea_grads(cliea: CLIEA, name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.{KALIE[part]}": p.grad for part, p in cliea.named_parameters()}


def gate_tensors(name: str, gates: torch.Tensor, classes: int) -> dict[str, torch.Tensor]:
    values, indices = gates.topk(CHOSEN)
    return {
        f"{name}gate_indices": indices,
        f"{name}gate_values": values,
        f"{name}gates_rank_sum": values.sum(0)[:, None].expand(-1, classes),
    }


def step(folder: Folder, kadap: KADAP, cliea: CLIEA) -> dict[str, torch.Tensor]:
    """Compute one training step without the optimiser, by the names in outputs.safetensors.

    The losses are the library's own.
    """
    prompt, recipe, found = folder.heads["emo_labels_emb"], RECIPES["released"], {}
    prompt_mask = torch.zeros(prompt.shape[:2], dtype=torch.bool)  # "released" must ignore it
    for d in "st":
        tokens, mask = folder.inputs[f"context_{d}"], folder.knowledge(d).mask
        seen = kadap(folder.inputs[f"latents_{d}"], tokens, mask)
        similarities = cliea(seen.v, tokens, mask, prompt, prompt_mask)
        found |= {f"{d}.map{i}": m for i, m in enumerate(seen.maps)} | {
            f"{d}.fpn{i}": level
            for i, level in enumerate(kadap.fpn(OrderedDict(enumerate(seen.maps))).values())
        }
        found |= gate_tensors(f"{d}.", seen.gates, folder.classes)
        found |= {
            f"{d}.pooled": seen.v,
            f"{d}.logits": seen.logits,
            f"{d}.balance_std": seen.balance,
            f"{d}.similarities_over_T": similarities / TEMPERATURE,
            f"{d}.t_a": cliea.read(tokens, mask, prompt, prompt_mask),
            f"{d}.v_a": cliea.align(seen.v),
        }
        if d == "s":
            found["s.loss"], parts = source_loss(
                seen, similarities, folder.inputs["labels_s"], recipe
            )
            found |= {
                "s.ce_loss": parts["source_loss"],
                "s.cliea_loss": parts["alignment_loss"],
                "s.moe_loss": parts["source_loss"] + BALANCE_WEIGHT * seen.balance,
            }
        else:
            pseudo = label(similarities, folder.classes)
            found["t.loss"] = found["t.moe_loss"] = target_loss(seen, pseudo.labels, pseudo.kept)[0]
            found["t.pseudo_labels"] = pseudo.labels
    return found | {"total_loss": found["s.loss"] + found["t.loss"]}


def label(similarities: torch.Tensor, classes: int):
    return PseudoLabeller(len(similarities), classes, RECIPES["released"]).update(
        torch.arange(len(similarities)), similarities, 0.0
    )


def unit_tensors(folder: Folder) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Run the experts and CLIEA on batches of their own, by the names in units.safetensors.

    Also return the gradients of their losses.
    """
    units, prompt, experts, cliea = (
        folder.units,
        folder.heads["emo_labels_emb"],
        folder.experts(),
        folder.cliea(),
    )

    def pooled(unit):
        return torch.cat([units[f"{unit}.in.v{i}"].mean((2, 3)) for i in range(4)], 1)

    _, logits, gates, balance = experts(pooled("moe"))
    found = gate_tensors("moe.", gates, folder.classes) | {
        "moe.logits": logits,
        "moe.balance_std": balance,
        "moe.loss": F.cross_entropy(logits, units["moe.in.labels"]) + BALANCE_WEIGHT * balance,
    }
    v, tokens = pooled("cliea"), units["cliea.in.knowledge"]
    masks = [
        torch.zeros(t.shape[:2], dtype=torch.bool) for t in (tokens, prompt)
    ]  # "released" must ignore them
    similarities = cliea(v, tokens, masks[0], prompt, masks[1])
    found |= {
        "cliea.t_a": cliea.read(tokens, masks[0], prompt, masks[1]),
        "cliea.v_a": cliea.align(v),
        "cliea.similarities_over_T": similarities / TEMPERATURE,
        "cliea.pseudo_labels": label(similarities, folder.classes).labels,
        "cliea.loss": counterfactual_loss(similarities, units["cliea.in.labels"]),
    }
    (found["moe.loss"] + found["cliea.loss"]).backward()  # they share no weight
    return found, expert_grads(experts, "moe.moe") | cliea_grads(cliea, "cliea")


def compare(path: Path | str, prefix: str = "") -> tuple[list[Line], list[str]]:
    """Compare everything in a folder; also list what is not compared, with reasons.

    Raises KCDPError if it is no such folder or lacks something.
    """
    folder = Folder(path, prefix)
    lines = [
        line(
            f"heads/{name}",
            (
                folder.rule.data(name, *value.shape)
                if name == "emo_labels_emb"
                else folder.rule.weight(name, value.shape)
            ),
            value,
            EXACT,
        )
        for name, value in folder.heads.items()
    ]
    for d in "st":
        latents, context = folder.inputs[f"latents_{d}"], folder.inputs[f"context_{d}"]
        lines += [
            line(
                f"inputs/latents_{d}",
                folder.rule.data(f"latents_{d}", *latents.shape),
                latents,
                EXACT,
            ),
            line(f"inputs/context_{d}", folder.knowledge(d).tokens, context, FORWARD),
        ]
    for column, name in enumerate(COLUMNS):
        unet = folder.unet()
        behind = {
            f"unet.{part}": None
            for part, _ in unet.named_parameters()
            if part.startswith(("conv_norm_out.", "conv_out."))
        }  # they lie behind the last map
        with torch.no_grad():
            plain = unet(
                folder.inputs["latents_s"],
                RECIPES["released"].timestep,
                folder.inputs["context_s"],
                return_dict=False,
            )[0]
        kadap, cliea = folder.kadap(unet, name == "attached"), folder.cliea()
        found = step(folder, kadap, cliea) | {"s.plain_unet_output": plain}
        if name == "released":
            lines += [part for key, value in found.items() for part in _outputs(key, value, folder)]
        found["total_loss"].backward()
        grads = {
            key: p.grad for key, p in kadap.named_parameters() if not key.startswith("experts.")
        } | behind
        grads |= expert_grads(kadap.experts, "cls_head.moe") | cliea_grads(cliea, "kalie")
        lines += [
            _norm(f"grad_norms/{name}/{key}", grad, folder.norms[key][column], folder.floor(column))
            for key, grad in grads.items()
        ]
        lines += [
            gradient_line(
                f"grads/{key}",
                grads[key.partition("/")[2]],
                folder.grads[key],
                folder.floor(column),
            )
            for key in folder.grads
            if key.startswith(f"{name}/") and key.partition("/")[2] in grads
        ]
    found, grads = unit_tensors(folder)
    lines += [
        line(
            f"units/{key}",
            value,
            folder.units[key],
            FORWARD if value.is_floating_point() else EXACT,
        )
        for key, value in found.items()
    ]
    lines += [
        _norm(f"unit_grad_norms/{key}", grad, folder.unit_norms[key], folder.floor(0))
        for key, grad in grads.items()
    ]
    return lines, _left_out(folder)


def _outputs(name: str, found: torch.Tensor, folder: Folder) -> list[Line]:
    """Compare one output; the middle maps' attention channels have their own tolerance."""
    expected, positions = folder.outputs[name], folder.inputs["context_s"].shape[1]
    if not name.endswith(("map1", "map2")) or found.shape != expected.shape:
        return [
            line(
                f"outputs/{name}", found, expected, FORWARD if found.is_floating_point() else EXACT
            )
        ]
    return [
        line(f"outputs/{name}", found[:, :-positions], expected[:, :-positions], FORWARD),
        line(
            f"outputs/{name} attention channels",
            found[:, -positions:],
            expected[:, -positions:],
            ATTENTION,
        ),
    ]


def _norm(name: str, grad: torch.Tensor | None, expected: float | None, floor: float) -> Line:
    """Compare a gradient's norm; the stored one is None where the released code has no gradient."""
    compared = gradient_line(
        name,
        None if grad is None else grad.double().norm(),
        torch.tensor(expected or 0.0, dtype=torch.float64),
        floor,
    )
    return replace(compared, shape=() if grad is None else tuple(grad.shape))


def _left_out(folder: Folder) -> list[str]:
    """List what was not compared, with reasons, so that nothing is skipped silently."""
    stores = (
        folder.heads,
        folder.inputs,
        folder.text_pieces,
        folder.outputs,
        folder.units,
        folder.grads,
        folder.all_norms,
        folder.norms,
        folder.unit_norms,
    )
    left = [
        f"{Path(store.file).name}: {name} (the library has nothing of that name)"
        for store in stores
        for name in store
        if name not in store.asked
    ]
    known = {f"{name}.safetensors" for name in Folder.TENSORS} | {
        "grad_norms.json",
        "unet/config.json",
    }
    files = sorted(
        file.relative_to(folder.path).as_posix()
        for file in folder.path.rglob("*")
        if file.is_file()
    )
    code = "code: never run, tests/golden/weights_rule.py is the rule"
    reasons = {
        file: code if file.endswith((".py", ".pyc")) else "not part of the layout"
        for file in files
        if file not in known
    }
    return left + [f"{file} ({reason})" for file, reason in reasons.items()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description="Compare the library under recipe `released` with a folder of golden tensors.",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="a folder of the layout of tests/golden; its sizes may differ"
    )
    parser.add_argument(
        "--name-prefix",
        metavar="P",
        default="",
        help="goes before every name in the checksum that seeds the weights",
    )
    told = parser.parse_args(arguments)
    try:
        lines, left = compare(told.folder, told.name_prefix)
    except KCDPError as error:
        print(error, file=sys.stderr)
        return 1
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        print(
            f"The tensors of {told.folder} do not fit together or not into the library "
            f"({first_line(error)}); "
            "compare its README.md with tests/golden/README.md.",
            file=sys.stderr,
        )
        return 1
    print(*lines, *(f"not compared: {reason}" for reason in left), sep="\n")
    failed = [one.name for one in lines if not one.ok]
    print(
        f"{len(lines)} comparisons, {len(failed)} FAIL "
        f"({', '.join(failed[:5]) or 'none'}{', ...' if len(failed) > 5 else ''}); {len(left)} not "
        "compared"
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
