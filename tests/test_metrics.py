"""Scores against scikit-learn, and intervals against a bootstrap by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn import metrics as sk

from kcdp_lib.metrics import (
    calibration,
    distribution,
    js_divergence,
    linear_classifier,
    paired_difference,
    proxy_a_distance,
    pseudo_label_scores,
    readability,
    scores,
)


def draw(n=400, skill=2.0, classes=6, seed=0):
    """Return labels of uneven classes, and probabilities that are mostly right."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=[0.4, 0.2, 0.05, 0.15, 0.1, 0.1])
    logits = rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_summaries_are_those_of_scikit_learn():
    labels, probs = draw()
    found, predicted = scores(labels, probs), probs.argmax(1)
    assert found["n"] == 400
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(labels, predicted), abs=1e-6
    )
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(labels, predicted, average="macro"), abs=1e-6
    )
    assert found["confusion"] == sk.confusion_matrix(labels, predicted, labels=range(6)).tolist()
    assert list(found["per_class_recall"].values()) == pytest.approx(
        sk.recall_score(labels, predicted, average=None), abs=1e-6
    )


def test_a_class_without_pictures_neither_crashes_nor_counts():
    labels, probs = draw()
    keep = labels != 2
    labels, probs = labels[keep], probs[keep]
    found, predicted = scores(labels, probs), probs.argmax(1)
    assert found["per_class_recall"]["disgust"] is None
    assert found["balanced_accuracy"] == pytest.approx(
        np.mean([(predicted[labels == c] == c).mean() for c in (0, 1, 3, 4, 5)]), abs=1e-6
    )
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(labels, predicted, average="macro"), abs=1e-6
    )


def test_unlabelled_rows_are_left_out():
    labels, probs = draw()
    hidden = labels.copy()
    hidden[::2] = -1
    assert scores(hidden, probs) == scores(labels[1::2], probs[1::2])
    assert scores(np.full(4, -1), probs[:4])["n"] == 0


def test_interval_is_that_of_resampling_pictures():
    labels, probs = draw(150)
    rng = np.random.default_rng(1)
    picks = rng.integers(0, 150, (2000, 150))
    by_hand = [sk.f1_score(labels[p], probs[p].argmax(1), average="macro") for p in picks[:1000]]
    low, high = scores(labels, probs)["macro_f1_interval"]
    assert [low, high] == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=0.02)


def test_paired_difference_is_paired_and_signed():
    labels, good = draw(skill=2.5)
    _, bad = draw(skill=0.5)
    better, worse = paired_difference(labels, good, bad), paired_difference(labels, bad, good)
    assert better["macro_f1"] == pytest.approx(
        scores(labels, good)["macro_f1"] - scores(labels, bad)["macro_f1"], abs=2e-6
    )
    assert better["macro_f1_interval"][0] > 0 > worse["macro_f1_interval"][1]
    assert paired_difference(labels, good, good)["macro_f1_interval"] == [0, 0]
    rng = np.random.default_rng(2)
    picks = [rng.integers(0, 400, 400) for _ in range(1000)]
    by_hand = [
        (good[p].argmax(1) == labels[p]).mean() - (bad[p].argmax(1) == labels[p]).mean()
        for p in picks
    ]
    assert better["accuracy_interval"] == pytest.approx(
        np.quantile(by_hand, [0.025, 0.975]), abs=0.02
    )


def test_seed_decides_the_interval():
    labels, probs = draw(60)
    assert scores(labels, probs, seed=3) == scores(labels, probs, seed=3)
    assert (
        scores(labels, probs, seed=3)["macro_f1_interval"]
        != scores(labels, probs, seed=4)["macro_f1_interval"]
    )


def test_a_length_that_does_not_fit_is_refused():
    labels, probs = draw(20)
    with pytest.raises(ValueError, match="20 labels beside 10"):
        scores(labels, probs[:10])


