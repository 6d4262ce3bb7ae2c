"""Peer methods (chapter "A fair comparison").

Their losses and gradients, training with one, and choosing without labels.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blank import blank_preset

from kcdp_book.compare import CRITERIA, agreement, certainty, choose, criteria, density, information
from kcdp_lib import Config, config
from kcdp_lib.adapt import peers, training
from kcdp_lib.adapt.model import KCDP, evaluate, gather, settle, without_words
from kcdp_lib.adapt.peers import PEERS
from kcdp_lib.config import RECIPES
from kcdp_lib.counterfactuals import similarity_probs, together
from kcdp_lib.perception import Experts, Perception, load_kadap, trainable_state_dict
from kcdp_lib.precompute import Frozen
from kcdp_lib.processes import accelerator
from kcdp_lib.vision_language import class_embeddings, embedding_width, load_vlm, zero_shot

pytestmark = pytest.mark.usefixtures("one_thread")
B, M, X, HIDDEN, C = 6, 5, 10, 4, 5
LABELS, ROWS = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([7, 2, 0, 4, 1])
PICTURES = 8


@pytest.fixture
def experts():
    torch.manual_seed(0)
    return Experts(X, HIDDEN, C, RECIPES["paper"])


def make(kind, experts):
    torch.manual_seed(1)
    return kind(experts, PICTURES)


def see(experts, seed, count, scale=1.0):
    """Return a batch seen by the experts, with z and logits as leaves of the graph.

    Their gradients can then be read separately.
    """
    x = scale * torch.randn(count, X, generator=torch.Generator().manual_seed(seed))
    z, logits, gates, balance = (part.detach() for part in experts(x))
    return Perception(x, z.requires_grad_(), logits.requires_grad_(), gates, balance, [], [])


def ask(name, experts, done=1.0, scale=1.0):
    """Return the peer, its loss after the backward pass, and the two batches."""
    peer, source, target = (
        make(PEERS[name], experts),
        see(experts, 2, B, scale),
        see(experts, 3, M, scale),
    )
    loss = peer(experts, source, LABELS, target, ROWS, done)
    loss.backward()
    return peer, loss.detach(), source, target


def softmax(row):
    """Return the probabilities of one list of logits."""
    powers = [math.exp(x) for x in row]
    return [power / sum(powers) for power in powers]


def entropy(probs):
    """Return the entropy of one list of probabilities, in nats."""
    return -sum(p * math.log(p) for p in probs if p)


def still(*tensors):
    """Return whether every gradient is missing or zero."""
    return all(tensor.grad is None or not tensor.grad.any() for tensor in tensors)


# ---------------------------------------------------------------- losses


def test_adabn_asks_for_nothing(experts):
    peer, loss, source, target = ask("adabn", experts)
    assert (
        loss == 0
        and still(source.z, source.logits, target.z, target.logits, *experts.parameters())
        and not list(peer.parameters())
    )


@pytest.mark.parametrize("name", ["dann", "cdan"])
@pytest.mark.parametrize("done", [0.0, 0.3, 1.0])
def test_a_judge_of_domains_learns_and_what_it_sees_unlearns(experts, name, done):
    """Compute the loss picture by picture.

    The domain classifier gets its own gradient; the features get it reversed, with the strength of
    the schedule.
    """
    peer, loss, source, target = ask(name, experts, done)
    places = [
        torch.stack(
            [
                seen.z[i]
                if name == "dann"
                else torch.outer(seen.z[i], seen.logits[i].softmax(-1)).flatten()
                for i in range(len(seen.z))
            ]
        )
        .detach()
        .requires_grad_()
        for seen in (source, target)
    ]
    told = [torch.stack([peer.judge(row)[0] for row in rows]) for rows in places]
    by_hand = (
        sum((1 + x.exp()).log() for x in told[0]) / B
        + sum((1 + (-x).exp()).log() for x in told[1]) / M
    ) / 2
    judged = torch.autograd.grad(by_hand, [*peer.parameters(), *places])
    torch.testing.assert_close(loss, by_hand.detach())
    for weight, expected in zip(peer.parameters(), judged[:-2], strict=True):
        torch.testing.assert_close(weight.grad, expected)
    strength = 2 / (1 + math.exp(-10 * done)) - 1
    for seen, gradient in zip((source, target), judged[-2:], strict=True):
        if name == "cdan":
            gradient = torch.einsum(
                "bzc,bc->bz", gradient.unflatten(1, (-1, C)), seen.logits.softmax(-1)
            )
        torch.testing.assert_close(seen.z.grad, -strength * gradient, atol=1e-8, rtol=1e-4)
        assert done == 0 or gradient.abs().max() > 1e-4
        assert seen.logits.grad is None, "answers are not bent"


def test_confusion_equals_a_loop_over_pictures_and_classes(experts):
    """Jin et al. 2020, equations 2 to 6, temperature 2.5."""
    _, loss, source, target = ask("mcc", experts, scale=3)
    probs = [softmax((row / 2.5).tolist()) for row in target.logits]
    weight = [1 + math.exp(-entropy(row)) for row in probs]
    confusion = [
        [
            sum(M * weight[i] / sum(weight) * probs[i][j] * probs[i][k] for i in range(M))
            for k in range(C)
        ]
        for j in range(C)
    ]
    by_hand = (
        sum(confusion[j][k] / sum(confusion[j]) for j in range(C) for k in range(C) if k != j) / C
    )
    assert loss.item() == pytest.approx(by_hand, rel=1e-5) and 0 < by_hand < 1
    assert still(source.z, source.logits) and not still(target.logits)


def test_no_confusion_where_answers_are_sure(experts):
    sure = replace(see(experts, 3, C), logits=100 * torch.eye(C))
    unsure = replace(sure, logits=torch.zeros(C, C))
    assert [
        make(peers.MCC, experts)(experts, None, None, seen, None, 1.0).item()
        for seen in (sure, unsure)
    ] == pytest.approx([0, 1 - 1 / C], abs=1e-6)


def test_two_classifiers_part_and_what_they_see_brings_them_together(experts):
    """Saito et al. 2018: classifiers maximise their difference on the target, features minimise it.

    Both classifiers learn the source, ours by the common loss.
    """
    peer, loss, source, target = ask("mcd", experts)
    grads = [
        tensor.grad.clone()
        for tensor in (target.z, experts.second, experts.bias, peer.other.weight)
    ]
    z = target.z.detach().requires_grad_()
    own, other = (
        torch.stack(rows)
        for rows in zip(
            *(
                (
                    (z[i] @ experts.second.flatten(0, 1) + target.gates[i] @ experts.bias).softmax(
                        -1
                    ),
                    peer.other(z[i]).softmax(-1),
                )
                for i in range(M)
            ),
            strict=True,
        )
    )
    differ = sum((own[i, c] - other[i, c]).abs() for i in range(M) for c in range(C)) / (M * C)
    taught = -sum(peer.other(source.z[i]).log_softmax(-1)[LABELS[i]] for i in range(B)) / B
    torch.testing.assert_close(loss, (taught - differ).detach())
    expected = torch.autograd.grad(
        differ, [z, experts.second, experts.bias, peer.other.weight], retain_graph=True
    )
    torch.testing.assert_close(
        grads[0], expected[0]
    )  # descending this gradient brings them together
    for mine, gradient in zip(grads[1:3], expected[1:3], strict=True):
        torch.testing.assert_close(mine, -gradient)  # and this one moves them apart
    torch.testing.assert_close(
        grads[3], torch.autograd.grad(taught, peer.other.weight)[0] - expected[3]
    )
    assert expected[0].abs().max() > 1e-4


def test_shot_notes_and_waits_until_its_half(experts):
    peer, loss, source, target = ask("shot", experts, done=0.49)
    assert loss == 0 and still(target.z, target.logits, *experts.parameters())
    torch.testing.assert_close(peer.probs[ROWS], target.logits.detach().softmax(-1))
    torch.testing.assert_close(peer.z[ROWS].norm(dim=1), torch.ones(M))
    assert not peer.z[[3, 5, 6]].any() and not peer.probs[[3, 5, 6]].any(), "pictures never seen"


def test_shot_equals_a_loop_and_leaves_the_last_layer(experts):
    """Information maximisation, and 0.3 of a cross-entropy on the class of the nearest centre.

    The other rows of the memory count for the centres.
    """
    peer, source, target = make(peers.SHOT, experts), see(experts, 2, B), see(experts, 3, M, 3.0)
    earlier = see(experts, 4, 3, 3.0)
    peer(experts, source, LABELS, earlier, torch.tensor([3, 5, 6]), 0.1)
    loss = peer(experts, source, LABELS, target, ROWS, 0.5)
    loss.backward()
    z, probs = (
        torch.cat(parts).detach()
        for parts in (
            (target.z, earlier.z),
            (target.logits.softmax(-1), earlier.logits.softmax(-1)),
        )
    )
    centres = [sum(probs[i, c] * z[i] / z[i].norm() for i in range(PICTURES)) for c in range(C)]
    nearest = [
        max(range(C), key=lambda c: (z[i] @ centres[c] / centres[c].norm()).item())
        for i in range(M)
    ]
    answers = [softmax(row.tolist()) for row in target.logits]
    unsure, varied = (
        sum(map(entropy, answers)) / M,
        entropy([sum(row[c] for row in answers) / M for c in range(C)]),
    )
    by_hand = unsure - varied - 0.3 * sum(math.log(answers[i][nearest[i]]) for i in range(M)) / M
    assert loss.item() == pytest.approx(by_hand, rel=1e-4) and len(set(nearest)) > 1
    assert still(experts.second, experts.bias, source.z, source.logits) and not still(target.z)


def test_fixmatch_learns_from_sure_pictures_seen_through_noise(experts):
    peer, source, target = make(peers.FixMatch, experts), see(experts, 2, B), see(experts, 3, M)
    logits = torch.zeros(M, C)
    logits[0, 2], logits[1, 4], logits[2, 1] = 9, 9, 4.0  # the third is 93% sure
    target = replace(target, logits=logits)
    torch.manual_seed(5)
    loss = peer(experts, source, LABELS, target, ROWS, 1.0)
    loss.backward()
    torch.manual_seed(5)
    noisy = F.dropout(target.z.detach(), 0.5)
    answers = [
        softmax((noisy[i] @ experts.second.flatten(0, 1) + target.gates[i] @ experts.bias).tolist())
        for i in range(2)
    ]
    assert loss.item() == pytest.approx(
        -(math.log(answers[0][2]) + math.log(answers[1][4])) / M, rel=1e-4
    )
    assert (target.z.grad.abs().sum(1) > 0).tolist() == [True, True, False, False, False] and still(
        source.z, source.logits
    )
    nobody = peer(experts, source, LABELS, replace(target, logits=torch.zeros(M, C)), ROWS, 1.0)
    assert nobody == 0


def test_one_target_picture_is_enough_for_every_peer(experts):
    for name, kind in PEERS.items():
        loss = make(kind, experts)(
            experts, see(experts, 2, B), LABELS, see(experts, 3, 1), ROWS[:1], 1.0
        )
        assert loss.shape == () and loss.isfinite(), name


# --------------------------------------- the same as in skada and pytorch-adapt, where installed


def probabilities(count=40, seed=0):
    """Return random probabilities, some confident and some not."""
    return (4 * torch.randn(count, C, generator=torch.Generator().manual_seed(seed))).softmax(-1)


@pytest.mark.filterwarnings("ignore")
def test_skada_computes_the_same(experts):
    """Compare with skada 0.6.0.

    Its DANN and CDAN add the losses of the two domains, where ours (like the papers' code, on both
    batches joined) take their mean: a factor of two, which the weights can absorb. Its CDAN does
    not detach the predictions from the domain classifier; the value is the same. Its SND replaces a
    picture's own similarity by -1, as the authors do; we leave it out, which differs by exp(-20) at
    most. Its entropy is also a mean over the classes.
    """
    deep, scorers = pytest.importorskip("skada.deep"), pytest.importorskip("skada.metrics")
    _, loss, _, target = ask("mcc", experts, scale=3)
    torch.testing.assert_close(
        deep._class_confusion.MCCLoss(T=2.5)(target.logits.detach()), loss, atol=1e-5, rtol=1e-4
    )
    for name, kind in (("dann", deep.DANNLoss), ("cdan", deep.CDANLoss)):
        peer, loss, source, target = ask(name, experts)
        seen = [
            part.z
            if name == "dann"
            else torch.bmm(part.z[:, :, None], part.logits.softmax(-1)[:, None]).flatten(1)
            for part in (source, target)
        ]
        told = [peer.judge(x).sigmoid().squeeze(1) for x in seen]
        torch.testing.assert_close(
            (kind()(*told) if name == "dann" else kind()(*told, source.z, target.z)) / 2, loss
        )
    probs = probabilities().double().numpy()
    answering = type("Answering", (), {"predict_proba": lambda self, x, **told: probs})()
    theirs = scorers.SoftNeighborhoodDensity()._score(
        None, answering, np.zeros((41, 2)), np.zeros(41), sample_domain=np.array([1] + [-2] * 40)
    )
    assert theirs == pytest.approx(density(probs), abs=1e-5)
    entropies = scorers.PredictionEntropyScorer()._score(
        None, answering, np.zeros((41, 2)), np.zeros(41), sample_domain=np.array([1] + [-2] * 40)
    )
    assert C * entropies == pytest.approx(certainty(probs), abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_pytorch_adapt_computes_the_same(experts):
    """Compare with pytorch-adapt 0.0.83 (and pytorch-metric-learning 1.6.3, as it expects).

    Its MCC divides the columns, as the authors' code does, where the paper divides rows: the
    confusion is symmetric, so the sum is the same. SHOT's first part is its entropy plus diversity
    loss, `information` is their negated sum, and MCD's difference is its MCDLoss.
    """
    layers, validators = (
        pytest.importorskip("pytorch_adapt.layers"),
        pytest.importorskip("pytorch_adapt.validators"),
    )
    _, loss, _, target = ask("mcc", experts, scale=3)
    torch.testing.assert_close(
        layers.MCCLoss(T=2.5)(target.logits.detach()), loss, atol=1e-5, rtol=1e-4
    )
    probs = probabilities()
    parts = layers.EntropyLoss(after_softmax=True)(probs) + layers.DiversityLoss(
        after_softmax=True
    )(probs)
    torch.testing.assert_close(
        peers.entropy(probs).mean() - peers.entropy(probs.mean(0)), parts, atol=1e-4, rtol=1e-4
    )
    assert information(probs.double().numpy()) == pytest.approx(-parts.item(), abs=1e-4)
    assert validators.SNDValidator()(target_train={"preds": probs.double()}) == pytest.approx(
        density(probs.double().numpy()), abs=1e-5
    )
    peer, loss, source, target = ask("mcd", experts)
    theirs = F.cross_entropy(peer.other(source.z), LABELS) - layers.MCDLoss()(
        experts.classify(target.z, target.gates), peer.other(target.z)
    )
    torch.testing.assert_close(theirs.detach(), loss)
    x = torch.randn(3, 4, requires_grad=True)
    theirs, ours = (
        torch.autograd.grad(turned.square().sum(), x)[0]
        for turned in (layers.GradientReversal(0.7)(x), peers.Reversed.apply(x, 0.7))
    )
    torch.testing.assert_close(ours, theirs)


# ---------------------------------------------------------------- choosing without labels


def test_sure_answers_are_certain_and_only_varied_ones_informative():
    same, varied, even = np.eye(4)[[2] * 8], np.eye(4)[[0, 1, 2, 3] * 2], np.full((8, 4), 0.25)
    assert [certainty(probs) for probs in (same, varied, even)] == pytest.approx(
        [0, 0, -math.log(4)]
    )
    assert [information(probs) for probs in (same, varied, even)] == pytest.approx(
        [0, math.log(4), 0], abs=1e-12
    )


def test_density_is_high_where_answers_lie_in_wide_clusters():
    """Two clusters of five: each picture has four neighbours, log 4.

    One cluster of ten: log 9. Pairs: one neighbour each, 0.
    """
    wide, one, pairs = (
        np.eye(5)[[0] * 5 + [1] * 5],
        np.eye(5)[[0] * 10],
        np.eye(5)[[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]],
    )
    assert [density(probs) for probs in (wide, one, pairs)] == pytest.approx(
        [math.log(4), math.log(9), 0], abs=1e-6
    )


def test_density_equals_a_loop_over_pictures():
    probs, expected = probabilities(7).numpy(), []
    for i, p in enumerate(probs):
        near = [
            math.exp(p @ q / np.linalg.norm(p) / np.linalg.norm(q) / 0.05)
            for j, q in enumerate(probs)
            if j != i
        ]
        expected.append(entropy([x / sum(near) for x in near]))
    assert density(probs) == pytest.approx(np.mean(expected), rel=1e-4)


def test_agreement_is_with_all_candidates_together():
    """The third candidate is outvoted on the second picture.

    On the third picture, the first two are not confident enough to outvote it.
    """
    everyone = np.array(
        [
            [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]],
            [[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]],
            [[0.6, 0.4], [0.9, 0.1], [0.1, 0.9]],
        ]
    )
    assert [agreement(probs, everyone) for probs in everyone] == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3]
    )
    assert [agreement(probs, everyone[:2]) for probs in everyone] == pytest.approx([1, 1, 1 / 3])


def test_criteria_do_not_depend_on_the_order_of_the_pictures():
    answers = [probabilities(seed=seed).numpy() for seed in range(3)] + [np.eye(C)[[1] * 40]]
    one, other = (
        criteria(answers, [0.1, 0.2, 0.3, 0.4]),
        criteria([probs[::-1] for probs in answers], [0.1, 0.2, 0.3, 0.4]),
    )
    for mine, theirs in zip(one, other, strict=True):
        assert (
            set(mine) == set(CRITERIA)
            and mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
            and all(map(math.isfinite, mine.values()))
        )
    assert one[1] == {
        "certainty": certainty(answers[1]),
        "information": information(answers[1]),
        "density": density(answers[1]),
        "agreement": agreement(answers[1], np.stack(answers)),
        "validation": 0.2,
    }


def test_the_first_of_equals_is_chosen():
    candidates = [
        {"epoch": 1, "a": 0.1, "b": 5},
        {"epoch": 2, "a": 0.3, "b": 2},
        {"epoch": 3, "a": 0.3, "b": 5},
    ]
    assert choose(candidates, "a") is candidates[1] and choose(candidates, "b") is candidates[0]


# ---------------------------------------------------------------- training with a peer

SOURCE, TARGET = 18, 12
RECIPE = "best, trained=heads"


@pytest.fixture(scope="module")
def settings(one_thread):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            config.PRESETS,
            "blank",
            replace(blank_preset(), name="blank", image_size=32, batch_size=6, epochs=2),
        )
        yield Config(preset="blank", recipe=RECIPE)


@pytest.fixture(scope="module")
def frozen(settings):
    """Return source and target: random maps, tokens and embeddings of the blank models' sizes."""
    kadap, random = (
        load_kadap(blank_preset(), replace(settings.switches, embeddings=False), 64),
        torch.Generator().manual_seed(0),
    )
    shapes = [
        map_.shape[1:]
        for map_ in kadap.look(
            torch.zeros(1, kadap.unet.config.in_channels, 8, 8),
            torch.zeros(1, 64, kadap.text_width),
            torch.ones(1, 64, dtype=torch.bool),
        )[0]
    ]

    def some(count, shift):
        maps, tokens, embeddings = (
            [torch.rand(count, *shape, generator=random) + shift for shape in shapes],
            *(
                torch.randn(count, *shape, generator=random)
                for shape in ((64, kadap.text_width), (embedding_width(blank_preset()),))
            ),
        )
        return Frozen(
            torch.zeros(count, 1),
            tokens,
            torch.ones(count, 64, dtype=torch.bool),
            torch.zeros(count, 1),
            [""] * count,
            [[]] * count,
            embeddings,
            maps,
        )

    return some(SOURCE, 0), some(TARGET, 0.5)


