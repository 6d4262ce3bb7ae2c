"""`python -m kcdp_lib.adapt RUN_DIR`: print the scores of a finished run, as `make adapt` does at its end.

`accelerate launch -m kcdp_lib.adapt --config FILE`: make the run that notebook 05 makes, in as many
  processes as there are; FILE is YAML, the notebook's parameters by name (papermill takes it as `-f
  FILE`).
With `--check` it is not made: what is missing is named, or what it will cost is measured in some
  minutes and printed.
"""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path

import yaml
from accelerate import PartialState

from kcdp_lib.adapt import adapt
from kcdp_lib.adapt.preflight import preflight
from kcdp_lib.config import Config
from kcdp_lib.errors import KCDPError, first_line


def table(metrics: dict) -> str:
    """The target's scores beside the baselines', one line each.

    A sentence where the target has no labels.
    """
    pseudo, lines = metrics["pseudo_labels"], []
    if "test" in metrics["target"]:
        lines.append(
            f"{'on ' + str(metrics['target']['test']['n']) + ' labelled target pictures':<34}{'macro-F1':>9} "
            f" {'95% interval':<15}{'balanced accuracy':>17}"
        )
        for name, entry in {"KCDP": metrics["target"]["test"], **metrics["baselines"]}.items():
            low, high = entry["macro_f1_interval"]
            lines.append(
                f"{name.replace('_', ' '):<34}{entry['macro_f1']:>9.3f}  "
                f"{f'[{low:.3f}, {high:.3f}]':<15}{entry['balanced_accuracy']:>17.3f}"
            )
    else:
        lines.append(
            "The target has no labels, so there is nothing to score; predictions.jsonl has the "
            "predictions."
        )
    if pseudo["n"]:
        checked = "" if pseudo["accuracy"] is None else f", {pseudo['accuracy']:.0%} of them right"
        lines.append(
            f"pseudo-labels for {pseudo['coverage']:.0%} of {pseudo['n']} target pictures{checked}"
        )
    seconds = metrics["provenance"]["wall_seconds"]
    lines.append(
        f"{seconds / 60:.1f} minutes, {metrics['provenance']['peak_memory_bytes'] / 1e9:.1f} GB of "
        "memory"
    )
    return "\n".join(lines)


def read_config(path: Path) -> Config:
    """The parameters in a YAML file.

    KCDPError for a file that cannot be read and for a name that is no parameter.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise KCDPError(
            f"{path} cannot be read as YAML ({first_line(error)}); write one parameter a line, "
            'such as "target: stickers".'
        ) from error
    known = [field.name for field in fields(Config)]
    if not isinstance(told, dict) or (unknown := [name for name in told if name not in known]):
        wrong = (
            f"{unknown[0]!r} in {path} is no parameter"
            if isinstance(told, dict)
            else f"{path} holds no parameters"
        )
        raise KCDPError(
            f'{wrong}; write one a line, such as "target: stickers", of {", ".join(known)}.'
        )
    return Config(**told)


def main() -> None:
    """Print a run, or make it and then print it; a KCDPError ends it with its sentence."""
    words = argparse.ArgumentParser(
        prog="python -m kcdp_lib.adapt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("run_dir", nargs="?", type=Path, help="a finished run, to print")
    words.add_argument("--config", type=Path, metavar="FILE", help="parameters of a run to make")
    words.add_argument(
        "--check",
        action="store_true",
        help="do not make the run, say what is missing or what it will cost",
    )
    told = words.parse_args()
    if (told.run_dir is None) == (told.config is None):
        words.error("give the folder of a finished run, or --config FILE to make one.")
    if told.check and not told.config:
        words.error("--check needs --config FILE.")
    try:
        if told.check:
            lines, ready = preflight(read_config(told.config))
            print("\n".join(lines))
            sys.exit(None if ready else "Not everything is there: see above.")
        metrics = (
            adapt(read_config(told.config))
            if told.config
            else json.loads((told.run_dir / "metrics.json").read_text())
        )
    except KCDPError as error:
        sys.exit(str(error))
    if PartialState().is_main_process:
        print(table(metrics))


if __name__ == "__main__":
    main()
