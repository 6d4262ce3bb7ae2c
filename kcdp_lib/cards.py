"""The card of a run's model, in the Hugging Face hub's form (chapter "Cards")."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard_data import CardData

from kcdp_lib.config import PRESETS, Config, of_hub

TAGS = ["emotion-recognition", "domain-adaptation", "stickers", "kcdp"]
SHOWN = {
    "macro_f1": ("f1", "macro-F1"),
    "balanced_accuracy": ("balanced_accuracy", "balanced accuracy"),
    "accuracy": ("accuracy", "accuracy"),
}  # of metrics.json: the hub's name, and ours
PAPER = (
    "[Knowledge-Aligned Counterfactual-Enhancement Diffusion "
    "Perception](https://arxiv.org/abs/2505.19694) (CVPR 2025)"
)
NOT_FOR_PEOPLE = (
    "Not for judging people: a picture does not contain an emotion, and the label is what a "
    "picture is taken to express. See the chapter on responsibility of the book."
)


def written(data: CardData, text: str) -> str:
    """A card: its fields as YAML between two rules, then its text.

    The mark between them is where the book's page begins to include it.
    """
    return f"---\n{data}\n---\n\n<!-- the card -->\n\n{text.strip()}\n"


def table(head: tuple, rows: list[tuple]) -> str:
    """A Markdown table."""
    return "\n".join(
        "| " + " | ".join(map(str, row)) + " |" for row in [head, ("---",) * len(head), *rows]
    )


def of_run(config: Config, found: dict, commit: str | None) -> str:
    """The card of a run's saved model, from what metrics.json will hold (chapter 05).

    Names of folders are cut to their last part: a card is made to be shown.
    """
    source, target = Path(config.source).name, Path(config.target).name
    scores = found["target"].get("test")
    stands_on = [hub for hub, _ in of_hub(PRESETS[config.preset]).values()]
    measured = scores and [
        EvalResult(
            "image-classification",
            target,
            target,
            kind,
            round(scores[name], 6),
            dataset_split="test",
            metric_name=ours,
        )
        for name, (kind, ours) in SHOWN.items()
    ]
    data = ModelCardData(
        model_name=f"kcdp-{source}-{target}",
        license="creativeml-openrail-m" if stands_on else "apache-2.0",
        library_name="kcdp_lib",
        pipeline_tag="image-classification",
        tags=TAGS,
        base_model=stands_on or None,
        eval_results=measured or None,
    )
    lines = (
        table(
            ("Score", "On the target's test pictures", "95% interval"),
            [
                (
                    ours,
                    f"{scores[name]:.3f}",
                    "[{:.3f}, {:.3f}]".format(*scores[f"{name}_interval"]),
                )
                for name, (_, ours) in SHOWN.items()
            ],
        )
        if scores
        else "The target has no labels: nothing was scored."
    )
    seen = (
        "no picture of the target"
        if config.setting == "uc"
        else f"{found['target']['pictures']} pictures of {target} without their labels"
    )
    tested = (
        " The test pictures are among them (transductive)."
        if found["target"]["transductive"]
        else ""
    )
    return written(
        data,
        f"""
# KCDP from {source} to {target}

A model that tells which of {len(config.classes)} emotions a picture is taken to express ({", ".join(config.classes)}), by the method of {PAPER}.
Only what was trained is here: `model.safetensors`. `config.json` names the frozen models it stands on, preset `{config.preset}`, recipe `{config.recipe}`.

```python
import kcdp_lib

model = kcdp_lib.KCDP.from_pretrained(FOLDER)
model.predict(["picture.png"]).labels
```

## Training

Taught by {found["source"]["pictures"]} labelled pictures of {source}; {seen} were seen.{tested} {config.run_epochs} epochs, seed {config.seed}, commit {commit or "unknown"}.

## Evaluation

{lines}

Baselines on the same features, and everything else that was measured, are in the run's `metrics.json`.

## Use and limits

For stickers, drawings and photos as works of somebody. {NOT_FOR_PEOPLE}
The licence is that of what it stands on; those of the pictures it was taught by may ask for more.
""",
    )
