"""Recipe "released" equals the authors' code tensor by tensor; golden.py reports differences."""

import importlib.util
import json
import shutil
import subprocess
import sys
from functools import lru_cache

import golden
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

pytestmark = pytest.mark.usefixtures("one_thread")


# -- the released code's own numbers

MODULES = (
    "unet.time",
    "unet.conv",
    "unet.down_blocks",
    "unet.mid_block",
    "unet.up_blocks",
    "fpn",
    "cls_head",
    "kalie",
)
PARTS = [
    *(f"outputs/{name}" for name in load_file(golden.FOLDER / "outputs.safetensors")),
    *(
        f"units/{name}"
        for name in load_file(golden.FOLDER / "units.safetensors")
        if ".in." not in name
    ),
    *(
        f"{kind}/{column}/{module}"
        for kind in ("grad_norms", "grads")
        for column in golden.COLUMNS
        for module in MODULES
    ),
    "unit_grad_norms/moe",
    "unit_grad_norms/cliea",
    "inputs/latents_",
    "inputs/context_",
    "heads/",
]


@lru_cache
def compared():
    return golden.compare(golden.FOLDER)


@pytest.mark.parametrize("part", PARTS)
def test_released(part):
    lines = [line for line in compared()[0] if line.name.startswith(part)]
    assert lines and not [str(line) for line in lines if not line.ok]


def test_nothing_is_left_out():
    lines, left = compared()
    norms = json.loads((golden.FOLDER / "grad_norms.json").read_text())
    assert [reason.split()[0] for reason in left] == ["README.md", "weights_rule.py"]
    assert len({line.name for line in lines}) == len(lines) and all(
        line.name.startswith(tuple(PARTS)) for line in lines
    )
    assert (
        sum(line.name.startswith("grad_norms/") for line in lines)
        == 2 * len(norms["total_loss_grad_norms"])
        > 1400
    )
    assert load_file(golden.FOLDER / "units.safetensors")["moe.gate_indices"].unique().tolist() == [
        0,
        1,
        2,
        3,
    ]  # otherwise some expert would not be compared


def test_the_two_columns_differ():
    """Otherwise the comparison above could not tell the recipes apart."""
    norms = json.loads((golden.FOLDER / "grad_norms.json").read_text())["total_loss_grad_norms"]
    assert max(abs(a / b - 1) for a, b in norms.values() if b and b > 1e-3) > 4 * golden.GRADIENT


# -- a second folder, with other sizes, by a plain reference that shares no code with the library

TEXT, LENGTH, LABELS, FPN, HIDDEN, GRID = 40, 9, 5, 24, 20, (16, 24)
TRIPLETS = {"s": (1, 0, 3), "t": (2, 0)}
CONFIG = dict(
    sample_size=16,
    cross_attention_dim=TEXT,
    block_out_channels=(16, 24, 40, 48),
    attention_head_dim=4,
    norm_num_groups=4,
)
PREFIX = "zwölf/to_q.weight"  # the rule looks at a name's ending, and must ignore the prefix's


def prefixed_rule():
    """Return the rule as the maker of such a folder would change it."""
    changed = (
        (golden.FOLDER / "weights_rule.py")
        .read_text()
        .replace("name.encode()", f"({PREFIX!r} + name).encode()")
    )
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("changed_rule", loader=None)
    )
    exec(changed, module.__dict__)  # our own file, with one word changed
    return module