@pytest.fixture
def learn(settings, frozen, tmp_path):
    """Return a function that trains with the named peer, or with none."""

    def run(name, target=frozen[1], file="checkpoint.safetensors", **options):
        return training.train(
            settings,
            frozen[0],
            np.arange(SOURCE) % 6,
            target,
            tmp_path / file,
            name or "kcdp",
            peer=PEERS.get(name),
            **options,
        )

    return run


def differ(one, other, part=""):
    """Return the names of the trained tensors in which two models, or states of them, differ."""
    one, other = (
        model if isinstance(model, dict) else trainable_state_dict(model) for model in (one, other)
    )
    assert one.keys() == other.keys()
    return {name for name in one if part in name and not torch.equal(one[name], other[name])}


def test_the_seed_alone_decides_where_a_model_starts(settings):
    """It does not matter whether the VLM, which is kept, was loaded before."""
    states = []
    class_embeddings.cache_clear()
    for _ in ("loaded", "remembered"):
        torch.manual_seed(0)
        states.append(trainable_state_dict(KCDP(settings.sizes, settings.switches)))
    assert not differ(*states)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_trains_the_heads_and_nothing_else(learn, settings, name):
    torch.manual_seed(0)
    before = KCDP(settings.sizes, settings.switches)
    trained = learn(name)
    assert (
        len(trained.history) == 6
        and trained.pseudo_labels is None
        and not trained.model.aligned
        and not trained.model.training
    )
    assert all(np.isfinite([row["source_loss"], row["peer_loss"]]).all() for row in trained.history)
    assert any(row["peer_loss"] for row in trained.history) == (
        name not in ("adabn", "fixmatch")
    ), "FixMatch is nowhere sure here"
    moved = differ(before, trained.model)
    assert {part.split(".")[1] for part in moved} == {"experts", "fpn", "norm"} and not any(
        part.startswith("cliea") for part in moved
    )
    frozen_weights = dict(before.kadap.unet.named_parameters())
    assert all(
        torch.equal(weight, frozen_weights[part])
        for part, weight in trained.model.kadap.unet.named_parameters()
    )


