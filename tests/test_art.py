"""The shipped domains of real art: their files, their labels by rule, and their splits."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kcdp_lib import datasets
from kcdp_lib.config import Config
from kcdp_lib.errors import KCDPError
from kcdp_lib.pretrain import art, concepts, packages
from kcdp_lib.world import SIX

ART = Path(datasets.__file__).parent / "art"
SETS = [name.removeprefix("art-") for name in datasets.ART]
MAY_BE_SHIPPED = {"Apache-2.0", "CC-BY-4.0", "CC0-1.0"}
HELD_OUT = ("avataaars", "openmoji", "fluent", "open-peeps", "fun-emoji", "react-kawaii")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


LISTED = {name: rows(ART / name / "metadata.csv") for name in SETS}
CONCEPTS = {row["concept"]: row for row in rows(ART / "concepts.csv")}


# ---------------------------------------------------------------- files


def test_every_set_is_there_and_may_be_shipped():
    folders = {path.name for path in ART.iterdir() if path.is_dir()}
    licences = {package.short: package.licence for package in packages.PACKAGES}
    assert folders == set(SETS) and not [name for name in SETS if name.startswith(HELD_OUT)]
    assert {licences[name] for name in SETS} <= MAY_BE_SHIPPED
    told = (ART / "README.md").read_text(encoding="utf-8")
    for package in packages.of_kind("icons", "characters"):
        if package.short in folders:
            line = next(line for line in told.splitlines() if f"| `{package.short}` |" in line)
            assert package.licence in line and package.author in line


@pytest.mark.parametrize("name", SETS)
def test_files_and_rows_are_the_same(name):
    files = {path.relative_to(ART / name).as_posix() for path in (ART / name).rglob("*.webp")}
    listed = [row["file_name"] for row in LISTED[name]]
    assert sorted(files) == sorted(listed) and len(set(listed)) == len(listed)
    everything = {path for path in (ART / name).rglob("*") if path.is_file()}
    assert len(everything) == len(files) + 1  # metadata.csv


@pytest.mark.parametrize("name", SETS)
def test_names_reveal_no_label(name):
    for row in LISTED[name]:
        split, _, file = row["file_name"].partition("/")
        assert split in ("train", "test")
        assert re.fullmatch(r"[0-9A-F]{4,6}(-[0-9A-F]{1,5})*\.webp|[0-9a-f]{12}\.webp", file)


def test_all_of_it_is_light_and_of_one_size():
    files = [path for path in ART.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5e6
    sizes = {Image.open(path).size for path in files if path.suffix == ".webp"}
    assert sizes == {(128, 128)}


# ---------------------------------------------------------------- splits


def test_no_concept_is_on_both_sides():
    sides = defaultdict(set)
    for listed in LISTED.values():
        for row in listed:
            sides[row["concept"]].add(row["file_name"].partition("/")[0])
    assert {len(side) for side in sides.values()} == {1}
    assert {concept: {row["split"]} for concept, row in CONCEPTS.items()} == sides


def test_every_class_of_some_concepts_is_on_both_sides():
    for name in SETS:
        of_class = defaultdict(set)
        for row in LISTED[name]:
            of_class[row["label"]].add(row["concept"])
        told = {concept for some in of_class.values() for concept in some}
        assert {CONCEPTS[concept]["split"] for concept in told} == {"train", "test"}
    counts = defaultdict(lambda: defaultdict(int))
    for concept, row in CONCEPTS.items():
        head = concept.partition(": ")[0]
        counts[head if head in art.CASTS else "emoji", row["label"]][row["split"]] += 1
    for split_of in counts.values():
        assert abs(split_of["train"] - split_of["test"]) <= 1


def test_concepts_are_divided_by_turns_in_each_class():
    told = {
        f"{label} {i}": concepts.Said(label, (), "CLDR", "")
        for label in ("happy", "fear")
        for i in range(5)
    }
    split_of = art.splits(told)
    assert split_of == art.splits(dict(reversed(told.items())))
    for label in ("happy", "fear"):
        assert {sum(split_of[f"{label} {i}"] == "train" for i in range(5))} <= {2, 3}


# ---------------------------------------------------------------- labels


def test_every_picture_has_a_concept_with_a_reason():
    for listed in LISTED.values():
        for row in listed:
            concept = CONCEPTS[row["concept"]]
            assert concept["label"] == row["label"] and concept["reason"]
    for row in CONCEPTS.values():
        assert row["source"] in ("EmoTag", "CLDR", "designers")
        assert row["certain"] == ("yes" if row["label"] else "no")
        shares = [float(row[name]) for name in SIX if row[name]]
        assert not shares or sum(shares) == pytest.approx(1, abs=0.01)
        if row["label"] and shares:
            assert float(row[row["label"]]) == max(shares)
        # shares are not invented: without ratings, they name several classes or are absent
        assert not shares or row["emotag_scores"] or sum(share > 0 for share in shares) > 1


def test_every_picture_has_the_shares_of_its_concept():
    for name, listed in LISTED.items():
        assert list(listed[0]) == ["file_name", "label", "concept", *SIX]
        told = {Path(row["file_name"]).name: CONCEPTS[row["concept"]] for row in listed}
        assert all(row[one] == CONCEPTS[row["concept"]][one] for row in listed for one in SIX)
        pictures = datasets.load(f"art-{name}", "test")
        if pictures.shares is None:
            assert not any(told[file.name][one] for file in pictures.files for one in SIX)
            continue
        for file, shares in zip(pictures.files, pictures.shares, strict=True):
            said = np.array([float(told[file.name][one] or "nan") for one in SIX])
            np.testing.assert_allclose(shares, said / said.sum(), rtol=1e-6)


def test_ratings_are_those_of_emotag():
    ratings = concepts.ratings()
    assert len(ratings) == 150
    assert ratings["1F620"]["anger"] == 1.0 and ratings["1F620"]["disgust"] == 0.56
    assert ratings["1F631"]["fear"] == 0.92 and ratings["1F631"]["surprise"] == 0.69
    angry, scream = CONCEPTS["angry face"], CONCEPTS["face screaming in fear"]
    assert angry["label"] == "anger" and scream["label"] == "fear"
    assert angry["source"] == scream["source"] == "EmoTag"
    assert angry["emotag_scores"] == "1 0.17 0.56 0.17 0 0.25 0.11 0.08"
    total = 0.28 + 0.42 + 0.92 + 0.06 + 0.25 + 0.69
    assert float(scream["fear"]) == pytest.approx(0.92 / total, abs=0.001)


@pytest.mark.parametrize(
    ("name", "keywords", "code", "label"),
    [
        ("face with tears of joy", ("tear",), "1F602", "happy"),
        ("worried face", ("sad", "anxious"), "1F61F", ""),  # fear .72, sadness .69, CLDR names both
        ("anxious face with sweat", ("nervous",), "1F630", "fear"),  # as close, but CLDR names one
        ("unamused face", ("unhappy",), "1F612", ""),
        ("nauseated face", ("gross", "vomit"), "1F922", "disgust"),
        ("hushed face", ("stunned", "surprised"), "1F62F", "surprise"),
        (
            "face with steam from nose",
            ("angry", "fury", "mad", "rage", "unhappy"),
            "1F624",
            "anger",
        ),
        ("tired face", ("sad",), "1F62B", ""),
        ("upside-down face", ("smile", "hehe"), "1F643", ""),
        ("cat with wry smile", ("smile", "ironic"), "1F63C", ""),
        ("smiling face with tear", ("happy", "tear"), "1F972", ""),
        ("frowning face with open mouth", ("scared", "surprise"), "1F626", ""),
    ],
)
def test_labels_of_emoji_follow_the_rule(name, keywords, code, label):
    assert concepts.about_emoji(name, keywords, code, lifeless=False).label == label


def test_what_says_nothing_is_left_out_and_what_evokes_has_no_label():
    assert concepts.about_emoji("cowboy hat face", ("hat",), "1F920", lifeless=False) is None
    assert concepts.about_emoji("sleeping face", ("zzz",), "1F634", lifeless=False) is None
    ghost = concepts.about_emoji("ghost", ("boo",), "1F47B", lifeless=True)
    assert ghost.label == "" and max(ghost.shares) == ghost.shares[SIX.index("fear")]


@pytest.mark.parametrize(
    ("features", "label", "named"),
    [
        ({"mouth": "angry", "eyebrows": "angry", "eyes": "wide"}, "anger", {"anger"}),
        ({"mouth": "sad", "eyebrows": "sadNatural"}, "sadness", {"sadness"}),
        ({"mouth": "agape", "eyebrows": "raised"}, "surprise", {"surprise"}),
        ({"mouth": "openSad", "eyes": "angry"}, "anger", {"anger"}),  # the upper half decides
        ({"mouth": "smile", "eyebrows": "angry"}, "", {"happy", "anger"}),
        ({"mouth": "awkwardSmile", "eyes": "normal"}, "", {"happy"}),
        ({"mood": "neutral"}, "", set()),
    ],
)
def test_labels_of_characters_follow_the_rule(features, label, named):
    said = concepts.about_character("some", features)
    assert said.label == label and said.reason
    assert {name for name, share in zip(SIX, said.shares or [0] * 6, strict=True) if share} == named


def test_numbered_mouths_that_do_not_look_it_are_uncertain():
    sure, unsure = (concepts.about_character("lorelei", {"mouth": m}) for m in ("sad04", "sad08"))
    assert sure.label == "sadness" and unsure.label == "" and "tongue" in unsure.reason
    assert concepts.concept_of("lorelei", {"mouth": "sad04"}) == "lorelei: sad04 mouth"


def test_a_set_of_characters_has_its_classes_equally_often():
    for name in art.CASTS:
        labels = [concepts.about_character(name, one).label for one in art.asked_of(name)]
        counts = {label: labels.count(label) for label in set(labels) - {""}}
        assert len(counts) >= 2 and len(set(counts.values())) == 1 and "" in labels


# ---------------------------------------------------------------- as domains


@pytest.mark.parametrize("name", datasets.ART)
def test_each_is_a_domain(name):
    listed = LISTED[name.removeprefix("art-")]
    for split in ("train", "test"):
        pictures = datasets.load(name, split)
        wanted = [row["label"] for row in listed if row["file_name"].startswith(split)]
        assert len(pictures) == len(wanted) and not pictures.skipped and not pictures.transductive
        counts = np.bincount(pictures.labels[pictures.labels >= 0], minlength=6)
        assert counts.tolist() == [wanted.count(label) for label in SIX]
        assert len(np.unique(pictures.labels[pictures.labels >= 0])) >= 2
        assert not pictures.notes
    assert datasets.read_images(pictures.files[:2], 64).shape == (2, 3, 64, 64)
    Config(source=name, target=name).check()


def test_a_hand_that_is_not_there_is_met_with_those_that_are():
    with pytest.raises(KCDPError, match="perhaps 'art-micah' was meant"):
        Config(target="art-mica").check()


# ---------------------------------------------------------------- drawing


def test_a_part_of_a_drawing_is_shown():
    svg = '<svg viewBox="10 0 100 200"><g viewBox="0 0 1 1"/></svg>'
    assert art.shown_part(svg, (0.1, 0.25, 0.5)) == (
        '<svg viewBox="20 50 50 100"><g viewBox="0 0 1 1"/></svg>'
    )


def test_a_former_name_leads_to_the_emoji():
    entry = {
        "label": "face with crossed-out eyes",
        "emoji": "\U0001f635",
        "group": 0,
        "subgroup": 6,
        "hexcode": "1F635",
    }
    assert art.all_names([entry]).of("dizzy-face") == entry
    assert art.person_of("woman pouting") == art.person_of("man pouting") == "person pouting"


def test_what_is_written_is_what_was_said(tmp_path):
    path = '<path d="M{} 0h9v9H0z"/>'
    square = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{path}</svg>'
    pictures = [
        (
            art.Picture("micah", f"{i:012x}", f"micah: {label} mouth", square.format(left)),
            concepts.Said(label, shares, "designers", "for a test"),
        )
        for i, (left, label, shares) in enumerate(
            [(0, "happy", (0.0, 0.7, 0.0, 0.3, 0.0, 0.0)), *[(4, "sadness", ())] * 2]
        )
    ]
    art.write(tmp_path / "art", pictures, tmp_path / "kept")
    first = {path: path.read_bytes() for path in (tmp_path / "art").rglob("*") if path.is_file()}
    assert len(first) == 4  # two pictures, as the third repeats the second, and two tables
    art.write(tmp_path / "art", pictures, tmp_path / "kept")
    assert first == {path: path.read_bytes() for path in first}
    (table,) = [rows(tmp_path / "art" / "micah" / "metadata.csv")]
    assert {row["label"]: row["happy"] for row in table} == {"happy": "0.7", "sadness": ""}
    named = concepts.Said("happy", (0.0, 1.0, 0.0, 0.0, 0.0, 0.0), "CLDR", "says its name")
    assert not any(art.shares_of(named))  # the label already says it
    assert any(art.shares_of(named._replace(scores=(0.0,) * 8)))
    told = {row["concept"]: row for row in rows(tmp_path / "art" / "concepts.csv")}
    assert all(row[one] == told[row["concept"]][one] for row in table for one in SIX)
