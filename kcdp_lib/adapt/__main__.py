"""Print a finished run, or make a run.

`python -m kcdp_lib.adapt RUN_DIR` prints the scores of a finished run, as `make adapt` does at its
end.

`python -m kcdp_lib.adapt --config FILE` makes the run that notebook 05 makes. FILE is YAML with the
notebook's parameters by name (papermill takes it as `-f FILE`). Under `accelerate launch`, all
processes share the run.

With `--check`, nothing is run: the command names what is missing or, after measuring for some
minutes, prints what the run will cost.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kcdp_lib.command import command
from kcdp_lib.config import Config, takes_text, with_parameters
from kcdp_lib.errors import KCDPError, first_line

FEW = 100  # target pictures: fewer deserve a warning


def table(metrics: dict) -> str:
    """Return a run's report: scores and what they mean, pseudo-labels, data, time, memory.

    A sentence takes the place of the scores if the target has no labels.
    """
    pseudo, provenance = metrics["pseudo_labels"], metrics["provenance"]
    lines = score_lines(metrics) + verdict_lines(metrics) + few_lines(metrics)
    if pseudo["n"] and metrics["config"]["setting"] == "da":
        checked = "" if pseudo["accuracy"] is None else f", {pseudo['accuracy']:.0%} of them right"
        lines.append(
            f"pseudo-labels for {pseudo['coverage']:.0%} of {pseudo['n']} target pictures{checked}"
        )
    lines += shares_lines(metrics["target"])
    lines += unfamiliar_lines(metrics["target"]) + data_lines(metrics["data"])
    minutes, gigabytes = provenance["wall_seconds"] / 60, provenance["peak_memory_bytes"] / 1e9
    lines.append(f"{minutes:.1f} minutes, {gigabytes:.1f} GB of memory")
    return "\n".join(lines)


def score_lines(metrics: dict) -> list[str]:
    """Return KCDP's scores on the target and, below them, those of its baselines, a line each."""
    scores = metrics["target"].get("test")
    if not scores:
        return [
            "The target has no labels, so there is nothing to score; predictions.jsonl has the "
            "predictions."
        ]
    about = f"on {scores['n']} labelled target pictures"
    lines = [f"{about:<34}{'macro-F1':>9}  {'95% interval':<15}{'balanced accuracy':>17}"]
    for name, entry in {"KCDP": scores, **metrics["baselines"]}.items():
        interval = "[{:.3f}, {:.3f}]".format(*entry["macro_f1_interval"])
        lines.append(
            f"{name.replace('_', ' '):<34}{entry['macro_f1']:>9.3f}  "
            f"{interval:<15}{entry['balanced_accuracy']:>17.3f}"
        )
    return lines


def verdict_lines(metrics: dict) -> list[str]:
    """Return what the table means, and how KCDP compares with the best of its baselines."""
    if not metrics["baselines"]:
        return []
    best = max(metrics["baselines"], key=lambda name: metrics["baselines"][name]["macro_f1"])
    difference = metrics["differences"][best]
    (low, high), name = difference["macro_f1_interval"], best.replace("_", " ")
    if low > 0:
        verdict = f"KCDP is better than every baseline, the best of which is {name!r}"
    elif high < 0:
        verdict = f"the baseline {name!r} is better than KCDP"
    else:
        verdict = f"KCDP and the best baseline, {name!r}, cannot be told apart"
    return [
        "(macro-F1: the mean of the classes' F1, from 0 to 1; chapter 5 explains the baselines)",
        f"{verdict}: KCDP minus it {difference['macro_f1']:+.3f} [{low:+.3f}, {high:+.3f}]",
    ]


def few_lines(metrics: dict) -> list[str]:
    """Return a warning if the target has few pictures to adapt to or to be scored on."""
    adapted, scored = metrics["target"]["pictures"], metrics["target"].get("test", {}).get("n", FEW)
    warnings = (
        (adapted, "to adapt to: their averages, and what is learned from them, are uncertain"),
        (scored, "are scored: the intervals are too wide for small differences"),
    )
    return [f"only {n} target picture{'s' * (n != 1)} {what}" for n, what in warnings if n < FEW]


def shares_lines(target: dict) -> list[str]:
    """Return a line on how close the predictions are to the pictures' shares, [] without shares."""
    if not (scores := target.get("distribution")):
        return []
    return [
        "KCDP, from the shares of {n} target pictures: Jensen-Shannon divergence "
        "{js_divergence:.3f} [{js_divergence_interval[0]:.3f}, {js_divergence_interval[1]:.3f}], "
        "calibration error {calibration_error:.3f}".format_map(scores)
    ]


