"""Committed results are complete for this world and these miniatures, and are read correctly."""

import importlib
import json
import math
import re
import sys
from dataclasses import asdict

import pytest

from kcdp_book import results
from kcdp_lib import world
from kcdp_lib.config import RECIPES, SWITCHES, Config
from kcdp_lib.loading import stack_key
from kcdp_lib.paths import ROOT
from kcdp_lib.pretrain.task import KNOWLEDGE


def test_every_switch_was_measured_with_two_seeds():
    rows = results.read("switches")
    assert len({row["stack"] for row in rows}) == 1
    wanted = [
        "paper",
        "released",
        *(f"paper, {switch}={getattr(RECIPES['released'], switch)}" for switch in SWITCHES),
    ]
    lacking = [
        (recipe, seed)
        for recipe in wanted
        for seed in (0, 1)
        if seed not in results.macro_f1(rows, "kcdp", recipe)
    ]
    assert not lacking
    assert all(
        {
            "method",
            "recipe",
            "source",
            "target",
            "setting",
            "seed",
            "world",
            "stack",
            "metrics",
            "commit",
        }
        <= row.keys()
        for row in rows
    )


def test_effects_compare_runs_of_one_seed():
    def row(recipe, seed, score):
        return {
            "method": "kcdp",
            "recipe": recipe,
            "seed": seed,
            "metrics": {"target.test": {"macro_f1": score}, "source.test": {"macro_f1": score**2}},
        }

    rows = [
        row("paper", 0, 0.5),
        row("paper", 1, 0.7),
        row("paper, balance=rank_std", 1, 0.6),
        row("paper, balance=rank_std", 0, 0.55),
        row("released", 0, 0.1),
        {**row("paper", 0, 0.9), "method": "source_only"},
    ]
    effects = results.switch_effects(rows)
    assert effects.keys() == {"balance", "all"}
    assert effects["balance"] == pytest.approx([0.05, -0.1]) and effects["all"] == pytest.approx(
        [-0.4]
    )
    assert results.switch_effects(rows, "source.test")["all"] == pytest.approx([0.01 - 0.25])


def line(method, seed, score, target="stickers", **dials):
    return {
        "method": method,
        "recipe": "paper",
        "seed": seed,
        "target": target,
        "dials": {**asdict(world.Dials()), **dials},
        "metrics": {"target.test": {"macro_f1": score}},
    }


def test_gains_are_differences_of_one_seed_and_one_target():
    rows = [
        line("kcdp", 0, 0.7),
        line("kcdp", 1, 0.8),
        line("source_only", 1, 0.5),
        line("source_only", 0, 0.6),
        line("kcdp", 0, 0.3, "noto"),
        line("source_only", 0, 0.1, "noto"),
        line("oracle", 0, 0.9),
    ]
    found = results.gains(rows)
    assert found["source_only"] == pytest.approx([0.1, 0.3]) and found["oracle"] == pytest.approx(
        [-0.2]
    )
    assert results.gains(rows, "noto") == {"source_only": pytest.approx([0.2])}


def test_the_way_to_the_oracle():
    rows = [
        line("kcdp", 0, 0.6),
        line("kcdp", 1, 0.8),
        line("source_only_no_knowledge", 0, 0.1),
        line("oracle", 0, 0.9),
    ]
    assert results.way_to_oracle(rows) == pytest.approx(0.75)


