"""Third-party material has its licence beside it, and book/licences.md lists it."""

import re
import subprocess
from importlib.metadata import metadata
from pathlib import Path, PurePosixPath

import pytest

from kcdp_lib.pretrain import packages

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "book" / "licences.md").read_text(encoding="utf-8")
OURS = {
    ".",
    "kcdp_lib/models/tiny",
    "kcdp_lib/world",
    "tests/golden",
}  # under the repository's own licence
FACTS = {"book/_inventories"}  # lists of names, with a README on their origin
BROUGHT = r"\.min\.m?js$|\.bundle\.|\.wasm|\.(woff2?|ttf|otf|eot|inv)$"  # not written by hand


def rows(title: str) -> list[list[str]]:
    """Return the cells of the table below a heading."""
    table = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", table, re.MULTILINE)
    ][2:]


LISTED = {row[0].strip("`"): row for row in rows("In the repository")}
PACKAGES = {row[0].strip("`"): row[2] for row in rows("In the built pages")}


def tracked() -> list[PurePosixPath]:
    """Return the files that git tracks."""
    return [
        PurePosixPath(line)
        for line in subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    ]


def unlisted(files: list[PurePosixPath], listed: set[str]) -> list[str]:
    """Return folders with a licence or `BROUGHT` file that lie in no folder of `listed` but "."."""
    foreign = [
        file
        for file in files
        if (file.name.startswith(("LICENSE", "LICENCE", "COPYING")) and len(file.parts) > 1)
        or re.search(BROUGHT, file.name)
    ]
    return sorted(
        {
            str(file.parent)
            for file in foreign
            if not any(file.is_relative_to(folder) for folder in listed - {"."})
        }
    )


def test_everything_brought_in_is_listed():
    lacking = unlisted(tracked(), set(LISTED))
    assert not lacking, f"add a row to book/licences.md for {lacking}"


@pytest.mark.parametrize("folder", LISTED)
def test_what_is_listed_is_there_with_its_licence(folder):
    assert (ROOT / folder).is_dir()
    if folder not in OURS | FACTS:
        texts = [
            path.name
            for path in (ROOT / folder).iterdir()
            if path.name.startswith(("LICENSE", "LICENCE", "COPYING"))
        ]
        assert texts, f"{folder} has no LICENSE beside it"
    else:
        assert folder in OURS or (ROOT / folder / "README.md").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_under_what_the_table_says(package):
    about = metadata(package)
    told = " ".join(
        [
            about["License-Expression"] or "",
            about["License"] or "",
            *(line for line in about.get_all("Classifier") or [] if "License" in line),
        ]
    )
    assert PACKAGES[package] in told


def test_the_checks_notice_what_lacks():
    files = [
        PurePosixPath(name)
        for name in ("LICENSE", "a/LICENSE", "a/x.js", "b/c/y.min.js", "b/z.js", "d/e.wasm.gz.bin")
    ]
    assert unlisted(files, {"."}) == ["a", "b/c", "d"] and unlisted(files, {".", "a", "b"}) == ["d"]


def test_what_the_miniatures_have_learnt_from_is_listed():
    listed = [(row[0], *row[2:]) for row in rows("In the training of the miniature models")]
    assert listed == [
        (f"`{one.name}` {one.version}", one.author, one.licence) for one in packages.PACKAGES
    ]