def released_model(rule) -> nn.ModuleDict:
    """Return the released code's modules under its names, in float64."""
    unet = UNet2DConditionModel(**CONFIG)
    unet.set_attn_processor(AttnProcessor())
    a, b, c, d = CONFIG["block_out_channels"]
    experts = [
        nn.ModuleDict(
            {"net": nn.Sequential(nn.Linear(4 * FPN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 6))}
        )
        for _ in range(4)
    ]
    model = nn.ModuleDict(
        {
            "unet": unet,
            "fpn": FeaturePyramidNetwork([a, b + 2 * LENGTH, c + 2 * LENGTH, d], FPN),
            "cls_head": nn.ModuleDict(
                {
                    "moe": nn.ModuleDict(
                        {
                            "gating": nn.ModuleDict({"gate": nn.Linear(4 * FPN, 4)}),
                            "experts": nn.ModuleList(experts),
                        }
                    )
                }
            ),
            "kalie": nn.ModuleDict(
                {
                    "mul_attn": nn.MultiheadAttention(TEXT, 8, batch_first=True),
                    "v_align": nn.Linear(4 * FPN, TEXT),
                }
            ),
        }
    )
    norms = {
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm))
    }
    model.load_state_dict(
        {
            name: rule.weight(name, p.shape, name.rpartition(".")[0] in norms)
            for name, p in model.state_dict().items()
        }
    )
    return model.double()


def plain_maps(unet, latents, context, attached):
    """Return the UNet's output and the four maps, through hooks.

    The attention comes from diffusers' own get_attention_scores.
    """
    kept, grids, hooks = {}, {1: [], 2: []}, []

    def keep(name):
        return lambda module, args, output: kept.update(
            {name: output[0] if isinstance(output, tuple) else output}
        )

    def attend(grid):
        def hook(attn, args, kwargs, output):
            query, key = attn.to_q(args[0]), attn.to_k(kwargs["encoder_hidden_states"])
            scores = attn.get_attention_scores(
                attn.head_to_batch_dim(query), attn.head_to_batch_dim(key)
            )
            grids[grid].append(scores.unflatten(0, (len(latents), attn.heads)).mean(1))

        return hook

    for i, module in enumerate(
        (
            unet.up_blocks[3].attentions[2],
            unet.up_blocks[2].attentions[1],
            unet.up_blocks[1].attentions[1],
            unet.up_blocks[0].resnets[1],
        )
    ):
        hooks.append(module.register_forward_hook(keep(i)))
    for grid, blocks in (
        (1, (unet.down_blocks[1], unet.up_blocks[2])),
        (2, (unet.down_blocks[2], unet.up_blocks[1])),
    ):
        for layer in (layer for block in blocks for layer in block.attentions):
            hooks.append(
                layer.transformer_blocks[0].attn2.register_forward_hook(
                    attend(grid), with_kwargs=True
                )
            )
    plain = unet(latents, 1, context, return_dict=False)[0]
    for hook in hooks:
        hook.remove()
    for grid, scores in grids.items():
        attention = sum(scores) / len(scores)
        attention = (
            (attention if attached else attention.detach())
            .transpose(1, 2)
            .reshape(len(latents), -1, *kept[grid].shape[2:])
        )
        kept[grid] = torch.cat([kept[grid], attention], 1)
    return plain, [kept[i] for i in range(4)]


def mixture(moe, v):
    """Compute the mixture picture by picture, chosen expert by chosen expert."""
    values, indices = moe["gating"]["gate"](v).softmax(-1).topk(2)
    logits = torch.stack(
        [
            sum(
                g * moe["experts"][e]["net"](row)
                for g, e in zip(gates, chosen.tolist(), strict=True)
            )
            for row, gates, chosen in zip(v, values, indices, strict=True)
        ]
    )
    sums = values.sum(0)[:, None].repeat(1, 6)
    return {
        "logits": logits,
        "gate_values": values,
        "gate_indices": indices,
        "gates_rank_sum": sums,
        "balance_std": sums.std(),
    }


def alignment(kalie, v, knowledge, prompts):
    """Compute the alignment picture by picture, prompt by prompt."""

    def read(sequence):
        return kalie["mul_attn"](sequence, sequence, sequence)[0].mean(1)[0]

    texts = torch.stack(
        [
            torch.stack([read(torch.cat([prompt, tokens])[None]) for prompt in prompts])
            for tokens in knowledge
        ]
    )
    visual = kalie["v_align"](v)
    return {
        "t_a": texts,
        "v_a": visual,
        "similarities_over_T": nn.functional.cosine_similarity(visual[:, None], texts, dim=-1)
        / 0.07,
    }