def test_the_target_matters_and_its_labels_are_nowhere(learn, frozen):
    """Other pictures give another model.

    `train` gets a `Frozen`, which has no labels and no names; test_adapt.py checks whole runs.
    """
    assert not {"labels", "files", "name"} & Frozen.__dataclass_fields__.keys()
    one, same = learn("mcc", file="1").model, learn("mcc", file="2").model
    other = learn(
        "mcc", replace(frozen[1], maps=[map_.flip(0) + 1 for map_ in frozen[1].maps]), "3"
    ).model
    assert not differ(one, same) and differ(one, other, "experts")


@pytest.mark.parametrize("name", ["shot", "dann", "fixmatch", None])
def test_a_killed_training_goes_on_to_the_same_numbers(learn, monkeypatch, name):
    """Kill the training at every step in turn, within an epoch and between two.

    The peer's weights and memory are restored, too, and its noise is that of the step.
    """
    monkeypatch.setattr(peers.FixMatch, "threshold", 0.0)
    whole, save, looked = learn(name, file="whole"), training.save_checkpoint, []

    def killed(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "SAVE_SECONDS", -1)
    monkeypatch.setattr(training, "save_checkpoint", killed)
    for _ in whole.history:
        with pytest.raises(KeyboardInterrupt):
            learn(name, file="killed")
    resumed = learn(name, file="killed", after_epoch=lambda model, epoch: looked.append(epoch))
    assert (
        not differ(whole.model, resumed.model) and resumed.history == whole.history and not looked
    )
    assert (whole.pseudo_labels is None) == bool(name) and (
        name or np.array_equal(whole.pseudo_labels, resumed.pseudo_labels)
    )


