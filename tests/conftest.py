"""What all tests share: silence, no network, and the one run of the main job."""

import json
import os
from pathlib import Path

import pytest
import torch
from browser import book, build, chromium, site  # noqa: F401 (fixtures)
from torch.utils._python_dispatch import TorchDispatchMode

os.environ.setdefault("KCDP_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "runs" / "05_adapt-stickers"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What wants a browser is slow: `make test` leaves it out."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture(scope="module")
def one_thread():
    """At the tests' sizes a second thread only waits, the more so when the machine is busy.

    A module asks for it by `pytestmark`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def operations():
    """A function: how many torch operations a call dispatches, its backward pass included.

    A loop over pictures shows as a number that grows with them.
    """

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += 1
            return function(*args, **(kwargs or {}))

    def count(call) -> int:
        with Counter() as counter:
            call()
        return counter.count

    return count


@pytest.fixture(scope="session")
def main_run() -> Path:
    """The folder of the main job, photos -> stickers.

    `make test` has just made it by running notebook 05; without that it is made here (minutes).
    """
    if not (RUN / "metrics.json").exists():
        import kcdp_lib

        kcdp_lib.adapt(out_dir=str(RUN))
    return RUN


@pytest.fixture(scope="session")
def main_metrics(main_run: Path) -> dict:
    return json.loads((main_run / "metrics.json").read_text())
