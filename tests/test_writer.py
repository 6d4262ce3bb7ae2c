"""Chapter 02: InstructBLIP as the writer of captions, with random weights in the layout of the real folder."""
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (BertTokenizerFast, BlipImageProcessor, InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor, InstructBlipQFormerConfig,
                          InstructBlipVisionConfig, T5Config, T5TokenizerFast)

from kcdp_lib import knowledge
from kcdp_lib.config import PRESETS, RECIPES
from kcdp_lib.errors import KCDPError
from kcdp_lib.writer import BEAMS, INSTRUCTION, LONGEST, SHORTEST, load_writer, write
from blank import blank_preset

WORDS = "a the cat dog smile picture who what is in this describe or facial expression movement body and feeling that they convey of . ? ,".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An InstructBLIP of one layer each, as `save_pretrained` writes it."""
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    query = BertTokenizerFast(vocab={word: i for i, word in enumerate(known)})
    language = T5TokenizerFast(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *[("▁" + word, -2.0) for word in WORDS]], extra_ids=0)
    processor = InstructBlipProcessor(BlipImageProcessor(size={"height": 28, "width": 28}), language, query, num_query_tokens=4)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**small, image_size=28, patch_size=14).to_dict(),
        qformer_config=InstructBlipQFormerConfig(**small, vocab_size=len(known), encoder_hidden_size=16, max_position_embeddings=64).to_dict(),
        text_config=T5Config(vocab_size=len(language), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1).to_dict(),
        num_query_tokens=4, image_token_index=language.convert_tokens_to_ids("<image>"))
    path = tmp_path_factory.mktemp("instructblip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = InstructBlipForConditionalGeneration(config)
        for weight in model.parameters():    # at its usual start every picture would get the same words
            torch.nn.init.normal_(weight, std=0.6)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_writer_describes_every_picture_by_itself(folder, images):
    writer = load_writer(str(folder))
    written = write(writer, images)
    assert len(set(written)) == 3 and all(set(text.split()) <= {*WORDS} for text in written)
    assert [write(writer, image[None])[0] for image in images] == written, "a batch changes nothing"
    assert not any(weight.requires_grad for weight in writer.model.parameters()) and not writer.model.training


def test_it_writes_as_long_and_as_carefully_as_the_authors(folder, images, monkeypatch):
    writer, told = load_writer(str(folder)), {}
    generate = writer.model.generate
    monkeypatch.setattr(writer.model, "generate", lambda **inputs: told.update(inputs) or generate(**inputs))
    write(writer, images)
    assert (told["num_beams"], told["min_new_tokens"], told["max_new_tokens"], told["do_sample"]) == (BEAMS, SHORTEST, LONGEST, False) == (5, 30, 50, False)
    assert told["pixel_values"].shape == (3, 3, 28, 28)
    asked = writer.processor.tokenizer.batch_decode(told["input_ids"], skip_special_tokens=True)
    assert len(set(asked)) == 1 and all(topic in INSTRUCTION for topic in ("Who", "facial expression", "movement of the body", "feeling"))


def test_captions_of_a_preset_with_a_writer_are_the_writers(folder, images):
    preset = replace(blank_preset(), writer=str(folder))
    found = knowledge.describe(images, knowledge.load_foundations(preset), RECIPES["paper"])
    assert found.captions == write(load_writer(str(folder)), images)
    plain = knowledge.describe(images, knowledge.load_foundations(blank_preset()), RECIPES["paper"])
    assert found.captions != plain.captions and torch.equal(found.image_embeddings, plain.image_embeddings)


def test_another_writer_or_parser_is_another_cache_entry(folder):
    keys = [knowledge.frozen_keys(preset, RECIPES["paper"]) for preset in (blank_preset(), replace(blank_preset(), writer=str(folder)), replace(blank_preset(), parser="en_core_web_sm"))]
    assert len({of["captions"] for of in keys}) == 2 and len({of["tokens"] for of in keys}) == 3 and len({of["latents"] for of in keys}) == 1


def test_the_full_size_preset_names_the_papers_writer():
    assert PRESETS["sd15-instructblip"].writer == "Salesforce/instructblip-flan-t5-xl" and PRESETS["sd15-instructblip"].parser == "en_core_web_sm"
    assert replace(PRESETS["sd15-instructblip"], name="sd15", writer=None, parser="rules") == PRESETS["sd15"]


def test_a_writer_that_is_not_there_or_not_whole_gets_a_sentence(folder, tmp_path):
    with pytest.raises(KCDPError, match="download it by `hf download some/model`") as told:
        load_writer("some/model")
    assert "\n" not in str(told.value)
    for file in folder.rglob("*"):
        if file.is_file():
            (tmp_path / file.relative_to(folder)).parent.mkdir(exist_ok=True)
            (tmp_path / file.relative_to(folder)).write_bytes(file.read_bytes())
    state = load_file(folder / "model.safetensors")
    state.pop(next(name for name in state if "qformer" in name))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KCDPError, match="lacks 1 of its weights"):
        load_writer(str(tmp_path))
