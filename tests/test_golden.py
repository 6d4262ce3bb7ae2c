"""`recipe="released"` computes what the authors' released code computes, tensor by tensor."""
import json

import golden
import pytest
import torch

from kcdp_lib import knowledge
from kcdp_lib.config import RECIPES
from kcdp_lib.perception import Experts


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """At this size a second thread only waits, the more so when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["released", "attached"])
def trained(request):
    """One step with both settings of the one switch that the gradients know: (column, tensors, gradients by the released names)."""
    model, align = golden.kadap(attention_gradient=request.param == "attached"), golden.cliea()
    found = golden.step(model, align)
    found["total_loss"].backward()
    grads = {name: p.grad for name, p in model.named_parameters() if not name.startswith("experts.")}
    grads |= {f"kalie.{golden.NAMES[name]}": p.grad for name, p in align.named_parameters()}
    experts = {name: p.grad for name, p in model.experts.named_parameters()}
    grads |= {f"cls_head.moe.gating.gate.{part}": experts[f"gate.{part}"] for part in ("weight", "bias")}
    for e in range(4):
        rows = slice(e * golden.HIDDEN, (e + 1) * golden.HIDDEN)
        grads |= {f"cls_head.moe.experts.{e}.net.{part}": g for part, g in
                  (("0.weight", experts["first.weight"][rows]), ("0.bias", experts["first.bias"][rows]), ("2.weight", experts["second"][e].T), ("2.bias", experts["bias"][e]))}
    return request.param, found, grads


def test_forward(trained):
    _, found, _ = trained
    expected = golden.stored("outputs")
    names = [name for name in expected if name in found]
    assert len(names) == 28 and {f"{d}.map{i}" for d in "st" for i in range(4)} < set(names)
    for name in names:
        torch.testing.assert_close(found[name].detach(), expected[name], atol=2e-4 if "map" in name else 1e-4, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    for d in "st":
        for name, channels in (("map1", 64), ("map2", 128)):
            torch.testing.assert_close(found[f"{d}.{name}"][:, channels:].detach(), expected[f"{d}.{name}"][:, channels:], atol=1e-6, rtol=0)
        torch.testing.assert_close(found[f"{d}.gates"].gather(1, expected[f"{d}.gate_indices"]).detach(), expected[f"{d}.gate_values"], atol=1e-5, rtol=0)


def test_gradient_norms(trained):
    column, _, grads = trained
    norms = json.loads((golden.FOLDER / "grad_norms.json").read_text())["total_loss_grad_norms"]
    compared = 0
    for name, pair in norms.items():
        expected = pair[column == "attached"]
        if name.startswith(("unet.conv_norm_out", "unet.conv_out")):
            assert expected is None or expected < 1e-9  # behind the last map
            continue
        grad = grads[name]
        norm = 0.0 if grad is None else grad.double().norm().item()
        assert norm == pytest.approx(expected or 0.0, rel=1e-3, abs=1e-5), name
        compared += 1
    assert compared > 600
    for name, expected in golden.stored("grads").items():
        which, _, name = name.partition("/")
        if which == column:
            torch.testing.assert_close(grads[name], expected, atol=1e-3 * expected.abs().max().item(), rtol=1e-3)


def test_the_two_columns_differ():
    """Else the comparison above could not tell the recipes apart."""
    norms = json.loads((golden.FOLDER / "grad_norms.json").read_text())["total_loss_grad_norms"]
    assert max(abs(a / b - 1) for a, b in norms.values() if b and b > 1e-3) > 4e-3  # four times the tolerance


def test_plain_unet():
    inputs = golden.stored("inputs")
    with torch.no_grad():
        out = golden.plain_unet()(inputs["latents_s"], inputs["timestep"], inputs["context_s"], return_dict=False)[0]
    torch.testing.assert_close(out, golden.stored("outputs")["s.plain_unet_output"], atol=1e-4, rtol=0)


def test_experts_on_a_batch_that_uses_all_four():
    units = golden.stored("units")
    experts = Experts(256, golden.HIDDEN, 6, RECIPES["released"])
    experts.load_state_dict(golden.stacked_experts(golden.stored("heads")))
    logits, gates, balance = experts(torch.cat([units[f"moe.in.v{i}"].mean((2, 3)) for i in range(4)], 1))
    assert (gates > 0).any(0).all()
    torch.testing.assert_close(logits, units["moe.logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(gates.gather(1, units["moe.gate_indices"]), units["moe.gate_values"], atol=1e-5, rtol=0)
    torch.testing.assert_close(balance, units["moe.balance_std"], atol=1e-4, rtol=0)
    loss = torch.nn.functional.cross_entropy(logits, units["moe.in.labels"]) + 0.1 * balance
    torch.testing.assert_close(loss, units["moe.loss"], atol=1e-4, rtol=0)


def test_cliea():
    units, align, prompt = golden.stored("units"), golden.cliea(), golden.stored("heads")["emo_labels_emb"]
    v = torch.cat([units[f"cliea.in.v{i}"].mean((2, 3)) for i in range(4)], 1)
    tokens, mask, prompt_mask = units["cliea.in.knowledge"], torch.zeros(4, 154, dtype=torch.bool), torch.zeros(6, 7, dtype=torch.bool)  # masks are not looked at
    similarities = align(v, tokens, mask, prompt, prompt_mask)
    torch.testing.assert_close(align.read(tokens, mask, prompt, prompt_mask), units["cliea.t_a"], atol=1e-4, rtol=0)
    torch.testing.assert_close(similarities / 0.07, units["cliea.similarities_over_T"], atol=1e-4, rtol=0)
    assert torch.equal(similarities.argmax(1), units["cliea.pseudo_labels"])
    torch.testing.assert_close(golden.counterfactual_loss(similarities, units["cliea.in.labels"]), units["cliea.loss"], atol=1e-4, rtol=0)


def test_contexts_from_the_text_pieces(monkeypatch):
    """Glued, summed with the padding, the caption again where there is no triplet."""
    pieces, inputs = golden.stored("text_pieces"), golden.stored("inputs")
    triplets = {"s": [[("tri", "ple", "0.0"), ("tri", "ple", "0.1")], [("tri", "ple", "1.0")]], "t": [[], [("tri", "ple", "1.0")], [("tri", "ple", f"2.{i}") for i in range(3)]]}
    for d in "st":
        def encode(texts, _):
            tokens = torch.stack([pieces[f"{d}.{text}"] for text in texts])
            return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool)
        monkeypatch.setattr(knowledge, "encode_texts", encode)
        captions = [f"caption{i}" for i in range(len(triplets[d]))]
        made = knowledge.knowledge_tokens(captions, triplets[d], RECIPES["released"], None)
        torch.testing.assert_close(made.tokens, inputs[f"context_{d}"], atol=1e-5, rtol=0)
