"""The scripts of benchmarks/ still run with the present library.

Sizes are cut so that each takes seconds; only numbers that every machine reproduces are checked.
"""

import importlib
import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
from test_downloads import coca

from kcdp_book import results
from kcdp_book.compare import CRITERIA
from kcdp_lib import KCDPError, paths, precompute
from kcdp_lib.adapt.peers import PEERS
from kcdp_lib.config import PRESETS

FOLDER = paths.ROOT / "benchmarks"
PICTURES = 2  # per batch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    """Let scripts import one another, as when they are run."""
    monkeypatch.syspath_prepend(str(FOLDER))


# ---------------------------------------------------------------- all scripts


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.py")))
def test_every_script_can_be_imported_and_says_what_it_is(name):
    assert len(importlib.import_module(name).__doc__) > 100


@pytest.mark.parametrize(
    "name, words, sentence",
    [
        ("cost", ["--help"], "PRESET"),
        ("cost", ["huge"], "there is no preset 'huge' here; choose among sd15, tiny"),
        ("cost", ["tiny", "--one", "nothing"], "invalid choice: 'nothing'"),
        ("grid", [], "Name a grid: switches, gain, develop"),
        ("grid", ["nothing"], "Name a grid"),
        (
            "world",
            ["nothing"],
            "There is no part 'nothing'; choose among speed, captions, causes, pictures",
        ),
    ],
)
def test_arguments_are_read(name, words, sentence, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [f"{name}.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert sentence in f"{ended.value.code} {''.join(capsys.readouterr())}"


# ---------------------------------------------------------------- scripts that measure time


@pytest.mark.parametrize(
    "way", ["released", "released_bf16", "paper", "paper_bf16_pieces", "once", "predict"]
)
def test_a_way_is_timed(way, monkeypatch):
    cost = importlib.import_module("cost")
    monkeypatch.setitem(cost.BATCH, "tiny", PICTURES)
    found = cost.measure("tiny", way, "cpu")
    assert (
        all(seconds > 0 for seconds in found["seconds"].values())
        and found["peak_bytes"] > 1e8
        and f"| tiny | {way} |" in cost.table({"tiny": {way: found}})
    )
    assert ("trained" in found) == (way not in ("once", "predict")) and set(found["seconds"]) >= {
        "released": {"vae", "text"},
        "once": {"captions"},
    }.get(way.split("_")[0], set())


def test_every_way_of_the_committed_table_is_known():
    cost = importlib.import_module("cost")
    assert {
        way
        for ways in json.loads((results.FOLDER / "cost.json").read_text()).values()
        for way in ways
    } <= set(cost.WAYS)


def test_the_script_for_a_gpu_is_rehearsed(tmp_path, capsys):
    """All that agrees on a GPU agrees here, and parts skipped for lack of time are reported."""
    gpu = importlib.import_module("gpu")
    assert gpu.main(["--small", "--minutes", "0.1", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert len(report["lines"]) == 4 and all(one["ok"] for one in report["lines"])
    assert report["lines"][2]["found"] > 0, "bfloat16 differs"
    printed = capsys.readouterr().out
    assert "golden" in printed and "no time for released" in printed


def test_the_script_for_a_gpu_can_say_no(tmp_path, monkeypatch, capsys):
    gpu = importlib.import_module("gpu")
    monkeypatch.setitem(gpu.ALLOWED, "bf16", 0.0)
    monkeypatch.setattr(gpu, "golden", lambda device: 1 / 0)
    assert gpu.main(["--small", "--minutes", "0.1", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "WRONG" in printed and "ZeroDivisionError" in printed


def test_steps_are_timed(monkeypatch):
    step = importlib.import_module("step")
    monkeypatch.setattr(step, "PRESET", replace(step.PRESET, batch_size=PICTURES))
    found = step.measure(rounds=1)
    assert (
        found["seconds"].keys()
        == found["ratio"].keys()
        == json.loads((results.FOLDER / "step.json").read_text())["seconds"].keys()
        and found["ratio"]["paper"] == 1
    )


def test_the_full_size_stack_is_written_as_it_is_loaded(monkeypatch, tmp_path):
    """Write the same files from narrower layers, with the true vocabulary size."""
    full_size, width = importlib.import_module("full_size"), 32
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS,
        "coca_ViT-L-14",
        coca(tmp_path / "unused", tmp_path / "scratch"),
    )
    monkeypatch.setattr(
        full_size, "VAE", full_size.VAE | {"block_out_channels": (width,) * 4, "sample_size": 64}
    )
    monkeypatch.setattr(
        full_size,
        "UNET",
        full_size.UNET
        | {"block_out_channels": (width,) * 4, "cross_attention_dim": width, "sample_size": 8},
    )
    monkeypatch.setattr(
        full_size,
        "TEXT",
        full_size.TEXT
        | {
            "hidden_size": width,
            "intermediate_size": width,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
    )
    preset = full_size.random_preset()
    foundations = precompute.load_foundations(preset)
    assert (
        len(foundations.text_encoder.tokenizer) == 49408
        and foundations.vae.config.latent_channels == 4
        and Path(preset.diffusion, "unet", "diffusion_pytorch_model.fp16.safetensors").is_file()
    )
    assert (
        preset
        == replace(PRESETS["sd15"], diffusion=preset.diffusion, vlm=preset.vlm, vlm_pretrained=None)
        == full_size.random_preset()
    ), "the second time nothing is written"


# ---------------------------------------------------------------- the grids


def test_every_job_of_a_grid_can_be_started_and_is_there_once():
    """Every job has valid parameters, a known method and a file of its own.

    Seeds and targets used to choose the recipe are not reported on.
    """
    grid = importlib.import_module("grid")
    for name, jobs in grid.GRIDS.items():
        assert len({job.file for job in jobs}) == len(jobs), name
        assert all(
            job.config.switches
            and job.method
            in (
                "kcdp",
                "baselines",
                "untrained",
                "standardised_probe",
                "cesa",
                "controls",
                "eye",
                "fine_tuned",
                "source_only",
                "oracle",
                *PEERS,
            )
            for job in jobs
        ), name
    seeds, targets = (
        {name: {getattr(job, field) for job in jobs} for name, jobs in grid.GRIDS.items()}
        for field in ("seed", "target")
    )
    assert all(
        not (seeds["develop"] & seeds[name] or targets["develop"] & targets[name])
        for name in ("compare", "adapters")
    )
    assert importlib.import_module("jobs").CHOICE in CRITERIA


@pytest.mark.parametrize(
    "criterion, taken, accuracy", [("certainty", (1.0, 1), 0), ("agreement", (0.3, 2), 1)]
)
def test_a_candidate_is_chosen_without_labels_and_its_answers_on_the_test_are_scored(
    monkeypatch, criterion, taken, accuracy
):
    """Two weights, two epochs. By certainty, a candidate that is always wrong is chosen."""
    jobs, labels = importlib.import_module("jobs"), np.arange(12) % 6
    answers = {
        (0.3, 1): np.full((12, 6), 1 / 6),
        (0.3, 2): np.eye(6)[labels] * 0.7 + 0.05,
        (1.0, 1): np.eye(6)[(labels + 1) % 6],
        (1.0, 2): np.eye(6)[labels] * 0.4 + 0.1,
    }

    def learn(config, variant, source, target, checkpoint, device, weight, look):
        assert variant == "mcc" and source == "teacher"
        for epoch in (1, 2):
            look((weight, epoch), epoch)

    job = jobs.Job("mcc", 100, "best, trained=heads", "sketches", weights=(0.3, 1.0))
    target, source_test, target_test = (
        SimpleNamespace(labels=None),
        SimpleNamespace(labels=labels, shares=None),
        SimpleNamespace(labels=labels, shares=None),
    )
    monkeypatch.setattr(jobs, "CHOICE", criterion)
    monkeypatch.setattr(jobs, "learn", learn)
    monkeypatch.setattr(jobs, "frozen_for", lambda variant, pictures, config, device: pictures)
    monkeypatch.setattr(
        jobs,
        "evaluate",
        lambda model, frozen, domain="target": (
            answers[model] if (frozen is source_test) == (domain == "source") else None
        ),
    )
    found = jobs.chosen(job, "mcc", "teacher", target, source_test, target_test)
    assert [(row["weight"], row["epoch"]) for row in found["candidates"]] == list(answers)
    assert (
        [row["macro_f1"] for row in found["candidates"]][1:]
        == [row["validation"] for row in found["candidates"]][1:]
        == [1, 0, 1]
    )
    best = max(found["candidates"], key=lambda row: row[criterion])
    assert (best["weight"], best["epoch"]) == taken and found["target.test"]["accuracy"] == accuracy
    assert (
        found["target.test"]["predicted"] == "".join(map(str, answers[taken].argmax(1)))
        and found["target.test"]["labels"] == "012345" * 2
    )
    assert found["target.test"]["calibration_error"] == pytest.approx(
        abs(accuracy - answers[taken].max())
    )


# ---------------------------------------------------------------- scripts that count


def test_the_rules_read_the_captions_as_the_committed_results_say(monkeypatch, tmp_path, capsys):
    triplets = importlib.import_module("triplets")
    committed = json.loads((results.FOLDER / "triplets.json").read_text())
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    triplets.main("en_no_such_model")
    measured = json.loads((tmp_path / "triplets.json").read_text())
    assert measured["parsers"] == {"rules": committed["parsers"]["rules"]}
    assert all(measured[name] == committed[name] for name in ("captions", "triplets"))
    assert "en_no_such_model is not installed" in capsys.readouterr().out


def test_what_can_be_said_of_the_world_is_classified(monkeypatch):
    world = importlib.import_module("world")
    monkeypatch.setattr(
        world, "SCENES", {"train": (0, 300), "validation": (300, 500), "test": (500, 700)}
    )
    monkeypatch.setattr(world.world, "BENCHMARK", ("photos",))
    assert 0.1 < world.ceilings("captions")["photos"]["macro_f1"] < 1


# ---------------------------------------------------------------- code that computes the same


@pytest.fixture()
def same(tmp_path, monkeypatch):
    """Return benchmarks/same.py with two jobs of a grid that have lines of code "earlier"."""
    same = importlib.import_module("same")
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "code_now", lambda: "now")
    monkeypatch.setattr(results, "of_these_weights", lambda row: True)
    jobs = [same.grid.Job("kcdp", seed, recipe) for recipe in ("paper", "best") for seed in (0, 1)]
    rows = [
        {
            "method": "kcdp",
            **job.about(),
            "code": "earlier",
            "seconds": 9 - job.seed,
            "metrics": {"target.test": {"macro_f1": 0.5}},
        }
        for job in jobs
    ]
    monkeypatch.setattr(same.grid, "GRIDS", {"some": jobs})
    monkeypatch.setattr(results, "grids", lambda: ["some"])
    monkeypatch.setattr(results, "read", lambda name: rows)
    (tmp_path / "same.json").write_text("{}")
    results.first_alike.cache_clear()
    yield same
    results.first_alike.cache_clear()


def computing(score: float, ran: list):
    """Return a stand-in for `grid.run` that scores every job alike."""

    def run(job):
        ran.append((job.recipe, job.seed))
        return {"kcdp": {"target.test": {"macro_f1": score}}}

    return run


def test_code_that_computes_the_same_is_recorded(same, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(same.grid, "run", computing(0.5, ran))
    same.main()
    assert ran == [("paper", 0), ("best", 0)]  # one of each recipe
    shown = results.benchmark("same")["now"]
    assert (shown["as"], shown["exact"], shown["largest"]) == ("earlier", 2, 0)
    assert "2 of 2 jobs run again, 2 to the last digit" in capsys.readouterr().out
    results.first_alike.cache_clear()
    same.main()
    assert len(ran) == 2 and "computes the same" in capsys.readouterr().out


def test_code_that_rounds_otherwise_is_recorded_with_its_difference(same, monkeypatch):
    monkeypatch.setattr(same.grid, "run", computing(0.502, []))
    same.main()
    shown = results.benchmark("same")["now"]
    assert (shown["exact"], shown["largest"]) == (0, 0.002)


def test_code_that_computes_something_else_is_not(same, monkeypatch, capsys):
    monkeypatch.setattr(same.grid, "run", computing(0.51, []))
    same.main()
    assert results.benchmark("same") == {} and "moved by 0.0100" in capsys.readouterr().out


# ---------------------------------------------------------------- captions judged by a person


def test_captions_of_sets_that_were_left_out_are_judged_by_hand(tmp_path, monkeypatch, capsys):
    by_hand = importlib.import_module("by_hand")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(by_hand, "COUNT", 30)
    monkeypatch.setattr(by_hand, "preset_of", lambda folder: PRESETS["tiny"])
    (tmp_path / "pretraining.json").write_text(json.dumps({"without": ["micah", "fxemoji", "x"]}))
    by_hand.draw(tmp_path, tmp_path / "sheets")
    drawn = results.benchmark("by_hand")
    assert len(list((tmp_path / "sheets").glob("*.png"))) == 2
    assert {row["set"] for row in drawn["captions"]} == {"micah", "fxemoji"}
    assert len({(row["set"], row["concept"]) for row in drawn["captions"]}) > 20
    assert not any("right" in row for row in drawn["captions"])
    monkeypatch.setattr(results, "code_now", lambda: "of another day")
    by_hand.judge([3, 7, 7])
    assert results.benchmark("by_hand")["code"] == drawn["code"] != "of another day"
    judged = results.benchmark("by_hand")["captions"]
    assert [number for number, row in enumerate(judged) if not row["right"]] == [3, 7]
    assert capsys.readouterr().out == "93% of 30 captions name the right expression\n"
    with pytest.raises(KCDPError, match="There is no caption 30"):
        by_hand.judge([30])
