"""Check and time a training step on a GPU; `bash benchmarks/gpu.sh` runs it on a bare machine.

The checks come first: gradients of one step on the device against the CPU, in one pass of the UNet
and in two, in bfloat16 and float16; and the released code's own numbers (tests/golden). Then
`benchmarks/cost.py` runs, the most informative variants first, until the minutes are used up. After
every step, tables are printed, and all numbers are written to a folder.

--small   the miniature instead of Stable Diffusion's sizes: a rehearsal that any laptop can run
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from unittest import mock

import cost
import torch

from kcdp_lib import paths, processes
from kcdp_lib.adapt import training
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.config import PRESETS, RECIPES, Config, pick_device
from kcdp_lib.counterfactuals import PseudoLabeller
from kcdp_lib.knowledge import knowledge_tokens, load_text_encoder
from kcdp_lib.precompute import Frozen

PICTURES = 4  # of each domain, in the step whose gradients are compared
# Largest allowed distance to the CPU's float32 gradients, relative to their norm
ALLOWED = {"float32": 1e-3, "float32, one pass": 1e-3, "bf16": 0.4, "fp16": 0.1}
FIRST = ("paper_bf16_one_pass", "released", "paper_bf16", "once", "released_bf16", "paper")


def gradients(preset, device: str, precision: str = "no", one_pass: bool = False) -> torch.Tensor:
    """Return all gradients of one step of the paper's recipe, flat, on the CPU."""
    torch.manual_seed(0)
    recipe = RECIPES["paper"]
    model = KCDP(preset, recipe).to(device)
    model.device = device
    said, triplets = cost.captions(2 * PICTURES)
    tokens, mask = knowledge_tokens(said, triplets, recipe, load_text_encoder(preset))
    side, channels = model.kadap.unet.config.sample_size, model.kadap.unet.config.in_channels
    latents = torch.randn(2 * PICTURES, channels, side, side)
    frozen = Frozen(latents, tokens, mask, torch.zeros(2 * PICTURES, 1), said, triplets)
    labeller = PseudoLabeller(2 * PICTURES, len(model.classes), recipe).to(device)
    accelerator = processes.accelerator(precision, device)
    config = Config(preset=preset.name, one_pass=one_pass)
    rows, target_rows = torch.arange(2 * PICTURES).split(PICTURES)
    of_source, of_target = (frozen, rows.to(device), rows), (frozen, target_rows, 1.0)
    training.both_steps(model, labeller, *of_source, *of_target, config, accelerator)
    scale = accelerator.scaler.get_scale() if accelerator.scaler else 1.0
    found = [p.grad.float().cpu().flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(found) / scale


def agreement(preset, device: str) -> list[dict]:
    """Compare the device's gradients with the CPU's."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    reference = gradients(preset, "cpu")
    ways = {
        "float32": {},
        "float32, one pass": {"one_pass": True},
        "bf16": {"precision": "bf16"},
        **({"fp16": {"precision": "fp16"}} if device.startswith("cuda") else {}),
    }
    lines = []
    for name, options in ways.items():
        apart = (gradients(preset, device, **options) - reference).norm() / reference.norm()
        lines.append(line(f"gradients, {name}", float(apart), ALLOWED[name]))
    return lines


def golden(device: str) -> list[dict]:
    """Compare the device with the released code's numbers."""
    sys.path.insert(0, str(paths.ROOT / "tests"))
    import golden

    load = partial(golden.load_file, device=device)
    with mock.patch.object(golden, "load_file", load), torch.device(device):
        lines, _ = golden.compare(golden.FOLDER)
    wrong = [one.name for one in lines if not one.ok]
    return [line(f"golden, {len(lines)} tensors: wrong ones", len(wrong), 0) | {"wrong": wrong}]


def line(name: str, found: float, allowed: float) -> dict:
    """Return one comparison, and whether it holds."""
    return {"what": name, "found": found, "allowed": allowed, "ok": found <= allowed}


def costs(name: str, deadline: float, keep) -> dict:
    """Run `cost.py` on a preset, variant by variant, until the deadline; keep(found) after each.

    A variant that fails prints why, and the others go on.
    """
    found: dict = {}
    for way in [*FIRST, *(way for way in cost.WAYS if way not in FIRST)]:
        left = deadline - time.monotonic()
        if left < 20:
            print(f"no time for {way}", flush=True)
            continue
        command = [sys.executable, cost.__file__, name, "--one", way]
        try:
            ran = subprocess.run(
                command, capture_output=True, encoding="utf-8", timeout=left, check=True
            )
        except subprocess.SubprocessError as error:
            why = getattr(error, "stderr", None) or str(error)
            why = why.decode(errors="replace") if isinstance(why, bytes) else why
            print(f"{way}: {why[-2000:]}", flush=True)
            continue
        found[way] = json.loads(ran.stdout.splitlines()[-1])
        keep(found)
        print(cost.table({name: {way: found[way]}}).splitlines()[-1], flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run everything; return 1 if a comparison fails."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--small", action="store_true")
    words.add_argument("--minutes", type=float, default=9.0)
    words.add_argument("--out", type=Path, default=paths.ROOT / "runs" / "gpu")
    told = words.parse_args(arguments)
    deadline = time.monotonic() + 60 * told.minutes
    device, name = pick_device(), "tiny" if told.small else "sd15"
    report: dict = {"device": device, "torch": torch.__version__, "preset": name, "lines": []}

    def keep(found: dict | None = None) -> None:
        report.update(ways=found or {})
        paths.atomic_write(told.out / "gpu.json", json.dumps(report, indent=1) + "\n")

    for compare in (partial(agreement, PRESETS["tiny"], device), partial(golden, device)):
        try:
            with redirect_stdout(sys.stderr):
                report["lines"] += compare()
        except Exception as error:  # the remaining measurements are still worth the GPU's time
            report["lines"].append(line(f"{type(error).__name__}: {error}", 1, 0))
        keep()
    for one in report["lines"]:
        verdict = "ok" if one["ok"] else "WRONG"
        print(f"{one['what']:44} {one['found']:9.2e} of {one['allowed']:.0e}  {verdict}")
    print(cost.table({name: costs(name, deadline, keep)}))
    return 0 if all(one["ok"] for one in report["lines"]) else 1


if __name__ == "__main__":
    sys.exit(main())