def released_step(model, inputs, prompts, attached):
    """Compute one step of the released code.

    The cross-entropy counts twice, pseudo-labels are raw, and the target has no CLIEA loss.
    """
    out, cross_entropy = {}, nn.functional.cross_entropy
    for d in "st":
        plain, maps = plain_maps(
            model["unet"], inputs[f"latents_{d}"].double(), inputs[f"context_{d}"], attached
        )
        levels = list(model["fpn"](dict(zip("0123", maps, strict=True))).values())
        v = torch.cat([level.mean((2, 3)) for level in levels], 1)
        seen = (
            mixture(model["cls_head"]["moe"], v)
            | alignment(model["kalie"], v, inputs[f"context_{d}"], prompts)
            | {"pooled": v}
        )
        seen |= {f"map{i}": m for i, m in enumerate(maps)} | {
            f"fpn{i}": level for i, level in enumerate(levels)
        }
        if d == "s":
            seen |= {
                "plain_unet_output": plain,
                "ce_loss": cross_entropy(seen["logits"], inputs["labels_s"]),
                "cliea_loss": cross_entropy(seen["similarities_over_T"], inputs["labels_s"]),
            }
            seen["moe_loss"] = seen["ce_loss"] + 0.1 * seen["balance_std"]
            seen["loss"] = seen["moe_loss"] + seen["ce_loss"] + seen["cliea_loss"]
        else:
            seen["pseudo_labels"] = seen["similarities_over_T"].argmax(1)
            seen["loss"] = seen["moe_loss"] = (
                cross_entropy(seen["logits"], seen["pseudo_labels"]) + 0.1 * seen["balance_std"]
            )
        out |= {f"{d}.{name}": value for name, value in seen.items()}
    return out | {"total_loss": out["s.loss"] + out["t.loss"]}


def unit_steps(model, rule, prompts):
    units, labels = {}, torch.Generator().manual_seed(0)
    for unit, size in (("moe", 14), ("cliea", 3)):
        units |= {
            f"{unit}.in.v{i}": 2 * rule.data(f"unit_{unit}.v{i}", size, FPN, 4, 6) for i in range(4)
        }
        units[f"{unit}.in.labels"] = torch.randint(6, (size,), generator=labels)
    units["cliea.in.knowledge"] = rule.data("unit_cliea.k", 3, 2 * LENGTH, TEXT)
    v = {
        unit: torch.cat([units[f"{unit}.in.v{i}"].double().mean((2, 3)) for i in range(4)], 1)
        for unit in ("moe", "cliea")
    }
    moe, kalie = (
        mixture(model["cls_head"]["moe"], v["moe"]),
        alignment(model["kalie"], v["cliea"], units["cliea.in.knowledge"].double(), prompts),
    )
    moe["loss"] = (
        nn.functional.cross_entropy(moe["logits"], units["moe.in.labels"])
        + 0.1 * moe["balance_std"]
    )
    kalie |= {
        "loss": nn.functional.cross_entropy(kalie["similarities_over_T"], units["cliea.in.labels"]),
        "pseudo_labels": kalie["similarities_over_T"].argmax(1),
    }
    return (
        units
        | {f"moe.{name}": value for name, value in moe.items()}
        | {f"cliea.{name}": value for name, value in kalie.items()}
    )


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}


def norm(grad):
    return None if grad is None else grad.norm().item()


def single(tensors):
    """Copy tensors as safetensors needs them, without views, and round float64 to float32."""
    return {
        name: (value.detach().float() if value.is_floating_point() else value).clone().contiguous()
        for name, value in tensors.items()
    }