def test_looking_after_every_epoch_changes_nothing(learn, frozen):
    looked = {}
    watched = learn(
        "cdan",
        file="1",
        after_epoch=lambda model, epoch: looked.update({epoch: evaluate(model, frozen[1])}),
    ).model
    assert (
        list(looked) == [1, 2]
        and not np.allclose(looked[1], looked[2])
        and np.array_equal(looked[2], evaluate(watched, frozen[1]))
    )
    assert not differ(watched, learn("cdan", file="2").model)


def test_shot_leaves_its_last_layer_as_the_source_did(learn, frozen):
    """It is fixed in the second half of the steps, even in one without target pictures.

    That is the second of two epochs. What the optimizer remembers of the source would move it.
    """
    for name, fixed in (("shot", True), ("mcc", False)):
        states = []
        learn(
            name,
            replace(frozen[1][:2], maps=[map_[:2] for map_ in frozen[1].maps]),
            name,
            after_epoch=lambda model, epoch, states=states: states.append(
                trainable_state_dict(model)
            ),
        )
        moved = differ(*states, "experts")
        assert (
            "kadap.experts.first.weight" in moved
            and ({"kadap.experts.second", "kadap.experts.bias"} & moved == set()) == fixed
        )


def test_the_weight_multiplies_the_peers_loss_alone(settings, frozen):
    gradients = []
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(0)
        model = KCDP(settings.sizes, settings.switches)
        peer = make(peers.MCC, model.kadap.experts)
        row = training.peer_step(
            model.train(),
            peer,
            frozen[0],
            torch.arange(SOURCE) % 6,
            torch.arange(6),
            frozen[1],
            torch.arange(6),
            0.5,
            accelerator("no", "cpu"),
            weight,
        )
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.kadap.parameters() if p.requires_grad])
        )
    assert row["peer_loss"] > 0
    torch.testing.assert_close(
        gradients[2] - gradients[0], 3 * (gradients[1] - gradients[0]), atol=1e-4, rtol=1e-3
    )
    assert (gradients[1] - gradients[0]).abs().max() > 1e-4