def test_the_interval_of_a_mean_is_students():
    assert results.interval([1.0, 2.0, 3.0]) == pytest.approx(
        (2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5
    )
    assert results.interval([0.5, 0.5]) == (0.5, 0.5)


def test_a_run_with_all_dials_as_usual_is_in_every_sweep_but_one_with_two_turned_in_none():
    rows = [
        line("kcdp", 0, 0.7),
        line("kcdp", 0, 0.6, style_gap=0.5),
        line("kcdp", 1, 0.8, style_gap=0.5),
        line("kcdp", 0, 0.5, style_gap=0.5, event_gap=0.5),
        line("kcdp", 0, 0.9, **dict.fromkeys(results.GAPS, 0.0)),
    ]
    found = results.dial_curves(rows)
    assert found["style_gap"] == {0.5: {"kcdp": pytest.approx(0.7)}, 1.0: {"kcdp": 0.7}}
    assert found["spurious"] == {0.0: {"kcdp": 0.7}} and found["prior_shift"] == {
        0.7: {"kcdp": 0.7}
    }
    assert found["all gaps"] == {0.0: {"kcdp": 0.9}}


@pytest.fixture(scope="module")
def grid():
    """Return benchmarks/grid.py as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))  # where its scripts find one another
    yield importlib.import_module("grid")
    sys.path.pop(0)


@pytest.mark.parametrize("name", sorted({*results.grids()} - {"role"}))
def test_a_grid_that_the_book_quotes_is_complete(grid, name):
    """`role` is left out: pages read its lines of single pairs, and others are still to run."""
    rows = results.read(name)
    assert not [job for job in grid.GRIDS[name] if not grid.is_done(job, rows)]


def test_a_job_is_done_by_one_process(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(grid.paths, "CACHE", tmp_path)
    first, second = grid.GRIDS["gain"][:2]
    with grid.claim(first) as mine, grid.claim(first) as theirs, grid.claim(second) as another:
        assert (mine, theirs, another) == (True, False, True)
    with grid.claim(first) as again:
        assert again


def test_a_grid_knows_what_is_done(grid):
    """Every job has its own line in the results, and a written line is not run again."""
    for jobs in grid.GRIDS.values():
        assert len({json.dumps([job.method, job.about()]) for job in jobs}) == len(jobs)
        assert all(world.read_dials(job.config.dials) == job.dials for job in jobs)
        first = {
            "method": grid.FIRST.get(jobs[0].method, jobs[0].method),
            **jobs[0].about(),
            "seconds": 1.0,
        }
        assert [job for job in jobs if grid.is_done(job, [first])] == [jobs[0]]


def test_the_standard_error_pools_the_scatter_of_all_entries():
    assert results.standard_error({"a": [0.1, 0.3], "b": [-0.2, 0.0]}) == pytest.approx(0.1)
    assert results.standard_error({"a": [0.1, 0.1], "b": [0.5, 0.5]}) == 0


def test_runs_of_another_world_or_other_weights_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "world_key", lambda: "here")
    monkeypatch.setattr(results, "stack_key", lambda preset: "these")
    rows = [
        {"world": "here", "stack": "these", "seed": 0, "metrics": {}},
        {"world": "there", "stack": "these", "seed": 1, "metrics": {}},
        {"world": "here", "stack": "others", "seed": 2, "metrics": {}},
    ]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["seed"] for row in results.read("some")] == [0] and results.read("none") == []


def test_until_a_grid_has_run_on_new_weights_the_last_ones_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "world_key", lambda: "here")
    monkeypatch.setattr(results, "stack_key", lambda preset: "new")
    monkeypatch.setattr(results, "code_now", lambda: "now")

    def line(seed, stack):
        return {"world": "here", "stack": stack, "seed": seed, "code": "now", "metrics": {}}

    def write(*rows):
        (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return results.read("some")

    before = [line(0, "first"), line(0, "second"), line(1, "second")]
    shown = write(*before)
    assert shown == before[1:] and results.of_this_code(shown) == []
    assert results.of_other_code(shown) == shown
    assert results.standing(["some"]).startswith(
        "The miniature models of an earlier version made 2"
    )
    assert write(*before, line(0, "new")) == [line(0, "new")]


def test_of_one_run_the_last_line_counts_and_the_present_codes_before_others(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "world_key", lambda: "here")
    monkeypatch.setattr(results, "stack_key", lambda preset: "these")
    monkeypatch.setattr(results, "code_now", lambda: "now")

    def line(seed, number, **code):
        metrics = {"number": number}
        return {"world": "here", "stack": "these", "seed": seed, "metrics": metrics, **code}

    lines = [line(0, 1), line(1, 2, code="now"), line(0, 3, code="old"), line(1, 4, code="old")]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    rows = results.read("some")
    assert [(row["seed"], row["metrics"]["number"]) for row in rows] == [(0, 3), (1, 2)]
    assert results.of_this_code(rows) == [rows[1]] and results.of_other_code(rows) == [rows[0]]
    assert results.standing(["some"]).startswith("Earlier code made 1 of the 2 lines")
    assert results.standing(["none"]) == ""
    (tmp_path / "some.jsonl").write_text(json.dumps(line(1, 2, code="now")) + "\n")
    assert results.standing(["some"]).startswith("The code of this page made all")


def test_one_seed_has_no_interval():
    assert all(map(math.isnan, results.interval([0.5])))


def test_lines_of_code_that_computes_the_same_are_present(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "stack_key", lambda preset: "these")
    monkeypatch.setattr(results, "code_now", lambda: "third")
    results.first_alike.cache_clear()
    shown = {"second": {"as": "first"}, "third": {"as": "second"}}
    (tmp_path / "same.json").write_text(json.dumps(shown))
    rows = [{"stack": "these", "code": code} for code in ("first", "second", "third", "other")]
    rows += [{"stack": "these"}, {"stack": "others", "code": "first"}]
    assert results.of_this_code(rows) == rows[:3] and results.of_other_code(rows) == rows[3:]
    monkeypatch.setattr(results, "read", lambda name: rows[:3])
    assert results.standing(["some"]).startswith(
        "Code equal to this page's, but for rounding, made"
    )
    monkeypatch.setattr(results, "read", lambda name: rows[2:3])
    assert results.standing(["some"]).startswith("The code of this page made all 1 lines")
    results.first_alike.cache_clear()


def test_a_page_names_the_records_that_other_code_made(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "code_now", lambda: "now")
    results.first_alike.cache_clear()
    results.write("whole", {"seconds": 1})
    present = results.benchmark("whole")
    assert present["seconds"] == 1 and present["code"] == "now" and present["commit"]
    pieces = {"tiny": {"step": {**present}, "once": {**present, "code": "old"}}}
    runs = [present, {**present, "stack": "of other weights"}]
    unsaid = {"pictures": 3}
    for name, record in {"pieces": pieces, "runs": runs, "unsaid": unsaid}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert len(results.makers("pieces")) == len(results.makers("runs")) == 2
    assert results.makers("unsaid") == [unsaid]
    assert results.measured_earlier(["whole"]) == results.measured_earlier([]) == ""
    told = results.measured_earlier(["pieces", "runs", "unsaid", "whole"])
    assert told.endswith("which: pieces.json, runs.json, unsaid.json.")
    results.first_alike.cache_clear()


def test_the_committed_record_of_such_code_has_no_circle():
    shown = results.benchmark("same")
    assert all(results.first_alike(code) not in shown for code in shown)
    assert all(entry["jobs"] > 50 for entry in shown.values())


def test_the_code_of_a_line_is_that_of_all_stages(monkeypatch):
    before = results.code_now()
    results.code_now.cache_clear()
    monkeypatch.setattr(results, "results_code", lambda: "other code")
    assert re.fullmatch("[0-9a-f]{16}", before) and results.code_now() != before
    results.code_now.cache_clear()


def test_a_step_from_the_caches_is_twice_as_fast_as_one_without():
    """Read the committed measurement; `python benchmarks/step.py` makes it anew.

    A test that measures here would fail on a busy machine.
    """
    step = results.benchmark("step")
    assert step["ratio"]["released"] >= 2 and step["ratio"]["paper"] == 1
    assert {
        name: round(seconds / step["seconds"]["paper"], 1)
        for name, seconds in step["seconds"].items()
    } == {name: round(ratio, 1) for name, ratio in step["ratio"].items()}


def test_the_world_is_the_one_that_was_frozen():
    """Frozen by hash: if a drawing changes, all that ran on the world must be measured again.

    Begin with `python benchmarks/world.py`.
    """
    assert results.benchmark("world")["world"] == world.world_key()


def test_each_kind_of_knowledge_was_measured_on_this_world_and_these_miniatures():
    found = results.benchmark("knowledge")
    assert found["world"] == world.world_key() and found["stack"] == stack_key(Config().sizes)
    assert {"sentence encoder", *KNOWLEDGE} == set(found["knowledge"])


def test_the_frozen_world_leaves_something_to_the_eye_and_hides_nothing_from_it():
    found = results.benchmark("world")
    assert found["captions"]["stickers"]["macro_f1"] < 0.85
    assert min(found["causes"][domain]["macro_f1"] for domain in world.BENCHMARK) >= 0.93
    for rows in found["pictures"].values():
        assert all(
            0 <= score <= 1 for row in rows.values() for scores in row.values() for score in scores
        )
        assert max(rows["photos"]["stickers"]) < min(
            rows["stickers"]["stickers"]
        )  # the source model is below the oracle: a gap to close


def test_costs_are_all_there_and_of_one_machine():
    """The page on costs shows every way of both presets, measured on one machine.

    The paper recipe trains less than the released one and needs less memory.
    """
    cost = results.benchmark("cost")
    assert {name: set(ways) for name, ways in cost.items()} == dict.fromkeys(
        ("sd15", "tiny"),
        {
            "released",
            "released_bf16",
            "paper",
            "paper_bf16",
            "paper_saving",
            "paper_bf16_saving",
            "paper_pieces",
            "paper_bf16_pieces",
            "once",
            "predict",
        },
    )
    assert len({entry["machine"] for ways in cost.values() for entry in ways.values()}) == 1
    for ways in cost.values():
        assert all(
            entry["seconds"].get("step", 0)
            == pytest.approx(
                sum(value for stage, value in entry["seconds"].items() if stage != "step"), rel=0.1
            )
            for way, entry in ways.items()
            if "trained" in entry
        )
        assert (
            ways["paper"]["trained"] < ways["released"]["trained"]
            and ways["paper"]["peak_bytes"] < ways["released"]["peak_bytes"]
        )