@pytest.fixture(scope="module")
def second(one_thread, tmp_path_factory):
    folder, rule = tmp_path_factory.mktemp("golden"), prefixed_rule()
    model, labels = released_model(rule), rule.data("emo_labels_emb", 6, LABELS, TEXT)
    pieces, inputs = (
        {},
        {"timestep": torch.tensor([1]), "labels_s": 1 + torch.arange(len(TRIPLETS["s"]))},
    )
    for d, counts in TRIPLETS.items():
        inputs[f"latents_{d}"] = rule.data(f"latents_{d}", len(counts), 4, *GRID)
        for i, count in enumerate(counts):
            names = [f"{d}.caption{i}", *(f"{d}.triple{i}.{n}" for n in range(count))]
            pieces |= {name: rule.data(f"text:{name}", LENGTH, TEXT) for name in names}
        inputs[f"context_{d}"] = torch.stack(
            [
                torch.cat(
                    [
                        pieces[f"{d}.caption{i}"],
                        sum(pieces[f"{d}.triple{i}.{n}"] for n in range(count))
                        if count
                        else pieces[f"{d}.caption{i}"],
                    ]
                )
                for i, count in enumerate(counts)
            ]
        ).double()
    columns = []
    for attached in (True, False):
        outputs = released_step(model, inputs, labels.double(), attached)
        columns.insert(0, gradients(model, outputs["total_loss"]))
    units = unit_steps(model, rule, labels.double())
    unit_grads = gradients(model, units["moe.loss"] + units["cliea.loss"])
    norms = {
        "columns": ["released", "attached"],
        "total_loss_grad_norms": {
            name: [norm(column[name]) for column in columns] for name in columns[0]
        },
        "unit_grad_norms": {
            name.replace("cls_head.", "moe.").replace("kalie.", "cliea."): norm(grad)
            for name, grad in unit_grads.items()
            if name.startswith(("cls_head.", "kalie."))
        },
    }
    some = (
        "unet.conv_in.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "fpn.inner_blocks.1.0.weight",
        "kalie.v_align.bias",
    )
    files = {
        "heads": {name: p for name, p in model.state_dict().items() if not name.startswith("unet.")}
        | {"emo_labels_emb": labels},
        "inputs": inputs,
        "text_pieces": pieces,
        "outputs": outputs,
        "units": units,
        "grads": {
            f"{which}/{name}": column[name]
            for which, column in zip(golden.COLUMNS, columns, strict=True)
            for name in some
        },
    }
    for name, tensors in files.items():
        save_file(single(tensors), folder / f"{name}.safetensors")
    (folder / "grad_norms.json").write_text(json.dumps(norms))
    model["unet"].save_config(folder / "unet")
    return folder


def test_command_on_the_second_folder(second):
    """Run it in a process of its own, as a user does.

    The folder's code is not run; here it would end the process.
    """
    (second / "weights_rule.py").write_text("raise SystemExit(7)")
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden", str(second), "--name-prefix", PREFIX],
        cwd=golden.FOLDER.parents[1],
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (lines[-1:], done.stderr)
    assert (
        " 0 FAIL (none); 1 not compared" in lines[-1]
        and lines[-2].startswith("not compared: weights_rule.py")
        and all(line.endswith(" ok") for line in lines[:-2])
    )
    assert any(
        line.startswith("outputs/s.map1 ") and f"[3, 24, {GRID[0] // 2}, {GRID[1] // 2}]" in line
        for line in lines
    )


def failed(folder, prefix, capsys) -> set[str]:
    """Return the names for which the command prints FAIL."""
    status = golden.main([str(folder), "--name-prefix", prefix])
    names = {
        line[:90].strip() for line in capsys.readouterr().out.splitlines() if line.endswith(" FAIL")
    }
    assert status == bool(names)
    return names


@pytest.fixture
def altered(second, tmp_path):
    """Return a copy of the second folder, and a function that changes one of its tensors."""
    folder = shutil.copytree(second, tmp_path / "altered")

    def alter(file, name, change):
        tensors = load_file(folder / f"{file}.safetensors")
        change(tensors[name])
        save_file(tensors, folder / f"{file}.safetensors")

    return folder, alter


