"""Make the domains of real art: `python -m kcdp_lib.pretrain.art`.

Writes the pictures, the lists and `concepts.csv` of `kcdp_lib/datasets/art`: faces of six emoji
sets, and characters whose designers named the features of mouth, eyes and brows. People's words and
ratings decide the emotion (`concepts`), and a hash decides which concepts are for training and
which for testing. Needed only to add a set; it fetches packages and needs node (`packages`).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from kcdp_lib import paths
from kcdp_lib.command import command
from kcdp_lib.pretrain import concepts, drawings, packages
from kcdp_lib.pretrain.concepts import Said
from kcdp_lib.pretrain.drawings import Drawing, Words, plain
from kcdp_lib.world import SIX

PLACE = Path(__file__).parents[1] / "datasets" / "art"
QUALITY = 88  # of WebP
PICTURES = 96  # characters of each set, approximately
UNSURE_EACH = 2  # of these, for each expression without a certain label

# emojibase's subgroups of faces, including cats' and monkeys', and of people with gestures
FACES, GESTURES = range(14), 24
COSTUMES, LIFELESS = 11, frozenset(("skull", "skull and crossbones"))

# Mozilla's names of its faces; other sets use Unicode's present or former names. Two that are drawn
# as something else are left out: "coldsweat" smiles, "foxpouting" looks away.
FXEMOJI = {
    "angry": "angry face",
    "anguish": "anguished face",
    "astonished": "astonished face",
    "bowing": "person bowing",
    "confounded": "confounded face",
    "confused": "confused face",
    "crying": "crying face",
    "devilhorns": "smiling face with horns",
    "disappointed": "disappointed face",
    "dissapointedrelief": "sad but relieved face",
    "expressionless": "expressionless face",
    "fearful": "fearful face",
    "flushed": "flushed face",
    "foxcrying": "crying cat",
    "foxgrin": "grinning cat with smiling eyes",
    "foxheart": "smiling cat with heart-eyes",
    "foxkissing": "kissing cat",
    "foxsmiling": "grinning cat",
    "foxtearofjoy": "cat with tears of joy",
    "foxweary": "weary cat",
    "foxwry": "cat with wry smile",
    "frown": "person frowning",
    "frownmouth": "frowning face with open mouth",
    "grimacing": "grimacing face",
    "grin": "grinning face",
    "grineyes": "beaming face with smiling eyes",
    "grinsquint": "grinning squinting face",
    "grinsweat": "grinning face with sweat",
    "grintears": "face with tears of joy",
    "grinwide": "grinning face with big eyes",
    "grinwideeyes": "grinning face with smiling eyes",
    "halo": "smiling face with halo",
    "handup": "person raising hand",
    "hearteyes": "smiling face with heart-eyes",
    "hushed": "hushed face",
    "japaneseangrymask": "goblin",
    "kiss": "kissing face",
    "kissclosedeyes": "kissing face with closed eyes",
    "kisseyes": "kissing face with smiling eyes",
    "kissing": "face blowing a kiss",
    "loudlycrying": "loudly crying face",
    "medicalmask": "face with medical mask",
    "monkeyhear": "hear-no-evil monkey",
    "monkeysee": "see-no-evil monkey",
    "monkeyspeak": "speak-no-evil monkey",
    "neutral": "neutral face",
    "nogesture": "person gesturing NO",
    "nomouth": "face without mouth",
    "okgesture": "person gesturing OK",
    "openmouth": "face with open mouth",
    "pensive": "pensive face",
    "perservere": "persevering face",
    "poo": "pile of poo",
    "pout": "person pouting",
    "pouting": "enraged face",
    "relieved": "relieved face",
    "screamfear": "face screaming in fear",
    "sleepy": "sleepy face",
    "smallfrown": "slightly frowning face",
    "smallsmile": "slightly smiling face",
    "smileeyes": "smiling face with smiling eyes",
    "smiletongue": "face savoring food",
    "smirk": "smirking face",
    "sunglasses": "smiling face with sunglasses",
    "sweat": "downcast face with sweat",
    "tired": "tired face",
    "tongueout": "face with tongue",
    "tongueoutwink": "winking face with tongue",
    "tongueoutwink2": "squinting face with tongue",
    "triumph": "face with steam from nose",
    "unamused": "unamused face",
    "weary": "weary face",
    "winking": "winking face",
    "worried": "worried face",
}


class Cast(NamedTuple):
    """The expressions to draw of a set of characters.

    Each entry names values of features; all their combinations are drawn.
    """

    sure: tuple[dict[str, str], ...]
    unsure: tuple[dict[str, str], ...]
    box: tuple[float, float, float] = (0, 0, 1)  # left, top and side of the visible part, of 1
    rest: dict[str, str | int] = {}  # options that keep the face uncovered
    vary: dict[str, str] = {}  # features whose values are numbers, limited to expressionless ones


CASTS = {
    "big-smile": Cast(
        sure=(
            {"mouth": "openedSmile gapSmile teethSmile", "eyes": "cheery normal starstruck"},
            {"mouth": "openSad", "eyes": "sad normal sleepy"},
            {"mouth": "unimpressed", "eyes": "sad"},
            {"mouth": "openSad unimpressed", "eyes": "angry"},
        ),
        unsure=(
            {"mouth": "awkwardSmile", "eyes": "angry sad"},
            {"mouth": "gapSmile", "eyes": "angry sad"},
            {"mouth": "unimpressed", "eyes": "normal confused"},
        ),
        rest={"accessoriesProbability": 0},
    ),
    "dylan": Cast(
        sure=({"mood": "happy superHappy angry sad"},),
        unsure=({"mood": "neutral hopeful confused"},),
        rest={"facialHairProbability": 0},
    ),
    "lorelei": Cast(
        sure=(
            {"mouth": " ".join(f"happy{i:02}" for i in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 16))},
            {"mouth": "sad04 sad05 sad07"},
        ),
        unsure=({"mouth": "happy08 happy11 happy18 sad01 sad06 sad08"},),
        box=(0.08, 0.03, 0.8),
        rest={"beardProbability": 0, "glassesProbability": 0},
        vary={
            "eyes": "variant24 variant23 variant21 variant20 variant16 variant14 variant04",
            "eyebrows": "variant05 variant06 variant07 variant08 variant10",
        },
    ),
    "micah": Cast(
        sure=(
            {"mouth": "surprised nervous", "eyes": "eyes round", "eyebrows": "up eyelashesUp"},
            {"mouth": "laughing smile", "eyes": "eyes smiling", "eyebrows": "up eyelashesUp"},
            {"mouth": "sad frown", "eyes": "eyes round", "eyebrows": "up eyelashesUp"},
        ),
        unsure=(
            {"mouth": "smirk pucker", "eyes": "round", "eyebrows": "up"},
            {"mouth": "sad surprised nervous", "eyes": "smiling", "eyebrows": "up"},
        ),
        box=(0.03, 0, 0.94),
        rest={"facialHairProbability": 0},
    ),
    "personas": Cast(
        sure=(
            {"mouth": "smile bigSmile", "eyes": "open happy glasses"},
            {"mouth": "frown", "eyes": "open glasses sunglasses sleep"},
            {"mouth": "surprise", "eyes": "open glasses sunglasses"},
        ),
        unsure=(
            {"mouth": "smirk", "eyes": "open glasses"},
            {"mouth": "frown surprise", "eyes": "happy"},
        ),
        box=(0.13, 0.02, 0.74),
        rest={"facialHairProbability": 0},
    ),
    "toon-head": Cast(
        sure=(
            {"mouth": "laugh smile", "eyebrows": "happy neutral", "eyes": "happy wide bow"},
            {"mouth": "angry", "eyebrows": "angry", "eyes": "wide humble"},
            {"mouth": "angry", "eyebrows": "neutral", "eyes": "wide"},
            {"mouth": "sad", "eyebrows": "angry", "eyes": "wide"},
            {"mouth": "sad", "eyebrows": "sad neutral", "eyes": "wide humble"},
            {"mouth": "agape", "eyebrows": "raised neutral", "eyes": "wide"},
        ),
        unsure=(
            {"mouth": "smile laugh agape", "eyebrows": "angry", "eyes": "wide"},
            {"mouth": "angry agape", "eyebrows": "sad", "eyes": "wide"},
        ),
        box=(0.13, 0.07, 0.74),
        rest={"beardProbability": 0},
    ),
}


class Picture(NamedTuple):
    """A drawing of a domain of real art."""

    set: str
    file: str  # without extension, and without a word
    concept: str
    svg: str


# ---------------------------------------------------------------- emoji


def all_names(emojibase: list[dict]) -> Words:
    """Return people's words by every present or former Unicode name, such as "dizzy-face".

    The former names are the characters' names in Python's own table.
    """
    words = drawings.people_say(emojibase)
    for entry in emojibase:
        if len(entry["emoji"].rstrip("\ufe0f")) == 1 and entry.get("group") in (0, 1):
            once = plain(unicodedata.name(entry["emoji"][0], "")).replace(" ", "")
            words.entries.setdefault(once, entry)
    return words


def person_of(name: str) -> str:
    """Return a concept's name without the gender, because the same gesture is one concept."""
    return re.sub("^(wo)?man ", "person ", name)


