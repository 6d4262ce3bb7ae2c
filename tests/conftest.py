"""Settings and fixtures of all tests: no progress output, no network, one main run."""

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
    """Mark tests that need a browser as slow, so that `make test` leaves them out."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture(scope="module")
def one_thread():
    """Use a single thread; a module requests this by `pytestmark`.

    At the tests' sizes a second thread only waits, especially on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def operations():
    """Return a function that counts the torch operations of a call, backward pass included.

    A loop over pictures shows as a count that grows with their number.
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
    """Return the folder of the main run, photos -> stickers.

    `make test` makes it by running notebook 05; if it is missing, it is made here (minutes).
    """
    if not (RUN / "metrics.json").exists():
        import kcdp_lib

        kcdp_lib.adapt(out_dir=str(RUN))
    return RUN


@pytest.fixture(scope="session")
def main_metrics(main_run: Path) -> dict:
    return json.loads((main_run / "metrics.json").read_text())
