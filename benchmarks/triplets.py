"""Measure how well the knowledge parsers read free English.

Precision and recall against twenty captions with triplets written by hand, into
results/triplets.json.

`python benchmarks/triplets.py [SPACY_MODEL]` measures the rules and, if it is installed, a spaCy
model (en_core_web_sm by default); earlier results stay. A triplet counts if all three parts match
the hand-written ones, word for word.
"""

import json
import sys
from pathlib import Path

from kcdp_book import results
from kcdp_lib.errors import KCDPError
from kcdp_lib.triplets import RULES, Parser, load_parser

CAPTIONS = Path(__file__).with_suffix(".jsonl")


def score(parse: Parser, rows: list[dict]) -> dict[str, float]:
    """Return precision and recall, 0 to 1, over all captions together."""
    found = [set(triplets) for triplets in parse([row["caption"] for row in rows])]
    wanted = [set(map(tuple, row["triplets"])) for row in rows]
    right = sum(len(a & b) for a, b in zip(found, wanted, strict=True))
    return {
        "precision": round(right / max(1, sum(map(len, found))), 3),
        "recall": round(right / sum(map(len, wanted)), 3),
        "found": sum(map(len, found)),
        "right": right,
    }


def main(model: str) -> None:
    """Measure the parsers, print and write the scores."""
    rows = [json.loads(line) for line in CAPTIONS.read_text(encoding="utf-8").splitlines()]
    path = results.FOLDER / "triplets.json"
    measured = json.loads(path.read_text(encoding="utf-8"))["parsers"] if path.exists() else {}
    for name in (RULES, model):
        try:
            measured[name] = score(load_parser(name), rows)
        except KCDPError as error:
            print(error)
    for name, scores in measured.items():
        print(f"{name:16} precision {scores['precision']:.3f} recall {scores['recall']:.3f}")
    triplets = sum(len(row["triplets"]) for row in rows)
    results.write("triplets", {"captions": len(rows), "triplets": triplets, "parsers": measured})


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["en_core_web_sm"])
