"""Card of a run's model, in the Hugging Face hub's form (chapter "Cards").

The texts are Jinja templates beside the code that fills them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard_data import CardData
from jinja2 import Environment, StrictUndefined

from kcdp_lib.config import PRESETS, Config, of_hub
from kcdp_lib.errors import printable
from kcdp_lib.paths import PACKAGE

LONGEST_NAME = 80  # characters of a user-given name in a card
TAGS = ["emotion-recognition", "domain-adaptation", "stickers", "kcdp"]
SHOWN = {
    "macro_f1": ("f1", "macro-F1"),
    "balanced_accuracy": ("balanced_accuracy", "balanced accuracy"),
    "accuracy": ("accuracy", "accuracy"),
}  # name in metrics.json: the hub's name, and ours
PAPER = (
    "[Knowledge-Aligned Counterfactual-Enhancement Diffusion "
    "Perception](https://arxiv.org/abs/2505.19694) (CVPR 2025)"
)
NOT_FOR_PEOPLE = (
    "Not for judging people: a picture does not contain an emotion, and the label is what a "
    "picture is taken to express. See the chapter on responsibility of the book."
)


def rendered(template: Path, data: CardData, **values: Any) -> str:
    """Return a card: its fields as YAML front matter, then the template filled with the values.

    The book's page includes the card from the mark between them onwards.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {"table": table, "PAPER": PAPER, "NOT_FOR_PEOPLE": NOT_FOR_PEOPLE}
    text = environment.from_string(template.read_text(encoding="utf-8")).render(**values)
    return f"---\n{data}\n---\n\n<!-- the card -->\n\n{text.strip()}\n"


def table(head: Sequence, rows: Sequence[Sequence]) -> str:
    """Return a Markdown table."""
    return "\n".join(
        "| " + " | ".join(map(str, row)) + " |" for row in [head, ("---",) * len(head), *rows]
    )


def plain_markdown(text: str) -> str:
    """Return any text as one line of Markdown that shows it literally, also inside a table."""
    text = " ".join(printable(text).split())
    text = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    return re.sub(r"[]\\`*_{}\[<>#|~&$^]", r"\\\g<0>", text)


def of_run(config: Config, found: dict, commit: str | None) -> str:
    """Return the card of a run's saved model, from the content of metrics.json (chapter 05).

    Paths of folders are cut to their last part, because a card is made to be shown.
    """
    source, target = map(printable, config.names)
    scores = found["target"].get("test")
    stands_on = [hub for hub, _ in of_hub(PRESETS[config.preset]).values()]
    data = ModelCardData(
        model_name=f"kcdp-{source}-{target}",
        license="creativeml-openrail-m" if stands_on else "apache-2.0",
        library_name="kcdp_lib",
        pipeline_tag="image-classification",
        tags=TAGS,
        base_model=stands_on or None,
        eval_results=eval_results(target, scores) if scores else None,
    )
    return rendered(
        PACKAGE / "card.md.jinja",
        data,
        source=plain_markdown(source),
        target=plain_markdown(target),
        found=found,
        config=config,
        commit=commit or "unknown",
        scores=score_rows(scores) if scores else None,
    )


def eval_results(target: str, scores: dict) -> list[EvalResult]:
    """Return the scores on the target in the hub's form."""
    return [
        EvalResult(
            *("image-classification", target, target, kind, round(scores[name], 6)),
            dataset_split="test",
            metric_name=ours,
        )
        for name, (kind, ours) in SHOWN.items()
    ]


def score_rows(scores: dict) -> list[tuple[str, str, str]]:
    """Return name, value and 95% interval of the scores that a card shows."""
    interval = "[{:.3f}, {:.3f}]"
    return [
        (ours, f"{scores[name]:.3f}", interval.format(*scores[f"{name}_interval"]))
        for name, (_, ours) in SHOWN.items()
    ]
