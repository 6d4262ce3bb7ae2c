"""`make` works in any checkout and with any target, and needs no tool of its own.

Every recipe is a command that can be typed without make, as in README.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
RECORDER = f"""#!{sys.executable}
import json, sys
with open("calls", "a", encoding="utf-8") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(0 if "show" not in sys.argv or open("torch").read() == "there" else 1)
"""

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")


@pytest.fixture(params=["plain", "sp ace", "Ümläut 'and' quote"])
def checkout(request, tmp_path) -> Path:
    """Return a checkout whose Python records its arguments."""
    folder = tmp_path / request.param
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(RECORDER, encoding="utf-8")
    python.chmod(0o755)
    (folder / "torch").write_text("", encoding="utf-8")
    return folder


def make(checkout: Path, *words: str, **environment: str) -> list[list[str]]:
    """Return the calls of Python that a `make` makes; it must leave no other files."""
    beside = set(checkout.parent.iterdir())
    inside = {path.name for path in checkout.iterdir()} | {"calls"}
    command = ["make", "--silent", "PYTHON=./.venv/bin/python", *words]
    run = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    assert set(checkout.parent.iterdir()) == beside
    assert {path.name for path in checkout.iterdir()} <= inside
    calls = (checkout / "calls").read_text(encoding="utf-8").splitlines()
    (checkout / "calls").unlink()
    return [json.loads(line) for line in calls]


def test_the_environment_is_made_once_and_whole(checkout):
    calls = make(checkout, ".venv/.ready")
    install = calls[-1]
    assert install[:3] == ["-m", "pip", "install"]
    assert install[-4:] == [
        "--constraint",
        ".venv/constraints.txt",
        "--editable",
        ".[book,test]",
    ]
    taken = (checkout / ".venv" / "constraints.txt").read_text(encoding="utf-8")
    assert taken == CONSTRAINTS
    assert make(checkout, "check") == [["-m", "kcdp_book.check"]]


def test_a_torch_that_is_there_is_kept(checkout):
    """Neither its version nor that of its dependencies is constrained."""
    (checkout / "torch").write_text("there", encoding="utf-8")
    make(checkout, ".venv/.ready")
    taken = (checkout / ".venv" / "constraints.txt").read_text(encoding="utf-8")
    pins = {line.split("==")[0] for line in taken.splitlines() if "==" in line}
    every = {line.split("==")[0] for line in CONSTRAINTS.splitlines() if "==" in line}
    dropped = every - pins
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-toolkit"} <= dropped
    assert all(re.match("torch|triton|nvidia-|cuda-", name) for name in dropped)


def test_a_torch_that_is_asked_for_comes_first(checkout):
    calls = make(checkout, ".venv/.ready", "TORCH=torch>=2 torchvision --index-url a$b;touch x")
    wanted = ["torch>=2", "torchvision", "--index-url", "a$b;touch", "x"]
    assert [call[-5:] for call in calls if "install" in call][0] == wanted


@pytest.mark.parametrize(
    "target",
    [
        "stickers",
        "my pictures",
        "2024",
        "-x",
        "a'b\"c",
        "$HOME $(shell touch made) `touch made` ${PY}; touch made",
        "Gefühle/für uns",
        "#hash",
    ],
)
def test_a_target_is_text(checkout, target):
    """It may come from the command line or from the environment."""
    make(checkout, ".venv/.ready")
    expected = [["book/run.py", f"--target={target}"]]
    assert make(checkout, "adapt", f"TARGET={target}") == expected
    assert make(checkout, "adapt", TARGET=target) == expected


def test_a_python_that_is_too_old_or_missing_is_told(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    run = subprocess.run(
        ["make", "PYTHON=./no python"], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert run.returncode == 2 and "no python: not found" in run.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (("target=noto",), "TARGET is written in capitals"),
        (("adapt", "noto"), "no command noto; a target is written TARGET=noto"),
    ],
)
def test_a_target_in_the_wrong_place_runs_nothing(checkout, words, told):
    run = subprocess.run(["make", *words], cwd=checkout, capture_output=True, encoding="utf-8")
    assert run.returncode == 2 and told in run.stderr and not (checkout / "calls").exists()


def recipes() -> dict[str, list[str]]:
    """Return the lines of every target that is meant to be called."""
    targets = re.search(r"^COMMANDS := (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    found = {}
    for target in targets:
        lines = re.search(rf"^{target}: \$\(READY\)\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
        found[target] = [line.strip().lstrip("@") for line in lines.splitlines()]
    return found


def test_every_recipe_is_a_command_of_the_environment():
    """No recipe uses a shell, so all can be typed on Windows."""
    for target, lines in recipes().items():
        for line in lines:
            assert re.match(r"\$\(PY\) |\$\(PYTEST\) |\.venv/bin/(jupyter-book|lint-imports)", line)
            assert not re.search(r"[|&;<>]|\$\(shell", line), target


def test_the_readme_has_every_command_without_make():
    table = README.split("| Command |")[1].split("\n\n")[0]
    for target, lines in recipes().items():
        for line in lines:
            typed = line.replace("$(PYTEST)", "python -m pytest -n 2 --dist loadfile")
            typed = typed.replace("$(PY)", "python").replace(".venv/bin/", "")
            typed = typed.replace('="$$TARGET"', "=stickers")
            assert f"`{typed}`" in table, f"make {target}: {typed}"


def test_the_readme_names_the_torch_that_is_pinned():
    pins = dict(re.findall(r"^(torch|torchvision)==(.+)$", CONSTRAINTS, re.MULTILINE))
    named = re.findall(r"torch==(\S+) torchvision==(\S+)", README)
    assert len(named) == 2 and set(named) == {(pins["torch"], pins["torchvision"])}
