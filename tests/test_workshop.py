"""The workshop: the check of a machine finds each kind of trouble, exercises come without their solutions, slides are whole, and the guide says nothing that is not there."""
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kcdp_lib import check, config, paths

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------- check your setup

def said(what: str) -> str:
    """The line of one check, state first."""
    checks = {**check.MUST, **check.MAY}
    finding = check.look(what, checks[what], "mend" if what in check.MUST else "note")
    return f"{finding.state}: {finding.said}"


@pytest.mark.parametrize("what", [*check.MUST, "threads", "device"])
def test_nothing_is_to_mend_where_the_tests_run(what):
    assert said(what).startswith("ok: "), said(what)


def test_the_python_it_asks_for_is_the_projects(monkeypatch):
    assert f'requires-python = ">={check.PYTHON[0]}.{check.PYTHON[1]}"' in (ROOT / "pyproject.toml").read_text()
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert said("Python") == "mend: Python 3.9.1 is too old; install Python 3.11 or newer and make the environment with it."


@pytest.mark.parametrize("versions, sentence", [
    ({"torch": None}, "missing: torch; install in this environment by"),
    ({"torch": "1.0"}, "torch is 1.0 and the book was made with {torch}; install"),
    ({"torch": "1.0", "numpy": "1.0"}, "numpy is 1.0 and the book was made with {numpy}, and 1 more differ; install")])
def test_a_package_that_is_missing_or_another_is_named(versions, sentence, monkeypatch):
    as_it_is = check.version
    monkeypatch.setattr(check, "version", lambda name: versions[name] if name in versions else as_it_is(name))
    assert said("packages").startswith("mend: " + sentence.format(**check.pinned()))


def test_a_builds_mark_is_no_other_version(monkeypatch):
    monkeypatch.setattr(check.importlib.metadata, "version", lambda name: "2.0.1+cpu")
    assert check.version("torch") == "2.0.1"


def test_weights_that_are_not_there_are_told_with_the_way_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setitem(config.PRESETS, "tiny", replace(config.PRESETS["tiny"], diffusion=str(tmp_path)))
    check.foundations.cache_clear()
    line = said("weights")
    check.foundations.cache_clear()
    assert line.startswith("mend: ") and "could not be loaded" in line and "give a folder that is complete" in line


def test_a_stack_that_computes_nonsense_is_noticed(monkeypatch):
    from kcdp_lib.adapt import KCDP
    predict = KCDP.predict
    monkeypatch.setattr(KCDP, "predict", lambda model, images: replace(predict(model, images), captions=["the the the"]))
    assert said("one picture").startswith("mend: a sticker was captioned 'the the the', so")


@pytest.mark.parametrize("argv, sentence", [(None, 'Jupyter has no kernel "python3"; make it'), (["/other/bin/python"], "the notebooks would run with /other/bin/python; make it")])
def test_a_kernel_that_is_missing_or_another_environments_is_noticed(argv, sentence, monkeypatch):
    from jupyter_client import kernelspec

    def found(manager, name):
        if argv is None:
            raise kernelspec.NoSuchKernel(name)
        return kernelspec.KernelSpec(argv=argv)
    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", found)
    assert said("Jupyter").startswith(f"mend: {sentence}")


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    """Root may write anywhere: so a file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "file" / "cache")
    line = said("folders")
    assert line.startswith(f"mend: {tmp_path / 'file' / 'cache'} cannot be written (") and line.endswith("; set KCDP_CACHE to a folder that you may write to.")


def test_a_full_disk_and_full_memory_are_told(monkeypatch):
    usage, virtual = namedtuple("usage", "free"), namedtuple("virtual", "available")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(check.FREE_BYTES - 1))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: virtual(check.MEMORY_BYTES - 1))
    assert "2.0 GB are free below" in said("folders") and said("folders").startswith("mend: ")
    assert said("memory").startswith("mend: 3.0 GB of memory are free and 3 are wanted; close other programs")


def test_a_missing_browser_is_a_note_and_no_trouble(monkeypatch):
    monkeypatch.setattr(check, "CHROMIUM", ())
    assert said("browser") == "note: no Chromium was found; nothing in the workshop needs it."


def test_whatever_breaks_becomes_a_sentence():
    def broken():
        raise ImportError("libtorch.so: cannot open\nmore")
    assert check.look("torch", broken, "mend").said == f"ImportError, libtorch.so: cannot open; {check.INSTALL}."


def test_the_whole_check_takes_half_a_minute_and_asks_no_network(tmp_path):
    """As a reader runs it, with every connection refused. One trouble, a cache that cannot be written, makes its status 1."""
    (tmp_path / "sitecustomize.py").write_text("import socket\ndef refuse(*_):\n    raise SystemExit('the check asked the network')\nsocket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n")
    (tmp_path / "file").write_text("")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin", "KCDP_CACHE": str(tmp_path / "file" / "cache")}
    run = subprocess.run([sys.executable, "-m", "kcdp_lib.check"], env=environment, capture_output=True, text=True, timeout=120)
    lines = run.stdout.splitlines()
    assert run.returncode == 1 and [line.split()[0] for line in lines[:7]] == ["ok"] * 5 + ["mend", "ok"] and not run.stderr, run.stdout + run.stderr
    assert lines[-1] == f'1 of {len(check.MUST) + len(check.MAY)} lines say "mend": do what they say, from above, and run this once more.'
