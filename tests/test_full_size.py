"""A full-size run from end to end: EmoSet to SER30K with the files of Stable Diffusion 1.5.

Layouts, files, pictures of 512 pixels, 77 tokens and CoCa ViT-L/14 are the true ones. Weights are
random, and the UNet, the VAE and the text encoder have few channels, so that two cores suffice.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import test_layouts
from PIL import Image
from safetensors.torch import save_file

from kcdp_lib import checkpoints
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.config import PRESETS, of_hub

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "vae": {"block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8},
    "unet": {
        "block_out_channels": (32, 32, 64, 64),
        "cross_attention_dim": 64,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "text": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": 64,
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Write what `hf download` leaves for the preset sd15, with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        full_size = importlib.import_module("full_size")
    folder = tmp_path_factory.mktemp("models")
    hubs = {part: folder / hub for part, (hub, _) in of_hub(PRESETS["sd15"]).items()}
    full_size.write_diffusion(
        hubs["diffusion"],
        full_size.VAE | SMALL["vae"],
        full_size.UNET | SMALL["unet"],
        full_size.TEXT | SMALL["text"],
    )
    full_size.write_vlm(hubs["vlm_pretrained"])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Write EmoSet and SER30K with pictures of 512 pixels, no two alike."""

    def picture(path: Path, number: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC).save(path, "JPEG")

    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_layouts, "picture", picture)
        test_layouts.emoset(folder, each=2)
        test_layouts.ser30k(folder)
    return folder


def start(models: Path, data: Path, folder: Path) -> subprocess.Popen:
    """Start the main job in a process of its own, with the full-size page's parameters."""
    parameters = {
        "source": "emoset",
        "target": "ser30k",
        "preset": "sd15",
        "models": models,
        "data_root": data,
        "epochs": 2,
        "out_dir": folder / "run",
    }
    given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    chapter = ROOT / "notebooks" / "05_adapt.ipynb"
    command = [sys.executable, "-m", "papermill", str(chapter), str(folder / "run.ipynb"), *given]
    environment = os.environ | {"KCDP_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill(process: subprocess.Popen) -> None:
    """Kill the process and its kernel at once, as when a machine is switched off."""
    family = psutil.Process(process.pid)
    for one in [*family.children(recursive=True), family]:
        one.kill()
    process.communicate()


def mark(checkpoint: Path) -> None:
    """Leave a sign in a checkpoint's history that only a run that resumes it can carry on."""
    about, tensors = checkpoints.read(checkpoint)
    history = json.loads(about["history"])
    history[0]["marked"] = 1
    save_file(tensors, checkpoint, about | {"history": json.dumps(history)})


@pytest.mark.slow
def test_a_full_size_run_is_killed_resumed_and_used(models, data, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    process = start(models, data, tmp_path)
    deadline = time.monotonic() + 1200
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()[0][-3000:]
    kill(process)
    assert checkpoint.exists() and not (tmp_path / "run" / "metrics.json").exists()
    mark(checkpoint)

    process = start(models, data, tmp_path)
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["source"]["pictures"] == 16 and metrics["target"]["pictures"] == 12
    assert metrics["target"]["test"]["n"] == 12
    history = json.loads((tmp_path / "run" / "model" / "history.json").read_text(encoding="utf-8"))
    assert history[0]["marked"] == 1, "the second run began anew"
    assert list((tmp_path / "run" / "figures").glob("*.png")) and not checkpoint.exists()
    rows = (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {Path(row["file"]).name: row for row in map(json.loads, rows)}
    picture = data / "SER30K" / "Images" / "topic 0" / "test0.jpg"
    model = KCDP.from_pretrained(tmp_path / "run" / "model", models=models)
    assert model.predict([picture]).labels == [answers[picture.name]["predicted"]]
