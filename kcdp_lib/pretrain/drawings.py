"""Real drawings and people's words for them, for pre-training: `make corpus`.

Six sets of emoji, with the names and keywords of Unicode's CLDR; characters by a dozen
illustrators, with their designers' names of mouths, eyes, brows and moods. None of the words are
our own. `build` draws them once; `compose` makes a new picture of a drawing at each call.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile, which
from typing import NamedTuple

import numpy as np
import resvg_py
import torch
import torch.nn.functional as F
from PIL import Image

from kcdp_lib import machine, paths
from kcdp_lib.checkout import code_key
from kcdp_lib.command import command
from kcdp_lib.errors import KCDPError
from kcdp_lib.pretrain import IMAGE_SIZE, packages

# Characters of each set; more of those whose designers named the features
NAMED, UNNAMED = 500, 200
WITH_NAMES = frozenset(
    "avataaars big-smile dylan lorelei micah personas pixel-art toon-head".split()
)
# Skin tones would count the same figure five times; flags show only colours.
LEFT_OUT = re.compile(r"-tone\d?$|-tone-|(light|medium|dark)-skin|^flag|^regional-indicator")
GROUPS = {
    0: "face",
    1: "person",
    3: "animal",
    4: "food",
    5: "place",
    6: "activity",
    7: "object",
    8: "symbol",
}


class Drawing(NamedTuple):
    """One drawing as SVG, before it is rendered."""

    set: str  # its artists' set: "twemoji", "micah"
    name: str  # within its set, "grinning-face"; a character's number
    label: str  # its name, "grinning face"; "person" for a character
    words: tuple[str, ...]  # keywords, or "sad mouth"
    group: str  # one of `GROUPS`, "character", or "" if unknown
    svg: str


def plain(text: str) -> str:
    """Reduce a text to lower-case letters, digits and single blanks, for the small tokenizer."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


class Words(NamedTuple):
    """People's words for emoji."""

    entries: dict[str, dict]  # of emojibase, by label: "grinning-face" and "grinningface"
    single: frozenset[str]  # every word of a label or keyword

    def of(self, icon: str) -> dict | None:
        """Return the entry that an icon's name belongs to.

        Sets number their variants ("fox-2"), run words together, and keep former Unicode names
        ("frog-face" for the frog).
        """
        unnumbered = re.sub(r"-\d+$", "", icon)
        # animals only: "dizzy face" is not "dizzy", which is a star
        animal = re.sub(r"(?<=cat)-face|^(\w+)-face$", r"\1", unnumbered)
        if self.entries.get(animal, {}).get("group") != 3 and "cat-face" not in unnumbered:
            animal = icon
        for name in (icon, unnumbered, animal, f"{unnumbered}-face"):
            for spelling in (name, name.replace("-", "")):
                if entry := self.entries.get(spelling):
                    return entry
        return {"label": unnumbered} if "-" in unnumbered or icon in self.single else None


def people_say(emojibase: list[dict]) -> Words:
    """Index the words of emojibase's entries."""
    entries: dict[str, dict] = {}
    single: set[str] = set()
    for entry in emojibase:
        label = plain(entry["label"])
        entries[label.replace(" ", "-")] = entry
        entries.setdefault(label.replace(" ", ""), entry)
        for text in (label, *entry.get("tags", ())):
            single.update(plain(text).split())
    return Words(entries, frozenset(single))


def icons(name: str, collection: dict, words: Words) -> Iterator[Drawing]:
    """Yield the drawings of one of iconify's collections.

    If no entry matches, a name counts as the label if it has several words or is a known word. A
    run of letters that is not a word ("adultmale") is left out.
    """
    for icon, body in collection["icons"].items():
        entry = words.of(icon)
        if LEFT_OUT.search(icon) or body.get("hidden") or entry is None:
            continue
        width = body.get("width", collection.get("width", 16))
        height = body.get("height", collection.get("height", width))
        yield Drawing(
            set=name,
            name=icon,
            label=plain(entry["label"]),
            words=tuple(filter(None, map(plain, entry.get("tags", ())))),
            group=GROUPS.get(entry.get("group", -1), ""),
            svg=(
                '<svg xmlns="http://www.w3.org/2000/svg" '
                'xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{body.get("left", 0)} {body.get("top", 0)} {width} {height}">'
                f"{body['body']}</svg>"
            ),
        )