def test_pseudo_labels():
    found = pseudo_label_scores(np.array([0, 1, -1, 3]), np.array([0, 2, 1, -1]))
    assert found == {"n": 4, "coverage": 0.75, "accuracy": 0.5}
    assert pseudo_label_scores(np.full(3, -1), np.zeros(3, dtype=int))["accuracy"] is None
    assert pseudo_label_scores(np.arange(3), np.full(3, -1)) == {
        "n": 3,
        "coverage": 0.0,
        "accuracy": None,
    }


# ---------------------------------------------------------------- spaces of features


def cloud(n=300, shift=0.0, seed=0, width=8):
    """Return features [n, width] around `shift` on the first axis."""
    return np.random.default_rng(seed).normal(size=(n, width)) + shift * np.eye(width)[0]


def classes(n=360, seed=0, spread=0.3, turned=False):
    """Return features of six classes, each along an axis of its own, and their labels.

    `turned` gives every class the axis of the next.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, n)
    return np.eye(6)[(labels + turned) % 6] + spread * rng.normal(size=(n, 6)), labels


def test_distance_is_small_for_equal_domains_and_two_for_separable_ones():
    alike, apart = (
        proxy_a_distance(cloud(), cloud(seed=1)),
        proxy_a_distance(cloud(), cloud(shift=12, seed=1)),
    )
    assert alike["n"] == apart["n"] == 600
    assert alike["a_distance"] < 0.25 and alike["a_distance_interval"][0] == 0
    assert apart == {"n": 600, "a_distance": 2, "a_distance_interval": [2, 2]}


def test_distance_grows_with_the_shift_and_is_that_of_the_best_threshold():
    near, far = (
        proxy_a_distance(cloud(1000, width=3), cloud(1000, shift, 1, width=3)) for shift in (1, 2)
    )
    # two normal distributions at distance d: the error is Phi(-d / 2), about 0.309 and 0.159
    assert near["a_distance"] == pytest.approx(2 * (1 - 2 * 0.3085), abs=0.12) and far[
        "a_distance"
    ] == pytest.approx(2 * (1 - 2 * 0.1587), abs=0.12)
    assert (
        near["a_distance_interval"][0]
        < near["a_distance"]
        < near["a_distance_interval"][1]
        < far["a_distance_interval"][0]
    )


def test_distance_is_held_out_never_negative_and_the_same_both_ways():
    wide = proxy_a_distance(
        cloud(40, width=100), cloud(40, seed=1, width=100)
    )  # more features than pictures: without held-out folds it would be 2
    assert wide["a_distance"] < 0.9
    twins = cloud()
    assert proxy_a_distance(twins, twins)["a_distance"] == 0
    one, other = cloud(), cloud(shift=1.5, seed=1)
    assert proxy_a_distance(one, other)["a_distance"] == pytest.approx(
        proxy_a_distance(other, one)["a_distance"], abs=0.1
    )


def test_the_larger_domain_does_not_count_for_more():
    found = proxy_a_distance(cloud(900), cloud(60, seed=1))
    assert found["a_distance"] < 0.4, "always naming the larger domain is no distance"


def test_constant_features_change_nothing():
    one, other = cloud(), cloud(shift=1.5, seed=1)
    wider = [np.hstack([features, np.full((300, 2), 3.0)]) for features in (one, other)]
    assert proxy_a_distance(*wider)["a_distance"] == pytest.approx(
        proxy_a_distance(one, other)["a_distance"], abs=0.02
    )
    assert proxy_a_distance(np.ones((30, 4)), np.ones((30, 4)))["a_distance"] == 0


def test_spaces_of_different_width_are_refused():
    with pytest.raises(ValueError):
        proxy_a_distance(cloud(), cloud(width=5))


def test_what_is_learnt_is_read_where_the_directions_are_the_same():
    (x, y), near, far = classes(), classes(seed=1), classes(seed=2, turned=True)
    found = readability(x, y, {"near": near, "far": far})
    assert list(found) == ["near", "far"] and found["near"]["n"] == 360
    assert found["near"]["macro_f1"] > 0.85 and found["far"]["macro_f1"] < 0.1
    assert (
        found["near"]["macro_f1_interval"][0]
        < found["near"]["macro_f1"]
        < found["near"]["macro_f1_interval"][1]
    )


def test_labels_at_random_are_read_by_chance():
    (x, y), (asked, true) = classes(), classes(seed=1)
    shuffled = np.random.default_rng(0).permutation(y)
    assert readability(x, shuffled, {"near": (asked, true)})["near"]["macro_f1"] < 0.3
    assert readability(x, y, {"near": (asked, np.random.default_rng(1).permutation(true))})["near"][
        "macro_f1"
    ] == pytest.approx(1 / 6, abs=0.07)


def test_tested_labels_only_report():
    """Neither another test set nor its labels change a score.

    Unlabelled rows are neither trained on nor scored.
    """
    (x, y), near, (asked, true) = classes(), classes(seed=1), classes(seed=2, turned=True)
    alone = readability(x, y, {"near": near})["near"]
    assert readability(x, y, {"far": (asked, true[::-1]), "near": near})["near"] == alone
    more = np.vstack([x, 50 * asked]), np.concatenate([y, np.full(len(asked), -1)])
    assert readability(*more, {"near": near})["near"] == alone
    assert (
        readability(x, y, {"near": (near[0], np.where(np.arange(360) < 100, near[1], -1))})["near"][
            "n"
        ]
        == 100
    )


def test_a_class_that_nobody_taught_is_never_read():
    (x, y), (asked, true) = classes(), classes(seed=1)
    found = readability(x[y != 2], y[y != 2], {"near": (asked, true)})["near"]
    assert (
        found["per_class_recall"]["disgust"] == 0 and np.array(found["confusion"])[:, 2].sum() == 0
    )
    assert found["per_class_recall"]["fear"] > 0.8


def test_linear_classifier_gives_probabilities_of_every_class_it_is_told_of():
    (x, y), (asked, true) = classes(), classes(seed=1)
    probs = linear_classifier(x, np.where(y == 2, -1, y), 8)(asked)
    assert probs.shape == (360, 8) and probs.sum(1) == pytest.approx(1) and (probs >= 0).all()
    assert (
        not probs[:, [2, 6, 7]].any() and (probs.argmax(1) == true)[true != 2].mean() > 0.85
    )  # a class without training labels, unlabelled rows included, is never predicted
    assert np.array_equal(probs, linear_classifier(x[y != 2], y[y != 2], 8)(asked))


def test_readability_names_the_classes_it_is_given():
    (x, y), (asked, true) = classes(), classes(seed=1)
    found = readability(x, y, {"near": (asked, true)}, [*"abcdefgh"])["near"]
    assert list(found["per_class_recall"]) == [*"abcdefgh"] and np.shape(found["confusion"]) == (
        8,
        8,
    )
    assert (
        found["per_class_recall"]["g"] is None
        and found["macro_f1"] == readability(x, y, {"near": (asked, true)})["near"]["macro_f1"]
    )


# ---------------------------------------------------------------- calibration


def sure(confidence, right, classes=6):
    """Return labels and probabilities of pictures that are all predicted as class 0.

    The probability is `confidence`; the prediction is correct where `right`.
    """
    confidence = np.asarray(confidence, float)
    rest = np.repeat(((1 - confidence) / (classes - 1))[:, None], classes - 1, axis=1)
    return np.where(right, 0, 1), np.column_stack([confidence, rest])


def test_calibration_by_hand():
    labels, probs = sure(
        [0.55, 0.58, 0.92, 0.94, 0.96, 0.98], [True, False, True, True, True, False]
    )
    found = calibration(labels, probs)
    assert (found["n"], found["count"], found["middle"]) == (6, [2, 4], [0.55, 0.95])
    assert found["confidence"] == pytest.approx([0.565, 0.95]) and found[
        "accuracy"
    ] == pytest.approx([0.5, 0.75])
    assert found["error"] == pytest.approx((2 * 0.065 + 4 * 0.2) / 6, abs=1e-6)
    assert (found["right"], found["sure"]) == pytest.approx((4 / 6, 4.93 / 6), abs=1e-6)


def test_a_calibrated_model_has_a_small_error_and_a_boaster_a_large_one():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 4000)
    honest = calibration(*sure(confidence, rng.random(4000) < confidence))
    boaster = calibration(*sure(confidence, rng.random(4000) < confidence - 0.25))
    assert honest["error"] < 0.03 < 0.2 < boaster["error"] and boaster["sure"] - boaster[
        "right"
    ] == pytest.approx(boaster["error"], abs=0.01)
    assert sum(honest["count"]) == honest["n"] == 4000 and len(honest["count"]) == 7


def test_calibration_bears_bins_edges_and_one_sided_answers():
    labels, probs = sure([0.5, 0.7, 1.0, 1.0], [True, True, True, True])
    found = calibration(labels, probs)
    assert (
        sum(found["count"]) == 4
        and len(found["count"]) == len(found["accuracy"]) == len(found["middle"]) == 3
    )
    assert found["accuracy"] == [1, 1, 1] and found["error"] == pytest.approx(
        (0.5 + 0.3) / 4, abs=1e-6
    )
    assert calibration(*sure([0.9], [False]))["error"] == pytest.approx(0.9)
    assert calibration(*sure([0.45, 0.5, 0.5, 1.0], [True] * 4))["count"] == [
        3,
        1,
    ]  # an edge belongs to the bin below it, as in scikit-learn


def test_calibration_leaves_out_what_has_no_label():
    labels, probs = sure([0.6, 0.8, 0.9], [True, True, False])
    assert calibration(np.append(labels, -1), np.vstack([probs, probs[:1]])) == calibration(
        labels, probs
    )
    with pytest.raises(ValueError):
        calibration(np.full(3, -1), probs)
    with pytest.raises(ValueError, match="3 labels beside 2"):
        calibration(labels, probs[:2])


# ---------------------------------------------------------------- distributions


def test_divergence_is_nothing_of_equals_and_one_of_what_has_nothing_in_common():
    half, other = np.array([[0.5, 0.5, 0, 0]]), np.array([[0, 0, 0.2, 0.8]])
    assert js_divergence(half, half) == 0 and js_divergence(half, other) == pytest.approx(1)
    assert distribution(half, half)["js_divergence"] == 0
    assert distribution(half, other)["js_divergence_interval"] == [1, 1]


def test_divergence_is_that_of_scipy_and_its_interval_resamples_pictures():
    rng = np.random.default_rng(0)
    shares, probs = (rng.dirichlet([0.5] * 6, 200).astype(np.float32) for _ in range(2))
    found = distribution(shares, probs)
    apart = jensenshannon(shares.astype(float), probs.astype(float), base=2, axis=1) ** 2
    assert found["n"] == 200 and found["js_divergence"] == pytest.approx(apart.mean(), abs=1e-6)
    deviation = 1.96 * apart.std() / 200**0.5
    assert found["js_divergence_interval"] == pytest.approx(
        [apart.mean() - deviation, apart.mean() + deviation], abs=0.004
    )
    assert found == distribution(shares, probs) != distribution(shares, probs, seed=1)


def test_certain_people_are_calibrated_against_as_labels_are():
    labels, probs = draw()
    found = distribution(np.eye(6)[labels], probs)
    assert found["calibration_error"] == calibration(labels, probs)["error"] > 0
    mixed = np.array([[0.6, 0.4], [0.6, 0.4]])
    assert distribution(mixed, mixed)["calibration_error"] == 0
    assert distribution(mixed, mixed[:, ::-1])["calibration_error"] == pytest.approx(0.2)


def test_rows_without_shares_are_left_out():
    labels, probs = draw(50)
    shares = np.eye(6, dtype=np.float32)[labels]
    more = np.vstack([shares, np.full((3, 6), np.nan)])
    assert distribution(more, np.vstack([probs, probs[:3]])) == distribution(shares, probs)
    with pytest.raises(ValueError, match="no row has shares"):
        distribution(more[50:], probs[:3])
    with pytest.raises(ValueError, match="53 rows of shares beside 50"):
        distribution(more, probs)
