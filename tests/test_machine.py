"""A process takes its share of a machine: as many threads as its quota, asleep while waiting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kcdp_lib import machine

ROOT = Path(__file__).resolve().parents[1]
UNSET = (*machine.WAITING, machine.THREADS)


def host(root: Path, **files: str) -> Path:
    """Create a root folder with these files; "__" in a name stands for "/"."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


SELF = "proc__self__cgroup"
V2, V1 = "sys__fs__cgroup__", "sys__fs__cgroup__cpu__"


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, None),
        ({SELF: "0::/\n", V2 + "cpu.max": "max 100000\n"}, None),
        ({SELF: "0::/\n", V2 + "cpu.max": "150000 100000\n"}, 1.5),
        # the outer group has the tighter limit
        (
            {
                SELF: "0::/job/step\n",
                V2 + "job__cpu.max": "200000 100000\n",
                V2 + "job__step__cpu.max": "400000 100000\n",
            },
            2.0,
        ),
        (
            {
                SELF: "3:cpu,cpuacct:/\n0::/\n",
                V1 + "cpu.cfs_quota_us": "50000\n",
                V1 + "cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                SELF: "1:cpu:/\n",
                V1 + "cpu.cfs_quota_us": "-1\n",
                V1 + "cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        # the container mounts its own group, while the path is the host's
        (
            {
                SELF: "4:memory:/\n1:cpu:/docker/ab12\n",
                V1 + "cpu.cfs_quota_us": "300000\n",
                V1 + "cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ({SELF: "0::/\n", V2 + "cpu.max": "nonsense\n"}, None),
    ],
)
def test_the_quota_is_read_from_both_versions_of_cgroups(files, expected, tmp_path):
    assert machine.quota(host(tmp_path, **files)) == expected


@pytest.mark.parametrize(
    "limit, bound, expected", [(None, 4, 4), (2.9, 4, 2), (0.5, 4, 1), (8.0, 4, 4)]
)
def test_processors_are_whole_and_at_least_one(limit, bound, expected, monkeypatch):
    monkeypatch.setattr(machine, "quota", lambda: limit)
    monkeypatch.setattr(machine, "_bound", lambda: bound)
    assert machine.processors() == expected


@pytest.fixture
def environment(monkeypatch):
    """Return the environment without these variables, and restore it after the test."""
    for name in UNSET:
        monkeypatch.setenv(name, "")  # makes monkeypatch restore it even where it was not set
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "torch")
    return os.environ


def test_without_a_quota_the_number_of_threads_is_left_alone(environment, monkeypatch):
    monkeypatch.setattr(machine, "quota", lambda: None)
    machine.share()
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE" and machine.THREADS not in environment


def test_with_a_quota_threads_are_as_many_as_processors(environment, monkeypatch):
    monkeypatch.setattr(machine, "quota", lambda: 2.5)
    monkeypatch.setattr(machine, "_bound", lambda: 16)
    machine.share()
    assert environment[machine.THREADS] == "2"


def test_what_the_environment_says_stays(environment, monkeypatch):
    monkeypatch.setattr(machine, "quota", lambda: 1.0)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv(machine.THREADS, "7")
    machine.share()
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE" and environment[machine.THREADS] == "7"


def python(code: str, **environment: str) -> str:
    """Return what code prints in a fresh Python, without the tests' variables."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return run.stdout.strip()


def test_importing_the_library_does_not_import_torch():
    code = "import sys, os, kcdp_lib; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    assert python(code) == "False PASSIVE"


NAMES = "import threading; print([thread.name for thread in threading.enumerate()][1:])"


@pytest.mark.skipif(
    sys.platform != "linux" or machine.processors() < 2, reason="there is nothing to mend"
)
@pytest.mark.parametrize(
    "code, environment, expected",
    [
        ("import torch, kcdp_lib", {}, ["kcdp_lib.machine"]),
        ("import kcdp_lib, torch", {}, []),
        ("import torch, kcdp_lib", {"OMP_WAIT_POLICY": "PASSIVE"}, []),
        ("import torch, kcdp_lib", {"OMP_NUM_THREADS": "1"}, []),
    ],
)
def test_a_torch_that_was_there_before_is_kept_from_spinning(code, environment, expected):
    assert python(f"{code}\n{NAMES}", **environment) == str(expected)


def test_a_torch_that_was_there_before_keeps_to_the_quota():
    assert python("import torch\n" + LIMITED) == "1"


LIMITED = """
import kcdp_lib.machine as machine
machine.quota = lambda: 1.0
del machine.os.environ["OMP_WAIT_POLICY"]
machine.share()
print(torch.get_num_threads())
"""
BUSY = "while True: pass"
PREDICT = """
import time, torch
from PIL import Image
from kcdp_lib.adapt import KCDP
from kcdp_lib.config import PRESETS, RECIPES
torch.manual_seed(0)
model = KCDP(PRESETS["tiny"], RECIPES["paper"])
pictures = [Image.new("RGB", (64, 64), (i, 9, 9)) for i in range(20)]
model.predict(pictures[:1])
started = time.perf_counter()
model.predict(pictures)
print(time.perf_counter() - started)
"""


@pytest.mark.slow
def test_on_a_busy_machine_two_threads_are_not_many_times_slower_than_one(tmp_path):
    """With spinning threads it takes twenty times as long; torch is imported first, as is usual."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2 * machine.processors())]
    seconds = {}
    try:
        for threads in ("default", "1"):
            told = {} if threads == "default" else {"OMP_NUM_THREADS": threads}
            seconds[threads] = float(
                python(PREDICT, KCDP_CACHE=str(tmp_path / threads), KCDP_QUIET="1", **told)
            )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert seconds["default"] < 4 * seconds["1"], seconds