def feature(name: str, value: str) -> str:
    """Return a designer's name of a feature: ("mouth", "screamOpen") -> "scream open mouth".

    "" if the value is only a number or "default".
    """
    words = plain(re.sub(r"([a-z])([A-Z])", r"\1 \2", re.sub(r"\d+", "", value)))
    words = re.sub(r"\b(natural|default|base|variant)\b", "", words).strip()
    return f"{words} {name}" if words else ""


def characters(lines: list[str]) -> Iterator[Drawing]:
    """Read the JSON lines of `characters.mjs`."""
    for number, line in enumerate(lines):
        one = json.loads(line)
        words = filter(None, (feature(*option) for option in one["options"].items()))
        svg = one["svg"]
        yield Drawing(one["set"], str(number), "person", tuple(words), "character", svg)


def corpus_jobs() -> list[dict]:
    """Return the jobs of `characters.mjs` for `make corpus`."""
    return [
        {
            "set": package.short,
            "seed": seed,
            "count": NAMED if package.short in WITH_NAMES else UNNAMED,
        }
        for seed, package in enumerate(packages.of_kind("characters"))
    ]


def drawn_by_node(folder: Path, archives: dict[str, Path], jobs: list[dict]) -> list[str]:
    """Run `characters.mjs` and return its lines; KCDPError without node, or if it fails."""
    node = which("node")
    if node is None:
        raise KCDPError("node is not there; install it to draw the corpus. Nothing else needs it.")
    packages.unpack_modules(archives, folder)
    copyfile(Path(__file__).parent / "characters.mjs", folder / "characters.mjs")
    paths.atomic_write(folder / "jobs.json", json.dumps(jobs))
    script = [node, "characters.mjs", "jobs.json", "characters.jsonl"]
    if subprocess.run(script, cwd=folder, check=False).returncode:
        raise KCDPError(
            "node could not draw the characters, for the reason above; the generator asks for "
            "node 18 or newer."
        )
    return (folder / "characters.jsonl").read_text(encoding="utf-8").splitlines()


def read(folder: Path) -> list[Drawing]:
    """Return all drawings, fetched into `folder` on first use."""
    archives = packages.fetch(folder / "packages")
    words = people_say(json.loads(packages.member(archives["emojibase-data"], "en/data.json")))
    found: list[Drawing] = []
    for package in packages.of_kind("icons"):
        collection = json.loads(packages.member(archives[package.short], "icons.json"))
        found += icons(package.short, collection, words)
    return [*found, *characters(drawn_by_node(folder, archives, corpus_jobs()))]


