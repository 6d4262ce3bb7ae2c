"""Bad input of every kind that a loader can meet, each with its one-line error.

The error names the problem and says what to do.

The table `ROWS` lists what is wrong, how it is made (a function of an empty folder, which loads
what it has damaged), and a part of the error. Damage that is survived (some pictures missing or
broken, a class without pictures, a damaged cache) is tested with the parts themselves.
"""

import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import test_layouts as layouts
import torch
from blank import blank_preset, blank_writer
from PIL import Image
from safetensors.torch import load_file, save_file

from kcdp_lib import KCDPError, config, datasets, paths, precompute
from kcdp_lib.adapt import adapt
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.config import PRESETS, RECIPES, Config, switch_values
from kcdp_lib.knowledge import load_text_encoder
from kcdp_lib.latents import load_vae
from kcdp_lib.perception import load_unet
from kcdp_lib.triplets import load_parser
from kcdp_lib.vision_language import load_vlm
from kcdp_lib.writer import load_writer

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT, VLM, SAVED = (
    "text_encoder/model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors",
)
TO_DO = (
    r"choose|give|download|write|check|add|remove|set|run|leave|bring|get|sort|load|must be|makes "
    r"one"
)


# ---------------------------------------------------------------- ways to damage a file


def text(file: str, content: str | bytes):
    """Replace a file's content."""
    return lambda root: (root / file).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


def cut(file: str, size: int = 1000):
    """Keep only the first bytes, as an interrupted download does."""
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:size])


def gone(*files: str):
    """Delete files or folders."""
    return lambda root: [
        shutil.rmtree(root / file) if (root / file).is_dir() else (root / file).unlink()
        for file in files
    ]


def tensors(file: str, change):
    """Replace the first matrix of a safetensors file by the result of `change`.

    None drops it.
    """

    def spoil(root):
        state = load_file(root / file)
        name = next(
            name for name, tensor in state.items() if tensor.ndim > 1 and "position" not in name
        )  # open_clip resizes positions to fit
        changed = change(state.pop(name))
        save_file(
            {**state, **({} if changed is None else {name: changed})},
            root / file,
            metadata={"format": "pt"},
        )

    return spoil


def pickled(file: str, other: str):
    """Store the same weights as a pickle, under the name that its library would load."""

    def spoil(root):
        torch.save(load_file(root / file), (root / file).with_name(other))
        (root / file).unlink()

    return spoil


# ---------------------------------------------------------------- ways to load what was damaged


def parameters(**wrong):
    return lambda root: Config(**wrong).check()


def folder(spoil=lambda root: None, split: str = "train", **options):
    """Load a user's own folder, damaged by `spoil`."""
    return lambda root: (spoil(root), datasets.load(root, split, **options))


def real(name: str, spoil=lambda root: None, split: str = "train", **options):
    """Load a miniature real data set in its published layout; `spoil` gets its folder."""
    return lambda root: (
        spoil(layouts.WRITERS[name](root)),
        datasets.load(name, split, root, **options),
    )


def diffusion(load, spoil):
    def go(root):
        shutil.copytree(blank_preset().diffusion, root / "pipeline")
        spoil(root / "pipeline")
        load(replace(blank_preset(), diffusion=str(root / "pipeline")))

    return go


def vlm(spoil):
    def go(root):
        shutil.copytree(blank_preset().vlm.removeprefix("local-dir:"), root / "vlm")
        spoil(root / "vlm")
        load_vlm(replace(blank_preset(), vlm=f"local-dir:{root / 'vlm'}"))

    return go


def writer(spoil):
    def go(root):
        shutil.copytree(blank_writer(), root / "writer")
        spoil(root / "writer")
        load_writer(str(root / "writer"))

    return go


def trained(spoil):
    """Load the model of a finished run, damaged by `spoil`."""

    def go(root):
        model().save_pretrained(root / "model")
        spoil(root / "model")
        KCDP.from_pretrained(root / "model")

    return go


def model() -> KCDP:
    torch.manual_seed(0)
    return KCDP(PRESETS["blank"], RECIPES["paper"])


def about(**changes):
    """Change entries of a saved model's config.json."""
    return lambda root: (root / "config.json").write_text(
        json.dumps(json.loads((root / "config.json").read_text()) | changes)
    )


