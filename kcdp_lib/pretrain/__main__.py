"""Train the miniature models anew: `python -m kcdp_lib.pretrain [--out DIR] [--work DIR]`.

An interrupted run continues where it stopped. Stages run one after the other, each on all cores, in
an order in which each finds its training data.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from kcdp_lib import paths
from kcdp_lib.command import command
from kcdp_lib.pretrain import packages, stack, stage
from kcdp_lib.pretrain.coca import train_coca
from kcdp_lib.pretrain.familiar import train_familiar
from kcdp_lib.pretrain.task import KNOWLEDGE, Task, spoken
from kcdp_lib.pretrain.text_encoder import train_text
from kcdp_lib.pretrain.unet import train_unet
from kcdp_lib.pretrain.vae import train_vae

STAGES: dict[str, Callable[[Task], None]] = {
    "coca": train_coca,
    "text": train_text,
    "vae": train_vae,
    "unet": train_unet,
    "familiar": train_familiar,
}


def run_stage(task: Task, name: str) -> None:
    """Run one stage in a process of its own, which then releases its memory."""
    line = [sys.executable, "-m", "kcdp_lib.pretrain", "--stage", name]
    line += ["--out", str(task.out), "--work", str(task.work), "--knowledge", task.knowledge]
    line += ["--budget", task.budget]
    if subprocess.run([*line, "--without", *task.without], check=False).returncode:
        sys.exit(
            f"Pre-training stopped in {name}; the reason is above. The same command goes on from "
            "the last checkpoint."
        )


def main() -> None:
    """Run all stages, or the one that --stage names, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m kcdp_lib.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, default=paths.TINY, help="where the finished models go")
    parser.add_argument(
        "--work", type=Path, default=paths.CACHE / "pretrain", help="checkpoints and the corpus"
    )
    parser.add_argument("--knowledge", choices=KNOWLEDGE, default="both")
    sets = sorted(package.short for package in packages.of_kind("icons", "characters"))
    parser.add_argument(
        "--without", nargs="*", default=(), choices=sets, metavar="SET", help=f"of {sets}"
    )
    has_gpu = torch.cuda.is_available()
    parser.add_argument(
        "--budget",
        choices=stage.BUDGETS,
        default="gpu" if has_gpu else "cpu",
        help="steps and batches; by default those for this machine",
    )
    parser.add_argument("--stage", choices=STAGES, help="run this stage alone")
    parser.add_argument("--steps", type=int, help="of that stage, in place of its own number")
    args = parser.parse_args()
    if args.steps:
        plans = stage.BUDGETS[args.budget]
        if args.stage not in plans:
            parser.error("--steps belongs to one --stage that is trained")
        plans[args.stage] = plans[args.stage]._replace(steps=args.steps)
    device = "cuda" if has_gpu else "cpu"
    task = Task(args.work, args.out, device, args.knowledge, tuple(args.without), args.budget)
    if not (task.out / stage.RECORD).exists() or not args.stage:
        stack.lay_out(task.out, spoken(task))
        stage.report(task)
    stage.check(task)
    if args.stage:
        STAGES[args.stage](task)
        stage.record(task, args.stage)
        return
    for name in STAGES:
        run_stage(task, name)


if __name__ == "__main__":
    with command():
        main()