def test_a_target_picture_weighs_as_much_as_one_of_the_source(learn, monkeypatch):
    given, step = [], training.peer_step
    monkeypatch.setattr(training, "peer_step", lambda *args: given.append(args[-2:]) or step(*args))
    learn("mcc", target_weight=3.0)
    assert given == [(3.0, 4 / 6)] * 6, "batches of four target and six source pictures"


def test_the_share_multiplies_all_terms_of_the_target(settings, frozen):
    gradients = []
    for share in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        model = KCDP(settings.sizes, settings.switches)
        given = frozen[0], torch.arange(SOURCE) % 6, torch.arange(6), frozen[1], torch.arange(6)
        peer = make(peers.MCC, model.kadap.experts)
        process = accelerator("no", "cpu")
        training.peer_step(model.train(), peer, *given, 0.5, process, 2.0, share)
        trained = [p.grad.flatten() for p in model.kadap.parameters() if p.requires_grad]
        gradients.append(torch.cat(trained))
    none, half, whole = gradients
    torch.testing.assert_close(half - none, (whole - none) / 2, atol=1e-4, rtol=1e-3)
    assert (whole - none).abs().max() > 1e-4


def test_the_weight_of_kcdps_own_target_loss(learn, monkeypatch):
    given, step = [], training.target_step
    monkeypatch.setattr(
        training, "target_step", lambda *args: given.append(args[-1]) or step(*args)
    )
    learn(None, target_weight=3.0)
    assert given == [3.0 * 4 / 6] * 6, "batches of four target and six source pictures"


