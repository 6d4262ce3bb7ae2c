"""`python -m kcdp_lib.adapt RUN_DIR`: print the scores of a finished run, as `make adapt` does at its end."""
import json
import sys
from pathlib import Path


def table(metrics: dict) -> str:
    """The target's scores beside the baselines', one line each; a sentence where the target has no labels."""
    pseudo, lines = metrics["pseudo_labels"], []
    if "test" in metrics["target"]:
        lines.append(f"{'on ' + str(metrics['target']['test']['n']) + ' labelled target pictures':<34}{'macro-F1':>9}  {'95% interval':<15}{'balanced accuracy':>17}")
        for name, entry in {"KCDP": metrics["target"]["test"], **metrics["baselines"]}.items():
            low, high = entry["macro_f1_interval"]
            lines.append(f"{name.replace('_', ' '):<34}{entry['macro_f1']:>9.3f}  {f'[{low:.3f}, {high:.3f}]':<15}{entry['balanced_accuracy']:>17.3f}")
    else:
        lines.append("The target has no labels, so there is nothing to score; predictions.jsonl has the predictions.")
    if pseudo["n"]:
        checked = "" if pseudo["accuracy"] is None else f", {pseudo['accuracy']:.0%} of them right"
        lines.append(f"pseudo-labels for {pseudo['coverage']:.0%} of {pseudo['n']} target pictures{checked}")
    seconds = metrics["provenance"]["wall_seconds"]
    lines.append(f"{seconds / 60:.1f} minutes, {metrics['provenance']['peak_memory_bytes'] / 1e9:.1f} GB of memory")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads((Path(sys.argv[1]) / "metrics.json").read_text())))
