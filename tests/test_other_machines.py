"""The code relies on nothing that only Linux has: fork, POSIX locks, UTF-8 as the locale.

README.md lists what was tried on Linux alone; these tests keep other systems possible.
"""

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for folder in ("kcdp_lib", "kcdp_book", "book", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
OPENING = {"open", "NamedTemporaryFile"}  # functions; methods of paths and of os follow
METHODS = {*OPENING, "read_text", "write_text", "fdopen"}
NO_TEXT = {"Image", "gzip", "os", "tarfile"}  # modules whose `open` opens no text


# ---------------------------------------------------------------- the sources


def trees() -> list[tuple[str, ast.Module]]:
    return [
        (str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8")))
        for path in SOURCES
    ]


def without_encoding(tree: ast.Module) -> list[int]:
    """Return lines that open text, or read a program's output, in the locale's encoding."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        owner = getattr(node.func, "value", None)
        if name == "open" and isinstance(owner, ast.Name) and owner.id in NO_TEXT:
            continue
        values = [*node.args, *named.values()]
        modes = [value.value for value in values if isinstance(value, ast.Constant)]
        binary = any(isinstance(mode, str) and mode in ("rb", "wb", "ab", "r+b") for mode in modes)
        as_text = name == "run" and "text" in named
        opens = name in (OPENING if owner is None else METHODS) and not binary
        if (opens or as_text) and "encoding" not in named:
            lines.append(node.lineno)
    return lines


def of_posix(tree: ast.Module) -> list[int]:
    """Return lines at a module's top that import what Windows lacks."""
    lines = []
    for node in tree.body:
        modules = {node.module} if isinstance(node, ast.ImportFrom) else set()
        if isinstance(node, ast.Import):
            modules = {alias.name for alias in node.names}
        if modules & POSIX:
            lines.append(node.lineno)
    return lines


def forks(tree: ast.Module) -> list[int]:
    """Return lines that name a fork."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("fork", "forkpty"))
        or (isinstance(node, ast.Constant) and node.value == "fork")
    ]


@pytest.mark.parametrize("check", [without_encoding, of_posix, forks])
def test_the_sources_are_portable(check):
    wrong = [f"{name}:{line}" for name, tree in trees() for line in check(tree)]
    assert not wrong, check.__doc__


@pytest.mark.parametrize(
    "check, source",
    [
        (without_encoding, "path.read_text()"),
        (without_encoding, "open('a', 'w')"),
        (without_encoding, "path.open()"),
        (without_encoding, "subprocess.run(['git'], text=True)"),
        (of_posix, "import fcntl"),
        (of_posix, "from resource import getrusage"),
        (forks, "os.fork()"),
        (forks, "get_context('fork')"),
    ],
)
def test_what_is_not_portable_is_noticed(check, source):
    assert check(ast.parse(source)) == [1]
    assert not check(ast.parse("open('a', 'rb'); Image.open('a'); a.read_text(encoding='utf-8')"))


def test_no_two_files_differ_in_case_alone():
    """macOS and Windows could not check them out side by side."""
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    ).stdout.splitlines()
    assert len({file.lower() for file in files}) == len(files) > 100
    assert not [file for file in files if set('<>:"|?*\\') & set(file)]


# ---------------------------------------------------------------- in another place and locale

DRAW = """
import json
import shutil
import sys
from pathlib import Path

from kcdp_lib import paths, world

here = Path(__file__).resolve().parent
domains, gefuehle = sys.argv[1:3], sys.argv[3]
for domain in domains:
    drawn = world.build(domain, "train", 24, workers=2)
    for line in (drawn / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        own = here / f"{gefuehle} {domain}" / str(world.label_of(row["label"]))
        own.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / row["file_name"], own / f"{gefuehle} {row['file_name']}")
"""
TRAIN = """
import kcdp_lib

source, target = (str(here / f"{gefuehle} {domain}") for domain in domains)
out = here / f"runs {gefuehle}"
metrics = kcdp_lib.adapt(source=source, target=target, epochs=1, out_dir=str(out))
pictures = sorted((here / f"{gefuehle} stickers").rglob("*.png"))[:3]
labels = kcdp_lib.KCDP.from_pretrained(out / "model").predict(pictures).labels
print(metrics["target"]["test"]["n"], len(labels), sorted(path.name for path in out.iterdir()))
"""
PLACES = {
    "blanks and umlauts": ("mit Leerzeichen und Ümläuten", "Gefühle", {}),
    "no locale": ("Ümläute", "feelings", {"LC_ALL": "C", "PYTHONUTF8": "0"}),
}


def at(place: str, tmp_path: Path, code: str) -> str:
    """Return what a script prints at that place, in a copy of the library.

    Like a user's, it may lack `if __name__ == "__main__"`. Processes start by "spawn", as on macOS
    and Windows.
    """
    folder, word, settings = PLACES[place]
    copy = tmp_path / folder
    shutil.copytree(
        ROOT / "kcdp_lib", copy / "kcdp_lib", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", copy)
    start = 'import multiprocessing\nmultiprocessing.set_start_method("spawn", force=True)\n'
    (copy / "script.py").write_text(start + textwrap.dedent(code), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    for name in ("LANG", "KCDP_CACHE", "PYTHONIOENCODING"):
        kept.pop(name, None)
    run = subprocess.run(
        [sys.executable, "script.py", "photos", "stickers", word],
        cwd=copy,
        env=kept | {"LC_ALL": "C.UTF-8", "PYTHONPATH": str(copy), "KCDP_QUIET": "1"} | settings,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    return run.stdout


@pytest.mark.parametrize("place", PLACES)
def test_pictures_are_drawn(place, tmp_path):
    at(place, tmp_path, DRAW)
    folder = tmp_path / PLACES[place][0]
    drawn = sorted((folder / ".cache" / "world").glob("*/stickers-*/*.png"))
    assert len(drawn) == 24


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_run_is_made_and_its_model_used(place, tmp_path):
    printed = at(place, tmp_path, DRAW + TRAIN)
    assert printed.startswith("24 3 ['figures', 'metrics.json', 'model', 'predictions.jsonl']")