def test_wrong_prefix_fails(second, capsys):
    names = failed(second, "drei", capsys)
    assert {
        "heads/fpn.layer_blocks.0.0.weight",
        "inputs/latents_t",
        "outputs/s.plain_unet_output",
        "outputs/t.map3",
        "grad_norms/released/unet.conv_in.weight",
    } <= names
    assert not any(
        name.startswith(("units/", "inputs/context_")) for name in names
    )  # these use no names


def test_every_altered_tensor_is_named_and_no_other(altered, capsys):
    folder, alter = altered
    forward = {
        "outputs/s.fpn2",
        "outputs/t.map1",
        "outputs/t.gates_rank_sum",
        "outputs/total_loss",
        "units/cliea.t_a",
        "units/moe.loss",
    }
    for name in forward:
        alter(*name.split("/"), lambda tensor: tensor.view(-1)[0].add_(1e-3))
    alter(
        "outputs", "s.map2", lambda tensor: tensor[0, -1, 0, 0].add_(2e-6)
    )  # an attention channel
    alter("text_pieces", "s.triple2.1", lambda tensor: tensor[0, 0].add_(1e-3))
    alter("outputs", "t.pseudo_labels", lambda tensor: tensor[0].add_(1))
    alter("grads", "attached/unet.conv_in.weight", lambda tensor: tensor.mul_(1.002))
    norms = json.loads((folder / "grad_norms.json").read_text())
    norms["total_loss_grad_norms"]["fpn.inner_blocks.0.0.bias"][0] *= 1.002
    norms["unit_grad_norms"]["cliea.v_align.bias"] *= 1.002
    (folder / "grad_norms.json").write_text(json.dumps(norms))
    assert failed(folder, PREFIX, capsys) == forward | {
        "outputs/s.map2 attention channels",
        "inputs/context_s",
        "outputs/t.pseudo_labels",
        "grads/attached/unet.conv_in.weight",
        "grad_norms/released/fpn.inner_blocks.0.0.bias",
        "unit_grad_norms/cliea.v_align.bias",
    }


def drop(folder, file, name):
    tensors = load_file(folder / f"{file}.safetensors")
    del tensors[name]
    save_file(tensors, folder / f"{file}.safetensors")


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (shutil.rmtree, "is not a folder"),
        (
            lambda folder: (folder / "units.safetensors").unlink(),
            "units.safetensors cannot be read",
        ),
        (
            lambda folder: (folder / "heads.safetensors").write_bytes(b"no tensors"),
            "heads.safetensors cannot be read",
        ),
        (
            lambda folder: (folder / "unet" / "config.json").write_text("{"),
            "config.json cannot be read",
        ),
        (
            lambda folder: (folder / "grad_norms.json").write_text("{}"),
            "lacks total_loss_grad_norms",
        ),
        (lambda folder: drop(folder, "outputs", "t.fpn3"), "outputs.safetensors lacks t.fpn3"),
        (
            lambda folder: drop(folder, "text_pieces", "t.caption1"),
            "text_pieces.safetensors lacks t.caption1",
        ),
        (
            lambda folder: drop(folder, "heads", "kalie.v_align.bias"),
            "heads.safetensors lacks kalie.v_align.bias",
        ),
        (
            lambda folder: (folder / "unet" / "config.json").write_text(
                json.dumps(CONFIG | {"cross_attention_dim": 64})
            ),
            "do not fit together",
        ),
    ],
)
def test_a_folder_that_is_none_gets_a_sentence(altered, damage, sentence, capsys):
    folder, _ = altered
    damage(folder)
    assert golden.main([str(folder), "--name-prefix", PREFIX]) == 1
    told = capsys.readouterr()
    assert sentence in told.err and len(told.err.splitlines()) == 1 and not told.out