def unfamiliar_lines(target: dict) -> list[str]:
    """Return a line that counts target pictures the frozen models do not know, [] if unknown."""
    if not (counts := target.get("unfamiliar")):
        return []
    mistrust = "; mistrust their answers (familiarity in predictions.jsonl)" * bool(counts["n"])
    return [
        f"{counts['n']} of {counts['of']} target pictures are unlike anything the stack was "
        f"trained on{mistrust}"
    ]


def data_lines(data: dict) -> list[str]:
    """Return what was left out of source and target, by reason, and the notes on the data."""
    lines = []
    for side, splits in data.items():
        for split, counts in splits.items():
            if reasons := counts["left_out"]:
                left_out = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
                lines.append(f"{side}, {split}: left out {left_out}")
            lines += [f"{side}: {note}" for note in counts["notes"]]
    return list(dict.fromkeys(lines))


def finished_table(folder: Path) -> str:
    """Return the table of a finished run.

    Raises KCDPError if the folder holds no finished run, or one of another version.
    """
    try:
        return table(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        why = first_line(error)
    except (LookupError, TypeError, AttributeError):
        why = "its metrics.json is of another version"
    raise KCDPError(
        f"{folder} does not hold a finished run ({why}); give the folder of one, or make it by "
        "--config FILE."
    )


def read_config(path: Path) -> Config:
    """Read a run's parameters from a YAML file.

    Parameters that are texts keep their spelling: YAML would read `precision: no` as False and
    `out_dir: 2024-05-01` as a date. Raises KCDPError if the file cannot be read, or if a name is
    not a parameter or occurs twice.
    """
    try:
        entries = list(yaml_entries(path.expanduser().read_bytes()))
    except OSError as error:
        raise KCDPError(f"{path} cannot be read ({error.strerror}); give a YAML file.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise KCDPError(
            f"{path} cannot be read as YAML ({first_line(error)}); write one parameter a line, "
            'such as "target: stickers".'
        ) from error
    parameters: dict[str, Any] = {}
    for name, written, value in entries:
        if name in parameters:
            raise KCDPError(f"{name!r} is set twice in {path}; write it once.")
        parameters[name] = value if value is None or not takes_text(name) else written
    return with_parameters(Config(), parameters, f" in {path}")


def yaml_entries(content: bytes) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, value as written and value as YAML reads it, for each entry of a mapping.

    An empty file has no entries. Raises ValueError if the document is not a mapping.
    """
    loader = yaml.SafeLoader(content)
    document = loader.get_single_node()
    if document is None:
        return
    if not isinstance(document, yaml.MappingNode):
        raise ValueError("it holds no parameters")
    for key, node in document.value:
        written = node.value if isinstance(node, yaml.ScalarNode) else None
        is_date = node.tag == "tag:yaml.org,2002:timestamp"  # 2024-02-30 would be an error
        value = written if is_date else loader.construct_object(node, deep=True)
        yield str(key.value), value if written is None else written, value


# `main` imports torch only to make a run, so that printing one is quick.
def main() -> None:
    """Print a run, check it beforehand, or make it and then print it."""
    parser = argparse.ArgumentParser(
        prog="python -m kcdp_lib.adapt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", nargs="?", type=Path, help="a finished run, to print")
    parser.add_argument("--config", type=Path, metavar="FILE", help="parameters of a run to make")
    parser.add_argument(
        "--check",
        action="store_true",
        help="do not make the run, say what is missing or what it will cost",
    )
    given = parser.parse_args()
    if (given.run_dir is None) == (given.config is None):
        parser.error("give the folder of a finished run, or --config FILE to make one.")
    if given.check and not given.config:
        parser.error("--check needs --config FILE.")
    if given.run_dir:
        print(finished_table(given.run_dir))
    elif given.check:
        from kcdp_lib.adapt.preflight import preflight

        lines, is_ready = preflight(read_config(given.config))
        print("\n".join(lines))
        sys.exit(None if is_ready else "Not everything is there: see above.")
    else:
        from accelerate import PartialState

        from kcdp_lib.adapt.run import adapt

        metrics = adapt(read_config(given.config))
        if PartialState().is_main_process:
            print(table(metrics))


if __name__ == "__main__":
    with command():
        main()
