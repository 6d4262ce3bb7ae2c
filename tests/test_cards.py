"""The cards agree with the records, and the hub's own reader understands them."""

import json
import re
from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt

from kcdp_book import cards as shipped
from kcdp_book import results
from kcdp_lib import cards, paths
from kcdp_lib.config import Config
from kcdp_lib.pretrain import packages

# Entries of the hub's lists that these cards may use.
LICENSES, LIBRARIES, TASKS = (
    {"apache-2.0", "creativeml-openrail-m"},
    {"diffusers", "kcdp_lib"},
    {"image-classification", "image-to-text", "text-to-image"},
)
RECORDS = (
    (paths.TINY / "pretraining.json", results.FOLDER / "miniatures.json"),
    (results.FOLDER / "world.json",),
)
FOUND = {
    "source": {"pictures": 1200},
    "target": {
        "pictures": 62,
        "transductive": True,
        "test": {
            "macro_f1": 0.453,
            "macro_f1_interval": [0.42, 0.487],
            "balanced_accuracy": 0.473,
            "balanced_accuracy_interval": [0.44, 0.5],
            "accuracy": 0.55,
            "accuracy_interval": [0.52, 0.58],
        },
    },
}


def read(text: str, kind=ModelCard):
    """Parse a card with the hub's reader.

    Its fields have the right kinds, and the reader knows all of them.
    """
    card = kind(text)
    about = card.data.to_dict()
    assert set(about) <= set(
        vars(kind.card_data_class(model_name="x") if kind is ModelCard else kind.card_data_class())
    ) | {"model-index", "tags"}
    assert about["license"] in LICENSES and about.get("library_name", "kcdp_lib") in LIBRARIES
    assert {about.get("pipeline_tag"), *about.get("task_categories", [])} - {None} <= TASKS
    return card


@pytest.mark.parametrize("path", shipped.SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_cards_are_what_the_records_give(path):
    assert path.read_text(encoding="utf-8") == shipped.SHIPPED[path](), (
        "run `python -m kcdp_book.cards`"
    )


@pytest.mark.parametrize(
    "path, kind",
    [*zip(shipped.SHIPPED, (ModelCard, DatasetCard), strict=True)],
    ids=("miniatures", "world"),
)
def test_the_hubs_reader_understands_them(path, kind):
    assert read(path.read_text(encoding="utf-8"), kind).text.strip().startswith("<!-- the card -->")


def test_every_score_of_the_cards_stands_in_a_record():
    """Check without the generator that every decimal in a table of scores occurs in the records."""
    for path, records in zip(shipped.SHIPPED, RECORDS, strict=True):
        known = {
            str(value) for record in records for value in numbers(json.loads(record.read_text()))
        }
        before, _, after = path.read_text(encoding="utf-8").partition(
            "Domains differ"
        )  # what the world's domains show comes from the program, not from a record
        rows = re.findall(
            r"^\|.*\|$", before + after[after.find("What a classifier") :], re.MULTILINE
        )
        versions = {one.version for one in packages.PACKAGES}
        rows = [row for row in rows if not any(f" {version} |" in row for version in versions)]
        scores = set(re.findall(r"\d+\.\d+", "\n".join(rows)))
        assert scores and not scores - known, f"{path}: {scores - known}"


def numbers(tree) -> list:
    """Return all numbers in nested JSON."""
    if isinstance(tree, (dict, list)):
        return [
            found
            for part in (tree.values() if isinstance(tree, dict) else tree)
            for found in numbers(part)
        ]
    return [tree] if isinstance(tree, (int, float)) else []


def test_a_runs_card_holds_its_scores_and_what_it_stands_on():
    card = read(cards.of_run(Config(), FOUND, "abc"))
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        "macro-F1": 0.453,
        "balanced accuracy": 0.473,
        "accuracy": 0.55,
    }
    assert (
        card.data.model_name == "kcdp-photos-stickers"
        and card.data.base_model is None
        and "(transductive)" in card.text
        and "commit abc" in card.text
    )
    large = read(
        cards.of_run(
            replace(Config(), preset="sd15", setting="uc"),
            {**FOUND, "target": {"pictures": 62, "transductive": False}},
            None,
        )
    )
    assert (
        len(large.data.base_model) == 2
        and large.data.license == "creativeml-openrail-m"
        and "nothing was scored" in large.text
        and "no picture of the target" in large.text
    )


def test_a_runs_card_shows_no_folder_of_this_machine(tmp_path):
    text = cards.of_run(replace(Config(), target=str(tmp_path / "mine")), FOUND, None)
    assert "mine" in text and str(tmp_path) not in text


def test_a_folders_name_is_no_markup(tmp_path):
    """Neither a heading nor a table interprets it, and the hub's reader gets it unchanged."""
    name = "a|b_c_ `d` <e> $f$ [g](h)"
    card = read(cards.of_run(replace(Config(), target=str(tmp_path / name)), FOUND, None))
    assert card.data.model_name == f"kcdp-photos-{name}"
    tokens = MarkdownIt().enable("table").parse(card.text)
    heading = next(token for token in tokens if token.type == "inline")
    assert {token.type for token in heading.children} <= {"text", "text_special"}
    assert heading.children and "".join(t.content for t in heading.children).endswith(name)
    assert cards.plain_markdown("one\ntwo \udcff") == r"one\\ntwo \\udcff"
    assert len(cards.plain_markdown("l" * 300)) == 80


def test_a_table_keeps_its_columns_whatever_a_name_holds():
    text = cards.table(("Name", "Pictures"), [(cards.plain_markdown("a|b\n|"), 3)])
    tokens = MarkdownIt().enable("table").parse(text)
    assert sum(token.type == "td_open" for token in tokens) == 2
