"""`python -m kcdp_lib.pretrain [--out DIR] [--work DIR]`.

Rebuild the miniature foundation models from nothing; a killed run goes on.

Stages run two at a time, one core each; the UNet waits for the VAE and the text encoder, which make
what it is trained on.
"""

import argparse
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from kcdp_lib import paths
from kcdp_lib.command import command
from kcdp_lib.pretrain import corpus, stack, train

# In the order of starting, the longest first. A stage begins when a core is free and what it needs
# is there.
NEEDS: dict[str, tuple[str, ...]] = {"coca": (), "text": (), "vae": (), "unet": ("text", "vae")}


def run_stage(task: train.Task, name: str, needed: list[Future]) -> None:
    """One stage in a process of its own.

    Raises CalledProcessError if it, or a stage it needs, failed.
    """
    for future in needed:
        future.result()
    command = [sys.executable, "-m", "kcdp_lib.pretrain", "--stage", name]
    command += ["--out", task.out, "--work", task.work, "--knowledge", task.knowledge]
    subprocess.run([*command, "--without", *task.without], check=True)


def main() -> None:
    """The command line: all stages, or the one that --stage names."""
    parser = argparse.ArgumentParser(prog="python -m kcdp_lib.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, default=paths.TINY, help="where the finished models go")
    parser.add_argument(
        "--work", type=Path, default=paths.CACHE / "pretrain", help="checkpoints and the corpus"
    )
    parser.add_argument("--knowledge", choices=train.KNOWLEDGE, default="both")
    parser.add_argument(
        "--without", nargs="*", default=(), metavar="SET", help="drawings to leave out"
    )
    parser.add_argument("--stage", choices=NEEDS, help="run this stage alone")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = train.Task(args.work, args.out, device, args.knowledge, tuple(args.without))
    if args.stage:
        train.STAGES[args.stage](task)
        return
    stack.lay_out(task.out, train.spoken(task))
    corpus.build(task.work)
    futures: dict[str, Future] = {}
    with ThreadPoolExecutor(2) as pool:
        for name, needs in NEEDS.items():
            futures[name] = pool.submit(run_stage, task, name, [futures[need] for need in needs])
    failed = [name for name, future in futures.items() if future.exception()]
    if failed:
        sys.exit(
            f"Pre-training stopped in {', '.join(failed)}; the reason is above. The same command "
            "goes on from the last checkpoint."
        )
    train.report(task)


if __name__ == "__main__":
    with command():
        main()