def of_emoji(entry: dict, by_label: dict[str, dict]) -> tuple[str, Said | None]:
    """Return an emoji's concept, and what people say about it."""
    concept = person_of(entry["label"])
    first = by_label.get(plain(concept), entry)
    code = first["hexcode"].removesuffix("-FE0F")
    keywords = first.get("tags", ())
    costume = entry.get("subgroup") == COSTUMES or concept in LIFELESS
    return concept, concepts.about_emoji(concept, keywords, code, costume)


def is_face(entry: dict) -> bool:
    """Return whether an emoji is a face, or a person with a meaningful gesture."""
    subgroup = entry.get("subgroup", -1)
    return entry.get("group") in (0, 1) and (subgroup in FACES or subgroup == GESTURES)


def emoji(name: str, collection: dict, emojibase: list[dict]) -> Iterator[tuple[Picture, Said]]:
    """Yield a set's faces that show an emotion, with what people say about them.

    A concept without a certain label occurs once in a set. A set's own names count if they end in
    "face".
    """
    words = all_names(emojibase)
    by_label = {plain(entry["label"]): entry for entry in emojibase}
    if name == "fxemoji":
        for icon, label in FXEMOJI.items():
            words.entries[icon] = by_label[plain(label)]
    shown: Counter[str] = Counter()
    for drawing in drawings.icons(name, collection, words):
        code, concept, said = _face(drawing, by_label)
        if said and not (shown[concept] and not said.label):
            shown[concept] += 1
            shown[code] += 1
            file = code if shown[code] == 1 else f"{code}-{shown[code]}"
            yield Picture(name, file, concept, drawing.svg), said


