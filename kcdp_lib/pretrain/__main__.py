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
from kcdp_lib.machine import processors
from kcdp_lib.pretrain import corpus, familiar, stack, train

STAGES = {**train.STAGES, "familiar": familiar.train_familiar}
# In the order of starting, the longest first. A stage begins when a core is free and what it needs
# is there.
NEEDS: dict[str, tuple[str, ...]] = {
    **{"coca": (), "text": (), "vae": (), "unet": ("text", "vae")},
    "familiar": ("coca",),
}


def run_stage(args: argparse.Namespace, name: str, needed: list[Future]) -> None:
    """One stage in a process of its own.

    Raises CalledProcessError if it, or a stage it needs, failed.
    """
    for future in needed:
        future.result()
    command = [sys.executable, "-m", "kcdp_lib.pretrain", "--stage", name]
    subprocess.run([*command, "--out", args.out, "--work", args.work], check=True)


def main() -> None:
    """The command line: all stages, or the one that --stage names."""
    parser = argparse.ArgumentParser(prog="python -m kcdp_lib.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, default=paths.TINY, help="where the finished models go")
    parser.add_argument(
        "--work", type=Path, default=paths.CACHE / "pretrain", help="checkpoints and the corpus"
    )
    parser.add_argument("--stage", choices=NEEDS, help="run this stage alone (used internally)")
    args = parser.parse_args()
    if args.stage:
        torch.set_num_threads(max(1, processors() // 2))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        STAGES[args.stage](args.work, args.out, device)
        return
    stack.lay_out(args.out)
    corpus.build(args.work)
    futures: dict[str, Future] = {}
    with ThreadPoolExecutor(2) as pool:
        for name, needs in NEEDS.items():
            futures[name] = pool.submit(run_stage, args, name, [futures[need] for need in needs])
    failed = [name for name, future in futures.items() if future.exception()]
    if failed:
        sys.exit(
            f"Pre-training stopped in {', '.join(failed)}; the reason is above. The same command "
            "goes on from the last checkpoint."
        )
    train.report(args.out)


if __name__ == "__main__":
    with command():
        main()
