"""Chapter 02: InstructBLIP as caption writer, with random weights in the layout of the real one."""

from dataclasses import replace

import pytest
import torch
from blank import WORDS, blank_preset, blank_writer

from kcdp_lib import precompute
from kcdp_lib.config import PRESETS, RECIPES
from kcdp_lib.writer import BEAMS, INSTRUCTION, LONGEST, SHORTEST, load_writer, write


@pytest.fixture(scope="module")
def folder():
    return blank_writer()


@pytest.fixture(scope="module")
def images():
    return torch.randint(
        0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_a_writer_describes_every_picture_by_itself(folder, images):
    writer = load_writer(str(folder))
    written = write(writer, images)
    assert len(set(written)) == 3 and all(set(text.split()) <= {*WORDS} for text in written)
    assert [write(writer, image[None])[0] for image in images] == written, "a batch changes nothing"
    assert (
        not any(weight.requires_grad for weight in writer.model.parameters())
        and not writer.model.training
    )


def test_it_writes_as_long_and_as_carefully_as_the_authors(folder, images, monkeypatch):
    writer, told = load_writer(str(folder)), {}
    generate = writer.model.generate
    monkeypatch.setattr(
        writer.model, "generate", lambda **inputs: told.update(inputs) or generate(**inputs)
    )
    write(writer, images)
    assert (
        (told["num_beams"], told["min_new_tokens"], told["max_new_tokens"], told["do_sample"])
        == (BEAMS, SHORTEST, LONGEST, False)
        == (5, 30, 50, False)
    )
    assert told["pixel_values"].shape == (3, 3, 28, 28)
    asked = writer.processor.tokenizer.batch_decode(told["input_ids"], skip_special_tokens=True)
    assert len(set(asked)) == 1 and all(
        topic in INSTRUCTION
        for topic in ("Who", "facial expression", "movement of the body", "feeling")
    )


def test_captions_of_a_preset_with_a_writer_are_the_writers(folder, images):
    preset = replace(blank_preset(), writer=str(folder))
    found = precompute.describe(images, precompute.load_foundations(preset), RECIPES["paper"])
    assert found.captions == write(load_writer(str(folder)), images)
    plain = precompute.describe(
        images, precompute.load_foundations(blank_preset()), RECIPES["paper"]
    )
    assert found.captions != plain.captions and torch.equal(
        found.image_embeddings, plain.image_embeddings
    )


def test_another_writer_or_parser_is_another_cache_entry(folder):
    keys = [
        precompute.frozen_keys(preset, RECIPES["paper"])
        for preset in (
            blank_preset(),
            replace(blank_preset(), writer=str(folder)),
            replace(blank_preset(), parser="en_core_web_sm"),
        )
    ]
    assert (
        len({of["captions"] for of in keys}) == 2
        and len({of["tokens"] for of in keys}) == 3
        and len({of["latents"] for of in keys}) == 1
    )


def test_the_full_size_preset_names_the_papers_writer():
    assert (
        PRESETS["sd15-instructblip"].writer.startswith("Salesforce/instructblip-flan-t5-xl@")
        and PRESETS["sd15-instructblip"].parser == "en_core_web_sm"
    )
    assert (
        replace(PRESETS["sd15-instructblip"], name="sd15", writer=None, parser="rules")
        == PRESETS["sd15"]
    )
