"""Comparing committed runs, and choosing among candidates without labels."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from kcdp_book import compare, results
from kcdp_lib import KCDPError, datasets, world


def told(method, seed, predicted, labels="0011", recipe="best", **scores):
    return {
        "method": method,
        "recipe": recipe,
        "seed": seed,
        "source": "photos",
        "target": "stickers",
        "metrics": {
            "target.test": {
                "predicted": predicted,
                "labels": labels,
                "confusion": [[0, 0], [0, 0]],
                **scores,
            }
        },
    }


def test_a_difference_over_seeds_resamples_seeds_and_pictures():
    rows = [told("kcdp", seed, "0011" * 50, "0011" * 50) for seed in (0, 1)] + [
        told("mcc", 0, "0110" * 50, "0011" * 50),
        told("mcc", 1, "0011" * 50, "0011" * 50),
    ]
    ours, theirs = (compare.runs(rows, name, "best") for name in ("kcdp", "mcc"))
    found = compare.difference(ours, theirs)
    assert (
        found["macro_f1"] == pytest.approx(0.25) and found["macro_f1_interval"][0] == 0
    )  # one seed shows no difference, so the interval over seeds must include 0
    assert 0.45 < found["macro_f1_interval"][1] < 0.6
    assert compare.difference(ours, ours)["macro_f1_interval"] == [0, 0]
    assert compare.difference(theirs, ours)["accuracy"] == pytest.approx(-0.25)


def test_runs_are_of_one_recipe_and_in_the_order_of_seeds():
    rows = [told("mcc", 1, "0011"), told("mcc", 0, "0110"), told("mcc", 2, "0011", recipe="paper")]
    assert list(compare.runs(rows, "mcc", "best")) == [0, 1] and list(
        compare.runs(rows, "mcc", "paper")
    ) == [2]
    assert not compare.runs(rows, "mcc", "best", source="sketches")
    with pytest.raises(
        KCDPError, match="Several lines of mcc, best, to stickers have the same seed"
    ):
        compare.runs([*rows, {**rows[0], "dials": {"style_gap": 0}}], "mcc", "best")
    assert [of.tolist() for of in compare.predictions(rows[1])] == [[0, 0, 1, 1], [0, 1, 1, 0]]


def test_a_summary_is_of_means():
    rows = [
        told(
            "mcc",
            seed,
            "0011",
            macro_f1=score,
            balanced_accuracy=0.5,
            accuracy=0.7,
            calibration_error=0.1,
        )
        for seed, score in ((0, 0.4), (1, 0.6))
    ]
    found = compare.summary(compare.runs(rows, "mcc", "best"))
    assert (
        found["macro_f1"] == pytest.approx(0.5)
        and found["accuracy"] == pytest.approx(0.7)
        and (found["from"], found["to"]) == pytest.approx(results.interval([0.4, 0.6]))
    )


def test_every_rule_chooses_its_own_candidate():
    candidates = [
        {
            "weight": weight,
            "macro_f1": score,
            **{name: float(name == best) for name in compare.CRITERIA},
        }
        for weight, score, best in (
            (0.3, 0.1, "certainty"),
            (1.0, 0.2, "density"),
            (1.0, 0.3, "agreement"),
            (3.0, 0.4, "validation"),
            (3.0, 0.5, "information"),
        )
    ]
    assert compare.choices([{"metrics": {"candidates": candidates}}, {"metrics": {}}]) == {
        "certainty": [0.1],
        "density": [0.2],
        "agreement": [0.3],
        "validation": [0.4],
        "information": [0.5],
        "last epoch": [0.3],
        "target labels": [0.5],
    }


def test_lines_of_a_matrix_are_told_apart_by_domains_setting_and_seed():
    rows = [
        {**told("kcdp", seed, "0011"), "source": source, "setting": setting}
        for source in ("photos", "sketches")
        for setting in ("da", "uc")
        for seed in (0, 1)
    ]
    assert list(compare.everywhere(rows, "kcdp", "best", "uc")) == [
        (source, "stickers", seed) for source in ("photos", "sketches") for seed in (0, 1)
    ]
    few = [{**rows[0], "pictures": 30}, rows[0]]
    assert compare.runs(few, "kcdp", "best", pictures=30) == {0: few[0]} and compare.runs(
        few, "kcdp", "best", pictures=None
    ) == {0: rows[0]}


def test_signs_that_mean_one_class_are_not_ambiguous(monkeypatch):
    """Compare with a count by hand over a few scenes.

    With enough scenes, some signs mean one class and others several.
    """
    monkeypatch.setitem(datasets.SIZES, "test", 40)
    pictures = datasets.load("stickers", "test", seed=3)
    few, other = compare.ambiguity(pictures, scenes=300, least=2), {}
    for index in range(300):
        scene = world.sample_scene("train", compare.OTHER_SEED, index, "stickers")
        seen = world.visible_attributes(scene, "stickers")
        other.setdefault(
            frozenset((kind, word) for kind, word in seen.items() if kind != "subject"), []
        ).append(world.label_of(scene.emotion))
    for i, file in enumerate(pictures.files):
        seen = world.visible_attributes(
            world.sample_scene("test", 3, int(file.stem), "stickers"), "stickers"
        )
        alike = other.get(
            frozenset((kind, word) for kind, word in seen.items() if kind != "subject"), []
        )
        shares = np.unique(alike, return_counts=True)[1] / max(1, len(alike))
        assert (
            few[i] == pytest.approx(-(shares * np.log(shares)).sum())
            if len(alike) >= 2
            else np.isnan(few[i])
        )
    assert np.isfinite(few).any() and np.nanmin(few) == 0 < np.nanmax(few) < np.log(6)


def test_macro_f1_with_pictures_counted_several_times_is_that_of_the_longer_list():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 30), rng.integers(0, 6, 30)
    often = np.stack([np.ones(30, int), rng.integers(0, 4, 30)])
    found = compare.weighted_macro_f1(labels, predicted, often)
    for counts, score in zip(often, found, strict=True):
        repeated = labels.repeat(counts), predicted.repeat(counts)
        expected = f1_score(*repeated, average="macro", labels=np.unique(labels), zero_division=0)
        assert score == pytest.approx(expected)


def test_a_class_that_was_not_drawn_is_left_out_of_the_mean():
    labels, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    whole, without_ones = compare.weighted_macro_f1(
        labels, predicted, np.array([[1] * 3, [1, 1, 0]])
    )
    assert whole == pytest.approx(2 / 3) and without_ones == pytest.approx(2 / 3)
    assert compare.weighted_macro_f1(labels, predicted, np.array([[0, 0, 5]])) == 1


def test_two_lines_of_one_pair_and_seed_are_refused():
    rows = [{**told("kcdp", 0, "0011"), "source": "photos", "setting": "da"}] * 2
    with pytest.raises(KCDPError, match="the same domains and seed"):
        compare.everywhere(rows, "kcdp", "best")


def test_a_difference_on_real_art_counts_a_concept_once_however_often_it_was_asked():
    """Three seeds that agree give the interval of one."""
    pictures = datasets.load("art-emojione", "test")
    labels = pictures.labels[pictures.labels >= 0]

    def line(predicted):
        digits = {"labels": "".join(map(str, labels)), "predicted": "".join(map(str, predicted))}
        return {"target": "art-emojione", "seed": 0, "metrics": {"target.test": digits}}

    right, wrong = line(labels), line(np.where(np.arange(len(labels)) % 3, labels, 1))
    once = compare.difference_by_concept({0: right}, {0: wrong})
    thrice = compare.difference_by_concept(
        dict.fromkeys(range(3), right), dict.fromkeys(range(3), wrong)
    )
    assert once["macro_f1"] > 0 and once["concepts"] <= len(labels)
    assert thrice["macro_f1"] == pytest.approx(once["macro_f1"])
    assert thrice["macro_f1_interval"] == pytest.approx(once["macro_f1_interval"])
