"""Models from the hub: each is read at the commit that its name gives, and what is computed by it is kept under that commit."""
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from blank import blank_preset, blank_writer
from safetensors.torch import load_file, save_file

from kcdp_lib import KCDPError, knowledge, paths, perception
from kcdp_lib.adapt.model import stack_key
from kcdp_lib.config import PRESETS, RECIPES
from kcdp_lib.writer import load_writer

MEANT, LATEST = "a1" * 20, "b2" * 20
NAME = "some/model"
PINNED = f"{NAME}@{MEANT}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that fills the hub's cache, as two downloads leave it: a repository's folder at the commit that is meant, and another at the latest."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--model"

    def put(meant, latest):
        shutil.copytree(meant, repository / "snapshots" / MEANT)
        shutil.copytree(latest, repository / "snapshots" / LATEST)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(LATEST)
        return repository / "snapshots" / MEANT, repository / "snapshots" / LATEST
    return put


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_every_hub_id_of_a_preset_has_its_commit():
    names = [name for preset in PRESETS.values() for name in (preset.diffusion, preset.vlm_pretrained, preset.writer) if name and not Path(name).is_dir()]
    assert len(set(names)) == 3 and all(paths.at_revision(name)[1] for name in names)


@pytest.mark.parametrize("name", ["some/model", "/a/folder", "local-dir:/a/folder", "folder", f"/a/folder@{MEANT}", "some/model@main", f"some/model@{MEANT[:7]}"])
def test_folders_and_names_alone_have_no_commit(name):
    assert paths.at_revision(name) == (name, None)


def test_the_pipeline_is_that_of_its_commit(hub):
    mine, other = blank_preset(), blank_preset(seed=1)
    _, latest = hub(mine.diffusion, other.diffusion)
    shutil.rmtree(latest / "tokenizer")
    pinned, loose = replace(mine, diffusion=PINNED), replace(mine, diffusion=NAME)
    for load in (perception.load_unet, perception.load_vae):
        assert same(load(pinned), load(mine)) and same(load(loose), load(other)) and not same(load(mine), load(other))
    assert same(knowledge.load_text_encoder(pinned).model, knowledge.load_text_encoder(mine).model) and len(knowledge.load_text_encoder(pinned).tokenizer) == 1007


def test_the_writer_is_that_of_its_commit(hub):
    _, latest = hub(blank_writer(), blank_writer())
    (latest / "model.safetensors").write_bytes(b"")
    (latest / "processor_config.json").unlink()
    assert same(load_writer(PINNED).model, load_writer(str(blank_writer())).model)


# ---------------------------------------------------------------- a CoCa by its architecture

class Trap:
    """Runs code where it is unpickled: it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.fixture
def coca(hub, monkeypatch):
    """The blank CoCa as an architecture that open_clip knows, with its own tokenizer, as the full-size one has; a preset that names it, and its two folders."""
    folder, other = (blank_preset(seed).vlm.removeprefix("local-dir:") for seed in (0, 1))
    with open(f"{folder}/open_clip_config.json") as file:
        architecture = json.load(file)["model_cfg"]
    architecture["text_cfg"].pop("hf_tokenizer_name")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "blank", architecture)
    return replace(blank_preset(), vlm="blank", vlm_pretrained=PINNED), *hub(folder, other)


def test_the_coca_is_that_of_its_commit(coca):
    preset, *_ = coca
    vlm, loose = knowledge.load_vlm(preset), knowledge.load_vlm(replace(preset, vlm_pretrained=NAME))
    assert same(vlm.model, knowledge.load_vlm(blank_preset()).model) and not same(vlm.model, loose.model)
    assert (vlm.start, vlm.end) == (49406, 49407), "the words of open_clip's own tokenizer"


def test_a_coca_that_is_only_a_pickle_gives_its_tensors_and_runs_nothing(coca, tmp_path, monkeypatch):
    """The one pickle that is read: of the full-size CoCa no safetensors are known."""
    monkeypatch.chdir(tmp_path)
    preset, folder, _ = coca
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    assert same(knowledge.load_vlm(preset).model, knowledge.load_vlm(blank_preset()).model)
    torch.save({**state, "trap": Trap()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(KCDPError, match=f"The vision-language model blank could not be loaded .*; download it by `hf download {NAME} --revision {MEANT}`") as told:
        knowledge.load_vlm(preset)
    assert "\n" not in str(told.value) and not (tmp_path / "sprung").exists()
    save_file(state, folder / "open_clip_model.safetensors")
    assert same(knowledge.load_vlm(preset).model, knowledge.load_vlm(blank_preset()).model), "safetensors go first"


# ---------------------------------------------------------------- keys and commands

@pytest.mark.parametrize("part, changed", [("diffusion", {"latents", "tokens"}), ("vlm_pretrained", {"captions", "tokens"}), ("writer", {"captions", "tokens"})])
def test_another_commit_is_another_key(part, changed):
    meant, latest = (replace(PRESETS["sd15-instructblip"], **{part: f"{NAME}@{commit}"}) for commit in (MEANT, LATEST))
    keys = [knowledge.frozen_keys(preset, RECIPES["paper"]) for preset in (meant, latest)]
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == changed and stack_key(meant) != stack_key(latest)


def test_where_missing_weights_come_from():
    assert "make pretrain" in paths.how_to_get(PRESETS["tiny"].vlm) and "make pretrain" in paths.how_to_get(PRESETS["tiny"].diffusion)
    assert paths.how_to_get(NAME) == "download it by `hf download some/model`"
    assert paths.how_to_get(PINNED) == f"download it by `hf download some/model --revision {MEANT}`"
    assert all("folder" in paths.how_to_get(name) for name in ("/a/folder/of/mine", "/models/sd15", "local-dir:/models/coca", "local-dir:models/coca"))