def plain_clip(root):
    """Put a CLIP, which has no decoder, in place of the CoCa."""
    small = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 1,
        },
    }
    (root / "open_clip_config.json").write_text(json.dumps({"model_cfg": small}))
    save_file(open_clip.CLIP(**small).state_dict(), root / VLM)


def lines(*rows) -> str:
    return "\n".join(json.dumps(row) for row in rows)


NOTES = "Annotations/image-level/train.json"
ROWS = [
    # ------------------------------------------------------------ parameters
    (
        "target misspelt",
        parameters(target="stikers"),
        "target='stikers' is neither .* a folder, .*; choose one of photos, stickers",
    ),
    ("target only for pre-training", parameters(target="icons"), "target='icons' is neither"),
    ("target is a number", parameters(target=3), "target=3 must be one of photos, stickers"),
    ("source empty", parameters(source=""), "source='' must be one of photos"),
    ("setting", parameters(setting="both"), "setting='both' is not known; choose one of da, uc"),
    (
        "preset",
        parameters(preset="huge"),
        "preset='huge' is not known; choose one of tiny, sd15, sd15-instructblip",
    ),
    (
        "recipe",
        parameters(recipe="soup"),
        "recipe='soup' is not known; choose one of paper, released, best\\.",
    ),
    (
        "recipe empty",
        parameters(recipe=""),
        "recipe='' is not known; choose one of paper, released, best\\.",
    ),
    (
        "recipe's switch",
        parameters(recipe="paper, colour=red"),
        (
            f"switch of the recipe='colour' is not known; choose one of "
            f"{', '.join(switch_values())}\\."
        ),
    ),
    (
        "recipe's name as a switch",
        parameters(recipe="paper, name=released"),
        "switch of the recipe='name' is not known",
    ),
    (
        "what to train",
        parameters(recipe="best, trained=nothing"),
        r"trained='nothing' is not known; choose one of lora, lora_all, unet, heads\.",
    ),
    (
        "switch beyond the paper",
        parameters(recipe="best, embeddings=some"),
        r"embeddings='some' is not known; choose one of True, False\.",
    ),
    (
        "switch's value",
        parameters(recipe="paper, balance=none"),
        "balance='none' is not known; choose one of load, rank_std",
    ),
    (
        "switch without value",
        parameters(recipe="paper, balance"),
        "balance='' is not known; choose one of load, rank_std",
    ),
    (
        "switch that counts",
        parameters(recipe="released, source_loss_count=3"),
        "source_loss_count='3' is not known; choose one of 1, 2",
    ),
    (
        "switch that is true or false",
        parameters(recipe="released, shuffled=yes"),
        "shuffled='yes' is not known; choose one of True, False",
    ),
    (
        "taxonomy",
        parameters(taxonomy="seven"),
        "taxonomy='seven' is not known; choose one of six, eight",
    ),
    (
        "dial's name",
        parameters(dials="style=1"),
        "There is no dial 'style'; choose among style_gap",
    ),
    ("dial's value", parameters(dials="style_gap=2"), "style_gap=2.0 must be a number from 0 to 1"),
    (
        "dial without value",
        parameters(dials="style_gap"),
        "style_gap='' must be a number from 0 to 1",
    ),
    (
        "target is a path to nothing",
        parameters(target=Path("stickers")),
        "target='./stickers' is neither a known name nor a folder",
    ),
    ("target with a zero byte", parameters(target="a\0b"), "target='a.*b' must be one of photos"),
    (
        "target with a blank before it",
        parameters(target=" stickers"),
        "target=' stickers' is neither .*, perhaps 'stickers' was meant; choose",
    ),
    ("target is several", parameters(target=["photos"]), r"target=\['photos'\] must be one of"),
    ("target in bytes", parameters(target=b"photos"), "target=b'photos' must be one of photos"),
    (
        "preset in capitals",
        parameters(preset="Tiny"),
        "preset='Tiny' is not known, perhaps 'tiny' was meant; choose one of tiny",
    ),
    ("preset none", parameters(preset=None), r"preset=None must be a text\."),
    (
        "setting in capitals",
        parameters(setting="UC"),
        "setting='UC' is not known, perhaps 'uc' was meant; choose one of da, uc",
    ),
    (
        "switch twice",
        parameters(recipe="paper, balance=load, balance=rank_std"),
        "sets balance twice; write it once",
    ),
    ("precision true", parameters(precision=True), "precision=True is not known; choose one of no"),
    (
        "out_dir a number",
        parameters(out_dir=2024),
        "out_dir=2024 must be a folder, in quotation marks .*, or be left out",
    ),
    (
        "out_dir a date",
        parameters(out_dir=date(2024, 5, 1)),
        "out_dir=datetime.date.* must be a folder, in quotation marks",
    ),
    ("out_dir empty", parameters(out_dir=""), "out_dir='' must be a folder, or be left out"),
    ("data_root blank", parameters(data_root="  "), "data_root='  ' must be a folder, or be left"),
    (
        "data_root too long",
        parameters(data_root="x" * 5000),
        r"data_root='x+ \.\.\. is not a folder; give the folder",
    ),
    ("checkpointing a text", parameters(checkpointing="no"), "checkpointing='no' is not known"),
    ("checkpointing a number", parameters(checkpointing=1), "checkpointing=1 is not known; choose"),
    ("dials a number", parameters(dials=0.5), "dials=0.5 must be a text, in quotation marks"),
    ("dial not a number", parameters(dials="style_gap=nan"), "style_gap=nan must be a number"),
    ("accumulation none", parameters(accumulation=None), "accumulation=None must be a whole"),
    (
        "parameter misspelt",
        lambda root: adapt(Config(), taget="noto"),
        "'taget' is no parameter, perhaps 'target' was meant; choose among source, target",
    ),
    ("no Config", lambda root: adapt("stickers"), "adapt is given a str; give a Config, or"),
    ("seed true", parameters(seed=True), "seed=True must be a whole number"),
    ("seed not a number", parameters(seed=float("nan")), "seed=nan must be a whole number"),
    ("seed endless", parameters(seed=float("inf")), "seed=inf must be a whole number"),
    (
        "seed too large",
        parameters(seed=2**32),
        "must be a whole number, 0 or more and at most 4294",
    ),
    ("seed an array", parameters(seed=np.zeros((40, 40))), r"seed=array.* \.\.\. must be a whole"),
    ("epochs too many", parameters(epochs=10**9), "must be a whole number, 1 or more and at most"),
    ("seed negative", parameters(seed=-1), "seed=-1 must be a whole number"),
    (
        "seed is text",
        parameters(seed="0"),
        "seed='0' must be a whole number, .*, without quotation marks",
    ),
    ("epochs none", parameters(epochs=0), "epochs=0 must be a whole number, 1 or more"),
    ("epochs and a half", parameters(epochs=1.5), "epochs=1.5 must be a whole number"),
    ("device", parameters(device="tpu9"), "device='tpu9' is not usable here; leave it out"),
    (
        "data_root not there",
        parameters(data_root="/no/such/folder"),
        "data_root='/no/such/folder' is not a folder; give",
    ),
    (
        "models not there",
        parameters(models="/no/such/folder"),
        (
            "models='/no/such/folder' is not a folder; give the folder that holds the downloaded "
            "models"
        ),
    ),
    (
        "real data without data_root",
        parameters(target="ser30k"),
        "SER30K has to be downloaded by you; set data_root to the folder that holds SER30K/",
    ),
    # ------------------------------------------------------------ folders
    (
        "folder not there",
        lambda root: datasets.load(root / "nowhere", "train"),
        (
            "neither a known domain nor a folder; choose one of photos, stickers, sketches, "
            "paintings, noto"
        ),
    ),
    ("folder empty", folder(), "There are no pictures in .*; give a folder with"),
    (
        "folder without pictures",
        folder(text("readme.txt", "x")),
        r"There are no pictures in .*; ending .txt \(1\); give a folder",
    ),
    (
        "folder of hidden pictures",
        folder(lambda root: (root / ".thumbs").mkdir()),
        r"There are no pictures in .*; hidden folder \(1\); give a folder",
    ),
    (
        "folder that a list names files for",
        folder(text("metadata.csv", "file_name,label\nb.png,happy\n")),
        r"There are no pictures in .*; files that cannot be read \(1\): b.png; give a folder",
    ),
    (
        "folder named like a built-in domain",
        lambda root: ((root / "stickers").mkdir(), datasets.load("stickers", "train", root)),
        "'stickers' is a built-in domain, and .*/stickers is a folder of .*; write ./stickers",
    ),
    (
        "folder named like the shipped drawings",
        lambda root: ((root / "noto").mkdir(), datasets.load("noto", "test", root)),
        "'noto' is a built-in domain, and .* write ./noto for the folder, or give it another name",
    ),
    (
        "folder named like a real data set",
        lambda root: ((root / "fi").mkdir(), datasets.load("fi", "train", root)),
        "fi is not FI as it is published: it lacks train.json, test.json",
    ),
    ("folder without a name", lambda root: datasets.load("", "train"), "'' names no pictures"),
    (
        "folder that is a number",
        lambda root: datasets.load(7, "train"),
        "7 names no pictures; choose",
    ),
    (
        "folder of a user who is not there",
        lambda root: datasets.load("~nobody-of-this-name/x", "train"),
        "neither a known domain nor a folder",
    ),
    (
        "folder with a zero byte in its name",
        lambda root: datasets.load("a\0b", "train"),
        "neither a known domain nor a folder",
    ),
    (
        "all pictures broken",
        folder(text("a.png", "x")),
        r"files that cannot be read \(1\): a.png; give a folder",
    ),
    (
        "split of a folder",
        folder(split="validation"),
        "split='validation' is not known; choose one of train, test",
    ),
    (
        "taxonomy of a folder",
        folder(taxonomy="seven"),
        "taxonomy='seven' is not known; choose one of six, eight",
    ),
    (
        "metadata.jsonl of numbers",
        folder(text("metadata.jsonl", "3")),
        "No row of .*metadata.jsonl can be used: line 1 is no object of JSON; write one object",
    ),
    (
        "metadata.jsonl of lists",
        folder(text("metadata.jsonl", '[["file_name", "a.png"]]')),
        "No row of .*metadata.jsonl can be used: line 1 is no object of JSON; write one object",
    ),
    (
        "metadata.jsonl too deep",
        folder(text("metadata.jsonl", "[" * 100_000)),
        "No row of .*metadata.jsonl can be used: line 1 is no object of JSON; write one object",
    ),
    (
        "metadata.jsonl of bytes that are no text",
        folder(text("metadata.jsonl", b'{"file_name": "\xe9.png"}')),
        r"files that cannot be read \(1\): \\udce9.png; give",
    ),
    (
        "metadata.jsonl without file_name",
        folder(text("metadata.jsonl", lines({"label": "happy"}))),
        "can be used: line 1 has no file_name; each needs a file_name, add the column",
    ),
    (
        "metadata.jsonl with half a letter for file_name",
        folder(text("metadata.jsonl", '{"file_name": "\\ud83d"}')),
        "can be used: line 1 has no file_name",
    ),
    (
        "metadata.jsonl with a number for file_name",
        folder(text("metadata.jsonl", lines({"file_name": 7}))),
        "needs a file_name",
    ),
    (
        "metadata.csv without file_name",
        folder(text("metadata.csv", "name,label\na.png,happy\n")),
        "needs a file_name",
    ),
    (
        "metadata.csv empty",
        folder(text("metadata.csv", "")),
        "metadata.csv cannot be read .*; write a line with file_name and label",
    ),
    (
        "metadata.csv ragged",
        folder(text("metadata.csv", "file_name,label\na,b,c,d\n")),
        "metadata.csv can be used: line 2 has more fields than the header; .*add the column",
    ),
    (
        "metadata.csv with an open quote",
        folder(text("metadata.csv", 'file_name,label\n"a.png,happy\n')),
        "metadata.csv cannot be read .line 2: unexpected end of data.; write a line with file_name",
    ),
    (
        "metadata.csv that is a folder",
        folder(
            lambda root: ((root / "a").mkdir(), (root / "a/metadata.csv").symlink_to(root / "b"))
        ),
        r"There are no pictures in .*; broken link \(1\); give",
    ),
    # ------------------------------------------------------------ real data sets
    *(
        (
            f"{layout.title} in another folder",
            lambda root, name=name: datasets.load(name, "train", root),
            (
                f"is not {layout.title} as it is published: it lacks "
                f"{re.escape(', '.join(layout.expected))}; expected are"
            ),
        )
        for name, layout in datasets.REAL.items()
    ),
    (
        "no such split",
        real("emotionroi", split="val"),
        "EmotionROI has no split 'val'; choose one of train, test",
    ),
    (
        "EmoSet without info.json",
        real("emoset", gone("info.json")),
        "it lacks info.json; expected are info.json, train.json, test.json, image/",
    ),
    (
        "EmoSet without val.json",
        real("emoset", gone("val.json"), "val"),
        "val.json cannot be read .No such file or directory.; check that it is there",
    ),
    (
        "EmoSet's list cut off",
        real("emoset", text("train.json", "[[")),
        "train.json cannot be read as JSON .*; download it again",
    ),
    (
        "EmoSet's info without classes",
        real("emoset", text("info.json", "{}")),
        "info.json has no label2idx; download it again",
    ),
    (
        "EmoSet's info a list",
        real("emoset", text("info.json", "[]")),
        "The train list of EmoSet-118K in .* is not as it is published .*; download it again",
    ),
    (
        "EmoSet's rows too short",
        real("emoset", text("train.json", '[["awe"]]')),
        "train.json can be used: row 1 is no list of label, image and annotation; check",
    ),
    (
        "EmoSet's number out of range",
        real("emoset", text("train.json", '[[8, "image/awe/awe_00000.jpg", "a"]]')),
        "Every label of .*train.json may be wrong: row 1 has the label 8, but the classes count "
        "from 0 to 7; check",
    ),
    (
        "EmoSet's list without labels",
        real("emoset", text("train.json", '[[null, "a.jpg", "a"], ["", "a.jpg", "a"]]')),
        "train.json can be used: row 1 has no label, row 2 has no label; check",
    ),
    (
        "EmoSet's list empty",
        real("emoset", text("train.json", "[]")),
        "None of the 0 pictures that EmoSet-118K lists for 'train' can be read; check",
    ),
    (
        "EmoSet's list a number",
        real("emoset", text("train.json", "7")),
        "The train list of EmoSet-118K in .* is not as it is published",
    ),
    (
        "EmoSet's classes endless",
        real("emoset", text("info.json", '{"label2idx": {"awe": 1e999}}')),
        "The train list of EmoSet-118K in .* is not as it is published",
    ),
    (
        "EmoSet's labels unknown",
        real("emoset", text("train.json", '[["bliss", "image/awe/awe_00000.jpg", "a"]]')),
        "None of the labels that EmoSet-118K has for 'train' is an emotion .*'bliss'; check",
    ),
    (
        "EmoSet's pictures absent",
        real(
            "emoset",
            lambda root: (root / "image").rename(root / "images") and (root / "image").mkdir(),
        ),
        (
            "None of the 24 pictures that EmoSet-118K lists for 'train' can be read; the first, .* "
            "is not there; check"
        ),
    ),
    (
        "EmoSet's pictures broken",
        real("emoset", lambda root: [file.write_bytes(b"x") for file in root.rglob("*.jpg")]),
        "None of the 24 pictures .* is UnidentifiedImageError",
    ),
    (
        "SER30K without annotations",
        real("ser30k", gone("Annotations")),
        r"lacks Annotations/\[image-level/\]train.json, Annotations/\[image-level/\]test.json",
    ),
    (
        "SER30K's annotations a list",
        real("ser30k", text(NOTES, "[]")),
        "The train list of SER30K in .* is not as it is published",
    ),
    (
        "SER30K's row without topic",
        real("ser30k", text(NOTES, '{"annotations": [{"file_name": "a.jpg", "anno": 1}]}')),
        "train.json can be used: row 1 is not as it is published, KeyError 'topic'; check",
    ),
    (
        "SER30K counted from 0",
        real(
            "ser30k",
            text(NOTES, '{"annotations": [{"topic": "t", "file_name": "a.jpg", "anno": 0}]}'),
        ),
        "Every label of .*train.json may be wrong: row 1 has the label 0, but the classes count "
        "from 1 to 7; check",
    ),
    (
        "SER30K's order with a misspelling",
        real("ser30k", text("classes.txt", "surprise hapy disgust fear sadness anger neutral")),
        "classes.txt does not hold each class once; write surprise, happy",
    ),
    (
        "SER30K's order too short",
        real("ser30k", text("classes.txt", "surprise happy")),
        "classes.txt does not hold each class once; write",
    ),
    (
        "FI's rows not pairs",
        real("fi", text("train.json", '[["Amusement/a.jpg"]]')),
        "train.json can be used: row 1 is no pair of picture and number; check",
    ),
    (
        "FI's number out of range",
        real("fi", text("train.json", '[["Amusement/a.jpg", 9]]')),
        "can be used: row 1 has the label 9, but the classes count from 0 to 7; check",
    ),
    (
        "Emo8 without val/",
        real("emo8", gone("val"), "val"),
        "None of the 0 pictures that Emo8 lists for 'val' can be read; check",
    ),
    (
        "EmotionROI's list in another encoding",
        real("emotionroi", text("training_testing_split/training.txt", b"\xe9/1.jpg")),
        r"None of the 1 pictures that EmotionROI lists .*\\udce9/1.jpg, is not there; check",
    ),
    (
        "EmotionROI's list without classes",
        real("emotionroi", text("training_testing_split/training.txt", "1.jpg")),
        "training.txt can be used: row 1 has no class before its file name; check",
    ),
    (
        "Emotion6's line cut off",
        real("emotion6", text("ground_truth.txt", "header\nanger/1.jpg\t5.0\t4.0\t0.1\t0.2")),
        "ground_truth.txt can be used: row 2 lacks the six probabilities of columns 3 to 8; check",
    ),
    # ------------------------------------------------------------ frozen models
    (
        "pipeline not there",
        diffusion(load_unet, lambda root: shutil.rmtree(root)),
        "The unet of .* could not be loaded .*; give a folder that is complete",
    ),
    (
        "UNet without weights",
        diffusion(load_unet, gone(UNET)),
        "The unet of .*no file named diffusion_pytorch_model.safetensors",
    ),
    (
        "UNet cut off",
        diffusion(load_unet, cut(UNET)),
        "The unet of .* could not be loaded .*; give",
    ),
    (
        "UNet lacks a tensor",
        diffusion(load_unet, tensors(UNET, lambda weight: None)),
        "The unet of .* lacks 1 of its weights; give",
    ),
    (
        "UNet with a NaN",
        diffusion(load_unet, tensors(UNET, lambda weight: weight * torch.nan)),
        "The unet of .* has weights that are not finite numbers; give",
    ),
    (
        "UNet of another shape",
        diffusion(load_unet, tensors(UNET, lambda weight: weight[:1].clone())),
        "The unet of .* could not be loaded .*expected shape",
    ),
    (
        "UNet as a pickle",
        diffusion(load_unet, pickled(UNET, "diffusion_pytorch_model.bin")),
        "The unet of .*; give a folder that is complete, with weights in safetensors",
    ),
    (
        "UNet's config cut off",
        diffusion(load_unet, text("unet/config.json", '{"a')),
        "The unet of .*not a valid JSON file",
    ),
    ("VAE without weights", diffusion(load_vae, gone(VAE)), "The vae of .* could not be loaded"),
    (
        "VAE as a pickle",
        diffusion(load_vae, pickled(VAE, "diffusion_pytorch_model.bin")),
        "The vae of .* with weights in safetensors",
    ),
    (
        "text encoder cut off",
        diffusion(load_text_encoder, cut(TEXT)),
        "The text_encoder of .* could not be loaded",
    ),
    (
        "text encoder as a pickle",
        diffusion(load_text_encoder, pickled(TEXT, "pytorch_model.bin")),
        "The text_encoder of .* with weights in safetensors",
    ),
    (
        "text encoder's config a list",
        diffusion(load_text_encoder, text("text_encoder/config.json", "[]")),
        "The text_encoder of .* could not be loaded",
    ),
    (
        "tokenizer missing",
        diffusion(load_text_encoder, gone("tokenizer")),
        r"The tokenizer of .* knows \d words and the model 1007, so files of it are missing; give",
    ),
    (
        "tokenizer cut off",
        diffusion(load_text_encoder, cut("tokenizer/tokenizer.json")),
        "The tokenizer of .* could not be loaded",
    ),
    (
        "VLM not there",
        vlm(lambda root: shutil.rmtree(root)),
        "The vision-language model local-dir:.* could not be loaded .*; give",
    ),
    ("VLM without weights", vlm(gone(VLM)), "there is no open_clip_model.safetensors"),
    ("VLM cut off", vlm(cut(VLM)), "The vision-language model .* could not be loaded"),
    (
        "VLM lacks a tensor",
        vlm(tensors(VLM, lambda weight: None)),
        r"The vision-language model .* could not be loaded .*Missing key\(s\)",
    ),
    (
        "VLM with a NaN",
        vlm(tensors(VLM, lambda weight: weight * torch.nan)),
        "The vision-language model .* has weights that are not finite numbers",
    ),
    (
        "VLM as a pickle",
        vlm(pickled(VLM, "open_clip_pytorch_model.bin")),
        "there is no open_clip_model.safetensors.* with weights in safetensors",
    ),
    (
        "VLM as a pickle beside other safetensors",
        vlm(
            lambda root: (
                shutil.copy(root / VLM, root / "model.safetensors"),
                pickled(VLM, "open_clip_pytorch_model.bin")(root),
            )
        ),
        "with weights in safetensors",
    ),
    ("VLM's config missing", vlm(gone("open_clip_config.json")), "config file missing"),
    ("VLM that is no CoCa", vlm(plain_clip), "cannot write captions; choose a CoCa"),
    (
        "VLM's tokenizer missing",
        vlm(gone("tokenizer.json", "vocab.json", "merges.txt")),
        r"The tokenizer of the vision-language model .* knows \d words and the model 1007",
    ),
    (
        "VLM of an unknown architecture",
        lambda root: load_vlm(
            replace(blank_preset(), vlm="coca_huge", vlm_pretrained=blank_preset().vlm)
        ),
        "The vision-language model coca_huge could not be loaded .*; give a folder",
    ),
    ("writer without weights", writer(gone(SAVED)), "The InstructBLIP of .* could not be loaded"),
    (
        "writer lacks a tensor",
        writer(tensors(SAVED, lambda weight: None)),
        "The InstructBLIP of .* lacks 1 of its weights",
    ),
    (
        "writer as a pickle",
        writer(pickled(SAVED, "pytorch_model.bin")),
        "The InstructBLIP of .* with weights in safetensors",
    ),
    (
        "writer without a processor",
        writer(gone("processor_config.json")),
        "The processor of .* could not be loaded",
    ),
    (
        "writer's tokenizer missing",
        writer(gone("tokenizer.json")),
        r"The tokenizer of the InstructBLIP of .* knows \d words and the model 30",
    ),
    (
        "Q-Former's tokenizer missing",
        writer(gone("qformer_tokenizer/tokenizer.json")),
        r"The tokenizer of the Q-Former of .* knows \d words and the model 31",
    ),
    (
        "parser's model not installed",
        lambda root: load_parser("en_no_such_model"),
        (
            "spaCy's model en_no_such_model is not installed; run `python -m spacy download "
            "en_no_such_model`"
        ),
    ),
    *(
        (
            f"{what} without a commit",
            lambda root, load=load: load(replace(PRESETS["sd15"], diffusion="nobody/nothing")),
            (
                f"The {what} of nobody/nothing could not be loaded .*; give a folder that is "
                "complete, .* or a hub id at its commit"
            ),
        )
        for what, load in (
            ("unet", load_unet),
            ("vae", load_vae),
            ("text_encoder", load_text_encoder),
        )
    ),
    (
        "full-size pipeline not downloaded",
        lambda root: load_vae(PRESETS["sd15"]),
        (
            "download it by `hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --revision "
            "451f4fe16113bff5a5d2269ed5ad43b0592e9a14 --"
        ),
    ),
    (
        "full-size CoCa not downloaded",
        lambda root: load_vlm(PRESETS["sd15"]),
        (
            "download it by `hf download laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k "
            "--revision f895105fb18cf5ea3ba7a1172966e4cc0ad8d743 --"
        ),
    ),
    (
        "full-size writer not downloaded",
        lambda root: load_writer(PRESETS["sd15-instructblip"].writer),
        (
            "download it by `hf download Salesforce/instructblip-flan-t5-xl --revision "
            "bf9bd58cb3bb06e88c03b80f9cc346b90094bc6d --"
        ),
    ),
    # ----------------------------------------------------- trained models and what they are given
    (
        "saved model not there",
        trained(lambda root: shutil.rmtree(root)),
        "does not hold a model of this version .*; give the model/ folder",
    ),
    (
        "saved model's config cut off",
        trained(cut("config.json", 20)),
        "does not hold a model of this version",
    ),
    (
        "saved model's weights cut off",
        trained(cut("model.safetensors")),
        "does not hold a model of this version",
    ),
    (
        "saved model of an unknown preset",
        trained(about(preset="large")),
        "does not hold a model of this version",
    ),
    (
        "saved model of other frozen weights",
        trained(about(stack="others")),
        "was trained on other weights of preset blank than those here; run adapt",
    ),
    (
        "saved model of another recipe",
        trained(about(recipe="released")),
        "The saved weights belong to another model .*; load them with the preset and recipe",
    ),
    (
        "saved model's classes a number",
        trained(about(classes=6)),
        "does not hold a model of this version .*; give the model/ folder",
    ),
    (
        "saved model on a device that is not there",
        lambda root: KCDP.from_pretrained(root, device="cuda:99"),
        "device='cuda:99' is not usable here; leave it out",
    ),
    (
        "no folder of a saved model",
        lambda root: KCDP.from_pretrained(None),
        "does not hold a model",
    ),
    (
        "saved model's config a list",
        trained(text("config.json", "[]")),
        "does not hold a model of this version",
    ),
    (
        "saved model without its stack",
        trained(text("config.json", '{"preset": "tiny", "recipe": "paper", "classes": ["a"]}')),
        "does not hold a model of this version",
    ),
    (
        "one path to predict",
        lambda root: model().predict("a.png"),
        "predict takes several pictures at once; give a list",
    ),
    *(
        (f"{what} to predict", lambda root, images=images: model().predict(images), sentence)
        for what, images, sentence in (
            ("no pictures", [], "There is no picture to predict; give a list"),
            ("a generator of nothing", iter(()), "There is no picture to predict; give a list"),
            ("nothing", None, "predict takes several pictures at once; give a list"),
            ("a number", 5, "predict takes several pictures at once; give a list"),
            ("bytes", b"a.png", "predict takes several pictures at once; give a list"),
            ("an open file", io.BytesIO(b"x"), "predict takes several pictures at once; give a"),
            ("a picture's array", np.zeros((8, 8, 3), np.uint8), "not as ndarray; Image.fromarray"),
            ("a picture's tensor", torch.zeros(3, 8, 8), "not as Tensor; Image.fromarray makes"),
            ("numbers without end", itertools.count(), "not as int; Image.fromarray makes one"),
            ("files in bytes", [b"x"], "given by its path .*, not as bytes; Image.open reads a"),
            ("open files", [io.BytesIO(b"x")], "not as BytesIO; Image.open reads a file"),
            ("an empty picture", [Image.new("RGB", (0, 0))], "Picture 0 has no pixels; leave it"),
        )
    ),
    (
        "a broken picture to predict",
        lambda root: (text("a.png", "x")(root), model().predict([root / "a.png"])),
        "a.png cannot be read as a picture .*; remove it or convert it to PNG",
    ),
    (
        "a missing picture to predict",
        lambda root: model().predict([root / "b.png"]),
        "b.png cannot be read as a picture",
    ),
    (
        "an array to predict",
        lambda root: model().predict([np.zeros((8, 8, 3), np.uint8)]),
        "not as ndarray; Image.fromarray makes one",
    ),
    (
        "a picture too large to be true",
        lambda root: (
            Image.new("1", (400, 400)).save(root / "c.png"),
            datasets.read_images([root / "c.png"], 8),
        ),
        "c.png cannot be read as a picture .*exceeds limit",
    ),
    (
        "nothing to freeze",
        lambda root: precompute.freeze(
            SimpleNamespace(name="none", split="test", key="k", files=[]),
            blank_preset(),
            RECIPES["paper"],
        ),
        "There is no picture in none .*; give a data set or folder",
    ),
    (
        "tokens of another preset",
        lambda root: model()(
            torch.zeros(1, 8, 8, 8), torch.zeros(1, 60, 64), torch.ones(1, 60, dtype=torch.bool)
        ),
        "64 knowledge tokens a picture but got 60; freeze",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def blank():
    """Register the preset `blank`: tiny's sizes on models with random weights.

    Pillow's limit is lowered, so that a picture of 160,000 pixels is too large.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config.PRESETS, "blank", replace(blank_preset(), name="blank"))
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
        yield


@pytest.mark.parametrize("load, sentence", [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_bad_input_gets_one_sentence_that_says_what_to_do(
    load, sentence, tmp_path, monkeypatch, one_thread
):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    with pytest.raises(KCDPError) as told:
        load(tmp_path / "data")
    told = str(told.value)
    assert re.search(sentence, told), told
    assert "\n" not in told and told.endswith(".") and re.search(TO_DO, told), told


def test_the_table_is_long_and_its_names_are_its_own():
    names = [name for name, *_ in ROWS]
    assert len(set(names)) == len(names) >= 25


def test_a_tensor_of_one_number_to_predict_gets_a_sentence_too():
    with pytest.raises(KCDPError, match="predict takes several pictures at once"):
        model().predict(torch.tensor(3))


def test_a_sentence_is_one_line_whatever_a_name_holds():
    sentence = str(KCDPError("a\nb\x85c\u2028d\u202ee\x9bf\udcf6g"))
    assert sentence.isprintable() and sentence.isascii()
