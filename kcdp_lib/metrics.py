"""Scores of classifiers and feature spaces, with bootstrap intervals.

Macro-F1 and balanced accuracy lead: on an emotion benchmark that is half "happy", accuracy rewards
always predicting "happy". Differences of two classifiers have paired intervals. For a feature
space, `proxy_a_distance` measures how far apart two domains are, and `readability` how well a
linear classifier predicts the emotion (chapter 02).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import rel_entr
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from kcdp_lib.datasets import EMOTIONS

RESAMPLES = 2000
LEVEL = 0.95
BINS = 10  # of the confidence, in `calibration`
SUMMARIES = ("accuracy", "balanced_accuracy", "macro_f1")
# Inverse regularisation strengths; cross-validation on the training rows chooses one.
STRENGTHS = (0.01, 0.1, 1.0, 10.0)


def scores(
    labels: np.ndarray, probs: np.ndarray, classes: Sequence[str] = EMOTIONS, seed: int = 0
) -> dict:
    """Return scores of `probs` [N, C] against `labels` [N], without unlabelled rows (-1).

    The values are plain numbers, ready for JSON. Every summary has a 95% interval beside it
    (`macro_f1_interval`: [low, high]). The recall of a class without pictures is None.
    """
    labels, predicted = _labelled(labels, probs)
    table = confusion(labels, predicted, len(classes))
    resampled = _summaries(_resample(table, seed))
    return {
        "n": int(len(labels)),
        **_with_intervals(_summaries(table), resampled),
        "per_class_recall": recall(table, classes),
        "confusion": table.tolist(),
    }


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return counts [C, C], one row per true class, of labels [N] and predicted classes [N]."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def recall(confusion: np.ndarray, classes: Sequence[str] = EMOTIONS) -> dict[str, float | None]:
    """Return the recall of each class of a table [C, C], 0 to 1; None without pictures."""
    return {
        name: _number(row[i] / row.sum()) if row.sum() else None
        for i, (name, row) in enumerate(zip(classes, confusion, strict=True))
    }


def paired_difference(
    labels: np.ndarray, probs: np.ndarray, other: np.ndarray, seed: int = 0
) -> dict:
    """Return the scores of `probs` minus those of `other` (both [N, C]) on the same labels [N].

    The intervals come from resampling pictures, so that pictures hard for both cancel out.
    """
    classes = probs.shape[1]
    known, first = _labelled(labels, probs)
    _, second = _labelled(labels, other)
    cells = np.zeros((classes,) * 3, dtype=np.int64)
    np.add.at(cells, (known, first, second), 1)
    resampled = _resample(cells, seed)
    observed = {
        name: _summaries(cells.sum(2))[name] - _summaries(cells.sum(1))[name] for name in SUMMARIES
    }
    ours, theirs = _summaries(resampled.sum(3)), _summaries(resampled.sum(2))
    return _with_intervals(observed, {name: ours[name] - theirs[name] for name in SUMMARIES})


def paired_difference_over_seeds(
    runs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], classes: int, seed: int = 0
) -> dict:
    """Return the mean over seeds of one method's scores minus another's (chapter 06).

    The intervals come from resampling seeds and, within each seed, pictures.

    runs: for each seed the labels, the first method's and the other's predicted classes, [N] each,
    ints from 0 to `classes` - 1.
    """
    observed: list[dict[str, np.ndarray]] = []
    resampled: list[dict[str, np.ndarray]] = []
    for labels, first, second in runs:
        cells = np.zeros((classes,) * 3, dtype=np.int64)
        np.add.at(cells, (labels, first, second), 1)
        for into, tables in ((observed, cells[None]), (resampled, _resample(cells, seed))):
            ours, theirs = _summaries(tables.sum(3)), _summaries(tables.sum(2))
            into.append({name: ours[name] - theirs[name] for name in SUMMARIES})
    drawn = np.random.default_rng(seed).integers(len(runs), size=(RESAMPLES, len(runs)))
    means = {
        name: np.stack([of[name] for of in resampled], 1)[
            np.arange(RESAMPLES)[:, None], drawn
        ].mean(1)
        for name in SUMMARIES
    }
    return _with_intervals(
        {name: np.mean([of[name] for of in observed]) for name in SUMMARIES}, means
    )


def pseudo_label_scores(labels: np.ndarray, pseudo_labels: np.ndarray) -> dict:
    """Return the share of N pictures that have a pseudo-label, and the accuracy of these labels.

    labels [N] and pseudo_labels [N], -1 for none. The accuracy is over the pseudo-labels whose true
    label is known, and None if there are none.
    """
    chosen = pseudo_labels >= 0
    checked = chosen & (labels >= 0)
    return {
        "n": int(len(pseudo_labels)),
        "coverage": _number(chosen.mean()) if len(chosen) else 0.0,
        "accuracy": _number((labels[checked] == pseudo_labels[checked]).mean())
        if checked.any()
        else None,
    }


def calibration(labels: np.ndarray, probs: np.ndarray) -> dict:
    """Compare a model's confidence with its accuracy, in ten bins of equal width.

    Chapter 04; Guo et al. 2017. The confidence is the largest number in each row of probs [N, C];
    labels [N]; unlabelled rows (-1) are left out.

    `right` and `sure` are the accuracy and the mean confidence of all `n` rows. Lists hold one
    number for each bin that is not empty: its `middle`, mean `confidence`, `accuracy` and `count`.
    `error` is the expected calibration error, 0 to 1: the distance between a bin's accuracy and
    confidence, averaged over pictures. ValueError if the lengths differ or no row is labelled.
    """
    known, predicted = _labelled(labels, probs)
    confidence, right = np.asarray(probs)[np.asarray(labels) >= 0].max(1), known == predicted
    accuracy, mean = calibration_curve(right.astype(int), confidence, n_bins=BINS, pos_label=1)
    edges = np.linspace(0, 1, BINS + 1)
    # scikit-learn's bins, whose counts it does not return
    count = np.bincount(_bins(confidence), minlength=BINS)
    filled = np.flatnonzero(count)
    return {
        "n": len(known),
        "right": _number(right.mean()),
        "sure": _number(confidence.mean()),
        "error": _number(np.abs(accuracy - mean) @ count[filled] / len(known)),
        "middle": ((edges[1:] + edges[:-1]) / 2)[filled].round(6).tolist(),
        "confidence": mean.round(6).tolist(),
        "accuracy": accuracy.round(6).tolist(),
        "count": count[filled].tolist(),
    }


def distribution(shares: np.ndarray, probs: np.ndarray, seed: int = 0) -> dict:
    """Compare probs [N, C] with the shares [N, C] of people's ratings, without rows of NaN.

    `js_divergence` is the mean Jensen-Shannon divergence of their rows, in bits, from 0 (the same)
    to 1 (nothing in common; Lin 1991), with its 95% interval. `calibration_error` is that of
    `calibration`, with the share of the predicted class as its accuracy. ValueError if the lengths
    differ or no row has shares.
    """
    if len(shares) != len(probs):
        raise ValueError(f"{len(shares)} rows of shares beside {len(probs)} predictions")
    known = ~np.isnan(shares).any(1)
    if not known.any():
        raise ValueError("no row has shares")
    true, answered = np.asarray(shares, float)[known], np.asarray(probs, float)[known]
    apart = js_divergence(true, answered)
    rng, n = np.random.default_rng(seed), len(apart)
    means = [apart[rng.integers(n, size=n)].mean() for _ in range(RESAMPLES)]
    confidence = answered.max(1)
    given = true[np.arange(n), answered.argmax(1)]
    gaps = np.bincount(_bins(confidence), confidence - given, BINS)
    return {
        "n": n,
        "js_divergence": _number(apart.mean()),
        "js_divergence_interval": _interval(means),
        "calibration_error": _number(np.abs(gaps).sum() / n),
    }


def js_divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence [N] of distributions [N, C], 0 to 1 bits (Lin 1991)."""
    mean = (one + other) / 2
    return (rel_entr(one, mean) + rel_entr(other, mean)).sum(1).clip(0) / (2 * np.log(2))


