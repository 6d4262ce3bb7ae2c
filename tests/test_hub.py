"""Models from the hub are read, and their results cached, at the commit that their name gives."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from blank import blank_preset, blank_writer
from safetensors.torch import load_file

from kcdp_lib import KCDPError, knowledge, latents, paths, perception, precompute, vision_language
from kcdp_lib.config import PRESETS, RECIPES, how_to_get
from kcdp_lib.loading import stack_key
from kcdp_lib.writer import load_writer

MEANT, LATEST = "a1" * 20, "b2" * 20
NAME = "some/model"
PINNED, NEWER = (f"{NAME}@{commit}" for commit in (MEANT, LATEST))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a function that fills the hub's cache as two downloads would.

    It holds a repository at the pinned commit and at the latest one.
    """
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
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_every_hub_id_of_a_preset_has_its_commit():
    names = [
        name
        for preset in PRESETS.values()
        for name in (preset.diffusion, preset.vlm_pretrained, preset.writer)
        if name and not Path(name).is_dir()
    ]
    assert len(set(names)) == 5 and all(paths.at_revision(name)[1] for name in names)


@pytest.mark.parametrize(
    "name",
    [
        "some/model",
        "/a/folder",
        "local-dir:/a/folder",
        "folder",
        f"/a/folder@{MEANT}",
        "some/model@main",
        f"some/model@{MEANT[:7]}",
    ],
)
def test_folders_and_names_alone_have_no_commit(name):
    assert paths.at_revision(name) == (name, None)


def test_the_pipeline_is_that_of_its_commit(hub):
    mine, other = blank_preset(), blank_preset(seed=1)
    _, latest = hub(mine.diffusion, other.diffusion)
    shutil.rmtree(latest / "tokenizer")
    pinned, newer = replace(mine, diffusion=PINNED), replace(mine, diffusion=NEWER)
    for load in (perception.load_unet, latents.load_vae):
        assert (
            same(load(pinned), load(mine))
            and same(load(newer), load(other))
            and not same(load(mine), load(other))
        )
    assert (
        same(knowledge.load_text_encoder(pinned).model, knowledge.load_text_encoder(mine).model)
        and len(knowledge.load_text_encoder(pinned).tokenizer) == 1007
    )


def test_the_writer_is_that_of_its_commit(hub):
    _, latest = hub(blank_writer(), blank_writer())
    (latest / "model.safetensors").write_bytes(b"")
    (latest / "processor_config.json").unlink()
    assert same(load_writer(PINNED).model, load_writer(str(blank_writer())).model)


