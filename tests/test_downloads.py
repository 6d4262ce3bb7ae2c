"""Models in folders, as `hf download ORG/NAME --local-dir DIR/ORG/NAME` leaves them.

They are small, in the files of the full-size preset's repositories.
"""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from blank import blank_preset, blank_writer
from huggingface_hub.cli import hf
from huggingface_hub.utils import filter_repo_objects
from PIL import Image

from kcdp_lib import (
    KCDP,
    KCDPError,
    config,
    knowledge,
    latents,
    perception,
    precompute,
    vision_language,
)
from kcdp_lib.adapt import preflight
from kcdp_lib.config import PRESETS, RECIPES, Config, how_to_get, in_folder
from kcdp_lib.loading import stack_key
from kcdp_lib.pretrain import stack
from kcdp_lib.writer import load_writer

FULL = PRESETS["sd15-instructblip"]
SD, COCA, BLIP = (
    config.of_hub(FULL)[part][0] for part in ("diffusion", "vlm_pretrained", "writer")
)
# File names in the repositories; those in `OTHERS` are not read.
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "safety_checker": "model",
}
OTHERS = {
    SD: [
        ".gitattributes",
        "README.md",
        "model_index.json",
        "v1-inference.yaml",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "v1-5-pruned-emaonly.ckpt",
        "v1-5-pruned-emaonly.safetensors",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
        "safety_checker/config.json",
        "safety_checker/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        *(
            f"{part}/{name}{end}"
            for part, name in WEIGHTS.items()
            for end in (".safetensors", ".bin", ".fp16.bin")
        ),
    ],
    COCA: [".gitattributes", "README.md", "open_clip_config.json", "open_clip_pytorch_model.bin"],
    BLIP: ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
}


def diffusion(folder: Path) -> None:
    """Write the blank pipeline with fp16 weights and a tokenizer of words and merges."""
    for part in ("unet", "vae", "text_encoder"):
        (folder / part).mkdir(parents=True)
        shutil.copy(f"{blank_preset().diffusion}/{part}/config.json", folder / part)
        shutil.copy(
            f"{blank_preset().diffusion}/{part}/{WEIGHTS[part]}.safetensors",
            folder / part / f"{WEIGHTS[part]}.fp16.safetensors",
        )
    shutil.copytree(
        f"{blank_preset().diffusion}/tokenizer",
        folder / "tokenizer",
        ignore=shutil.ignore_patterns("tokenizer.json"),
    )


def coca(folder: Path, scratch: Path) -> dict:
    """Write the blank CoCa with open_clip's own vocabulary; return its architecture."""
    about = json.loads(
        Path(blank_preset().vlm.removeprefix("local-dir:"), "open_clip_config.json").read_text()
    )
    architecture = about["model_cfg"]
    architecture["text_cfg"].pop("hf_tokenizer_name")
    architecture["text_cfg"]["vocab_size"] = architecture["multimodal_cfg"]["vocab_size"] = 49408
    (scratch / "vlm").mkdir(parents=True)
    (scratch / "vlm" / "open_clip_config.json").write_text(json.dumps(about))
    torch.manual_seed(0)
    stack.save_coca(stack.new_coca(scratch), scratch)
    folder.mkdir(parents=True)
    shutil.move(
        scratch / "vlm" / "open_clip_model.safetensors",
        folder / "open_clip_pytorch_model.safetensors",
    )
    return architecture


