"""Run the main job, chapter 5 for a target, by papermill, and print its scores.

`python book/run.py --target=noto` writes runs/05_adapt-noto.ipynb and the run's folder beside it.
For other parameters call papermill itself (README.md).
"""

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from safetensors import SafetensorError, safe_open

from kcdp_lib.adapt.__main__ import finished_table
from kcdp_lib.adapt.folder import check_apart
from kcdp_lib.command import command
from kcdp_lib.config import Config
from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import ROOT

CHAPTER = ROOT / "notebooks" / "05_adapt.ipynb"


def run(target: str) -> str:
    """Execute the chapter for a target; return the table of its scores.

    The target stays text, because a folder may be named 2024. KCDPError for bad input, and if the
    notebook stops.
    """
    config = Config(target=target).check()
    folder = config.run_dir
    notebook = folder.with_name(f"{folder.name}.ipynb")
    check_apart(folder, config)
    is_new = not notebook.exists()
    notebook.parent.mkdir(parents=True, exist_ok=True)
    print(announcement(folder), file=sys.stderr, flush=True)
    if sys.stderr.isatty() and hasattr(os, "ttyname"):  # the notebook draws its bars there
        os.environ.setdefault("KCDP_TERMINAL", os.ttyname(sys.stderr.fileno()))
    try:
        # papermill fills in what stands in braces, which a folder's name may hold
        chapter, copy = (
            str(path).replace("{", "{{").replace("}", "}}") for path in (CHAPTER, notebook)
        )
        papermill.execute_notebook(
            chapter,
            copy,
            {"target": target},
            kernel_name="python3",
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        if error.ename == KCDPError.__name__:
            if is_new:  # it shows nothing but the error
                notebook.unlink(missing_ok=True)
            raise KCDPError(error.evalue) from error
        raise KCDPError(
            f"The chapter stopped with {error.ename}: {error.evalue}. {notebook} shows where."
        ) from error
    except DeadKernelError as error:
        raise KCDPError(
            "The notebook's kernel ended without a word, most often because the memory was full; "
            "close other programs and give the same command again: it goes on where it was."
        ) from error
    return finished_table(folder)


def announcement(folder: Path) -> str:
    """Return the stages, the time of the last run, and whether a run is resumed, as text."""
    lines = [
        "Chapter 5 runs: captions, latents and knowledge tokens of each set, then the training, "
        "the baselines and the figures. What is in the cache is not computed again."
    ]
    with suppress(OSError, ValueError, LookupError, TypeError):
        before = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        minutes = before["provenance"]["wall_seconds"] / 60
        lines.append(f"The run that is here already took {minutes:.1f} minutes.")
    if not lines[1:]:
        lines.append("A first run takes six to twelve minutes on two cores.")
    with (
        suppress(OSError, SafetensorError),
        safe_open(folder / "checkpoint.safetensors", "numpy") as checkpoint,
    ):
        lines.append(
            f"A run was stopped here after step {checkpoint.metadata()['steps']}; it goes on from "
            "there unless parameters, pictures or code have changed."
        )
    return "\n".join(lines)


def places(folder: Path) -> str:
    """List where to find the run's results, relative to the working directory."""
    here = Path(os.path.relpath(folder))
    return "\n".join(
        (
            f"notebook     {here.with_name(f'{here.name}.ipynb')}",
            f"figures      {here / 'figures'}",
            f"predictions  {here / 'predictions.jsonl'}",
        )
    )


def main() -> None:
    """Run the job; print its scores and the paths of its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="stickers", help="a built-in domain or a folder")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with command():
        target = parser.parse_args().target
        print(run(target))
        print(places(Config(target=target).check().run_dir))


if __name__ == "__main__":
    main()