def test_nothing_of_the_target_means_the_sources_averages(learn, frozen):
    """Train a recipe with standardisation without the target.

    It is evaluated with the source's moments; AdaBN, with the target's own.
    """
    alone, adabn = learn(None, None, "1").model, learn("adabn", file="2").model
    assert np.array_equal(evaluate(alone, frozen[1]), evaluate(alone, frozen[1], "source"))
    assert not np.allclose(evaluate(adabn, frozen[1]), evaluate(adabn, frozen[1], "source"))


def test_averages_can_be_taken_when_asked(learn, frozen):
    """A model that never saw the target takes the moments of the pictures that it evaluates.

    It does so twice, and only the last ones count. No weight changes.
    """
    model, other = learn(None, None).model, replace(frozen[1], embeddings=frozen[1].embeddings + 5)
    before, unsettled = trainable_state_dict(model), evaluate(model, frozen[1])
    settle(model, frozen[1])
    first, row = evaluate(model, frozen[1]), before["kadap.norm.sums"][0]
    settle(model, other)
    shifted = evaluate(model, other)
    settle(model, frozen[1])
    assert np.array_equal(first, evaluate(model, frozen[1])) and not np.allclose(first, unsettled)
    assert (
        differ(before, model) == {"kadap.norm.sums", "kadap.norm.weight"}
        and torch.equal(model.kadap.norm.sums[0], row)
        and not model.kadap.norm.training
    )
    assert not np.allclose(shifted, first), "the VLM, asked directly, reads embeddings as they are"