def _face(drawing: Drawing, by_label: dict[str, dict]) -> tuple[str, str, Said | None]:
    """Return a drawing's code, concept and what is said about it; None if it is not a face."""
    entry = by_label.get(drawing.label)
    if entry and is_face(entry):
        return entry["hexcode"], *of_emoji(entry, by_label)
    if entry or not drawing.label.endswith(" face"):
        return "", "", None
    said = concepts.about_emoji(drawing.label, (), "", lifeless=False)
    concept = f"{drawing.set}: {drawing.label}"
    return paths.sha(concept)[:12], concept, said and said._replace(source="designers")


# ---------------------------------------------------------------- characters


def combinations(lines: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Return all combinations of the values of each entry."""
    return [
        dict(zip(line, values, strict=True))
        for line in lines
        for values in product(*(text.split() for text in line.values()))
    ]


def asked_of(name: str) -> list[dict[str, str]]:
    """Return the expressions of a set's characters, one for each, with balanced classes."""
    cast = CASTS[name]
    unsure = combinations(cast.unsure) * UNSURE_EACH
    classes: dict[str, list[dict[str, str]]] = {}
    for options in combinations(cast.sure):
        classes.setdefault(concepts.about_character(name, options).label, []).append(options)
    each = (PICTURES - len(unsure)) // len(classes)
    return [one for some in classes.values() for one in islice(cycle(some), each)] + unsure


def cast_jobs() -> list[dict]:
    """Return the jobs of `characters.mjs`."""
    jobs = []
    for seed, (name, cast) in enumerate(CASTS.items()):
        varied = {part: text.split() for part, text in cast.vary.items()}
        asked = [
            options | cast.rest | {part: some[i % len(some)] for part, some in varied.items()}
            for i, options in enumerate(asked_of(name))
        ]
        jobs.append({"set": name, "seed": seed, "asked": asked})
    return jobs


def shown_part(svg: str, box: tuple[float, float, float]) -> str:
    """Crop a drawing to a part of it, (left, top, side), each a share of the whole."""
    view = re.search(r'viewBox="([^"]+)"', svg)
    assert view is not None
    left, top, width, height = map(float, view[1].split())
    x, y, side = box
    part = f"{left + x * width:g} {top + y * height:g} {side * width:g} {side * height:g}"
    return svg.replace(view[0], f'viewBox="{part}"', 1)


def characters(lines: Iterable[str]) -> Iterator[tuple[Picture, Said]]:
    """Yield the characters drawn by `characters.mjs` (JSON lines), and what is said about them."""
    for number, line in enumerate(lines):
        one = json.loads(line)
        name = one["set"]
        apart = CASTS[name].rest.keys() | CASTS[name].vary.keys()
        options = {part: value for part, value in one["options"].items() if part not in apart}
        file = paths.sha(name, str(number), json.dumps(one["options"]))[:12]
        concept = concepts.concept_of(name, options)
        svg = shown_part(one["svg"], CASTS[name].box)
        yield Picture(name, file, concept, svg), concepts.about_character(name, options)


# ---------------------------------------------------------------- splits and files


def splits(told: dict[str, Said]) -> dict[str, str]:
    """Return {concept: "train" or "test"}, alternating in each class in the order of hashes.

    All emoji are divided together, since six sets draw the same concepts; each set of characters by
    itself.
    """
    groups: dict[str, list[str]] = {}
    for concept in told:
        head = concept.split(": ")[0]
        groups.setdefault(head if head in CASTS else "emoji", []).append(concept)
    order = (*SIX, "")
    found: dict[str, str] = {}
    for group in groups.values():
        group.sort(key=lambda concept: (order.index(told[concept].label), paths.sha(concept)))
        found |= {concept: ("test", "train")[i % 2] for i, concept in enumerate(group)}
    return found


def on_white(svg: str, folder: Path) -> bytes:
    """Return a drawing as WebP, S x S with S = 128, empty if it shows nothing; kept in `folder`."""
    kept = folder / f"{paths.sha(svg, str(QUALITY))}.webp"
    if not kept.exists():
        paths.atomic_write(kept, _encoded(svg))
    return kept.read_bytes()


def _encoded(svg: str) -> bytes:
    pixels = drawings.draw(svg)
    if pixels is None:
        return b""
    rgba = pixels.astype(np.float32)
    alpha = rgba[..., 3:] / 255
    flat = Image.fromarray((rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8))
    file = io.BytesIO()
    flat.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def shares_of(said: Said) -> Sequence[object]:
    """Return the shares of the six classes for a table, or empty cells.

    They are empty, too, if a name says one class and no ratings exist: beyond the label, a share of
    1 would be a certainty that nobody stated.
    """
    asked = said.scores or sum(share > 0 for share in said.shares) > 1
    return said.shares if asked and said.shares else [""] * len(SIX)


def concept_rows(told: dict[str, Said], split_of: dict[str, str]) -> Iterator[list[object]]:
    """Yield the rows of `concepts.csv`."""
    for concept in sorted(told):
        said = told[concept]
        yield [
            concept,
            said.label,
            "yes" if said.label else "no",
            *shares_of(said),
            said.source,
            said.reason,
            split_of[concept],
            " ".join(f"{score:g}" for score in said.scores),
        ]


HEADER = ("concept", "label", "certain", *SIX, "source", "reason", "split", "emotag_scores")


def write(place: Path, pictures: Sequence[tuple[Picture, Said]], folder: Path) -> None:
    """Write the sets below `place`, replacing existing ones, and the table of concepts.

    `folder` caches the drawings, so that a second run is quick. Of identical pictures only the
    first is written.
    """
    steps = paths.progress(pictures, "drawing art", len(pictures))
    drawn = {picture: on_white(picture.svg, folder) for picture, _ in steps}
    first = {content: picture for picture, content in reversed(drawn.items()) if content}
    wanted = set(first.values())
    kept = [(picture, said) for picture, said in pictures if picture in wanted]
    told = {picture.concept: said for picture, said in kept}
    split_of = splits(told)
    lists: dict[str, list[tuple[object, ...]]] = {}
    for picture, _ in kept:
        said, concept = told[picture.concept], picture.concept
        name = f"{split_of[concept]}/{picture.file}.webp"
        lists.setdefault(picture.set, []).append((name, said.label, concept, *shares_of(said)))
    for name, rows in lists.items():
        shutil.rmtree(place / name, ignore_errors=True)
        text = table(("file_name", "label", "concept", *SIX), sorted(rows))
        paths.atomic_write(place / name / "metadata.csv", text)
    for picture, _ in kept:
        file = place / picture.set / split_of[picture.concept] / f"{picture.file}.webp"
        paths.atomic_write(file, drawn[picture])
    paths.atomic_write(place / "concepts.csv", table(HEADER, concept_rows(told, split_of)))


def read(folder: Path) -> list[tuple[Picture, Said]]:
    """Return all pictures of the domains; their packages are fetched into `folder`."""
    wanted = packages.of_kind("icons", "names", "generator", "characters")
    archives = packages.fetch(folder / "packages", wanted)
    emojibase = json.loads(packages.member(archives["emojibase-data"], "en/data.json"))
    found: list[tuple[Picture, Said]] = []
    for package in packages.of_kind("icons"):
        collection = json.loads(packages.member(archives[package.short], "icons.json"))
        found += emoji(package.short, collection, emojibase)
    return [*found, *characters(drawings.drawn_by_node(folder, archives, cast_jobs()))]


def main() -> None:
    """Write everything and print the counts, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m kcdp_lib.pretrain.art")
    parser.add_argument("--work", type=Path, default=paths.CACHE / "pretrain", help="for packages")
    folder = parser.parse_args().work
    pictures = read(folder)
    write(PLACE, pictures, folder / "art")
    for name in sorted({picture.set for picture, _ in pictures}):
        counts = Counter(said.label or "-" for picture, said in pictures if picture.set == name)
        print(f"{name:20} {dict(counts)}")


if __name__ == "__main__":
    with command():
        main()
