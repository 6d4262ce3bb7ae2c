"""Packed lines of results keep all their contents."""

import json

import numpy as np
import pytest

from kcdp_book import lines, results
from kcdp_lib import metrics
from kcdp_lib.datasets import EMOTIONS


@pytest.fixture
def scored(monkeypatch, tmp_path) -> dict:
    """Return a grid's metrics for an odd number of pictures and one class without any."""
    monkeypatch.setattr(lines, "LABELS", tmp_path / "labels.json")
    lines.known_labels.cache_clear()
    rng = np.random.default_rng(0)
    labels, probs = rng.integers(0, 5, 31), rng.random((31, len(EMOTIONS)))
    scores = {
        **metrics.scores(labels, probs),
        "calibration_error": 0.1,
        "predicted": "".join(map(str, probs.argmax(1))),
        "labels": "".join(map(str, labels)),
    }
    yield {"source.test": scores, "target.test": scores, "candidates": [1, 2]}
    lines.known_labels.cache_clear()


def test_a_line_comes_back_whole(scored):
    line = json.dumps(lines.packed(scored))
    back = lines.unpacked(json.loads(line))
    assert back["target.test"] == scored["target.test"]
    left_out = {"predicted", "labels"}
    assert scored["source.test"].keys() - back["source.test"].keys() == left_out
    assert back["source.test"].items() <= scored["source.test"].items()
    assert back["candidates"] == [1, 2]
    assert len(line) < len(json.dumps(scored)) * 0.75


def test_labels_are_kept_once(scored):
    keys = {lines.packed(scored)["target.test"]["labels"] for _ in range(2)}
    known = json.loads(lines.LABELS.read_text(encoding="utf-8"))
    assert known == {keys.pop(): scored["target.test"]["labels"]} and not keys


def test_labels_that_another_process_adds_are_found(scored):
    assert lines.known_labels() == {}
    lines.LABELS.write_text(json.dumps({"0a": "0123"}), encoding="utf-8")
    assert lines.labels_of("0a") == "0123"


@pytest.mark.parametrize("classes", ("", "5", "05", "012345543", "555555"))
def test_two_classes_fit_a_letter(classes):
    letters = lines.in_pairs(classes)
    assert len(letters) == -(-len(classes) // 2)
    assert lines.out_of_pairs(letters, len(classes)) == classes


@pytest.mark.parametrize("name", results.grids())
def test_what_is_read_counts_up(name):
    """The predictions that are read give the accuracy that was written."""
    for row in results.read(name):
        scores = row["metrics"]["target.test"]
        if "predicted" in scores:
            hits = sum(a == b for a, b in zip(scores["labels"], scores["predicted"], strict=True))
            assert len(scores["labels"]) == scores["n"]
            assert abs(hits / scores["n"] - scores["accuracy"]) < 1e-6
