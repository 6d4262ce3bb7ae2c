"""Scores against scikit-learn, intervals against a bootstrap done by hand."""
import numpy as np
import pytest
from sklearn import metrics as sk

from kcdp_lib.metrics import paired_difference, pseudo_label_scores, scores


def draw(n=400, skill=2.0, classes=6, seed=0):
    """Labels of uneven classes, and probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=[.4, .2, .05, .15, .1, .1])
    logits = rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_summaries_are_those_of_scikit_learn():
    labels, probs = draw()
    found, predicted = scores(labels, probs), probs.argmax(1)
    assert found["n"] == 400
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert found["confusion"] == sk.confusion_matrix(labels, predicted, labels=range(6)).tolist()
    assert list(found["per_class_recall"].values()) == pytest.approx(sk.recall_score(labels, predicted, average=None), abs=1e-6)


def test_a_class_without_pictures_neither_crashes_nor_counts():
    labels, probs = draw()
    keep = labels != 2
    labels, probs = labels[keep], probs[keep]
    found, predicted = scores(labels, probs), probs.argmax(1)
    assert found["per_class_recall"]["disgust"] is None
    assert found["balanced_accuracy"] == pytest.approx(np.mean([(predicted[labels == c] == c).mean() for c in (0, 1, 3, 4, 5)]), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"), abs=1e-6)


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
    assert [low, high] == pytest.approx(np.quantile(by_hand, [.025, .975]), abs=0.02)


def test_paired_difference_is_paired_and_signed():
    labels, good = draw(skill=2.5)
    _, bad = draw(skill=0.5)
    better, worse = paired_difference(labels, good, bad), paired_difference(labels, bad, good)
    assert better["macro_f1"] == pytest.approx(scores(labels, good)["macro_f1"] - scores(labels, bad)["macro_f1"], abs=2e-6)
    assert better["macro_f1_interval"][0] > 0 > worse["macro_f1_interval"][1]
    assert paired_difference(labels, good, good)["macro_f1_interval"] == [0, 0]
    rng = np.random.default_rng(2)
    picks = [rng.integers(0, 400, 400) for _ in range(1000)]
    by_hand = [(good[p].argmax(1) == labels[p]).mean() - (bad[p].argmax(1) == labels[p]).mean() for p in picks]
    assert better["accuracy_interval"] == pytest.approx(np.quantile(by_hand, [.025, .975]), abs=0.02)


def test_seed_decides_the_interval():
    labels, probs = draw(60)
    assert scores(labels, probs, seed=3) == scores(labels, probs, seed=3)
    assert scores(labels, probs, seed=3)["macro_f1_interval"] != scores(labels, probs, seed=4)["macro_f1_interval"]


def test_a_length_that_does_not_fit_is_refused():
    labels, probs = draw(20)
    with pytest.raises(ValueError, match="20 labels beside 10"):
        scores(labels, probs[:10])


def test_pseudo_labels():
    found = pseudo_label_scores(np.array([0, 1, -1, 3]), np.array([0, 2, 1, -1]))
    assert found == {"n": 4, "coverage": 0.75, "accuracy": 0.5}
    assert pseudo_label_scores(np.full(3, -1), np.zeros(3, dtype=int))["accuracy"] is None
    assert pseudo_label_scores(np.arange(3), np.full(3, -1)) == {"n": 3, "coverage": 0.0, "accuracy": None}
