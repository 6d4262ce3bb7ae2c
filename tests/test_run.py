"""`make adapt`, that is, `python book/run.py`: its target is text, and errors are sentences."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import papermill
import pytest
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.parameterize import parameterize_path
from safetensors.numpy import save_file

from kcdp_lib import paths
from kcdp_lib.errors import KCDPError

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "book" / "run.py"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return the script's function, which writes below a temporary folder."""
    (tmp_path / "2024").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(
        "kcdp_lib.adapt.__main__.finished_table", lambda folder: f"the table of {folder.name}"
    )
    return runpy.run_path(str(SCRIPT))["run"]


def stopped(name: str, value: str) -> PapermillExecutionError:
    return PapermillExecutionError(
        cell_index=3, exec_count=3, source="", ename=name, evalue=value, traceback=[]
    )


@pytest.mark.parametrize("target", ["2024", "of {me}"])
def test_the_chapter_runs_with_the_target_as_text(target, run, monkeypatch, tmp_path):
    (tmp_path / target).mkdir(exist_ok=True)
    calls = []

    def execute(chapter, notebook, parameters, **_):
        paths = (parameterize_path(path, parameters) for path in (chapter, notebook))
        calls.append((*map(Path, paths), parameters))

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    assert run(target) == f"the table of 05_adapt-{target}"
    chapter = tmp_path / "notebooks" / "05_adapt.ipynb"  # below the test's own root
    notebook = tmp_path / "runs" / f"05_adapt-{target}.ipynb"
    assert calls == [(chapter, notebook, {"target": target})]


def test_a_run_says_beforehand_what_will_happen(monkeypatch, tmp_path):
    announcement = runpy.run_path(str(SCRIPT))["announcement"]
    assert "first run takes" in announcement(tmp_path).splitlines()[1]
    (tmp_path / "metrics.json").write_text('{"provenance": {"wall_seconds": 384}}')
    save_file({"of": np.zeros(1)}, tmp_path / "checkpoint.safetensors", {"steps": "111"})
    _, before, resumed = announcement(tmp_path).splitlines()
    assert "6.4 minutes" in before and "after step 111" in resumed
    for name in ("metrics.json", "checkpoint.safetensors"):
        (tmp_path / name).write_text("{")
    assert "first run takes" in announcement(tmp_path).splitlines()[1]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no such terminals")
def test_the_bars_of_a_notebook_are_drawn_on_the_terminal(tmp_path):
    ours, theirs = os.openpty()
    code = "from kcdp_lib.paths import progress\nfor _ in progress(range(3), 'captions'): pass"
    environment = os.environ | {"KCDP_TERMINAL": os.ttyname(theirs), "KCDP_QUIET": "0"}
    subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stderr=subprocess.PIPE
    )
    assert b"captions: " in os.read(ours, 1000)
    os.close(ours)
    os.close(theirs)


def test_a_run_says_where_to_look(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    places = runpy.run_path(str(SCRIPT))["places"]
    assert places(tmp_path / "runs" / "05_adapt-mine").splitlines() == [
        f"notebook     {Path('runs', '05_adapt-mine.ipynb')}",
        f"figures      {Path('runs', '05_adapt-mine', 'figures')}",
        f"predictions  {Path('runs', '05_adapt-mine', 'predictions.jsonl')}",
    ]


@pytest.mark.parametrize(
    "error, sentence",
    [
        (stopped("KCDPError", "no picture; add one."), "^no picture; add one.$"),
        (stopped("ValueError", "odd"), "^The chapter stopped with ValueError: odd. .* shows where"),
        (DeadKernelError("died"), "^The notebook's kernel ended without a word"),
    ],
)
def test_a_chapter_that_stops_is_a_sentence(error, sentence, run, monkeypatch):
    def execute(*_, **__):
        raise error

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    with pytest.raises(KCDPError, match=sentence):
        run("2024")


def test_a_wrong_target_is_told_before_anything_runs(tmp_path):
    command = [sys.executable, str(SCRIPT), "--target=-no such \"$folder'"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr.startswith("target=") and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())
