"""Cache keys depend on everything that affects a result, and on nothing else."""

import shutil
from dataclasses import dataclass, fields, replace

import pytest

from kcdp_lib import keys
from kcdp_lib.config import PRESETS, RECIPES, Config, Preset, Recipe, of_stage, switch_values
from kcdp_lib.keys import STAGES, modules_of, stage_code, stage_key
from kcdp_lib.paths import PACKAGE

TINY, PAPER, RUN = PRESETS["tiny"], RECIPES["paper"], Config()


def with_later(*stages: str) -> set[str]:
    """Return the stages and all that read their results."""
    reached = set(stages)
    for name, stage in STAGES.items():
        if reached & set(stage.after):
            reached.add(name)
    return reached


def changed_keys(recipe: Recipe = PAPER, preset: Preset = TINY, config: Config = RUN) -> set:
    """Return the stages whose key changes with this recipe, preset or config."""
    before = {stage: stage_key(stage, TINY, PAPER, Config()) for stage in STAGES}
    after = {stage: stage_key(stage, preset, recipe, config) for stage in STAGES}
    return {stage for stage in STAGES if before[stage] != after[stage]}


@pytest.mark.parametrize("kind", [Preset, Recipe, Config])
def test_every_setting_says_which_stages_read_it(kind):
    for setting in fields(kind):
        assert set(setting.metadata["stages"]) <= STAGES.keys(), setting.name


def test_a_setting_that_does_not_say_so_has_no_key():
    @dataclass(frozen=True)
    class Wider(Recipe):
        colour: str = "red"

    settings = {setting.name: getattr(PAPER, setting.name) for setting in fields(PAPER)}
    with pytest.raises(KeyError):
        stage_key("tokens", TINY, Wider(**settings))


@pytest.mark.parametrize("switch", switch_values())
def test_a_switch_changes_the_keys_of_its_stages_and_of_those_after(switch):
    other = next(value for value in switch_values()[switch] if value != getattr(PAPER, switch))
    stages = {field.name: field.metadata["stages"] for field in fields(Recipe)}[switch]
    assert stages and changed_keys(replace(PAPER, **{switch: other})) == with_later(*stages)


def test_numbers_of_the_preset_and_the_run_change_what_reads_them():
    assert changed_keys(preset=replace(TINY, learning_rate=1.0)) == with_later("training")
    assert changed_keys(preset=replace(TINY, image_size=96)) == set(STAGES)
    assert changed_keys(config=Config(seed=1)) == with_later("training")
    assert not changed_keys(config=Config(target="noto", out_dir="elsewhere"))
    assert not changed_keys(replace(PAPER, name="paper, balance=load"))


def test_a_stage_that_reads_two_settings_of_one_value_keeps_them_apart():
    """Values are kept by name, so exchanging two of them gives another key."""
    one = replace(PAPER, latent_scaling=True, shuffled=False)
    other = replace(PAPER, latent_scaling=False, shuffled=True)
    assert stage_key("training", TINY, one) != stage_key("training", TINY, other)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Compute keys from a copy of the package's code, and yield its folder."""
    copy = tmp_path / "kcdp_lib"
    ignored = shutil.ignore_patterns("models", "noto", "art", "__pycache__")
    shutil.copytree(PACKAGE, copy, ignore=ignored)
    monkeypatch.setattr(keys, "PACKAGE", copy)
    stage_code.cache_clear()
    yield copy
    stage_code.cache_clear()


def codes() -> dict[str, str]:
    stage_code.cache_clear()
    return {stage: stage_code(stage) for stage in STAGES}


def test_the_code_of_every_home_is_in_the_keys_of_its_stages(package):
    before = codes()
    assert before == {stage: codes()[stage] for stage in STAGES}
    for stage, (homes, _) in STAGES.items():
        for home in homes:
            file = package.joinpath(*home.split(".")).with_suffix(".py")
            source = file.read_text(encoding="utf-8")
            file.write_text(source + "\nNEW = 1\n", encoding="utf-8")
            assert codes()[stage] != before[stage], (stage, home)
            file.write_text(source + "\n# nothing new\n", encoding="utf-8")
            assert codes() == before
            file.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    "file, stages",
    [
        ("triplets.py", {"tokens", "training"}),
        ("towers.py", {"captions", "training"}),
        ("counterfactuals.py", {"training"}),
        ("adapt/peers.py", {"training"}),
        ("figures.py", set()),
        ("datasets/layouts.py", set()),
        ("config.py", set()),
        ("world/render.py", set()),
    ],
)
def test_what_is_imported_counts_and_what_enters_by_its_value_does_not(package, file, stages):
    before = codes()
    path = package / file
    path.write_text(path.read_text(encoding="utf-8") + "\nNEW = 1\n", encoding="utf-8")
    assert {stage for stage in STAGES if codes()[stage] != before[stage]} == stages


def test_every_module_that_computes_is_in_some_key():
    """The list names what no stage reaches, so that a new module must be assigned."""
    reached = {file for stage in STAGES.values() for file in modules_of(*stage.homes)}
    files = {file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"}
    outside = {file.relative_to(PACKAGE).as_posix() for file in files - reached}
    drawing = {name for name in outside if name.startswith(("world/", "pretrain/"))}
    assert outside - drawing == {
        "adapt/__main__.py",
        "adapt/folder.py",
        "adapt/preflight.py",
        "adapt/record.py",
        "adapt/run.py",
        "cards.py",
        "checkout.py",
        "command.py",
        "config.py",
        "datasets/folders.py",
        "datasets/index.py",
        "datasets/layouts.py",
        "datasets/words.py",
        "errors.py",
        "figures.py",
        "keys.py",
        "machine.py",
        "paths.py",
    }


def test_a_field_is_declared_with_its_stages():
    @dataclass(frozen=True)
    class Made:
        width: int = of_stage("maps", default=3)

    assert fields(Made)[0].metadata == {"stages": ("maps",), "model": False} and Made().width == 3
