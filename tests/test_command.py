"""Commands end in a sentence and an exit status; the cache's place, and a result's commit."""

import json
import os
import subprocess
import sys

import pytest

from kcdp_lib import KCDPError, checkout, paths, world
from kcdp_lib.command import INTERRUPTED, command
from kcdp_lib.config import LONGEST_NAME, Config


def python(*words, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(paths.ROOT), "PYTHONUTF8": "1"} | environment,
    )


@pytest.mark.parametrize(
    "content, why",
    [
        (None, "No such file or directory"),
        ('{"conf', "Unterminated string"),
        ("[]", "its metrics.json is of another version"),
        ('{"target": {"test": {}}}', "its metrics.json is of another version"),
        (b"\xff", "can't decode byte"),
    ],
)
def test_a_folder_without_a_finished_run_gets_a_sentence(tmp_path, content, why):
    if content:
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "metrics.json").write_bytes(content)
    ended = python("-m", "kcdp_lib.adapt", tmp_path)
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith(f"{tmp_path} does not hold a finished run (")
    assert why in ended.stderr and ended.stderr.count("\n") == 1


def test_printing_a_run_does_not_wait_for_torch(tmp_path):
    metrics = {
        "target": {"pictures": 100},
        "baselines": {},
        "pseudo_labels": {"n": 0},
        "data": {
            "source": {"train": {"left_out": {}, "notes": ["a note"]}},
            "target": {
                "train": {"left_out": {"missing": 2, "no class": 1}, "notes": ["a note"]},
                "test": {"left_out": {}, "notes": ["a note"]},
            },
        },
        "provenance": {"wall_seconds": 60, "peak_memory_bytes": 1e9},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    code = (
        "import runpy, sys; sys.argv[1:] = sys.argv[1:]; "
        "runpy.run_module('kcdp_lib.adapt', run_name='__main__'); assert 'torch' not in sys.modules"
    )
    ended = python("-c", code, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[1:] == [
        "source: a note",
        "target, train: left out missing: 2, no class: 1",
        "target: a note",
        "1.0 minutes, 1.0 GB of memory",
    ]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("kcdp_lib.adapt", "--config", "nowhere.yaml"), "cannot be read (No such file"),
        (("kcdp_lib.adapt", "--config", "."), "cannot be read (Is a directory"),
        (("kcdp_lib.adapt", __file__), "does not hold a finished run"),
        (("kcdp_lib.adapt", "--check"), "give the folder of a finished run"),
        (("kcdp_lib.pretrain", "--out", __file__), "cannot be used (Not a directory)"),
        (("kcdp_book.live", "nowhere", "nowhere"), "nowhere does not hold ort/"),
        (("kcdp_book.live",), "Give the folder of a trained model"),
    ],
)
def test_what_is_mistyped_is_told_in_a_sentence(words, sentence):
    ended = python("-m", *words)
    assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr
    assert sentence in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "error, status",
    [
        (KCDPError("Give another."), "Give another."),
        (KeyboardInterrupt(), INTERRUPTED),
        (PermissionError(13, "Permission denied", "/x"), "/x cannot be used (Permission denied):"),
        (OSError(28, "No space left on device"), "The output cannot be used (No space left"),
    ],
)
def test_how_a_command_ends(error, status):
    with pytest.raises(SystemExit) as ended, command():
        raise error
    code = ended.value.code
    assert code == status or isinstance(code, str) and code.startswith(status)


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), command():
        raise ZeroDivisionError


def test_a_reader_that_has_gone_is_no_traceback():
    code = "from kcdp_lib.command import command\nwith command():\n    print('x' * 10**6)"
    shell = f"'{sys.executable}' -c \"{code}\" | true"
    ended = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, env=os.environ, cwd=paths.ROOT
    )
    assert ended.stderr == ""


# ---------------------------------------------------------------- the cache and the run's folder


@pytest.mark.parametrize("named", ["~/kcdp", "~nobody-here/kcdp", "here/kcdp", " "])
def test_the_cache_lies_where_its_variable_says(tmp_path, named):
    (tmp_path / "here" / "kcdp").mkdir(parents=True)
    ended = subprocess.run(
        [sys.executable, "-c", "from kcdp_lib import paths; print(paths.CACHE)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(paths.ROOT), "KCDP_CACHE": named, "HOME": str(tmp_path / "home")},
    )
    expected = {
        "~/kcdp": tmp_path / "home" / "kcdp",
        "~nobody-here/kcdp": paths.ROOT / "~nobody-here" / "kcdp",
        "here/kcdp": tmp_path / "here" / "kcdp",
        " ": paths.ROOT / ".cache",
    }
    assert ended.stdout.strip() == str(expected[named]), ended.stderr


def test_a_damaged_folder_of_the_world_is_drawn_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    folder = world.build("photos", "train", 3)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, content in (("metadata.jsonl", b""), ("000001.png", b""), ("000002.png", None)):
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.warns(UserWarning, match="is damaged and is made anew"):
            assert world.build("photos", "train", 3) == folder
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_long_name_makes_a_folder_that_can_be_written():
    names = [Config(target=f"/x/{'é' * 124}{last}").run_dir.name for last in "ab"]
    assert len(set(names)) == 2
    for name in names:
        assert len(os.fsencode(name)) <= len("05_adapt-") + LONGEST_NAME
        assert name.startswith("05_adapt-ééé")


def test_a_config_wants_no_torch():
    code = "import sys, kcdp_lib; kcdp_lib.Config(); assert 'torch' not in sys.modules"
    assert python("-c", code).returncode == 0


# ---------------------------------------------------------------- the commit


def test_changes_are_those_of_code(tmp_path, monkeypatch):
    """Edited pages and results that are being written do not count."""

    def git(*words):
        user = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *user, *words], check=True, capture_output=True)

    monkeypatch.setattr(checkout, "PACKAGE", tmp_path / "kcdp_lib")
    assert checkout.commit() is None
    files = ("kcdp_lib/a.py", "kcdp_lib/world/README.md", "results/grid.jsonl", "README.md")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    clean = checkout.commit()
    assert len(clean) == 40
    for name in files[1:]:
        (tmp_path / name).write_text("two")
    assert checkout.commit() == clean
    (tmp_path / files[0]).write_text("two")
    assert checkout.commit() == f"{clean}+changes"