@pytest.mark.parametrize("folder", [NAME, PINNED])
def test_a_folder_named_like_a_hub_id_does_not_take_its_place(folder, hub, tmp_path, monkeypatch):
    """The libraries alone would silently read such a folder in the working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    mine, other = blank_preset(), blank_preset(seed=1)
    pinned = replace(mine, diffusion=PINNED, vlm="coca_ViT-L-14", vlm_pretrained=PINNED)
    keys, stack = precompute.frozen_keys(pinned, RECIPES["paper"]), stack_key(pinned)
    shutil.copytree(other.diffusion, folder)
    shutil.copytree(other.vlm.removeprefix("local-dir:"), folder, dirs_exist_ok=True)
    for load in (
        perception.load_unet,
        latents.load_vae,
        knowledge.load_text_encoder,
        vision_language.load_vlm,
        lambda preset: load_writer(preset.diffusion),
    ):
        with pytest.raises(
            KCDPError, match="could not be loaded .it is not in the hub's cache, .*; download it by"
        ):
            load(pinned)
    hub(mine.diffusion, other.diffusion)
    assert same(perception.load_unet(pinned), perception.load_unet(mine))
    assert (precompute.frozen_keys(pinned, RECIPES["paper"]), stack_key(pinned)) == (keys, stack)


def test_a_hub_id_without_commit_is_a_folder(hub):
    hub(blank_preset().diffusion, blank_preset().diffusion)
    with pytest.raises(
        KCDPError,
        match=(
            f"The unet of {NAME} could not be loaded .there is no folder {NAME}.; give a folder .* "
            "or a hub id at its commit, ORG/NAME@HASH"
        ),
    ):
        perception.load_unet(replace(blank_preset(), diffusion=NAME))


# ---------------------------------------------------------------- a CoCa by its architecture


@pytest.fixture
def coca(hub, monkeypatch):
    """Return a preset with a CoCa that open_clip knows by its architecture, and its two folders.

    Like the full-size one, it uses open_clip's own tokenizer.
    """
    folder, other = (blank_preset(seed).vlm.removeprefix("local-dir:") for seed in (0, 1))
    with open(f"{folder}/open_clip_config.json") as file:
        architecture = json.load(file)["model_cfg"]
    architecture["text_cfg"].pop("hf_tokenizer_name")
    # That tokenizer has more words than the blank model, so no feelings can be embedded.
    monkeypatch.setattr(vision_language, "_class_centres", lambda vlm, words: torch.empty(0))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "blank", architecture)
    return replace(blank_preset(), vlm="blank", vlm_pretrained=PINNED), *hub(folder, other)


def test_the_coca_is_that_of_its_commit(coca):
    preset, *_ = coca
    vlm, newer = (
        vision_language.load_vlm(preset),
        vision_language.load_vlm(replace(preset, vlm_pretrained=NEWER)),
    )
    assert same(vlm.model, vision_language.load_vlm(blank_preset()).model) and not same(
        vlm.model, newer.model
    )
    assert (vlm.start, vlm.end) == (49406, 49407), "the words of open_clip's own tokenizer"


def test_a_coca_is_read_from_safetensors_under_either_name_and_from_no_pickle(coca):
    preset, folder, _ = coca
    ours, theirs, pickle = (
        folder / "open_clip_model.safetensors",
        folder / "open_clip_pytorch_model.safetensors",
        folder / "open_clip_pytorch_model.bin",
    )
    torch.save(load_file(ours), pickle)
    ours.rename(theirs)  # its name in the full-size CoCa's repository, beside the pickle
    for found in (preset, replace(preset, vlm=f"local-dir:{folder}", vlm_pretrained=None)):
        assert same(
            vision_language.load_vlm(found).model, vision_language.load_vlm(blank_preset()).model
        )
    theirs.unlink()
    with pytest.raises(
        KCDPError,
        match=(
            f"The vision-language model blank could not be loaded .there is no {ours.name} and no "
            f"{theirs.name}.; download it by `hf download {NAME} --revision {MEANT}`"
        ),
    ):
        vision_language.load_vlm(preset)


# ---------------------------------------------------------------- keys and commands


@pytest.mark.parametrize(
    "part, changed",
    [
        ("diffusion", {"latents", "tokens"}),
        ("vlm_pretrained", {"captions", "tokens"}),
        ("writer", {"captions", "tokens"}),
    ],
)
def test_another_commit_is_another_key(part, changed):
    meant, latest = (
        replace(PRESETS["sd15-instructblip"], **{part: f"{NAME}@{commit}"})
        for commit in (MEANT, LATEST)
    )
    keys = [precompute.frozen_keys(preset, RECIPES["paper"]) for preset in (meant, latest)]
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == changed and stack_key(
        meant
    ) != stack_key(latest)


def test_where_missing_weights_come_from():
    assert "make pretrain" in how_to_get(PRESETS["tiny"].vlm) and "make pretrain" in how_to_get(
        PRESETS["tiny"].diffusion
    )
    assert how_to_get(PINNED) == f"download it by `hf download some/model --revision {MEANT}`"
    assert all(
        "folder" in how_to_get(name)
        for name in (
            NAME,
            "/a/folder/of/mine",
            "/models/sd15",
            "local-dir:/models/coca",
            "local-dir:models/coca",
        )
    )
