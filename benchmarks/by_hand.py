"""Let a person judge what a VLM says of artists whose drawings it has never seen.

`python benchmarks/by_hand.py draw FOLDER SHEETS` captions a hundred drawings of the sets that the
VLM in FOLDER was trained without (`left_out.py` says how to train it). It writes the captions into
results/by_hand.json, and the drawings with their captions, numbered, as PNG sheets into SHEETS.

`python benchmarks/by_hand.py judge 3 17 40` notes that these captions name another expression than
the drawing shows, and that all others name the right one. A caption that names no expression counts
as wrong. The person looks at the sheets alone, not at labels.
"""

import argparse
import itertools
import json
import textwrap
from pathlib import Path

import numpy as np
from left_out import preset_of, shipped_without

from kcdp_book import results
from kcdp_book.figures import contact_sheet
from kcdp_lib import datasets, vision_language
from kcdp_lib.command import command
from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import atomic_write

COUNT, A_SHEET = 100, 20


def draw(folder: Path, sheets: Path) -> None:
    """Caption a random sample of labelled drawings and write the sheets."""
    preset, sets, asked = preset_of(folder), shipped_without(folder), []
    for name, split in itertools.product(sets, datasets.SIZES):
        pictures = datasets.load(f"art-{name}", split)
        rows = zip(pictures.files, datasets.concepts(pictures), pictures.labels, strict=True)
        asked += [(name, concept, file) for file, concept, label in rows if label >= 0]
    chosen = np.random.default_rng(0).permutation(len(asked))[:COUNT]
    sample = [asked[i] for i in chosen]
    images = datasets.read_images([file for *_, file in sample], preset.image_size)
    told = vision_language.caption(vision_language.load_vlm(preset), images)
    sheets.mkdir(parents=True, exist_ok=True)
    titles = [textwrap.fill(f"{number}: {text}", 26) for number, text in enumerate(told)]
    for start in range(0, len(sample), A_SHEET):
        rows = slice(start, start + A_SHEET)
        sheet = contact_sheet(images[rows].numpy(), titles[rows], columns=5, size=2.2)
        sheet.savefig(sheets / f"sheet-{start:03}.png", dpi=90)
    captions = [
        {"set": name, "concept": concept, "caption": text}
        for (name, concept, _), text in zip(sample, told, strict=True)
    ]
    results.write("by_hand", {"without": sets, "captions": captions})


def judge(wrong: list[int]) -> None:
    """Note the verdicts beside the captions."""
    found = results.benchmark("by_hand")
    if beyond := sorted(set(wrong) - set(range(len(found["captions"])))):
        raise KCDPError(f"There is no caption {beyond[0]}; give numbers from the sheets.")
    for number, row in enumerate(found["captions"]):
        row["right"] = number not in wrong
    # The record still names the code that wrote the captions, whoever judges them and when
    atomic_write(results.FOLDER / "by_hand.json", json.dumps(found, indent=1) + "\n")
    share = 1 - len(set(wrong)) / len(found["captions"])
    print(f"{share:.0%} of {len(found['captions'])} captions name the right expression")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    drawing = steps.add_parser("draw")
    drawing.add_argument("folder", type=Path)
    drawing.add_argument("sheets", type=Path)
    steps.add_parser("judge").add_argument("wrong", type=int, nargs="*")
    given = parser.parse_args()
    if given.step == "draw":
        draw(given.folder, given.sheets)
    else:
        judge(given.wrong)


if __name__ == "__main__":
    with command():
        main()
