"""Models with random weights in the layouts of the real ones, written once per session.

They suffice to test the parts, which need the layout and no trained weights.
"""

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from transformers import (
    BertTokenizerFast,
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    T5Config,
    T5TokenizerFast,
)

from kcdp_lib.config import PRESETS, Preset
from kcdp_lib.pretrain.blank import write_blank

WORDS = (
    "a the cat dog smile picture who what is in this describe or facial expression movement body "
    "and feeling that they convey of . ? ,"
).split()


def new_folder() -> str:
    """Return a new folder that is deleted at the end of the session."""
    folder = tempfile.mkdtemp(prefix="kcdp-blank-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache
def blank_preset(seed: int = 0) -> Preset:
    """Return the preset `tiny` with randomly initialised models in place of its own."""
    folder = write_blank(new_folder(), seed)
    return replace(PRESETS["tiny"], diffusion=f"{folder}/diffusion", vlm=f"local-dir:{folder}/vlm")


@lru_cache
def blank_writer() -> Path:
    """Return the folder of a saved InstructBLIP of one layer each, which knows `WORDS`."""
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    query = BertTokenizerFast(vocab={word: i for i, word in enumerate(known)})
    language = T5TokenizerFast(
        vocab=[
            ("<pad>", 0.0),
            ("</s>", 0.0),
            ("<unk>", -9.0),
            *[("▁" + word, -2.0) for word in WORDS],
        ],
        extra_ids=0,
    )
    processor = InstructBlipProcessor(
        BlipImageProcessor(size={"height": 28, "width": 28}), language, query, num_query_tokens=4
    )
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**small, image_size=28, patch_size=14).to_dict(),
        qformer_config=InstructBlipQFormerConfig(
            **small, vocab_size=len(known), encoder_hidden_size=16, max_position_embeddings=64
        ).to_dict(),
        text_config=T5Config(
            vocab_size=len(language),
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
        ).to_dict(),
        num_query_tokens=4,
        image_token_index=language.convert_tokens_to_ids("<image>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = InstructBlipForConditionalGeneration(config)
        for (
            weight
        ) in model.parameters():  # default weights would give every picture the same caption
            torch.nn.init.normal_(weight, std=0.6)
    folder = Path(new_folder())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