def _bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin [N] of each confidence [N], as in `calibration`."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)


def proxy_a_distance(source: np.ndarray, target: np.ndarray, seed: int = 0) -> dict:
    """Measure how well a linear classifier tells two domains apart.

    2 (1 - 2 err), from 0 (not at all) to 2 (always). Chapter 02; Ben-David et al. 2007.

    source [N, D], target [M, D]: features of at least five pictures each, no labels. err is the
    mean of both domains' error rates in five-fold cross-validation, so that the larger domain does
    not count for more. Values below 0, worse than guessing, become 0. Returns `n`, `a_distance` and
    `a_distance_interval`, which resamples the classified pictures, not the training rows.
    ValueError if the widths D differ.
    """
    features = np.concatenate([np.asarray(source), np.asarray(target)])
    domains = np.repeat([0, 1], [len(source), len(target)])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = _linear("balanced_accuracy", seed, "balanced")
    probs = cross_val_predict(model, features, domains, cv=folds, method="predict_proba")
    apart = scores(domains, probs, ("source", "target"), seed)
    # err = 1 - balanced accuracy
    distance = {
        part: np.clip(4 * np.array(apart[f"balanced_accuracy{part}"]) - 2, 0, 2)
        for part in ("", "_interval")
    }
    return {
        "n": apart["n"],
        **{f"a_distance{part}": value.round(6).tolist() for part, value in distance.items()},
    }