@torch.no_grad()
def test_who_labels_the_target(settings, frozen):
    found = {}
    for who in ("similarities", "answer", "experts", "vlm"):
        torch.manual_seed(0)
        model = KCDP(settings.sizes, replace(settings.switches, labelled_by=who)).eval()
        batch = gather(frozen[1], torch.arange(4), "cpu")
        seen, similarities = model(*batch)
        found[who] = model.label(seen, similarities, batch.embeddings)
    told = zero_shot(
        load_vlm(settings.sizes),
        batch.embeddings[:, : model.class_embeddings.shape[1]],
        settings.classes,
    )
    torch.testing.assert_close(found["vlm"], told)
    torch.testing.assert_close(found["experts"], seen.logits.softmax(-1))
    torch.testing.assert_close(found["similarities"], similarity_probs(similarities))
    torch.testing.assert_close(
        found["answer"], together(found["experts"], found["vlm"], found["similarities"])
    )


def test_without_an_alignment_its_loss_is_gone_and_it_has_no_voice(settings, frozen, tmp_path):
    settings = replace(settings, recipe=f"{RECIPE}, alignment=none, labelled_by=experts")
    torch.manual_seed(0)
    before = KCDP(settings.sizes, settings.switches)
    trained = training.train(
        settings,
        frozen[0],
        np.arange(SOURCE) % 6,
        frozen[1],
        tmp_path / "checkpoint.safetensors",
        "none",
    )
    assert (
        not any(row["alignment_loss"] for row in trained.history)
        and not trained.model.answers_with_cliea
        and (trained.pseudo_labels >= 0).any()
    )
    still = {name for name in trainable_state_dict(before) if name.startswith("cliea")}
    decayed = trainable_state_dict(trained.model)
    for name in still:  # only the optimizer's weight decay touches it
        torch.testing.assert_close(
            torch.nn.functional.cosine_similarity(
                decayed[name].flatten(), trainable_state_dict(before)[name].flatten(), dim=0
            ),
            torch.tensor(1.0 if decayed[name].any() else 0.0),
        )