def instructblip(folder: Path) -> None:
    """Write the blank InstructBLIP with its weights in several files."""
    shutil.copytree(blank_writer(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    load_writer(str(blank_writer())).model.save_pretrained(folder, max_shard_size="50KB")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    """Write the three repositories below DIR as ORG/NAME, and register `small`.

    This preset takes from the hub what the full-size one does.
    """
    folder = tmp_path_factory.mktemp("repositories")
    diffusion(folder / SD)
    architecture = coca(folder / COCA, tmp_path_factory.mktemp("coca"))
    instructblip(folder / BLIP)
    for hub, files in OTHERS.items():
        for file in files:
            (folder / hub / file).parent.mkdir(exist_ok=True)
            (folder / hub / file).write_bytes(b"no model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "coca_small", architecture)
        patch.setitem(
            PRESETS,
            "small",
            replace(
                FULL,
                name="small",
                vlm="coca_small",
                parser="rules",
                image_size=64,
                batch_size=4,
                epochs=1,
                fpn_channels=8,
                expert_channels=8,
                lora_rank=2,
            ),
        )
        yield folder


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Create a folder of twelve labelled pictures."""
    for i in range(12):
        folder = tmp_path / "pictures" / ("happiness", "sadness")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (20 * i, 100, 5 * i)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


# ---------------------------------------------------------------- loading


def test_names_become_folders_and_the_rest_stays():
    moved = in_folder(FULL, "/models")
    assert (moved.diffusion, moved.vlm, moved.vlm_pretrained, moved.writer) == (
        f"/models/{SD}",
        FULL.vlm,
        f"/models/{COCA}",
        f"/models/{BLIP}",
    )
    assert (
        replace(
            moved, diffusion=FULL.diffusion, vlm_pretrained=FULL.vlm_pretrained, writer=FULL.writer
        )
        == FULL
    )
    assert (
        in_folder(FULL, None) is FULL and in_folder(PRESETS["tiny"], "/models") == PRESETS["tiny"]
    ), "nothing of tiny is from the hub"


def test_every_model_is_loaded_from_its_folder(repositories):
    preset = Config(preset="small", models=str(repositories)).check().sizes
    for load in (perception.load_unet, latents.load_vae):
        assert same(load(preset), load(blank_preset()))
    found = precompute.load_foundations(preset)
    assert (
        same(found.text_encoder.model, knowledge.load_text_encoder(blank_preset()).model)
        and len(found.text_encoder.tokenizer) == 1007
    )
    assert same(found.writer.model, load_writer(str(blank_writer())).model)
    written = precompute.describe(
        torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), found, RECIPES["paper"]
    )
    assert len(written.captions) == 2 and written.tokens.shape[0] == 2


def test_content_counts_and_not_the_place(repositories, tmp_path):
    """Neither another folder nor the times that `hf download` notes change the key.

    A changed file does, and a model in the hub's cache is keyed by its commit.
    """
    moved = tmp_path / "elsewhere"
    shutil.copytree(repositories, moved)
    keys = [
        (precompute.frozen_keys(preset, RECIPES["paper"]), stack_key(preset))
        for preset in (
            in_folder(PRESETS["small"], repositories),
            in_folder(PRESETS["small"], moved),
        )
    ]
    assert keys[0] == keys[1] and keys[0][1] != stack_key(PRESETS["small"])
    (moved / COCA / ".cache" / "huggingface").mkdir(parents=True)
    (moved / COCA / ".cache" / "huggingface" / "open_clip_config.json.metadata").write_text(
        "some day"
    )
    assert stack_key(in_folder(PRESETS["small"], moved)) == keys[0][1]
    for hub, changed in (
        (SD, {"latents", "tokens"}),
        (COCA, {"captions", "tokens"}),
        (BLIP, {"captions", "tokens"}),
    ):
        before = precompute.frozen_keys(in_folder(PRESETS["small"], moved), RECIPES["paper"])
        (moved / hub / "config.json").write_text("{}")
        after = precompute.frozen_keys(in_folder(PRESETS["small"], moved), RECIPES["paper"])
        assert {name for name in after if after[name] != before[name]} == changed, hub


def test_a_saved_model_is_loaded_with_its_models(repositories, tmp_path, pictures):
    torch.manual_seed(0)
    files = sorted(pictures.rglob("*.png"))[:3]
    model = KCDP(in_folder(PRESETS["small"], repositories), RECIPES["paper"]).eval()
    model.save_pretrained(tmp_path / "model")
    again = KCDP.from_pretrained(tmp_path / "model", models=repositories)
    assert (again.predict(files).probs == model.predict(files).probs).all()
    for elsewhere in ({}, {"models": tmp_path}):
        with pytest.raises(
            KCDPError,
            match=(
                "was trained on other weights of preset small than those here; .*give `models` as "
                "its run did"
            ),
        ):
            KCDP.from_pretrained(tmp_path / "model", **elsewhere)


# ---------------------------------------------------------------- what is missing


def test_a_missing_folder_is_named_with_the_command_that_fills_it(tmp_path):
    lacking = in_folder(FULL, tmp_path / "my models")
    for load, hub in (
        (perception.load_unet, SD),
        (latents.load_vae, SD),
        (knowledge.load_text_encoder, SD),
        (vision_language.load_vlm, COCA),
        (lambda preset: load_writer(preset.writer), BLIP),
    ):
        with pytest.raises(KCDPError) as told:
            load(lacking)
        folder = tmp_path / "my models" / hub
        assert f"there is no folder {folder}" in str(told.value) and how_to_get(str(folder)) in str(
            told.value
        )
        assert f"`hf download {hub} --revision " in str(
            told.value
        ) and f" --local-dir '{folder}'`" in str(told.value)


def test_a_missing_file_is_named_with_the_command_too(repositories, tmp_path):
    shutil.copytree(repositories / SD, tmp_path / SD)
    (tmp_path / SD / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(
        KCDPError,
        match=(
            f"The unet of .*{SD} could not be loaded .*diffusion_pytorch_model.*; download it by "
            f"`hf download {SD} .*--local-dir"
        ),
    ):
        perception.load_unet(in_folder(PRESETS["small"], tmp_path))


def test_the_check_before_a_run_knows_the_folder(repositories, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("kcdp_lib.adapt.preflight.STEPS", 2)
    settings = Config(
        source=str(pictures), target=str(pictures), preset="small", models=str(repositories)
    )
    lines, ready = preflight.preflight(settings)
    assert ready and lines[0] == "weights: all there"
    (tmp_path / "empty").mkdir()
    lines, ready = preflight.preflight(replace(settings, models=str(tmp_path / "empty")))
    assert not ready and [line.split(":")[0] for line in lines] == [
        "UNet",
        "VAE",
        "text encoder",
        "VLM",
        "writer",
    ]
    assert all(f"--local-dir {tmp_path / 'empty'}/" in line for line in lines)
    lines, ready = preflight.preflight(replace(settings, models=str(tmp_path / "nowhere")))
    assert (
        not ready
        and len(lines) == 6
        and "models='" in lines[-1]
        and "is not a folder; give the folder that holds the downloaded models" in lines[-1]
    )


# ---------------------------------------------------------------- the command


@pytest.fixture
def downloaded(repositories, tmp_path, monkeypatch) -> Path:
    """Fill an empty folder by the commands that the error messages give.

    `hf` itself parses their options and selects the files, which come from the repositories.
    """

    def snapshot_download(repo_id, revision, allow_patterns, ignore_patterns, local_dir, **_):
        assert f"{repo_id}@{revision}" in (FULL.diffusion, FULL.vlm_pretrained, FULL.writer)
        files = [
            file.relative_to(repositories / repo_id).as_posix()
            for file in (repositories / repo_id).rglob("*")
            if file.is_file()
        ]
        for file in filter_repo_objects(
            files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            Path(local_dir, file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repositories / repo_id / file, Path(local_dir, file))
        return local_dir

    monkeypatch.setattr("huggingface_hub.cli.download.snapshot_download", snapshot_download)
    folder = tmp_path / "my models"
    for hub in (SD, COCA, BLIP):
        command = re.fullmatch("download it by `hf (.*)`", how_to_get(str(folder / hub)))[1]
        hf.app.main(args=shlex.split(command), standalone_mode=False)
    return folder


def test_the_commands_fetch_what_is_read_and_leave_the_rest(downloaded):
    there = {
        hub: sorted(
            file.relative_to(downloaded / hub).as_posix()
            for file in (downloaded / hub).rglob("*")
            if file.is_file()
        )
        for hub in (SD, COCA, BLIP)
    }
    assert there[SD] == [
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert there[COCA] == ["open_clip_pytorch_model.safetensors"]
    assert "model.safetensors.index.json" in there[BLIP] and not any(
        file.endswith(".bin") for file in there[BLIP]
    )


def test_what_the_commands_fetch_is_enough(downloaded):
    preset = in_folder(PRESETS["small"], downloaded)
    assert same(perception.load_unet(preset), perception.load_unet(blank_preset()))
    found = precompute.load_foundations(preset)
    assert (
        same(found.writer.model, load_writer(str(blank_writer())).model)
        and len(found.text_encoder.tokenizer) == 1007
    )


def test_the_commands_know_the_variant_and_the_cache():
    assert all(
        preset.variant == "fp16"
        for preset in PRESETS.values()
        if "diffusion" in config.of_hub(preset)
    ), "the pattern names it"
    for part in config.FILES:
        command = how_to_get(getattr(FULL, part))
        assert (
            config.FILES[part] in command
            and "--local-dir" not in command
            and how_to_get(f"/models/{config.of_hub(FULL)[part][0]}")
            == f"{command[:-1]} --local-dir /models/{config.of_hub(FULL)[part][0]}`"
        )