def readability(
    features: np.ndarray,
    labels: np.ndarray,
    tests: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str] = EMOTIONS,
    seed: int = 0,
) -> dict:
    """Measure how well a linear classifier predicts the emotions from features.

    Returns what `scores` returns, for each entry of `tests` (chapter 02).

    features [N, D] and labels [N] are the training rows (see `linear_classifier`). tests: name ->
    (features [M, D], labels [M]), for reporting only. ValueError if widths or lengths differ.
    """
    answer = linear_classifier(features, labels, len(classes), seed)
    return {
        name: scores(true, answer(asked), classes, seed) for name, (asked, true) in tests.items()
    }


def linear_classifier(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a logistic regression on standardised features [N, D] and labels [N] (-1: left out).

    Returns a function from features [M, D] to probabilities [M, C], C = `classes`.

    Three-fold cross-validation on the training rows chooses the regularisation by macro-F1, unless
    a class has fewer than three: then it is 1. ValueError if widths or lengths differ.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    enough = np.unique(labels[labels >= 0], return_counts=True)[1].min() >= 3
    model = (_linear("f1_macro", seed) if enough else _logistic()).fit(
        features[labels >= 0], labels[labels >= 0]
    )

    def classify(others: np.ndarray) -> np.ndarray:
        probs = np.zeros((len(others), classes))
        probs[:, model.classes_] = model.predict_proba(np.asarray(others))
        return probs

    return classify


def _logistic(class_weight: str | None = None) -> Pipeline:
    return make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=2000, class_weight=class_weight)
    )


def _linear(scoring: str, seed: int, class_weight: str | None = None) -> GridSearchCV:
    """Return a logistic regression on standardised features.

    Cross-validation on its training rows chooses the regularisation.
    """
    return GridSearchCV(
        _logistic(class_weight),
        {"logisticregression__C": STRENGTHS},
        scoring=scoring,
        cv=StratifiedKFold(3, shuffle=True, random_state=seed),
    )


def _labelled(labels: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and predicted classes of the labelled rows."""
    labels = np.asarray(labels)
    if len(labels) != len(probs):
        raise ValueError(f"{len(labels)} labels beside {len(probs)} predictions")
    known = labels >= 0
    return labels[known], np.asarray(probs)[known].argmax(1)


def _resample(cells: np.ndarray, seed: int) -> np.ndarray:
    """Return bootstrap tables [R, *cells.shape].

    Drawing n pictures with replacement and counting them is one multinomial draw over the table's
    cells.
    """
    n = int(cells.sum())
    if n == 0:
        return np.zeros((RESAMPLES, *cells.shape))
    drawn = np.random.default_rng(seed).multinomial(n, cells.ravel() / n, size=RESAMPLES)
    return drawn.reshape(RESAMPLES, *cells.shape)


def _summaries(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return accuracy, balanced accuracy and macro-F1 of confusion tables [..., C, C].

    As in scikit-learn, recall is averaged over the classes that occur, and F1 over those that occur
    or are predicted.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    recall = right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + predicted, 1)
    return {
        "accuracy": right.sum(-1) / np.maximum(true.sum(-1), 1),
        "balanced_accuracy": recall.sum(-1) / np.maximum((true > 0).sum(-1), 1),
        "macro_f1": f1.sum(-1) / np.maximum((true + predicted > 0).sum(-1), 1),
    }


def _with_intervals(observed: dict, resampled: dict) -> dict:
    intervals = {f"{name}_interval": _interval(resampled[name]) for name in SUMMARIES}
    return {**{name: _number(observed[name]) for name in SUMMARIES}, **intervals}


def _interval(resampled) -> list[float]:
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return [_number(q) for q in np.quantile(resampled, tails)]


def _number(value) -> float:
    """Return a plain float of six decimals.

    Printed and compared numbers should not depend on the last bit.
    """
    return round(float(value), 6)