def test_a_saved_peer_answers_as_before(learn, frozen, tmp_path):
    """Its alignment was not trained, so it is not used after loading either."""
    model = learn("mcd").model
    model.save_pretrained(tmp_path / "model")
    again = KCDP.from_pretrained(tmp_path / "model")
    assert not again.aligned and np.array_equal(
        evaluate(again, frozen[1]), evaluate(model, frozen[1])
    )
    again.aligned = True
    assert not np.allclose(evaluate(again, frozen[1]), evaluate(model, frozen[1]))


def test_a_recipe_without_captions_does_not_read_their_embedding(frozen):
    best, width = RECIPES["best"], embedding_width(blank_preset()) // 4
    whole = replace(frozen[0], image_embeddings=torch.zeros(SOURCE, width))
    for part in ("both", "caption"):
        assert without_words(whole, replace(best, knowledge=part)) is whole
    embeddings = whole.embeddings[:]
    assert embeddings.shape[1] == 4 * width and embeddings[:, -width:].any()
    for part in ("none", "triplets", "another"):
        kept = without_words(whole, replace(best, knowledge=part)).embeddings[:]
        torch.testing.assert_close(kept[:, :-width], embeddings[:, :-width])
        others = embeddings[:, -width:].roll(1, 0) if part == "another" else 0 * kept[:, -width:]
        torch.testing.assert_close(kept[:, -width:], others)