def draw(svg: str) -> np.ndarray | None:
    """Render an SVG as RGBA uint8 [S, S, 4], S = 128, centred on a transparent square.

    None for a drawing that cannot be read or shows next to nothing.
    """
    if "xmlns:xlink" not in svg:
        svg = svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
    try:
        data = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=IMAGE_SIZE, height=IMAGE_SIZE))
    except ValueError:
        return None
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    picture.thumbnail((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (IMAGE_SIZE, IMAGE_SIZE))
    square.paste(picture, ((IMAGE_SIZE - picture.width) // 2, (IMAGE_SIZE - picture.height) // 2))
    pixels = np.asarray(square)
    return pixels if pixels[..., 3].mean() > 5 else None


def key() -> str:
    """Return the cache key of the drawings, from the pinned packages and the code."""
    here = Path(__file__).parent
    pinned = [(here / name).read_bytes() for name in ("packages.json", "characters.mjs")]
    return paths.sha(code_key(Path(__file__), Path(packages.__file__)), *pinned)[:12]


def build(folder: Path) -> tuple[np.ndarray, list[Drawing]]:
    """Return RGBA uint8 [N, S, S, 4] (S = 128, memory-mapped) and N drawings without their SVG.

    They are fetched once, drawn by all cores, and kept in `folder`.
    """
    stem = f"drawings-{key()}"
    pictures_file, told_file = folder / f"{stem}.rgba", folder / f"{stem}.json"
    if not told_file.exists():
        drawings = read(folder)
        drawn = machine.side_by_side(draw, [drawing.svg for drawing in drawings])
        kept, part = [], pictures_file.with_suffix(".part")
        with part.open("wb") as file:
            for i, picture in enumerate(
                paths.progress(drawn, "drawing what people drew", len(drawings))
            ):
                if picture is not None:
                    kept.append(i)
                    file.write(picture.tobytes())
        os.replace(part, pictures_file)
        told = [drawings[i]._replace(svg="") for i in kept]
        paths.atomic_write(told_file, json.dumps(told))
    rows = json.loads(told_file.read_text(encoding="utf-8"))
    told = [Drawing(*row)._replace(words=tuple(row[3])) for row in rows]
    shape = (len(told), IMAGE_SIZE, IMAGE_SIZE, 4)
    return np.memmap(pictures_file, np.uint8, "r", shape=shape), told


def compose(
    drawings: torch.Tensor, backgrounds: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return pictures float32 [N, 3, S, S] in [0, 255] of RGBA uint8 drawings [N, S, S, 4].

    They are slightly rotated, mirrored, shifted and scaled; some get the white border of a die-cut
    sticker, some thicker lines; on white, on a plain colour, or on one of the backgrounds, uint8
    [M, S, S, 3]; slightly brighter or darker.
    """
    count = len(drawings)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def happens(share: float) -> torch.Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator) < share

    rgba = drawings.permute(0, 3, 1, 2).float()
    # transparent pixels are black, and would darken every edge when interpolated
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:] / 255, rgba[:, 3:]], 1)
    scale, angle = between(0.9, 1.7), between(-0.2, 0.2)
    mirrored = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    matrix = torch.stack(
        [
            torch.stack([scale * angle.cos() * mirrored, -scale * angle.sin()], -1),
            torch.stack([scale * angle.sin() * mirrored, scale * angle.cos()], -1),
        ],
        1,
    )
    affine = torch.cat([matrix, between(-0.3, 0.3, 2, 1)], -1)
    grid = F.affine_grid(affine, list(rgba.shape), align_corners=False)
    rgba = F.grid_sample(rgba, grid, align_corners=False)
    colours, alpha = rgba[:, :3], rgba[:, 3:] / 255
    # a dark line spreads by a pixel, inside the drawing
    solid = colours + 255 * (1 - alpha)
    thicker = -F.max_pool2d(-solid, 3, 1, 1) - 255 * (1 - alpha)
    colours = torch.where(happens(0.15), thicker.clamp(min=0), colours)
    border = happens(0.3) * F.max_pool2d(alpha, 9, 1, 4)
    plain_colour = torch.where(happens(0.4), 255.0, between(0, 255, 3, 1, 1))
    some = torch.randint(len(backgrounds), (count,), generator=generator)
    others = backgrounds[some].permute(0, 3, 1, 2).float()
    behind = torch.where(happens(0.15), others, plain_colour)
    behind = behind * (1 - border) + 255 * border
    pictures = (colours + behind * (1 - alpha)) * between(0.8, 1.15, 3, 1, 1)
    return pictures.clamp(0, 255)


def main() -> None:
    """Fetch and draw everything and print the counts, the command line of `make corpus`."""
    parser = argparse.ArgumentParser(prog="python -m kcdp_lib.pretrain.drawings")
    parser.add_argument("--work", type=Path, default=paths.CACHE / "pretrain", help="where it goes")
    folder = parser.parse_args().work
    _, drawings = build(folder)
    for name, count in Counter(drawing.set for drawing in drawings).items():
        print(f"{name:20} {count:5}")
    print(f"{len(drawings)} drawings in {folder}")


if __name__ == "__main__":
    with command():
        main()
