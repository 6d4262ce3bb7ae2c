"""What all tests share: silence, no network, and the one run of the main job."""
import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("KCDP_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "runs" / "05_adapt-stickers"


@pytest.fixture(scope="session")
def main_run() -> Path:
    """The folder of the main job, photos -> stickers. `make test` has just made it by running notebook 05; without that it is made here (minutes)."""
    if not (RUN / "metrics.json").exists():
        import kcdp_lib
        kcdp_lib.adapt(out_dir=str(RUN))
    return RUN


@pytest.fixture(scope="session")
def main_metrics(main_run: Path) -> dict:
    return json.loads((main_run / "metrics.json").read_text())
